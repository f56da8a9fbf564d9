"""A web server for the tests: answers byte ranges, counts what it gives, and fails on demand."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class RangeServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.gives_ranges = True
        self.failures = []
        self.requests = []
        self.bytes_given = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        server = self.server
        server.requests.append((self.command, self.headers.get("Range")))
        file = server.folder / unquote(urlsplit(self.path).path).lstrip("/")
        if server.failures:
            return self.reply(server.failures.pop(0), b"")
        if not file.exists():
            return self.reply(404, b"")
        data, status, extra = file.read_bytes(), 200, {}
        if server.gives_ranges and (wanted := self.headers.get("Range")):
            first, last = wanted.removeprefix("bytes=").split("-")
            total = len(data)
            data, status = data[int(first) : int(last) + 1], 206
            extra = {"Content-Range": f"bytes {first}-{int(first) + len(data) - 1}/{total}"}
        return self.reply(status, data, extra, with_body)

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
def serving(folder):
    server = RangeServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
