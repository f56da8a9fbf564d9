"""Small slides of every kind, and what bad disks and bad people make of them."""

import random
import struct
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from mitoray.phantom import draw_phantom

SHARED = Path(__file__).parents[2] / "../shared/data/slides"
REAL = ("CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs")
INTERESTING = (0, 1, 2, 3, 7, 8, 16, 255, 256, 4096, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)
CODES = (256, 257, 258, 259, 277, 322, 323, 324, 325, 330, 347, 65420)
MARKS = (*(b"\xff" + bytes([code]) for code in (0xC0, 0x51, 0x52, 0xDA, 0xD8, 0x90, 0xC4)), b"\x78\x9c", b"RIFF")
"""Of JPEG and JPEG2000 headers, of Deflate and of WebP."""


def sources(folder):
    """(name, bytes) of each slide to mutate: drawn ones, and real ones where they are at hand."""
    phantom = draw_phantom("phantom-breast-a", seed=3, width_px=640, height_px=512)
    image, about = phantom.image, f"Aperio Phantom\r\n640x512|AppMag = 40|MPP = {phantom.mpp:g}"
    plain = {"photometric": "rgb", "metadata": None, "description": about}
    kinds = {
        "jpeg.svs": {"tile": (128, 128), "compression": "jpeg", "subsampling": (2, 2)},
        "ycbcr.tif": {"tile": (128, 128), "compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)},
        "jpeg2000.svs": {"tile": (128, 128), "compression": 33005},
        "jp2.tif": {"tile": (128, 128), "compression": 34712},
        "deflate.tif": {"tile": (128, 128), "compression": "zlib", "predictor": True},
        "lzw.tif": {"tile": (256, 256), "compression": "lzw"},
        "packbits.tif": {"tile": (128, 128), "compression": "packbits"},
        "zstd.tif": {"tile": (128, 128), "compression": "zstd"},
        "webp.tif": {"tile": (128, 128), "compression": "webp"},
        "strips.tif": {"rowsperstrip": 32, "compression": "zlib"},
        "raw.tif": {"tile": (64, 64)},
        "big.tif": {"tile": (128, 128), "compression": "jpeg", "bigtiff": True},
        "mm.tif": {"tile": (128, 128), "compression": "lzw", "byteorder": ">"},
        "sub.ome.tif": {"tile": (128, 128), "compression": "zlib", "subifds": 1},
    }
    found = []
    for name, options in kinds.items():
        path = folder / name
        writer = {key: options[key] for key in ("bigtiff", "byteorder") if key in options}
        rest = {key: value for key, value in (plain | options).items() if key not in writer}
        ome = name.endswith(".ome.tif")
        if ome:
            rest |= {
                "metadata": {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25, "UUID": "urn:uuid:0"},
                "description": None,
            }
        with tifffile.TiffWriter(path, ome=ome, **writer) as tiff:
            tiff.write(image, **rest)
            small = np.asarray(Image.fromarray(image).reduce(2))
            if not ome:
                tiff.write(np.asarray(Image.fromarray(image).reduce(4)), photometric="rgb", metadata=None)
            rest |= {"subfiletype": 1, "description": None} if ome else {}
            rest.pop("subifds", None)
            tiff.write(small, **rest | ({"metadata": None} if ome else {}))
        found.append((name, path.read_bytes()))
    return found + [(name, (SHARED / name).read_bytes()) for name in REAL if (SHARED / name).exists()]


def mutant(sources, seed, number):
    """(source's name, mutated bytes, what was done) of the `number`-th mutant of a seed."""
    chance = random.Random(f"{seed} {number}")
    name, data = sources[number % len(sources)]
    made = bytearray(data)
    kinds = [flip_bits, flip_in_directories, cut_off, edit_tags, edit_tags, edit_pointers, overwrite_block, edit_tiles]
    done = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        kind = chance.choice(kinds)
        kind(made, chance)
        done.append(kind.__name__)
        if len(made) < 16:
            break
    return name, bytes(made), "+".join(done)


def flip_bits(data, chance):
    for _ in range(chance.choice((1, 10, 100))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def flip_in_directories(data, chance):
    for start, size in directories(data):
        for _ in range(chance.choice((0, 1, 3))):
            at = start + chance.randrange(size)
            if at < len(data):
                data[at] ^= 1 << chance.randrange(8)


def cut_off(data, chance):
    del data[chance.choice((chance.randrange(len(data)), len(data) - chance.randrange(1, min(len(data), 100)))) :]


def overwrite_block(data, chance):
    start, size = chance.randrange(len(data)), chance.choice((16, 512, 65536))
    block = chance.choice((bytes(size), b"\xff" * size, chance.randbytes(size), bytes(data[:size])))
    data[start : start + size] = block[: len(data) - start]


def edit_tags(data, chance):
    """Another number, count, type or code in tags."""
    entries = list(tags(data))
    for order, at, big in chance.sample(entries, min(len(entries), chance.choice((1, 1, 2, 4)))):
        value = chance.choice(INTERESTING)
        match chance.randrange(6):
            case 0:
                struct.pack_into(
                    f"{order}H", data, at, chance.choice((256, 257, 258, 259, 277, 322, 323, 324, 325, 330, 347, 65420))
                )
            case 1:
                struct.pack_into(f"{order}H", data, at + 2, chance.randrange(20))
            case 2:
                struct.pack_into(f"{order}{'Q' if big else 'I'}", data, at + 4, value)
            case _:
                struct.pack_into(f"{order}{'Q' if big else 'I'}", data, at + (12 if big else 8), value)


def edit_pointers(data, chance):
    """Another place for a directory: an earlier one, itself, anywhere."""
    found = [(start, size) for start, size in directories(data)]
    if not found:
        return
    order, big = layout(data)
    start, size = chance.choice(found)
    kind = f"{order}{'Q' if big else 'I'}"
    other = chance.choice(found)[0] - (8 if big else 2)
    target = chance.choice((other, start, 0, len(data) - 2, chance.randrange(len(data))))
    at = chance.choice([start + size, 8 if big else 4])
    if at + struct.calcsize(kind) <= len(data):
        struct.pack_into(kind, data, at, max(0, target))


def edit_tiles(data, chance):
    """Another size in the header of a JPEG or JPEG2000 tile, or its other bytes changed."""
    mark = chance.choice(MARKS)
    places = []
    at = data.find(mark)
    while at >= 0 and len(places) < 500:
        places.append(at)
        at = data.find(mark, at + 1)
    for at in chance.sample(places, min(len(places), chance.choice((1, 3, 50)))):
        for _ in range(chance.choice((1, 2, 4))):
            where = at + 2 + chance.randrange(24)
            if where < len(data):
                data[where] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))


def layout(data):
    """Byte order as struct writes it, and whether it is a BigTIFF."""
    order = "<" if data[:2] == b"II" else ">"
    return order, data[2:4] in (b"+\0", b"\0+")


def directories(data):
    """Where the tags of each directory begin, and the bytes that they take."""
    order, big = layout(data)
    offset, count, tag = ("Q", "Q", 20) if big else ("I", "H", 12)
    seen, found = set(), []
    try:
        (start,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        while start and start not in seen:
            seen.add(start)
            (number,) = struct.unpack_from(order + count, data, start)
            first = start + struct.calcsize(count)
            if not 0 < number <= 200:
                break
            found.append((first, number * tag))
            (start,) = struct.unpack_from(order + offset, data, first + number * tag)
    except struct.error:
        pass
    return found


def tags(data):
    """Byte order, position, and whether it is one of a BigTIFF, of each tag."""
    order, big = layout(data)
    tag = 20 if big else 12
    for start, size in directories(data):
        for at in range(start, min(start + size, len(data) - tag), tag):
            yield order, at, big
