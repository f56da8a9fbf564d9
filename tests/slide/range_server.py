"""A web server for the tests: gives byte ranges, counts what it gives, waits like a network, fails on demand."""

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class RangeServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder, latency_s=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.latency_s = latency_s
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.gives_ranges = True
        self.gives_etags = True
        self.failures = []
        self.requests = []
        self.bytes_given = 0

    @property
    def gets(self):
        """How often bytes were asked for."""
        return sum(command == "GET" for command, _ in self.requests)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        server = self.server
        server.requests.append((self.command, self.headers.get("Range")))
        time.sleep(server.latency_s)
        file = server.folder / unquote(urlsplit(self.path).path).lstrip("/")
        if server.failures:
            return self.reply(server.failures.pop(0), b"")
        if not file.exists():
            return self.reply(404, b"")
        facts = file.stat()
        first, last, status, extra = 0, facts.st_size - 1, 200, {}
        if server.gives_etags:
            extra["ETag"] = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'
        if server.gives_ranges and (wanted := self.headers.get("Range")):
            first, last = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
            if first >= facts.st_size:
                return self.reply(416, b"")
            last, status = min(last, facts.st_size - 1), 206
            extra["Content-Range"] = f"bytes {first}-{last}/{facts.st_size}"
        data = b""
        if with_body:
            with file.open("rb") as content:
                content.seek(first)
                data = content.read(last + 1 - first)
        return self.reply(status, data, {"Content-Length": str(last + 1 - first), **extra}, with_body)

    def reply(self, status, data, extra=None, with_body=True):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (extra or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            try:
                self.wfile.write(data)
                self.server.bytes_given += len(data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    def log_message(self, *args):
        pass


@contextmanager
def serving(folder, latency_s=0.0):
    server = RangeServer(folder, latency_s)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
