"""How references show lines, and the sketch's own laid on the fills that way: in which colour, and how much of each stroke.

A coloured frame of a shot was drawn on one of its drawings. Side by side they tell what becomes of a line: it may be brown, finer
or paler than in the sketch, or go, as coloured trace lines do. A plate tells the same of the place that labels name it for. Other
references tell the colour alone. Where lines lie is the sketch's.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np

from timecolor.finish.ink import GRAIN, LINE, Ink
from timecolor.finish.pixels import largest
from timecolor.pairing import frames_of
from timecolor.propagation import standing
from timecolor.shapes import Bool, Float, Int, UInt8
from timecolor.shot import Reference, Shot
from timecolor.sketch import reference_lines, without_lines

HUED = 0.3  # ink is red, green or blue where its channels differ by this share of its darkness
DEPTHS, DEEP = 8, 1.0  # steps of how much ink is around, and how far that is looked at, in pixels of a 480-line picture
WIDE, HEAVY = 3.0, 160  # it is heavy ink, a pupil or where lines meet, where, so far around, this much of 255 is ink
HUES, KINDS = 4, 12  # neutral, red, green and blue lines, then heavy ink, then black areas, which hold a disc so far around
TRIED = 3  # pairs of a coloured frame and a drawing that it may be of, the likeliest first, till one tells
SHARP = 0.7  # a coloured frame of less than this share of the sketch's size is too soft to tell how strong its lines are
MOST, THERE = 0.05, 0.25  # so many of the pixels of ink, the most inked in a coloured frame, tell its colour, if as inked as that
USUAL = 1e6  # squared levels, a hundred pixels or so, that speak for what the whole line tells against one step of depth
# Up to this short side lines are compared. So dark is a line of a coloured frame, of 255. The drawing's must lie on this share of
# them, in surroundings of so much of the height, and this share of the drawing's ink must have such surroundings.
SEEN, DARK, AGREED, AROUND, ENOUGH = 480, 100, 0.8, 0.05, 0.2
PALEST = 0.25  # a coloured frame that shows less of the ink has no lines or others, and does not say how they look
BESIDE = 2.0  # so far beside the ink its lines may lie, in pixels of a 480-line picture, and count
AS_GOOD, ALIKE = 1.25, 10  # so much larger may the squared error of a kind of ink, left as it is, be, and by so many levels
MOST_SHOWN = 3.0  # times its opacity
# Levels by which a line of a reference is darker than its fill, pixels of that which tell its colour, and the share of them that
# may be darker than it. Ink that is as near to it, in levels, stays as it is; colours as near as `SAME` are of one ink. Up to
# `PICTURED` pixels of its long side are looked at.
PICTURED = 1440
LINED, FEW, CORE, NEAR, SAME = 40, 60, 20, 24, 40
OUTLINE = 3.0  # so far around a figure, in pixels of a 480-line picture, lines may be its own


@dataclass(frozen=True, slots=True, eq=False)
class Strokes:
    """How lines are to look, in one or several ways.

    colours: of ink of each of the `KINDS`, float32 (ways, n, 3) in 0..255, NaN = as it is. shares: how much of its opacity shows,
    by how much ink is around, of 255, float32 (ways, n, 256): strokes of a sketch may be thicker than finished ones, and end
    before their own rim, or pale pencil, and be more. ways: of each label; another has the first. places: labels of what is
    behind figures, whose outlines may lie on it.
    """

    colours: Float[np.ndarray, "ways n 3"]
    shares: Float[np.ndarray, "ways n 256"]
    ways: Mapping[int, int] = field(default_factory=dict)
    places: Collection[int] = ()

    @staticmethod
    def of(
        shot: Shot,
        lines: Mapping[int, UInt8[np.ndarray, "y x"]],
        drawings: Sequence[UInt8[np.ndarray, "y x 3"]],
        of_frame: Sequence[int],
        present: Sequence[int] = (),
    ) -> "Strokes | None":
        """What a shot's references tell of its lines; None = nothing, or that they stay as they are.

        lines: of those references by number that show a whole frame, as large as the drawings. of_frame: drawing of each frame.
        present: the labels that the shot's label video holds.
        """
        told = _first(_told(*pair) for pair in _pairs(shot, frames_of(shot, lines), lines, drawings, of_frame))
        if told is not None:
            return told.strokes
        places = _places(shot, lines, drawings, of_frame, present)
        most = of_frame.index(int(np.argmin([drawing.mean() for drawing in drawings])))
        return _coloured(shot, present, Ink.of(shot.sketch[most : most + 1][0]), places)

    def over(self, ink: Ink, fills: UInt8[np.ndarray, "h w 3"], labels: np.ndarray | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """The ink on top of the fills. labels: integers (h, w)."""
        at = np.flatnonzero(ink.opacity)
        (kind, depth), way = _looked_at(ink, at), np.zeros(len(at), np.intp)
        if labels is not None and self.ways:
            way = self._ways(labels).ravel()[at]
        colour, own = self.colours[way, kind], ink.own(at)
        colour = np.where(np.isnan(colour), own, colour)
        share = np.minimum(ink.opacity.ravel()[at] * self.shares[way, kind, depth], 1)[:, None]
        below = fills.reshape(-1, 3)[at]
        out = fills.copy()
        out.reshape(-1, 3)[at] = (below + share * (colour - below) + 0.5).astype(np.uint8)
        return out

    def _ways(self, labels: np.ndarray) -> Int[np.ndarray, "h w"]:
        """The way of each pixel; figures reach as far onto the place as their outlines may."""
        behind, found = np.isin(labels, list(self.places)).astype(np.uint8), np.zeros(labels.shape, np.int32)
        side = 2 * round(OUTLINE * max(1.0, min(labels.shape) / 480)) + 1
        for label in sorted(self.ways, key=lambda label: label not in self.places):
            mine = (labels == label).astype(np.uint8)
            if label not in self.places:
                mine |= cv2.bitwise_and(cv2.dilate(mine, np.ones((side, side), np.uint8)), behind)
            found[mine > 0] = self.ways[label]
        return found


class _Pair(NamedTuple):
    """A coloured picture, the drawing that it may be of, uint8 (h, w, 3), and where it may be seen, bool (h, w)."""

    coloured: np.ndarray
    drawing: np.ndarray
    within: np.ndarray | None = None


def _pairs(
    shot: Shot,
    which: Sequence[int],
    lines: Mapping[int, np.ndarray],
    drawings: Sequence[np.ndarray],
    of_frame: Sequence[int],
    mine: Sequence[int] | None = None,
) -> Iterator[_Pair]:
    """The likeliest pairs of some of the references with a drawing. mine: labels within which pictures may be seen."""
    height = shot.sketch.shape[1]
    sharp = [r for r in which if len(shot.references[r].image) >= SHARP * height]
    likely = [(off, r, at) for r in sharp for at, off in enumerate(standing(lines[r], drawings))]
    for _, r, at in sorted(likely)[:TRIED]:
        frame, within = of_frame.index(at), None
        if mine is not None:
            assert shot.labels is not None
            area = np.isin(np.asarray(shot.labels.video[frame : frame + 1])[0], mine)
            side = 2 * round(OUTLINE * max(1.0, height / 480)) + 1
            within = cv2.erode(area.astype(np.uint8), np.ones((side, side), np.uint8), borderValue=1) > 0
        yield _Pair(shot.references[r].image, shot.sketch[frame : frame + 1][0], within)


class _Told(NamedTuple):
    """What a pair tells; None = that lines stay as they are."""

    strokes: Strokes | None


def _first(found: Iterable[_Told | None]) -> _Told | None:
    return next((told for told in found if told is not None), None)


def _told(coloured: np.ndarray, drawing: np.ndarray, within: np.ndarray | None = None) -> _Told | None:
    """What a coloured picture tells of the lines of a drawing; None = nothing: it may be of another. See `_Pair`."""
    height, width = drawing.shape[:2]
    if coloured.shape != drawing.shape:
        how = cv2.INTER_AREA if len(coloured) > height else cv2.INTER_CUBIC
        coloured = cv2.resize(coloured, (width, height), interpolation=how)
    ink = Ink.of(drawing)
    inked = ink.opacity > GRAIN if within is None else (ink.opacity > GRAIN) & within
    lines = _lines(coloured)
    seen = inked & _agreed(lines, ink.opacity)
    if seen.sum() < max(FEW, ENOUGH * inked.sum()):
        return None
    over = cv2.resize(lines, (width, height), interpolation=cv2.INTER_LINEAR)
    fills = without_lines(coloured, np.where(ink.opacity > GRAIN, np.uint8(255), over))
    at = np.flatnonzero(seen)
    strokes, shown = _fitted(ink, coloured, fills, at)
    if shown <= PALEST:
        return None
    truth = coloured.reshape(-1, 3)[at].astype(np.float32)
    off, left = (np.square(drawn.reshape(-1, 3)[at] - truth).sum(axis=1) for drawn in (strokes.over(ink, fills), ink.over(fills)))
    kind = _folded(_looked_at(ink, at)[0])
    off, left, count = (np.bincount(kind, x, KINDS - HUES) for x in (off, left, np.ones(len(at))))
    as_good = (left <= AS_GOOD * off + 3 * ALIKE**2 * count) | (count < FEW)
    if as_good.all():
        return _Told(None)
    as_good = np.concatenate([as_good, as_good[HUES:]])
    strokes.colours[0, as_good], strokes.shares[0, as_good] = np.nan, 1
    return _Told(strokes)


def _folded(kind: np.ndarray) -> np.ndarray:
    """Kinds of ink, black areas taken for heavy ink: what a coloured frame shows of them tells itself."""
    return np.where(kind >= 2 * HUES, kind - HUES, kind)


def _lines(coloured: np.ndarray) -> UInt8[np.ndarray, "y x"]:
    """`reference_lines` of a coloured frame, at the size at which they are compared."""
    height, width = coloured.shape[:2]
    scale = min(1.0, SEEN / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return reference_lines(cv2.resize(coloured, size, interpolation=cv2.INTER_AREA))


def _agreed(lines: np.ndarray, opacity: np.ndarray) -> Bool[np.ndarray, "h w"]:
    """Where a coloured frame has lines, and the drawing has ink on them."""
    own = cv2.resize(opacity, lines.shape[::-1], interpolation=cv2.INTER_AREA)
    lined = (lines > DARK).astype(np.float32)
    on = lined * cv2.dilate((own >= LINE).astype(np.uint8), np.ones((3, 3), np.uint8))
    side = 2 * round(AROUND * len(lines)) + 1
    there, met = (cv2.blur(x, (side, side)) for x in (lined, on))
    agreed = (there * side * side > 1) & (met > AGREED * there)
    return cv2.resize(agreed.astype(np.uint8), opacity.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0


def _fitted(ink: Ink, coloured: np.ndarray, fills: np.ndarray, at: np.ndarray) -> tuple[Strokes, float]:
    """Colours and shares that lay the ink on the fills as the coloured frame has it at some pixels, and the share of it there."""
    (kind, depth), opacity = _looked_at(ink, at), ink.opacity.ravel()[at]
    kind, kinds = _folded(kind), KINDS - HUES
    picture, below = (x.reshape(-1, 3)[at].astype(np.float32) for x in (coloured, fills))
    colours = np.full((kinds, 3), np.nan, np.float32)
    own = ink.own(at)
    inked = ((picture - below) * (own - below)).sum(1) / np.maximum(np.square(own - below).sum(1), 1)
    for k in np.unique(kind):
        mine = np.flatnonzero(kind == k)
        core = mine[inked[mine] >= np.quantile(inked[mine], 1 - MOST)]
        if inked[core].mean() > THERE:
            colours[k] = np.median(picture[core], axis=0)
    colour = np.where(np.isnan(colours[kind]), own, colours[kind])
    towards = opacity[:, None] * (colour - below)
    step = np.minimum(depth.astype(np.int64) * DEPTHS // 256, DEPTHS - 1) + DEPTHS * kind
    came, whole = (
        np.bincount(step, (x * towards).sum(1), kinds * DEPTHS).reshape(kinds, DEPTHS) for x in (picture - below, towards)
    )
    usual = ((came.sum(1) + USUAL) / (whole.sum(1) + USUAL))[:, None]
    steps = np.clip((came + USUAL * usual) / (whole + USUAL), 0, MOST_SHOWN)
    middles = (np.arange(DEPTHS) + 0.5) * 256 / DEPTHS - 0.5
    shares = np.stack([np.interp(np.arange(256), middles, row) for row in steps]).astype(np.float32)
    shown = _darkened(ink, coloured, fills, at, np.median(colour, axis=0))
    laid = float(np.minimum(opacity * shares[kind, depth], 1).sum() / opacity.sum())
    shares = np.maximum(shares, np.minimum(shares * (shown / max(laid, 1e-3)), 1))
    colours, shares = (np.concatenate([x, x[HUES:]])[None] for x in (colours, shares))
    return Strokes(colours, shares), shown


def _darkened(ink: Ink, coloured: np.ndarray, fills: np.ndarray, at: np.ndarray, colour: np.ndarray) -> float:
    """How much the lines of a coloured frame darken its fills at and beside the ink, as a share of what the ink would."""
    unit = max(1.0, min(ink.opacity.shape) / 480)
    side = 2 * round(BESIDE * unit) + 1
    seen = np.zeros(ink.opacity.shape, np.uint8)
    seen.ravel()[at] = 1
    near = np.flatnonzero(cv2.dilate(seen, np.ones((side, side), np.uint8)))

    def towards(where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        way = colour - fills.reshape(-1, 3)[where]
        far = np.linalg.norm(way, axis=1)
        return way / np.maximum(far, 1e-3)[:, None], far

    moved = coloured.reshape(-1, 3)[near].astype(np.float32) - fills.reshape(-1, 3)[near]
    return float((moved * towards(near)[0]).sum() / max(float((ink.opacity.ravel()[at] * towards(at)[1]).sum()), 1e-3))


def _looked_at(ink: Ink, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which kind of ink lies at pixels (flat indices), however thin, and how much is around each, of 255."""
    sheen = np.minimum(ink.sketch.reshape(-1, 3)[at] / ink.paper, 1)
    low, high = sheen.min(axis=1), sheen.max(axis=1)
    hue = np.where(high - low > HUED * (1 - low), 1 + sheen.argmax(axis=1), 0)
    unit = max(1.0, min(ink.opacity.shape) / 480)
    cover = (ink.opacity * 255 + 0.5).astype(np.uint8)
    near, far = (cv2.GaussianBlur(cover, (0, 0), sigma * unit).ravel()[at] for sigma in (DEEP, WIDE))
    size = round(cover.shape[1] / unit), round(cover.shape[0] / unit)
    small = cv2.resize(cover, size, interpolation=cv2.INTER_AREA) if unit > 1 else cover
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(WIDE) + 1,) * 2)
    area = cv2.morphologyEx((small > 127).astype(np.uint8), cv2.MORPH_OPEN, disc)
    area = cv2.resize(area, cover.shape[::-1], interpolation=cv2.INTER_NEAREST).ravel()[at] > 0
    return hue + HUES * ((far > HEAVY) * (1 + area)), near


def _places(
    shot: Shot,
    lines: Mapping[int, np.ndarray],
    drawings: Sequence[np.ndarray],
    of_frame: Sequence[int],
    present: Sequence[int],
) -> dict[int, Strokes]:
    """What plates tell of the lines of the place, each by the labels that name it alone."""
    found: dict[int, Strokes] = {}
    if shot.labels is None:
        return found
    for number in (r for r in lines if shot.references[r].role == "background"):
        mine = [label for label in present if shot.labels.references_of(label) == (number,)]
        if mine:
            told = _first(_told(*pair) for pair in _pairs(shot, [number], lines, drawings, of_frame, mine))
            if told is not None and told.strokes is not None:
                found |= dict.fromkeys(mine, told.strokes)
    return found


def _coloured(shot: Shot, present: Sequence[int], ink: Ink, places: Mapping[int, Strokes]) -> Strokes | None:
    """Neutral ink, but for black areas, in the colour of the references' lines, label by label.

    ink: of a drawing. places: what is known of labels of the place; what is drawn in the same ink is as strong.
    """
    # Lines of a plate are thin and few, and patterns many: it tells by its drawing alone.
    unknown = 0, np.zeros(3)
    own = [unknown if reference.role == "background" else _ink_colour(reference) for reference in shot.references]
    groups = [list(range(len(own)))]
    ways = {} if shot.labels is None else dict.fromkeys(sorted(present), 0)
    for label in ways:
        assert shot.labels is not None
        ways[label] = len(groups)
        groups.append([r for r in shot.labels.references_of(label) if r < len(own)])
    dark = ink.own(np.flatnonzero(ink.opacity >= 1))
    usual = np.median(dark, axis=0) if len(dark) else np.zeros(3)
    colours = np.full((len(groups), KINDS, 3), np.nan, np.float32)
    shares = np.ones((len(groups), KINDS, 256), np.float32)
    for way, group in enumerate(groups):
        count, colour = max((own[r] for r in group), key=lambda x: x[0], default=unknown)
        if count < FEW:
            continue
        same = [place for place in places.values() if (np.abs(place.colours[0] - colour).max(axis=1) <= SAME).any()]
        if same:
            shares[way] = same[0].shares[0]
        if same or np.abs(colour - usual).max() > NEAR:
            colours[way, : 2 * HUES : HUES] = colour
    for label, place in places.items():
        colours[ways[label]], shares[ways[label]] = place.colours[0], place.shares[0]
    behind = {label for label, way in ways.items() if all(shot.references[r].role == "background" for r in groups[way])}
    return None if np.isnan(colours).all() else Strokes(colours, shares, ways, behind)


def _ink_colour(reference: Reference) -> tuple[int, Float[np.ndarray, " 3"]]:
    """The colour of a reference's drawn lines, in 0..255, and how many pixels in the middle of lines tell it."""
    image, alpha = reference.over(255), reference.alpha
    scale = min(1.0, PICTURED / max(image.shape[:2]))
    if scale < 1:
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        alpha = None if alpha is None else cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
    reach = max(2, round(max(image.shape[:2]) / 200))
    # Closing paints over thin dark lines, and leaves borders of fills as they are.
    closed = cv2.morphologyEx(image, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2))
    light = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    middle = (largest(cv2.subtract(closed, image)) > LINED) & (light <= cv2.erode(light, np.ones((5, 5), np.uint8)))
    if alpha is not None:
        middle &= cv2.erode(alpha, np.ones((3, 3), np.uint8)) > 200
    count = int(middle.sum())
    return count, np.percentile(image[middle], CORE, axis=0) if count else np.zeros(3)
