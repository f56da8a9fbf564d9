import itertools
import threading

import boto3
import fsspec
import pytest
from faulty_endpoint import FAULTS, faulty
from moto.server import ThreadedMotoServer
from range_server import serving
from slide_writer import stained, write_svs

from mitoray.errors import CorruptTile, NoByteRanges, SlideError, SlideUnreachable
from mitoray.slide import Rect, open_slide, range_requests, retry

RECT = Rect(300, 100, 1400, 1300)
"""Six rows of tiles, too far from each other to travel together."""
REMEDIES = {
    "slow_down": (SlideUnreachable, r"slide\.svs: .*EBUSY|503.*Check network and endpoint"),
    "drop": (SlideUnreachable, r"slide\.svs: .*Check network and endpoint"),
    "short": (SlideUnreachable, r"slide\.svs: .*Check network and endpoint"),
    "stall": (SlideUnreachable, r"slide\.svs: .*Check network and endpoint"),
    "stall_midway": (SlideUnreachable, r"slide\.svs: .*Check network and endpoint"),
    "no_http": (SlideUnreachable, r"slide\.svs: .*Check network and endpoint"),
    "garble": (CorruptTile, r"slide\.svs: tile .*copy the slide again"),
    "whole": (NoByteRanges, r"slide\.svs: .*copy the slide to disk or S3"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    write_svs(folder / "slide.svs", stained(1500, 4400), levels=2)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    with open_slide(str(folder / "slide.svs")) as slide:
        return slide.read_region(RECT, 0.25)


@pytest.fixture(scope="module")
def s3_endpoint(folder):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **keys)
    client.create_bucket(Bucket="cohort")
    client.upload_file(str(folder / "slide.svs"), "cohort", "slide.svs")
    yield endpoint
    server.stop()


@pytest.fixture(params=["s3", "http"])
def storage(request, folder, s3_endpoint, monkeypatch):
    """A storage that may be told to fail, the slide's URI there, and the options to reach it."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(range_requests, "SILENCE_S", 0.6)
    if request.param == "s3":
        with faulty(s3_endpoint) as proxy:
            yield proxy, "s3://cohort/slide.svs", keys_for(proxy)
    else:
        with serving(folder) as server, faulty(server.url) as proxy:
            yield proxy, f"{proxy.url}/slide.svs", {}


def keys_for(proxy):
    return {"key": "testing", "secret": "testing", "client_kwargs": {"endpoint_url": proxy.url}}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_leaves_the_pixels_as_they_are(storage, expected, fault):
    proxy, uri, options = storage
    with open_slide(uri, options) as slide:
        proxy.plan(fault, **({"most": 2} if fault == "garble" else {"strikes": 1}))
        assert (slide.read_region(RECT, 0.25) == expected).all()
        assert proxy.suffered[fault] > 0


@pytest.mark.parametrize("seed", range(3))
def test_many_faults_of_all_kinds_leave_the_pixels_as_they_are(storage, expected, seed):
    proxy, uri, options = storage
    proxy.seed = seed
    # Bytes that decode to other pixels cannot be told from the slide: they have a test of their own.
    proxy.plan(*(fault for fault in FAULTS if fault != "garble"), share=0.7, strikes=retry.ATTEMPTS - 1)
    with open_slide(uri, options) as slide:
        assert (slide.read_region(RECT, 0.25) == expected).all()
    assert len(proxy.suffered) >= 3


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_is_named_with_its_remedy_after_few_attempts(storage, expected, fault):
    proxy, uri, options = storage
    error, remedy = REMEDIES[fault]
    with open_slide(uri, options) as slide:
        proxy.plan(fault)
        with pytest.raises(error, match=remedy) as caught:
            slide.read_region(RECT, 0.25)
        assert "testing" not in str(caught.value)
        assert len(proxy.attempts) >= 6
        # aiohttp repeats once by itself what a closed connection left unanswered.
        assert max(proxy.attempts.values()) <= retry.ATTEMPTS * (2 if fault == "drop" else 1)
        proxy.plan()
        assert (slide.read_region(RECT, 0.25) == expected).all()


@pytest.mark.parametrize("fault", ["slow_down", "short", "no_http", "garble", "whole"])
def test_a_slide_that_cannot_be_opened_for_a_fault_is_named(storage, fault):
    proxy, uri, options = storage
    proxy.plan(fault)
    with pytest.raises(SlideError, match=r"slide\.svs"):
        open_slide(uri, options)


@pytest.mark.parametrize("fault", ["stall", "stall_midway"])
def test_a_storage_that_falls_silent_does_not_hang_a_read_for_ever(storage, fault):
    proxy, uri, options = storage
    failed = threading.Event()

    def read(slide):
        try:
            slide.read_region(RECT, 0.25)
        except SlideUnreachable:
            failed.set()

    with open_slide(uri, options) as slide:
        proxy.plan(fault)
        reader = threading.Thread(target=read, args=(slide,), daemon=True)
        reader.start()
        # All ranges wait together: about 5 silences in all. The margin is for a busy machine.
        assert failed.wait(60)


def test_an_answer_that_drips_is_given_up(storage, monkeypatch):
    proxy, uri, options = storage
    monkeypatch.setattr(range_requests, "DRIP_S", 0.0)
    monkeypatch.setattr(range_requests, "CONNECT_S", 0.5)
    with open_slide(uri, options) as slide:
        proxy.plan("drip")
        with pytest.raises(SlideUnreachable, match="TimeoutError"):
            slide.read_region(RECT, 0.25)


def test_timeouts_and_retries_of_the_storage_options_have_the_last_word():
    ours, _ = range_requests.file_system("s3://cohort/a.svs", {"key": "k", "secret": "s"})
    assert ours.config_kwargs["read_timeout"] == range_requests.SILENCE_S
    assert ours.config_kwargs["retries"]["total_max_attempts"] == 1
    theirs, _ = range_requests.file_system(
        "s3://cohort/a.svs", {"config_kwargs": {"read_timeout": 99, "retries": {"max_attempts": 7}}}
    )
    assert theirs.config_kwargs["read_timeout"] == 99
    assert theirs.config_kwargs["retries"] == {"max_attempts": 7}
    assert theirs.config_kwargs["connect_timeout"] == range_requests.CONNECT_S
    web, _ = range_requests.file_system("https://host/a.svs", {"client_kwargs": {"timeout": 3}})
    assert web.client_kwargs["timeout"] == 3


def test_the_file_system_that_other_code_shares_keeps_its_own_retries():
    shared = fsspec.filesystem("s3", key="k", secret="s")
    ours, _ = range_requests.file_system("s3://cohort/a.svs", {"key": "k", "secret": "s"})
    assert ours is not shared
    assert (ours.retries, shared.retries > 1) == (1, True)


def test_pauses_grow_and_differ_and_end():
    series = [list(retry.pauses_s()) for _ in range(40)]
    assert {len(pauses) for pauses in series} == {retry.ATTEMPTS - 1}
    assert len({pauses[0] for pauses in series}) > 30
    for number, values in enumerate(zip(*series, strict=True)):
        middle = retry.FIRST_PAUSE_S * 2**number
        assert all(middle / 2 <= pause <= middle * 3 / 2 for pause in values)
    assert sum(map(max, zip(*series, strict=True))) < 10


def test_a_failure_that_cannot_pass_is_not_tried_again():
    calls = itertools.count()

    def ask():
        next(calls)
        raise PermissionError

    with pytest.raises(SlideError, match="not allowed"):
        retry.patiently(ask, "a.svs")
    assert next(calls) == 1
