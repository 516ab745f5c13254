"""From planes and scales to weights (FORMAT.md, "The weight" and "Arithmetic")."""

import struct
from array import array
from typing import Any, List, Sequence

try:
    import numpy
except ImportError:  # everything works without it, slower
    numpy = None


def _f32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _levels(alpha: Sequence[float], beta: float) -> List[float]:
    """Level of every sign pattern, bit i of the index for plane i; rounded to float32 each step."""
    levels = []
    for signs in range(1 << len(alpha)):
        total = 0.0
        for i, a in enumerate(alpha):
            term = a if signs >> i & 1 else -a
            total = term if i == 0 else _f32(total + term)
        levels.append(_f32(total + beta))
    return levels


def _plain_rows(qweight: bytes, alpha: bytes, beta: bytes, bits: int, outputs: int, inputs: int,
                group_size: int, first: int, end: int) -> "List[array[float]]":
    words = struct.unpack(f"<{len(qweight) // 4}I", qweight)
    alphas = struct.unpack(f"<{len(alpha) // 2}e", alpha)
    betas = struct.unpack(f"<{len(beta) // 2}e", beta)
    rows = []
    for row in range(first, end):
        values = array("f")
        for group in range(inputs // group_size):
            base = group * bits * outputs + row
            levels = _levels([alphas[base + i * outputs] for i in range(bits)],
                             betas[group * outputs + row])
            for k in range(group * group_size, (group + 1) * group_size):
                at = k // 32 * bits * outputs + row
                index = 0
                for i in range(bits):
                    index |= (words[at + i * outputs] >> k % 32 & 1) << i
                values.append(levels[index])
        rows.append(values)
    return rows


def _numpy_rows(qweight: bytes, alpha: bytes, beta: bytes, bits: int, outputs: int, inputs: int,
                group_size: int, first: int, end: int) -> Any:
    np = numpy
    words = np.frombuffer(qweight, "<u4").reshape(-1, bits, outputs)[:, :, first:end]
    alphas = np.frombuffer(alpha, "<f2").reshape(-1, bits, outputs)[:, :, first:end]
    betas = np.frombuffer(beta, "<f2").reshape(-1, outputs)[:, first:end].astype(np.float32)
    shifts = np.arange(32, dtype=np.uint32)[None, :, None]
    total = None
    for i in range(bits):
        signs = (words[:, i, None, :] >> shifts & 1).reshape(-1, end - first)[:inputs]
        a = np.repeat(alphas[:, i].astype(np.float32), group_size, axis=0)
        term = np.where(signs == 1, a, -a)
        total = term if total is None else total + term
    return np.ascontiguousarray((total + np.repeat(betas, group_size, axis=0)).T)


def dequantize_rows(qweight: bytes, alpha: bytes, beta: bytes, bits: int, outputs: int, inputs: int,
                    group_size: int, first: int, end: int) -> Any:
    """Rows first..end of the weight: a float32 numpy array, or a list of array('f') without numpy."""
    function = _plain_rows if numpy is None else _numpy_rows
    return function(qweight, alpha, beta, bits, outputs, inputs, group_size, first, end)
