import pickle
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from mitoray.errors import BadLabels, BadOption
from mitoray.models import Normalisation
from mitoray.models.architectures import built
from mitoray.models.classifier import Verdicts
from mitoray.training.augment import Augmentation, augment
from mitoray.training.crop_feed import CropFeed, facts_of, validation_cases
from mitoray.training.crop_sampling import CropSampling
from mitoray.training.crops import png
from mitoray.training.fitting import Fitter, Fitting
from mitoray.training.patches import Patches, centred, joined
from mitoray.training.validation import validated_classifier

SIDE, PATCH = 48, 32
KINDS = ["mitotic_figure"] * 12 + ["imposter"] * 12 + ["mined"] * 4 + ["uncertain"] * 4
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Crops whose grey is their row, with one lighter px in their middle; two crops of each slide."""
    images = np.empty((len(KINDS), SIDE, SIDE, 3), np.uint8)
    images[:] = np.arange(len(KINDS), dtype=np.uint8)[:, None, None, None]
    images[:, SIDE // 2, SIDE // 2] = 200
    columns = {
        "crop_id": [f"c{i}" for i in range(len(KINDS))],
        "slide_id": [f"s{i // 2}" for i in range(len(KINDS))],
        "kind": KINDS,
        "subtype": [
            None if kind != "mitotic_figure" else ("normal", "atypical")[i % 3 == 0] for i, kind in enumerate(KINDS)
        ],
        "image": [png(image) for image in images],
    }
    path = tmp_path_factory.mktemp("crops") / "crops.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def feed_of(table, *, phase="all", validate=("s0", "s7", "s15"), left_out=(), batch_size=8, **sampling):
    settings = CropSampling(**{"patches": 32, "subtype_batch_size": 4, **sampling})
    return CropFeed(
        (table,), frozenset(validate), frozenset(left_out), 0.25, PATCH, SIDE - PATCH, settings, batch_size, phase=phase
    )


def rows_of(patches):
    """Which crop each patch shows."""
    return patches.images[:, 0, 0, 0].tolist()


def epoch(feed, number=0, rank=0, workers=1):
    (batches,) = feed.epochs(number, number + 1, rank, workers)
    return [batch for batch, _ in batches]


def test_a_batch_is_a_main_part_without_subtypes_and_a_subtype_part_without_the_rest(table):
    batches = epoch(feed_of(table))
    assert len(batches) == 4
    for batch in batches:
        main, subtype = batch.targets[:8], batch.targets[8:]
        assert main[:, 0].tolist() == [1, 0] * 4
        assert main[:, 1].isnan().all()
        assert subtype[:, 0].isnan().all()
        assert subtype[:, 1].tolist() == [0, 1] * 2
        for row, (y, s) in zip(rows_of(batch), batch.targets.tolist(), strict=True):
            assert np.isnan(y) or y == (KINDS[row] == "mitotic_figure")
            assert np.isnan(s) or s == (row % 3 == 0)


def test_validation_slides_masked_labels_and_what_is_left_out_are_never_trained_on(table):
    seen = Counter(
        row for number in range(12) for b in epoch(feed_of(table, left_out=["c20"]), number) for row in rows_of(b)
    )
    assert set(seen) == set(range(28)) - {0, 1, 14, 15, 20}


@pytest.mark.parametrize(("ambiguous", "target"), [("positive", 1.0), ("negative", 0.0)])
def test_uncertain_labels_train_as_told(table, ambiguous, target):
    told = [
        y
        for number in range(8)
        for batch in epoch(feed_of(table, ambiguous=ambiguous), number)
        for row, (y, _) in zip(rows_of(batch), batch.targets.tolist(), strict=True)
        if KINDS[row] == "uncertain"
    ]
    assert told
    assert set(told) == {target}


def test_without_the_subtype_task_there_is_no_subtype_part(table):
    for batch in epoch(feed_of(table, subtype_task=False)):
        assert len(batch.images) == 8
        assert batch.targets[:, 1].isnan().all()


def test_the_subtype_phase_gives_figures_of_known_subtype_only(table):
    batches = epoch(feed_of(table, phase="subtype"))
    assert len(batches) == 32 // 4
    assert all(b.targets[:, 0].isnan().all() and b.targets[:, 1].tolist() == [0, 1] * 2 for b in batches)


def test_crops_are_moved_by_no_more_than_the_jitter_and_their_centres_follow(table):
    shifts = set()
    for number in range(6):
        for batch in epoch(feed_of(table, shift_um=0.75), number):
            assert batch.images.shape[1:] == (3, SIDE - 6, SIDE - 6)
            for image, ((cx, cy),) in zip(batch.images, batch.centres_px, strict=True):
                ((y, x),) = (image[0] == 200).nonzero().tolist()
                assert (x - 0.5, y - 0.5) == (cx, cy)
                shifts.add((x - (SIDE - 6) // 2, y - (SIDE - 6) // 2))
    assert {dx for dx, _ in shifts} == {dy for _, dy in shifts} == set(range(-3, 4))


def test_crops_without_a_margin_stay_in_place(table):
    sampling = CropSampling(patches=32, subtype_batch_size=4)
    feed = CropFeed((table,), frozenset(), frozenset(), 0.25, SIDE, 32, sampling, 8)
    assert all(batch.images.shape[-1] == SIDE for batch in epoch(feed))
    with pytest.raises(BadLabels, match="is 48 px wide"):
        CropFeed((table,), frozenset(), frozenset(), 0.25, 64, 32, sampling, 8).validation()


def test_an_epoch_is_the_same_in_every_attempt_and_workers_share_it(table):
    first, again = epoch(feed_of(table), 3), epoch(feed_of(table), 3)
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, again, strict=True))
    assert any(rows_of(a) != rows_of(b) for a, b in zip(first, epoch(feed_of(table), 4), strict=True))
    shares = [epoch(feed_of(table, batch_size=4), 3, rank, 2) for rank in (0, 1)]
    assert [len(share) for share in shares] == [4, 4]
    together = [row for pair in zip(*shares, strict=True) for batch in pair for row in rows_of(batch)[:4]]
    assert together == [row for batch in epoch(feed_of(table, batch_size=4), 3) for row in rows_of(batch)[:4]]


def test_what_validates_is_shown_as_it_lies_and_uncertain_ones_without_a_target(table):
    validation = feed_of(table, ambiguous="positive").validation()
    assert rows_of(validation) == [0, 1, 14, 15, 30, 31]
    assert validation.images.shape == (6, 3, PATCH, PATCH)
    assert (validation.images[:, 0, PATCH // 2, PATCH // 2] == 200).all()
    assert validation.targets[:, 0].nan_to_num(-1).tolist() == [1, 1, 0, 0, -1, -1]


def test_a_feed_travels_without_its_images(table):
    feed = feed_of(table)
    before = epoch(feed)
    sent = pickle.dumps(feed)
    assert len(sent) < 3000
    assert torch.equal(epoch(pickle.loads(sent))[0].images, before[0].images)  # noqa: S301


def test_too_few_patches_for_a_batch_are_refused(table):
    with pytest.raises(BadOption, match="do not fill one batch of 64"):
        feed_of(table, batch_size=64).steps_per_epoch(1)


def test_crops_of_unknown_slide_that_show_the_same_place_do_not_do_both(tmp_path):
    tissue = np.random.default_rng(0).integers(0, 256, (80, 200, 3), dtype=np.uint8)
    corners = [0, 10, 140]  # the first two overlap
    images = [png(tissue[10:74, x : x + 60]) for x in corners]
    pq.write_table(pa.table({"crop_id": ["a", "b", "c"], "image": images}), tmp_path / "crops.parquet")
    feed = CropFeed((str(tmp_path / "crops.parquet"),), frozenset("a"), frozenset(), 0.25, 32, 28, CropSampling(), 1)
    assert feed.overlapping() == {"b"}


def test_the_same_crops_given_twice_are_refused(table):
    with pytest.raises(BadLabels, match="is in several tables"):
        facts_of([table, table])


def test_cases_are_held_out_by_their_names_whatever_else_there_is():
    cases = pa.table({"case_id": [f"case {i % 400}" for i in range(1200)]})
    chosen = validation_cases(cases, 0.25)
    assert 0.2 < len(chosen) / 400 < 0.3
    assert validation_cases(cases.slice(0, 400), 0.25) == chosen


class Told:
    """A classifier that says what the first pixel of each patch says."""

    mpp, patch_px, has_subtypes, device = 0.25, 8, True, CPU

    def classify(self, patches):
        pixel = patches[:, :2, 0, 0].numpy().astype(np.float32) / 255
        return Verdicts(pixel[:, :1], pixel[:, 1])


def test_a_classifier_is_judged_as_scikit_learn_judges_it():
    rng = np.random.default_rng(3)
    figure, subtype = (rng.random((2, 300)) < 0.4).astype(np.float32)
    images = torch.from_numpy(rng.integers(0, 256, (300, 3, 8, 8), dtype=np.uint8))
    scores = images[:, :2, 0, 0].numpy().astype(np.float32) / 255
    unknown = np.arange(300) >= 280
    targets = np.stack([figure, np.where(figure == 1, subtype, np.nan)], axis=1)
    targets[unknown] = np.nan
    figures, subtypes = validated_classifier(
        Told(), Patches(images, torch.full((300, 1, 2), 3.5), torch.from_numpy(targets)), at_once=64
    )
    known = ~unknown
    assert figures.average_precision == pytest.approx(average_precision_score(figure[known], scores[known, 0]))
    called = scores[known, 0] > figures.threshold
    tp = (called & (figure[known] == 1)).sum()
    assert figures.f1 == pytest.approx(2 * tp / (called.sum() + figure[known].sum()))
    told = known & (figure == 1)
    assert subtypes.auc == pytest.approx(roc_auc_score(subtype[told], scores[told, 1]))
    assert subtypes.balanced_accuracy == pytest.approx(balanced_accuracy_score(subtype[told], scores[told, 1] >= 0.5))


def test_one_subtype_alone_is_not_judged():
    targets = torch.tensor([[1.0, 1.0], [0.0, torch.nan]])
    patches = Patches(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 1, 2), targets)
    assert validated_classifier(Told(), patches)[1] is None


def test_targets_go_where_their_patches_go():
    patches = Patches(
        torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(4, 1, 2), torch.arange(8.0).reshape(4, 2)
    )
    plain = Patches(patches.images[:1], patches.centres_px[:1])
    assert torch.equal(patches.taken(np.array([2, 0])).targets, patches.targets[[2, 0]])
    assert torch.equal(augment(patches, np.random.default_rng(0), Augmentation()).targets, patches.targets)
    views = patches.views(9, 8, np.random.default_rng(0))
    assert set(map(tuple, views.targets.tolist())) <= set(map(tuple, patches.targets.tolist()))
    both = joined([plain, patches])
    assert both.targets[0].isnan().all()
    assert torch.equal(both.targets[1:], patches.targets)
    assert joined([plain, plain]).targets is None
    assert centred(patches.images, 5).shape == (4, 3, 5, 5)


def fitter_of(network, epochs=2, head_epochs=0, steps=4):
    fitting = Fitting(epochs, 8, learning_rate=5e-3, body_learning_rate=5e-3, weight_decay=0.5, head_epochs=head_epochs)
    normalisation = Normalisation(mean=(20.0, 20.0, 20.0), std=(20.0, 20.0, 20.0))
    return Fitter(network, fitting, steps, normalisation, device=CPU, augmentation=Augmentation(), crop_px=PATCH)


def test_the_subtype_phase_changes_the_subtype_head_and_not_a_bit_of_the_rest(table):
    torch.manual_seed(0)
    network = built("mitoray-c", {"patch_px": PATCH, "width": 0.25})
    first = fitter_of(network)
    first.run_epoch((batch, 0) for batch in epoch(feed_of(table)))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.subtype_only()
    second = fitter_of(network, head_epochs=2, steps=8)
    for number in range(2):
        outcome = second.run_epoch((batch, 0) for batch in epoch(feed_of(table, phase="subtype"), number))
        assert np.isfinite(outcome.loss)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"subtype.weight", "subtype.bias"}
