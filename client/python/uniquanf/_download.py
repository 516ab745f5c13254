"""Artifacts from where they were published to a directory here."""

import hashlib
import os
import pathlib
import shutil
import tempfile
import urllib.parse
from typing import Any

from .errors import ArtifactError, FailedPreconditionError
from .jobs import Job
from .manifest import parse_manifest

_CHUNK = 1 << 20


def download(job: Job, directory: "str | os.PathLike[str]") -> str:
    if job.artifact is None:
        raise FailedPreconditionError("FAILED_PRECONDITION", "JOB_NOT_SUCCEEDED", f"{job.name} has no artifact: it is {job.state}")
    source = _local(job.artifact.uri)
    target = pathlib.Path(directory).absolute()
    if target.exists():
        raise ArtifactError("OUTPUT_EXISTS", f'"{target}" exists already; give a new directory')
    target.parent.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    try:
        _copy(source, work, job.artifact.manifest_sha256)
        os.rename(work, target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return str(target)


def _local(uri: str) -> pathlib.Path:
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme == "file":
        # The service writes paths as they are: '%' and '#' stand for themselves.
        return pathlib.Path(uri[len("file://"):])
    raise ArtifactError("NOT_REACHABLE", f"the artifact lies at {uri}, which this package does not read; "
                        f"copy it with: uniquanf download {uri} DIRECTORY")


def _copy(source: pathlib.Path, work: pathlib.Path, manifest_sha256: str) -> None:
    manifest_path = source / "manifest.json"
    if not manifest_path.is_file():
        raise ArtifactError("ARTIFACT_NOT_FOUND", f'there is no manifest.json in "{source}"; this machine must see the same '
                            "files as the workers")
    data = manifest_path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if manifest_sha256 and digest != manifest_sha256:
        raise ArtifactError("DIGEST_MISMATCH", f"{manifest_path} has SHA-256 {digest}, not the published {manifest_sha256}")
    manifest = parse_manifest(data)
    for entry in manifest.files:
        _copy_checked(source / entry.path, work / entry.path, entry.sha256, entry.size_bytes)
    for attachment in _attachments(manifest.raw):
        if (source / attachment).is_file():
            (work / attachment).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / attachment, work / attachment)
    (work / "manifest.json").write_bytes(data)  # last, as everywhere: what has one is whole


def _attachments(raw: "dict[str, Any]") -> "list[str]":
    return [name for name in raw.get("attachments", []) if isinstance(name, str) and "/" not in name and name not in ("", ".", "..")]


def _copy_checked(source: pathlib.Path, target: pathlib.Path, sha256: str, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, copied = hashlib.sha256(), 0
    try:
        with open(source, "rb") as reader, open(target, "xb") as writer:
            while chunk := reader.read(_CHUNK):
                digest.update(chunk)
                writer.write(chunk)
                copied += len(chunk)
    except FileNotFoundError:
        raise ArtifactError("MISSING_FILE", f"{source} is missing; the manifest names it") from None
    if copied != size or digest.hexdigest() != sha256:
        raise ArtifactError("DIGEST_MISMATCH", f"{source} has {copied} bytes and SHA-256 {digest.hexdigest()}; "
                            f"the manifest says {size} and {sha256}")
