"""Runs the commands of docs/: docs_test.py BUILD_DIR SOURCE_DIR PYTHON_PACKAGE_DIR.

A block that a comment "<!-- run: bash -->" or "<!-- run: python -->" stands before is run, in a folder that holds what the source tree
holds, against a server and a worker of its own; one that cannot be run says why in "<!-- shown: why -->". A page listed here has no
block without such a comment. A block that ends with 77 lacks a tool and is skipped.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest

BUILD, SOURCE, PACKAGE = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
sys.path.insert(0, str(SOURCE / "client/python"))
os.environ["UNIQUANF_BIN"] = str(BUILD / "bin")
from tests.service import Service  # noqa: E402

PAGES = ["API.md", "FIRST_MODEL.md", "OPERATING.md", "SERVING.md", "SETTINGS.md", "TROUBLESHOOTING.md"]
BLOCK = re.compile(r"(?:<!-- (run|shown): ([^\n]*?) -->\n\n)?((?:^    [^\n]*\n(?:\n(?=    ))?)+)", re.M)


def blocks(page: str) -> "list[tuple[str, str, str]]":
    text = (SOURCE / "docs" / page).read_text(encoding="utf-8") + "\n"
    return [(m.group(1) or "", m.group(2) or "", textwrap.dedent(m.group(3))) for m in BLOCK.finditer(text)]


class DocsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.service = Service()
        self.addCleanup(self.service.close)
        self.service.start_server()
        self.service.start_worker()
        work = tempfile.TemporaryDirectory(prefix="uniquanf-docs-")
        self.addCleanup(work.cleanup)
        self.work = pathlib.Path(work.name)
        for name in ("examples", "proto"):
            (self.work / name).symlink_to(SOURCE / name)
        (self.work / "build").symlink_to(BUILD)
        self.environment = {**os.environ, "UNIQUANF_SERVER": self.service.address, "UNIQUANF_HTTP": self.service.http, "PYTHONPATH": str(PACKAGE),
                            "PATH": f"{BUILD / 'bin'}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}

    def run_block(self, kind: str, text: str) -> None:
        if "curl " in text and not shutil.which("curl"):
            print("skipped: no curl here")
            return
        command = [sys.executable, "-c", text] if kind == "python" else ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(command, cwd=self.work, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=400)
        if done.returncode == 77:
            print(f"skipped: {done.stdout.strip()}")
            return
        self.assertEqual(done.returncode, 0, f"{text}\n{done.stdout}")


def make(page: str) -> None:
    def test(self: DocsTest) -> None:
        found = blocks(page)
        self.assertTrue(found)
        for how, what, text in found:
            with self.subTest(block=text):
                self.assertTrue(how, f"docs/{page}: this block has no comment that says whether it is run:\n{text}")
                if how == "run":
                    self.run_block(what, text)

    setattr(DocsTest, "test_" + page.replace(".", "_").lower(), test)


def test_first_job(self: DocsTest) -> None:
    self.run_block("python", (SOURCE / "examples/clients/python/first_job.py").read_text(encoding="utf-8"))


for name in PAGES:
    make(name)
DocsTest.test_first_job_of_python = test_first_job  # type: ignore[attr-defined]

if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[4:]])
