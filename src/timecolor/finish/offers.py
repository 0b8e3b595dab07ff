"""What small regions may take beside their own colour: what they vote for, and what plates show there."""

from collections.abc import Sequence

import cv2
import numpy as np

from timecolor.choice import Offers
from timecolor.finish.cells import Cells
from timecolor.finish.ink import LINE
from timecolor.finish.lab import alike, to_lab
from timecolor.finish.pixels import largest
from timecolor.finish.plates import Plate
from timecolor.finish.votes import OFFERED, Vote, outcome, regions_voting

# Votes are offered where so much of a region is known.
KNOWN = 0.3
# Pixels of such regions that are looked at, about.
LOOKED_AT = 400_000
# A plate beside the model's colours: levels, at most, that a cell counts; cells that "around" is; misfit where none is told.
APART, AROUND, UNTOLD = 64.0, 1.5, 0.2


def offers(
    found: np.ndarray,
    cells: Cells,
    areas: np.ndarray,
    opacity: np.ndarray,
    plates: Sequence[Plate],
    labels: np.ndarray | None,
    votes: Sequence[Vote],
) -> Offers:
    """What small regions may take: their own colour, what their places vote for, and of each plate the colour that most has.

    found: own colours (areas, 3). opacity: of the ink (h, w), whose pixels do not count.
    """
    size = cells.sums(cells.pixels[:, None])[:, 0]
    small = size <= OFFERED * areas.size
    regions = np.flatnonzero(small)
    number = np.where(small, np.cumsum(small) - 1, -1)
    of = number[areas].reshape(-1)
    pixels = np.flatnonzero((of >= 0) & (opacity.reshape(-1) < LINE))
    # Region by region. A stable sort is by far the fastest of numbers this short.
    pixels = pixels[np.argsort(of[pixels].astype(np.uint16 if len(regions) < 1 << 16 else np.int64), kind="stable")]
    of = of[pixels]
    # Of a large picture only some pixels of each region are looked at, and one at least.
    within = np.arange(len(of)) - np.searchsorted(of, np.arange(len(regions)))[of]
    some = within % (1 + len(of) // LOOKED_AT) == 0
    pixels, of = pixels[some], of[some]
    count = np.bincount(of, minlength=len(regions))

    def mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Of the entries' values, over each region."""
        total = np.bincount(cells.area, weight, cells.areas)
        return (np.bincount(cells.area, weight * values, cells.areas) / np.maximum(total, 1e-9))[regions]

    rest = np.abs(cells.colours.reshape(-1, 3)[cells.cell] - found[cells.area]).max(axis=1)
    votings = regions_voting(cells, areas, votes)
    voted, known, likeliest = outcome(found, votings)
    colours, there = [found[regions], voted[regions]], [np.ones(len(regions), bool), known[regions] >= KNOWN]
    signs: list[list[np.ndarray]] = [[np.zeros(len(regions))] * 5] * 2
    grid = cells.colours.shape[1::-1]
    for plate in plates:
        theirs = cv2.resize(plate.picture, grid, interpolation=cv2.INTER_AREA).astype(np.float32)
        apart = largest(cv2.absdiff(cells.colours * 255, theirs)).clip(max=APART)
        misfit = np.full(grid[::-1], UNTOLD) if plate.misfit is None else cv2.resize(plate.misfit, grid)
        fields = (apart, cv2.GaussianBlur(apart, (0, 0), AROUND), misfit)
        shown, most = commonest(plate.picture.reshape(-1, 3)[pixels], of, len(regions))
        mine, named = np.ones(len(pixels), bool), False
        if labels is not None and plate.labels is not None:
            mine, named = np.isin(labels.reshape(-1)[pixels], list(plate.labels)), True
        usable = np.bincount(of, mine, len(regions)) > count / 2
        colours.append(shown)
        there.append(usable)
        signs.append([*(mean(x.reshape(-1)[cells.cell], cells.pixels) for x in fields), most, usable * float(named)])
    apart, around, misfit, most, named = (np.stack(sign, axis=1).astype(np.float32) for sign in zip(*signs, strict=True))
    offered = np.stack(colours, axis=1)
    lab, believed = to_lab(offered), np.zeros(offered.shape[:2], np.float32)
    for vote, voting, shares in votings:
        its, shades = number[voting], to_lab(vote.shades)
        for i in range(len(colours)):
            believed[its, i] = (shares * alike(lab[its, i], shades)).sum(axis=1)
    return Offers(
        regions=regions,
        size=size[regions] / areas.size,
        pixels=pixels,
        of=of,
        colours=offered,
        lab=lab,
        there=np.stack(there, axis=1),
        source=np.array([0, 1, *(plate.way for plate in plates)]),
        unexplained=mean(rest, cells.pixels * cells.share),
        inside=mean(cells.deep, cells.pixels),
        known=known[regions],
        likeliest=likeliest[regions],
        believed=believed,
        mixed=bool(votes) and all(vote.mixed for vote in votes),
        apart=apart,
        around=around,
        misfit=misfit,
        most=most,
        named=named > 0,
    )


def commonest(colours: np.ndarray, of: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The colour that most pixels of each group have, (count, 3) in [0, 1], and what share of them has it; 0 of an empty group.

    colours: uint8 (n, 3). of: (n,), the group of each, in order. Colours are told apart by 16 levels a channel.
    """
    bin_of = (colours >> 4).astype(np.int64) @ np.array([256, 16, 1])
    key = of * 4096 + bin_of
    # Shorter numbers are sorted sooner.
    keys, counts = np.unique(key.astype(np.uint32) if count < 1 << 20 else key, return_counts=True)
    keys = keys.astype(np.int64)
    group = keys >> 12
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    largest = np.maximum.reduceat(counts, starts) if len(starts) else starts
    top = np.flatnonzero(counts == np.repeat(largest, np.diff(starts, append=len(keys))))
    first = top[np.flatnonzero(np.diff(group[top], prepend=-1))]
    best, most = np.zeros(count, np.int64), np.zeros(count)
    best[group[first]], most[group[first]] = keys[first] & 4095, counts[first]
    same = bin_of == best[of]
    sums = np.stack([np.bincount(of[same], channel[same], count) for channel in colours.T], axis=1)
    return sums / np.maximum(most, 1)[:, None] / 255, most / np.maximum(np.bincount(of, minlength=count), 1)
