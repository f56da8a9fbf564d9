"""Trainings on a real Ray: what comes back, what a lost worker or a missing slide does to them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from crowded import draw_crowded

from mitoray.errors import TrainingFailed
from mitoray.models import Normalisation
from mitoray.training.augment import Augmentation
from mitoray.training.feed import MINED, Sampling
from mitoray.training.fit import Network, Placement, Scaling, Training, fit
from mitoray.training.fit_stream import SlideFeed
from mitoray.training.fitting import Fitting
from mitoray.training.slides import open_training_slide

NORMALISATION = Normalisation(mean=(172.0, 102.0, 176.0), std=(49.0, 54.0, 40.0))
ONE = Placement(workers=1, threads=1, num_cpus=1.0, use_gpu=False)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    manifest, labels = draw_crowded(folder, ["phantom-lymphoma-a"], n_slides=4, seed=11, side_px=1000)
    return [open_training_slide(row["slide_id"], row["uri"]) for row in manifest.to_pylist()], labels


def training(cohort, *, epochs=2, workers_batch=8, **fitting):
    slides, labels = cohort
    sampling = Sampling(patch_px=96, patches=48, validation_patches=24, hard_share=0.2 if "mine_at" in fitting else 0.0)
    feed = SlideFeed(tuple(slides[:3]), tuple(slides[3:]), labels, 0.25, sampling, workers_batch)
    settings = Fitting(epochs=epochs, batch_size=workers_batch, learning_rate=4e-3, body_learning_rate=4e-3, **fitting)
    return Training(Network("mitoray-s", 0.25, NORMALISATION, {"width": 0.5}), feed, settings, Augmentation())


def test_what_workers_reserve_leaves_room_for_readers_and_tune():
    for cpus, workers, at_once in [(2, 1, 1), (2, 2, 1), (4, 1, 2), (16, 4, 2)]:
        place = Scaling(workers=workers).placed([(cpus, 0)], at_once)
        assert at_once * place.workers * (place.num_cpus + 0.1) + 0.1 <= cpus
    assert Scaling().placed([(16, 2)]).workers == 2
    assert Scaling().placed([(16, 0)]).threads == 8


def test_no_worker_asks_for_more_than_one_node_has():
    assert Scaling().placed([(4, 0)] * 4).num_cpus < 4
    assert Scaling().placed([(64, 0)] + [(4, 1)] * 4).num_cpus < 4
    assert Scaling().placed([(16, 4)]).num_cpus <= 16 / 4


@pytest.mark.slow
def test_the_same_seed_gives_the_same_first_epoch_and_one_that_is_done_is_not_trained_again(
    ray_session, cohort, tmp_path
):
    first = fit(training(cohort), ONE, name="a", storage=str(tmp_path))
    again = fit(training(cohort), ONE, name="b", storage=str(tmp_path))
    assert len(first.history) == 2
    assert first.history[0]["loss"] == again.history[0]["loss"]
    assert first.history[0]["first_loss"] == again.history[0]["first_loss"]
    assert 0 <= first.history[1]["wait_share"] < 1
    assert first.metrics["val_ap"] == max(epoch["val_ap"] for epoch in first.history)
    before = {path: path.stat().st_mtime for path in (tmp_path / "a").rglob("weights.safetensors")}
    resumed = fit(training(cohort), ONE, name="a", storage=str(tmp_path))
    assert resumed.history == first.history
    assert {path: path.stat().st_mtime for path in (tmp_path / "a").rglob("weights.safetensors")} == before


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_end_where_undisturbed_ones_do(ray_session, cohort, tmp_path):
    two = Placement(workers=2, threads=1, num_cpus=0.8, use_gpu=False)
    marker = tmp_path / "killed"

    def kill_a_worker(metrics):
        import os
        import signal

        import psutil

        if metrics["epoch"] == 2 and not marker.exists():
            marker.touch()
            workers = [
                p.pid for p in psutil.process_iter(["cmdline"]) if "RayTrainWorker" in " ".join(p.info["cmdline"] or [])
            ]
            os.kill(workers[-1], signal.SIGKILL)

    settings = {"epochs": 4, "workers_batch": 8}
    calm = fit(training(cohort, **settings), two, name="calm", storage=str(tmp_path))
    struck = fit(
        training(cohort, **settings),
        two,
        name="struck",
        storage=str(tmp_path),
        max_failures=2,
        on_epoch=kill_a_worker,
    )
    assert marker.exists()
    assert [epoch["epoch"] for epoch in struck.history] == [1, 2, 3, 4]
    for ours, theirs in zip(struck.history, calm.history, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.02)
        assert ours["val_ap"] == pytest.approx(theirs["val_ap"], abs=0.05)
    print("killed:", struck.history, "undisturbed:", calm.history)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_slide_that_vanishes_is_skipped_and_counted_over_all_workers(ray_session, cohort, tmp_path, workers):
    slides, labels = cohort
    moved = []
    for slide in slides[:3]:
        copy = tmp_path / Path(slide.uri).name
        shutil.copy(slide.uri, copy)
        moved.append(open_training_slide(slide.slide_id, str(copy)))
    Path(moved[0].uri).unlink()
    placement = Placement(workers=workers, threads=1, num_cpus=0.8, use_gpu=False)
    lacking = training(([*moved, slides[3]], labels), workers_batch=16 // workers)
    fitted = fit(lacking, placement, name="lacking", storage=str(tmp_path))
    for epoch in fitted.history:
        assert epoch["skipped_patches"] == pytest.approx(48 / 3, abs=1)
        assert epoch["patches_per_s"] > 0
        assert np.isfinite(epoch["loss"])


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_training_by_name(ray_session, cohort, tmp_path):
    broken = training(cohort)
    network = Network("mitoray-s", 0.25, Normalisation(mean=(0.0, 0.0, 0.0), std=(1e-38, 1e-38, 1e-38)), {"width": 0.5})
    broken = Training(network, broken.feed, broken.fitting, None)
    with pytest.raises(TrainingFailed, match=r"loss became .* in epoch 1"):
        fit(broken, ONE, name="broken", storage=str(tmp_path), max_failures=2)


@pytest.mark.slow
def test_no_gain_ends_a_training_early_and_mined_mistakes_enter_it(ray_session, cohort, tmp_path):
    stale = training(cohort, epochs=12, patience=1, mine_at=(0.2,))
    assert stale.feed.sampling.hard_share
    fitted = fit(stale, ONE, name="stale", storage=str(tmp_path))
    precision = [epoch["val_ap"] for epoch in fitted.history]
    assert len(precision) == 12 or precision[-1] <= max(precision[:-1])
    assert fitted.metrics["val_ap"] == max(precision)


def test_mining_labels_what_the_detector_finds_far_from_any_label(cohort):
    from mitoray.models import load_bundle

    slides, labels = cohort
    sampling = Sampling(patch_px=96, patches=48, validation_patches=24, hard_share=0.5)
    nothing_known = labels.slice(0, 0)
    feed = SlideFeed(tuple(slides[:1]), tuple(slides[1:]), nothing_known, 0.25, sampling, 8)
    found = feed.mine(load_bundle("mitoray-s").detector())
    assert found >= 5  # every figure of the slide is a mistake, where none is known
    mined = feed.labels.to_pylist()
    assert {row["dataset"] for row in mined} == {MINED}
    assert {row["kind"] for row in mined} == {"imposter"}
