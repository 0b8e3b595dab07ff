"""How references show lines, and the sketch's own laid on the fills that way: in which colour, how strong, and whether at all.

A coloured frame of a shot was drawn on one of its drawings. Side by side they tell what becomes of a line: it may be brown, finer
or paler than in the sketch, or go, as coloured trace lines do. A plate tells the same of the place that labels name it for. Other
references tell the colour, and between which of their fills they have no line. Where lines lie is the sketch's.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np

from timecolor.finish.between import Between, Picture, Sides
from timecolor.finish.ink import GRAIN, LINE, Ink
from timecolor.finish.pixels import largest
from timecolor.pairing import frames_of
from timecolor.propagation import standing
from timecolor.shapes import Bool, Float, Int, UInt8
from timecolor.shot import Reference, Shot
from timecolor.sketch import reference_lines, without_lines

HUED = 0.3  # ink is red, green or blue where its channels differ by this share of its darkness
# How opaque a line is tells the ink at a pixel and around, so widely, in pixels of a 480-line picture, and so far beside: these,
# their products and one, of which ink as it is needs the first alone. So many pixels, as it were, speak for that.
WIDTHS, RIM, AS_IS, USUAL = (0.6, 1.0, 2.0), 2.0, np.eye(15, dtype=np.float32)[0], 3.0
WIDE, HEAVY = 3.0, 160  # it is heavy ink, a pupil or where lines meet, where, so far around, this much of 255 is ink
HUES, KINDS = 4, 12  # neutral, red, green and blue lines, then heavy ink, then black areas, which hold a disc so far around
TRIED = 3  # pairs of a coloured frame and a drawing that it may be of, the likeliest first, till one tells
SHARP = 0.7  # a coloured frame of less than this share of the sketch's size is too soft to tell how strong its lines are
MOST, THERE = 0.05, 0.25  # so many of the pixels of ink, the most inked in a coloured frame, tell its colour, if as inked as that
# Rounds of what lines usually show, and which ink is not the frame's and does not tell: so far around, in pixels of a 480-line
# picture, less than this share of that shows. Where so much of a drawing's ink has the frame's lines around, at least, it is the
# frame's own, and tells which lines it does not show.
ROUNDS, NEARBY, MET, OWN = 2, 3.0, 0.6, 0.7
# Up to this short side lines are compared. So dark is a line of a coloured frame, of 255. The drawing's must lie on this share of
# them, in surroundings of so much of the height, and this share of the drawing's ink must have such surroundings.
SEEN, DARK, AGREED, AROUND, ENOUGH = 480, 100, 0.8, 0.05, 0.2
PALEST = 0.25  # a coloured frame that shows less of the ink has no lines or others, and does not say how they look
BESIDE = 2.0  # so far beside the ink its lines may lie, in pixels of a 480-line picture, and count
AS_GOOD, ALIKE = 1.25, 10  # so much larger may the squared error of a kind of ink, left as it is, be, and by so many levels
# Levels by which a line of a reference is darker than its fill, pixels of that which tell its colour, and the share of them that
# may be darker than it. Ink that is as near to it, in levels, stays as it is; colours as near as `SAME` are of one ink. Up to
# `PICTURED` pixels of its long side are looked at.
PICTURED = 1440
LINED, FEW, CORE, NEAR, SAME = 40, 60, 20, 24, 40
OUTLINE = 3.0  # so far around a figure, in pixels of a 480-line picture, lines may be its own


@dataclass(frozen=True, slots=True, eq=False)
class Strokes:
    """How lines are to look, in one or several ways.

    colours: of ink of each of the `KINDS`, float32 (ways, n, 3) in 0..255, NaN = as it is. weights: of ink of each, float32
    (ways, n, k), how opaque a line is, told by the ink at a pixel and around: strokes of a sketch may be thicker than finished
    ones, and end before their own rim, or pale pencil, and be more. between: of each way, how much of that shows by the
    fills on either side; None = all. ways: of each label; another has the first. places: labels of what is behind figures, whose
    outlines may lie on it.
    """

    colours: Float[np.ndarray, "ways n 3"]
    weights: Float[np.ndarray, "ways n k"]
    between: Sequence[Between | None]
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
        inked = _Inked.of(ink)
        way = np.zeros(len(inked.at), np.intp)
        if labels is not None and self.ways:
            way = self._ways(labels).ravel()[inked.at]
        colour, told = inked.coloured(self.colours[way, inked.kind])
        share = told * np.einsum("nk,nk->n", inked.around, self.weights[way, inked.kind]).clip(0, 1)
        for between in {id(between): between for between in self.between if between is not None}.values():
            mine = np.array([one is between for one in self.between])[way]
            share[mine] *= between.shown(fills, ink.opacity).ravel()[inked.at[mine]]
        below = fills.reshape(-1, 3)[inked.at]
        out = fills.copy()
        out.reshape(-1, 3)[inked.at] = (below + share.clip(max=1)[:, None] * (colour - below) + 0.5).astype(np.uint8)
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


class _Inked(NamedTuple):
    """Pixels, n, of ink and beside it, by flat index.

    kind: (n,). around: float32 (n, k), see `WIDTHS`. own: the ink's colour, float32 (n, 3), in 0..255. bare: bool (n,), those
    without any ink.
    """

    at: np.ndarray
    kind: np.ndarray
    around: np.ndarray
    own: np.ndarray
    bare: np.ndarray

    @staticmethod
    def of(ink: Ink, within: Bool[np.ndarray, "h w"] | None = None) -> "_Inked":
        """within: of these pixels, and beside them; None = of all."""
        unit = max(1.0, min(ink.opacity.shape) / 480)
        rim = np.ones((2 * round(RIM * unit) + 1,) * 2, np.uint8)
        some = ink.opacity > 0 if within is None else (ink.opacity > 0) & within
        at = np.flatnonzero(cv2.dilate(some.view(np.uint8), rim))
        opacity = ink.opacity.ravel()[at]
        cover = (ink.opacity * 255 + 0.5).astype(np.uint8)
        wide = [cv2.GaussianBlur(cover, (0, 0), sigma * unit).ravel()[at] / np.float32(255) for sigma in WIDTHS]
        one = [opacity, *wide]
        products = [one[i] * one[j] for i in range(len(one)) for j in range(i, len(one))]
        around = np.stack([*one, *products, np.ones_like(opacity)], axis=1)
        # Beside ink it has the ink's hue.
        shade = np.where(opacity[:, None] <= GRAIN, cv2.erode(ink.sketch, rim).reshape(-1, 3)[at], ink.sketch.reshape(-1, 3)[at])
        sheen = np.minimum(shade / ink.paper, 1)
        low, high = sheen.min(axis=1), sheen.max(axis=1)
        hue = np.where(high - low > HUED * (1 - low), 1 + sheen.argmax(axis=1), 0)
        far = cv2.GaussianBlur(cover, (0, 0), WIDE * unit).ravel()[at]
        size = round(cover.shape[1] / unit), round(cover.shape[0] / unit)
        small = cv2.resize(cover, size, interpolation=cv2.INTER_AREA) if unit > 1 else cover
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(WIDE) + 1,) * 2)
        area = cv2.morphologyEx((small > 127).astype(np.uint8), cv2.MORPH_OPEN, disc)
        area = cv2.resize(area, cover.shape[::-1], interpolation=cv2.INTER_NEAREST).ravel()[at] > 0
        return _Inked(at, hue + HUES * ((far > HEAVY) * (1 + area)), around, ink.own(at), opacity == 0)

    def coloured(self, colours: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "n 3"], Bool[np.ndarray, " n"]]:
        """Each pixel's colour, its own where it is to have none (NaN), and whether it has any: beside ink there is no own one."""
        unknown = np.isnan(colours[:, 0])
        return np.where(unknown[:, None], self.own, colours), ~(unknown & self.bare)


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
    rim = np.ones((2 * round(max(1.0, min(height, width) / 480)) + 1,) * 2, np.uint8)
    fills = without_lines(coloured, np.where(cv2.dilate((ink.opacity > GRAIN).view(np.uint8), rim) > 0, over, np.uint8(0)))
    near = _Inked.of(ink, seen)
    strokes, shown = _fitted(ink, coloured, fills, near, seen, bool(seen.sum() >= OWN * inked.sum()))
    if shown <= PALEST:
        return None
    truth, mine = coloured.reshape(-1, 3)[near.at].astype(np.float32), ink.opacity.ravel()[near.at] > GRAIN
    made = strokes.over(ink, fills), ink.over(fills)
    off, left = (np.square(picture.reshape(-1, 3)[near.at] - truth).sum(axis=1) for picture in made)
    off, left, count = (np.bincount(near.kind, x, KINDS) for x in (off, left, mine))
    as_good = (left <= AS_GOOD * off + 3 * ALIKE**2 * count) | (count < FEW)
    if as_good.all():
        return _Told(None)
    strokes.colours[0, as_good], strokes.weights[0, as_good] = np.nan, AS_IS
    return _Told(strokes)


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


def _fitted(
    ink: Ink, coloured: np.ndarray, fills: np.ndarray, near: _Inked, seen: Bool[np.ndarray, "h w"], own: bool
) -> tuple[Strokes, float]:
    """What lays the ink on the fills as the coloured frame has it where it is seen, and the share of it that shows there.

    near: what is seen, and beside it. own: what is seen there is that ink; else a line that the frame has not may be another
    drawing's.
    """
    picture, below = (x.reshape(-1, 3)[near.at].astype(np.float32) for x in (coloured, fills))
    kind, mine = near.kind, seen.ravel()[near.at]
    colours = np.full((KINDS, 3), np.nan, np.float32)
    inked = ((picture - below) * (near.own - below)).sum(1) / np.maximum(np.square(near.own - below).sum(1), 1)
    for k in np.unique(kind[mine]):
        of_kind = np.flatnonzero(mine & (kind == k))
        core = of_kind[inked[of_kind] >= np.quantile(inked[of_kind], 1 - MOST)]
        if inked[core].mean() > THERE:
            colours[k] = np.median(picture[core], axis=0)
    colour, told = near.coloured(colours[kind])
    towards = (colour - below) * told[:, None]
    # How opaque the frame's line is at each pixel, and how much that counts.
    far = np.square(towards).sum(axis=1)
    opaque = ((picture - below) * towards).sum(axis=1) / np.maximum(far, 1)
    # A black area of the sketch that is one of the fills is all there.
    area = (kind >= 2 * HUES) & (far < SAME**2)
    opaque[area], far[area] = 1, float(far.mean())
    weights, between, sides = np.tile(AS_IS, (KINDS, 1)), None, Sides.of(fills, ink.opacity)
    showing = met = np.ones(len(near.at), np.float32)
    for _ in range(ROUNDS):
        for k in np.unique(kind[told]):
            of_kind = (kind == k) & told
            counts = (far * showing)[of_kind] / max(float(far[of_kind].mean()), float(far[told].mean()) / 10, 1e-6)
            if counts @ met[of_kind] > counts.sum() / 2:  # else this ink goes
                counts *= met[of_kind]
            around = near.around[of_kind].astype(np.float64)
            left = opaque[of_kind] - showing[of_kind] * (around @ AS_IS)
            normal = (around * (counts * showing[of_kind])[:, None]).T @ around + USUAL * np.eye(len(AS_IS))
            weights[k] = AS_IS + np.linalg.solve(normal, around.T @ (counts * left))
        usual = np.einsum("nk,nk->n", near.around, weights[kind]).clip(0, 1)
        came, whole = far * usual * opaque, far * usual**2
        met = (_around(came, near.at, ink) >= MET * _around(whole, near.at, ink)).astype(np.float32)
        if own:
            between = Between.of(sides, near.at[mine], came[mine], whole[mine])
            showing = between.along(sides).ravel()[near.at]
    strokes = Strokes(colours[None], weights[None], [between])
    at, middle = near.at[mine], np.median(colour[mine], axis=0)
    shown, laid = (_darkened(ink, made, fills, at, middle) for made in (coloured, strokes.over(ink, fills)))
    strokes.weights[:] *= max(1.0, shown / max(laid, 1e-3))
    return strokes, shown


def _around(values: np.ndarray, at: np.ndarray, ink: Ink) -> np.ndarray:
    """The mean of values at pixels (flat indices) near each."""
    field = np.zeros(ink.opacity.shape, np.float32)
    field.ravel()[at] = values
    side = 2 * round(NEARBY * max(1.0, min(field.shape) / 480)) + 1
    return cv2.blur(field, (side, side)).ravel()[at]


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
    weights = np.tile(AS_IS, (len(groups), KINDS, 1))
    between: list[Between | None] = [None] * len(groups)
    of_group: dict[tuple[int, ...], Between | None] = {}
    for way, group in enumerate(groups):
        count, colour = max((own[r] for r in group), key=lambda x: x[0], default=unknown)
        if count < FEW:
            continue
        same = [place for place in places.values() if (np.abs(place.colours[0] - colour).max(axis=1) <= SAME).any()]
        if same:
            weights[way] = same[0].weights[0]
        if same or np.abs(colour - usual).max() > NEAR:
            colours[way, : 2 * HUES : HUES] = colour
        drawn = tuple(r for r in group if own[r][0] >= FEW)
        if drawn not in of_group:
            of_group[drawn] = Between.pictured([_picture(shot.references[r]) for r in drawn], colour)
        between[way] = of_group[drawn]
    for label, place in places.items():
        way = ways[label]
        colours[way], weights[way], between[way] = place.colours[0], place.weights[0], place.between[0]
    behind = {label for label, way in ways.items() if all(shot.references[r].role == "background" for r in groups[way])}
    plain = np.isnan(colours).all() and not any(between)
    return None if plain else Strokes(colours, weights, between, ways, behind)


def _ink_colour(reference: Reference) -> tuple[int, Float[np.ndarray, " 3"]]:
    """The colour of a reference's drawn lines, in 0..255, and how many pixels in the middle of lines tell it."""
    image, alpha = _pictured(reference)
    reach = max(2, round(max(image.shape[:2]) / 200))
    # Closing paints over thin dark lines, and leaves borders of fills as they are.
    closed = cv2.morphologyEx(image, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2))
    light = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    middle = (largest(cv2.subtract(closed, image)) > LINED) & (light <= cv2.erode(light, np.ones((5, 5), np.uint8)))
    if alpha is not None:
        middle &= cv2.erode(alpha, np.ones((3, 3), np.uint8)) > 200
    count = int(middle.sum())
    return count, np.percentile(image[middle], CORE, axis=0) if count else np.zeros(3)


def _picture(reference: Reference) -> Picture:
    image, alpha = _pictured(reference)
    seen = np.ones(image.shape[:2], bool) if alpha is None else cv2.erode(alpha, np.ones((3, 3), np.uint8)) > 200
    return Picture(image, without_lines(image, None, alpha), seen)


def _pictured(reference: Reference) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"] | None]:
    """A reference on white, and its alpha, as large as it is looked at."""
    image, alpha = reference.over(255), reference.alpha
    scale = min(1.0, PICTURED / max(image.shape[:2]))
    if scale == 1:
        return image, alpha
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    image, alpha = (None if x is None else cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (image, alpha))
    assert image is not None
    return image, alpha
