#!/usr/bin/env python3
"""Fails where the protos say less than a released version did.

    proto/check_compatible.py              # against every file in proto/released
    proto/check_compatible.py --print      # the API as lines: what a release commits as proto/released/VERSION.txt

A line is one promise: a message, a field with its number and type, a value of an enum, a method with its messages. A promise may go
only where the message reserves both number and name of a field; what is added must not be required of requests that exist already.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
from typing import Dict, Iterator, List, Set

from google.protobuf import descriptor_pb2

HERE = pathlib.Path(__file__).parent
FIELD_BEHAVIOR = 1052
REQUIRED = 2
Field = descriptor_pb2.FieldDescriptorProto


def load(folder: pathlib.Path) -> descriptor_pb2.FileDescriptorSet:
    names = [str(path.relative_to(folder)) for path in sorted((folder / "uniquanf").rglob("*.proto"))]
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["protoc", f"-I{folder}", f"--descriptor_set_out={out.name}", *names], check=True)
        return descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes())


def type_of(field: Field) -> str:
    kind = field.type_name or Field.Type.Name(field.type)[len("TYPE_"):].lower()
    label = "repeated " if field.label == Field.LABEL_REPEATED else "optional " if field.proto3_optional else ""
    return label + kind


def promises(files: descriptor_pb2.FileDescriptorSet) -> Iterator[str]:
    def of_enum(scope: str, enum: descriptor_pb2.EnumDescriptorProto) -> Iterator[str]:
        for value in enum.value:
            yield f"value {scope}.{enum.name}.{value.name} = {value.number}"

    def of_message(scope: str, message: descriptor_pb2.DescriptorProto) -> Iterator[str]:
        name = f"{scope}.{message.name}"
        yield f"message {name}"
        for field in message.field:
            oneof = ""
            if field.HasField("oneof_index") and not field.proto3_optional:
                oneof = f" of {message.oneof_decl[field.oneof_index].name}"
            yield f"field {name}.{field.name} = {field.number} {type_of(field)}{oneof}"
        for enum in message.enum_type:
            yield from of_enum(name, enum)
        for nested in message.nested_type:
            yield from of_message(name, nested)

    for file in files.file:
        scope = "." + file.package
        for message in file.message_type:
            yield from of_message(scope, message)
        for enum in file.enum_type:
            yield from of_enum(scope, enum)
        for service in file.service:
            for method in service.method:
                streams = "stream " if method.server_streaming else ""
                sends = "stream " if method.client_streaming else ""
                yield (f"method {scope}.{service.name}.{method.name} {sends}{method.input_type} -> "
                       f"{streams}{method.output_type}")


def reserved(files: descriptor_pb2.FileDescriptorSet) -> Set[str]:
    """"field X.name" and "field X = number" of what may be missing."""
    found: Set[str] = set()

    def visit(scope: str, message: descriptor_pb2.DescriptorProto) -> None:
        name = f"{scope}.{message.name}"
        found.update(f"field {name}.{field}" for field in message.reserved_name)
        for bounds in message.reserved_range:
            found.update(f"field {name} = {number}" for number in range(bounds.start, min(bounds.end, bounds.start + 10000)))
        for nested in message.nested_type:
            visit(name, nested)

    for file in files.file:
        for message in file.message_type:
            visit("." + file.package, message)
    return found


def required_fields(files: descriptor_pb2.FileDescriptorSet) -> Dict[str, str]:
    """Fields that google.api.field_behavior calls REQUIRED, each with its message."""
    found: Dict[str, str] = {}
    for file in files.file:
        for message in file.message_type:
            for field in message.field:
                # The extension's type is not known here: its bytes are an unknown field of the options.
                for number in _varints(field.options.SerializeToString()):
                    if number == REQUIRED:
                        found[f".{file.package}.{message.name}.{field.name}"] = f".{file.package}.{message.name}"
    return found


def _varints(data: bytes) -> Iterator[int]:
    """The values of field_behavior in serialized FieldOptions (packed or not)."""
    def varint(at: int) -> "tuple[int, int]":
        value = shift = 0
        while True:
            byte = data[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at

    at = 0
    while at < len(data):
        tag, at = varint(at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = varint(at)
            if number == FIELD_BEHAVIOR:
                yield value
        elif wire == 2:
            size, at = varint(at)
            end = at + size
            while number == FIELD_BEHAVIOR and at < end:
                value, at = varint(at)
                yield value
            at = end
        else:
            at += 8 if wire == 1 else 4


def complaints(released: List[str], files: descriptor_pb2.FileDescriptorSet) -> List[str]:
    now = set(promises(files))
    allowed = reserved(files)
    found = []
    for line in released:
        if line in now:
            continue
        words = line.split(" ")
        if words[0] == "field":
            scope = words[1].rsplit(".", 1)[0]
            if f"field {words[1]}" in allowed and f"field {scope} = {words[3]}" in allowed:
                continue
        found.append(f"gone or changed: {line}")
    for field, message in sorted(required_fields(files).items()):
        known = f"message {message}" in released
        if known and not any(line.startswith(f"field {field} = ") for line in released):
            found.append(f"new, and required of requests that are sent already: {field}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the API as lines")
    parser.add_argument("--protos", type=pathlib.Path, default=HERE, help="folder that holds uniquanf/v1")
    options = parser.parse_args()
    files = load(options.protos)
    if options.print:
        print("\n".join(sorted(promises(files))))
        return 0
    versions = sorted((HERE / "released").glob("*.txt"))
    if not versions:
        print("there is no release to compare with in proto/released", file=sys.stderr)
        return 1
    failed = False
    for version in versions:
        for complaint in complaints(version.read_text(encoding="utf-8").splitlines(), files):
            print(f"breaks clients of {version.stem}: {complaint}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
