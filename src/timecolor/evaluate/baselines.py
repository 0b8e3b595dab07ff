"""What a model has to beat: four ways to colour a shot without training, each through the finish stage that the model has.

copy: a reference as it stands. flow: references warped along optical flow between drawings. analogy: patches of a reference's
line art sought in the drawing. segments: closed regions of the drawing matched to those of a reference. And paste, the bare
picture without the shot's lines: where a shot hardly moves and its sketch is rough, it is the nearest to the truth.

All are given what the model is given: the sketch, the references, and the labels where the shot has any. A label without a
reference, and what no reference shows, stays white paper.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import cv2
import numpy as np

from timecolor import codec, finish, propagation
from timecolor.choice import judge
from timecolor.evaluate import analogy
from timecolor.finish import Finisher, FinishOptions, Strokes
from timecolor.geometry import Clip, Compression
from timecolor.pairing import Drawn, paired
from timecolor.shapes import Bool, UInt8
from timecolor.shot import Reference, Shot
from timecolor.sketch import lines_in, without_lines

BaselineName = Literal["copy", "flow", "analogy", "segments", "paste"]
BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)

PAPER = 255
READ_AT_ONCE = 8  # native frames held in memory

SMALLEST = 64  # px, below which OpenCV seeks no flow
PLATE_SIDE = 160  # the model's short side, at which the finish is told where plates lie
INK = propagation.INK


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What a baseline made of a shot. frames: uint8 (t, h, w, 3), at the sketch's size. seconds: all work, reading included."""

    frames: UInt8[np.ndarray, "t h w 3"]
    seconds: float


def baseline(name: str, shot: Shot, options: FinishOptions = FinishOptions()) -> Made:
    """Colour a shot without a model.

    Raises ValueError for an unknown name, a shot without references, and a label whose reference is not there.
    """
    if name not in BASELINES:
        raise ValueError(f"unknown baseline {name!r}; use one of {', '.join(BASELINES)}")
    if not shot.references:
        raise ValueError(f"{shot.name}: no reference to take colours from; give at least one")
    started = time.perf_counter()
    if name == "paste":
        return Made(np.array(copy_baseline(shot)), time.perf_counter() - started)
    method, side = _METHODS[name]
    scene = _Scene.of(shot, side)
    strokes = None
    if options.lines == "match":
        lines = {picture.index: picture.lines for picture in scene.pictures if picture.whole}
        sketches = [drawing.sketch for drawing in scene.drawings]
        strokes = Strokes.of(scene.shot, lines, sketches, scene.of_frame, sorted(scene.labels))
    finisher = Finisher.of(scene.shot, scene.labels, options, judge(), strokes, scene.paired)
    made, drawing = [], -1
    colours = method(scene)
    cells, ways = np.zeros(0), []
    for start in range(0, len(scene.of_frame), READ_AT_ONCE):
        for i, sketch in enumerate(shot.sketch[start : start + READ_AT_ONCE], start):
            while drawing < scene.of_frame[i]:
                cells, drawing = next(colours), drawing + 1
                ways = scene.plate_ways(scene.drawings[drawing])
            areas = None if shot.labels is None else np.asarray(shot.labels.video[i : i + 1])[0]
            made.append(finisher(cells, sketch, areas, ways))
    return Made(np.stack(made), time.perf_counter() - started)


def copy_baseline(shot: Shot) -> UInt8[np.ndarray, "t h w 3"]:
    """A reference pasted as every frame (a read-only view): the plate or whole frame where there is one, else the first.

    A cut-out is pasted on white paper. Of about the frame's aspect, a reference is stretched to it; else letterboxed on white.
    """
    if not shot.references:
        raise ValueError(f"{shot.name}: no reference to copy; give at least one")
    frames, height, width = shot.sketch.shape[:3]
    reference = min(shot.references, key=_rank)
    image = reference.image
    if reference.alpha is not None:
        alpha = reference.alpha[..., None].astype(np.float32) / 255
        image = (image * alpha + PAPER * (1 - alpha) + 0.5).astype(np.uint8)
    h, w = image.shape[:2]
    scale = min(height / h, width / w)
    # A pixel or two of a rounded size is not worth a white rim.
    alike = abs(w * height / (h * width) - 1) < 0.03
    size = (width, height) if alike else (max(1, round(w * scale)), max(1, round(h * scale)))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    pasted = np.full((height, width, 3), PAPER, np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    pasted[top : top + size[1], left : left + size[0]] = image
    return np.broadcast_to(pasted, (frames, height, width, 3))


def _rank(reference: Reference) -> int:
    """0 = shows the whole frame. `min` keeps the first of equals."""
    if reference.role in ("frame", "background"):
        return 0
    opaque = reference.alpha is None or bool((reference.alpha == 255).all())
    return 1 if opaque and reference.role is None else 2


# ---------------------------------------------------------------- a shot at the working size


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """A reference at the working size, letterboxed.

    fills: uint8 (h, w, 3), its colours without its lines, going on beyond what is known. lines: uint8 (h, w), their darkness.
    shown: bool (h, w), where it shows anything. known: bool (h, w), where its colours may be taken. whole: it shows the whole
    frame. index: which reference it is.
    """

    fills: np.ndarray
    lines: np.ndarray
    shown: np.ndarray
    known: np.ndarray
    whole: bool
    index: int

    @staticmethod
    def of(
        reference: Reference, index: int, working: Clip, native: Clip, on_paper: bool, drawn: Drawn | None = None
    ) -> "_Picture":
        """on_paper: the white around it counts as shown, since nothing else tells what is there. drawn: as in `letterbox`."""
        whole = reference.shows_frame(native.height, native.width)
        boxed = codec.letterbox(reference, working, native, PAPER, drawn)
        known = boxed.shown | on_paper
        fills = without_lines(boxed.fills, np.zeros_like(boxed.lines), np.where(known, np.uint8(255), np.uint8(0)))
        return _Picture(fills, boxed.lines, boxed.shown, known, whole, index)


@dataclass(frozen=True, slots=True, eq=False)
class _Drawing:
    """A drawing at the working size. sketch: uint8 (h, w, 3). ink: uint8 (h, w), darkness of its lines. areas: labels (h, w)."""

    sketch: np.ndarray
    ink: np.ndarray
    areas: np.ndarray | None


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """A shot at the working size. A held drawing is kept once; of_frame: drawing of each frame. labels: those present.

    paired: the drawings that coloured frames by number were made on.
    """

    shot: Shot
    pictures: list[_Picture]
    drawings: list[_Drawing] = field(default_factory=list)
    of_frame: list[int] = field(default_factory=list)
    labels: set[int] = field(default_factory=set)
    paired: dict[int, Drawn] = field(default_factory=dict)

    @staticmethod
    def of(shot: Shot, short_side: int) -> "_Scene":
        frames, height, width = shot.sketch.shape[:3]
        native = Clip(frames, height, width)
        # Never larger than the sketch, and never smaller than what flow can be sought in.
        working = Compression(time=1, space=4, patch=2).nearest(native, max(SMALLEST, min(short_side, height, width)))
        cut_outs = [r.cut_out(height, width) for r in shot.references]
        on_paper = shot.labels is None and all(r.alpha is not None for r in cut_outs)
        scene = _Scene(
            replace(shot, references=cut_outs), [_Picture.of(r, i, working, native, on_paper) for i, r in enumerate(cut_outs)]
        )
        for start in range(0, frames, READ_AT_ONCE):
            read = slice(start, min(frames, start + READ_AT_ONCE))
            areas = None if shot.labels is None else np.asarray(shot.labels.video[read]).astype(np.int32)
            for i, sketch in enumerate(codec.shrink(shot.sketch[read], working)):
                scene._add(sketch, None if areas is None else areas[i])
        sketches = [drawing.sketch for drawing in scene.drawings]
        scene.paired.update(paired(scene.shot, {p.index: p.lines for p in scene.pictures if p.whole}, sketches, scene.of_frame))
        for i, drawn in scene.paired.items():
            scene.pictures[i] = _Picture.of(cut_outs[i], i, working, native, on_paper, drawn)
        return scene

    def _add(self, sketch: np.ndarray, areas: np.ndarray | None) -> None:
        if areas is not None:
            self._check(set(np.unique(areas).tolist()) - self.labels)
            size = (sketch.shape[1], sketch.shape[0])
            areas = cv2.resize(areas.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(np.int32)
        last = self.drawings[-1] if self.drawings else None
        # A coder's noise on a held drawing is a few grey levels; a new drawing moves whole lines.
        held = last is not None and int(cv2.absdiff(sketch, last.sketch).max()) <= 12
        if last is None or not held or not _alike(areas, last.areas):
            self.drawings.append(_Drawing(sketch, propagation.ink(sketch), areas))
        self.of_frame.append(len(self.drawings) - 1)

    def _check(self, new: set[int]) -> None:
        for label in sorted(new):
            missing = [r for r in self.references_of(label) if not 0 <= r < len(self.pictures)]
            if missing:
                raise ValueError(
                    f"{self.shot.name}: label {label} would take reference {missing[0]} but there are {len(self.pictures)} "
                    "(counted from 0); give it one in Labels.references, or () for none"
                )
        self.labels.update(new)

    def references_of(self, label: int) -> tuple[int, ...]:
        return () if self.shot.labels is None else self.shot.labels.references_of(label)

    def plate_ways(self, drawing: _Drawing) -> list[list[propagation.Way]]:
        """How each picture of a whole frame may lie on a drawing, as the finish of the model's colours is told."""
        h, w = drawing.ink.shape
        scale = min(1.0, PLATE_SIDE / min(h, w))
        size = round(w * scale), round(h * scale)
        lines = [cv2.resize(p.lines, size, interpolation=cv2.INTER_AREA) for p in self.pictures if p.whole]
        sketch = cv2.resize(drawing.sketch, size, interpolation=cv2.INTER_AREA)
        return [propagation.ways(own, sketch, propagation.flows(own, sketch)) for own in lines]

    def area(self, drawing: _Drawing, picture: _Picture) -> Bool[np.ndarray, "h w"]:
        """Where a picture may colour a drawing."""
        if drawing.areas is None:
            return np.ones(drawing.ink.shape, bool)
        mine = [label for label in self.labels if picture.index in self.references_of(label)]
        return np.isin(drawing.areas, mine)

    def view(self, drawing: _Drawing, picture: _Picture) -> UInt8[np.ndarray, "h w"]:
        """The ink that belongs to what a picture may colour: lines of its areas, with those at their rim."""
        return drawing.ink if drawing.areas is None else lines_in(drawing.ink, self.area(drawing, picture))


def _alike(areas: np.ndarray | None, others: np.ndarray | None) -> bool:
    return areas is others if areas is None or others is None else np.array_equal(areas, others)


def _box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """left, top, width, height of what is set; None where nothing is."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return (x, y, w, h) if w else None


# ---------------------------------------------------------------- copy


def _copy(scene: _Scene) -> Iterator[np.ndarray]:
    """Each area takes what the first of its references shows at that place; plates and frames come before cut-outs."""
    ranked = sorted(scene.pictures, key=lambda picture: _rank(scene.shot.references[picture.index]))
    for drawing in scene.drawings:
        colours = np.full((*drawing.ink.shape, 3), PAPER, np.uint8)
        left = np.ones(drawing.ink.shape, bool)
        for picture in ranked:
            mine = left & picture.shown & scene.area(drawing, picture)
            colours[mine] = picture.fills[mine]
            left &= ~mine
        yield colours / np.float32(255)


# ---------------------------------------------------------------- flow


FLOW_SIDE = 200


def _flow(scene: _Scene) -> Iterator[np.ndarray]:
    """Pictures warped onto each drawing, directly and through the drawings between, as fits best by the lines.

    Where several pictures may colour an area, each pixel takes the one whose lines fit best around it. A cut-out or sheet starts
    from where its box lies on the ink of its area, or as it stands.
    """
    used = _flowing(scene)
    tracks = [_Track.of(scene, picture) for picture in used]
    for t, drawing in enumerate(scene.drawings):
        colours = np.full((*drawing.ink.shape, 3), PAPER, np.uint8)
        best = np.full(drawing.ink.shape, np.inf, np.float32)
        for picture, track in zip(used, tracks, strict=True):
            nearer = scene.area(drawing, picture) & (track.misfits[t] < best)
            best[nearer] = track.misfits[t][nearer]
            colours[nearer] = propagation.warp(picture.fills, track.fields[t])[nearer]
        yield colours / np.float32(255)


def _flowing(scene: _Scene) -> list[_Picture]:
    """Pictures with a place in the frame: whole ones, and others where labels or the lack of whole ones tell where they go."""
    whole = [picture for picture in scene.pictures if picture.whole]
    return list(scene.pictures) if scene.shot.labels is not None or not whole else whole


@dataclass(frozen=True, slots=True, eq=False)
class _Track:
    """A picture followed through the drawings: its flow onto each, (h, w, 2), and how badly its lines fit there, (h, w)."""

    fields: list[np.ndarray]
    misfits: list[np.ndarray]

    @staticmethod
    def of(scene: _Scene, picture: _Picture) -> "_Track":
        views = [scene.view(drawing, picture) for drawing in scene.drawings]
        found = propagation.follow(picture.lines, views, [_places(picture, view) for view in views])
        return _Track([field for field, _ in found], [misfit for _, misfit in found])


def _places(picture: _Picture, view: np.ndarray) -> list[np.ndarray]:
    """Flows, (h, w, 2), to start from: as the picture stands, and, for what is no whole frame, box on box."""
    h, w = view.shape
    still = np.zeros((h, w, 2), np.float32)
    target, source = _box(view > INK), _box(picture.shown)
    if picture.whole or target is None or source is None:
        return [still]
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    to_x = (x - target[0]) * (source[2] / target[2]) + source[0]
    to_y = (y - target[1]) * (source[3] / target[3]) + source[1]
    return [still, np.dstack([to_x - x, to_y - y]).astype(np.float32)]


# ---------------------------------------------------------------- analogy


PATCH_SIDE = 160


def _analogy(scene: _Scene) -> Iterator[np.ndarray]:
    """Each area takes, place by place, what its references' patches of like lines have: see `analogy`."""
    sources = [analogy.Patches.of(_source(scene, picture)) for picture in scene.pictures]
    for drawing in scene.drawings:
        size = tuple(-(-n // analogy.STRIDE) for n in drawing.ink.shape)
        cost = np.full(size, np.inf, np.float32)
        colours = np.full((*size, 3), float(PAPER), np.float32)
        for picture, source in zip(scene.pictures, sources, strict=True):
            found, error = source.carried(drawing.ink, scene.area(drawing, picture))
            nearer = error < cost
            cost[nearer], colours[nearer] = error[nearer], found[nearer]
        yield colours / np.float32(255)


def _source(scene: _Scene, picture: _Picture) -> analogy.Source:
    """A picture for `analogy`, at the size that labels suggest."""
    scale = 1.0
    if scene.shot.labels is not None:
        largest = max((int(scene.area(drawing, picture).sum()) for drawing in scene.drawings), default=0)
        scale = analogy.expected_scale(largest, int(picture.shown.sum()))
    return analogy.Source(picture.fills, picture.lines, picture.known, picture.whole, scale)


# ---------------------------------------------------------------- segments


REGION_SIDE = 480  # `finish.regions` closes the same gaps from this size on
# Weights of what tells regions apart: size, shape, place in the frame or in the box of a cut-out, overlap with a frame's regions
# and with another drawing's, and what their neighbours find.
SIZE, SHAPE, IN_FRAME, IN_BOX, INSIDE, OVERLAP, NEIGHBOURS = 0.6, 1.0, 1.5, 1.0, 1.0, 1.0, 1.0
LINK = 0.15  # what a step from drawing to drawing costs


def _segments(scene: _Scene) -> Iterator[np.ndarray]:
    """One colour a closed region: that of the region most like it in a reference or in the neighbouring drawing, the surer one.

    A drawing's region is as sure as the weakest link of the chain that leads to a reference.
    """
    known = [_Regions.of_picture(picture) for picture in scene.pictures]
    drawn = [_Regions.of_drawing(drawing) for drawing in scene.drawings]
    best = [_from_references(scene, drawing, regions, known) for drawing, regions in zip(scene.drawings, drawn, strict=True)]
    # The drawing that its references explain best is where the others are coloured from.
    anchor = int(np.argmin([_mean_cost(regions, cost) for regions, (_, cost) in zip(drawn, best, strict=True)]))
    for t in [*range(anchor + 1, len(drawn)), *range(anchor - 1, -1, -1)]:
        before = t - 1 if t > anchor else t + 1
        best[t] = _from_neighbour(drawn[t], best[t], drawn[before], best[before])
    for regions, (colours, _) in zip(drawn, best, strict=True):
        yield colours[regions.map] / np.float32(255)


@dataclass(frozen=True, slots=True, eq=False)
class _Regions:
    """Closed regions of a picture, n of them.

    map: int (h, w). area: (n,) in pixels. about: float (n, d), log size, then shape. place: (n, 2) in picture heights.
    border: (n, n), length of common borders as a share of each region's. label: (n,), -1 = none.
    colours: uint8 (n, 3), of a reference. known: bool (n,), whether its colour may be taken.
    """

    map: np.ndarray
    area: np.ndarray
    about: np.ndarray
    place: np.ndarray
    border: np.ndarray
    label: np.ndarray
    colours: np.ndarray
    known: np.ndarray

    @staticmethod
    def of_drawing(drawing: _Drawing) -> "_Regions":
        return _Regions._of(finish.regions(drawing.sketch), None, None, drawing.areas)

    @staticmethod
    def of_picture(picture: _Picture) -> "_Regions":
        lines = cv2.cvtColor(255 - picture.lines, cv2.COLOR_GRAY2RGB)
        return _Regions._of(finish.regions(lines), picture.fills, picture.known, None)

    @staticmethod
    def _of(found: np.ndarray, fills: np.ndarray | None, shown: np.ndarray | None, labels: np.ndarray | None) -> "_Regions":
        h, w = found.shape
        count = int(found.max()) + 1
        flat = found.ravel()
        area = np.bincount(flat, minlength=count).astype(np.float64)
        y, x = (v.ravel() / h for v in np.mgrid[0:h, 0:w])
        mean = lambda v: np.bincount(flat, v, count) / area  # noqa: E731
        cy, cx = mean(y), mean(x)
        yy, xx, xy = mean(y * y) - cy**2, mean(x * x) - cx**2, mean(x * y) - cx * cy
        spread = np.sqrt(np.maximum(yy + xx, 1e-7))
        lean = np.stack([(yy - xx) / spread**2, 2 * xy / spread**2], axis=1)
        full = np.log(np.maximum(area / h**2, 1e-7) / spread**2)[:, None]
        size = np.log(np.sqrt(area) / h)[:, None]
        about = np.concatenate([size, 0.7 * lean, 0.4 * full, 0.5 * _outline(found, count)], axis=1)
        return _Regions(
            found,
            area,
            about,
            np.stack([cy, cx], axis=1),
            _borders(found, count),
            _majority(found, count, labels) if labels is not None else np.full(count, -1),
            _most_frequent(found, count, fills) if fills is not None else np.zeros((count, 3), np.uint8),
            mean(shown.ravel().astype(np.float64)) > 0.5 if shown is not None else np.ones(count, bool),
        )


def _outline(found: np.ndarray, count: int, side: int = 6) -> np.ndarray:
    """Each region drawn into `side` x `side` cells of its own box: (count, side * side), unit length."""
    h, w = found.shape
    flat = found.ravel()
    y, x = (v.ravel() for v in np.mgrid[0:h, 0:w])
    bins = []
    for v in (y, x):
        low, high = np.full(count, 10**6), np.zeros(count, np.int64)
        np.minimum.at(low, flat, v)
        np.maximum.at(high, flat, v)
        bins.append((v - low[flat]) * side // (high - low + 1)[flat])
    drawn = np.bincount((flat * side + bins[0]) * side + bins[1], minlength=count * side * side).reshape(count, -1)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _borders(found: np.ndarray, count: int) -> np.ndarray:
    pairs = np.concatenate(
        [np.stack([a[a != b], b[a != b]]) for a, b in ((found[:, 1:], found[:, :-1]), (found[1:], found[:-1]))], axis=1
    )
    border = np.bincount(pairs[0] * np.int64(count) + pairs[1], minlength=count * count).reshape(count, count).astype(np.float32)
    border += border.T
    return border / np.maximum(border.sum(axis=1, keepdims=True), 1)


def _majority(found: np.ndarray, count: int, labels: np.ndarray) -> np.ndarray:
    values, index = np.unique(labels, return_inverse=True)
    votes = np.bincount(found.ravel() * np.int64(len(values)) + index.ravel(), minlength=count * len(values))
    return values[votes.reshape(count, -1).argmax(axis=1)]


def _most_frequent(found: np.ndarray, count: int, fills: np.ndarray) -> np.ndarray:
    """Each region's most frequent colour, in steps of 8 levels, then the mean of what lies in that step."""
    packed = (fills >> 3).astype(np.int64) @ np.array([1024, 32, 1])
    key, inverse, number = np.unique(found.astype(np.int64) * 32768 + packed, return_inverse=True, return_counts=True)
    mean = np.stack([np.bincount(inverse.ravel(), fills[..., c].ravel()) for c in range(3)], axis=1) / number[:, None]
    order = np.argsort(number, kind="stable")
    colours = np.full((count, 3), PAPER, np.uint8)
    colours[key[order] // 32768] = (mean[order] + 0.5).astype(np.uint8)
    return colours


def _unlikeness(mine: _Regions, other: _Regions, allowed: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Cost (n, m) of taking a region for another, with what their neighbours say; inf where it is not allowed.

    place: (n, m), what their places cost.
    """
    size = np.abs(mine.about[:, None, 0] - other.about[None, :, 0])
    a, b = mine.about[:, 1:], other.about[:, 1:]
    shape = np.sqrt(np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0))
    cost = SIZE * np.minimum(size, 3) + SHAPE * shape
    spoken = cost = np.where(allowed, cost + place, np.inf)
    for _ in range(2):
        like = np.exp(-spoken)
        # What a region's neighbours find best among the neighbours of its match.
        near = np.stack([like[:, border > 0].max(axis=1, initial=0) for border in other.border], axis=1)
        spoken = cost + NEIGHBOURS * (1 - mine.border @ near)
    return spoken


def _away(mine: _Regions, other: _Regions) -> np.ndarray:
    """How far apart two regions lie, (n, m)."""
    return np.minimum(np.linalg.norm(mine.place[:, None] - other.place[None], axis=2), 0.6)


def _apart(mine: _Regions, other: _Regions, hidden: bool) -> np.ndarray:
    """Share of two regions' union that they do not have in common, (n, m), as they lie; 0 = the same place.

    hidden: of the first alone, since parts of the other's are in a drawing hidden by who stands before them.
    """
    n, m = len(mine.area), len(other.area)
    both = np.bincount(mine.map.ravel() * np.int64(m) + other.map.ravel(), minlength=n * m).reshape(n, m)
    return 1 - both / (mine.area[:, None] if hidden else mine.area[:, None] + other.area[None] - both)


def _from_references(
    scene: _Scene, drawing: _Drawing, regions: _Regions, known: Sequence[_Regions]
) -> tuple[np.ndarray, np.ndarray]:
    """Colours (n, 3) by the most similar region of all references that may be used, and what that costs (n,)."""
    n = len(regions.area)
    colours, cost = np.full((n, 3), PAPER, np.uint8), np.full(n, np.inf)
    for picture, source in zip(scene.pictures, known, strict=True):
        if scene.shot.labels is None:
            mine = np.ones(n, bool)
        else:
            mine = np.array([picture.index in scene.references_of(int(label)) for label in regions.label])
        if not mine.any() or not source.known.any():
            continue
        area = scene.area(drawing, picture)
        here = regions if picture.whole else _boxed(regions, area)
        there = source if picture.whole else _boxed(source, picture.known)
        place = IN_BOX * _away(here, there)
        if picture.whole:
            place = IN_FRAME * _away(here, there) + INSIDE * _apart(here, there, hidden=True)
        unlike = _unlikeness(here, there, mine[:, None] & source.known[None], place)
        best = unlike.argmin(axis=1)
        least = unlike[np.arange(n), best]
        nearer = least < cost
        colours[nearer], cost[nearer] = source.colours[best[nearer]], least[nearer]
    return colours, cost


def _boxed(regions: _Regions, mask: np.ndarray) -> _Regions:
    """Places and sizes within the box of what is set, so that a cut-out of another size is comparable."""
    h = mask.shape[0]
    left, top, width, height = _box(mask) or (0, 0, mask.shape[1], h)
    place = (regions.place * h - (top, left)) / (height, width)
    about = regions.about.copy()
    about[:, 0] += np.log(h) - np.log(np.sqrt(max(1, int(mask.sum()))))
    return replace(regions, place=place, about=about)


def _mean_cost(regions: _Regions, cost: np.ndarray) -> float:
    """By area, of the regions that may take any colour."""
    able = np.isfinite(cost)
    return float(np.average(cost[able], weights=regions.area[able])) if able.any() else np.inf


def _from_neighbour(
    regions: _Regions, own: tuple[np.ndarray, np.ndarray], before: _Regions, known: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """`own` or what the neighbouring drawing's most similar regions have, whichever costs less from the references on."""
    allowed = regions.label[:, None] == before.label[None]
    place = IN_FRAME * _away(regions, before) + OVERLAP * _apart(regions, before, hidden=False)
    unlike = _unlikeness(regions, before, allowed, place)
    unlike = np.maximum(unlike, known[1][None]) + LINK
    best = unlike.argmin(axis=1)
    least = unlike[np.arange(len(best)), best]
    nearer = least < own[1]
    return np.where(nearer[:, None], known[0][best], own[0]), np.where(nearer, least, own[1])


_METHODS: dict[str, tuple[Callable[[_Scene], Iterator[np.ndarray]], int]] = {
    "copy": (_copy, PATCH_SIDE),
    "flow": (_flow, FLOW_SIDE),
    "analogy": (_analogy, PATCH_SIDE),
    "segments": (_segments, REGION_SIDE),
}
