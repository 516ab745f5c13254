"""`read_artifact`: a unified artifact on a local disk, checked."""

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Tuple

from .errors import ArtifactError
from .manifest import Manifest, ModuleEntry, parse_manifest
from .packing import dequantize_rows
from .safetensors import SafetensorsFile
from .strict_json import parse_object

_MAX_JSON_BYTES = 256 << 20


@dataclass(frozen=True)
class QuantizedModule:
    """One linear layer, still packed. Raw little-endian bytes: `qweight` i32 [Kp/32, n, N], `alpha`
    f16 [G, n, N], `beta` f16 [G, N]."""

    name: str
    bits: int
    shape: Tuple[int, int]  # outputs, inputs
    group_size: int
    _read: Callable[[str], bytes]

    @property
    def qweight(self) -> bytes:
        return self._read(f"{self.name}.qweight")

    @property
    def alpha(self) -> bytes:
        return self._read(f"{self.name}.alpha_{self.bits}")

    @property
    def beta(self) -> bytes:
        return self._read(f"{self.name}.beta_{self.bits}")

    def rows(self, first: int = 0, end: Optional[int] = None) -> Any:
        """Rows of the weight in float32: a numpy array, or a list of array('f') without numpy."""
        end = self.shape[0] if end is None else end
        if not 0 <= first <= end <= self.shape[0]:
            raise IndexError(f"rows {first} to {end} of {self.shape[0]}")
        return dequantize_rows(self.qweight, self.alpha, self.beta, self.bits, self.shape[0],
                               self.shape[1], self.group_size, first, end)


class Artifact:
    """A manifest, a config and tensors; made by read_artifact."""

    def __init__(self, path: str, manifest: Manifest, config: Dict[str, Any],
                 tensors: Dict[str, SafetensorsFile]) -> None:
        self.path = path
        self.manifest: Mapping[str, Any] = manifest.raw
        self.config: Mapping[str, Any] = config
        self._tensors = tensors
        self.modules: Mapping[str, QuantizedModule] = {
            m.name: QuantizedModule(m.name, m.bits, (m.num_outputs, m.num_inputs), m.group_size,
                                    self.read_tensor)
            for m in manifest.modules if m.bits}

    def tensor_names(self) -> Iterator[str]:
        return iter(sorted(self._tensors))

    def tensor_info(self, name: str) -> Any:
        return self._shard(name).tensors[name]

    def read_tensor(self, name: str) -> bytes:
        """A tensor's little-endian bytes."""
        return self._shard(name).read(name)

    def _shard(self, name: str) -> SafetensorsFile:
        if name not in self._tensors:
            raise ArtifactError("TENSOR_NOT_FOUND", f'there is no tensor "{name}"')
        return self._tensors[name]


def _check_digest(path: str, size: int, digest: str, name: str) -> None:
    found = hashlib.sha256()
    try:
        if os.path.getsize(path) != size:
            raise ArtifactError("DIGEST_MISMATCH", f"{name} has {os.path.getsize(path)} bytes, "
                                f"the manifest says {size}")
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                found.update(chunk)
    except OSError as error:
        raise ArtifactError("ARTIFACT_NOT_FOUND", f"{name}: {error}") from None
    if found.hexdigest() != digest:
        raise ArtifactError("DIGEST_MISMATCH", f"{name} is not what the manifest digests")


def _read_json(directory: str, name: str, reason: str) -> bytes:
    path = os.path.join(directory, name)
    try:
        if os.path.getsize(path) > _MAX_JSON_BYTES:
            raise ArtifactError(reason, f"{name} is larger than {_MAX_JSON_BYTES} bytes")
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ArtifactError("ARTIFACT_NOT_FOUND", f"{name}: {error}") from None


def _expected(module: ModuleEntry) -> Dict[str, Tuple[str, Tuple[int, ...]]]:
    words, groups = (module.num_inputs + 31) // 32, module.num_inputs // module.group_size
    n, outputs = module.bits, module.num_outputs
    return {f"{module.name}.qweight": ("I32", (words, n, outputs)),
            f"{module.name}.alpha_{n}": ("F16", (groups, n, outputs)),
            f"{module.name}.beta_{n}": ("F16", (groups, outputs)),
            f"{module.name}.q_bias": ("F16", (groups, outputs))}


def _check_module(module: ModuleEntry, tensors: Dict[str, SafetensorsFile]) -> None:
    for name, (dtype, shape) in _expected(module).items():
        shard = tensors.get(name)
        if shard is None:
            raise ArtifactError("TENSOR_NOT_FOUND", f'there is no tensor "{name}"')
        info = shard.tensors[name]
        if info.dtype != dtype:
            raise ArtifactError("TENSOR_DTYPE", f'tensor "{name}" is {info.dtype}, not {dtype}')
        if info.shape != shape:
            raise ArtifactError("TENSOR_SHAPE", f'tensor "{name}" is {info.shape}, not {shape}')
        if dtype == "F16" and not name.endswith(".q_bias"):
            data = shard.read(name)
            for i, (bits,) in enumerate(struct.iter_unpack("<H", data)):
                if bits & 0x7C00 == 0x7C00:
                    raise ArtifactError("INVALID_ARTIFACT",
                                        f'tensor "{name}", element {i} is not a finite number')


def read_artifact(path: "os.PathLike[str] | str", verify: bool = True) -> Artifact:
    """Opens the artifact in the directory `path`. `verify` hashes every file against the manifest;
    without it sizes, headers, shapes and scales are still checked. Raises ArtifactError."""
    directory = os.fspath(path)
    manifest = parse_manifest(_read_json(directory, "manifest.json", "INVALID_MANIFEST"))
    shards = []
    for file in manifest.files:
        full = os.path.join(directory, *file.path.split("/"))
        if verify:
            _check_digest(full, file.size_bytes, file.sha256, file.path)
        if file.path.endswith(".safetensors"):
            shards.append(SafetensorsFile(full))
    config = parse_object(_read_json(directory, "config.json", "INVALID_ARTIFACT"), "config.json",
                          "INVALID_ARTIFACT")
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict) or quantization.get("quant_method") != "uniquanf":
        raise ArtifactError("INVALID_ARTIFACT", "config.json: quantization_config.quant_method is "
                            "not uniquanf")
    tensors: Dict[str, SafetensorsFile] = {}
    for shard in shards:
        for name in shard.tensors:
            if name in tensors:
                raise ArtifactError("INVALID_ARTIFACT", f'tensor "{name}" lies in '
                                    f"{tensors[name].name} and in {shard.name}")
            tensors[name] = shard
    for module in manifest.modules:
        if module.bits:
            _check_module(module, tensors)
    return Artifact(directory, manifest, config, tensors)
