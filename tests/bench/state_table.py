#!/usr/bin/env python3
"""Perplexity with optimizer_state = bf16 against f32 over seeds, in one table.

    state_table.py UNIQUANF_BATCH NAME=MODEL,CALIBRATION,EVALUATION... [flags]

Same seed, same everything else: the difference of a pair is free of what the seed does to both. A row passes when the mean
change is at most 0.2% plus two standard errors. The first seed of each row runs twice with bf16: the manifests must be equal.
Exit code 1 when a row fails.
"""
import argparse
import concurrent.futures
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

LIMIT = 0.002


def run(task, options, folder):
    name, (model, calibration, evaluation), bits, seed, state, repeat = task
    out = os.path.join(folder, f"{name}-{bits}-{seed}-{state}-{repeat}")
    command = [options.batch, "quantize", "--model", model, "--calibration", calibration, "--evaluation", evaluation,
               "--output", out, "--bits", str(bits), "--seed", str(seed), "--optimizer-state", state,
               "--num-samples", "64", "--sequence-length", "512", "--epochs", str(options.epochs),
               "--input-prob", str(options.input_prob), "--device", options.device, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    shutil.rmtree(out, ignore_errors=True)
    if done.returncode != 0:
        raise RuntimeError(" ".join(command) + "\n" + done.stdout[-2000:] + done.stderr[-2000:])
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return result["report"]["perplexity_after"], result["artifact"]["manifest_sha256"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("batch")
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL,CALIBRATION,EVALUATION")
    parser.add_argument("--bits", default="4,3,2")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--input-prob", type=float, default=0.5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--jobs", type=int, default=4, help="runs at once")
    options = parser.parse_args()
    models = {m.split("=", 1)[0]: tuple(m.split("=", 1)[1].split(",")) for m in options.models}
    bits = [int(b) for b in options.bits.split(",")]
    tasks = [(name, places, b, seed, state, repeat)
             for name, places in models.items() for b in bits for seed in range(options.seeds)
             for state, repeat in (("f32", 0), ("bf16", 0), ("bf16", 1)) if repeat == 0 or seed == 0]
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = dict(zip(tasks, pool.map(lambda task: run(task, options, folder), tasks)))
    failed = False
    print("| model | bits | f32 | bf16 | change | standard error | at most | |\n|---|---|---|---|---|---|---|---|")
    for name, places in models.items():
        for b in bits:
            at = lambda seed, state, repeat=0: results[(name, places, b, seed, state, repeat)]
            full = [at(seed, "f32")[0] for seed in range(options.seeds)]
            compact = [at(seed, "bf16")[0] for seed in range(options.seeds)]
            changes = [c / f - 1 for c, f in zip(compact, full)]
            error = statistics.stdev(changes) / math.sqrt(len(changes)) if len(changes) > 1 else 0.0
            mean, limit = statistics.mean(changes), LIMIT + 2 * error
            stable = at(0, "bf16")[1] == at(0, "bf16", 1)[1]
            verdict = ("" if mean <= limit else "TOO MUCH ") + ("" if stable else "DIGESTS DIFFER")
            failed |= bool(verdict)
            print(f"| {name} | {b} | {statistics.mean(full):.3f} | {statistics.mean(compact):.3f} | {100 * mean:+.2f}% | "
                  f"{100 * error:.2f}% | {100 * limit:.2f}% | {verdict or 'ok'} |")
    return failed


if __name__ == "__main__":
    sys.exit(main())
