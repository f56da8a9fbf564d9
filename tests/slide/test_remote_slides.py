import socket

import boto3
import pytest
from moto.server import ThreadedMotoServer
from range_server import serving
from slide_writer import stained, write_svs
from wide_slide import write_wide

from mitoray.errors import (
    BadTissueMask,
    EmptySlide,
    NoByteRanges,
    NotASlide,
    SlideForbidden,
    SlideNotFound,
    SlideUnreachable,
)
from mitoray.slide import Rect, find_tissue, open_slide, redact, retry, storage

RECT = Rect(512, 512, 1024, 1024)
MIDDLE = (49_920, 39_936)
"""Corner of a tile in the middle of a wide slide, px."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    write_svs(folder / "slide.svs", stained(3000, 3600), levels=3)
    (folder / "empty.svs").touch()
    (folder / "page.svs").write_bytes(b"<html>please log in</html>" * 9)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    with open_slide(str(folder / "slide.svs")) as slide:
        return slide.read_region(RECT, 0.25)


@pytest.fixture
def server(folder):
    with serving(folder) as server:
        yield server


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.0)


def test_a_slide_is_read_over_http(server, expected):
    with open_slide(f"{server.url}/slide.svs") as slide:
        assert (slide.read_region(RECT, 0.25) == expected).all()


def test_opening_a_small_slide_takes_few_requests(server):
    with open_slide(f"{server.url}/slide.svs"):
        assert len(server.requests) <= 5
        assert server.bytes_given < 1_500_000


def test_a_region_that_was_read_is_not_asked_for_again(server):
    with open_slide(f"{server.url}/slide.svs") as slide:
        opened, given = len(server.requests), server.bytes_given
        region = slide.fetch_region(RECT, 0.25)
        payload = sum(map(len, region.tiles))
        assert len(server.requests) - opened <= 6
        assert server.bytes_given - given <= 1.5 * payload
        slide.read_region(RECT, 0.25)
        after = len(server.requests)
        slide.read_region(RECT, 0.25)
        assert len(server.requests) == after


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A slide 100,000 px wide, and its pixels around the middle."""
    folder = tmp_path_factory.mktemp("wide")
    return folder, write_wide(folder / "wide.svs", filled=(*MIDDLE, 2560, 2560))


def test_opening_a_slide_of_gigabytes_takes_few_requests(wide):
    with serving(wide[0]) as server, open_slide(f"{server.url}/wide.svs") as slide:
        assert slide.size_bytes > 2_000_000_000
        assert [(level.width_px, level.height_px) for level in slide.levels] == [
            (100_000, 80_000),
            (25_000, 20_000),
            (6_250, 5_000),
        ]
        assert len(server.requests) <= 8
        assert server.bytes_given < 5_000_000


@pytest.mark.parametrize(("dx", "dy"), [(128, 128), (0, 0), (1, 255), (255, 200), (77, 131)])
def test_a_region_with_its_halo_takes_at_most_ten_requests(wide, dx, dy):
    folder, pixels = wide
    with serving(folder) as server, open_slide(f"{server.url}/wide.svs") as slide:
        opened = len(server.requests)
        region = slide.read_region(Rect(MIDDLE[0] + dx, MIDDLE[1] + dy, 2048 + 2 * 128, 2048 + 2 * 128), 0.25)
        assert len(server.requests) - opened <= 10
        assert (region == pixels[dy : dy + 2304, dx : dx + 2304]).all()


def test_a_server_that_ignores_ranges_is_refused_before_it_sends_the_file(server, folder):
    server.gives_ranges = False
    with pytest.raises(NoByteRanges, match="gives whole files only"):
        open_slide(f"{server.url}/slide.svs")


@pytest.mark.parametrize(
    ("name", "error"), [("gone.svs", SlideNotFound), ("empty.svs", EmptySlide), ("page.svs", NotASlide)]
)
def test_a_url_that_gives_no_slide_is_named(server, name, error):
    with pytest.raises(error, match=name.replace(".", r"\.")):
        open_slide(f"{server.url}/{name}")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusing_server_is_forbidden_and_its_secrets_stay_unsaid(server, status):
    server.failures = [status] * 9
    with pytest.raises(SlideForbidden, match=f"HTTP status {status}") as caught:
        open_slide(f"{server.url}/slide.svs?X-Amz-Signature=s3cr3t")
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_failures_that_pass_are_tried_again(server, expected, no_pauses):
    with open_slide(f"{server.url}/slide.svs") as slide:
        server.failures = [503, 500]
        assert (slide.read_region(RECT, 0.25) == expected).all()


def test_failures_that_stay_make_a_slide_unreachable(server, no_pauses):
    with open_slide(f"{server.url}/slide.svs") as slide:
        server.failures = [503] * 99
        with pytest.raises(SlideUnreachable, match="HTTP status 503"):
            slide.read_region(RECT, 0.25)
        server.failures = []
        assert slide.read_region(RECT, 0.25).std() > 5


def test_a_server_that_is_not_there_makes_a_slide_unreachable(no_pauses):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(SlideUnreachable, match="Check network and endpoint"):
        open_slide(f"http://127.0.0.1:{port}/slide.svs")


def test_an_allowed_protocol_that_nothing_opens_says_what_to_install(monkeypatch):
    monkeypatch.setenv("MITORAY_SCHEMES", "carrierpigeon")
    with pytest.raises(SlideUnreachable, match="install the fsspec package"):
        open_slide("carrierpigeon://loft/slide.svs")


@pytest.mark.parametrize("name", ["with space.svs", "a#1.svs", "a::b.svs", "méla 黒?.svs", "100%25.svs"])
def test_local_names_are_taken_as_they_are(tmp_path, name):
    write_svs(tmp_path / name, stained(300, 300))
    for uri in (str(tmp_path / name), f"file://{tmp_path / name}"):
        with open_slide(uri) as slide:
            assert slide.width_px == 300


def test_a_percent_encoded_file_uri_is_understood(tmp_path):
    write_svs(tmp_path / "with space.svs", stained(300, 300))
    with open_slide((tmp_path / "with space.svs").as_uri()) as slide:
        assert slide.width_px == 300


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("https://u:p@host:8080/a/b.svs?sig=x#y", "https://host:8080/a/b.svs"),
        ("https://token@host/b.svs", "https://host/b.svs"),
        ("s3://KEY:se/cr@et@bucket/b.svs", "s3://bucket/b.svs"),
        ("s3://bucket/me@home/b.svs", "s3://bucket/me@home/b.svs"),
        ("https://host:8080/me@home/b.svs", "https://host:8080/me@home/b.svs"),
        ("/data/a?b#c@d.svs", "/data/a?b#c@d.svs"),
        ("file:///data/a?b#c@d.svs", "file:///data/a?b#c@d.svs"),
    ],
)
def test_what_may_be_secret_is_taken_out_of_a_uri(uri, said):
    assert redact(uri) == said


@pytest.fixture(scope="module")
def bucket(folder):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"key": "testing", "secret": "testing", "client_kwargs": {"endpoint_url": f"http://{host}:{port}"}}
    s3 = boto3.client(
        "s3",
        endpoint_url=keys["client_kwargs"]["endpoint_url"],
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    s3.create_bucket(Bucket="cohort")
    for file in folder.iterdir():
        s3.upload_file(str(file), "cohort", f"raw slides/{file.name}")
    yield keys
    server.stop()


def test_a_slide_is_read_from_s3(bucket, expected):
    with open_slide("s3://cohort/raw slides/slide.svs", bucket) as slide:
        assert (slide.read_region(RECT, 0.25) == expected).all()
        assert slide.size_bytes > 0


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("s3://cohort/raw slides/gone.svs", SlideNotFound),
        ("s3://no-such-bucket/slide.svs", SlideNotFound),
        ("s3://cohort/raw slides", NotASlide),
        ("s3://cohort/raw slides/empty.svs", EmptySlide),
        ("s3://cohort/raw slides/page.svs", NotASlide),
    ],
)
def test_what_is_no_slide_on_s3_is_named(bucket, uri, error):
    with pytest.raises(error):
        open_slide(uri, bucket)


def test_a_tissue_mask_is_read_from_s3(bucket, folder):
    with open_slide(str(folder / "slide.svs")) as slide, pytest.raises(BadTissueMask, match=r"page\.svs"):
        find_tissue(slide, "s3://cohort/raw slides/page.svs", bucket)


def test_an_s3_endpoint_that_is_not_there_makes_a_slide_unreachable(no_pauses):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    options = {
        "key": "testing",
        "secret": "testing",
        "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{port}"},
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    with pytest.raises(SlideUnreachable):
        open_slide("s3://cohort/slide.svs", options)


def test_close_ranges_travel_together():
    merged = storage.merge_ranges([(500, 600), (0, 100), (100, 200), (90_000, 90_100)], gap=1000, most=1 << 20)
    assert merged == [(0, 600), (90_000, 90_100)]
    assert storage.merge_ranges([(0, 600), (600, 1200)], gap=0, most=1000) == [(0, 600), (600, 1200)]
    assert storage.merge_ranges([(0, 600), (0, 600), (100, 200)], gap=0, most=100) == [(0, 600)]
