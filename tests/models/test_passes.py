"""Passes that shrink when memory runs out."""

import pytest
import torch

from mitoray.models.passes import LEAST_PX, PassSize


def needing(limit_px, tried):
    """Work that a device of so much memory can do."""

    def work(pixels):
        tried.append(pixels)
        if pixels > limit_px:
            raise torch.OutOfMemoryError
        return pixels

    return work


def test_a_pass_is_halved_until_it_fits_and_stays_so(caplog):
    passes, tried = PassSize(torch.device("cpu"), 8 * LEAST_PX, 1.0), []
    assert passes.run(needing(3 * LEAST_PX, tried)) == 2 * LEAST_PX
    assert tried == [8 * LEAST_PX, 4 * LEAST_PX, 2 * LEAST_PX]
    assert caplog.text.count("memory of cpu") == 2
    assert passes.run(needing(3 * LEAST_PX, tried)) == 2 * LEAST_PX
    assert len(tried) == 4


def test_what_does_not_fit_at_all_is_said():
    passes, tried = PassSize(torch.device("cpu"), 3 * LEAST_PX, 1.0), []
    with pytest.raises(torch.OutOfMemoryError):
        passes.run(needing(0, tried))
    assert tried[-1] == LEAST_PX
    assert passes.run(needing(LEAST_PX, tried)) == LEAST_PX


def test_other_errors_are_not_tried_again():
    passes = PassSize(torch.device("cpu"), 8 * LEAST_PX, 1.0)
    with pytest.raises(ZeroDivisionError):
        passes.run(lambda pixels: pixels / 0)
    assert passes.pixels == 8 * LEAST_PX
