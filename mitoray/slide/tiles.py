"""Native tiles: how a level stores them, and how one is decoded."""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from mitoray.errors import NotASlide
from mitoray.slide.codestreams import check_jpeg, check_jpeg2000, check_picture

APERIO_JPEG2000_YCBCR: Final = 33003
JPEG: Final = 7
JPEG2000: Final = (33003, 33004, 33005, 34712)
WEBP: Final = 50001
BOUNDED: Final = (1, 5, 8, 32773, 32946, 50000)
"""None, LZW, Deflate in two ways, PackBits, Zstandard: their decoders fill memory of a given size and no more."""
PADDED: Final = 4
"""An image in a tile may have so many times the tile's px; writers pad it to whole blocks."""
MINISWHITE, MINISBLACK, RGB, YCBCR = 0, 1, 2, 6
UNASSOCIATED_ALPHA: Final = 2
WHITE: Final = 255


@dataclass(frozen=True, slots=True)
class TileFormat:
    """All that decoding needs besides a tile's bytes; plain values, so that it travels with them.

    Strips are tiles as wide as the level. `compression`, `photometric`, `predictor` and `alpha` (the first extra
    sample, 0 for none) are the numbers of the TIFF specification.
    """

    width_px: int
    height_px: int
    samples: int
    compression: int
    photometric: int
    predictor: int
    alpha: int
    jfif: bool
    jpeg_tables: bytes | None
    jpeg_header: bytes | None

    @property
    def holds_rgb(self) -> bool:
        """Whether JPEG tiles hold R, G, B although nothing in them says so, as Aperio writes them."""
        return _jpeg_colours(self)[0] == RGB

    @classmethod
    def of_page(cls, page: Any, name: str) -> "TileFormat":
        """The format of a tifffile page. NotASlide if its pixels are none that RGB can be made of."""
        key = page.keyframe
        colours = key.samplesperpixel - len(key.extrasamples)
        gray = key.photometric in (MINISWHITE, MINISBLACK) and colours == 1
        # Codecs of images give RGB for YCbCr; others would give the YCbCr samples themselves.
        by_codec = key.photometric == YCBCR and key.compression in tifffile.TIFF.IMAGE_COMPRESSIONS
        colour = (key.photometric == RGB or by_codec) and colours == 3
        if (
            key.dtype != np.uint8
            or key.bitspersample != 8
            or not (gray or colour)
            or (key.planarconfig != 1 and key.samplesperpixel > 1)
            or key.imagedepth != 1
            or key.compression not in (JPEG, *JPEG2000, WEBP, *BOUNDED)
            or key.fillorder != 1
        ):
            raise NotASlide(
                f"{name}: pixels of {key.bitspersample} bits, {key.samplesperpixel} samples, photometric "
                f"{_tag(key.photometric)}, compression {_tag(key.compression)} are not read. "
                "Convert the slide to 8-bit RGB or gray, samples interleaved."
            )
        return cls(
            width_px=int(key.tilewidth if key.is_tiled else key.imagewidth),
            height_px=int(key.tilelength if key.is_tiled else key.rowsperstrip),
            samples=int(key.samplesperpixel),
            compression=int(key.compression),
            photometric=int(key.photometric),
            predictor=int(key.predictor),
            alpha=int(key.extrasamples[0]) if key.extrasamples else 0,
            jfif=bool(key.is_jfif),
            jpeg_tables=page.jpegtables,
            jpeg_header=key.jpegheader,
        )


def tile_memory(tile_format: TileFormat) -> NDArray[np.uint8]:
    """Memory (bytes,) for the samples of one decoded tile, which starts 16 bytes off a multiple of 32.

    To multiples of 32 libjpeg-turbo writes past the CPU's caches: that alone takes 1.6 times as long, and then the
    pixels, which are needed at once, must come from afar.
    """
    size = tile_format.height_px * tile_format.width_px * tile_format.samples
    memory = np.empty(size + 32, np.uint8)
    start = (16 - memory.ctypes.data) % 32
    return memory[start : start + size]


def decode_tile(
    data: bytes, tile_format: TileFormat, width_px: int, height_px: int, memory: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """One native tile as (height_px, width_px, 3) uint8 RGB.

    `width_px, height_px`: the part of the tile that lies on the level; what is stored beyond it is dropped.
    memory: of `tile_memory`, where the tile may be put; None takes new memory.
    Raises whatever the codec raises, or ValueError if it yields another size than the level's.
    """
    stored = _decompressed(data, tile_format, memory)
    if stored.ndim == 1:
        stored = _shaped(stored, tile_format, height_px)
    return on_level(stored, tile_format, width_px, height_px)


def on_level(stored: NDArray[np.uint8], tile_format: TileFormat, width_px: int, height_px: int) -> NDArray[np.uint8]:
    """(height_px, width_px, 3) RGB of the samples that a tile holds: (h, w) or (h, w, samples), no smaller.

    ValueError if they are.
    """
    pixels = stored if stored.ndim == 3 else stored[..., np.newaxis]
    if pixels.dtype != np.uint8 or pixels.shape[0] < height_px or pixels.shape[1] < width_px:
        raise ValueError(f"decoded to {pixels.dtype} {pixels.shape}, wanted ({height_px}, {width_px})")
    return np.ascontiguousarray(_rgb(pixels[:height_px, :width_px], tile_format))


def _decompressed(data: bytes, tile_format: TileFormat, memory: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    most_px = PADDED * tile_format.width_px * tile_format.height_px
    if tile_format.compression == JPEG:
        for part in (tile_format.jpeg_tables, tile_format.jpeg_header, data):
            check_jpeg(part or b"", most_px)
        return _of_jpeg(data, tile_format, memory)
    if tile_format.compression in JPEG2000:
        check_jpeg2000(data, most_px)
        return jpeg2000_rgb(data, imagecodecs.jpeg2k_decode(data), tile_format)
    if tile_format.compression == 1:
        decoded: Any = data
    elif tile_format.compression == WEBP:
        check_picture(data, "WEBP", most_px)
        decoded = tifffile.TIFF.DECOMPRESSORS[tile_format.compression](data)
    else:
        size = tile_format.height_px * tile_format.width_px * tile_format.samples
        decoded = tifffile.TIFF.DECOMPRESSORS[tile_format.compression](data, out=size)
    if isinstance(decoded, np.ndarray):
        return decoded
    plain = np.frombuffer(decoded, np.uint8)
    if tile_format.predictor == 1:
        return plain
    rows = plain.reshape(-1, tile_format.width_px, tile_format.samples)
    return tifffile.TIFF.UNPREDICTORS[tile_format.predictor](rows, axis=-2)  # type: ignore[no-any-return]


def _of_jpeg(data: bytes, tile_format: TileFormat, memory: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    height_px, width_px, samples = tile_format.height_px, tile_format.width_px, tile_format.samples
    colour, out_colour = _jpeg_colours(tile_format)
    decode = partial(
        imagecodecs.jpeg_decode,
        data,
        tables=tile_format.jpeg_tables,
        header=tile_format.jpeg_header,
        colorspace=colour,
        outcolorspace=out_colour,
        shape=(height_px, width_px),
    )
    if samples == 3:
        out = (tile_memory(tile_format) if memory is None else memory).reshape(height_px, width_px, samples)
        with suppress(ValueError):  # the stream has another size, as a last strip may
            return decode(out=out)
    return decode()


def _jpeg_colours(tile_format: TileFormat) -> tuple[int | None, int | str | None]:
    """What the tiles hold and what to make of it, as `imagecodecs.jpeg_decode` takes it; None leaves it to the tile."""
    alpha = (tile_format.alpha,) if tile_format.alpha else ()
    return tifffile.tifffile.jpeg_decode_colorspace(tile_format.photometric, 1, alpha, tile_format.jfif)


def jpeg2000_rgb(data: bytes, pixels: NDArray[np.uint8], tile_format: TileFormat) -> NDArray[np.uint8]:
    """RGB of what the codec made of a JPEG2000 tile, which may be Y, Cb, Cr that it did not know for such."""
    holds_ycbcr = tile_format.photometric == YCBCR or tile_format.compression == APERIO_JPEG2000_YCBCR
    if holds_ycbcr and _is_plain_codestream(data):
        return np.asarray(Image.fromarray(pixels, "YCbCr").convert("RGB"))
    return pixels


def _is_plain_codestream(data: bytes) -> bool:
    """Whether the codec cannot know that these are YCbCr samples.

    A JP2 file says so, and of a codestream with chroma subsampled (ISO 15444-1, A.5.1) the codec infers it; then it
    has converted them to RGB already.
    """
    is_codestream = data[:4] == b"\xff\x4f\xff\x51"
    subsampling = data[46:48]
    return is_codestream and subsampling == b"\1\1"


def _shaped(plain: NDArray[np.uint8], tile_format: TileFormat, height_px: int) -> NDArray[np.uint8]:
    """Bytes as rows of pixels; a last strip holds fewer rows than the others."""
    row = tile_format.width_px * tile_format.samples
    rows = min(plain.size // row, tile_format.height_px)
    if rows < height_px:
        raise ValueError(f"decoded to {plain.size} bytes, wanted {height_px * row}")
    return plain[: rows * row].reshape(rows, tile_format.width_px, tile_format.samples)


def _rgb(pixels: NDArray[np.uint8], tile_format: TileFormat) -> NDArray[np.uint8]:
    """(h, w, 3) RGB of (h, w, samples); transparent parts are white."""
    gray = tile_format.photometric in (MINISWHITE, MINISBLACK)
    colours = 1 if gray else 3
    if pixels.shape[2] < colours:
        raise ValueError(f"decoded to {pixels.shape[2]} samples, wanted {colours}")
    colour = pixels[..., :colours]
    if tile_format.photometric == MINISWHITE:
        colour = WHITE - colour
    if tile_format.alpha and pixels.shape[2] > colours:
        opacity = pixels[..., colours : colours + 1].astype(np.float32) / WHITE
        weight = opacity if tile_format.alpha == UNASSOCIATED_ALPHA else np.float32(1)
        colour = np.rint(colour * weight + WHITE * (1 - opacity)).clip(0, WHITE).astype(np.uint8)
    return np.repeat(colour, 3, axis=2) if gray else colour


def _tag(value: Any) -> str:
    return str(getattr(value, "name", value))
