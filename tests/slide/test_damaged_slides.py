import contextlib
import logging
import multiprocessing
import pickle
import shutil
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image
from slide_writer import overwrite, stained, tile_span, write_svs, write_tiff

from mitoray.errors import CorruptTile, EmptySlide, NotASlide, SlideError, SlideForbidden, SlideNotFound, TruncatedSlide
from mitoray.slide import Rect, open_slide


@pytest.fixture(scope="module")
def sound_slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "sound.svs"
    write_svs(path, stained(1200, 1440), levels=3)
    return path


@pytest.fixture
def slide_path(sound_slide, tmp_path):
    return shutil.copy(sound_slide, tmp_path / "slide.svs")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SlideNotFound, match=r"gone\.svs: no such file"):
        open_slide(str(tmp_path / "gone.svs"))


def test_a_file_of_no_bytes_is_named(tmp_path):
    (tmp_path / "empty.svs").touch()
    with pytest.raises(EmptySlide, match="0 bytes"):
        open_slide(str(tmp_path / "empty.svs"))


def test_a_folder_is_no_slide(tmp_path):
    with pytest.raises(NotASlide, match="is a folder"):
        open_slide(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"slide_id,uri\n1,a.svs\n" * 99, b"II*", b"\x89PNG\r\n\x1a\n" + bytes(99)],
    ids=["text", "two bytes", "png"],
)
def test_other_files_are_no_slides_whatever_their_name(tmp_path, content):
    (tmp_path / "fake.svs").write_bytes(content)
    with pytest.raises(NotASlide, match="no TIFF-based slide"):
        open_slide(str(tmp_path / "fake.svs"))


def test_a_jpeg_renamed_to_svs_is_no_slide(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.svs", "JPEG")
    with pytest.raises(NotASlide, match="no TIFF-based slide"):
        open_slide(str(tmp_path / "photo.svs"))


def test_a_file_that_may_not_be_read_is_named(tmp_path):
    path = tmp_path / "locked.svs"
    path.write_bytes(b"II*\0" + bytes(99))
    path.chmod(0)
    try:
        path.read_bytes()
    except PermissionError:
        with pytest.raises(SlideForbidden, match="Check credentials and permissions"):
            open_slide(str(path))
    else:
        pytest.skip("this user may read every file")


@pytest.mark.parametrize("kept", [0.02, 0.2, 0.5, 0.8, 0.9, 0.97, 0.995, 0.9999])
def test_a_slide_cut_short_anywhere_is_truncated(slide_path, kept):
    data = slide_path.read_bytes()
    slide_path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(TruncatedSlide, match="Copy it again"):
        open_slide(str(slide_path), mpp=0.25)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_bytes_of_its_table_of_contents_are_damaged_a_slide_fails_by_name(slide_path, seed):
    random = np.random.default_rng(seed)
    data = np.frombuffer(slide_path.read_bytes(), np.uint8)
    with tifffile.TiffFile(slide_path) as tiff:
        spans = [(page.offset, 2 + 12 * len(page.tags) + 4) for page in tiff.pages]
        spans += [(tag.valueoffset, 40) for page in tiff.pages for tag in page.tags]
    contents = np.concatenate([np.arange(start, min(start + size, len(data))) for start, size in spans])
    for _ in range(25):
        damaged = data.copy()
        damaged[random.choice(contents, 3)] = random.integers(0, 256, 3)
        slide_path.write_bytes(damaged.tobytes())
        with contextlib.suppress(SlideError), open_slide(str(slide_path), mpp=0.25) as slide:
            assert slide.read_region(Rect(100, 100, 200, 200), 0.5).dtype == np.uint8
            assert slide.thumbnail(4.0).ndim == 3


@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_header_whose_directory_lies_past_the_end_is_truncated(tmp_path, bigtiff):
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, stained(256, 256), bigtiff=bigtiff, tile=(128, 128), photometric="rgb")
    overwrite(path, 8 if bigtiff else 4, struct.pack("<Q" if bigtiff else "<I", 1 << 30))
    with pytest.raises(TruncatedSlide, match="before"):
        open_slide(str(path), mpp=0.25)


def test_tiles_past_the_end_of_the_file_are_a_truncation(slide_path):
    with tifffile.TiffFile(slide_path) as tiff:
        where = tiff.pages.first.tags["TileOffsets"].valueoffset
    overwrite(slide_path, where, struct.pack("<I", 1 << 30))
    with pytest.raises(TruncatedSlide, match="reach to byte"):
        open_slide(str(slide_path))


def test_tiles_past_the_end_of_a_bigtiff_are_a_truncation(tmp_path):
    path = write_tiff(tmp_path / "s.tif", stained(512, 512), bigtiff=True, tile=(256, 256), photometric="rgb")
    with tifffile.TiffFile(path) as tiff:
        where = tiff.pages.first.tags["TileOffsets"].valueoffset
    for offset in (1 << 40, (1 << 64) - 1):
        overwrite(path, where, struct.pack("<Q", offset))
        with pytest.raises(SlideError, match=r"s\.tif.* Copy it again"):
            open_slide(str(path))


def test_tiles_that_have_lost_their_jpeg_tables_are_corrupt(tmp_path):
    path = tmp_path / "s.svs"
    image = stained(480, 480)
    write_svs(path, image)
    move_jpeg_tables(path)
    with open_slide(str(path)) as slide:
        assert np.abs(slide.read_region(Rect(0, 0, 480, 480), 0.25).astype(int) - image).mean() < 5
    with tifffile.TiffFile(path) as tiff:
        where = tiff.pages.first.tags["JPEGTables"].offset
    overwrite(path, where, struct.pack("<H", 65_000))
    with open_slide(str(path)) as slide, pytest.raises(CorruptTile, match=r"s\.svs: tile 0 .*copy the slide again"):
        slide.read_region(Rect(0, 0, 480, 480), 0.25)


def move_jpeg_tables(path):
    """Store what all tiles decode with once, in the directory, as scanners do."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        tiles = [
            path.read_bytes()[start:][:size] for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
        description = page.description
    tables, bare = b"", []
    for tile in tiles:
        tables, kept, position = b"", tile[:2], 2
        while tile[position + 1] != 0xDA:
            end = position + 2 + int.from_bytes(tile[position + 2 : position + 4], "big")
            if tile[position + 1] in (0xDB, 0xC4):
                tables += tile[position:end]
            else:
                kept += tile[position:end]
            position = end
        bare.append(kept + tile[position:])
    tables = b"\xff\xd8" + tables + b"\xff\xd9"
    tifffile.imwrite(
        path,
        iter(bare),
        shape=(480, 480, 3),
        dtype=np.uint8,
        tile=(240, 240),
        compression="jpeg",
        photometric="ycbcr",
        subsampling=(2, 2),
        metadata=None,
        description=description,
        extratags=[(347, 7, len(tables), tables, True)],
    )


def test_a_corrupt_tile_costs_its_region_only(slide_path):
    offset, size = tile_span(slide_path, tile=7)
    overwrite(slide_path, offset, bytes(size))
    with open_slide(str(slide_path)) as slide:
        with pytest.raises(CorruptTile, match=r"slide\.svs: tile 7 of level 0, at x 240, y 240 px"):
            slide.read_region(Rect(200, 200, 300, 300), 0.25)
        region = slide.fetch_region(Rect(200, 200, 300, 300), 0.25)
        with pytest.raises(CorruptTile, match="tile 7"):
            slide.decode_region(region)
        assert slide.read_region(Rect(500, 0, 600, 600), 0.25).std() > 5


def test_an_overview_falls_back_to_a_finer_level(slide_path, caplog):
    with open_slide(str(slide_path)) as slide:
        sound = slide.thumbnail(2.0).astype(int)
    for level in (2, 1):
        offset, size = tile_span(slide_path, level=level)
        overwrite(slide_path, offset, bytes(size))
        with open_slide(str(slide_path)) as slide, caplog.at_level(logging.WARNING):
            repaired = slide.thumbnail(2.0).astype(int)
        assert f"falls back to level {level - 1}" in caplog.text
        assert np.abs(repaired - sound).mean() <= 5


def test_an_overview_of_a_slide_with_one_corrupt_tile_leaves_it_white(tmp_path):
    path = tmp_path / "s.svs"
    write_svs(path, stained(480, 480))
    offset, size = tile_span(path, tile=3)
    overwrite(path, offset, bytes(size))
    with open_slide(str(path)) as slide:
        overview = slide.thumbnail(2.0)
        assert (overview[34:, 34:] == 255).all()
        assert overview[:26, :26].mean() < 230


def test_a_slide_whose_every_tile_is_corrupt_has_no_overview(tmp_path):
    path = tmp_path / "s.svs"
    write_svs(path, stained(480, 480))
    for tile in range(4):
        offset, size = tile_span(path, tile=tile)
        overwrite(path, offset, bytes(size))
    with open_slide(str(path)) as slide, pytest.raises(CorruptTile):
        slide.thumbnail()


def test_a_slide_opened_before_a_fork_is_refused_after_it(slide_path):
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()

    def read(slide):
        try:
            slide.read_region(Rect(0, 0, 64, 64), 0.25)
        except RuntimeError as error:
            sender.send(str(error))

    with open_slide(str(slide_path)) as slide:
        child = context.Process(target=read, args=(slide,))
        child.start()
        child.join(30)
        assert receiver.poll()
        assert "before a fork" in receiver.recv()


def test_an_open_slide_is_not_sent_to_another_process(slide_path):
    with open_slide(str(slide_path)) as slide, pytest.raises(TypeError, match="send its uri"):
        pickle.dumps(slide)
