"""Coarse colours from a model + the artist's line art → the final frame, at the sketch's own size.

The model says which colour an area has, the sketch says where the area ends. Closed regions of the sketch take one colour each:
the one that explains the model's cells best, a cell that straddles regions being taken as their mixture. Where a region's colours
really vary, what one colour leaves unexplained is spread up to its lines and never across. The lines are the sketch's own, never
redrawn. Pure functions of one frame.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np

from timecolor.choice import PLATE, SOURCES, Choose, Offers
from timecolor.propagation import Way, fetched, resized, warp
from timecolor.shapes import Bool, Float, UInt8
from timecolor.shot import Labels, Reference, Shot
from timecolor.sketch import reference_lines, without_lines

Lines = Literal["keep", "model", "none"]
Fill = Literal["flat", "smooth", "auto"]
PaletteMode = Literal["snap", "free"]


@dataclass(frozen=True, slots=True)
class FinishOptions:
    """How the final frame is made.

    lines: "keep" = the sketch's own lines on top; "none" = the colour layer alone; "model" = the model's picture, only resized.
    fill: "flat" = one colour a region; "smooth" = colours vary inside every region; "auto" = only where they vary beyond noise.
    palette: "snap" = a region near a flat colour of its references takes exactly that colour; "free" = colours stay as found.
    """

    lines: Lines = "keep"
    fill: Fill = "auto"
    palette: PaletteMode = "snap"


DEFAULT = FinishOptions()

# Sketch: opacity below GRAIN is paper grain and compression noise, from LINE on a pixel parts regions.
GRAIN = 0.06
LINE = 0.25
# Half-widths of the gaps in lines that stay closed, in pixels of a 480-line picture, widest first; 0 lets narrow regions in.
GAPS = (2.0, 1.0, 0.0)
# Up to this many pixels of a 480-line picture, free spots are holes in a rough line, no regions, and inked ones specks, no lines.
HOLE = 6.0
SPECK = 8.0

# Blurs of the model's picture that are tried, standard deviation in cells; weights of the window that tells what is well inside.
BLURS = (0.0, 0.6, 1.0)
WINDOW = (0.239, 0.522, 0.239)
# A cell this far (RGB, 0..1) from what its regions' colours explain is doubted: the model is wrong there.
OUTLIER = 0.2
# What a region's vote weighs against the cells it is mixed in: in flat art, in painted art, and more for each cell well inside.
HOLD = 0.15
HOLD_PAINTED = 3.0
HOLD_INSIDE = 0.3

# CIE Lab distance up to which a region takes a palette's colour, or the white of bare paper.
SNAP = 8.0
SNAP_WHITE = 3.0
# Spread of colours (CIE Lab) inside a region from which it is shaded, alone and as a multiple of the frame's noise. A region
# whose colour is no flat colour of its references is believed sooner.
VARIES, VARIES_NOISE = 2.5, 2.8
STRAY_VARIES, STRAY_NOISE = 1.0, 1.5
# Levels by which the model's colours and a plate may differ, cell by cell, to be fully the same, and from which they are not.
SAME, OTHER = 6.0, 16.0
# A reference with less than this share of flat colours is painted and has no palette; from this share on it is flat all over.
FLAT_ART = 0.15
COMPLETE = 0.9
# Up to this share of the frame, and if so much of it is so near to its colour (Lab), a region is closed, and of one flat colour.
SMALL, MOSTLY, NEAR = 0.05, 0.6, 25.0
# Up to this share of the frame a region is offered colours besides its own; votes where so much of it is known.
OFFERED, KNOWN = 0.05, 0.3
# Pixels of such regions that are looked at, about.
LOOKED_AT = 400_000
# A region of at least this share of the frame that takes a plate's colour, but has less than so much of it there, is not flat.
WIDE, MIXED = 0.002, 0.6
# A plate beside the model's colours: levels, at most, that a cell counts; cells that "around" is; misfit where none is told.
APART, AROUND, UNTOLD = 64.0, 1.5, 0.2
# So near to the sketch's lines, in pixels of a 480-line picture, the lines of a picture that is known to be seen are not wanted.
# What darkness of its lines counts, of 255, and up to which short side they are looked for.
OVER, OWN_LINE, LINES_SEEN = 3.0, 40, 480
# CIE Lab distance over which colours count as one another's.
ALIKE = 10.0
# From what part of a vote on one colour is taken alone, below which it is mixed with the others; and how softly.
SURE, SOFT = 0.3, 0.08


def finish(
    colours: np.ndarray,
    sketch: np.ndarray,
    options: FinishOptions = DEFAULT,
    palette: "Palette | None" = None,
    labels: np.ndarray | None = None,
    palettes: "Mapping[int, Palette] | None" = None,
    plates: Sequence["Plate"] = (),
    votes: Sequence["Vote"] = (),
    choose: Choose | None = None,
    placed: Sequence["Placed"] = (),
) -> np.ndarray:
    """The final frame, uint8 (h, w, 3).

    colours: float (h', w', 3) in [0, 1], any size; fills as if no lines were there. sketch: uint8 (h, w, 3).
    palette: of all references, None = not known. labels: integers (h, w), None = none.
    palettes: label -> its palette; a region of a label named here snaps to that palette alone, any other to `palette`.
    plates: pictures that show the place; where the fills agree with one, its detail is taken.
    votes: on the colours of small regions, which `colours` mixes with those around them; of areas that do not overlap, all of one
    grid. choose: between a region's own colour, votes and plates; None = its own.
    placed: pictures that are known to be seen; not where flat fills are asked for.
    """
    h, w = sketch.shape[:2]
    if options.lines == "model":
        how = cv2.INTER_AREA if h < colours.shape[0] or w < colours.shape[1] else cv2.INTER_CUBIC
        return _uint8(cv2.resize(colours.astype(np.float32), (w, h), interpolation=how))
    ink = _Ink.of(sketch)
    areas = regions_in(ink.opacity)
    cells = _Cells.of(_coarse(colours, h, w), areas)
    bound = list(_bound(areas, cells.areas, palette, labels, palettes or {}))
    stray, painted = np.zeros(cells.areas, bool), np.zeros(cells.areas, bool)
    for mine, known in bound:
        painted[mine] = not len(known.colours)
    found, blur = cells.unmix(painted)
    sure, patterned = np.zeros(cells.areas, bool), np.zeros(cells.areas, bool)
    if choose is not None and (votes or plates):
        offers = _offers(found, cells, areas, ink.opacity, plates, labels, votes)
        chosen = choose(offers)
        other = chosen > 0
        found[offers.regions[other]] = offers.colours[other, chosen[other]]
        sure[offers.regions[other]] = True
        mixed = other & (offers.most[np.arange(len(chosen)), chosen] < MIXED) & (chosen >= PLATE) & (offers.size >= WIDE)
        patterned[offers.regions[mixed]] = True
    flat = _uint8(found)
    for mine, known in bound:
        snapped, stray[mine] = _snap(flat[mine], known.colours)
        if known.complete:
            closed = mine[cells.closed(found)[mine]]
            stray[closed], sure[closed] = False, True
            patterned[mine] = False
        if options.palette == "snap":
            flat[mine] = snapped
    fills = _painted(flat, areas)
    loose = stray | painted | patterned  # regions that are not one flat colour
    if options.fill == "auto":
        shading = cells.shading(found, blur)
        varying = shading.varying(stray, painted)
        varying = varying[~sure[varying]]  # where references are flat all over, what varies is the model's doubt
        shading.paint(fills, areas, varying)
        loose[varying] = True
    elif options.fill == "smooth":
        cells.shading(found, blur).paint(fills, areas, np.arange(cells.areas))
        loose[:] = True
    if plates and options.fill != "flat":
        _take_detail(fills, np.clip(colours, 0, 1), plates, loose[areas], labels)
    if placed and options.fill != "flat":
        near = 2 * round(OVER * h / 480) + 1
        bare = cv2.dilate((ink.opacity > GRAIN).astype(np.uint8), np.ones((near, near), np.uint8)) == 0
        for picture, at, lined in placed:
            set_there = at & (bare | ~lined)
            _even_out(fills, picture, areas, at, set_there, loose)
            fills = cv2.copyTo(picture, set_there.view(np.uint8), fills)
    return fills if options.lines == "none" else ink.over(fills)


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """Flat colours of references, uint8 (k, 3), largest area first; k = 0 = they are painted.

    complete: hardly anything in the references has another colour, so whatever they colour has one of these.
    """

    colours: np.ndarray
    complete: bool = False


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

    def settled(self, shares: Float[np.ndarray, "k m"], own: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, "k 3"]:
        """The colour that most of the shares are near to, or their mean where few are; for what is none of them, one's own."""
        total = shares.sum(axis=1, keepdims=True).clip(1e-12)
        near = shares @ self.alike
        close = self.alike[near.argmax(axis=1)] * shares
        likeliest = close @ self.shades / close.sum(axis=1, keepdims=True).clip(1e-12)
        mean = shares @ self.shades / total
        alone = 1 / (1 + np.exp((SURE - near.max(axis=1, keepdims=True) / total) / SOFT))
        return own + total.clip(max=1) * (mean + alone * (likeliest - mean) - own)


@dataclass(frozen=True, slots=True, eq=False)
class Plate:
    """A reference that fills the frame, at the sketch's size, uint8 (h, w, 3), a coloured frame without its drawn lines.

    labels: those whose areas it may colour, None = all. way: `choice.PLATE` = as it stands, from there on along which flow.
    misfit: how badly its lines then lie on the sketch's, at any size; None = not known. lined: where its own lines are, of a
    background plate.
    """

    picture: np.ndarray
    labels: frozenset[int] | None = None
    way: int = PLATE
    misfit: Float[np.ndarray, "y x"] | None = None
    lined: Bool[np.ndarray, "h w"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a plate is known to be seen, bool (h, w), and the flow of the camera's move, at any size; None = it stands still."""

    at: Bool[np.ndarray, "h w"]
    flow: Float[np.ndarray, "y x 2"] | None


class Placed(NamedTuple):
    """A picture, uint8, that is known to be seen, and where. lined: where it has lines of its own, not wanted near drawn ones."""

    picture: UInt8[np.ndarray, "h w 3"]
    at: Bool[np.ndarray, "h w"]
    lined: Bool[np.ndarray, "h w"]


def plate_of(reference: Reference, height: int, width: int, labels: frozenset[int] | None = None) -> Plate | None:
    """The reference as a plate, or None where it does not show a whole frame."""
    if not reference.shows_frame(height, width):
        return None
    # Lines of the moment that a frame shows must not haunt the others.
    background = reference.role == "background"
    image = reference.image if background else without_lines(reference.image)
    picture = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if len(image) > height else cv2.INTER_CUBIC)
    return Plate(picture, labels, lined=_lined(picture) if background else None)


def _lined(picture: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Where a coloured picture has lines of its own, and a little around them."""
    height, width = picture.shape[:2]
    scale = min(1.0, LINES_SEEN / min(height, width))
    small = cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    lines = cv2.dilate((reference_lines(small) > OWN_LINE).astype(np.uint8), np.ones((3, 3), np.uint8))
    return cv2.resize(lines, (width, height), interpolation=cv2.INTER_NEAREST) > 0


@dataclass(frozen=True, slots=True, eq=False)
class Finisher:
    """The finish stage of one shot: what its references tell of palettes and of the place, found once.

    palette: of a shot without labels; palettes: by label. None where they do not apply.
    """

    options: FinishOptions
    palette: Palette | None
    palettes: Mapping[int, Palette] | None
    plates: Sequence[Plate]
    choose: Choose | None = None

    @staticmethod
    def of(shot: Shot, present: Iterable[int] = (), options: FinishOptions = DEFAULT, choose: Choose | None = None) -> "Finisher":
        """present: the labels that the shot's label video holds. choose: as in `finish`."""
        height, width = shot.sketch.shape[1:3]
        labels, present = shot.labels, list(present)
        plates = [
            plate_of(r, height, width, labels and frozenset(k for k in present if i in labels.references_of(k)))
            for i, r in enumerate(shot.references)
        ]
        return Finisher(
            options,
            palette_of(shot.references) if shot.references and labels is None else None,
            None if labels is None else palettes_of(shot.references, labels, present),
            [plate for plate in plates if plate is not None],
            choose,
        )

    def __call__(
        self,
        colours: np.ndarray,
        sketch: np.ndarray,
        labels: np.ndarray | None = None,
        ways: Sequence[Sequence[Way]] = (),
        votes: Sequence[Vote] = (),
        places: Sequence["Place | None"] = (),
    ) -> np.ndarray:
        """`finish` with what is known of the shot. labels: the frame's, where the shot has any.

        ways: for each plate those in which it may lie on this frame, as it stands first, at any size; none = as it stands.
        votes: as in `finish`. places: for each plate where it is known to be seen; None, or none at all = not known.
        """

        def seen(picture: np.ndarray, flow: np.ndarray | None) -> np.ndarray:
            return picture if flow is None else warp(picture, resized(flow, *sketch.shape[:2]))

        plates = []
        for plate, its in zip(self.plates, ways or [[Way()]] * len(self.plates), strict=True):
            for i, way in enumerate(its):
                plates.append(Plate(seen(plate.picture, way.flow), plate.labels, min(PLATE + i, SOURCES - 1), way.misfit))
        known = [(plate, place) for plate, place in zip(self.plates, places, strict=False) if place is not None]
        placed = []
        for plate, place in known:
            assert plate.lined is not None  # places are background plates'
            picture, lined = plate.picture, plate.lined
            if place.flow is not None:
                flow = resized(place.flow, *sketch.shape[:2])
                picture, lined = warp(picture, flow), fetched(lined, flow)
            placed.append(Placed(picture, place.at, lined))
        return finish(colours, sketch, self.options, self.palette, labels, self.palettes, plates, votes, self.choose, placed)


def _take_detail(
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
        differences.append(_largest(cv2.absdiff(ours, theirs)))
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


def _even_out(
    fills: np.ndarray, picture: np.ndarray, areas: np.ndarray, at: np.ndarray, shown: np.ndarray, loose: np.ndarray
) -> None:
    """Give flat regions that mostly lie in a picture's place (h, w) the mean of what they show of it, where that is shown."""
    count = len(loose)
    runs, pixels = _runs(areas, at, shown)
    of = areas.ravel()[runs]
    size, inside, seen = (np.bincount(of, pixels * x, count) for x in (1, at.ravel()[runs], shown.ravel()[runs]))
    mine = ~loose & (inside > size / 2) & (seen > 0)
    part = shown & mine[areas]
    of = areas[part]
    sums = np.stack([np.bincount(of, channel, count) for channel in picture[part].T], axis=1)
    part = at & ~shown & mine[areas]
    fills[part] = (sums / np.maximum(seen, 1)[:, None] + 0.5).astype(np.uint8)[areas[part]]


def regions(sketch: np.ndarray) -> np.ndarray:
    """The areas that lines enclose, int32 (h, w), 0..n-1 for every pixel; a line's pixels go to the nearest area.

    Small gaps in lines do not join two areas, and areas too small for that test survive as their own.
    """
    return regions_in(_Ink.of(sketch).opacity)


def palette_of(references: Sequence[Reference]) -> Palette:
    """The flat colours in the references.

    Lines, anti-aliasing and gradients are left out, and so is a painted reference, where hardly anything is flat.
    """
    counts: dict[tuple[int, ...], int] = {}
    complete = bool(references)
    for reference in references:
        found, covered = _flat_colours(reference)
        complete &= covered >= COMPLETE
        for colour, count in found:
            counts[colour] = max(counts.get(colour, 0), count)
    ranked = np.array(sorted(counts, key=lambda colour: (-counts[colour], colour)), np.uint8).reshape(-1, 3)
    return Palette(ranked[apart(to_lab(ranked), 2.0)], complete)


def palettes_of(references: Sequence[Reference], labels: Labels, present: Iterable[int]) -> dict[int, Palette]:
    """For each label present: the palette of the references that may colour it."""
    bound = {label: [r for r in labels.references_of(label) if 0 <= r < len(references)] for label in present}
    return {label: palette_of([references[r] for r in indices]) for label, indices in bound.items() if indices}


# Colours


def _painted(colours: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Each pixel of (h, w) in its area's colour, uint8 (n, 3). Four bytes at once are fetched far sooner than three."""
    packed = np.concatenate([colours, np.zeros_like(colours[:, :1])], axis=1).view(np.uint32)[:, 0]
    return cv2.cvtColor(packed[areas].view(np.uint8).reshape(*areas.shape, 4), cv2.COLOR_RGBA2RGB)


def _largest(picture: np.ndarray) -> np.ndarray:
    """Of the channels of (h, w, 3), (h, w): sooner than along an axis of three."""
    planes = cv2.split(picture)
    return cv2.max(cv2.max(planes[0], planes[1]), planes[2])


def _uint8(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def to_lab(colours: np.ndarray) -> np.ndarray:
    """sRGB (..., 3), uint8 or in [0, 1] → CIE Lab, float32."""
    if not colours.size:
        return np.zeros(colours.shape, np.float32)
    scaled = colours.astype(np.float32) / 255 if colours.dtype == np.uint8 else colours.clip(0, 1).astype(np.float32)
    return cv2.cvtColor(np.ascontiguousarray(scaled.reshape(-1, 1, 3)), cv2.COLOR_RGB2LAB).reshape(colours.shape)


def alike(lab: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How much CIE Lab colours (n, 3) count as others (m, 3), in [0, 1]: (n, m), float32."""
    away = (lab**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * lab @ others.T
    return np.exp(-away.clip(min=0) / (2 * ALIKE**2)).astype(np.float32)


def apart(lab: np.ndarray, least: float) -> list[int]:
    """Which of these colours (n, 3), first come first served, lie at least so far (CIE Lab) from all chosen before."""
    chosen: list[int] = []
    for i in range(len(lab)):
        if not chosen or np.linalg.norm(lab[chosen] - lab[i], axis=1).min() > least:
            chosen.append(i)
    return chosen


def _snap(colours: np.ndarray, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (n, 3) moved to the palette's nearest where that is near, and which found none: uint8 (n, 3), bool (n,)."""
    white = np.full((1, 3), 255, np.uint8)
    lab, known = to_lab(colours), to_lab(np.concatenate([palette, white]))
    distance = np.linalg.norm(lab[:, None] - known[None], axis=2)
    # Paper that stays bare is in no palette; it must be very near to be meant.
    distance[:, -1] *= SNAP / SNAP_WHITE
    best = distance.argmin(axis=1)
    near = distance.min(axis=1) <= SNAP
    return np.where(near[:, None], np.concatenate([palette, white])[best], colours), ~near


def _bound(
    areas: np.ndarray, count: int, palette: Palette | None, labels: np.ndarray | None, palettes: Mapping[int, Palette]
) -> Iterator[tuple[np.ndarray, Palette]]:
    """Regions (indices) with the palette they may snap to. A region belongs to the label that most of it lies in."""
    if labels is None:
        values, own = np.zeros(1, np.int64), np.zeros(count, np.int64)
    else:
        at, pixels = _runs(areas, labels)
        values, index = np.unique(labels.ravel()[at], return_inverse=True)
        votes = np.bincount(areas.ravel()[at] * np.int64(len(values)) + index, pixels, count * len(values))
        own = votes.reshape(count, -1).argmax(axis=1)
    for i, value in enumerate(values):
        known = palette if labels is None else palettes.get(int(value), palette)
        if known is not None:
            yield np.flatnonzero(own == i), known


def _flat_colours(reference: Reference) -> tuple[list[tuple[tuple[int, ...], int]], float]:
    """Colours of a reference's flat areas with their pixel counts, none of a painted one; the share of paint that has them."""
    image = reference.image
    h, w = image.shape[:2]
    # A window wider than a line: lines and their anti-aliasing are nowhere flat in it.
    side = 2 * max(2, round(min(h, w) / 240)) + 1
    window = np.ones((side, side), np.uint8)
    flat = cv2.subtract(cv2.dilate(image, window), cv2.erode(image, window)).max(axis=2) <= 3
    shown = np.ones((h, w), bool) if reference.alpha is None else reference.alpha > 250
    if reference.alpha is None and _on_black(image):
        shown = image.any(axis=2)
    inside = cv2.erode(np.asarray(shown, np.uint8), window, borderType=cv2.BORDER_REPLICATE) > 0
    flat &= inside
    packed, counts = np.unique(image[flat].astype(np.int64) @ np.array([65536, 256, 1]), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:4096]
    counts = counts[order]
    colours = np.stack([packed[order] >> 16, packed[order] >> 8 & 255, packed[order] & 255], axis=1).astype(np.uint8)
    found = _peaks(colours, counts, max(12.0, 2e-5 * h * w))
    if sum(count for _, count in found) <= FLAT_ART * shown.sum():
        return [], 0.0
    # Lines are neither paint nor proof of it; a few thousand places tell the rest.
    scale = min(1.0, 360 / max(h, w))
    size = max(1, round(w * scale)), max(1, round(h * scale))
    small, there = (cv2.resize(x, size, interpolation=cv2.INTER_NEAREST) for x in (image, inside.astype(np.uint8)))
    lines = reference_lines(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    paint = small[(there > 0) & (cv2.dilate(lines, np.ones((3, 3), np.uint8)) < 40)]
    if not len(paint):
        return found, 0.0
    known = to_lab(np.array([colour for colour, _ in found], np.uint8))
    near = np.linalg.norm(to_lab(paint)[:, None] - known[None], axis=2).min(axis=1) < 3
    return found, float(near.mean())


def _on_black(image: np.ndarray) -> bool:
    """Whether this is a cut-out that stands on black: that black is no paint."""
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return bool((~rim.any(axis=1)).mean() > 0.5)


def _peaks(colours: np.ndarray, counts: np.ndarray, smallest: float) -> list[tuple[tuple[int, ...], int]]:
    """Colours (k, 3), most frequent first, that stand alone with what compression scatters around them; gradients do not."""
    lab = to_lab(colours)
    left = np.ones(len(colours), bool)
    found: list[tuple[tuple[int, ...], int]] = []
    for i in range(len(colours)):
        if not left[i] or counts[i] < 3:
            continue
        distance = np.linalg.norm(lab - lab[i], axis=1)
        core = counts[distance <= 2].sum()
        left &= distance > 3
        if core >= smallest and core > 0.6 * counts[distance <= 6].sum():
            found.append((tuple(colours[i].tolist()), int(core)))
        if len(found) >= 64:
            break
    return found


# The sketch


@dataclass(frozen=True, slots=True, eq=False)
class _Ink:
    """How a sketch is inked.

    sketch: uint8 (h, w, 3). opacity: float32 (h, w) in [0, 1], 0 = bare paper. stretch: float32 (h, w), how far a pixel's colour
    must move away from the paper's to be the ink's own. paper: float32 (3,) in 0..255.
    """

    sketch: np.ndarray
    opacity: np.ndarray
    stretch: np.ndarray
    paper: np.ndarray

    @staticmethod
    def of(sketch: np.ndarray) -> "_Ink":
        """Darkness against the paper, where what the darkest strokes reach counts as full (pencil need not be black)."""
        planes = cv2.split(sketch)
        paper = np.array([_paper_level(plane) for plane in planes], np.float32)
        sheen = [cv2.LUT(plane, _uint8(np.arange(256) / level)) for plane, level in zip(planes, paper, strict=True)]
        low = cv2.min(cv2.min(sheen[0], sheen[1]), sheen[2])
        dark = cv2.bitwise_not(low)
        full = _full_ink(dark)
        coloured = cv2.subtract(cv2.max(cv2.max(sheen[0], sheen[1]), sheen[2]), low) > 76
        if not coloured.any():
            steps = np.arange(256, dtype=np.float32)
            return _Ink(sketch, cv2.LUT(dark, _opacity(steps, full)), cv2.LUT(dark, _stretch(steps, full)), paper)
        # A trace line is full at its own core, however light its colour.
        core = cv2.dilate(np.where(coloured, dark, np.uint8(0)), np.ones((5, 5), np.uint8))
        level = np.where(core > 76, np.minimum(core, full), full).astype(np.float32)
        return _Ink(sketch, _opacity(dark.astype(np.float32), level), _stretch(dark.astype(np.float32), level), paper)

    def over(self, fills: np.ndarray) -> np.ndarray:
        """The ink on top of the fills, uint8 (h, w, 3): the sketch itself where it is opaque, the fills where it is bare."""
        out = fills.copy()
        inked = np.flatnonzero(self.opacity)
        a, stretch = (x.ravel()[inked, None] for x in (self.opacity, self.stretch))
        line, below = (x.reshape(-1, 3)[inked] for x in (self.sketch, fills))
        ink = np.clip(self.paper + (line - self.paper) * stretch, 0, 255)
        out.reshape(-1, 3)[inked] = np.where(a >= 1, line, (a * ink + (1 - a) * below + 0.5).astype(np.uint8))
        return out


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


def regions_in(opacity: Float[np.ndarray, "h w"]) -> np.ndarray:
    """`regions` of lines of this opacity, in [0, 1]."""
    unit = max(1.0, min(opacity.shape) / 480)
    free = _without_specks((opacity >= LINE).astype(np.uint8), SPECK * unit * unit) == 0
    if free.all() or not free.any():
        return np.zeros(opacity.shape, np.int32)
    room = cv2.distanceTransform(free.astype(np.uint8), cv2.DIST_L2, 3)
    labels = np.zeros(opacity.shape, np.int32)
    for gap in GAPS:
        labels = _grow(labels, room > gap * unit, HOLE * unit * unit if gap == 0 else 0.0)
    return nearest(labels) - 1 if labels.any() else labels


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
        at, _ = _runs(labels)
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


def nearest(labels: np.ndarray) -> np.ndarray:
    """Every pixel without a label (0) takes the nearest one's."""
    filled, at = labels.copy(), np.flatnonzero(labels == 0)
    filled.ravel()[at] = _nearest(labels, at)
    return filled


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


def _runs(*pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where (flat indices) any of these pictures (h, w) differs from the pixel before, and how many are alike from there on."""
    starts = np.ones(pictures[0].shape, bool)
    starts[:, 1:] = pictures[0][:, 1:] != pictures[0][:, :-1]
    for picture in pictures[1:]:
        starts[:, 1:] |= picture[:, 1:] != picture[:, :-1]
    at = np.flatnonzero(starts)
    return at, np.diff(at, append=starts.size)


# The model's cells


def _coarse(colours: np.ndarray, h: int, w: int) -> np.ndarray:
    """Colours in cells of at least 4 native pixels, float32 (h', w', 3)."""
    size = (min(colours.shape[1], max(1, w // 4)), min(colours.shape[0], max(1, h // 4)))
    return np.clip(cv2.resize(colours.astype(np.float32), size, interpolation=cv2.INTER_AREA), 0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """The model's colour cells cut along the regions: one entry for each cell and region that overlap, by cell, then by region.

    colours: float32 (h', w', 3). cell, area: int64 (n,), the entry's cell (flat index) and region. pixels: float64 (n,), those in
    both. share: float64 (n,), the part of the cell inside the region. deep: float64 (n,), the same over the cell's neighbourhood.
    areas: number of regions.
    """

    colours: np.ndarray
    cell: np.ndarray
    area: np.ndarray
    pixels: np.ndarray
    share: np.ndarray
    deep: np.ndarray
    areas: int

    @staticmethod
    def of(colours: np.ndarray, areas: np.ndarray) -> "_Cells":
        """Cut a grid of colours along the regions."""
        shape, count = (colours.shape[0], colours.shape[1]), int(areas.max()) + 1
        keys, pixels = _overlaps(areas, shape)
        cell, area = keys // count, keys % count
        share = pixels / np.bincount(cell, pixels)[cell]
        return _Cells(colours, cell, area, pixels, share, _neighbourhood(keys, count, share, shape), count)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of the entries' values (n, k) over each region, (areas, k)."""
        return np.stack([np.bincount(self.area, column, self.areas) for column in values.T], axis=1)

    def vote(self) -> np.ndarray:
        """The colour most of a region agrees on, (areas, 3): geometric median of the cells well inside, then the mode by it."""
        values = self.colours.reshape(-1, 3)[self.cell].astype(np.float64)
        base = np.maximum(self.share * self.deep**3, 1e-9)

        def mean(weight: np.ndarray, of: np.ndarray) -> np.ndarray:
            return self.sums(weight[:, None] * of) / np.bincount(self.area, weight, self.areas)[:, None]

        centre = mean(base, values)
        for _ in range(8):
            away = np.linalg.norm(values - centre[self.area], axis=1)
            centre = mean(base / np.maximum(away, 0.02), values)
        away = np.linalg.norm(values - centre[self.area], axis=1)
        # As wide as the region's own scatter: a narrower window would follow the noise.
        width = np.maximum(mean(base, away[:, None]), 0.05)[self.area, 0]
        for _ in range(5):
            off = ((values - centre[self.area]) ** 2).sum(axis=1)
            centre = mean(base * (np.exp(-off / (2 * width**2)) + 1e-9), values)
        return centre

    def closed(self, found: np.ndarray) -> np.ndarray:
        """Regions that may be taken for one flat colour, bool (areas,): small ones, most of which is near their colour `found`.

        Others are open: their lines have gaps, or nobody drew what lies in them.
        """
        weight = self.share * self.deep
        away = np.linalg.norm(to_lab(self.colours).reshape(-1, 3)[self.cell] - to_lab(found)[self.area], axis=1)
        near = np.bincount(self.area, weight * (away < NEAR), self.areas)
        size = np.bincount(self.area, self.share, self.areas)
        total = np.bincount(self.area, weight, self.areas)
        return (near >= MOSTLY * total) & (size <= SMALL * size.sum())

    def explain(self, flat: np.ndarray, blur: float) -> np.ndarray:
        """What the model would show, had every region the colour `flat` (areas, 3): (h', w', 3)."""
        starts = np.flatnonzero(np.diff(self.cell, prepend=-1))
        return _blur(np.add.reduceat(self.share[:, None] * flat[self.area], starts).reshape(self.colours.shape), blur)

    def gather(self, cells: np.ndarray, blur: float) -> np.ndarray:
        """The transpose of `explain`: (h', w', 3) → (areas, 3)."""
        return self.sums(self.share[:, None] * _blur(cells, blur).reshape(-1, 3)[self.cell])

    def unmix(self, painted: np.ndarray) -> tuple[np.ndarray, float]:
        """Region colours (areas, 3) that explain the cells best, and the blur of the model's picture that does so.

        painted: bool (areas,), regions where mixtures of flat colours explain little, so that their vote counts more.
        """
        vote = self.vote()
        # A region with cells well inside knows its colour, and need not follow the cells at its rim.
        inside = np.bincount(self.area, self.share * self.deep**5, self.areas)
        hold = (np.where(painted, HOLD_PAINTED, HOLD) + HOLD_INSIDE * inside)[:, None]
        tried = [(*self._solve(vote, hold, vote, blur, rounds=2), blur) for blur in BLURS]
        flat, _, blur = min(tried, key=lambda found: found[1])
        flat, _ = self._solve(vote, hold, flat, blur, rounds=3)
        return np.clip(flat, 0, 1), blur

    def _solve(self, vote: np.ndarray, hold: np.ndarray, flat: np.ndarray, blur: float, rounds: int) -> tuple[np.ndarray, float]:
        """Least squares around the vote, from `flat` on, and its cost: conjugate gradients, outliers weighed anew each round."""
        cost = 0.0
        for _ in range(rounds):
            error = self.colours - self.explain(flat, blur)
            trust = np.minimum(OUTLIER / np.maximum(np.linalg.norm(error, axis=2, keepdims=True), 1e-6), 1) ** 2
            step = residual = self.gather(trust * error, blur) + hold * (vote - flat)
            power = (residual**2).sum(axis=0)
            for _ in range(8):
                turned = self.gather(trust * self.explain(step, blur), blur) + hold * step
                length = power / np.maximum((step * turned).sum(axis=0), 1e-12)
                flat = flat + length * step
                residual = residual - length * turned
                before, power = power, (residual**2).sum(axis=0)
                step = residual + power / np.maximum(before, 1e-12) * step
            away = np.linalg.norm(self.colours - self.explain(flat, blur), axis=2)
            cost = float((np.minimum(away, OUTLIER) ** 2).mean())
        return flat, cost

    def shading(self, flat: np.ndarray, blur: float) -> "_Shading":
        """What the regions' flat colours leave unexplained."""
        order = np.argsort(self.area, kind="stable")
        bounds = np.searchsorted(self.area[order], np.arange(self.areas + 1))
        rest = (self.colours - self.explain(flat, blur)).astype(np.float32)
        return _Shading(self, flat, blur, rest, order, bounds)


def _overlaps(areas: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The pixels that each cell of a grid shares with each region: cell * regions + region, in order, and their number."""
    (h, w), (rows, columns) = areas.shape, shape
    row = (np.arange(h) * 2 + 1) * rows // (2 * h)
    column = (np.arange(w) * 2 + 1) * columns // (2 * w)
    at, pixels = _runs(areas, np.broadcast_to(column, (h, w)))
    key = (row[at // w] * columns + column[at % w]) * (int(areas.max()) + 1) + areas.ravel()[at]
    keys, inverse = np.unique(key, return_inverse=True)
    return keys, np.bincount(inverse, weights=pixels)


def _offers(
    found: np.ndarray,
    cells: "_Cells",
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
    votings = _votings(cells, areas, votes)
    voted, known, likeliest = _voted(found, votings)
    colours, there = [found[regions], voted[regions]], [np.ones(len(regions), bool), known[regions] >= KNOWN]
    signs: list[list[np.ndarray]] = [[np.zeros(len(regions))] * 5] * 2
    grid = cells.colours.shape[1::-1]
    for plate in plates:
        theirs = cv2.resize(plate.picture, grid, interpolation=cv2.INTER_AREA).astype(np.float32)
        apart = _largest(cv2.absdiff(cells.colours * 255, theirs)).clip(max=APART)
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
        mixed=all(vote.mixed for vote in votes),
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


class _Voting(NamedTuple):
    """What small regions, by number, vote for: shares (n, m) of a vote's shades."""

    vote: Vote
    regions: np.ndarray
    shares: np.ndarray


def _votings(cells: "_Cells", areas: np.ndarray, votes: Sequence[Vote]) -> list[_Voting]:
    """What the places of small regions say together, where more than half of one votes."""
    if not votes:
        return []
    rows, columns = votes[0].at.shape
    if cells.colours.shape[:2] == (rows, columns):
        place, area, pixels = cells.cell, cells.area, cells.pixels
    else:
        keys, pixels = _overlaps(areas, (rows, columns))
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
        votings.append(_Voting(vote, voting[most], (of / voters)[most]))
    return votings


def _voted(found: np.ndarray, votings: Sequence[_Voting]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each region what it votes for, (areas, 3), what part is on any colour, and on the likeliest; else its own, 0."""
    voted, known, likeliest = found.copy(), np.zeros(len(found)), np.zeros(len(found))
    for vote, chosen, shares in votings:
        voted[chosen] = vote.settled(shares, found[chosen])
        known[chosen], likeliest[chosen] = shares.sum(axis=1), (shares @ vote.alike).max(axis=1)
    return voted, known, likeliest


def _neighbourhood(keys: np.ndarray, count: int, share: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """For each entry, its region's share of the 3 by 3 cells around; beyond the picture counts as the cell at the rim."""
    rows, columns = shape
    cell, area = keys // count, keys % count
    total = np.zeros(len(keys))
    for dy, dx in np.ndindex(3, 3):
        y = np.clip(cell // columns + dy - 1, 0, rows - 1)
        x = np.clip(cell % columns + dx - 1, 0, columns - 1)
        wanted = (y * columns + x) * count + area
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        total += WINDOW[dy] * WINDOW[dx] * np.where(keys[at] == wanted, share[at], 0)
    return total


def _blur(cells: np.ndarray, sigma: float) -> np.ndarray:
    # With this border the blur is its own transpose.
    return cv2.GaussianBlur(cells, (5, 5), sigma, borderType=cv2.BORDER_REFLECT) if sigma else cells


@dataclass(frozen=True, slots=True, eq=False)
class _Shading:
    """How the model's colours differ from flat regions.

    flat: (areas, 3) in [0, 1]. blur: of the model's picture, in cells. rest: float32 (h', w', 3), what the flat colours leave of
    each cell. order, bounds: the entries of region r are order[bounds[r]:bounds[r + 1]].
    """

    cells: _Cells
    flat: np.ndarray
    blur: float
    rest: np.ndarray
    order: np.ndarray
    bounds: np.ndarray

    def varying(self, stray: np.ndarray, painted: np.ndarray) -> np.ndarray:
        """Regions whose colours vary more than the frame's noise explains, int (n,).

        stray: bool (areas,), the colour is no flat colour of the references; painted: they have none at all, so that even a
        region too small to measure is taken to vary.
        """
        cells, (rows, columns) = self.cells, self.rest.shape[:2]
        inside = cells.deep > 0.9
        area = np.full(rows * columns, -1, np.int64)
        area[cells.cell[inside]] = cells.area[inside]
        known = (area >= 0).reshape(rows, columns)
        off = to_lab(cells.colours) - to_lab(self.flat)[area].reshape(rows, columns, 3)
        off[~known] = 0
        count = _sum_3x3(known.astype(np.float32))
        slow = _sum_3x3(off) / np.maximum(count, 1)[..., None]
        use = (known & (count >= 5)).ravel()
        number = np.bincount(area[use], minlength=cells.areas)

        def size(values: np.ndarray) -> np.ndarray:
            squares = (values.reshape(-1, 3)[use] ** 2).sum(axis=1)
            return np.sqrt(np.bincount(area[use], squares, cells.areas) / np.maximum(number, 1))

        large = number >= 6
        # Noise changes from cell to cell, shading does not. Noise is much the same everywhere, so the regions settle it together.
        noise = float(np.median(size(off - slow)[large])) if large.any() else 0.0
        enough = np.where(stray, max(STRAY_VARIES, STRAY_NOISE * noise), max(VARIES, VARIES_NOISE * noise))
        return np.flatnonzero(np.where(large, size(slow) > enough, painted))

    def paint(self, fills: np.ndarray, areas: np.ndarray, chosen: np.ndarray) -> None:
        """Paint the chosen regions in place: their flat colour and their own cells' rest, interpolated up to the border."""
        rest = self.rest.copy()
        # Large regions first: what they explain of a cell is no longer there for a small neighbour to make up for.
        for area in chosen[np.argsort(self.bounds[chosen] - self.bounds[chosen + 1], kind="stable")]:
            self._paint(fills, areas, int(area), rest)

    def _paint(self, fills: np.ndarray, areas: np.ndarray, area: int, rest: np.ndarray) -> None:
        cells, (rows, columns), (h, w) = self.cells, rest.shape[:2], areas.shape
        mine = self.order[self.bounds[area] : self.bounds[area + 1]]
        y, x = cells.cell[mine] // columns, cells.cell[mine] % columns
        top, left = max(int(y.min()) - 2, 0), max(int(x.min()) - 2, 0)
        bottom, right = min(int(y.max()) + 3, rows), min(int(x.max()) + 3, columns)
        weight = np.zeros((bottom - top, right - left), np.float32)
        weight[y - top, x - left] = cells.share[mine] * cells.deep[mine]
        field = _fill_in(rest[top:bottom, left:right], weight / weight.max())
        share = np.zeros_like(weight)
        share[y - top, x - left] = cells.share[mine]
        rest[top:bottom, left:right] -= _blur(field * share[..., None], self.blur)
        box = slice(top * h // rows, -(-bottom * h // rows)), slice(left * w // columns, -(-right * w // columns))
        # From the middle of a pixel of the box to the same place in the field.
        across, down = columns / w, rows / h
        to_field = np.array(
            [
                [across, 0, (box[1].start + 0.5) * across - 0.5 - left],
                [0, down, (box[0].start + 0.5) * down - 0.5 - top],
            ]
        )
        size = box[1].stop - box[1].start, box[0].stop - box[0].start
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        painted = cv2.warpAffine(
            self.flat[area].astype(np.float32) + field, to_field, size, flags=how, borderMode=cv2.BORDER_REPLICATE
        )
        inside = (areas[box] == area).view(np.uint8)
        shade = cv2.convertScaleAbs(np.maximum(painted, 0, out=painted), alpha=255)
        fills[box] = cv2.copyTo(shade, inside, fills[box].copy())


def _sum_3x3(values: np.ndarray) -> np.ndarray:
    return cv2.boxFilter(values, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)


def _fill_in(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Values (h, w, 3) where they have weight (h, w), in [0, 1], elsewhere what surrounds them: down a pyramid and up again."""
    h, w = weight.shape
    if h <= 1 and w <= 1:
        return values
    half = ((w + 1) // 2, (h + 1) // 2)
    small = cv2.resize(np.dstack([values * weight[..., None], weight]), half, interpolation=cv2.INTER_AREA)
    below = _fill_in(small[..., :3] / np.maximum(small[..., 3:], 1e-9), np.minimum(small[..., 3] * 4, 1))
    around = cv2.resize(below, (w, h), interpolation=cv2.INTER_LINEAR).reshape(values.shape)
    return (weight[..., None] * values + (1 - weight[..., None]) * around).astype(np.float32)
