"""The safetensors format, read with the standard library alone; files are untrusted."""

import os
import struct
from dataclasses import dataclass
from typing import Dict, Tuple

from .errors import ArtifactError
from .strict_json import parse_object

DTYPE_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}
_MAX_HEADER_BYTES = 100 << 20


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: `offset` is absolute in the file."""

    name: str
    dtype: str
    shape: Tuple[int, ...]
    offset: int
    size_bytes: int


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


class SafetensorsFile:
    """One file, its header read and checked; bytes are read when asked for."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.tensors: Dict[str, TensorInfo] = {}
        try:
            size = os.path.getsize(path)
            with open(path, "rb") as file:
                prefix = file.read(8)
                if len(prefix) < 8:
                    raise self._error("SAFETENSORS_TRUNCATED", "it is shorter than 8 bytes")
                length = struct.unpack("<Q", prefix)[0]
                if length > _MAX_HEADER_BYTES or length > size - 8:
                    raise self._error("SAFETENSORS_BAD_HEADER",
                                      f"a header of {length} bytes in a file of {size}")
                header = file.read(length)
        except OSError as error:
            raise self._error("ARTIFACT_NOT_FOUND", str(error)) from None
        self._parse(header, size - 8 - length, 8 + length)

    def _error(self, reason: str, message: str) -> ArtifactError:
        return ArtifactError(reason, f"{self.name}: {message}")

    def _parse(self, header: bytes, data_bytes: int, start: int) -> None:
        ranges = []
        for name, entry in parse_object(header, self.name, "SAFETENSORS_BAD_HEADER").items():
            if name == "__metadata__":
                continue
            info = self._entry(name, entry, start, data_bytes)
            self.tensors[name] = info
            ranges.append((info.offset, info.offset + info.size_bytes, name))
        ranges.sort()
        for (_, end, first), (begin, _, second) in zip(ranges, ranges[1:]):
            if begin < end:
                raise self._error("SAFETENSORS_BAD_OFFSETS", f'"{first}" and "{second}" overlap')

    def _entry(self, name: str, entry: object, start: int, data_bytes: int) -> TensorInfo:
        def bad(what: str) -> ArtifactError:
            return self._error("SAFETENSORS_BAD_HEADER", f'tensor "{name}": {what}')

        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise bad("its entry has not exactly dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
            raise bad(f"unknown dtype {dtype!r}")
        if not isinstance(shape, list) or len(shape) > 64 or not all(map(_whole, shape)):
            raise bad(f"shape {shape!r}")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_whole, offsets)):
            raise bad(f"data_offsets {offsets!r}")
        bits = DTYPE_BITS[dtype]
        for dim in shape:
            bits *= dim
        size = -(-bits // 8)
        begin, end = offsets
        if bits % 8 or end > data_bytes or begin > end or end - begin != size:
            raise self._error("SAFETENSORS_BAD_OFFSETS",
                              f'tensor "{name}": bytes {begin} to {end} of {data_bytes}, '
                              f"{size} expected")
        return TensorInfo(name, dtype, tuple(shape), start + begin, size)

    def read(self, name: str) -> bytes:
        """A tensor's little-endian bytes."""
        info = self.tensors.get(name)
        if info is None:
            raise self._error("TENSOR_NOT_FOUND", f'there is no tensor "{name}"')
        with open(self.path, "rb") as file:
            file.seek(info.offset)
            data = file.read(info.size_bytes)
        if len(data) != info.size_bytes:
            raise self._error("SAFETENSORS_TRUNCATED", f'tensor "{name}" ends too early')
        return data
