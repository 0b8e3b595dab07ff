"""The sketch: its ink, and the regions that its lines enclose."""

from dataclasses import dataclass

import cv2
import numpy as np

from timecolor.finish.pixels import runs, uint8
from timecolor.shapes import Bool, Float, Int

# Opacity below GRAIN is paper grain and compression noise, from LINE on a pixel parts regions.
GRAIN = 0.06
LINE = 0.25
# A light line beside black ones parts them as well: thinner than THIN, in pixels of a 480-line picture, at its core more opaque
# than what is beside it by so much, and by so many times as much as is usual around, as grain is not; down to this share of that.
THIN, FAINT, RARE, HALF = 9.0, 0.08, 2.5, 0.65
# Half-widths of the gaps in lines that stay closed, in pixels of a 480-line picture, widest first; 0 lets narrow regions in.
GAPS = (2.0, 1.0, 0.0)
# Up to this many pixels of a 480-line picture, free spots are holes in a rough line, no regions, and inked ones specks, no lines.
HOLE = 6.0
SPECK = 8.0
# So many pixels to one of a 480-line picture, from which on areas are grown on blocks of pixels. Lines are wider than these.
LARGE = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Ink:
    """How a sketch is inked.

    sketch: uint8 (h, w, 3). opacity: float32 (h, w) in [0, 1], 0 = bare paper. stretch: float32 (h, w), how far a pixel's colour
    must move away from the paper's to be the ink's own. paper: float32 (3,) in 0..255.
    """

    sketch: np.ndarray
    opacity: np.ndarray
    stretch: np.ndarray
    paper: np.ndarray

    @staticmethod
    def of(sketch: np.ndarray) -> "Ink":
        """Darkness against the paper, where what the darkest strokes reach counts as full (pencil need not be black)."""
        planes = cv2.split(sketch)
        paper = np.array([_paper_level(plane) for plane in planes], np.float32)
        sheen = [cv2.LUT(plane, uint8(np.arange(256) / level)) for plane, level in zip(planes, paper, strict=True)]
        low = cv2.min(cv2.min(sheen[0], sheen[1]), sheen[2])
        dark = cv2.bitwise_not(low)
        full = _full_ink(dark)
        coloured = cv2.subtract(cv2.max(cv2.max(sheen[0], sheen[1]), sheen[2]), low) > 76
        if not coloured.any():
            steps = np.arange(256, dtype=np.float32)
            return Ink(sketch, cv2.LUT(dark, _opacity(steps, full)), cv2.LUT(dark, _stretch(steps, full)), paper)
        # A trace line is full at its own core, however light its colour.
        core = cv2.dilate(np.where(coloured, dark, np.uint8(0)), np.ones((5, 5), np.uint8))
        level = np.where(core > 76, np.minimum(core, full), full).astype(np.float32)
        return Ink(sketch, _opacity(dark.astype(np.float32), level), _stretch(dark.astype(np.float32), level), paper)

    def over(self, fills: np.ndarray) -> np.ndarray:
        """The ink on top of the fills, uint8 (h, w, 3): the sketch itself where it is opaque, the fills where it is bare."""
        out = fills.copy()
        inked = np.flatnonzero(self.opacity)
        a = self.opacity.ravel()[inked, None]
        line, below = (x.reshape(-1, 3)[inked] for x in (self.sketch, fills))
        out.reshape(-1, 3)[inked] = np.where(a >= 1, line, (a * self.own(inked) + (1 - a) * below + 0.5).astype(np.uint8))
        return out

    def own(self, at: np.ndarray) -> Float[np.ndarray, "n 3"]:
        """The ink's own colour, in 0..255, at pixels (flat indices)."""
        line, stretch = self.sketch.reshape(-1, 3)[at], self.stretch.ravel()[at, None]
        return np.clip(self.paper + (line - self.paper) * stretch, 0, 255)


def lined(opacity: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Where lines of this opacity, in [0, 1], are."""
    unit = max(1.0, min(opacity.shape) / 480)
    side = 2 * round(THIN * unit / 2) + 1
    dark = opacity >= LINE
    beside = cv2.dilate(dark.view(np.uint8), np.ones((5, 5), np.uint8)) > 0  # soft edges of dark lines, no light ones
    if not ((opacity >= FAINT) & ~beside).any():
        return dark
    soft = cv2.blur(opacity, (3, 3))  # less grainy
    thin = soft - cv2.morphologyEx(soft, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    core, usual = cv2.dilate(thin, np.ones((5, 5), np.uint8)), cv2.blur(thin, (3 * side, 3 * side))
    return dark | ((core >= np.maximum(RARE * usual, FAINT)) & (thin >= HALF * core) & (opacity >= GRAIN))


def regions(sketch: np.ndarray) -> np.ndarray:
    """The areas that lines enclose, int32 (h, w), 0..n-1 for every pixel; a line's pixels go to the nearest area.

    Small gaps in lines do not join two areas, and areas too small for that test survive as their own.
    """
    return regions_in(Ink.of(sketch).opacity)


def regions_in(opacity: Float[np.ndarray, "h w"]) -> np.ndarray:
    """`regions` of lines of this opacity, in [0, 1]."""
    unit = max(1.0, min(opacity.shape) / 480)
    free = _without_specks(lined(opacity).view(np.uint8), SPECK * unit * unit) == 0
    if free.all() or not free.any():
        return np.zeros(opacity.shape, np.int32)
    block = 2 if unit >= LARGE else 1
    labels = _grown(_blocks(free, block), unit / block)
    if not labels.any():
        return np.zeros(opacity.shape, np.int32)
    if block > 1:
        labels = labels.repeat(block, axis=0)[: len(free)].repeat(block, axis=1)[:, : free.shape[1]]
    return nearest(labels) - 1


def _grown(free: Bool[np.ndarray, "h w"], unit: float) -> Int[np.ndarray, "h w"]:
    """Areas of what lines leave free, 1..n, at `unit` pixels to one of a 480-line picture; 0 = a line."""
    room = cv2.distanceTransform(free.astype(np.uint8), cv2.DIST_L2, 3)
    labels = np.zeros(free.shape, np.int32)
    for gap in GAPS:
        labels = _grow(labels, room > gap * unit, HOLE * unit * unit if gap == 0 else 0.0)
    return labels


def _blocks(free: Bool[np.ndarray, "h w"], size: int) -> Bool[np.ndarray, "y x"]:
    """Which blocks of pixels are free as a whole; beyond the picture all is free."""
    down, along = (-n % size for n in free.shape)
    padded = np.pad(free, ((0, down), (0, along)), constant_values=True) if down or along else free
    parts = [padded[y::size, x::size] for y in range(size) for x in range(size)]
    return np.logical_and.reduce(parts) if size > 1 else free


def nearest(labels: np.ndarray) -> np.ndarray:
    """Every pixel without a label (0) takes the nearest one's."""
    filled, at = labels.copy(), np.flatnonzero(labels == 0)
    filled.ravel()[at] = _nearest(labels, at)
    return filled


def _counts(plane: np.ndarray) -> np.ndarray:
    return cv2.calcHist([plane], [0], None, [256], [0, 256]).ravel()


def _paper_level(plane: np.ndarray) -> int:
    """A channel's most frequent bright value; 255 where hardly anything is bright."""
    counts = _counts(plane)
    return 160 + int(counts[160:].argmax()) if counts[160:].sum() > 0.02 * plane.size else 255


def _full_ink(dark: np.ndarray) -> float:
    """The darkness, 0..255, that the darkest twentieth of all ink reaches."""
    lightest = round(LINE * 255)
    counts = _counts(dark)[lightest:]
    if not counts.any():
        return 255.0
    return float(max(lightest + int((counts.cumsum() >= 0.95 * counts.sum()).argmax()), 90))


def _opacity(dark: np.ndarray, level: np.ndarray | float) -> np.ndarray:
    return np.clip((dark - GRAIN * 255) / (level - GRAIN * 255), 0, 1).astype(np.float32)


def _stretch(dark: np.ndarray, level: np.ndarray | float) -> np.ndarray:
    return np.maximum(level / np.maximum(dark, 1), 1).astype(np.float32)


def _without_specks(line: np.ndarray, largest: float) -> np.ndarray:
    """A line mask (1 = line) without its parts of up to `largest` pixels."""
    found = cv2.connectedComponentsWithStats(line, connectivity=8, ltype=cv2.CV_32S)
    parts, sizes = np.asarray(found[1], np.int32), found[2][:, cv2.CC_STAT_AREA]
    kept = sizes > largest
    kept[0] = False
    return kept.astype(np.uint8)[parts]


def _grow(labels: np.ndarray, free: np.ndarray, smallest: float) -> np.ndarray:
    """Extend labels (0 = none) over the free pixels; a free part without any is a new label if larger than `smallest` pixels."""
    found = cv2.connectedComponentsWithStats(free.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    count, parts, sizes = found[0], np.asarray(found[1], np.int32), found[2][:, cv2.CC_STAT_AREA]
    known = int(labels.max())
    part_of = np.zeros(known + 1, np.int32)
    # Free parts only grow from step to step, so every pixel of a label names the same part: one of each run is enough.
    if known:
        at, _ = runs(labels)
        part_of[labels.ravel()[at]] = parts.ravel()[at]
    inside = np.bincount(part_of[1:], minlength=count)
    owner = np.zeros(count, np.int32)
    owner[part_of[1:]] = np.arange(1, known + 1)
    fresh = (inside == 0) & (sizes > smallest)
    contested = inside > 1
    fresh[0] = contested[0] = False
    owner[fresh] = known + 1 + np.arange(fresh.sum())
    owner[contested] = owner[0] = 0
    grown = owner[parts]
    if contested.any():
        gap = contested[parts]
        np.copyto(grown, labels, where=gap)
        at = np.flatnonzero(gap & (labels == 0))
        near = _nearest(np.where(gap, labels, 0), at)
        # A neighbour seen across a line is no neighbour.
        grown.ravel()[at] = np.where(part_of[near] == parts.ravel()[at], near, 0)
    return grown


def _nearest(labels: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The labels nearest to pixels (flat indices) that have none (0); 0 where there is none at all."""
    empty = (labels == 0).astype(np.uint8)
    # What is nearest to others lies beside them.
    rim = np.flatnonzero(cv2.dilate(empty, np.ones((3, 3), np.uint8)) > empty)
    if not len(rim):
        return np.zeros(len(at), labels.dtype)
    found = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    index = np.asarray(found[1], np.int32).ravel()
    lookup = np.zeros(int(index[rim].max()) + 1, labels.dtype)
    lookup[index[rim]] = labels.ravel()[rim]
    return lookup[index[at]]
