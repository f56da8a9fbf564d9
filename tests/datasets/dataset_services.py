"""A local server that speaks the APIs of figshare, Zenodo, the GDC and GitHub, and misbehaves on request."""

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Served:
    """One file. The behaviours are used up, one per request for its content: drop:N sends N bytes and hangs up, ..."""

    name: str
    content: bytes
    announced: bytes | None = None
    behaviours: list[str] = field(default_factory=list)
    case_id: str = "TCGA-00-0000"
    ranges: list[str | None] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    @property
    def md5(self) -> str:
        return hashlib.md5(self.announced or self.content).hexdigest()

    @property
    def git_sha(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Services:
    """What the server holds; `page` is the most that it lists on one page, whatever it is asked for."""

    url: str
    files: list[Served] = field(default_factory=list)
    page: int = 1000
    articles_count: int | None = None
    answers: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=lambda: defaultdict(list))
    requests: list[str] = field(default_factory=list)
    bodies: list[dict] = field(default_factory=list)

    def add(self, name: str, content: bytes, **settings: object) -> Served:
        self.files.append(Served(name, content, **settings))
        return self.files[-1]

    def content_requests(self) -> list[str]:
        return [path.rpartition("/")[2] for path in self.requests if "/content/" in path]


@contextmanager
def serving() -> Iterator[Services]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    services = Services(f"http://127.0.0.1:{server.server_port}")
    server.services = services
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield services
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        services = self.server.services
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), {key: int(value[0]) for key, value in parse_qs(parts.query).items()}
        services.requests.append(path)
        if services.answers[path]:
            status, headers = services.answers[path].pop(0)
            return self._send(status, b"{}", headers)
        size, start = min(query.get("page_size", 10), services.page), 0
        start = (query.get("page", 1) - 1) * query.get("page_size", 10)
        match path.strip("/").split("/"):
            case ["figshare", "collections", _]:
                count = services.articles_count
                return self._json({"articles_count": len(services.files) if count is None else count})
            case ["figshare", "collections", _, "articles"]:
                return self._json([{"id": n} for n in range(len(services.files))][start : start + size])
            case ["figshare", "articles", n, "files"]:
                file = services.files[int(n)]
                described = {"name": file.name, "size": len(file.content), "download_url": self._url(file)}
                return self._json([described | {"computed_md5": file.md5, "supplied_md5": ""}][start : start + size])
            case ["zenodo", "records", _]:
                return self._json({"files": [self._zenodo(file) for file in services.files]})
            case ["github", "repos", _, _, "contents", *_]:
                return self._json([self._github(file) for file in services.files] + [{"type": "dir", "name": "lib"}])
            case ["gdc", "data", name] | ["content", name]:
                return self._content(next(file for file in services.files if file.name == name))
        return self._send(404, b"{}")

    def do_POST(self):
        services = self.server.services
        services.requests.append(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        services.bodies.append(body)
        page = services.files[body["from"] : body["from"] + min(body["size"], services.page)]
        hits = [
            {
                "file_id": file.name,
                "file_name": file.name,
                "file_size": len(file.content),
                "md5sum": file.md5,
                "cases": [{"submitter_id": file.case_id}],
            }
            for file in page
        ]
        self._json({"data": {"hits": hits, "pagination": {"total": len(services.files)}}})

    def _zenodo(self, file):
        return {
            "key": file.name,
            "size": len(file.content),
            "checksum": f"md5:{file.md5}",
            "links": {"self": self._url(file)},
        }

    def _github(self, file):
        return {
            "type": "file",
            "name": file.name,
            "size": len(file.content),
            "sha": file.git_sha,
            "download_url": self._url(file),
        }

    def _url(self, file):
        return f"{self.server.services.url}/content/{file.name}"

    def _content(self, file):
        asked = self.headers.get("Range")
        file.ranges.append(asked)
        file.tokens.append(self.headers.get("X-Auth-Token"))
        behaviour, _, value = (file.behaviours.pop(0) if file.behaviours else "").partition(":")
        if behaviour == "status":
            status, _, header = value.partition(" ")
            return self._send(int(status), b"no", dict([header.split("=")]) if header else {})
        if behaviour == "redirect":
            return self._send(302, b"", {"Location": value})
        content = b"\xff" * len(file.content) if behaviour == "garbage" else file.content
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and behaviour != "ignore_range" else 0
        body = content[start:]
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        self.send_response(206 if start else 200)
        for key, text in headers.items():
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if behaviour == "drop":
            self.wfile.write(body[: int(value)])
            self.close_connection = True
        else:
            self.wfile.write(body)
        return None

    def _json(self, content):
        self._send(200, json.dumps(content).encode())

    def _send(self, status, body, headers=None):
        self.send_response(status)
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
