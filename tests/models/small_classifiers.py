"""Small classifiers with seeded weights and batch norms that have seen something, and their bundles."""

import torch

from mitoray.models import Bundle, Normalisation, Training
from mitoray.models.architectures import built

NORMALISATION = Normalisation(mean=(180.0, 140.0, 170.0), std=(40.0, 50.0, 40.0))
SMALL = {"width": 0.25, "patch_px": 32}


def seen(architecture, settings, seed=0):
    """A network in evaluation whose answers spread."""
    torch.manual_seed(seed)
    network = built(architecture, settings).train()
    for _ in range(2):
        network(torch.rand(8, 3, network.patch_px, network.patch_px) * 4 - 2)
    with torch.no_grad():
        for head in (network.mitosis, network.subtype):
            if head is not None:
                head.weight.mul_(3)
    return network.eval()


def classifier_bundle(architecture="mitoray-c", settings=None, seed=0, **changes):
    """A bundle with its weights, as `load_bundle` gives it but for the digest."""
    settings = SMALL if settings is None else settings
    card = {
        "name": f"{architecture}-{seed}",
        "architecture": architecture,
        "settings": settings,
        "mpp": 0.25,
        "threshold": 0.5,
        "thresholds": {},
        "normalisation": NORMALISATION,
        "training": Training(data=(f"seed {seed}",), licence="CC0", notes=()),
        "metrics": (),
    }
    return Bundle(**{**card, **changes}, weights=seen(architecture, settings, seed).state_dict())


def patches_of(n, side_px, seed=0):
    """Random uint8 patches (n, 3, side, side) of unlike colours."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randint(40, 216, (n, 3, 1, 1), generator=generator)
    noise = torch.randint(-40, 40, (n, 3, side_px, side_px), generator=generator)
    return (base + noise).to(torch.uint8)
