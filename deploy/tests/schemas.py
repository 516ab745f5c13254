"""Checks objects against JSON schemas of Kubernetes and of custom resources: strict ones (unknown fields are errors) where
the environment variable SCHEMAS names a folder of GROUP_VERSION_KIND.json, else those of npm's kubernetes-models (types and
required fields), through validate_models.mjs in the folder that MODELS names. The folder schemas beside this file has some more."""
import functools
import json
import os
import pathlib
import subprocess

import jsonschema

SCHEMAS = os.environ.get("SCHEMAS")
MODELS = os.environ.get("MODELS")


@functools.lru_cache(maxsize=None)
def _validator(api_version, kind):
    group, _, version = api_version.rpartition("/")
    name = "_".join(part for part in (group, version, kind) if part).lower()
    for folder in (pathlib.Path(SCHEMAS), pathlib.Path(__file__).resolve().parent / "schemas"):
        path = folder / f"{name}.json"
        if path.exists():
            return jsonschema.Draft7Validator(json.loads(path.read_text()))
    return None


def problems(documents):
    """Sentences about violations of the schemas; documents is a list of objects."""
    if SCHEMAS:
        for document in documents:
            validator = _validator(document["apiVersion"], document["kind"])
            where = f"{document['kind']} {document['metadata']['name']}"
            if validator is None:
                yield f"{where}: there is no schema of {document['apiVersion']}"
                continue
            for error in validator.iter_errors(document):
                yield f"{where}: {'.'.join(map(str, error.absolute_path))}: {error.message[:160]}"
        return
    done = subprocess.run(["node", "validate_models.mjs"], cwd=MODELS, input=json.dumps(documents), capture_output=True,
                          text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"validate_models.mjs ended with {done.returncode}: {done.stderr}")
    yield from done.stdout.splitlines()
