"""A server and a worker as real processes, for tests; `UNIQUANF_BIN` names the folder of the programs."""

import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
from typing import List, Optional

SOURCE = pathlib.Path(__file__).resolve().parents[3]
EXAMPLES = SOURCE / "examples"
# Some seconds on two cores.
QUICK = {"model_uri": str(EXAMPLES / "tiny"), "calibration_uri": str(EXAMPLES / "tokens/tiny_calib.safetensors"), "bits": 3,
         "num_samples": 4, "sequence_length": 128, "epochs": 8}
LONG = {**QUICK, "epochs": 5000}


class Service:
    def __init__(self) -> None:
        self.bin = pathlib.Path(os.environ["UNIQUANF_BIN"])
        self._dir = tempfile.TemporaryDirectory(prefix="uniquanf-python-")
        self.dir = pathlib.Path(self._dir.name)
        with socket.socket() as free, socket.socket() as free_for_http:
            free.bind(("127.0.0.1", 0))
            free_for_http.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
            self._http_listen = f"127.0.0.1:{free_for_http.getsockname()[1]}"
        self.http = f"http://{self._http_listen}"
        self._server: Optional[subprocess.Popen[bytes]] = None
        self._workers: List["subprocess.Popen[bytes]"] = []

    def start_server(self) -> None:
        ready = self.dir / "ready"
        ready.unlink(missing_ok=True)
        self._server = self._start("uniquanf-server", "--listen", self.address, "--http-listen", self._http_listen, "--data-dir",
                                   str(self.dir / "server"), "--ready-file", str(ready), "--lease-duration", "3s")
        end = time.monotonic() + 30
        while not ready.exists():
            if self._server.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.dir / "uniquanf-server.log").read_text(encoding="utf-8"))
            time.sleep(0.02)

    def kill_server(self) -> None:
        assert self._server is not None
        self._server.send_signal(signal.SIGKILL)
        self._server.wait()

    def start_worker(self) -> None:
        self._workers.append(self._start("uniquanf-worker", "--server", self.address, "--name", "first", "--device", "cpu"))

    def _start(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        with open(self.dir / f"{program}.log", "ab") as log:
            return subprocess.Popen([str(self.bin / program), *arguments], stdout=log, stderr=log, cwd=self.dir)

    def close(self) -> None:
        for process in [*self._workers, self._server]:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        self._dir.cleanup()
