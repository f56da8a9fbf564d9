"""A phantom's glass slide in another scanner: turned, shifted, warped, in other colours, in part out of focus."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mitoray.errors import BadOption
from mitoray.phantom.domains import PhantomDomain
from mitoray.phantom.drawing import Phantom
from mitoray.phantom.exposure import expose, optical_densities
from mitoray.phantom.noise import Field, smooth_field

Points = NDArray[np.float64]

CUT_UM: Final = 4.0
"""A cell whose centre lies nearer than this to a stitching seam, or to a strip that was not scanned, is cut."""
_WARP_SCALE_UM: Final = 1200.0
_STRIP_PX: Final = 512


@dataclass(frozen=True)
class Rescanning:
    """What happens to a glass slide on its way through another scanner.

    angle_degrees: by how much it is turned, clockwise; shift_um: by how much it is moved, right and down; warp_um: how
    far, as a standard deviation, places lie from where turning and moving puts them, smoothly over a millimetre;
    blurred: discs of `blurred_um` across that are out of focus by a point spread of `defocus_um`; strip_um: height of
    a strip across the middle that was not scanned; seam_um: by how much two halves are wrongly stitched, so that a
    piece of that width is lost; mirrored: the glass lay upside down.
    """

    angle_degrees: float = 0.0
    shift_um: tuple[float, float] = (0.0, 0.0)
    warp_um: float = 0.0
    blurred: int = 0
    blurred_um: float = 160.0
    defocus_um: float = 2.0
    strip_um: float = 0.0
    seam_um: float = 0.0
    mirrored: bool = False


@dataclass(frozen=True)
class Rescan:
    """A rescan. phantom: the slide, its labels those of the original that are on it, at their true places.

    places_px: (n, 2), where each of the original's labels truly is, level-0 px of the rescan. states: of each of them,
    clear, blurred, cut, missing (in the strip that was not scanned) or outside.
    """

    phantom: Phantom
    places_px: Points
    states: tuple[str, ...]


def draw_rescan(
    phantom: Phantom,
    domain: PhantomDomain,
    how: Rescanning | None = None,
    *,
    seed: int = 0,
    slide_id: str | None = None,
) -> Rescan:
    """The phantom's glass in the scanner and stain of another domain. The same arguments give the same pixels.

    Raises BadOption for a negative seed.
    """
    if seed < 0:
        raise BadOption(f"seed is {seed}; give a whole number of at least 0")
    rng = np.random.default_rng([seed, phantom.seed])
    way = _Way.of(rng, phantom, domain.mpp, how or Rescanning())
    planes = _scanned(_stains(phantom), phantom.mpp, way, domain.mpp)
    discs = _discs(rng, way)
    _defocus(planes, discs, way.how, domain.mpp)
    top, bottom = (round(y / domain.mpp) for y in way.strip_um)
    planes[:, top:bottom] = 0
    image = expose(rng, domain, planes)
    original_um = np.column_stack([phantom.labels["x_px"], phantom.labels["y_px"]]).astype(np.float64) + 0.5
    places_um = way.to_rescan(original_um * phantom.mpp)
    states = tuple(_states(places_um, way, discs))
    there = [n for n, state in enumerate(states) if state != "outside"]
    name = slide_id or f"{phantom.slide_id}-{domain.name}-{seed}"
    labels = _moved(phantom.labels.take(pa.array(there, pa.int64())), places_um[there] / domain.mpp - 0.5, name, domain)
    found = Phantom(image, labels, domain, domain.mpp, phantom.seed, name)
    return Rescan(found, places_um / domain.mpp - 0.5, states)


@dataclass(frozen=True, eq=False)
class _Way:
    """The way back from the rescan to the glass, µm. warp: x and y, fields over the rescan; seam_um: x of the seam."""

    how: Rescanning
    size_um: tuple[float, float]
    glass_um: tuple[float, float]
    warp: tuple[Field, Field]
    seam_at_um: float

    @classmethod
    def of(cls, rng: np.random.Generator, phantom: Phantom, mpp: float, how: Rescanning) -> "_Way":
        height, width = phantom.image.shape[:2]
        glass = width * phantom.mpp, height * phantom.mpp
        turn = np.abs(_turn(how.angle_degrees))
        across, down = (float(side) for side in turn @ glass)
        size = round(across / mpp) * mpp, round(down / mpp) * mpp
        warp = smooth_field(rng, size[::-1], _WARP_SCALE_UM), smooth_field(rng, size[::-1], _WARP_SCALE_UM)
        return cls(how, size, glass, warp, size[0] * float(rng.uniform(0.35, 0.65)))

    @property
    def strip_um(self) -> tuple[float, float]:
        """From where to where nothing was scanned."""
        middle = self.size_um[1] * 0.6
        return middle - self.how.strip_um / 2, middle + self.how.strip_um / 2

    def smooth(self, places_um: Points) -> Points:
        """Where (n, 2) places of the rescan are on the glass, but for the seam."""
        back = _turn(-self.how.angle_degrees)
        centred = places_um - np.array(self.size_um) / 2 - self.how.shift_um
        glass: Points = centred @ back.T + np.array(self.glass_um) / 2
        glass = glass + self.how.warp_um * np.column_stack([_smooth(f, places_um, self.size_um) for f in self.warp])
        if self.how.mirrored:
            glass[:, 0] = self.glass_um[0] - glass[:, 0]
        return glass

    @property
    def jump_um(self) -> NDArray[np.float64]:
        """The piece of glass that is lost at the seam, as a step on the glass."""
        x, y = _turn(-self.how.angle_degrees) @ (self.how.seam_um, 0.0)
        return np.array([-x if self.how.mirrored else x, y])

    def to_rescan(self, glass_um: Points) -> Points:
        """The way there; what is lost at the seam lies on it."""
        forth = _turn(self.how.angle_degrees)
        flip = np.diag([-1.0 if self.how.mirrored else 1.0, 1.0])
        found = np.tile(np.array(self.size_um) / 2, (len(glass_um), 1))
        for _ in range(60):
            found += ((glass_um - self.smooth(found)) @ flip) @ forth.T
        right = found[:, 0] > self.seam_at_um
        found[right, 0] = np.maximum(found[right, 0] - self.how.seam_um, self.seam_at_um)
        return found


def _turn(degrees: float) -> NDArray[np.float64]:
    """Clockwise where y points down."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def _smooth(field: Field, places_um: Points, size_um: tuple[float, float]) -> NDArray[np.float64]:
    rows, columns = field.shape
    at = [places_um[:, 1] / size_um[1] * rows - 0.5, places_um[:, 0] / size_um[0] * columns - 0.5]
    return np.asarray(ndimage.map_coordinates(field.astype(np.float64), at, order=3, mode="nearest"))


def _stains(phantom: Phantom) -> Field:
    """(2, h, w): haematoxylin and eosin that the original scanner saw."""
    domain = phantom.domain
    unmix = np.linalg.pinv(optical_densities(domain.stain))
    white = np.array(domain.scanner.white, np.float32)
    planes = np.empty((2, *phantom.image.shape[:2]), np.float32)
    for top in range(0, planes.shape[1], _STRIP_PX):
        light = np.clip(phantom.image[top : top + _STRIP_PX].astype(np.float32), 1, None) / white
        planes[:, top : top + _STRIP_PX] = np.moveaxis(-np.log(light) @ unmix.T.astype(np.float32), 2, 0)
    return np.maximum(planes, 0, out=planes)


def _scanned(planes: Field, glass_mpp: float, way: _Way, mpp: float) -> Field:
    """The stains as the rescan's pixels see them; none beyond the glass."""
    width, height = (round(side / mpp) for side in way.size_um)
    seen = np.zeros((2, height, width), np.float32)
    jump = (np.arange(width) + 0.5) * mpp > way.seam_at_um
    for top in range(0, height, _STRIP_PX):
        rows = min(_STRIP_PX, height - top)
        # The way is smooth: it is followed at every 16th px, one beyond each side, and drawn straight between them.
        y, x = np.meshgrid(np.arange(top - 8, top + rows + 24, 16), np.arange(-8, width + 24, 16), indexing="ij")
        there = way.smooth((np.column_stack([x.ravel(), y.ravel()]).astype(np.float64) + 0.5) * mpp) / glass_mpp - 0.5
        at = []
        for axis in (1, 0):
            coarse = Image.fromarray(there[:, axis].reshape(x.shape).astype(np.float32))
            first = 1.0 - 0.5 / 16
            box = (first, first, first + width / 16, first + rows / 16)
            fine = coarse.resize((width, rows), Image.Resampling.BILINEAR, box=box)
            at.append(np.asarray(fine) + jump * np.float32(way.jump_um[axis] / glass_mpp))
        for plane, stain in zip(seen, planes, strict=True):
            plane[top : top + rows] = ndimage.map_coordinates(stain, at, order=1, cval=0.0)
    return seen


def _discs(rng: np.random.Generator, way: _Way) -> Points:
    """(n, 2) centres of what is out of focus."""
    return rng.uniform((0, 0), way.size_um, (way.how.blurred, 2))


def _defocus(planes: Field, discs: Points, how: Rescanning, mpp: float) -> None:
    reach = round((how.blurred_um / 2 + 4 * how.defocus_um) / mpp)
    for x, y in (discs / mpp).round().astype(int).tolist():
        rows, columns = slice(max(y - reach, 0), y + reach), slice(max(x - reach, 0), x + reach)
        part = planes[:, rows, columns]
        down, across = np.mgrid[rows.start : rows.start + part.shape[1], columns.start : columns.start + part.shape[2]]
        inside = np.hypot(across - x, down - y) * mpp < how.blurred_um / 2
        share = ndimage.gaussian_filter(inside.astype(np.float32), 3 / mpp)
        soft = ndimage.gaussian_filter(part, (0, how.defocus_um / mpp, how.defocus_um / mpp))
        part += share * (soft - part)


def _states(places_um: Points, way: _Way, discs: Points) -> list[str]:
    states = []
    top, bottom = way.strip_um
    for x, y in places_um.tolist():
        near = np.hypot(*(discs - (x, y)).T).min(initial=np.inf)
        cut = [abs(x - way.seam_at_um) < CUT_UM and way.how.seam_um > 0]
        cut += [way.how.strip_um > 0 and min(abs(y - top), abs(y - bottom)) < CUT_UM]
        if not (0 <= x < way.size_um[0] and 0 <= y < way.size_um[1]):
            states.append("outside")
        elif any(cut):
            states.append("cut")
        elif top < y < bottom:
            states.append("missing")
        else:
            states.append("blurred" if near < way.how.blurred_um / 2 else "clear")
    return states


def _moved(labels: pa.Table, places_px: Points, slide_id: str, domain: PhantomDomain) -> pa.Table:
    rows = labels.to_pylist()
    for row, (x, y) in zip(rows, places_px.tolist(), strict=True):
        row |= {"x_px": x, "y_px": y, "slide_id": slide_id, "domain": domain.name}
    return pa.Table.from_pylist(rows, schema=labels.schema)
