"""Weights out of exported files, written from the formats' own specifications with the standard
library alone; nothing here knows the writer. Each reader gives rows of one module as floats."""

import json
import os
import struct
from typing import Dict, List, Tuple

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # output of a word's nibbles, least significant first


def f32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


class Checkpoint:
    """A Hugging Face directory of safetensors files."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
            self.config = json.load(file)
        with open(os.path.join(directory, "model.safetensors.index.json"), encoding="utf-8") as f:
            self.files = json.load(f)["weight_map"]
        self.headers: Dict[str, Tuple[int, dict]] = {}
        for name in set(self.files.values()):
            with open(os.path.join(directory, name), "rb") as file:
                length = struct.unpack("<Q", file.read(8))[0]
                self.headers[name] = (8 + length, json.loads(file.read(length)))

    def tensor(self, name: str) -> Tuple[List[int], tuple]:
        start, header = self.headers[self.files[name]]
        entry = header[name]
        begin, end = entry["data_offsets"]
        with open(os.path.join(self.directory, self.files[name]), "rb") as file:
            file.seek(start + begin)
            data = file.read(end - begin)
        if entry["dtype"] == "BF16":
            words = struct.unpack(f"<{len(data) // 2}H", data)
            return entry["shape"], tuple(
                struct.unpack("<f", struct.pack("<I", w << 16))[0] for w in words)
        code = {"F16": "e", "I32": "I", "I64": "q", "F32": "f"}[entry["dtype"]]
        size = struct.calcsize(code)
        return entry["shape"], struct.unpack(f"<{len(data) // size}{code}", data)


def stream(words: List[int], index: int, bits: int) -> int:
    """Value `index` of a little-endian stream of `bits`-bit values."""
    at = index * bits
    value = words[at // 32] >> at % 32
    if at % 32 + bits > 32:
        value |= words[at // 32 + 1] << 32 - at % 32
    return value & (1 << bits) - 1


def dense_rows(c: Checkpoint, module: str, rows: List[int]) -> List[List[float]]:
    (_, inputs), values = c.tensor(module + ".weight")
    return [list(values[r * inputs:(r + 1) * inputs]) for r in rows]


def gptq_rows(c: Checkpoint, module: str, rows: List[int]) -> List[List[float]]:
    config = c.config["quantization_config"]
    bits, plus = config["bits"], 1 if config["checkpoint_format"] == "gptq" else 0
    (_, outputs), qweight = c.tensor(module + ".qweight")
    (_, zero_words), qzeros = c.tensor(module + ".qzeros")
    _, scales = c.tensor(module + ".scales")
    _, g_idx = c.tensor(module + ".g_idx")
    result = []
    for r in rows:
        words = list(qweight[r::outputs])
        row = []
        for k, group in enumerate(g_idx):
            zero = stream(list(qzeros[group * zero_words:(group + 1) * zero_words]), r, bits) + plus
            row.append(f32(scales[group * outputs + r] * (stream(words, k, bits) - zero)))
        result.append(row)
    return result


def awq_rows(c: Checkpoint, module: str, rows: List[int]) -> List[List[float]]:
    (inputs, words), qweight = c.tensor(module + ".qweight")
    (groups, _), qzeros = c.tensor(module + ".qzeros")
    (_, outputs), scales = c.tensor(module + ".scales")
    result = []
    for r in rows:
        shift = 4 * AWQ_ORDER.index(r % 8)
        row = []
        for k in range(inputs):
            group = k // (inputs // groups)
            q = qweight[k * words + r // 8] >> shift & 15
            zero = qzeros[group * words + r // 8] >> shift & 15
            row.append(f32(scales[group * outputs + r] * (q - zero)))
        result.append(row)
    return result


def compressed_rows(c: Checkpoint, module: str, rows: List[int]) -> List[List[float]]:
    weights = c.config["quantization_config"]["config_groups"]["group_0"]["weights"]
    bits = weights["num_bits"]
    (_, words), packed = c.tensor(module + ".weight_packed")
    (_, groups), scales = c.tensor(module + ".weight_scale")
    _, (_, inputs) = c.tensor(module + ".weight_shape")
    per_word, half = 32 // bits, 1 << bits - 1
    result = []
    for r in rows:
        row = []
        for k in range(inputs):
            group = k // (inputs // groups)
            q = (packed[r * words + k // per_word] >> k % per_word * bits & (1 << bits) - 1) - half
            zero = 0
            if not weights["symmetric"]:
                _, zeros = c.tensor(module + ".weight_zero_point")
                zero = (zeros[r // per_word * groups + group] >> r % per_word * bits
                        & (1 << bits) - 1) - half
            row.append(f32(scales[r * groups + group] * (q - zero)))
        result.append(row)
    return result


def planes_rows(c: Checkpoint, module: str, rows: List[int], names: Tuple[str, str, str]
                ) -> List[List[float]]:
    """LUT-GEMM and AnyBCQ: words [K/32][n][N], alpha [G][n][N], shift [G][N]."""
    (words, bits, outputs), planes = c.tensor(module + names[0])
    (groups, _, _), alpha = c.tensor(module + names[1])
    _, shift = c.tensor(module + names[2])
    inputs = words * 32
    result = []
    for r in rows:
        row = []
        for k in range(inputs):
            group = k // (inputs // groups)
            total = 0.0
            for i in range(bits):
                a = alpha[(group * bits + i) * outputs + r]
                term = a if planes[(k // 32 * bits + i) * outputs + r] >> k % 32 & 1 else -a
                total = term if i == 0 else f32(total + term)
            row.append(f32(total + shift[group * outputs + r]))
        result.append(row)
    return result


def any_precision_rows(c: Checkpoint, module: str, rows: List[int]) -> List[List[float]]:
    (bits, outputs, words), qweight = c.tensor(module + ".qweight")
    _, lut = c.tensor(f"{module}.lut{bits}")
    result = []
    for r in rows:
        index = [0] * (words * 32)
        for base in range(0, words * 32, 1024):
            t_count = min(1024, words * 32 - base) // 32
            for i in range(bits):
                for t in range(t_count):
                    word = qweight[(i * outputs + r) * words + base // 32 + t]
                    for byte in range(4):
                        for j in range(8):
                            column = base + byte * 8 * t_count + 8 * t + j
                            index[column] |= (word >> 31 - 8 * byte - j & 1) << bits - 1 - i
        result.append([lut[(r << bits) + i] for i in index])
    return result


class Gguf:
    """A GGUF version 3 file."""

    _SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
                12: "d"}

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            self.data = file.read()
        self.at = 0
        magic, version, tensors, entries = self._read("<4sIQQ")
        assert (magic, version) == (b"GGUF", 3)
        self.metadata = {}
        for _ in range(entries):
            key = self._string()
            self.metadata[key] = self._value(self._read("<I")[0])
        self.tensors = {}
        for _ in range(tensors):
            name = self._string()
            dims = self._read(f"<{self._read('<I')[0]}Q")
            kind, offset = self._read("<IQ")
            self.tensors[name] = (dims, kind, offset)
        alignment = self.metadata.get("general.alignment", 32)
        self.start = (self.at + alignment - 1) // alignment * alignment

    def _read(self, form: str) -> tuple:
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def _string(self) -> str:
        length = self._read("<Q")[0]
        self.at += length
        return self.data[self.at - length:self.at].decode("utf-8")

    def _value(self, kind: int):
        if kind == 8:
            return self._string()
        if kind == 9:
            element, count = self._read("<IQ")
            return [self._value(element) for _ in range(count)]
        return self._read("<" + self._SCALARS[kind])[0]

    def rows(self, name: str, rows: List[int]) -> List[List[float]]:
        (inputs, *_), kind, offset = self.tensors[name]
        size = {0: 128, 1: 64, 2: 18, 3: 20, 6: 22, 7: 24, 8: 34}[kind]
        result = []
        for r in rows:
            row: List[float] = []
            for block in range(inputs // 32):
                at = self.start + offset + (r * inputs // 32 + block) * size
                row += self._block(kind, self.data[at:at + size])
            result.append(row)
        return result

    @staticmethod
    def _block(kind: int, b: bytes) -> List[float]:
        if kind == 0:
            return list(struct.unpack("<32f", b))
        if kind == 1:
            return list(struct.unpack("<32e", b))
        d = struct.unpack_from("<e", b)[0]
        if kind == 8:
            return [f32(d * q) for q in struct.unpack_from("<32b", b, 2)]
        m = struct.unpack_from("<e", b, 2)[0] if kind in (3, 7) else None
        at = 4 if m is not None else 2
        fifth = 0
        if kind in (6, 7):
            fifth = struct.unpack_from("<I", b, at)[0]
            at += 4
        values = []
        for j in range(32):
            nibble = b[at + j % 16] >> (4 if j >= 16 else 0) & 15
            q = nibble | (fifth >> j & 1) << 4
            if m is None:
                values.append(f32(d * (q - (16 if kind == 6 else 8))))
            else:
                values.append(f32(f32(d * q) + m))
        return values
