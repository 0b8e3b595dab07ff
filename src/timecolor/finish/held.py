"""What a drawing holds of the one that a coloured frame was made on, as the frame has it; and of a place, as its plate has it.

Side by side the two drawings tell where nothing has changed. If the fills there are the frame's too, the frame is what the artist
made of it: with its lines as they became, and with the detail between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from timecolor import propagation
from timecolor.finish.ink import GRAIN, Ink, lined
from timecolor.finish.pixels import largest
from timecolor.finish.plates import LINES_SEEN, exactly
from timecolor.finish.strokes import OUTLINE, SHARP
from timecolor.pairing import ANOTHER, Drawn, box, compare, mask_at, shrunk
from timecolor.propagation import INK, covered, resized, warp
from timecolor.shapes import Bool, Float, UInt8
from timecolor.shot import Reference

COMPARED = 480  # short side, in pixels, up to which drawings are compared
INKED = 0.25  # of a pixel at that size
# So far around, as a share of the height, at least this share of either drawing's ink is the other's too, and so near fewer than
# so many pixels of either have none of the other's beside them: a mouth that opens changes little of a face.
AROUND, SAME, NEARER, CHANGED = 0.06, 0.8, 0.02, 2
# What of a pixel is ink where a frame is moved; so near to the picture's edge, as a share of the height, a line reaches it.
MOST, EDGE = 0.3, 0.01
# So far around, as a share of the height, bare fills count, of which this share must be within so many levels of the frame's.
BESIDE, AGREED, ALIKE = 0.02, 0.75, 16
COARSE = 40  # cells down a picture, at most, that are compared: finer ones differ along edges that lie a pixel off


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A coloured frame, uint8 (h, w, 3), at the sketch's size, and its fills. ink: bool (h, w), of its drawing.

    known: bool (h, w), where it shows what that drawing has. lines: how dark its ink is, up to `LINES_SEEN`. moved: it is not as
    it stands.
    """

    frame: UInt8[np.ndarray, "h w 3"]
    fills: UInt8[np.ndarray, "h w 3"]
    ink: Bool[np.ndarray, "h w"]
    known: Bool[np.ndarray, "h w"]
    lines: UInt8[np.ndarray, "y x"]
    moved: bool = False

    @staticmethod
    def of(reference: Reference, fills: UInt8[np.ndarray, "h w 3"], drawn: Drawn) -> "Held | None":
        """reference: the frame; None where it is too small to be as sharp as the sketch. fills: as large as its drawing."""
        image, (height, width) = reference.image, fills.shape[:2]
        if len(image) < SHARP * height:
            return None
        how = cv2.INTER_AREA if len(image) > height else cv2.INTER_CUBIC
        frame = image if image.shape == fills.shape else cv2.resize(image, (width, height), interpolation=how)
        lines = propagation.ink(shrunk(drawn.drawing, LINES_SEEN))
        return Held(frame, fills, lined(Ink.of(drawn.drawing).opacity), ~drawn.doubted(height, width), lines)

    def along(self, move: Float[np.ndarray, "y x 2"], sketch: UInt8[np.ndarray, "h w 3"]) -> "Held | None":
        """The frame as the camera sees it in another drawing. move: its flow, roughly, at any size.

        None where it would be less sharp, or lines do not tell that it is the camera's: what moves is a figure unless its lines
        reach two edges of the picture.
        """
        exact = exactly(self.lines, sketch, move)
        if exact is None or 1 + float(np.diff(exact[:, :, 0], axis=1).mean()) < SHARP:
            return None
        ink, known = (warp(np.where(mask, np.float32(1), np.float32(0)), exact) > MOST for mask in (self.ink, self.known))
        known &= covered(exact)
        own = propagation.ink(shrunk(sketch, LINES_SEEN)) > INK
        there = own & (cv2.dilate(warp(self.lines, resized(exact, *own.shape)), np.ones((3, 3), np.uint8)) > INK)
        rim = round(EDGE * len(there)) + 1
        if sum(side.any() for side in (there[:rim], there[-rim:], there[:, :rim], there[:, -rim:])) < 2:
            return None
        return Held(warp(self.frame, exact, cv2.INTER_CUBIC), warp(self.fills, exact), ink, known, self.lines, True)


def over(
    picture: UInt8[np.ndarray, "h w 3"],
    frames: Sequence[Held],
    ink: Ink,
    fills: UInt8[np.ndarray, "h w 3"],
    cells: Float[np.ndarray, "y x 3"],
) -> UInt8[np.ndarray, "h w 3"]:
    """A finished picture with the pixels of coloured frames where these are held, of the one that is nearest to its fills.

    One that the camera moved counts where none is held as it stands and lines tell: what is painted without them may have stayed.

    ink, fills: of the picture. cells: the colours that the fills were made of, in [0, 1], at any size. Either may agree with a
    frame: fills are wrong where broken lines close no regions.
    """
    mine, side = lined(ink.opacity), box(BESIDE * len(fills))
    made, nearest, still = picture.copy(), np.full(mine.shape, np.inf, np.float32), np.zeros(mine.shape, bool)
    few = tuple(max(1, round(n * min(1.0, COARSE / len(cells)))) for n in cells.shape[1::-1])
    for held in sorted(frames, key=lambda one: one.moved):
        same = held.known & _same(mine, held.ink, held.moved) & ~(still if held.moved else np.False_)
        if not same.any():
            continue
        bare = (ink.opacity < GRAIN) & ~held.ink
        off = largest(cv2.absdiff(fills, held.fills))
        theirs, own = (cv2.resize(x, few, interpolation=cv2.INTER_AREA).astype(np.float32) for x in (held.fills, cells))
        coarse = largest(cv2.absdiff(theirs, 255 * own))
        off = cv2.min(off, cv2.resize(coarse, off.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8))
        around, alike, apart = (
            cv2.blur(x.astype(np.float32), (side, side)) for x in (bare, bare & (off <= ALIKE), np.where(bare, off, 0))
        )
        apart /= np.maximum(around, 1e-6)
        same &= (alike >= AGREED * around) & (around > 0) & (apart < nearest)
        nearest[same] = apart[same]
        still |= same
        made = cv2.copyTo(held.frame, same.view(np.uint8), made)
    return made


def over_place(
    picture: UInt8[np.ndarray, "h w 3"],
    sketch: UInt8[np.ndarray, "h w 3"],
    plate: UInt8[np.ndarray, "h w 3"],
    at: Bool[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """A finished picture with a plate's pixels where the sketch draws the plate's own lines. at: where the plate is seen."""
    side = box(OUTLINE * max(1.0, min(at.shape) / 480))
    mine = cv2.erode(at.view(np.uint8), np.ones((side, side), np.uint8), borderValue=1) > 0
    seen = compare(plate, sketch, mine)
    if seen.another > ANOTHER:
        return picture
    mine &= ~(mask_at(seen.other, *at.shape) | seen.drawn.doubted(*at.shape))
    return cv2.copyTo(plate, mine.view(np.uint8), picture.copy())


def _same(mine: Bool[np.ndarray, "h w"], other: Bool[np.ndarray, "h w"], told: bool) -> Bool[np.ndarray, "h w"]:
    """Where two drawings have the same lines around, or none unless lines are to tell."""
    height, width = mine.shape
    scale = min(1.0, COMPARED / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    lines = [cv2.resize(x.astype(np.float32), size, interpolation=cv2.INTER_AREA) > INKED for x in (mine, other)]
    side, near = box(AROUND * size[1]), box(NEARER * size[1])
    shared = cv2.blur((lines[0] & lines[1]).astype(np.float32), (side, side))
    most = np.maximum(*(cv2.blur(x.astype(np.float32), (side, side)) for x in lines))
    wide = [cv2.dilate(x.view(np.uint8), np.ones((3, 3), np.uint8)) > 0 for x in lines]
    changed = (lines[0] & ~wide[1]) | (lines[1] & ~wide[0])
    few = cv2.boxFilter(changed.astype(np.float32), -1, (near, near), normalize=False) < CHANGED - 0.5
    return mask_at(few & (shared >= SAME * most) & (shared > 0 if told else True), height, width)
