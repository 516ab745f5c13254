"""The recorded data of the browser's tests is the protos' JSON: every message of it parses, with no field that a proto lacks.

python3 test/proto_check.py < JSON of {"MessageName": [objects]}; needs protoc and python3-protobuf. Exit code 77 where they are missing.
"""
import importlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

try:
    from google.protobuf import json_format
except ImportError:
    sys.exit(77)
if shutil.which("protoc") is None:
    sys.exit(77)

protos = pathlib.Path(__file__).resolve().parents[3] / "proto"
with tempfile.TemporaryDirectory() as out:
    files = [str(path.relative_to(protos)) for path in protos.rglob("*.proto")]
    subprocess.run(["protoc", f"-I{protos}", f"--python_out={out}", *[file for file in files if file.startswith("uniquanf/")]], check=True)
    # google/api has no generated modules of its own in Debian: make them where protobuf looks.
    subprocess.run(["protoc", f"-I{protos}", f"--python_out={out}", *[file for file in files if file.startswith("google/api/")]], check=True)
    import google
    google.__path__.append(str(pathlib.Path(out) / "google"))
    sys.path.insert(0, out)
    messages = {}
    for file in files:
        if file.startswith("uniquanf/"):
            module = importlib.import_module(file[:-len(".proto")].replace("/", ".") + "_pb2")
            messages.update({name: getattr(module, name) for name in module.DESCRIPTOR.message_types_by_name})
    count = 0
    for name, objects in json.load(sys.stdin).items():
        if name not in messages:
            sys.exit(f"the protos have no message {name}")
        for one in objects:
            try:
                json_format.ParseDict(one, messages[name](), ignore_unknown_fields=False)
            except json_format.ParseError as error:
                sys.exit(f"{name}: {error}")
            count += 1
print(f"{count} messages are the protos' JSON")
