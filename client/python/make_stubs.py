#!/usr/bin/env python3
"""Generates the package's stubs: make_stubs.py PROTO_DIR OUT_DIR writes OUT_DIR/uniquanf/v1/*_pb2.py and .pyi.

The descriptors are those of proto/, without annotations and the files that define them, and with google.rpc's messages under a name of our own: a
process that has googleapis-common-protos as well would otherwise register two files of one name, which protobuf refuses.
"""

import pathlib
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2

SERVICES = ["artifact", "job", "task", "job_service", "worker_service", "admin_service"]
RENAMED = {"google/rpc/status.proto": "uniquanf/v1/rpc_status.proto",
           "google/rpc/error_details.proto": "uniquanf/v1/rpc_error_details.proto"}


def is_annotation(name: str) -> bool:
    return name.startswith("google/api/") or name == "uniquanf/v1/stream_cursor.proto"


def strip(files: descriptor_pb2.FileDescriptorSet) -> None:
    def fields(message: descriptor_pb2.DescriptorProto) -> None:
        for field in message.field:
            field.ClearField("options")
            if field.HasField("type_name"):
                field.type_name = field.type_name.replace(".google.rpc.", ".uniquanf.rpc.")
        for nested in message.nested_type:
            fields(nested)

    for file in list(files.file):
        if is_annotation(file.name):
            files.file.remove(file)
            continue
        if file.name.startswith("google/protobuf/"):
            continue
        if file.name in RENAMED:
            file.name, file.package = RENAMED[file.name], "uniquanf.rpc"
        kept = [name for name in file.dependency if not is_annotation(name)]
        del file.dependency[:]
        file.dependency.extend(RENAMED.get(name, name) for name in kept)
        for message in file.message_type:
            fields(message)
        del file.service[:]  # called by their names (uniquanf/_calls.py)


def main() -> int:
    protos, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    names = [f"uniquanf/v1/{name}.proto" for name in SERVICES] + list(RENAMED)
    with tempfile.TemporaryDirectory() as work:
        whole = pathlib.Path(work) / "whole.pb"
        subprocess.run(["protoc", f"-I{protos}", "--include_imports", f"--descriptor_set_out={whole}", *names], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(whole.read_bytes())
        strip(files)
        stripped = pathlib.Path(work) / "stripped.pb"
        stripped.write_bytes(files.SerializeToString(deterministic=True))
        (out / "uniquanf/v1").mkdir(parents=True, exist_ok=True)
        subprocess.run(["protoc", f"--descriptor_set_in={stripped}", f"--python_out={out}", f"--pyi_out={out}",
                        *[RENAMED.get(name, name) for name in names]], check=True)
    (out / "uniquanf/v1/__init__.py").write_text('"""The API\'s messages, generated from its protos."""\n', encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
