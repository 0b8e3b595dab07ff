"""What the places of an area vote for, and what that comes to for small regions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from timecolor.finish.cells import Cells, overlaps
from timecolor.finish.lab import alike, shades_of, to_lab
from timecolor.finish.pixels import uint8
from timecolor.shapes import Bool, Float

# Up to this share of the frame a region is offered colours besides its own.
OFFERED = 0.05
# From what part of a vote on one colour is taken alone, below which it is mixed with the others; and how softly.
SURE, SOFT = 0.3, 0.08


@dataclass(frozen=True, slots=True, eq=False)
class Vote:
    """Which colours the places of an area may have.

    at: bool (y, x), the area in a grid over the frame. shares: (n, m), how likely each of its places has each shade; what is
    missing to 1 is none of them. shades: (m, 3), in [0, 1]. alike: (m, m), how much a shade counts as another. mixed: the
    model's colours of the area are nothing but these votes, seen in cells.
    """

    at: Bool[np.ndarray, "y x"]
    shares: Float[np.ndarray, "n m"]
    shades: Float[np.ndarray, "m 3"]
    alike: Float[np.ndarray, "m m"]
    mixed: bool = True

    @staticmethod
    def of(colours: Float[np.ndarray, "y x 3"]) -> "Vote":
        """A model's colours, in [0, 1], as votes: each cell for its own shade."""
        which, shades = shades_of(uint8(colours).reshape(-1, 3))
        lab = to_lab(shades)
        return Vote(
            np.ones(colours.shape[:2], bool), np.eye(len(shades), dtype=np.float32)[which], shades, alike(lab, lab), False
        )

    def settled(self, shares: Float[np.ndarray, "k m"], own: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, "k 3"]:
        """The colour that most of the shares are near to, or their mean where few are; for what is none of them, one's own."""
        total = shares.sum(axis=1, keepdims=True).clip(1e-12)
        near = shares @ self.alike
        close = self.alike[near.argmax(axis=1)] * shares
        likeliest = close @ self.shades / close.sum(axis=1, keepdims=True).clip(1e-12)
        mean = shares @ self.shades / total
        alone = 1 / (1 + np.exp((SURE - near.max(axis=1, keepdims=True) / total) / SOFT))
        return own + total.clip(max=1) * (mean + alone * (likeliest - mean) - own)


class Voting(NamedTuple):
    """What small regions, by number, vote for: shares (n, m) of a vote's shades."""

    vote: Vote
    regions: np.ndarray
    shares: np.ndarray


def regions_voting(cells: Cells, areas: np.ndarray, votes: Sequence[Vote]) -> list[Voting]:
    """What the places of small regions say together, where more than half of one votes."""
    if not votes:
        return []
    rows, columns = votes[0].at.shape
    if cells.colours.shape[:2] == (rows, columns):
        place, area, pixels = cells.cell, cells.area, cells.pixels
    else:
        keys, pixels = overlaps(areas, (rows, columns))
        place, area = keys // cells.areas, keys % cells.areas
    size = np.bincount(area, pixels, cells.areas)
    small, votings = size <= OFFERED * areas.size, []
    for vote in votes:
        number = np.cumsum(vote.at).reshape(-1) - 1
        mine = np.flatnonzero(vote.at.reshape(-1)[place] & small[area])
        mine = mine[np.argsort(area[mine], kind="stable")]
        voting, first = np.unique(area[mine], return_index=True)
        if not len(voting):
            continue
        weight = pixels[mine, None]
        of, voters = (np.add.reduceat(x, first) for x in (weight * vote.shares[number[place[mine]]], weight))
        most = voters[:, 0] > size[voting] / 2
        votings.append(Voting(vote, voting[most], (of / voters)[most]))
    return votings


def outcome(found: np.ndarray, votings: Sequence[Voting]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each region what it votes for, (areas, 3), what part is on any colour, and on the likeliest; else its own, 0."""
    voted, known, likeliest = found.copy(), np.zeros(len(found)), np.zeros(len(found))
    for vote, chosen, shares in votings:
        voted[chosen] = vote.settled(shares, found[chosen])
        known[chosen], likeliest[chosen] = shares.sum(axis=1), (shares @ vote.alike).max(axis=1)
    return voted, known, likeliest
