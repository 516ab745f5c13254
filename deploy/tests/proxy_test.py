"""Tests of the proxy's configuration as the chart renders it, with a real haproxy between sockets of this process: it leads to
the active server alone, leaves one that is active no longer, and bounds the connections of an address."""
import http.server
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from cases import PG, S3
from helm_chart import find, render, sets


class FakeServer:
    """A TCP port that greets with a name, and an HTTP port whose /readyz is 200 while it is active."""

    def __init__(self, name, active):
        self.name, self.active = name, active
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                good = outer.active and self.path == "/readyz"
                self.send_response(200 if good else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.connections = []
        threading.Thread(target=self._greet, daemon=True).start()

    def _greet(self):
        while True:
            connection, _ = self.listener.accept()
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            connection.sendall(self.name.encode())
            while connection.recv(1024):  # until the other side has closed
                pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class ProxyTest(unittest.TestCase):
    def setUp(self):
        objects = render(*PG, *S3, *sets("server.replicas=2", "proxy.enabled=true", "proxy.maxConnectionsPerAddress=5"))
        config = find(objects, "ConfigMap", "u-proxy")["data"]["haproxy.cfg"]
        self.one, self.two = FakeServer("one", True), FakeServer("two", False)
        self.port, status = free_port(), free_port()
        template = re.search(r"^  server-template (.*)$", config, re.M)
        options = re.search(r"check port \d+ (.*) resolvers cluster init-addr none", template.group(1)).group(1)
        servers = "\n".join(
            f"  server {s.name} 127.0.0.1:{s.listener.getsockname()[1]} check port {s.http.server_port} {options}"
            for s in (self.one, self.two))
        config = config.replace(template.group(0), servers).replace(":50051", f":{self.port}", 1).replace(":::9090", f":::{status}")
        self.folder = tempfile.TemporaryDirectory()
        path = pathlib.Path(self.folder.name) / "haproxy.cfg"
        path.write_text(config)
        subprocess.run(["haproxy", "-c", "-q", "-f", str(path)], check=True)
        self.haproxy = subprocess.Popen(["haproxy", "-db", "-f", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def tearDown(self):
        self.haproxy.send_signal(signal.SIGTERM)
        self.haproxy.wait()
        self.folder.cleanup()

    def connect(self):
        """A connection and the name that greets in it; "" where the proxy closes it."""
        try:
            connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
            self.addCleanup(connection.close)
            return connection, connection.recv(3).decode()
        except ConnectionResetError:
            return None, ""

    def connect_to(self, name):
        """Asks until that server greets: the proxy needs to start, and to see who is active."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                connection, greeting = self.connect()
            except ConnectionRefusedError:
                greeting = None
            if greeting == name:
                return connection
            time.sleep(0.02)
        self.fail(f"no connection leads to {name}")

    def test_it_leads_to_the_active_server_and_leaves_one_that_is_no_more(self):
        connection = self.connect_to("one")
        self.assertEqual(self.two.connections, [])
        self.one.active, self.two.active = False, True
        self.assertEqual(connection.recv(1), b"")  # closed by the proxy
        self.connect_to("two").close()

    def test_one_address_cannot_take_every_connection(self):
        first = self.connect_to("one")
        open_connections = [first] + [self.connect()[0] for _ in range(4)]
        self.assertEqual(self.connect()[1], "")
        for connection in open_connections:
            connection.close()
        self.connect_to("one").close()


if __name__ == "__main__":
    unittest.main()
