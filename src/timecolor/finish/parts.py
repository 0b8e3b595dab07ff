"""Parts of a closed region that no line closes: a shade whose border nobody drew, two parts that meet where lines are open.

Not in the paper. The places of a region vote each for itself, by what the matcher knows or the model shows of them, and agree
with those beside them (mean field of a Potts model). What then stands apart becomes a region of its own where it is surely of
another colour: the surer, the less alike both colours are.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from timecolor.choice import beside
from timecolor.finish.lab import to_lab
from timecolor.finish.votes import OFFERED, Vote
from timecolor.shapes import Float, Int

# Colours that may be a region's, at most; one has at least such a part of its votes, and is so little like those before it.
COLOURS, SOME, LIKE = 4, 0.1, 0.5
# Probability that counts for nothing; how often places look at those beside them.
UNTOLD, ROUNDS = 0.03, 20
# A part has at least so many places, and such a share of all, and on average its colour scores better there than the region's by
# so much, and by so much for each unit (CIE Lab) that the two are apart.
LEAST, LEAST_SHARE, SURER, SURER_APART = 8, 0.0004, 0.25, 1 / 80


def parted(areas: Int[np.ndarray, "h w"], votes: Sequence[Vote]) -> Int[np.ndarray, "h w"]:
    """Regions by number, with more of them: each vote may part small regions of its area."""
    made, count = areas, int(areas.max()) + 1
    small = np.bincount(areas.reshape(-1)) <= OFFERED * areas.size
    for vote in votes:
        region = _at(areas, vote.at.shape)
        region = np.where(vote.at & small[region], region, -1)
        for number, part in _apart(region, vote, count):
            pixels, box = _drawn(areas, number, region, part)
            if pixels.any():
                made = areas.copy() if made is areas else made
                made[box][pixels], count = count, count + 1
    return made


def _at(areas: np.ndarray, grid: tuple[int, int]) -> Int[np.ndarray, "y x"]:
    """Regions at the middles of a grid's places."""
    y, x = ((np.arange(n) * 2 + 1) * size // (2 * n) for n, size in zip(grid, areas.shape, strict=True))
    return areas[y[:, None], x].astype(np.int64)


def _apart(region: Int[np.ndarray, "y x"], vote: Vote, count: int) -> list[tuple[int, np.ndarray]]:
    """Parts that stand apart: the region that each is of, and its places, bool (y, x). region: of each place, -1 = none."""
    mine = np.flatnonzero(region.reshape(-1) >= 0)
    of = region.reshape(-1)[mine]
    shares = vote.shares[np.cumsum(vote.at.reshape(-1))[mine] - 1]
    near = (shares @ vote.alike) / shares.sum(axis=1, keepdims=True).clip(min=1)
    candidates = _candidates(near, of, vote, count)
    several = candidates[of, 1] >= 0
    if not several.any():
        return []
    mine, of, near = mine[several], of[several], near[several]
    theirs = candidates[of]
    scores = np.full((*region.shape, COLOURS), -np.inf, np.float32)
    likely = np.take_along_axis(near, theirs.clip(min=0), axis=1)
    scores.reshape(-1, COLOURS)[mine] = np.where(theirs >= 0, np.log(likely + UNTOLD), -np.inf)
    asked = np.full(region.shape, -1, np.int64)
    asked.reshape(-1)[mine] = of
    taken = _agreed(scores, asked).reshape(-1)[mine]
    usual = np.stack([np.bincount(of, taken == i, count) for i in range(COLOURS)]).argmax(axis=0)  # by region
    piece = np.zeros(len(mine), np.int64)
    for i in range(COLOURS):
        other = np.zeros(region.size, np.uint8)
        other[mine[(taken == i) & (usual[of] != i)]] = 1
        _, number = cv2.connectedComponents(other.reshape(region.shape), connectivity=4)
        piece = np.where(number.reshape(-1)[mine] > 0, (number.reshape(-1)[mine] * COLOURS + i) * count + of, piece)
    _, first, piece, size = np.unique(piece, return_index=True, return_inverse=True, return_counts=True)
    told, each = scores.reshape(-1, COLOURS)[mine], np.arange(len(mine))
    surer = np.bincount(piece, told[each, taken] - told[each, usual[of]]) / size
    lab = to_lab(vote.shades)
    away = np.linalg.norm(lab[theirs[first, taken[first]]] - lab[theirs[first, usual[of[first]]]], axis=1)
    apart = (taken[first] != usual[of[first]]) & (size >= _least(vote)) & (surer >= np.maximum(SURER, away * SURER_APART))
    found = []
    for i in np.flatnonzero(apart):
        part = np.zeros(region.size, bool)
        part[mine[piece == i]] = True
        found.append((int(of[first[i]]), part.reshape(region.shape)))
    return found


def _least(vote: Vote) -> int:
    return max(LEAST, int(LEAST_SHARE * vote.at.size))


def _candidates(near: Float[np.ndarray, "n m"], of: Int[np.ndarray, " n"], vote: Vote, count: int) -> Int[np.ndarray, "r k"]:
    """Shades that regions of enough places may have, the likeliest first; -1 = no further one."""
    number = np.bincount(of, minlength=count)
    sums = np.stack([np.bincount(of, plane, count) for plane in near.T], axis=1) / np.maximum(number, 1)[:, None]
    found = np.full((count, COLOURS), -1)
    usable = number >= 2 * _least(vote)
    for i in range(COLOURS):
        best = sums.argmax(axis=1)
        usable &= sums[np.arange(count), best] >= SOME
        found[usable, i] = best[usable]
        sums[vote.alike[best] > LIKE] = 0
    return found


def _agreed(scores: Float[np.ndarray, "y x k"], region: Int[np.ndarray, "y x"]) -> Int[np.ndarray, "y x"]:
    """Which colour each place has, by its scores and what those beside it in its region may have."""
    links = []
    for one, other, weight in beside(*region.shape):
        same = (region[one] == region[other]) & (region[one] >= 0)
        links.append((one, other, weight * same.astype(np.float32)))
    scores = np.ascontiguousarray(np.moveaxis(np.where(region[..., None] >= 0, scores, np.float32(0)), 2, 0))
    found = scores
    for _ in range(ROUNDS):
        likely = np.exp(found - found.max(axis=0))
        likely /= likely.sum(axis=0)
        found = scores.copy()
        for one, other, same in links:
            found[one] += same * likely[other]
            found[other] += same * likely[one]
    return found.argmax(axis=0)


def _drawn(
    areas: np.ndarray, number: int, region: Int[np.ndarray, "y x"], part: np.ndarray
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """The pixels of a part of a region, in a box of the picture: nearer to its places than to the region's others."""
    (h, w), (rows, columns) = areas.shape, region.shape
    y, x = (np.flatnonzero(part.any(axis=axis)) for axis in (1, 0))
    low, high = (max(at[0] - 1, 0) for at in (y, x)), (at[-1] + 2 for at in (y, x))
    (top, left), (bottom, right) = low, high
    box = slice(top * h // rows, min(-(-bottom * h // rows), h)), slice(left * w // columns, min(-(-right * w // columns), w))
    down, across = rows / h, columns / w
    to_grid = np.array([[across, 0, (box[1].start + 0.5) * across - 0.5], [0, down, (box[0].start + 0.5) * down - 0.5]])
    size, how = (box[1].stop - box[1].start, box[0].stop - box[0].start), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    its, others = (cv2.warpAffine(x.astype(np.float32), to_grid, size, flags=how) for x in (part, (region == number) & ~part))
    return (areas[box] == number) & (its > others), box
