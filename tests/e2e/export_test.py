"""Every export format gives the artifact's weights back through a reader that was written from the
format's specification: exactly, or within the deviation that the export itself told.

Usage: export_test.py UNIQUANF_BATCH SOURCE_DIR (ctest runs it)."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

BATCH, SOURCE = sys.argv[1], sys.argv[2]
sys.path[:0] = [os.path.join(SOURCE, "client", "python"), os.path.dirname(os.path.abspath(__file__))]
import export_readers as readers  # noqa: E402
import uniquanf  # noqa: E402

MODULES = {"model.layers.1.self_attn.q_proj": "blk.1.attn_q",
           "model.layers.0.self_attn.v_proj": "blk.0.attn_v",
           "model.layers.2.mlp.down_proj": "blk.2.ffn_down"}
HEAD_DIM = 32  # of examples/tiny


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([BATCH, *arguments], capture_output=True, text=True, check=False)


class ExportTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.directory.cleanup)
        cls.grid = cls.quantize("grid", "--method", "rtn", "--bits", "4", "--group-size", "64")
        cls.rows3 = cls.quantize("rows3", "--method", "alternating", "--bits", "3")
        cls.grid3 = cls.quantize("grid3", "--method", "rtn", "--bits", "3", "--group-size", "32")

    @classmethod
    def path(cls, name: str) -> str:
        return os.path.join(cls.directory.name, name)

    @classmethod
    def quantize(cls, name: str, *flags: str) -> str:
        examples = os.path.join(SOURCE, "examples")
        done = run("quantize", "--model", os.path.join(examples, "tiny"), "--calibration",
                   os.path.join(examples, "tokens", "tiny_calib.safetensors"), "--num-samples", "1",
                   "--sequence-length", "32", "--output", cls.path(name), *flags)
        assert done.returncode == 0, done.stderr
        return cls.path(name)

    def export(self, artifact: str, form: str, *flags: str):
        """The exported directory, and what the export said of itself."""
        output = self.path(f"{os.path.basename(artifact)}-{form}{''.join(flags)}")
        done = run("export", artifact, "--output", output, "--format", form, "--json", *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return output, json.loads(done.stdout.strip().splitlines()[-1])

    def check(self, artifact: str, told: dict, read, some=(0, 1, 9, 31, 33)) -> None:
        """`read(module, rows)` against the artifact; the largest error is what was told, or less."""
        source = uniquanf.read_artifact(artifact)
        for module in MODULES:
            for row, values in zip(some, read(module, list(some))):
                expected = [float(v) for v in source.modules[module].rows(row, row + 1)[0]]
                self.assertEqual(len(values), len(expected))
                worst = max(abs(a - b) for a, b in zip(values, expected))
                self.assertLessEqual(worst, told["max_error"] * 1.000001, f"{module} row {row}")

    def check_tensors(self, artifact: str, form: str, rows, *flags: str) -> dict:
        output, told = self.export(artifact, form, *flags)
        checkpoint = readers.Checkpoint(output)
        self.check(artifact, told, lambda module, some: rows(checkpoint, module, some))
        return told

    def test_planes_come_back_exactly(self) -> None:
        for form, names in (("lut-gemm", (".bWeight", ".alpha", ".q_bias")),
                            ("anybcq", (".qweight", ".alpha_3", ".beta_3"))):
            with self.subTest(form):
                told = self.check_tensors(self.rows3, form, lambda c, m, r, n=names:
                                          readers.planes_rows(c, m, r, n))
                self.assertEqual(told["max_error"], 0)

    def test_any_precision_rounds_levels_only(self) -> None:
        told = self.check_tensors(self.rows3, "any-precision", readers.any_precision_rows)
        self.assertTrue(told["within_rounding"])

    def test_dequantized_rounds_weights_only(self) -> None:
        for form in ("dequantized", "dequantized-fp16"):
            with self.subTest(form):
                self.check_tensors(self.rows3, form, readers.dense_rows)

    def test_uniform_levels_with_whole_zero_points_come_back_up_to_rounding(self) -> None:
        for artifact in (self.grid, self.grid3):
            for form, rows in (("gptq", readers.gptq_rows), ("gptq-v1", readers.gptq_rows),
                               ("awq", readers.awq_rows),
                               ("compressed-tensors", readers.compressed_rows)):
                with self.subTest(f"{form} {os.path.basename(artifact)}"):
                    told = self.check_tensors(artifact, form, rows)
                    self.assertTrue(told["within_rounding"])
                    self.assertLess(told["max_error"], 1e-3)

    def test_what_a_format_cannot_hold_needs_leave_and_is_measured(self) -> None:
        output = self.path("refused")
        for form in ("compressed-tensors-sym", "gguf-q4_0"):
            done = run("export", self.grid, "--output", output, "--format", form)
            self.assertEqual(done.returncode, 5, done.stderr)
            self.assertIn("--allow-approximate", done.stderr)
            self.assertFalse(os.path.exists(output) and os.listdir(output), "leftovers")
        told = self.check_tensors(self.grid, "compressed-tensors-sym", readers.compressed_rows,
                                  "--allow-approximate")
        self.assertFalse(told["within_rounding"])
        self.assertGreater(told["mean_error"], 0)

    def gguf_row(self, module: str, row: int) -> int:
        """Where a source row lies in the file: rotary pairs (i, i + D/2) become neighbours."""
        if not module.endswith("q_proj"):
            return row
        inside = row % HEAD_DIM
        half = HEAD_DIM // 2
        return row - inside + inside % half * 2 + inside // half

    def test_gguf_blocks_come_back(self) -> None:
        for form, artifact in (("gguf-f16", self.rows3), ("gguf-q4_1", self.grid),
                               ("gguf-q5_1", self.grid), ("gguf-q8_0", self.grid),
                               ("gguf-q4_0", self.grid), ("gguf-q5_0", self.grid)):
            with self.subTest(form):
                output, told = self.export(artifact, form, "--allow-approximate")
                gguf = readers.Gguf(os.path.join(output, "model.gguf"))
                self.check(artifact, told, lambda module, some, g=gguf: g.rows(
                    MODULES[module] + ".weight", [self.gguf_row(module, r) for r in some]))
                self.assertEqual(told["within_rounding"], form != "gguf-q4_0")

    def test_gguf_holds_the_whole_model_and_its_vocabulary(self) -> None:
        output, _ = self.export(self.grid, "gguf-q4_1", "--allow-approximate", "--json")
        gguf = readers.Gguf(os.path.join(output, "model.gguf"))
        with open(os.path.join(SOURCE, "examples", "tiny", "config.json"), encoding="utf-8") as f:
            config = json.load(f)
        meta = gguf.metadata
        self.assertEqual(meta["general.architecture"], "llama")
        self.assertEqual(meta["llama.block_count"], config["num_hidden_layers"])
        self.assertEqual(meta["llama.embedding_length"], config["hidden_size"])
        self.assertEqual(meta["tokenizer.ggml.pre"], "llama-bpe")
        self.assertEqual(len(meta["tokenizer.ggml.tokens"]), config["vocab_size"])
        self.assertEqual(len(meta["tokenizer.ggml.token_type"]), config["vocab_size"])
        self.assertEqual(meta["tokenizer.ggml.eos_token_id"], config["eos_token_id"])
        with open(os.path.join(SOURCE, "examples", "tiny", "tokenizer.json"), encoding="utf-8") as f:
            tokenizer = json.load(f)
        for text, token in list(tokenizer["model"]["vocab"].items())[:300]:
            self.assertEqual(meta["tokenizer.ggml.tokens"][token], text)
        self.assertEqual(len(meta["tokenizer.ggml.merges"]), len(tokenizer["model"]["merges"]))
        names = {"token_embd.weight", "output_norm.weight"}
        for layer in range(config["num_hidden_layers"]):
            names |= {f"blk.{layer}.{part}.weight" for part in (
                "attn_norm", "ffn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate",
                "ffn_up", "ffn_down")}
        self.assertEqual(set(gguf.tensors), names)
        for dims, _, offset in gguf.tensors.values():
            self.assertEqual(offset % 32, 0)
            self.assertIn(len(dims), (1, 2))

    def test_formats_that_cannot_be_are_refused_by_name(self) -> None:
        done = run("export", self.grid, "--output", self.path("no"), "--format", "any-precision")
        self.assertEqual(done.returncode, 5)
        self.assertIn("whole rows", done.stderr)
        done = run("export", self.grid, "--output", self.path("no"), "--format", "gptk")
        self.assertEqual(done.returncode, 2)
        self.assertIn("gptq", done.stderr)

    def test_an_output_that_holds_something_is_left_alone(self) -> None:
        place = self.path("taken")
        os.mkdir(place)
        with open(os.path.join(place, "keep"), "w", encoding="utf-8") as file:
            file.write("mine")
        done = run("export", self.grid, "--output", place, "--format", "gptq")
        self.assertEqual(done.returncode, 5)
        self.assertEqual(os.listdir(place), ["keep"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]])
