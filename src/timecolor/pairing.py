"""Which drawing of a shot a coloured frame was made on, and what of the frame is lines then.

Not in the paper. Lines that are sought in a coloured frame are more than was drawn: borders of what is painted without lines, as
places often are, bars, streaks of rain. Where the drawing is known they need not be sought, and a frame and the drawings that it
is laid on have the same kind of lines.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from timecolor.propagation import INK, ink, standing
from timecolor.shapes import Bool, UInt8
from timecolor.shot import Shot
from timecolor.sketch import LINE_DARKNESS, reference_lines

TRIED = 3  # drawings that a coloured frame may be of, the likeliest first
# Up to this short side they are compared. Where the frame is so dark all around, of 255, it does not tell of lines, nor where so
# much of the surroundings is lines, and not half as much of the drawing's.
SEEN, BLACK, CROWDED = 360, 70, 0.8
# Surroundings, as a share of the height, in which less than this share of the ink lies on lines of the frame are another
# drawing's; with so much of the ink in such surroundings it is another drawing, and where less of it can be seen nobody knows.
AROUND, MET, ANOTHER, TOLD = 0.035, 0.6, 0.2, 0.3
LEAST = 6.0  # pixels, of surroundings in the smallest picture
BESIDE = 1.0  # so far beside ink, in pixels of a 480-line picture, what looks like a line of the frame is one
# With more of the ink in surroundings that are another's, bare parts of the drawing may hide what the frame has moved: its lines
# are sought there, too.
TRACE = 0.03
# A run of this many pixels of ink that the picture has no line for, so near to one another, is of something else.
RUN, TOGETHER = 3, 0.02
LINES_SEEN = 720  # long side up to which lines of a frame are sought


def frames_of(shot: Shot, whole: Collection[int]) -> list[int]:
    """References that are coloured frames of the shot, of those by number that show a whole frame.

    One that does not say what it is may be a plate where cut-outs or sheets lie beside it.
    """
    frames_only = len(whole) == len(shot.references)
    return [r for r in whole if shot.references[r].role == "frame" or (frames_only and shot.references[r].role is None)]


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """The drawing that a coloured frame was made on, uint8 (h, w, 3).

    doubtful: where the frame has other lines than the drawing nevertheless, bool, at any size.
    """

    drawing: UInt8[np.ndarray, "h w 3"]
    doubtful: Bool[np.ndarray, "y x"]

    def lines(self, coloured: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
        """Darkness of the frame's lines, 255 = line: what looks like one and has ink there, or where that is doubtful.

        coloured: the frame, at any size.
        """
        height, width = coloured.shape[:2]
        lines = resized(reference_lines(shrunk(coloured, LINES_SEEN, max)), height, width)
        side = box(BESIDE * max(1.0, min(height, width) / 480))
        beside = _widened(ink(resized(self.drawing, height, width)) > INK, side)
        return np.where(self.doubted(height, width) | beside, lines, np.uint8(0))

    def ink(self, lines: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        """The drawing's `propagation.ink`, as large as lines that were sought in the frame, and those where it is doubtful."""
        return np.where(self.doubted(*lines.shape), lines, ink(resized(self.drawing, *lines.shape)))

    def doubted(self, height: int, width: int) -> Bool[np.ndarray, "h w"]:
        """`doubtful` at this size."""
        return mask_at(self.doubtful, height, width)


def paired(
    shot: Shot,
    lines: Mapping[int, UInt8[np.ndarray, "y x"]],
    drawings: Sequence[UInt8[np.ndarray, "y x 3"]],
    of_frame: Sequence[int],
) -> dict[int, Drawn]:
    """The drawings on which references by number were made; of other references nothing.

    lines: of those references that show a whole frame, as large as the drawings. of_frame: drawing of each frame.
    """
    found = {}
    for r in frames_of(shot, lines):
        ranked = np.argsort(standing(lines[r], drawings), kind="stable")[:TRIED].tolist()
        compared = [compare(shot.references[r].image, shot.sketch[at : at + 1][0]) for at in map(of_frame.index, ranked)]
        best = max(compared, key=lambda likely: likely.explained)
        if best.another <= ANOTHER:
            found[r] = best.drawn
    return found


class Compared(NamedTuple):
    """A coloured picture beside a drawing.

    another: of the ink, what share lies where the picture has other lines; 1 where nobody can tell. explained: pixels of ink with
    a line of the picture, less those without one. other: where, to the single line, the picture does not show the drawing's ink,
    or is too dark or full of lines to tell, bool, at any size.
    """

    drawn: Drawn
    another: float
    explained: float
    other: Bool[np.ndarray, "y x"]


def compare(
    coloured: UInt8[np.ndarray, "y x 3"], drawing: UInt8[np.ndarray, "h w 3"], within: Bool[np.ndarray, "h w"] | None = None
) -> Compared:
    """Whether a coloured picture was made on this drawing. within: where the drawing counts, None = everywhere."""
    small = shrunk(drawing, SEEN)
    seen = resized(coloured, *small.shape[:2])
    inked = ink(small) > 2 * INK
    if within is not None:
        inked &= mask_at(within, *inked.shape)
    light = cv2.dilate(seen.max(axis=2), np.ones((7, 7), np.uint8)) > BLACK
    side = box(max(AROUND * len(small), LEAST))
    wide = (cv2.dilate(x.astype(np.uint8), np.ones((3, 3), np.uint8)) for x in (reference_lines(seen) > LINE_DARKNESS, inked))
    (near, lined), (_, drawn) = ((x, cv2.blur(x.astype(np.float32), (side, side))) for x in wide)
    telling = light & ((lined <= CROWDED) | (lined <= 2 * drawn))
    own = (inked & telling).astype(np.float32)
    met = own * near
    close = box(TOGETHER * len(small))
    runs = _runs(inked & (near == 0), close)
    other = _widened(inked & ~telling, side) | _widened(runs, close)
    if own.sum() <= TOLD * inked.sum():
        return Compared(Drawn(drawing, np.zeros(inked.shape, bool)), 1.0, -np.inf, other)
    there, both = (cv2.blur(x, (side, side)) for x in (own, met))
    apart = (own > 0) & (both < MET * there)
    share, doubtful = float(apart.sum() / own.sum()), _widened(apart, side)
    if share > TRACE:
        doubtful |= ~_widened(inked, side)
    return Compared(Drawn(drawing, doubtful), share, float(2 * met.sum() - own.sum()), other)


def _runs(pixels: Bool[np.ndarray, "y x"], side: int) -> Bool[np.ndarray, "y x"]:
    """Those that are not alone."""
    around = cv2.boxFilter(pixels.astype(np.float32), -1, (side, side), normalize=False)
    return pixels & (around > RUN - 0.5)


def _widened(pixels: Bool[np.ndarray, "y x"], side: int) -> Bool[np.ndarray, "y x"]:
    return cv2.dilate(pixels.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


def box(reach: float) -> int:
    """The side, in pixels, of what reaches so far to all sides, one pixel at least."""
    return 2 * round(max(reach, 1)) + 1


def shrunk(picture: np.ndarray, size: int, side: Callable[[int, int], int] = min) -> np.ndarray:
    """A picture whose short side, or long one, is of a size at most."""
    height, width = picture.shape[:2]
    scale = min(1.0, size / side(height, width))
    return resized(picture, max(1, round(height * scale)), max(1, round(width * scale)))


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture at a size, by area where that is smaller."""
    if picture.shape[:2] == (height, width):
        return picture
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if len(picture) > height else cv2.INTER_LINEAR)


def mask_at(mask: Bool[np.ndarray, "y x"], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """A mask at a size."""
    return cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
