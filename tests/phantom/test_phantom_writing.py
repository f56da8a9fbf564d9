from dataclasses import replace

import numpy as np
import openslide
import pytest
import tifffile
import tiffslide

from mitoray.phantom import DOMAINS, draw_phantom, write_slide


@pytest.fixture(scope="module", params=["jpeg", "jpeg2000"])
def written(request, tmp_path_factory):
    domain = DOMAINS["phantom-breast-b"]
    domain = replace(domain, scanner=replace(domain.scanner, codec=request.param))
    phantom = draw_phantom(domain, seed=3, width_px=1501, height_px=1130)
    path = tmp_path_factory.mktemp("slide") / "phantom.svs"
    write_slide(phantom, path)
    return phantom, path


@pytest.mark.parametrize("library", [openslide.OpenSlide, tiffslide.TiffSlide])
def test_slide_is_read_as_aperio_with_its_true_resolution(written, library):
    phantom, path = written
    name = "openslide" if library is openslide.OpenSlide else "tiffslide"
    with library(str(path)) as slide:
        assert slide.dimensions == (1501, 1130)
        assert slide.properties[f"{name}.vendor"] == "aperio"
        assert float(slide.properties[f"{name}.mpp-x"]) == pytest.approx(phantom.mpp)
        assert float(slide.properties[f"{name}.mpp-y"]) == pytest.approx(phantom.mpp)
        assert float(slide.properties[f"{name}.objective-power"]) == 40


@pytest.mark.parametrize("library", [openslide.OpenSlide, tiffslide.TiffSlide])
def test_base_level_shows_the_phantom(written, library):
    phantom, path = written
    with library(str(path)) as slide:
        base = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"), dtype=int)
    assert np.abs(base - phantom.image).mean() < 4
    assert np.abs(base.mean(axis=(0, 1)) - phantom.image.mean(axis=(0, 1))).max() < 1, "no colour cast"


@pytest.mark.parametrize("library", [openslide.OpenSlide, tiffslide.TiffSlide])
def test_pyramid_agrees_with_the_shrunken_base(written, library):
    phantom, path = written
    with library(str(path)) as slide:
        assert slide.level_dimensions == ((1501, 1130), (375, 282))
        assert slide.level_downsamples[1] == pytest.approx(4, rel=0.01)
        level = np.asarray(slide.read_region((0, 0), 1, (375, 282)).convert("RGB"), dtype=int)
    expected = phantom.image[:1128, :1500].reshape(282, 4, 375, 4, 3).mean(axis=(1, 3))
    assert np.abs(level - expected).mean() < 4


def test_tiles_are_compressed_and_sized_as_the_scanner_does(written):
    phantom, path = written
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        assert page.compression == {"jpeg": 7, "jpeg2000": 33005}[phantom.domain.scanner.codec]
        assert (page.tilelength, page.tilewidth) == (240, 240)
        assert path.stat().st_size < phantom.image.nbytes / 3


def test_long_thin_slide_can_be_written(tmp_path):
    write_slide(draw_phantom("phantom-neuroendocrine-a", seed=1, width_px=5000, height_px=120), tmp_path / "slide.svs")
    with openslide.OpenSlide(tmp_path / "slide.svs") as slide:
        assert slide.level_dimensions == ((5000, 120), (1250, 30), (312, 7))


def test_half_micrometre_slide_says_twenty_fold(tmp_path):
    write_slide(draw_phantom("phantom-neuroendocrine-a", seed=1, width_px=300, height_px=300), tmp_path / "slide.svs")
    with openslide.OpenSlide(tmp_path / "slide.svs") as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert float(slide.properties["openslide.objective-power"]) == 20
