import sys

import numpy as np
import pytest
import torch

from mitoray.benchmark.peers import main, peers
from mitoray.benchmark.runner_environment import Peer, PeerFailed, environment
from mitoray.benchmark.runner_mitoray import shares, windows_of
from mitoray.benchmark.runner_network import write_traced
from mitoray.benchmark.runner_process import Runner, together
from mitoray.errors import BadModel
from mitoray.models import load_bundle
from mitoray.phantom import draw_cohort, draw_phantom

ABSENT = Peer("tiatoolbox", ("tiatoolbox>=2.1",), python=sys.executable)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    manifest, _ = draw_cohort(folder, n_slides=1, seed=8, width_px=2048, height_px=1024, domains=["phantom-lymphoma-a"])
    return manifest["uri"][0].as_py()


@pytest.fixture
def empty_index(tmp_path):
    (tmp_path / "index").mkdir()
    return (tmp_path / "index").as_uri()


def runner(folder, code, limit_s=60.0, tries=({},)):
    file = folder / "tool.py"
    file.write_text(code)
    return Runner("tool", sys.executable, file, {"cores": 1, "tries": list(tries)}, folder, {}, limit_s)


def test_the_traced_network_scores_a_window_as_the_detectors_heat_map_does(tmp_path):
    bundle = load_bundle("mitoray-s")
    write_traced(bundle, tmp_path / "network.pt")
    network = torch.jit.load(tmp_path / "network.pt")
    image = torch.tensor(draw_phantom("phantom-neuroendocrine-a", seed=5, width_px=1536, height_px=512).image)
    windows = torch.stack(image.permute(2, 0, 1).split(512, dim=2))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in vars(bundle.normalisation).values())
    with torch.inference_mode():
        probabilities = torch.softmax(network((windows - mean) / std), dim=1)
    highest = bundle.detector().heatmap(windows).amax(dim=(1, 2))
    assert highest.max() > 0.5 > highest.min()
    np.testing.assert_allclose(probabilities[:, 1], highest, atol=0.02)  # the detector's has fewer bits
    assert next(network.parameters()).dtype == torch.float32


def test_only_a_model_that_draws_heat_maps_is_traced(tmp_path):
    with pytest.raises(BadModel, match="draws no heat-map"):
        write_traced(load_bundle("mitoray-c"), tmp_path / "network.pt")


def test_windows_cover_an_image_once_and_are_white_beyond_it():
    image = torch.randint(0, 255, (3, 700, 1024), dtype=torch.uint8)
    windows = windows_of(image)
    assert windows.shape == (4, 3, 512, 512)
    top, bottom = (torch.cat(list(row), dim=2) for row in (windows[:2], windows[2:]))
    whole = torch.cat([top, bottom], dim=1)
    assert torch.equal(whole[:, :700], image)
    assert (whole[:, 700:] == 255).all()


def test_actors_share_a_slides_regions_evenly():
    sides = [64, 1024, 128, 512, 512, 768, 256]
    regions = [{"x_px": 0, "y_px": 0, "width_px": side, "height_px": 512, "halo_px": 0} for side in sides]
    dealt = shares(regions, 2)
    assert sorted(region["width_px"] for share in dealt for region in share) == sorted(sides)
    assert sorted(sum(region["width_px"] for region in share) for share in dealt) == [1600, 1664]


@pytest.mark.slow
def test_mitoray_is_measured_with_both_networks_and_a_peer_that_cannot_be_installed_says_why(
    slide, tmp_path, empty_index
):
    rows = peers(slide, tmp_path / "work", cores=1, rounds=1, tools=[ABSENT], index=empty_index)
    ours, plain, theirs = rows
    assert [row["name"] for row in rows] == ["mitoray", "mitoray, the same float32 network", "tiatoolbox"]
    for row in (ours, plain):
        assert row["seconds"] > 0
        assert 0.06 < row["mm2"] <= 2048 * 1024 * 0.25**2 / 1e6
        assert row["windows_per_s"] * row["seconds"] == pytest.approx(row["mm2"] / 0.256**2)
    assert ours["mm2"] == plain["mm2"]
    assert theirs["seconds"] is None
    assert "could not be installed" in theirs["note"]


def test_a_peers_environment_is_not_taken_for_installed_after_a_failed_installation(tmp_path, empty_index):
    for _ in range(2):
        with pytest.raises(PeerFailed, match="could not be installed"):
            environment(ABSENT, tmp_path, empty_index)


def test_a_peers_environment_is_used_again(tmp_path, empty_index):
    nothing = Peer("nothing", (), python=sys.executable)
    place = tmp_path / "env-nothing"
    place.mkdir()
    (place / "installed.txt").write_text(sys.executable)
    assert environment(nothing, tmp_path, empty_index) == place / "bin" / "python"
    assert list(place.iterdir()) == [place / "installed.txt"]


def test_a_runner_takes_the_fastest_of_its_settings_and_answers_each_time(tmp_path):
    code = """
import time
print("noise")
def prepare(settings):
    def work(tried):
        print("more noise")
        time.sleep(tried["wait"] / 10)
        return {"mm2": 2.5}
    return {"version": "1"}, work
"""
    running = runner(tmp_path, code, tries=[{"wait": 5}, {"wait": 0}, {"wait": 3}])
    try:
        assert running.answer() == {"version": "1", "best": {"wait": 0}}
        for _ in range(2):
            seconds, (answer,) = together([running])
            assert seconds > 0
            assert answer["mm2"] == 2.5
            assert answer["cpu_s"] >= 0
    finally:
        running.close()


@pytest.mark.parametrize(
    ("code", "limit_s", "why"),
    [
        ("raise ValueError('no such slide')", 60.0, "failed: ValueError: no such slide"),
        ("import time\ndef prepare(settings):\n    time.sleep(60)", 1.0, "took more than 1 s"),
    ],
)
def test_a_runner_that_fails_or_is_late_says_why(tmp_path, code, limit_s, why):
    running = runner(tmp_path, code, limit_s)
    try:
        with pytest.raises(PeerFailed, match=why):
            running.answer()
    finally:
        running.close()


def test_a_slide_is_given_or_drawn(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--folder", str(tmp_path)])
    assert "one of the arguments --slide --draw is required" in capsys.readouterr().err
