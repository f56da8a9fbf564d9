import json
import math

import numpy as np
import pytest
import safetensors.torch
import torch

from mitoray.errors import BadOption
from mitoray.models import Normalisation
from mitoray.models.architectures import built
from mitoray.training.augment import Augmentation
from mitoray.training.fitting import Diverged, Fitter, Fitting, load_weights
from mitoray.training.material import phantom_patches
from mitoray.training.patches import Patches

CPU = torch.device("cpu")
NORMALISATION = Normalisation(mean=(180, 140, 170), std=(40, 50, 40))
SETTINGS = {"mitoray-s": {"width": 0.5}, "retinanet": {"channels": 32}}
STEPS = 3


@pytest.fixture(scope="module")
def patches():
    return phantom_patches("phantom-lymphoma-a", 24, 64, 0.25, seed=2)


@pytest.fixture(scope="module")
def epoch(patches):
    """The batches of an epoch, the same however often it is asked for."""

    def batches_of(number):
        order = np.random.default_rng(number).permutation(len(patches.images))
        return [(patches.taken(part), 0) for part in np.array_split(order[: STEPS * 4], STEPS)]

    return batches_of


def fitter_of(architecture="mitoray-s", *, augmentation=None, **fitting):
    torch.manual_seed(0)
    network = built(architecture, SETTINGS[architecture])
    given = Fitting(**{"epochs": 4, "learning_rate": 5e-3, "body_learning_rate": 5e-4, **fitting})
    return Fitter(network, given, STEPS, NORMALISATION, device=CPU, augmentation=augmentation)


def state(fitter):
    return {name: tensor.clone() for name, tensor in fitter.network.state_dict().items()}


def changed(before, after):
    return {name for name, tensor in after.items() if not torch.equal(before[name], tensor)}


def rates(fitter):
    return [group["lr"] for group in fitter._optimiser.param_groups]


def test_an_epoch_says_what_it_saw(epoch):
    outcome = fitter_of().run_epoch([(batch, 2) for batch, _ in epoch(0)])
    assert (outcome.patches, outcome.skipped) == (12, 6)
    assert 0 <= outcome.wait_share < 1
    metrics = outcome.metrics()
    assert metrics["loss"] == outcome.loss
    assert metrics["skipped_patches"] == 6
    assert metrics["patches_per_s"] == pytest.approx(12 / outcome.duration_s)
    assert all(math.isfinite(value) for value in metrics.values())


def test_a_training_lowers_its_loss(patches):
    fitter = fitter_of(epochs=8)
    losses = [fitter.run_epoch([(patches, 0)] * STEPS).loss for _ in range(8)]
    assert losses[-1] < 0.6 * losses[0]


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(epoch):
    def run(seed, rank=0):
        fitter = fitter_of(augmentation=Augmentation(), seed=seed)
        fitter._rank = rank
        return [fitter.run_epoch(epoch(n)).loss for n in range(2)], state(fitter)

    (first, weights), (again, weights_again) = run(5), run(5)
    assert first == again
    assert not changed(weights, weights_again)
    assert run(6)[0] != first
    assert run(5, rank=1)[0] != first


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [
        ("mitoray-s", "float32"),
        ("mitoray-s", "bfloat16"),
        ("mitoray-s", "float16"),
        ("retinanet", "float32"),
        ("retinanet", "bfloat16"),
    ],
)
def test_a_training_that_is_continued_ends_as_one_undisturbed(epoch, tmp_path, architecture, precision):
    options = {"augmentation": Augmentation(), "precision": precision, "epochs": 3, "head_epochs": 1}
    whole = fitter_of(architecture, **options)
    losses = []
    for number in range(3):
        losses.append(whole.run_epoch(epoch(number)).loss)
        if number == 0:
            whole.save(tmp_path / "state", {"best": 0.5, "judged": ["a", None]})
    continued = fitter_of(architecture, **options)
    assert continued.load(tmp_path / "state") == {"best": 0.5, "judged": ["a", None]}
    assert continued.epoch == 1
    assert [continued.run_epoch(epoch(number)).loss for number in (1, 2)] == losses[1:]
    assert not changed(state(whole), state(continued))
    assert rates(continued) == rates(whole)


def test_what_is_kept_is_tensors_and_json_without_a_pickle(epoch, tmp_path):
    fitter = fitter_of()
    fitter.run_epoch(epoch(0))
    fitter.save(tmp_path / "a" / "b", {"run": "x"})
    files = {path.name: path for path in (tmp_path / "a" / "b").iterdir()}
    assert {path.suffix for path in files.values()} == {".json", ".safetensors"}
    assert all(safetensors.torch.load_file(path) for path in files.values() if path.suffix == ".safetensors")
    assert json.loads(files["fitting.json"].read_text())["epoch"] == 1
    assert safetensors.torch.load_file(files["optimiser.safetensors"])["0.step"] == STEPS
    assert not changed(state(fitter), load_weights(tmp_path / "a" / "b"))
    assert Fitter.notes_in(tmp_path / "a" / "b") == {"run": "x"}


def test_a_training_of_other_steps_cannot_be_continued(tmp_path):
    fitter_of().save(tmp_path, {})
    torch.manual_seed(0)
    other = Fitter(built("mitoray-s", SETTINGS["mitoray-s"]), Fitting(), STEPS + 1, NORMALISATION, device=CPU)
    with pytest.raises(BadOption, match="begun with 3 steps per epoch and worker, and now has 4"):
        other.load(tmp_path)


def test_in_head_epochs_the_body_stays_as_it_was(epoch):
    fitter = fitter_of("retinanet", head_epochs=2, weight_decay=0.5)
    before = state(fitter)
    for number in range(2):
        fitter.run_epoch(epoch(number))
    moved = changed(before, state(fitter))
    body = {name for name in before if name.startswith(("backbone.stem.", "backbone.layers."))}
    assert not moved & body  # neither its weights nor its batch statistics
    assert {"head.classification_head.cls_logits.weight", "backbone.smooth.weight"} <= moved
    fitter.run_epoch(epoch(2))
    after = changed(before, state(fitter))
    assert {"backbone.stem.conv1.weight", "backbone.layers.3.1.conv2.weight", "backbone.stem.bn1.running_mean"} <= after


def test_a_loss_that_is_no_number_ends_the_training(epoch):
    (first, _), (second, _), (third, _) = epoch(0)
    broken = Patches(torch.full(second.images.shape, torch.nan), second.centres_px)
    fitter = fitter_of()
    fitter.run_epoch(epoch(1))
    with pytest.raises(Diverged, match=r"The loss became nan in epoch 2, step 2\. Lower learning_rate"):
        fitter.run_epoch([(first, 0), (broken, 0), (third, 0)])
    assert fitter.epoch == 1
    none = Patches(torch.empty(0, 3, 64, 64, dtype=torch.uint8), torch.empty(0, 1, 2))
    with pytest.raises(Diverged, match="epoch 1, step 3"):
        fitter_of().run_epoch([(first, 0), (none, 4), (broken, 0)])


def test_weights_beyond_all_numbers_end_the_training(epoch):
    fitter = fitter_of(learning_rate=1.0, body_learning_rate=1.0, precision="float32")
    with torch.no_grad():
        for parameter in fitter.network.parameters():
            parameter.mul_(1e30)
    with pytest.raises(Diverged, match="epoch 1, step 1"):
        fitter.run_epoch(epoch(0))


@pytest.mark.parametrize("architecture", SETTINGS)
def test_a_batch_of_which_nothing_could_be_read_is_survived(epoch, architecture):
    batches = epoch(0)
    none = Patches(torch.empty(0, 3, 64, 64, dtype=torch.uint8), torch.empty(0, 1, 2))
    fitter = fitter_of(architecture, augmentation=Augmentation())
    outcome = fitter.run_epoch([(none, 4), batches[0], (none, 0)])
    assert (outcome.patches, outcome.skipped) == (4, 4)
    assert outcome.loss == outcome.first_loss > 0.5  # what was not seen is not counted as seen without a fault
    before = state(fitter)
    outcome = fitter.run_epoch([(none, 4)] * STEPS)
    assert (outcome.loss, outcome.patches, outcome.skipped) == (0.0, 0, 12)
    assert all(tensor.isfinite().all() for tensor in state(fitter).values())
    assert not any(name.endswith("running_mean") for name in changed(before, state(fitter)))


def test_precisions_agree_as_far_as_they_reach(epoch):
    first, last = {}, {}
    for precision in ("float32", "bfloat16", "float16", "auto"):
        fitter = fitter_of(precision=precision)
        first[precision] = fitter.run_epoch(epoch(0)).first_loss
        last[precision] = fitter.run_epoch(epoch(1)).loss
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in fitter.network.parameters())
    assert len({first[precision] for precision in ("float32", "bfloat16", "float16")}) == 3
    assert first["auto"] in (first["float32"], first["bfloat16"])
    assert list(first.values()) == pytest.approx([first["float32"]] * 4, rel=0.01)
    assert last["bfloat16"] == pytest.approx(last["float32"], rel=0.05)  # float16 leaves out the steps that overflow


def test_later_layers_learn_faster_in_even_octaves():
    groups = fitter_of("retinanet", learning_rate=5e-4, body_learning_rate=5e-5)._optimiser.param_groups
    tops = [group["max_lr"] for group in groups]
    assert tops == pytest.approx([5e-5, 5e-5 * 10**0.5, 5e-4])
    assert len({id(p) for group in groups for p in group["params"]}) == sum(len(group["params"]) for group in groups)


def test_the_learning_rate_rises_and_falls_once_and_ends_low(patches):
    fitter = fitter_of(epochs=10, learning_rate=1e-2, body_learning_rate=1e-3)
    few = patches.taken(np.arange(2))
    seen = []
    for _ in range(10 * STEPS):
        seen.append(rates(fitter))
        fitter.run_epoch([(few, 0)])
    head = np.array(seen)[:, -1]
    top = int(np.argmax(head))
    assert head[0] == pytest.approx(1e-2 / 25)
    assert head[top] == pytest.approx(1e-2, rel=0.02)
    assert 0.2 < top / len(head) < 0.4
    assert (np.diff(head[: top + 1]) > 0).all()
    assert (np.diff(head[top:]) < 0).all()
    assert seen[-1] == pytest.approx([1e-7, 1e-7 * 10**0.5, 1e-6], rel=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"learning_rate": 0.0}, "must be above 0"),
        ({"learning_rate": 1e-5}, "the body's not above the head's"),
        ({"learning_rate": float("nan")}, "must be above 0"),
        ({"learning_rate": 2.0}, "at most 1"),
        ({"weight_decay": -0.1}, "weight_decay and head_epochs must be 0 or more"),
        ({"head_epochs": -1}, "0 or more"),
        ({"patience": 0}, "patience 1 or more"),
        ({"epochs": 3, "head_epochs": 4}, "head_epochs 4 is more than the 3 epochs"),
        ({"mine_at": (0.5, 1.0)}, "mine_at must hold shares between 0 and 1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(BadOption, match=message):
        Fitting(**settings)


def test_false_positives_are_looked_for_at_the_stated_shares():
    fitting = Fitting(epochs=10, mine_at=(0.25, 0.5))
    assert [epoch for epoch in range(10) if fitting.mines_before(epoch)] == [3, 5]
    assert not any(Fitting(epochs=10).mines_before(epoch) for epoch in range(10))
