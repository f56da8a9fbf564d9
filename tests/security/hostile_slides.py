"""Slides that ask for more than any machine has: what each is called, its bytes, and the error that it gets."""

import io
import struct
import zlib
from functools import cache

import imagecodecs
import numpy as np
from hostile_tiffs import ASCII, LONG, LONG8, Directory, HostileTiff, image, slide
from PIL import Image

PICTURE = (np.random.default_rng(0).random((256, 256, 3)) * 80 + 120).astype(np.uint8)
ENTITIES = b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 12))
LAUGHS = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a0 "ha">%s]><OME xmlns="a">&a11;</OME>\0' % ENTITIES


def jpeg(width=None, height=None, scans=0):
    """A JPEG of 256 × 256 px that says that it has others, and scans that repeat."""
    data = bytearray(imagecodecs.jpeg8_encode(PICTURE if not scans else np.zeros_like(PICTURE), level=80))
    at = data.find(b"\xff\xc0")
    if width:
        data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    scan = data.find(b"\xff\xda")
    return bytes(data[:-2] + data[scan:-2] * scans + data[-2:])


def jpeg2000(at=None, values=b"", *, marker=b"\xff\x51", kind="j2k"):
    """A JPEG2000 image of 256 × 256 px, bytes behind one of its markers replaced."""
    data = bytearray(imagecodecs.jpeg2k_encode(PICTURE, codecformat=kind, level=0))
    if at is not None:
        start = data.find(marker) + 2 + at
        data[start : start + len(values)] = values
    return bytes(data)


def png(width, height, kind=b"IHDR"):
    """The header of a PNG of that size, and no pixels."""
    chunks = (
        (kind, struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    )
    packed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def webp(width, height):
    """A WebP of 256 × 256 px that says that it has others."""
    data = bytearray(imagecodecs.webp_encode(PICTURE, level=50, lossless=False))
    at = data.find(b"\x9d\x01\x2a")
    data[at + 3 : at + 7] = struct.pack("<HH", width, height)
    return bytes(data)


def tall_images(count):
    """Directories that all share one table of tiles."""
    table = (LONG8, 1 << 21, 16)
    shared = {code: value for code, value in image(64, 64).tags.items() if code not in (324, 325)}
    return HostileTiff([Directory(shared | {324: table, 325: table}) for _ in range(count)]).to_bytes() + bytes(
        16 << 20
    )


def circle(to_first):
    """Two images; the second one's next is the first, or itself."""
    first = len(HostileTiff([image(300, 300)]).to_bytes())
    return HostileTiff([image(300, 300), Directory(image(200, 200).tags, 16 if to_first else first)]).to_bytes()


def of_tags(number):
    tags = image(300, 300).tags
    return HostileTiff([Directory(tags | {code: (LONG, [1]) for code in range(40_000, 40_000 + number)})]).to_bytes()


@cache
def nested_xml(depth):
    return b'<?xml version="1.0"?><OME xmlns="a">' + b"<a>" * depth + b"</a>" * depth + b"</OME>\0"


def small_mask(fmt):
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, fmt)
    return buffer.getvalue()


MANY = {code: value for code, value in image(16, 16).tags.items() if code == 256}

SLIDES = {
    "sides of 2^31 px": (lambda: HostileTiff([image(2**31, 2**31, tiles=1)]).to_bytes(), "TruncatedSlide"),
    "sides of 2^32 - 1 px in one tile": (
        lambda: HostileTiff([image(2**32 - 1, 2**32 - 1, tile=(2**31, 2**31), tiles=1)]).to_bytes(),
        "NotASlide",
    ),
    "tiles of a million px": (lambda: HostileTiff([image(10**6, 10**6, tile=(10**6, 10**6))]).to_bytes(), "NotASlide"),
    "tiles of no px": (
        lambda: HostileTiff([image(512, 512, tile=(256, 256), t322=(LONG, [0]))]).to_bytes(),
        "NotASlide",
    ),
    "360 mm of glass": (
        lambda: HostileTiff(
            [image(180_000, 180_000, tile=(9000, 9000), t270=(ASCII, b"Aperio Image Library|MPP = 2.0\0"))]
        ).to_bytes(),
        "NotASlide",
    ),
    "90 tiles of 9,216 px that are absent": (
        lambda: HostileTiff([image(160_000, 40_000, tile=(9216, 9216))]).to_bytes(),
        "fine",
    ),
    "tiles that share no factor": (
        lambda: HostileTiff([image(100_000, 100_000, tile=(1009, 1013))]).to_bytes(),
        "NotASlide",
    ),
    "strips as high as they are wide": (
        lambda: HostileTiff([image(8000, 88_024, tile=(8000, 11_003))]).to_bytes(),
        "NotASlide",
    ),
    "200,000 images": (lambda: HostileTiff([Directory(MANY)] * 200_000).to_bytes(), "NotASlide"),
    "images in a circle": (lambda: circle(True), "NotASlide"),
    "an image that is its own next": (lambda: circle(False), "NotASlide"),
    "20,000 tags": (lambda: of_tags(20_000), "NotASlide"),
    "2^61 values in a tag": (lambda: HostileTiff([image(300, 300, t324=(LONG8, 2**61, 16))]).to_bytes(), "NotASlide"),
    "2^40 tiles": (lambda: HostileTiff([image(300, 300, t325=(LONG8, 2**40, 16))]).to_bytes(), "NotASlide"),
    "a table of tiles in 500 images": (lambda: tall_images(500), "NotASlide"),
    "2^40 sub-images": (lambda: HostileTiff([image(300, 300, t330=(LONG8, 2**40, 16))]).to_bytes(), "NotASlide"),
    "a description of 2^30 characters": (
        lambda: HostileTiff([image(300, 300, t270=(ASCII, 2**30, 16))]).to_bytes(),
        "NotASlide",
    ),
    "XML that multiplies": (lambda: HostileTiff([image(300, 300, t270=(ASCII, LAUGHS))]).to_bytes(), "NotASlide"),
    "XML nested 100,000 deep": (
        lambda: HostileTiff([image(300, 300, t270=(ASCII, nested_xml(100_000)))]).to_bytes(),
        "UnknownResolution",
    ),
    "tiles that overlap": (lambda: slide(1024, 1024, bytes(8 << 20), tile=(16, 16), compression=1), "NotASlide"),
    "a thumbnail of 2^31 px": (lambda: HostileTiff([image(300, 300), image(2**31, 2**31, tiles=1)]).to_bytes(), "fine"),
    "Deflate of 100 MB": (lambda: slide(256, 256, zlib.compress(bytes(10**8))), "CorruptTile"),
    "LZW of 30 MB": (
        lambda: slide(256, 256, imagecodecs.lzw_encode(bytes(3 * 10**7)), compression=5),
        "fine",
    ),
    "PackBits of 100 MB": (
        lambda: slide(256, 256, b"\x81\0" * 800_000, compression=32773),
        "NotASlide",
    ),
    "Zstandard of 100 MB": (
        lambda: slide(256, 256, imagecodecs.zstd_encode(bytes(10**8)), compression=50000),
        "CorruptTile",
    ),
    "a JPEG of 65,500 px": (lambda: slide(256, 256, jpeg(65_500, 65_500), compression=7), "CorruptTile"),
    "a JPEG of 100 scans": (
        lambda: slide(256, 256, jpeg(scans=99), compression=7),
        "CorruptTile",
    ),
    "a JPEG2000 of 2^31 px": (
        lambda: slide(256, 256, jpeg2000(4, struct.pack(">II", 2**31, 2**31)), compression=33005),
        "CorruptTile",
    ),
    "a JP2 of 2^31 px": (
        lambda: slide(256, 256, jpeg2000(4, struct.pack(">II", 2**31, 2**31), kind="jp2"), compression=34712),
        "CorruptTile",
    ),
    "a JPEG2000 of 65,536 parts": (
        lambda: slide(256, 256, jpeg2000(20, struct.pack(">II", 1, 1)), compression=33005),
        "CorruptTile",
    ),
    "a JPEG2000 of 16,384 components": (
        lambda: slide(256, 256, jpeg2000(36, struct.pack(">H", 16_384)), compression=33005),
        "CorruptTile",
    ),
    "a WebP of 16,383 px": (lambda: slide(256, 256, webp(16_383, 16_383), compression=50001), "CorruptTile"),
    "a PNG of a billion px as a tile": (lambda: slide(256, 256, png(30_000, 30_000), compression=34933), "NotASlide"),
}
"""By name: what makes the bytes, and the outcome."""
