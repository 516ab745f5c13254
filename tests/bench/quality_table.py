#!/usr/bin/env python3
"""Perplexity of variants of settings over seeds, in one table.

    quality_table.py UNIQUANF_BATCH NAME=MODEL,CALIBRATION,EVALUATION... --variant NAME="FLAGS" ... [flags]

Every model, bits, seed and variant is one `uniquanf-batch quantize` (64 sequences of 512 tokens, `valid`, 200 windows, unless the
variant's flags say otherwise); --jobs of them run at once. Lines appear as runs end, the table of means and deviations last.
--layers-below V: every layer's output error as stored must not be above that of variant V of the same model, bits and seed (each on
what its own earlier layers give). Exit code 1 when a run fails or a layer is above.
"""
import argparse
import concurrent.futures
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


def run(task, options, folder):
    (model_name, files), bits, seed, (variant, flags) = task
    model, calibration, evaluation = files
    out = os.path.join(folder, f"{model_name}-{bits}-{seed}-{variant}")
    command = [options.batch, "quantize", "--model", model, "--calibration", calibration, "--evaluation", evaluation,
               "--output", out, "--bits", str(bits), "--seed", str(seed), "--num-samples", "64",
               "--sequence-length", "512", "--device", options.device, "--json", *shlex.split(flags)]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - start
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(out + ".partial", ignore_errors=True)
    if done.returncode != 0:
        raise RuntimeError(" ".join(command) + "\n" + done.stdout[-2000:] + done.stderr[-2000:])
    report = json.loads(done.stdout.strip().splitlines()[-1])["report"]
    return report["perplexity_after"], seconds, report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("batch")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--variant", action="append", required=True)
    parser.add_argument("--bits", default="4,3,2")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--layers-below", default="")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    models = [(name, files.split(",")) for name, files in (text.split("=", 1) for text in options.models)]
    variants = [tuple(text.split("=", 1)) for text in options.variant]
    tasks = [(model, int(bits), seed, variant) for variant in variants for model in models
             for bits in options.bits.split(",") for seed in range(options.seeds)]
    results, layers, failed = {}, {}, False
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = {pool.submit(run, task, options, folder): task for task in tasks}
        for done in concurrent.futures.as_completed(runs):
            (model, _), bits, seed, (variant, _) = runs[done]
            try:
                perplexity, seconds, report = done.result()
            except RuntimeError as error:
                failed = True
                print(f"{model} {bits} bits, seed {seed}, {variant}: FAILED\n{error}", flush=True)
                continue
            print(f"{model} {bits} bits, seed {seed}, {variant}: {perplexity:.3f} in {seconds:.0f} s", flush=True)
            results.setdefault((model, bits, variant), []).append(perplexity)
            layers[model, bits, seed, variant] = [layer["final_loss"] for layer in report["layers"]]
    for (model, bits, seed, variant), errors in sorted(layers.items()) if options.layers_below else ():
        bound = layers.get((model, bits, seed, options.layers_below))
        if variant == options.layers_below or bound is None:
            continue
        worst = max(error / most for error, most in zip(errors, bound))
        print(f"{model} {bits} bits, seed {seed}: layers' errors of {variant} are at most {worst:.4f} of {options.layers_below}'s")
        failed = failed or worst > 1
    print(f"\n{'model':10} {'bits':>4} {'variant':20} {'seeds':>5} {'mean':>9} {'deviation':>9}")
    for (model, bits, variant), values in sorted(results.items()):
        deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"{model:10} {bits:4} {variant:20} {len(values):5} {statistics.mean(values):9.3f} {deviation:9.3f}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
