from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mitoray.models.bands import bands


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    pixels=st.integers(1, 10**7),
    multiple=st.sampled_from([1, 8, 16, 32]),
    context_steps=st.integers(0, 7),
)
def test_bands_own_each_row_once_and_see_their_context(height, width, pixels, multiple, context_steps):
    context = context_steps * multiple
    found = list(bands(height, width, pixels, multiple, context))
    assert found[0].top == 0
    assert found[-1].bottom == height
    for band, following in pairwise(found):
        assert band.bottom == following.top
    for band in found:
        assert band.top < band.bottom
        assert band.top % multiple == 0
        assert band.start % multiple == 0
        assert band.start == max(0, band.top - context)
        assert band.stop == min(height, band.bottom + context)


@given(height=st.integers(1, 3000), width=st.integers(1, 500), rows=st.integers(32, 3000))
def test_bands_have_no_more_pixels_of_their_own_than_asked_for(height, width, rows):
    for band in bands(height, width, rows * width, 32, 64):
        assert (band.bottom - band.top) * width <= rows * width


def test_an_image_that_fits_is_one_band():
    (band,) = bands(100, 200, 10**6, 32, 160)
    assert (band.top, band.bottom, band.start, band.stop) == (0, 100, 0, 100)
