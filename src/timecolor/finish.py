"""Coarse colours from a model + the artist's line art → the final frame, at the sketch's own size.

The model says what colour an area has, the sketch says where it ends: closed regions of the sketch vote on one colour each; where the colours
inside a region really vary, they are spread smoothly up to its lines and not across. The lines themselves are the sketch's, never redrawn.
Pure functions of one frame.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from timecolor.shot import Labels, Reference

Lines = Literal["keep", "model", "none"]
Fill = Literal["flat", "smooth", "auto"]
PaletteMode = Literal["snap", "free"]

NO_PALETTE = np.zeros((0, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class FinishOptions:
    """How the final frame is made.

    lines: "keep" = the sketch's own lines on top; "none" = the colour layer alone; "model" = the model's picture, only resized.
    fill: "flat" = one colour a region; "smooth" = colours spread up to the lines; "auto" = smooth where a region's colours really vary.
    palette: "snap" = a flat region near a colour of its references takes exactly that colour.
    """

    lines: Lines = "keep"
    fill: Fill = "auto"
    palette: PaletteMode = "snap"


# Opacity below this is paper grain and compression noise.
GRAIN = 0.06
# A pixel at least this opaque keeps regions apart.
LINE = 0.25
GAPS = (2.0, 1.0, 0.0)
# CIE Lab distance up to which a region takes a palette colour, and above which colours inside a region count as different.
SNAP = 8.0
VARIES = 2.5
NOISE = 2.8
PAINTED_VARIES = 1.0
PAINTED_NOISE = 1.5
DEEP = 1
HOLD = 0.15
# Blurs of the model's picture that are tried, standard deviation in cells; and the error of a cell, RGB distance, from which it is doubted.
BLURS = (0.0, 0.6, 1.0)
OUTLIER = 0.2
KERNEL = (0.239, 0.522, 0.239)


def finish(
    colours: np.ndarray,
    sketch: np.ndarray,
    options: FinishOptions = FinishOptions(),
    palette: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    palettes: Mapping[int, np.ndarray] | None = None,
) -> np.ndarray:
    """The final frame, uint8 (h, w, 3).

    colours: float32 (h', w', 3) in [0, 1], any size; fills as if no lines were there. sketch: uint8 (h, w, 3).
    palette: uint8 (k, 3), None = nothing to snap to. labels: integers (h, w); a region of a label named in `palettes` snaps to that
    label's palette alone, any other to `palette`.
    """
    h, w = sketch.shape[:2]
    if options.lines == "model":
        return _uint8(cv2.resize(colours, (w, h), interpolation=cv2.INTER_CUBIC if h > colours.shape[0] else cv2.INTER_AREA))
    ink = _Ink.of(sketch)
    areas = _regions(ink.opacity)
    cells = _Cells.of(_coarse(colours, h, w), areas)
    voted, blur = cells.unmix(cells.vote())
    flat, painted = _snap(voted, cells, options, palette, labels, palettes or {}, areas)
    fills = flat[areas]
    if options.fill != "flat":
        shading = cells.shading(voted, blur)
        for area in shading.varying(painted) if options.fill == "auto" else range(cells.areas):
            _shade(fills, areas, area, shading, voted[area])
    return fills if options.lines == "none" else ink.over(fills)


def regions(sketch: np.ndarray) -> np.ndarray:
    """The areas that lines enclose, int32 (h, w), 0..n-1 for every pixel; a line's pixels go to the nearest area.

    Small gaps in lines do not join two areas, and areas too small for that test survive as their own.
    """
    return _regions(_Ink.of(sketch).opacity)


def palette_of(references: Sequence[Reference]) -> np.ndarray:
    """The flat colours in the references, uint8 (k, 3), largest area first: no lines, no anti-aliasing, no gradients."""
    counts: dict[tuple[int, int, int], int] = {}
    for reference in references:
        for colour, count in _flat_colours(reference):
            counts[colour] = max(counts.get(colour, 0), count)
    ranked = sorted(counts, key=lambda colour: (-counts[colour], colour))
    return _distinct(np.array(ranked, np.uint8).reshape(-1, 3), 2.0)


def palettes_of(references: Sequence[Reference], labels: Labels, present: Iterable[int]) -> dict[int, np.ndarray]:
    """For each label present: the palette of the references that may colour it."""
    known = {label: [r for r in labels.references_of(label) if 0 <= r < len(references)] for label in present}
    return {label: palette_of([references[r] for r in bound]) for label, bound in known.items()}


def _uint8(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _lab(colours: np.ndarray) -> np.ndarray:
    """sRGB (..., 3), uint8 or in [0, 1] → CIE Lab, float32."""
    scaled = colours.astype(np.float32) / 255 if colours.dtype == np.uint8 else colours.astype(np.float32)
    return cv2.cvtColor(np.ascontiguousarray(scaled.reshape(-1, 1, 3)), cv2.COLOR_RGB2LAB).reshape(colours.shape)


@dataclass(frozen=True, slots=True, eq=False)
class _Ink:
    """How a sketch is inked.

    opacity: float32 (h, w) in [0, 1], 0 = bare paper. stretch: float32 (h, w), how far a pixel's colour must move away from
    the paper's to be the ink's own. paper: float32 (3,) in 0..255.
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
        sheen = [cv2.LUT(plane, _to_255(np.arange(256) / level)) for plane, level in zip(planes, paper, strict=True)]
        low = cv2.min(cv2.min(sheen[0], sheen[1]), sheen[2])
        high = cv2.max(cv2.max(sheen[0], sheen[1]), sheen[2])
        dark = 255 - low
        full = _full_ink(dark)
        coloured = cv2.subtract(high, low) > 76
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
        inked = self.opacity > 0
        a = self.opacity[inked][:, None]
        line = self.sketch[inked]
        ink = np.clip(self.paper + (line - self.paper) * self.stretch[inked][:, None], 0, 255)
        mixed = (a * ink + (1 - a) * fills[inked] + 0.5).astype(np.uint8)
        out[inked] = np.where(a >= 1, line, mixed)
        return out


def _to_255(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def _counts(plane: np.ndarray) -> np.ndarray:
    return cv2.calcHist([plane], [0], None, [256], [0, 256]).ravel()


def _paper_level(plane: np.ndarray) -> int:
    """A channel's most frequent bright value; 255 where hardly anything is bright."""
    counts = _counts(plane)
    return 160 + int(counts[160:].argmax()) if counts[160:].sum() > 0.02 * plane.size else 255


def _full_ink(dark: np.ndarray) -> float:
    """The darkness, 0..255, that the darkest twentieth of all ink reaches."""
    counts = _counts(dark)[round(LINE * 255) :]
    if not counts.sum():
        return 255.0
    reach = int((counts.cumsum() >= 0.95 * counts.sum()).argmax())
    return float(max(round(LINE * 255) + reach, 90))


def _opacity(dark: np.ndarray, level: np.ndarray | float) -> np.ndarray:
    return np.clip((dark - GRAIN * 255) / (level - GRAIN * 255), 0, 1).astype(np.float32)


def _stretch(dark: np.ndarray, level: np.ndarray | float) -> np.ndarray:
    return np.maximum(level / np.maximum(dark, 1), 1).astype(np.float32)


def _regions(opacity: np.ndarray) -> np.ndarray:
    free = (opacity <= LINE).astype(np.uint8)
    if free.all() or not free.any():
        return np.zeros(opacity.shape, np.int32)
    room = cv2.distanceTransform(free, cv2.DIST_L2, 3)
    unit = max(1.0, min(opacity.shape) / 480)
    labels = np.zeros(opacity.shape, np.int32)
    for radius in GAPS:
        labels = _grow(labels, room > radius * unit, 6 * unit * unit if radius == 0 else 0)
    return _nearest(labels) - 1 if labels.any() else labels


def _grow(labels: np.ndarray, free: np.ndarray, smallest: float) -> np.ndarray:
    """Extend labels (0 = none) over the free pixels: a free part with no label becomes a new one if it is larger than `smallest`."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(free.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    known = int(labels.max())
    part_of = np.zeros(known + 1, np.int32)
    # Free parts only grow from step to step, so every pixel of a label names the same part.
    part_of[labels] = parts
    inside = np.bincount(part_of[1:], minlength=count)
    owner = np.zeros(count, np.int32)
    owner[part_of[1:]] = np.arange(1, known + 1)
    fresh = (inside == 0) & (stats[:, cv2.CC_STAT_AREA] > smallest)
    contested = inside > 1
    fresh[0] = contested[0] = False
    owner[fresh] = known + 1 + np.arange(fresh.sum())
    owner[contested] = owner[0] = 0
    grown = owner[parts]
    if contested.any():
        gap = contested[parts]
        held = np.where(gap, labels, 0)
        near = _nearest(held)
        # A neighbour seen across a line is no neighbour.
        np.copyto(grown, np.where(part_of[near] == parts, near, held), where=gap)
    return grown


def _nearest(labels: np.ndarray) -> np.ndarray:
    """Every pixel without a label (0) takes the nearest one's."""
    empty = labels == 0
    if not empty.any():
        return labels
    _, index = cv2.distanceTransformWithLabels(empty.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    lookup = np.zeros(int(index.max()) + 1, np.int32)
    seen = np.flatnonzero(~empty)
    lookup[index.ravel()[seen]] = labels.ravel()[seen]
    return lookup[index]


def _coarse(colours: np.ndarray, h: int, w: int) -> np.ndarray:
    """Colours in cells of at least 4 native pixels, float32 (h', w', 3)."""
    size = (min(colours.shape[1], max(1, w // 4)), min(colours.shape[0], max(1, h // 4)))
    return np.clip(cv2.resize(colours.astype(np.float32), size, interpolation=cv2.INTER_AREA), 0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """The model's colour cells cut along the regions: one entry for each (cell, region) that overlap, in order of cell, then region.

    colours: float32 (h', w', 3). cell, area: int64 (n,), the entry's cell (flat index) and region. share: float64 (n,), part of the cell
    inside the region. deep: float64 (n,), the same over the cell's neighbourhood. areas: number of regions.
    """

    colours: np.ndarray
    cell: np.ndarray
    area: np.ndarray
    share: np.ndarray
    deep: np.ndarray
    areas: int

    @staticmethod
    def of(colours: np.ndarray, areas: np.ndarray) -> "_Cells":
        """Count, run by run, the pixels that each cell shares with each region."""
        (h, w), (rows, columns) = areas.shape, colours.shape[:2]
        row = (np.arange(h) * 2 + 1) * rows // (2 * h)
        column = (np.arange(w) * 2 + 1) * columns // (2 * w)
        starts = np.ones((h, w), bool)
        starts[:, 1:] = (areas[:, 1:] != areas[:, :-1]) | (column[1:] != column[:-1])
        at = np.flatnonzero(starts)
        count = int(areas.max()) + 1
        key = (row[at // w] * columns + column[at % w]) * count + areas.ravel()[at]
        keys, inverse = np.unique(key, return_inverse=True)
        pixels = np.bincount(inverse, weights=np.diff(at, append=h * w))
        cell, area = keys // count, keys % count
        share = pixels / np.bincount(cell, pixels)[cell]
        return _Cells(colours, cell, area, share, _neighbourhood(keys, count, share, (rows, columns)), count)

    @property
    def values(self) -> np.ndarray:
        """Each entry's cell colour, (n, 3)."""
        return self.colours.reshape(-1, 3)[self.cell].astype(np.float64)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of the entries' values (n, k) over each region, (areas, k)."""
        return np.stack([np.bincount(self.area, column, self.areas) for column in values.T], axis=1)

    def mean(self, weight: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Weighted mean over each region, (areas, k)."""
        return self.sums(weight[:, None] * values) / np.maximum(np.bincount(self.area, weight, self.areas), 1e-12)[:, None]

    def vote(self) -> np.ndarray:
        """The colour most of a region agrees on, (areas, 3): a geometric median of the cells well inside, then the mode next to it."""
        values = self.values
        base = np.maximum(self.share * self.deep**3, 1e-9)
        centre = self.mean(base, values)
        for _ in range(8):
            away = np.linalg.norm(values - centre[self.area], axis=1)
            centre = self.mean(base / np.maximum(away, 0.02), values)
        away = np.linalg.norm(values - centre[self.area], axis=1)
        # As wide as the region's own scatter: a narrower window would follow the noise.
        width = np.maximum(self.mean(base, away[:, None]), 0.05)[self.area, 0]
        for _ in range(5):
            off = ((values - centre[self.area]) ** 2).sum(axis=1)
            centre = self.mean(base * np.exp(-off / (2 * width**2)) + 1e-9 * base, values)
        return centre

    def paint(self, flat: np.ndarray, blur: float) -> np.ndarray:
        """What the model would have shown, had every region the colour `flat` (areas, 3): float64 (h', w', 3)."""
        starts = np.flatnonzero(np.diff(self.cell, prepend=-1))
        return _blur(np.add.reduceat(self.share[:, None] * flat[self.area], starts).reshape(self.colours.shape), blur)

    def gather(self, cells: np.ndarray, blur: float) -> np.ndarray:
        """The transpose of `paint`: (h', w', 3) → (areas, 3)."""
        return self.sums(self.share[:, None] * _blur(cells, blur).reshape(-1, 3)[self.cell])

    def unmix(self, voted: np.ndarray) -> tuple[np.ndarray, float]:
        """Region colours (areas, 3) that explain the cells best, mixed cells taken as mixtures, and the blur that explains them best.

        A robust least squares around the vote.
        """
        truth = self.colours.astype(np.float64)
        # A region with cells well inside knows its colour: its vote counts more than cells at its rim.
        hold = (HOLD + 0.3 * np.bincount(self.area, self.share * self.deep**5, self.areas))[:, None]
        solved = [(*self._solve(truth, voted, hold, blur), blur) for blur in BLURS]
        flat, _, blur = min(solved, key=lambda found: found[1])
        return flat, blur

    def _solve(self, truth: np.ndarray, voted: np.ndarray, hold: np.ndarray, blur: float) -> tuple[np.ndarray, float]:
        """The colours and their cost for one blur: conjugate gradients inside, weights against outliers outside."""
        flat = voted
        cost = 0.0
        for _ in range(5):
            error = truth - self.paint(flat, blur)
            away = np.linalg.norm(error, axis=2, keepdims=True)
            trust = np.minimum(OUTLIER / np.maximum(away, 1e-6), 1) ** 2
            step = residual = self.gather(trust * error, blur) + hold * (voted - flat)
            power = (residual**2).sum(axis=0)
            for _ in range(8):
                turned = self.gather(trust * self.paint(step, blur), blur) + hold * step
                length = power / np.maximum((step * turned).sum(axis=0), 1e-12)
                flat = flat + length * step
                residual = residual - length * turned
                before, power = power, (residual**2).sum(axis=0)
                step = residual + power / np.maximum(before, 1e-12) * step
            cost = float((np.minimum(away, OUTLIER) ** 2).mean())
        return np.clip(flat, 0, 1), cost

    def shading(self, flat: np.ndarray, blur: float) -> "_Shading":
        """What the regions' flat colours leave unexplained."""
        return _Shading(self, (self.colours - self.paint(flat, blur)).astype(np.float32), flat)


def _neighbourhood(keys: np.ndarray, count: int, share: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """For each entry, its region's share of the 3 by 3 cells around (a small Gaussian; beyond the picture counts as the cell itself)."""
    rows, columns = shape
    cell, area = keys // count, keys % count
    total = np.zeros(len(keys))
    for dy, dx in np.ndindex(3, 3):
        y = np.clip(cell // columns + dy - 1, 0, rows - 1)
        x = np.clip(cell % columns + dx - 1, 0, columns - 1)
        wanted = (y * columns + x) * count + area
        found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        total += KERNEL[dy] * KERNEL[dx] * np.where(keys[found] == wanted, share[found], 0)
    return total


def _blur(cells: np.ndarray, sigma: float) -> np.ndarray:
    # This border makes the blur its own transpose.
    return cv2.GaussianBlur(cells, (5, 5), sigma, borderType=cv2.BORDER_REFLECT) if sigma else cells


@dataclass(frozen=True, slots=True, eq=False)
class _Shading:
    """How the model's colours differ from flat regions.

    rest: float32 (h', w', 3), cell minus the mixture of its regions' flat colours. flat: (areas, 3).
    """

    cells: _Cells
    rest: np.ndarray
    flat: np.ndarray

    def varying(self, painted: np.ndarray) -> np.ndarray:
        """Regions whose colours vary more than the frame's noise explains, int (n,); `painted` ones (bool) are believed sooner."""
        cells, (rows, columns) = self.cells, self.rest.shape[:2]
        inside = cells.deep > 0.9
        area = np.full(rows * columns, -1, np.int64)
        area[cells.cell[inside]] = cells.area[inside]
        known = (area >= 0).reshape(rows, columns)
        off = _lab(cells.colours) - _lab(np.clip(self.flat, 0, 1))[area].reshape(rows, columns, 3)
        off[~known] = 0
        count = _sum_3x3(known.astype(np.float32))
        slow = _sum_3x3(off) / np.maximum(count, 1)[..., None]
        use = (known & (count >= 5)).ravel()
        number = np.bincount(area[use], minlength=cells.areas)

        def size(values: np.ndarray) -> np.ndarray:
            squares = (values.reshape(-1, 3)[use] ** 2).sum(axis=1)
            return np.sqrt(np.bincount(area[use], squares, cells.areas) / np.maximum(number, 1))

        large = number >= 6
        # Noise changes from cell to cell, shading does not; noise is much the same everywhere, so that the regions settle it together.
        noise = float(np.median(size(off - slow)[large])) if large.any() else 0.0
        enough = np.where(painted, max(PAINTED_VARIES, PAINTED_NOISE * noise), max(VARIES, NOISE * noise))
        return np.flatnonzero(np.where(large, size(slow) > enough, painted))


def _sum_3x3(values: np.ndarray) -> np.ndarray:
    return cv2.boxFilter(values, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)


def _snap(
    voted: np.ndarray,
    cells: _Cells,
    options: FinishOptions,
    palette: np.ndarray | None,
    labels: np.ndarray | None,
    palettes: Mapping[int, np.ndarray],
    areas: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Each region's flat colour, uint8 (areas, 3), and whether it is painted: of references whose flat colours it is not one of."""
    flat = _uint8(voted)
    painted = np.zeros(cells.areas, bool)
    label = np.zeros(cells.areas, np.int64) if labels is None else _label_of(areas, labels, cells.areas)
    for value in np.unique(label):
        known = palette if labels is None else palettes.get(int(value), palette)
        if known is None:
            continue
        mine = np.flatnonzero(label == value)
        nearest, distance = _nearest_colour(flat[mine], known)
        near = distance <= SNAP
        painted[mine] = ~near
        if options.palette == "snap":
            flat[mine[near]] = nearest[near]
    return flat, painted


def _label_of(areas: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The label most of each region lies in."""
    values, index = np.unique(labels, return_inverse=True)
    votes = np.bincount(areas.ravel() * len(values) + index.ravel(), minlength=count * len(values))
    return values[votes.reshape(count, -1).argmax(axis=1)]


def _nearest_colour(colours: np.ndarray, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The palette's colour nearest to each of `colours` (n, 3), and how far it is."""
    if not len(palette):
        return colours, np.full(len(colours), np.inf)
    distance = np.linalg.norm(_lab(colours)[:, None] - _lab(palette)[None], axis=2)
    return palette[distance.argmin(axis=1)], distance.min(axis=1)


def _shade(fills: np.ndarray, areas: np.ndarray, area: int, shading: _Shading, flat: np.ndarray) -> None:
    """Paint one region with its flat colour and its own cells' shading, interpolated up to its border, in place."""
    cells, (rows, columns) = shading.cells, shading.rest.shape[:2]
    mine = cells.area == area
    weight = np.zeros(rows * columns, np.float32)
    weight[cells.cell[mine]] = cells.share[mine] * cells.deep[mine] ** DEEP
    if weight.max() < 0.05:
        return
    field = _fill_in(shading.rest, weight.reshape(rows, columns) / weight.max())
    h, w = areas.shape
    inside = areas == area
    fills[inside] = _uint8(flat + cv2.resize(field, (w, h), interpolation=cv2.INTER_LINEAR)[inside])


def _fill_in(colours: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Colours where they have weight, and what surrounds them where they have none: pull down a pyramid, push back up."""
    h, w = weight.shape
    if h <= 1 and w <= 1:
        return colours
    half = ((w + 1) // 2, (h + 1) // 2)
    weighed = np.dstack([colours * weight[..., None], weight])
    small = cv2.resize(weighed, half, interpolation=cv2.INTER_AREA)
    below = _fill_in(small[..., :3] / np.maximum(small[..., 3:], 1e-9), np.minimum(small[..., 3] * 4, 1))
    trust = np.minimum(weight, 1)[..., None]
    return (trust * colours + (1 - trust) * cv2.resize(below, (w, h), interpolation=cv2.INTER_LINEAR)).astype(np.float32)


def _flat_colours(reference: Reference) -> list[tuple[tuple[int, int, int], int]]:
    """Colours of a reference's flat areas with their pixel counts."""
    image = reference.image
    h, w = image.shape[:2]
    side = 2 * max(1, round(min(h, w) / 400)) + 1
    kernel = np.ones((side, side), np.uint8)
    flat = (cv2.dilate(image, kernel).astype(np.int16) - cv2.erode(image, kernel)).max(axis=2) <= 3
    if reference.alpha is not None:
        flat &= cv2.erode(reference.alpha, kernel) > 250
    pixels = image[flat]
    if not len(pixels):
        return []
    packed = pixels.astype(np.int64) @ np.array([65536, 256, 1])
    values, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    values, counts = values[order], counts[order].astype(np.float64)
    colours = np.stack([values >> 16, values >> 8 & 255, values & 255], axis=1).astype(np.uint8)
    lab = _lab(colours)
    found: list[tuple[tuple[int, int, int], int]] = []
    left = np.ones(len(values), bool)
    smallest = max(12.0, 2e-5 * h * w)
    for i in range(len(values)):
        if not left[i]:
            continue
        distance = np.linalg.norm(lab - lab[i], axis=1)
        core, around = counts[distance <= 2].sum(), counts[distance <= 6].sum()
        left &= distance > 3
        if core < smallest:
            continue
        if core > 0.6 * around:
            found.append(((int(colours[i, 0]), int(colours[i, 1]), int(colours[i, 2])), int(core)))
        if len(found) >= 64 or counts[i] < 3:
            break
    visible = h * w if reference.alpha is None else np.count_nonzero(reference.alpha)
    return found if sum(count for _, count in found) > 0.15 * visible else []


def _distinct(colours: np.ndarray, apart: float) -> np.ndarray:
    """The colours without those too near to one before them."""
    kept: list[int] = []
    lab = _lab(colours) if len(colours) else np.zeros((0, 3), np.float32)
    for i in range(len(colours)):
        if not kept or np.linalg.norm(lab[kept] - lab[i], axis=1).min() > apart:
            kept.append(i)
    return colours[kept]
