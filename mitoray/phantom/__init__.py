"""H&E-like slides drawn by procedure, with known mitotic figures: the demo, training data, and the tests' ground."""

from mitoray.phantom.cohort import draw_cohort, draw_slide, plan_cohort
from mitoray.phantom.domains import DOMAINS, PhantomDomain, Scanner, Stain, Tumour, domain_named
from mitoray.phantom.drawing import Phantom, draw_patches, draw_phantom
from mitoray.phantom.writing import write_slide

__all__ = [
    "DOMAINS",
    "Phantom",
    "PhantomDomain",
    "Scanner",
    "Stain",
    "Tumour",
    "domain_named",
    "draw_cohort",
    "draw_patches",
    "draw_phantom",
    "draw_slide",
    "plan_cohort",
    "write_slide",
]
