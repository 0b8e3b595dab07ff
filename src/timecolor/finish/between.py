"""How much of a line coloured pictures show, by the fills on either side of it.

Between two tones of a part, artists draw where the border runs, and no line remains of it in the finished frame; the same ink
around the part is an outline. The colours on either side tell one from the other, wherever the part has moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from timecolor.finish.ink import GRAIN, LARGE, nearest
from timecolor.finish.lab import apart, to_lab
from timecolor.shapes import Bool, Float, Int, UInt8

# Fills that are told apart, at most, of at least so many pixels each and so far from one another, CIE Lab; others are as far.
FILLS, LEAST, NEAR = 48, 40, 6.0
STEPS = 6  # bits of a channel that are looked up
REACH = 3  # so far across a line its other side lies, in pixels of a 480-line picture
USUAL = 1.5e5  # squared levels, forty pixels or so of ink, that speak for a line that shows as much as others
MOST, WITHIN = 1.1, 0.5  # of what others show; and least of it within one fill, where another may be missing
GONE, LINED = 0.4, 0.5  # a picture without its drawing has no line between two fills where less shows; so much opacity is one

_CELL = np.ones((3, 3), np.uint8)


class Picture(NamedTuple):
    """A coloured picture, uint8 (h, w, 3), the same without its lines, and where it shows something, bool (h, w)."""

    image: np.ndarray
    fills: np.ndarray
    seen: np.ndarray


class Sides(NamedTuple):
    """The fills on either side of each pixel, uint8 (h, w), of those known; the same twice where no other is in reach.

    known: which fill each colour is, by `STEPS` bits of its channels, uint8, 1 to n; 0 = none.
    """

    known: np.ndarray
    one: np.ndarray
    other: np.ndarray

    @staticmethod
    def of(
        fills: UInt8[np.ndarray, "h w 3"], opacity: Float[np.ndarray, "h w"], known: UInt8[np.ndarray, " colours"] | None = None
    ) -> "Sides":
        """fills: under ink of this opacity. known: None = the commonest of these."""
        bare, bins = opacity <= GRAIN, _bins(fills)
        known = _fills(bins[bare]) if known is None else known
        if not bare.any():
            return Sides(known, np.zeros(bare.shape, np.uint8), np.zeros(bare.shape, np.uint8))
        # Other than 0, which asks for the nearest one.
        one = (nearest(np.where(bare, known[bins].astype(np.int32) + 1, 0)) - 1).astype(np.uint8)
        side = 2 * round(REACH * max(1.0, min(bare.shape) / 480)) + 1
        around = np.ones((side, side), np.uint8)
        high, low = cv2.dilate(one, around), cv2.erode(one, around)
        return Sides(known, one, np.where(high != one, high, low))


@dataclass(frozen=True, slots=True, eq=False)
class Between:
    """known: as of `Sides`. shares: float32 (n + 1, n + 1), how much of a line between two fills shows, of what usually does."""

    known: UInt8[np.ndarray, " colours"]
    shares: Float[np.ndarray, "n n"]

    @staticmethod
    def of(sides: Sides, at: np.ndarray, shown: Float[np.ndarray, " m"], usual: Float[np.ndarray, " m"]) -> "Between":
        """at: pixels of ink (flat indices). shown, usual: how strong a frame's line is there, and would be, in squared levels."""
        count = int(sides.known.max()) + 1
        one, other = (side.reshape(-1)[at].astype(np.int64) for side in (sides.one, sides.other))
        key = one * count + other
        came, whole = (np.bincount(key, x, count * count).reshape(count, count) for x in (shown, usual))
        came, whole = came + came.T, whole + whole.T  # of two fills, whichever is first; of one, twice
        shares = np.clip((came + USUAL) / (whole + USUAL), 0, MOST).astype(np.float32)
        np.fill_diagonal(shares, shares.diagonal().clip(min=WITHIN))
        return Between(sides.known, shares)

    @staticmethod
    def pictured(pictures: Sequence[Picture], colour: Float[np.ndarray, " 3"]) -> "Between | None":
        """What pictures tell whose drawings are not known: between which fills they have no line; None = between none.

        colour: of their lines, in 0..255.
        """
        known = _fills(np.concatenate([_bins(picture.fills)[picture.seen & _even(picture.fills)] for picture in pictures]))
        count = int(known.max()) + 1
        came, whole = np.zeros((2, count, count))
        for picture in pictures:
            key, far, opaque = _borders(picture, known, colour)
            came += np.bincount(key, far * np.clip(opaque / LINED, 0, 1), count * count).reshape(count, count)
            whole += np.bincount(key, far, count * count).reshape(count, count)
        shares = (came + came.T + USUAL) / (whole + whole.T + USUAL)
        gone = shares < GONE
        return Between(known, np.where(gone, shares, 1).astype(np.float32)) if gone.any() else None

    def shown(self, fills: UInt8[np.ndarray, "h w 3"], opacity: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
        """How much of a line at each pixel shows. fills: under ink of this opacity."""
        height, width = opacity.shape
        if min(height, width) < LARGE * 480:
            return self.along(Sides.of(fills, opacity, self.known))
        # Lines are so wide that every other pixel tells it.
        found = self.along(Sides.of(fills[::2, ::2], opacity[::2, ::2], self.known))
        return cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST)

    def along(self, sides: Sides) -> Float[np.ndarray, "h w"]:
        """`shown`, the sides being known."""
        return cv2.blur(self.shares[sides.one, sides.other], (3, 3))


def _fills(bins: np.ndarray) -> UInt8[np.ndarray, " colours"]:
    """The commonest of some colours, as `Sides.known`."""
    every = np.arange(1 << 3 * STEPS)
    middles = np.stack([every >> 2 * STEPS, every >> STEPS, every], axis=1) % (1 << STEPS) * (256 >> STEPS) + (128 >> STEPS)
    lab, counts = to_lab(middles.astype(np.uint8)), np.bincount(bins, minlength=len(every))
    common = np.argsort(-counts, kind="stable")[: int((counts >= LEAST).sum())]
    found, least = np.zeros(len(every), np.uint8), np.full(len(every), NEAR, np.float32)
    for number, i in enumerate(common[apart(lab[common], NEAR)[:FILLS]], 1):
        away = np.linalg.norm(lab - lab[i], axis=1)
        nearer = away < least
        found[nearer], least[nearer] = number, away[nearer]
    return found


def _even(fills: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Where a colour goes on all around: what is left of lines is no fill."""
    bins = _bins(fills).astype(np.float32)
    around = np.ones((5, 5), np.uint8)
    return cv2.dilate(bins, around) == cv2.erode(bins, around)


def _bins(colours: UInt8[np.ndarray, "h w 3"]) -> Int[np.ndarray, "h w"]:
    red, green, blue = (np.asarray(plane, np.int32) >> (8 - STEPS) for plane in cv2.split(colours))
    return (red << 2 * STEPS) + (green << STEPS) + blue


def _borders(picture: Picture, known: np.ndarray, colour: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels where one fill meets another: which, as one number, how far the lines' colour is, how opaque a line is."""
    of, count = np.where(picture.seen, known[_bins(picture.fills)], np.uint8(0)), int(known.max()) + 1
    low, high = (np.asarray(found) for found in (cv2.erode(of, _CELL), cv2.dilate(of, _CELL)))
    y, x = np.nonzero((high != low) & (low > 0))
    low, high = low[y, x].astype(np.int64), high[y, x].astype(np.int64)
    sizes = np.maximum(np.bincount(of.ravel(), minlength=count), 1)
    means = np.stack([np.bincount(of.ravel(), channel.ravel(), count) / sizes for channel in cv2.split(picture.fills)], axis=1)
    towards = colour - means
    squares = np.maximum(np.square(towards).sum(axis=1), 1)
    opaque = np.zeros(len(y))
    edged = np.pad(picture.image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    for dy, dx in np.ndindex(_CELL.shape):  # a line's middle lies beside the border of what is left without it
        here = edged[y + dy, x + dx]
        # A line is darker than either fill.
        darker = [((here - means[side]) * towards[side]).sum(axis=1) / squares[side] for side in (low, high)]
        opaque = np.maximum(opaque, np.minimum(*darker))
    return low * count + high, np.minimum(squares[low], squares[high]), opaque
