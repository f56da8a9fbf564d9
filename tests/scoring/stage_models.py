"""Bundles of small networks with seeded weights, whose answers spread: what two stages do, not how well."""

from functools import cache

import torch

from mitoray.models import Bundle, Combination, Normalisation, Training, ensemble_of, save_bundle
from mitoray.models.architectures import built
from mitoray.phantom import draw_phantom

NORMALISATION = Normalisation(mean=(180.0, 140.0, 170.0), std=(40.0, 50.0, 40.0))


@cache
def normalised_tissue():
    image = torch.from_numpy(draw_phantom("phantom-lymphoma-a", seed=8, width_px=384, height_px=384).image)
    return (image - torch.tensor(NORMALISATION.mean)) / torch.tensor(NORMALISATION.std)


def bundle_of(architecture, settings, *, mpp=0.25, seed=0, **changes):
    """A detector's or classifier's bundle with its weights; over tissue its log-odds are 0 in the mean, ± 1.5."""
    torch.manual_seed(seed)
    network = built(architecture, settings).train()
    side_px = settings.get("patch_px", 128)
    tiles = normalised_tissue().unfold(0, side_px, 64).unfold(1, side_px, 64).flatten(0, 1)
    with torch.no_grad():
        for _ in range(5):
            network(tiles)
        answers = network.eval()(tiles)
        heads = (network.centre,) if architecture == "mitoray-s" else (network.mitosis, network.subtype)
        for head, logits in zip(heads, answers if isinstance(answers, tuple) else (answers,), strict=True):
            if head is not None:
                head.bias.copy_((head.bias - logits.mean()) * 1.5 / logits.std())
                head.weight.mul_(1.5 / logits.std())
    card = {
        "name": f"{architecture}-{seed}",
        "architecture": architecture,
        "settings": settings,
        "mpp": mpp,
        "threshold": 0.5,
        "thresholds": {},
        "normalisation": NORMALISATION,
        "training": Training(data=(), licence="CC0", notes=()),
        "metrics": (),
    }
    return Bundle(**{**card, **changes}, weights=network.state_dict())


def detector_bundle(**changes):
    return bundle_of("mitoray-s", {"width": 0.34}, seed=5, **changes)


def classifier_bundle(seed=1, *, patch_px=64, subtypes=True, **changes):
    return bundle_of("mitoray-c", {"width": 0.25, "patch_px": patch_px, "subtypes": subtypes}, seed=seed, **changes)


def ensemble_bundle(patch_px=128):
    """Two members, of which the first alone tells subtypes, weighed 3 : 1 and the detector 1."""
    members = [classifier_bundle(1, patch_px=patch_px), classifier_bundle(2, patch_px=patch_px, subtypes=False)]
    combination = Combination(weights=(3.0, 1.0), detector_weight=1.0)
    return ensemble_of(members, combination, name="pair", threshold=0.5, thresholds={"phantom-lymphoma-a": 0.45})[0]


def saved(bundle, folder):
    save_bundle(bundle, bundle.weights, folder)
    return str(folder)
