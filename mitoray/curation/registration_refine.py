"""Local refinement: blocks of the original are looked for on the rescan, and one affine map is laid through them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from skimage.feature import match_template

from mitoray.curation.registration import Affine

Density = NDArray[np.float32]

BLOCK_PX: Final = 96
SEARCH_PX: Final = 24
"""How far a block may lie from where the coarser map puts it."""
_TEXTURE: Final = 0.04
"""Standard deviation of the density from which a block can be told from another place."""
_AGREE_PX: Final = 2.5
_FEWEST_BLOCKS: Final = 4
_STIFFNESS: Final = 2.0
"""Weight, in blocks, of a mere shift against an affine map."""


def block_moves(
    original: Density, rescan: Density
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Where the blocks of an image lie on another one.

    original: (h, w); rescan: the same part as far as is known, (h + 48, w + 48), with `SEARCH_PX` more on every side.
    Returns, of blocks with texture, the centres (n, 2) and moves (n, 2), px as x, y, and the normalised
    cross-correlations (n,), -1 to 1.
    """
    centres, moves, alike = [], [], []
    for top in _starts(original.shape[0]):
        for left in _starts(original.shape[1]):
            block = original[top : top + BLOCK_PX, left : left + BLOCK_PX]
            if block.std() < _TEXTURE:
                continue
            reach = BLOCK_PX + 2 * SEARCH_PX
            window = rescan[top : top + reach, left : left + reach]
            scores = match_template(window, block)  # type: ignore[no-untyped-call]
            row, column = np.unravel_index(int(scores.argmax()), scores.shape)
            centres.append((left + BLOCK_PX / 2, top + BLOCK_PX / 2))
            moves.append((_peak(scores[row], int(column)) - SEARCH_PX, _peak(scores[:, column], int(row)) - SEARCH_PX))
            alike.append(float(scores[row, column]))
    return np.reshape(centres, (-1, 2)), np.reshape(moves, (-1, 2)), np.array(alike, np.float64)


def local_map(
    centres: NDArray[np.float64], moves: NDArray[np.float64], alike: NDArray[np.float64]
) -> tuple[Affine, float | None]:
    """The affine map (px to px) that most blocks agree with, and its quality as `Node` has it.

    Takes what `block_moves` gives. The identity, where fewer than four agree. Quality None for fewer than four blocks.
    """
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    if len(centres) < _FEWEST_BLOCKS:
        return identity, None
    weights = np.clip(alike, 0, None)
    agree = _densest(moves, weights)
    change = np.zeros((2, 3))
    for _ in range(5):
        change = _fitted(centres, moves, weights * agree)
        off = np.linalg.norm(moves - centres @ change[:, :2].T - change[:, 2], axis=1)
        now = off < _AGREE_PX
        if (now == agree).all():
            break
        agree = now
    quality = float((weights * agree).mean())
    if agree.sum() < _FEWEST_BLOCKS:
        return identity, quality
    a, b, c, d, e, f = (float(value) for value in change.ravel())
    return (1 + a, b, c, d, 1 + e, f), quality


def _fitted(
    centres: NDArray[np.float64], moves: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(2, 3): the moves as an affine map of the place, held near a shift."""
    if not weights.any():
        return np.zeros((2, 3))
    middle = np.average(centres, axis=0, weights=weights)
    local = np.column_stack([centres - middle, np.ones(len(centres))])
    held = np.diag([_STIFFNESS * BLOCK_PX**2] * 2 + [1e-9])
    change = np.linalg.solve((local * weights[:, None]).T @ local + held, (local * weights[:, None]).T @ moves).T
    change[:, 2] -= change[:, :2] @ middle
    return np.asarray(change)


def _densest(moves: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The moves within twice the tolerance of the one that most weight lies around."""
    apart = np.linalg.norm(moves[:, None] - moves[None], axis=2) < 2 * _AGREE_PX
    chosen: NDArray[np.bool_] = apart[int((apart * weights).sum(axis=1).argmax())]
    return chosen


def _starts(length: int) -> list[int]:
    """Starts of blocks that cover a length evenly."""
    if length < BLOCK_PX:
        return []
    n = max(1, round(length / BLOCK_PX))
    return [round(start) for start in np.linspace(0, length - BLOCK_PX, n).tolist()]


def _peak(scores: NDArray[np.float64], at: int) -> float:
    """The place of the maximum near `at`, by a parabola through its neighbours."""
    if not 0 < at < len(scores) - 1:
        return float(at)
    before, here, behind = (float(value) for value in scores[at - 1 : at + 2])
    bend = before - 2 * here + behind
    return at + (0.5 * (before - behind) / bend if bend < 0 else 0.0)
