#!/usr/bin/env python3
"""Plants outlier channels into a checkpoint without changing its function, as models with massive activations have them.

    plant_outliers.py MODEL OUTPUT --exponent K [--where norms,mlp,values] [--channels 3,17,29] [--layers 0,1,...]

norms: both norms of a layer, channels × 2^K, and the columns of what reads them × 2^-K. mlp: rows of up_proj × 2^K, columns of
down_proj × 2^-K. values: rows (and bias) of v_proj × 2^K, the columns of o_proj that read them × 2^-K. Powers of two, so that
bf16, fp16 and f32 compute the same as before (fp16 as far as its range goes: a product that is not exact is an error).

MODEL: Llama's tensor names, safetensors in BF16, F16 or F32, one file or several.
"""
import argparse
import json
import os
import shutil
import struct
import sys

KINDS = {"F32": ("f", 4), "F16": ("e", 2), "BF16": ("H", 2)}


class Checkpoint:
    """All tensors' bytes, in memory; save() writes the files anew."""

    def __init__(self, folder):
        self.files = {}
        for name in sorted(os.listdir(folder)):
            if not name.endswith(".safetensors"):
                continue
            with open(os.path.join(folder, name), "rb") as file:
                size = struct.unpack("<Q", file.read(8))[0]
                header = json.loads(file.read(size))
                self.files[name] = (header, bytearray(file.read()), size)

    def find(self, tensor):
        for header, data, _ in self.files.values():
            if tensor in header:
                entry = header[tensor]
                return entry["dtype"], entry["shape"], data, entry["data_offsets"][0]
        return None

    def scale(self, tensor, indices, power):
        """The elements × 2^power; where one is not exact, an error."""
        found = self.find(tensor)
        if found is None:
            raise SystemExit(f"no tensor {tensor}")
        dtype, _, data, start = found
        if dtype not in KINDS:
            raise SystemExit(f"{tensor} is {dtype}; allowed: {', '.join(KINDS)}")
        kind, size = KINDS[dtype]
        for index in indices:
            at = start + index * size
            if dtype == "BF16":
                bits = struct.unpack_from("<H", data, at)[0]
                value = struct.unpack("<f", struct.pack("<I", bits << 16))[0]
                scaled = struct.unpack("<I", struct.pack("<f", value * 2.0**power))[0]
                if scaled & 0xFFFF:
                    raise SystemExit(f"{tensor}[{index}] × 2^{power} is not exact in bfloat16")
                struct.pack_into("<H", data, at, scaled >> 16)
            else:
                value = struct.unpack_from("<" + kind, data, at)[0]
                struct.pack_into("<" + kind, data, at, value * 2.0**power)
                if struct.unpack_from("<" + kind, data, at)[0] != value * 2.0**power:
                    raise SystemExit(f"{tensor}[{index}] × 2^{power} is not exact in {dtype}")

    def row(self, tensor, row, power):
        width = self.find(tensor)[1][1]
        self.scale(tensor, range(row * width, (row + 1) * width), power)

    def column(self, tensor, column, power):
        height, width = self.find(tensor)[1]
        self.scale(tensor, range(column, height * width, width), power)

    def save(self, folder):
        for name, (header, data, _) in self.files.items():
            text = json.dumps(header, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            with open(os.path.join(folder, name), "wb") as file:
                file.write(struct.pack("<Q", len(text)) + text + data)


def plant(model, config, exponent, places, channels, layers):
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    for layer in layers:
        prefix = f"model.layers.{layer}."
        for channel in channels:
            if "norms" in places:
                readers = {"input_layernorm": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
                           "post_attention_layernorm": ["mlp.gate_proj", "mlp.up_proj"]}
                for norm, linears in readers.items():
                    model.scale(f"{prefix}{norm}.weight", [channel], exponent)
                    for linear in linears:
                        model.column(f"{prefix}{linear}.weight", channel, -exponent)
            if "mlp" in places:
                model.row(prefix + "mlp.up_proj.weight", channel, exponent)
                model.column(prefix + "mlp.down_proj.weight", channel, -exponent)
            if "values" in places and channel < kv_heads * head_dim:
                model.row(prefix + "self_attn.v_proj.weight", channel, exponent)
                if model.find(prefix + "self_attn.v_proj.bias"):
                    model.scale(prefix + "self_attn.v_proj.bias", [channel], exponent)
                share = heads // kv_heads
                for head in range(channel // head_dim * share, (channel // head_dim + 1) * share):
                    model.column(prefix + "self_attn.o_proj.weight", head * head_dim + channel % head_dim, -exponent)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("output")
    parser.add_argument("--exponent", type=int, required=True)
    parser.add_argument("--where", default="norms")
    parser.add_argument("--channels", default="3,17,29")
    parser.add_argument("--layers", default="")
    options = parser.parse_args()
    with open(os.path.join(options.model, "config.json")) as file:
        config = json.load(file)
    places = options.where.split(",")
    for place in places:
        if place not in ("norms", "mlp", "values"):
            parser.error(f"--where {place}; allowed: norms, mlp, values")
    layers = [int(layer) for layer in options.layers.split(",") if layer] or range(config["num_hidden_layers"])
    model = Checkpoint(options.model)
    plant(model, config, options.exponent, places, [int(c) for c in options.channels.split(",")], layers)
    os.makedirs(options.output)
    for name in os.listdir(options.model):
        if not name.endswith(".safetensors"):
            shutil.copyfile(os.path.join(options.model, name), os.path.join(options.output, name))
    model.save(options.output)


if __name__ == "__main__":
    sys.exit(main())
