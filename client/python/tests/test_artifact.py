"""read_artifact: the stored weights, digests, and errors that name the thing."""

import json
import os
import random
import tempfile
import unittest
from unittest import mock

from tests.sample import write_artifact
from uniquanf import ArtifactError, packing, read_artifact


class ArtifactTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = directory.name
        self.weights = write_artifact(self.path)

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def edit_manifest(self, edit) -> None:
        with open(self.file("manifest.json"), encoding="utf-8") as file:
            manifest = json.load(file)
        edit(manifest)
        with open(self.file("manifest.json"), "w", encoding="utf-8") as file:
            json.dump(manifest, file)

    def assert_refused(self, reason: str, *words: str, verify: bool = True) -> None:
        with self.assertRaises(ArtifactError) as caught:
            read_artifact(self.path, verify=verify)
        self.assertEqual(caught.exception.reason, reason, str(caught.exception))
        for word in words:
            self.assertIn(word, str(caught.exception))

    def check_weights(self) -> None:
        artifact = read_artifact(self.path)
        self.assertEqual(sorted(artifact.modules), sorted(self.weights))
        for name, expected in self.weights.items():
            rows = [list(map(float, row)) for row in artifact.modules[name].rows()]
            self.assertEqual(rows, expected)
            self.assertEqual([list(map(float, row)) for row in artifact.modules[name].rows(1, 2)],
                             expected[1:2])

    def test_weights_are_the_stored_ones(self) -> None:
        self.check_weights()

    def test_weights_without_numpy_are_the_same(self) -> None:
        with mock.patch.object(packing, "numpy", None):
            self.check_weights()

    def test_a_changed_byte_of_any_file_is_found(self) -> None:
        for name in ("config.json", "model.safetensors"):
            with self.subTest(name):
                write_artifact(self.path)
                with open(self.file(name), "r+b") as file:
                    file.seek(-1, os.SEEK_END)
                    last = file.read(1)
                    file.seek(-1, os.SEEK_END)
                    file.write(bytes([last[0] ^ 1]))
                self.assert_refused("DIGEST_MISMATCH", name)

    def test_unknown_and_missing_fields_are_named(self) -> None:
        self.edit_manifest(lambda m: m.update(surprise=1))
        self.assert_refused("INVALID_MANIFEST", "surprise")
        write_artifact(self.path)
        self.edit_manifest(lambda m: m.pop("files"))
        self.assert_refused("INVALID_MANIFEST", "files")

    def test_impossible_modules_are_named(self) -> None:
        for field, value in (("bits", 9), ("bits", True), ("group_size", 0), ("group_size", 33),
                             ("num_inputs", -1), ("num_outputs", "4"), ("status", "odd")):
            with self.subTest(f"{field}={value}"):
                write_artifact(self.path)
                self.edit_manifest(lambda m: m["modules"][0].update({field: value}))
                self.assert_refused("INVALID_MANIFEST", "modules[0]")

    def test_another_shape_and_a_missing_tensor_are_named(self) -> None:
        self.edit_manifest(lambda m: m["modules"][0].update(num_outputs=5))
        self.assert_refused("TENSOR_SHAPE", "q_proj.qweight")
        write_artifact(self.path)
        self.edit_manifest(lambda m: m["modules"][0].update(bits=4))
        self.assert_refused("TENSOR_SHAPE", "q_proj.qweight")
        write_artifact(self.path)
        self.edit_manifest(lambda m: m["modules"][0].update(name="nowhere"))
        self.assert_refused("TENSOR_NOT_FOUND", "nowhere.qweight")

    def test_paths_do_not_leave_the_directory(self) -> None:
        for path in ("../secret", "/etc/passwd", "a//b", "", "a\u00e9"):
            with self.subTest(path):
                write_artifact(self.path)
                self.edit_manifest(lambda m: m["files"][0].update(path=path))
                self.assert_refused("INVALID_MANIFEST", "files[0].path")

    def test_no_artifact_is_named(self) -> None:
        os.remove(self.file("manifest.json"))
        self.assert_refused("ARTIFACT_NOT_FOUND", "manifest.json")

    def test_any_bytes_are_read_or_refused(self) -> None:
        seed = int(os.environ.get("UNIQUANF_FUZZ_SEED", "1"))
        rounds = int(os.environ.get("UNIQUANF_FUZZ_ROUNDS", "400"))
        rng = random.Random(seed)
        outcomes = {True: 0, False: 0}
        for _ in range(rounds):
            write_artifact(self.path)
            name = rng.choice(["manifest.json", "config.json", "model.safetensors"])
            with open(self.file(name), "rb") as file:
                data = bytearray(file.read())
            head = min(len(data), 1500)
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(head)
                kind = rng.randrange(4)
                if kind == 0:
                    data[at] = rng.randrange(256)
                elif kind == 1:
                    del data[at:at + rng.randint(1, 40)]
                elif kind == 2:
                    data[at:at] = rng.choice([b"[", b"{", b"-", b"9" * 30, b"null", b"\xff", b'"'])
                else:
                    del data[rng.randrange(len(data)):]
                head = max(1, min(head, len(data)))
                if not data:
                    data = bytearray(b" ")
            with open(self.file(name), "wb") as file:
                file.write(data)
            try:
                artifact = read_artifact(self.path, verify=False)
                for module in artifact.modules.values():
                    module.rows(0, 1)
                outcomes[True] += 1
            except ArtifactError:
                outcomes[False] += 1
            except Exception as error:  # noqa: BLE001 - the point of the test
                self.fail(f"seed {seed}: {name}: {error!r} is no ArtifactError")
        self.assertGreater(outcomes[True], 0)
        self.assertGreater(outcomes[False], 0)


if __name__ == "__main__":
    unittest.main()
