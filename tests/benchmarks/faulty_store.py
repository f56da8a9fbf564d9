"""An S3 endpoint with a network in front of it that can be made bad: moto in a process of its own, behind a proxy.

Unlike `tests/slide/faulty_endpoint.py`, which fails the n-th read of a byte range by plan, this one fails whatever is
asked, reading and writing, while a fault lasts.
"""

import http.client
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3

KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
HOPS = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}


class BadNetwork(ThreadingHTTPServer):
    """Hands requests on to the server at a port of this machine, but for those that a fault befalls."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream_port: int, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream_port = upstream_port
        self.port = int(self.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._fault, self._share, self._until = "", 0.0, 0.0
        self.latency_s = 0.0
        self.suffered: Counter[str] = Counter()
        self.requests = 0

    def befall(self, fault: str, share: float, lasts_s: float) -> None:
        """From now on and for so long, this share of requests suffers the fault: `slow_down`, `drop` or `down`."""
        with self._lock:
            self._fault, self._share, self._until = fault, share, time.monotonic() + lasts_s

    def calm(self) -> None:
        """No more faults; counts start anew."""
        with self._lock:
            self._fault, self.latency_s, self.requests = "", 0.0, 0
            self.suffered.clear()

    def next_fault(self) -> str:
        """The fault of one more request, or the empty string."""
        with self._lock:
            self.requests += 1
            if not self._fault or time.monotonic() > self._until or self._chance.random() >= self._share:
                return ""
            self.suffered[self._fault] += 1
            return self._fault

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that break are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: BadNetwork

    def _pass_on(self) -> None:
        fault = self.server.next_fault()
        time.sleep(self.server.latency_s)
        if fault == "down":
            return self._hang_up()
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault == "slow_down":
            return self._reply(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
        # Half of the dropped connections break before the server was asked, half in the middle of its answer.
        if fault == "drop" and self.server.requests % 2:
            return self._hang_up()
        status, headers, body = self._upstream(sent)
        if fault == "drop":
            self._reply(status, headers, body, given=len(body) // 2)
            return self._hang_up()
        return self._reply(status, headers, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815

    def _upstream(self, sent: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream_port, timeout=60)
        connection.request(self.command, self.path, sent, dict(self.headers.items()))
        answer = connection.getresponse()
        body = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in HOPS}
        if self.command == "HEAD":
            kept["Content-Length"] = answer.getheader("Content-Length") or "0"
        connection.close()
        return answer.status, kept, body

    def _reply(self, status: int, headers: dict[str, str], body: bytes, given: int | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:given])

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args: object) -> None:
        pass


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def client(url: str):
    """A boto3 client of the endpoint."""
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1", **KEYS)


@contextmanager
def moto() -> Iterator[int]:
    """moto's server in a process of its own, until the block ends; gives its port."""
    port = free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], **quiet)
    try:
        while True:
            assert server.poll() is None, "moto did not start"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield port
    finally:
        server.terminate()
        server.wait()


@contextmanager
def bad_network(upstream_port: int, seed: int) -> Iterator[BadNetwork]:
    """The proxy, until the block ends."""
    server = BadNetwork(upstream_port, seed)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
