#!/usr/bin/env python3
"""What open streams of events cost a server: http_streams.py --server build/bin/uniquanf-server [--streams 50] [--seconds 20]

Starts a server of its own with an HTTP address and one job, opens the streams, and prints what they add to its memory and what they take of
a core while nothing happens and while the job changes once a second (paused and resumed); then that one stream more is answered 503 and that
a reader is served meanwhile. Ends with 1 where 50 streams take 5% of a core or 50 MiB or more, or the server does not answer.
"""

import argparse
import http.client
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time


def processor_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def call(port: int, method: str, path: str, body: str = "") -> "tuple[int, bytes, float]":
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body or None, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data, time.monotonic() - began


class Stream:
    """Reads events, and counts them."""

    def __init__(self, port: int, path: str) -> None:
        self.events = 0
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self) -> None:
        try:
            while data := self.socket.recv(65536):
                self.events += data.count(b"\ndata: ")
        except OSError:
            pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = subprocess.Popen([options.server, "--listen=127.0.0.1:0", f"--http-listen=127.0.0.1:{port}", f"--data-dir={work}/data",
                                   f"--http-max-streams={options.streams}", "--log-level=error"])
        try:
            for _ in range(200):
                try:
                    if call(port, "GET", "/v1/server")[0] == 200:
                        break
                except OSError:
                    pass
                time.sleep(0.1)
            spec = {"model_uri": "file:///models/m", "calibration_uri": "file:///data/c.safetensors", "bits": 3}
            assert call(port, "POST", "/v1/jobs?job_id=bench&unchecked=true", json.dumps({"spec": spec}))[0] == 200
            for _ in range(20):
                call(port, "GET", "/v1/jobs/bench")
            before = resident_mib(server.pid)
            streams = [Stream(port, "/v1/jobs/bench:watch") for _ in range(options.streams)]
            deadline = time.monotonic() + 30
            while min(stream.events for stream in streams) < 1 and time.monotonic() < deadline:
                time.sleep(0.05)

            def share(seconds: float, each_second: "list[str]") -> float:
                used, began = processor_seconds(server.pid), time.monotonic()
                turn = 0
                while time.monotonic() - began < seconds:
                    if each_second:
                        call(port, "POST", f"/v1/jobs/bench:{each_second[turn % len(each_second)]}")
                        turn += 1
                    time.sleep(1)
                return (processor_seconds(server.pid) - used) / (time.monotonic() - began)

            quiet, busy = share(options.seconds, []), share(options.seconds, ["pause", "resume"])
            memory = resident_mib(server.pid) - before
            one_more = call(port, "GET", "/v1/jobs/bench:watch")[0]
            status, _, latency = call(port, "GET", "/v1/jobs/bench")
            print(f"streams {len(streams)}  events {min(s.events for s in streams)} to {max(s.events for s in streams)} each")
            print(f"memory +{memory:.1f} MiB  processor {quiet:.2%} of a core quiet, {busy:.2%} with a change a second")
            print(f"one more: {one_more}  a reader meanwhile: {status} in {latency * 1000:.1f} ms")
            good = memory < 50 and quiet < 0.05 and busy < 0.05 and one_more == 503 and status == 200
            return 0 if good else 1
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    sys.exit(main())
