"""A small artifact made here, from FORMAT.md alone, with the weights that it must give."""

import hashlib
import json
import os
import random
import struct
from typing import Dict, List, Tuple


def f32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def f16(value: float) -> float:
    return struct.unpack("<e", struct.pack("<e", value))[0]


def write_safetensors(path: str, tensors: Dict[str, Tuple[str, Tuple[int, ...], bytes]]) -> None:
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape),
                        "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def packed_layer(name: str, bits: int, outputs: int, inputs: int, group: int, seed: int):
    """Tensors of a random layer, and its weights by the definition."""
    rng = random.Random(seed)
    groups, words = inputs // group, (inputs + 31) // 32
    codes = [[rng.randrange(1 << bits) for _ in range(inputs)] for _ in range(outputs)]
    alpha = [[[f16(rng.uniform(-1, 1)) for _ in range(outputs)] for _ in range(bits)]
             for _ in range(groups)]
    beta = [[f16(rng.uniform(-1, 1)) for _ in range(outputs)] for _ in range(groups)]
    planes = [[[0] * outputs for _ in range(bits)] for _ in range(words)]
    weights: List[List[float]] = []
    for r in range(outputs):
        row = []
        for k in range(inputs):
            total = 0.0
            for i in range(bits):
                positive = not codes[r][k] >> (bits - 1 - i) & 1
                planes[k // 32][i][r] |= int(positive) << k % 32
                term = alpha[k // group][i][r] * (1 if positive else -1)
                total = term if i == 0 else f32(total + term)
            row.append(f32(total + beta[k // group][r]))
        weights.append(row)
    flat = lambda nested: [x for y in nested for x in (flat(y) if isinstance(y, list) else [y])]
    tensors = {
        f"{name}.qweight": ("I32", (words, bits, outputs),
                            struct.pack(f"<{words * bits * outputs}I", *flat(planes))),
        f"{name}.alpha_{bits}": ("F16", (groups, bits, outputs),
                                 struct.pack(f"<{groups * bits * outputs}e", *flat(alpha))),
        f"{name}.beta_{bits}": ("F16", (groups, outputs),
                                struct.pack(f"<{groups * outputs}e", *flat(beta))),
        f"{name}.q_bias": ("F16", (groups, outputs), bytes(2 * groups * outputs)),
    }
    return tensors, weights


def write_artifact(directory: str) -> Dict[str, List[List[float]]]:
    layers = {"model.layers.0.self_attn.q_proj": (3, 4, 64, 32),
              "model.layers.0.mlp.down_proj": (2, 3, 40, 40)}
    tensors, weights, modules = {}, {}, []
    for seed, (name, (bits, outputs, inputs, group)) in enumerate(layers.items()):
        made, weights[name] = packed_layer(name, bits, outputs, inputs, group, seed)
        tensors.update(made)
        modules.append({"name": name, "num_outputs": outputs, "num_inputs": inputs,
                        "status": "quantized", "bits": bits, "group_size": group,
                        "weight_error": 0.0, "num_saturated": 0})
    modules.append({"name": "lm_head", "num_outputs": 8, "num_inputs": 4,
                    "status": "full_precision", "reason": "tied to the embedding"})
    tensors["model.norm.weight"] = ("BF16", (4,), bytes(8))
    write_safetensors(os.path.join(directory, "model.safetensors"), tensors)
    config = {"model_type": "llama",
              "quantization_config": {"quant_method": "uniquanf", "format_version": 1, "bits": 3,
                                      "group_size": 32, "modules_to_not_convert": ["lm_head"]}}
    with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    files = []
    for name in ("config.json", "model.safetensors"):
        with open(os.path.join(directory, name), "rb") as file:
            data = file.read()
        files.append({"path": name, "size_bytes": len(data),
                      "sha256": hashlib.sha256(data).hexdigest()})
    manifest = {"format": "uniquanf-artifact", "version": 1, "software_version": "0.1.0",
                "environment": "test", "spec": {}, "model": {}, "modules": modules, "layers": [],
                "anybcq_omitted": "test", "files": files, "attachments": []}
    with open(os.path.join(directory, "manifest.json"), "w", encoding="utf-8") as file:
        json.dump(manifest, file)
    return weights
