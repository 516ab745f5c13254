"""What clients of a release rely on may not change; every kind of change is tried."""

import pathlib
import re
import sys
import tempfile
import unittest

PROTO = pathlib.Path(__file__).resolve().parents[3] / "proto"
sys.path.insert(0, str(PROTO))
import check_compatible as check  # noqa: E402

HEAD = 'syntax = "proto3"; package uniquanf.v1; import "google/api/field_behavior.proto";\n'
BASE = """
message Request { string name = 1; optional int32 size = 2; repeated string words = 3; }
enum State { UNSPECIFIED = 0; READY = 1; }
message Used { string x = 1 [(google.api.field_behavior) = OPTIONAL]; }
service Jobs { rpc Get(Request) returns (Request); }
"""


def load(text: str) -> "check.descriptor_pb2.FileDescriptorSet":
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "uniquanf/v1").mkdir(parents=True)
        (root / "google/api").mkdir(parents=True)
        (root / "google/api/field_behavior.proto").write_bytes((PROTO / "google/api/field_behavior.proto").read_bytes())
        (root / "uniquanf/v1/x.proto").write_text(HEAD + text, encoding="utf-8")
        return check.load(root)


class CheckCompatibleTest(unittest.TestCase):
    def complaints(self, pattern: str, replacement: str) -> "list[str]":
        changed = re.sub(pattern, replacement, BASE)
        self.assertNotEqual(changed, BASE)
        return check.complaints(list(check.promises(load(BASE))), load(changed))

    def test_the_same_is_compatible(self) -> None:
        self.assertEqual(check.complaints(list(check.promises(load(BASE))), load(BASE)), [])

    def test_additions_are_compatible(self) -> None:
        self.assertEqual(self.complaints(r"string name = 1;", "string name = 1; string more = 9;"), [])
        self.assertEqual(self.complaints(r"READY = 1;", "READY = 1; DONE = 2;"), [])
        self.assertEqual(self.complaints(r"rpc Get", "rpc Put(Request) returns (Request); rpc Get"), [])

    def test_every_kind_of_change_is_found(self) -> None:
        for pattern, replacement in [
            (r"string name = 1;", ""),
            (r"name = 1", "title = 1"),
            (r"name = 1", "name = 7"),
            (r"string name", "bytes name"),
            (r"optional int32", "int32"),
            (r"optional int32", "optional int64"),
            (r"repeated string", "string"),
            (r"READY = 1", "READY = 2"),
            (r"READY = 1;", ""),
            (r"rpc Get\(Request\) returns \(Request\);", ""),
            (r"returns \(Request\)", "returns (stream Request)"),
        ]:
            with self.subTest(pattern=pattern, replacement=replacement):
                self.assertEqual(len(self.complaints(pattern, replacement)), 1)

    def test_a_field_may_go_when_its_name_and_number_are_reserved(self) -> None:
        self.assertEqual(self.complaints(r"string name = 1;", 'reserved 1; reserved "name";'), [])
        self.assertEqual(len(self.complaints(r"string name = 1;", "reserved 1;")), 1)

    def test_a_new_field_may_not_be_required(self) -> None:
        required = "string must = 9 [(google.api.field_behavior) = REQUIRED];"
        self.assertEqual(len(self.complaints(r"string name = 1;", "string name = 1; " + required)), 1)
        self.assertEqual(self.complaints(r"enum State", "message New { " + required + " }\nenum State"), [])

    def test_the_protos_keep_what_was_released(self) -> None:
        files = check.load(PROTO)
        releases = sorted((PROTO / "released").glob("*.txt"))
        self.assertTrue(releases)
        for release in releases:
            self.assertEqual(check.complaints(release.read_text(encoding="utf-8").splitlines(), files), [], release.name)


if __name__ == "__main__":
    unittest.main()
