# %% [markdown]
# A first job from Python, cell by cell (editors that know "# %%" run each with a key). It needs a server and a worker, for example
#
#     uniquanf-server & uniquanf-worker &
#
# and the package: `apt install ./python3-uniquanf_*.deb`, or the wheel with `uniquanf[client]`.

# %%
import uniquanf

client = uniquanf.Client()  # UNIQUANF_SERVER, else 127.0.0.1:50051
print(client.info().version, [worker.name for worker in client.workers()])

# %% What would be done, without doing it: settings that are left out take their defaults.
settings = {"model_uri": "examples/tiny", "calibration_uri": "examples/tokens/tiny_calib.safetensors", "bits": 3, "num_samples": 4,
            "sequence_length": 128, "epochs": 8, "evaluation_uri": "examples/tokens/tiny_eval.safetensors",
            "evaluation_max_windows": 2}
print(client.submit(settings, validate_only=True).spec)

# %% Submit it, and collect the block errors while it runs.
job = client.submit(settings, labels={"example": "first"})
curves = uniquanf.LossCurves()
for update in client.watch(job.name):
    curves.add(update)
    print(f"{update.job.state:10} {update.job.progress.fraction:5.0%}")

# %% The report: what it cost.
job = client.wait(job.name)
assert job.report is not None
print(f"perplexity {job.report.perplexity_before:.2f} -> {job.report.perplexity_after:.2f}, "
      f"{job.report.model_size_bytes / job.report.artifact_size_bytes:.2f} times smaller")
for layer in job.report.layers:
    print(layer.layer, layer.block_error_before, "->", layer.block_error_after)

# %% The artifact, every digest checked.
directory = client.download(job, "first-job-3bit")
artifact = uniquanf.read_artifact(directory)
print({name: module.bits for name, module in list(artifact.modules.items())[:3]})

# %% Errors have reasons, and name every field.
try:
    client.submit(settings, bits=99, epochs=-1)
except uniquanf.InvalidRequestError as error:
    print(error)

# %%
client.close()
