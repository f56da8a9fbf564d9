"""Areas and fields, held to numbers of the literature."""

import numpy as np
import pytest

from mitoray.counting.fields import (
    HPF_MM2,
    TEN_HPF_MM2,
    count_per,
    count_per_2mm2,
    count_per_10hpf,
    field_diameter_mm,
    field_mm2,
    hpf_to_mm2,
    mm2_to_hpf,
)
from mitoray.errors import BadOption


def test_field_number_22_at_40_is_the_standard_field_of_0237_square_millimetres():
    assert field_diameter_mm(22, 40) == pytest.approx(0.55)
    assert field_mm2(22, 40) == pytest.approx(HPF_MM2, abs=1e-3)
    assert hpf_to_mm2(10) == pytest.approx(TEN_HPF_MM2)


def test_other_microscopes_have_the_published_areas():
    # Field diameters 0.40 and 0.69 mm are 0.125 and 0.374 mm² in the CAP's table.
    assert field_mm2(16, 40) == pytest.approx(0.125, abs=1e-3)
    assert field_mm2(27.6, 40) == pytest.approx(0.374, abs=1e-3)
    assert field_mm2(22, 40, tube_factor=1.25) == pytest.approx(field_mm2(22, 50))


def test_counts_keep_their_density_from_area_to_area():
    assert count_per(47.4, 2.37) == pytest.approx(20)
    assert count_per_2mm2(237, 2.37) == pytest.approx(200)
    assert count_per_10hpf(200, 2.0) == pytest.approx(237)
    assert count_per_10hpf(200, 2.0, hpf_mm2=0.2) == pytest.approx(200)
    assert mm2_to_hpf(hpf_to_mm2(7)) == pytest.approx(7)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_what_is_not_positive_is_refused_by_name(bad):
    with pytest.raises(BadOption, match="field_number"):
        field_mm2(bad, 40)
    with pytest.raises(BadOption, match="n_hpf"):
        hpf_to_mm2(bad)
    with pytest.raises(BadOption, match="counted_mm2"):
        count_per(3, bad)


def test_a_negative_count_is_refused():
    with pytest.raises(BadOption, match="negative"):
        count_per(-1, 2.0)
