"""Pictures of the place: as they may lie on a frame, and what the fills take of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from timecolor.choice import PLATE
from timecolor.finish.ink import GRAIN
from timecolor.finish.pixels import largest, runs
from timecolor.finish.strokes import SHARP
from timecolor.pairing import Drawn, mask_at, shrunk
from timecolor.propagation import camera
from timecolor.propagation import resized as flow_at
from timecolor.shapes import Bool, Float, UInt8
from timecolor.shot import Reference
from timecolor.sketch import reference_lines, without_lines

# Levels by which the model's colours and a plate may differ, cell by cell, to be fully the same, and from which they are not.
SAME, OTHER = 6.0, 16.0
# So near to the sketch's lines, in pixels of a 480-line picture, the lines of a picture that is known to be seen are not wanted.
# What darkness of its lines counts, of 255, and up to which short side they are looked for.
OVER, OWN_LINE, LINES_SEEN = 3.0, 40, 480


@dataclass(frozen=True, slots=True, eq=False)
class Plate:
    """A reference that fills the frame, at the sketch's size, uint8 (h, w, 3), a coloured frame without its drawn lines.

    labels: those whose areas it may colour, None = all. way: `choice.PLATE` = as it stands, from there on along which flow.
    misfit: how badly its lines then lie on the sketch's, at any size; None = not known. lined: where a background plate has
    lines of its own; lines: how dark, up to `LINES_SEEN`. sharp: it was large enough for these to be as sharp as the sketch's.
    """

    picture: np.ndarray
    labels: frozenset[int] | None = None
    way: int = PLATE
    misfit: Float[np.ndarray, "y x"] | None = None
    lined: Bool[np.ndarray, "h w"] | None = None
    lines: UInt8[np.ndarray, "y x"] | None = None
    sharp: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a plate is known to be seen, bool (h, w), and the flow of the camera's move, roughly, at any size; None = still."""

    at: Bool[np.ndarray, "h w"]
    flow: Float[np.ndarray, "y x 2"] | None


class Placed(NamedTuple):
    """A picture, uint8, that is known to be seen, and where. lined: where it has lines of its own, not wanted near drawn ones.

    sharp: as of `Plate`.
    """

    picture: UInt8[np.ndarray, "h w 3"]
    at: Bool[np.ndarray, "h w"]
    lined: Bool[np.ndarray, "h w"]
    sharp: bool = True


def plate_of(
    reference: Reference,
    height: int,
    width: int,
    labels: frozenset[int] | None = None,
    drawn: Drawn | None = None,
) -> Plate | None:
    """The reference as a plate, or None where it does not show a whole frame. drawn: what it was made on, where known."""
    if not reference.shows_frame(height, width):
        return None
    # Lines of the moment that a frame shows must not haunt the others.
    background = reference.role == "background"
    image = reference.image
    if not background:
        image = without_lines(image, None if drawn is None else drawn.lines(image))
    picture = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if len(image) > height else cv2.INTER_CUBIC)
    sharp = len(reference.image) >= SHARP * height
    if not background:
        return Plate(picture, labels, sharp=sharp)
    lines = reference_lines(shrunk(picture, LINES_SEEN))
    lined = cv2.dilate((lines > OWN_LINE).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return Plate(picture, labels, lined=mask_at(lined, height, width), lines=lines, sharp=sharp)


def exactly(
    lines: UInt8[np.ndarray, "y x"],
    sketch: UInt8[np.ndarray, "h w 3"],
    move: Float[np.ndarray, "v u 2"],
    within: Bool[np.ndarray, "h w"] | None = None,
) -> Float[np.ndarray, "h w 2"] | None:
    """A camera's move, known roughly, made exact on larger lines; None = these do not tell it.

    lines: of the picture that moves, up to `LINES_SEEN`. within: where the sketch shows it, None = everywhere.
    """
    height, width = sketch.shape[:2]
    within = np.ones(lines.shape, bool) if within is None else mask_at(within, *lines.shape)
    found = camera(lines, shrunk(sketch, LINES_SEEN), [flow_at(move, *lines.shape)], within)
    return None if found is None else flow_at(found, height, width)


def take_detail(
    fills: np.ndarray, colours: np.ndarray, plates: Sequence[Plate], where: np.ndarray, labels: np.ndarray | None
) -> None:
    """Where (h, w) a plate, beside the other fills, would look to the model as its colours do, give the fills what it shows.

    Of several plates that which agrees best with the model's colours, cell by cell.
    """
    h, w = fills.shape[:2]
    size = (min(colours.shape[1], w), min(colours.shape[0], h))
    ours = cv2.GaussianBlur(cv2.resize(colours.astype(np.float32) * 255, size, interpolation=cv2.INTER_AREA), (0, 0), 0.7)
    differences, shown = [], []
    bound = {plate.labels for plate in plates}
    mine = {its: where if its is None or labels is None else where & np.isin(labels, list(its)) for its in bound}
    for plate in plates:
        shown.append(cv2.copyTo(plate.picture, mine[plate.labels].view(np.uint8), fills.copy()))
        theirs = cv2.GaussianBlur(cv2.resize(shown[-1], size, interpolation=cv2.INTER_AREA).astype(np.float32), (0, 0), 0.7)
        differences.append(largest(cv2.absdiff(ours, theirs)))
    best = np.argmin(differences, axis=0)
    agree = [np.clip((OTHER - d) / (OTHER - SAME), 0, 1) * (best == i) for i, d in enumerate(differences)]
    # The weight of what is mixed so far; shares of neighbouring cells meet in between, and all sum to 1 at most.
    weight = cv2.resize(1 - np.sum(agree, axis=0), (w, h), interpolation=cv2.INTER_LINEAR)
    mixed = fills
    for agreeing, picture in zip(agree, shown, strict=True):
        if agreeing.any():
            share = cv2.resize(agreeing, (w, h), interpolation=cv2.INTER_LINEAR)
            mixed = cv2.blendLinear(mixed, picture, weight, share)
            weight += share
    fills[:] = mixed


def set_in(fills: np.ndarray, placed: Sequence[Placed], opacity: np.ndarray, areas: np.ndarray, loose: np.ndarray) -> np.ndarray:
    """The fills with pictures set where they are known to be seen, but for their own lines near the sketch's.

    opacity: of the ink (h, w). areas: regions (h, w). loose: bool (areas,), those that are not one flat colour. Writes into
    `fills`.
    """
    near = 2 * round(OVER * len(fills) / 480) + 1
    bare = cv2.dilate((opacity > GRAIN).astype(np.uint8), np.ones((near, near), np.uint8)) == 0
    for picture, at, lined, _ in placed:
        shown = at & (bare | ~lined)
        _even_out(fills, picture, areas, at, shown, loose)
        fills = cv2.copyTo(picture, shown.view(np.uint8), fills)
    return fills


def _even_out(
    fills: np.ndarray, picture: np.ndarray, areas: np.ndarray, at: np.ndarray, shown: np.ndarray, loose: np.ndarray
) -> None:
    """Give flat regions that mostly lie in a picture's place (h, w) the mean of what they show of it, where that is shown."""
    count = len(loose)
    first, pixels = runs(areas, at, shown)
    of = areas.ravel()[first]
    size, inside, seen = (np.bincount(of, pixels * x, count) for x in (1, at.ravel()[first], shown.ravel()[first]))
    mine = ~loose & (inside > size / 2) & (seen > 0)
    part = shown & mine[areas]
    of = areas[part]
    sums = np.stack([np.bincount(of, channel, count) for channel in picture[part].T], axis=1)
    part = at & ~shown & mine[areas]
    fills[part] = (sums / np.maximum(seen, 1)[:, None] + 0.5).astype(np.uint8)[areas[part]]
