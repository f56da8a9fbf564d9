"""Tiles per second from a store 20 ms away: ranges read together, against one request per tile, in one run.

The slide is 100,000 px wide, its rows of tiles 8 MB apart; a region is 2048 px and a halo of 128 px, 100 tiles. All
readers fetch compressed tiles of the same region from the same server, which waits before it answers each request.
"one by one" is how readers fetch that decode tile after tile; "one each, at once" asks for every tile by itself, but
for all of a region together. tiffslide reads and decodes level 0 through fsspec's file and its default cache, which on
S3 would hold all of the small slide there, so it stands beside HTTP only.

python tests/benchmarks/remote_reading.py
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import boto3
import fsspec
import tiffslide
from moto.server import ThreadedMotoServer

sys.path.insert(0, str(Path(__file__).parents[1] / "slide"))

from faulty_endpoint import faulty
from range_server import serving
from wide_slide import write_wide

from mitoray.slide.pyramid import read_pyramid
from mitoray.slide.range_requests import fetch
from mitoray.slide.storage import SlideFile

Span = tuple[int, int]

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--latency-ms", type=float, default=20.0, help="wait before each answer, ms")
parser.add_argument("--rounds", type=int, default=7, help="times that each reader reads a region, in turn")
arguments = parser.parse_args()
logging.getLogger("werkzeug").setLevel(logging.ERROR)

TILES_ACROSS = 10
"""Of a region of 2048 + 2 × 128 px that starts half a tile off the grid."""
MIDDLE_PX = (49_920, 39_936)
REGION_PX = 2048 + 2 * 128


def region_spans(file: SlideFile) -> list[Span]:
    """Where the tiles of the region lie in the file."""
    level, tiles = read_pyramid(file).levels[0], read_pyramid(file).tiles[0]
    columns = -(-level.width_px // level.tile_width_px)
    first = MIDDLE_PX[1] // level.tile_height_px * columns + MIDDLE_PX[0] // level.tile_width_px
    indices = [first + row * columns + column for row in range(TILES_ACROSS) for column in range(TILES_ACROSS)]
    return [(int(tiles.offsets[i]), int(tiles.offsets[i] + tiles.byte_counts[i])) for i in indices]


def one_by_one(file: SlideFile, spans: Sequence[Span]) -> None:
    """A request per tile, each after the other."""
    for span in spans:
        file.read_ranges([span])


def one_each_at_once(file: SlideFile, spans: Sequence[Span]) -> None:
    """A request per tile, as many at a time as a region read together may have on its way."""
    for reply in fetch(file._fs, file._path, spans):
        if isinstance(reply, BaseException):
            raise reply


def together(file: SlideFile, spans: Sequence[Span]) -> None:
    """What `Slide` does."""
    file.read_ranges(spans)


def by_tiffslide(uri: str, options: dict[str, object]) -> None:
    """The region through a file that is newly opened, as nothing of it may be in a cache."""
    with fsspec.open(uri, **options) as file, tiffslide.TiffSlide(file) as slide:
        counter.start()
        left, top = MIDDLE_PX[0] + 128, MIDDLE_PX[1] + 128
        slide.read_region((left, top), 0, (REGION_PX, REGION_PX), as_array=True)
        counter.stop()


class Counter:
    """Seconds and requests of the part of a read that counts."""

    def __init__(self) -> None:
        self.gets: Callable[[], int] = lambda: 0
        self.seconds, self.requests = 0.0, 0

    def start(self) -> None:
        """From here on."""
        self._before, self._started = self.gets(), time.perf_counter()

    def stop(self) -> None:
        """Up to here."""
        self.seconds, self.requests = time.perf_counter() - self._started, self.gets() - self._before


counter = Counter()


def compare(store: str, uri: str, options: dict[str, object], gets: Callable[[], int]) -> None:
    """Read in turn with every reader, print medians."""
    counter.gets = gets
    file = SlideFile(uri, options)
    spans = region_spans(file)
    readers = {"together": together, "one each, at once": one_each_at_once, "one by one": one_by_one}
    seconds: dict[str, list[float]] = {}
    requests: dict[str, int] = {}
    for number in range(arguments.rounds + 1):
        for name, read in readers.items():
            counter.start()
            read(file, spans)
            counter.stop()
            if number:  # the first round opens connections
                seconds.setdefault(name, []).append(counter.seconds)
                requests[name] = counter.requests
        if number and store == "HTTP":
            by_tiffslide(uri, options)
            seconds.setdefault("tiffslide", []).append(counter.seconds)
            requests["tiffslide"] = counter.requests
    best = statistics.median(seconds["together"])
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(
            f"{store:6} {name:18} {requests[name]:9} {len(spans) / middle:9.0f} {middle / best:11.1f}× "
            f"({min(values) * 1e3:.0f} to {max(values) * 1e3:.0f} ms)"
        )


with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
    folder, latency_s = Path(name), arguments.latency_ms / 1e3
    filled = (*MIDDLE_PX, TILES_ACROSS * 256, TILES_ACROSS * 256)
    print(f"{'store':6} {'reader':18} {'requests':>9} {'tiles/s':>9} {'together is':>12}")

    write_wide(folder / "wide.svs", filled=filled)
    web = stack.enter_context(serving(folder, latency_s))
    compare("HTTP", f"{web.url}/wide.svs", {}, lambda: web.gets)

    # moto reads a whole object for each range of it: the slide there is 6000 px wide, its rows 0.5 MB apart.
    write_wide(folder / "small.svs", width_px=6000, height_px=4000, filled=(1024, 1024, *filled[2:]))
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    stack.callback(moto.stop)
    endpoint = "http://{}:{}".format(*moto.get_host_and_port())
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **keys)
    client.create_bucket(Bucket="cohort")
    client.upload_file(str(folder / "small.svs"), "cohort", "small.svs")
    MIDDLE_PX = (1024, 1024)
    proxy = stack.enter_context(faulty(endpoint, latency_s))
    s3 = {"key": "test", "secret": "test", "client_kwargs": {"endpoint_url": proxy.url}}
    compare("S3", "s3://cohort/small.svs", s3, lambda: proxy.gets)
