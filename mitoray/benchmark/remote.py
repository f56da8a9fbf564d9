"""Slides behind a network: few requests at once, beside one request per tile."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from mitoray.benchmark.rounds import in_turn
from mitoray.benchmark.rows import Row, beside
from mitoray.slide import Rect, open_slide

LATENCY_S: Final = 0.02
REGION_PX: Final = 2048


def remote(path: str, rounds: int) -> list[Row]:
    """Tiles per second of a region of 2,048 px, cold, from a server here that waits 20 ms before each answer."""
    with serving(Path(path), LATENCY_S) as (uri, requests), open_slide(uri, mpp=_mpp(path)) as slide:
        rect = _middle(slide.width_px, slide.height_px)
        requests.clear()
        fetched = slide.fetch_region(rect, slide.mpp)
        n_requests = len(requests)
        tiles = [Rect(*fetched.window.tile_extent(index, fetched.tile_format)) for index in fetched.indices]

        def one_by_one() -> None:
            for tile in tiles:
                slide.fetch_region(tile, slide.mpp)

        works = {"one request per tile": one_by_one, "mitoray": lambda: slide.fetch_region(rect, slide.mpp)}
        seconds = in_turn(works, rounds)
    part = f"reading {Path(path).name} over HTTP, {1000 * LATENCY_S:.0f} ms a request"
    rows = [Row(part, what, len(tiles) / s, "tiles/s") for what, s in seconds.items()]
    count = Row(part, f"requests for {rect.width_px} × {rect.height_px} px", n_requests, "", note=f"{len(tiles)} tiles")
    return [*beside(rows, "one request per tile"), count]


def _mpp(path: str) -> float | None:
    with open_slide(path, mpp=0.25) as slide:
        return None if slide.properties.get("tiffslide.mpp-x") else 0.25


def _middle(width_px: int, height_px: int) -> Rect:
    width, height = min(REGION_PX, width_px), min(REGION_PX, height_px)
    return Rect((width_px - width) // 2, (height_px - height) // 2, width, height)


@contextmanager
def serving(path: Path, latency_s: float) -> Iterator[tuple[str, list[str]]]:
    """A server of one file on this machine: its URI, and the byte ranges asked for so far."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one go, or each answer would wait for an acknowledgement

        def do_HEAD(self) -> None:
            self._head(200, path.stat().st_size)

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            requests.append(asked)
            time.sleep(latency_s)
            size = path.stat().st_size
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first or 0), min(int(last) + 1 if last else size, size)
            self._head(206 if asked else 200, stop - start, f"bytes {start}-{stop - 1}/{size}" if asked else "")
            with path.open("rb") as file:
                file.seek(start)
                self.wfile.write(file.read(stop - start))

        def _head(self, status: int, length: int, content_range: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.send_header("Accept-Ranges", "bytes")
            if content_range:
                self.send_header("Content-Range", content_range)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/{path.name}", requests
    finally:
        server.shutdown()
        server.server_close()
