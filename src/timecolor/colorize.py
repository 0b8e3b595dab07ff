"""The façade: the only place that walks the whole way from a shot to coloured frames at its own size."""

import itertools
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from timecolor import codec, matching, models, pairing, propagation
from timecolor.attention import Execution
from timecolor.carrying import Carrying, Made, flows_of, track_of
from timecolor.correspondence import MOST_REFERENCES, CellRule, Regime, Rule, label_bits, shot_tokens, unlabelled
from timecolor.denoiser import Conditions, Model, Picture, Work
from timecolor.finish import Fill, Finisher, FinishOptions, Lines, PaletteMode, Strokes
from timecolor.finishing import AT_ONCE, Finishing, Given
from timecolor.geometry import Clip, Compression, Grid
from timecolor.layout import TokenLayout
from timecolor.sampling import sample
from timecolor.shot import Frames, Shot
from timecolor.sketch import SketchStyle, extract_clip, require_line_art, without_lines

Solver = Literal["euler", "ddim", "dpm", "unipc"]

READ_AT_ONCE = 8  # native frames held in memory
FINISH_BYTES = 48  # of each pixel, while a frame is finished
PIECE_TOKENS = 80_000  # target and sketch tokens run at once; longer shots go in pieces


@dataclass(frozen=True, slots=True)
class ColorizeOptions:
    """How a shot is coloured; the same in Python, in files and on the command line. Unset (None) = as the model was made for.

    Parameters
    ----------
    steps
        Sampling steps; the shipped weights decide in one or two (2), CogVideoX takes 50.
    seed
        One seed, one result.
    size
        The model's working short side in pixels. The output has the sketch's own size.
    window
        Drawings to either side that a drawing sees; "all" = every one.
    lines
        match = the artist's own on top, in the colour and as strong as a coloured frame of the shot has them, without those that
        references do not show, as borders of shade, and what a drawing holds of a frame as it is there; keep = the artist's own,
        to the byte; model = the network's picture as it is; none = the colours alone.
    finish
        flat = one colour a closed region; smooth = spread up to the lines; auto = by region.
    palette
        snap = a flat region near a colour of its references takes exactly that one; free = colours stay as found.
    cells
        How labels become tokens: coverage = every label that fills a share of one; majority = the published vote.
    regime
        cached = conditions run once a shot; joint = with every step, as published, for comparison.
    extract_lines
        The sketch is a colour clip: take its lines first. Otherwise it must be line art.
    sketch_style
        How extracted lines look.
    execution
        How attention is run; auto = by device and size.
    prompt
        A text, for models that read one.
    guidance
        How far to go from the empty prompt's colours to the prompt's.
    solver
        How to walk from noise to colours, where a model has several: ddim, dpm, unipc.
    """

    steps: int | None = None
    seed: int = 0
    size: int | None = None
    window: int | Literal["all"] | None = None
    lines: Lines = "match"
    finish: Fill = "auto"
    palette: PaletteMode = "snap"
    cells: CellRule | None = None
    regime: Regime | None = None
    extract_lines: bool = False
    sketch_style: SketchStyle = "clean"
    execution: Execution = "auto"
    prompt: str = ""
    guidance: float | None = None
    solver: Solver | None = None

    def __post_init__(self) -> None:
        for name, least, also in (("steps", 1, (None,)), ("seed", 0, ()), ("size", 1, (None,)), ("window", 0, (None, "all"))):
            value = getattr(self, name)
            if value not in also and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                words = "".join(f", or {x}" for x in also)
                raise ValueError(f"{name} is {value!r}; give a whole number of at least {least}{words}")
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(kind) and not (value is None and name in _MODELS_OWN):
                raise ValueError(f"{name} is {value!r}; use one of {', '.join(get_args(kind))}")
        if self.guidance is not None and (not isinstance(self.guidance, int | float) or not 0 <= self.guidance < 100):
            raise ValueError(f"guidance is {self.guidance!r}; give a number of at least 0 and under 100")
        if not isinstance(self.prompt, str):
            raise ValueError(f"prompt is {self.prompt!r}; give a text")
        if not isinstance(self.extract_lines, bool):
            raise ValueError(f"extract_lines is {self.extract_lines!r}; give true or false, and the style as sketch_style")
        if self.sketch_style != "clean" and not self.extract_lines:
            raise ValueError(f"sketch_style is {self.sketch_style} but no lines are taken; add extract_lines, or leave it out")

    def settled(self, model: Model) -> "ColorizeOptions":
        """The same with nothing left open: the model's own choices filled in."""
        own = model.defaults
        values = {"steps": own.steps, "size": own.short_side, "cells": own.cells, "regime": own.regime, "guidance": own.guidance}
        values["window"] = "all" if own.window is None else own.window
        return replace(self, **{name: value for name, value in values.items() if getattr(self, name) is None})


_CHOICES = {
    "lines": Lines,
    "finish": Fill,
    "palette": PaletteMode,
    "cells": CellRule,
    "regime": Regime,
    "sketch_style": SketchStyle,
    "execution": Execution,
    "solver": Solver,
}
_MODELS_OWN = ("cells", "regime", "solver")  # choices that may be left to the model


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the work is: `done` of `total` of a stage."""

    stage: Literal["reading", "matching", "preparing", "sampling", "finishing"]
    done: int
    total: int


@dataclass(frozen=True, slots=True, eq=False)
class Coloured:
    """One finished frame, uint8 (h, w, 3), in the shot's order."""

    index: int
    frame: np.ndarray


@dataclass(frozen=True, slots=True)
class Need:
    """What a job takes. memory_bytes: peak beyond the program itself. operations: multiply-adds x 2 of the network.

    rung: of the model's memory ladder, on which the job would run; rungs: the peak on each, fastest first.
    """

    working: Clip
    grid: Grid
    piece: int
    tokens: int
    memory_bytes: int
    operations: float
    rung: str
    rungs: Mapping[str, int]


class Cancelled(Exception):  # noqa: N818 (not an error)
    """The caller asked to stop."""


class Colorizer:
    """A loaded model, for any number of shots."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @classmethod
    def load(
        cls,
        model: str | Path = "toon",
        device: str = "auto",
        dtype: str = "auto",
        base: str | Path | None = None,
        memory: str = "auto",
    ) -> "Colorizer":
        """See `models.load`."""
        return cls(models.load(model, device, dtype, base, memory))

    def need(self, shot: Clip, references: int, options: ColorizeOptions = ColorizeOptions()) -> Need:
        """Predict size, memory and operations for a shot of this size."""
        options = options.settled(self.model)
        work = self._work(shot, references, options)
        grid, compression = work.grid, self.model.compression
        pixels, matched = shot.height * shot.width, 0 if self.model.matcher is None else matching.memory_bytes(shot)
        pictures = READ_AT_ONCE * 6 * pixels + grid.tokens * compression.time * compression.cell**2 * 3
        pictures += AT_ONCE * (FINISH_BYTES * pixels + matched)
        tokens = 2 * grid.tokens + references * grid.per_frame
        rungs = {rung: peak + pictures for rung, peak in self.model.memory_bytes(work).items()}
        rung = self.model.memory
        if rung == "auto":
            free = _free_bytes(self.model.device)
            fitting = (rung for rung, peak in rungs.items() if free is None or peak <= free)
            rung = next(fitting, min(rungs, key=lambda rung: rungs[rung]))
        return Need(work.working, grid, work.piece, tokens, rungs[rung], self.model.operations(work), rung, rungs)

    def fits(self, need: Need) -> bool:
        """Whether there is the memory for it now; True where the system does not tell."""
        free = _free_bytes(self.model.device)
        return free is None or need.memory_bytes <= free

    @torch.inference_mode()
    def measured_seconds(self, need: Need, references: int, options: ColorizeOptions) -> float:
        """Time of the network's part of a job, from a run of a few drawings at the job's working size."""
        options = options.settled(self.model)
        model, compression = self.model, self.model.compression
        model.settle(need.rung)
        few = compression.clip(Grid(min(3, need.grid.frames), need.grid.height, need.grid.width))
        work = self._work(few, references, replace(options, size=min(few.height, few.width)))
        blank = np.zeros((few.frames, few.height, few.width, 3), np.uint8)
        empty = Picture(blank[0], blank[0], blank[0, ..., 0], blank[0, ..., 0] > 0)
        sketch, pictures = model.encode_sketch(blank), model.encode_references([empty] * references, few)
        conditions = self._conditions(work.grid, sketch, pictures, unlabelled(work.grid), options)
        latents = model.noise(work.grid, 0, 0).to(self.model.device, self.model.dtype)
        seconds = []
        for _ in range(2):  # the first run warms up
            started = time.perf_counter()
            cache = model.denoiser.prepare(conditions)
            times = model.solver(options.solver, work.steps, 0).times
            for now in times[: 2 if len(times) > 4 else None]:
                model.denoiser.predict(latents, now.expand(1).to(model.device), cache)
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        run = replace(work, steps=2) if work.steps > 4 else work
        return seconds[-1] * need.operations / model.operations(run)

    def colorize(
        self,
        shot: Shot,
        options: ColorizeOptions = ColorizeOptions(),
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> np.ndarray:
        """The coloured shot, uint8 (t, h, w, 3). Raises Cancelled once `cancelled()` is true; see `stream` for the rest."""
        frames = []
        for event in self.stream(shot, options):
            if cancelled is not None and cancelled():
                raise Cancelled
            if isinstance(event, Coloured):
                frames.append(event.frame)
            elif progress is not None:
                progress(event)
        return np.stack(frames)

    def stream(self, shot: Shot, options: ColorizeOptions = ColorizeOptions()) -> Iterator[Progress | Coloured]:
        """Colour a shot of any length, yielding progress and finished frames in order.

        Native frames are read a few at a time and the network runs in pieces; what grows with the length is, for each drawing,
        one picture of the working size (about 0.1 MB) and where each reference lies on it (0.05 MB, 0.2 for a whole frame's).
        Raises ValueError for input that does not fit, MemoryError where it needs more than there is (naming a size that fits),
        and FloatingPointError where the model gives values that are not finite.
        """
        self.check(shot, options)
        options = options.settled(self.model)
        frames, height, width = shot.sketch.shape[:3]
        native = Clip(frames, height, width)
        sketch = _Extracted(shot.sketch, options.sketch_style) if options.extract_lines else shot.sketch
        need = self.need(native, len(shot.references), options)
        working = need.working
        self.model.settle(need.rung)

        drawings = _Drawings(working, shot, self.model.compression, options.cells or "coverage")
        for start in range(0, frames, READ_AT_ONCE):
            stop = min(frames, start + READ_AT_ONCE)
            drawings.add(sketch[start:stop], None if shot.labels is None else shot.labels.video[start:stop])
            yield Progress("reading", stop, frames)

        if not self.model.draws_lines:
            shot = replace(shot, references=[r.cut_out(height, width) for r in shot.references])
        # Where no reference shows a background, the paper stays white: cut-outs lie on white instead of the published black.
        bare = not self.model.draws_lines and all(r.alpha is not None for r in shot.references)
        pictures = [codec.letterbox(r, working, native, 255 if bare else 0) for r in shot.references]
        whole = {r: pictures[r] for r, reference in enumerate(shot.references) if reference.shows_frame(height, width)}
        paired = pairing.paired(
            replace(shot, sketch=sketch), {r: p.lines for r, p in whole.items()}, drawings.sketches, drawings.of_frame
        )
        for r, drawn in paired.items():
            pictures[r] = whole[r] = codec.letterbox(shot.references[r], working, native, 0, drawn)
        tracks: dict[int, list[np.ndarray]] = {}
        for r, picture in enumerate(pictures):
            yield Progress("matching", r, len(pictures))
            if r in whole:
                tracks[r] = track_of(picture, drawings.sketches)
            yield Progress("matching", r + 1, len(pictures))
        carrying = Carrying(self.model, shot, whole, tracks, need.working, drawings.labels, 255 if bare else 0, paired)
        strokes = None
        if options.lines == "match":
            lines = {r: picture.lines for r, picture in whole.items()}
            strokes = Strokes.of(
                replace(shot, sketch=sketch), lines, drawings.sketches, drawings.of_frame, sorted(drawings.labels)
            )
        finish = FinishOptions(options.lines, options.finish, options.palette)
        finisher = Finisher.of(shot, drawings.labels, finish, self.model.judge, strokes, paired)

        def told(given: Given) -> Made:
            made = carrying(given.colours, given.sketch, given.labels, drawings.sketches[given.at], given.at)
            if self.model.draws_lines and options.lines != "model":
                made = made._replace(colours=_fills(made.colours, drawings.sketches[given.at]))
            return made

        def finished(given: Given, made: Made) -> np.ndarray:
            return finisher(made.colours, given.sketch, given.labels, made.ways, made.votes, made.places, made.moves)

        done = itertools.count()

        def shown(made: Iterable[np.ndarray]) -> Iterator[Progress | Coloured]:
            for frame in made:
                at = next(done)
                yield Coloured(at, frame)
                yield Progress("finishing", at + 1, frames)

        read = 0
        with Finishing(told, finished) as finishing:
            for first, stop, colours in self._sample(drawings, pictures, tracks, options):
                if isinstance(colours, Progress):
                    yield colours
                    continue
                while read < frames and drawings.of_frame[read] < stop:
                    of = drawings.of_frame[read : read + READ_AT_ONCE]
                    of = of[: bisect_left(of, stop)]
                    until = read + len(of)
                    originals = sketch[read:until]
                    areas = [None] * len(of) if shot.labels is None else np.asarray(shot.labels.video[read:until])
                    for at, original, area in zip(of, originals, areas, strict=True):
                        yield from shown(finishing.add(Given(at, colours[at - first], original, area)))
                    read = until
                yield from shown(finishing.rest())

    def check(self, shot: Shot, options: ColorizeOptions = ColorizeOptions()) -> None:
        """Raise what `stream` would raise for this shot before its work begins: ValueError or MemoryError."""
        options = options.settled(self.model)
        frames, height, width = shot.sketch.shape[:3]
        least = self.model.compression.cell
        if min(height, width) < least:
            raise ValueError(f"{shot.name}: sketch is {width}x{height} pixels; give at least {least}x{least}")
        if len(shot.references) > MOST_REFERENCES:
            raise ValueError(f"{shot.name}: has {len(shot.references)} references; give at most {MOST_REFERENCES}")
        self.model.solver(options.solver, options.steps or 1, options.seed)
        self._check_memory(Clip(frames, height, width), len(shot.references), options)
        if not options.extract_lines:
            require_line_art(shot.sketch, shot.name)

    def _sample(
        self,
        drawings: "_Drawings",
        pictures: Sequence[Picture],
        tracks: Mapping[int, Sequence[np.ndarray]],
        options: ColorizeOptions,
    ) -> Iterator[tuple[int, int, np.ndarray | Progress]]:
        """Colours of drawings first:stop, float (n, y, x, 3), piece by piece; progress on the way.

        tracks: of references that show a whole frame, by index; of these hints are made.
        A piece is run with as many drawings around it as can touch it, so that cutting does not show in the result.
        """
        model, total = self.model, len(drawings.sketches)
        native = Clip(total, drawings.working.height, drawings.working.width)
        work = self._work(native, len(pictures), replace(options, size=min(native.height, native.width)))
        halo = self._halo(options)
        stride = total if work.piece >= work.grid.frames else work.piece - 2 * halo
        starts = range(0, total, stride)
        with _running():
            references = model.encode_references(pictures, drawings.working)
        for number, first in enumerate(starts):
            stop = min(total, first + stride)
            low, high = max(0, first - halo), min(total, stop + halo)
            yield first, stop, Progress("preparing", number, len(starts))
            # Entered anew for each part, since whoever reads this iterator must not be left in inference mode.
            with _running():
                padded = np.stack(drawings.padded(low, high))
                grid = model.compression.grid(Clip(*padded.shape[:3]))
                sketch = model.encode_sketch(padded)
                followed = {r: (pictures[r], track[low:high]) for r, track in tracks.items()}
                hints = self._hints(drawings.sketches[low:high], followed)
                conditions = self._conditions(grid, sketch, references, drawings.bits(low, high), options, low, *hints)
                cache = model.denoiser.prepare(conditions)
                noise = model.noise(grid, options.seed, low).to(model.device, model.dtype)
            yield first, stop, Progress("preparing", number + 1, len(starts))
            steps = sample(model.denoiser, noise, cache, model.solver(options.solver, work.steps, options.seed))
            latents = noise
            for done in range(1, work.steps + 1):
                with _running():
                    latents = next(steps).latents
                yield first, stop, Progress("sampling", number * work.steps + done, len(starts) * work.steps)
            del steps, cache  # room for the decoder
            with _running():
                colours = model.decode(latents)
            yield first, stop, colours[first - low : stop - low]

    def _conditions(
        self,
        grid: Grid,
        sketch: Tensor,
        references: Tensor,
        bits: Tensor,
        options: ColorizeOptions,
        start: int = 0,
        hints: Tensor | None = None,
        hint_of: Tensor | None = None,
    ) -> Conditions:
        model = self.model
        layout = TokenLayout(grid, references.shape[1], text=model.text)
        conditions = Conditions(
            layout,
            shot_tokens(layout, bits).to(model.device),
            sketch.to(model.device, model.dtype),
            references.to(model.device, model.dtype),
            _rule(options),
            options.execution,
            start,
            hints,
            hint_of,
        )
        return model.told(conditions, options.prompt, _guidance(options))

    def _hints(
        self, drawings: Sequence[np.ndarray], followed: Mapping[int, tuple[Picture, Sequence[np.ndarray]]]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The references that show a whole frame, carried onto each drawing, and which reference each is of."""
        if not followed or not self.model.hints:
            return None, None
        hints = []
        for i, drawing in enumerate(drawings):
            made = [propagation.candidates(p.fills, p.lines, flows_of(p, drawing, track[i])) for p, track in followed.values()]
            hints.append(codec.encode_hints(np.concatenate(made)[None]).to(self.model.device, self.model.dtype))
        of = torch.tensor([list(followed)]).repeat_interleave(propagation.CANDIDATES + 1, dim=1)
        return torch.cat(hints, dim=1), of.to(self.model.device)

    def _work(self, shot: Clip, references: int, options: ColorizeOptions) -> Work:
        """The job as the model sees it. options: settled."""
        compression = self.model.compression
        assert options.size is not None
        assert options.steps is not None
        working = compression.nearest(shot, options.size)
        grid, rule = compression.grid(working), _rule(options)
        piece = grid.frames
        # In `joint`, references carry news from any frame to any other.
        if rule.window is not None and rule.regime == "cached" and compression.time == 1:
            piece = min(piece, max(PIECE_TOKENS // (2 * grid.per_frame), 3 * self._halo(options), 1))
        return Work(working, grid, piece, references, options.steps, rule, _guidance(options), options.prompt)

    def _halo(self, options: ColorizeOptions) -> int:
        """Drawings to either side that can touch a drawing: the window, once a layer and step."""
        return (_rule(options).window or 0) * self.model.layers * (options.steps or 1)

    def _check_memory(self, shot: Clip, references: int, options: ColorizeOptions) -> None:
        free, need = _free_bytes(self.model.device), self.need(shot, references, options)
        if free is None or need.memory_bytes <= free:
            return
        got = f"the job needs {need.memory_bytes / 2**30:.1f} GiB but {free / 2**30:.1f} GiB are free"
        leaner = next((rung for rung, peak in need.rungs.items() if peak <= free), None)
        if leaner is not None:
            raise MemoryError(f"{got}; --memory {leaner} would fit")
        window = min(1, _rule(options).window or 1) if self.model.defaults.window is not None else "all"
        least = self.model.compression.cell
        for short in range(options.size or least, least - 1, -least):
            if self.need(shot, references, replace(options, size=short, window=window)).memory_bytes <= free:
                narrow = "" if window == "all" else f" with window {window}"
                raise MemoryError(f"{got}; size {short}{narrow} would fit")
        raise MemoryError(f"{got}; free some, or cut the shot")


def _rule(options: ColorizeOptions) -> Rule:
    window = None if options.window in (None, "all") else int(options.window)
    return Rule(options.regime or "cached", window)


def _guidance(options: ColorizeOptions) -> float:
    return 1.0 if options.guidance is None else float(options.guidance)


def _fills(picture: np.ndarray, drawing: np.ndarray) -> np.ndarray:
    """A model's whole picture, float (y, x, 3), without the lines that it drew along those of the sketch (h, w, 3)."""
    lines = cv2.resize(propagation.darkness(drawing), picture.shape[1::-1], interpolation=cv2.INTER_AREA)
    image = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    return without_lines(image, cv2.dilate(lines, np.ones((3, 3), np.uint8))).astype(np.float32) / 255


@contextmanager
def _running() -> Iterator[None]:
    """The network at work: no gradients, and memory that runs out after all is told as such."""
    try:
        with torch.inference_mode():
            yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise MemoryError("memory ran out while the network was at work; give a smaller size or window") from error
        raise


class _Extracted:
    """Line art of a colour clip, made as it is read."""

    def __init__(self, frames: Frames, style: SketchStyle) -> None:
        self.frames = frames
        self.style: SketchStyle = style
        self.shape = tuple(frames.shape)

    def __getitem__(self, frames: slice) -> np.ndarray:
        return extract_clip(self.frames[frames], self.style, binarise=True)


class _Drawings:
    """The shot at the working size. Where a model takes each drawing alone, one held on twos or threes is coloured once."""

    def __init__(self, working: Clip, shot: Shot, compression: Compression, cells: CellRule) -> None:
        self.working, self._shot, self._compression = working, shot, compression
        self._cells: CellRule = cells
        self.sketches: list[np.ndarray] = []
        self.of_frame: list[int] = []
        self.labels: set[int] = set()
        self._areas: list[np.ndarray | None] = []  # labels of each drawing
        self._last: np.ndarray | None = None

    def add(self, frames: np.ndarray, areas: np.ndarray | None) -> None:
        """The next frames of the shot, and their labels."""
        for i, frame in enumerate(codec.shrink(frames, self.working)):
            area = None
            if areas is not None:
                area = codec.labels_at(np.asarray(areas[i]), self.working)
                self._check_labels(set(np.unique(areas[i]).tolist()) - self.labels)
            # A coder's noise on a held drawing is a few grey levels; a new drawing moves whole lines.
            alone = self._compression.time == 1
            held = alone and bool(self.sketches) and int(cv2.absdiff(frame, self.sketches[-1]).max()) <= 12
            if not held or (area is not None and self._last is not None and not np.array_equal(area, self._last)):
                self.sketches.append(frame)
                self._areas.append(area)
            self._last = area
            self.of_frame.append(len(self.sketches) - 1)

    def padded(self, low: int, high: int) -> list[np.ndarray]:
        """Drawings low:high, the last repeated up to a length that fits."""
        return _filled_up(self.sketches[low:high], self._compression)

    def bits(self, low: int, high: int) -> Tensor:
        """References that the tokens of drawings low:high may see, (1, n)."""
        areas = _filled_up(self._areas[low:high], self._compression)
        known = [area for area in areas if area is not None]
        if not known:
            grid = self._compression.grid(Clip(len(areas), self.working.height, self.working.width))
            return unlabelled(grid)
        ids = torch.from_numpy(np.stack(known).astype(np.int64))
        return label_bits(ids, self._labels_of, self._compression, self._cells)[None]

    def _check_labels(self, new: set[int]) -> None:
        count = len(self._shot.references)
        for label in sorted(new):
            missing = [r for r in self._labels_of(label) if not 0 <= r < count]
            if missing:
                raise ValueError(
                    f"{self._shot.name}: label {label} (frame {len(self.of_frame)}) would take reference {missing[0]} but there "
                    f"are {count} (counted from 0); give it one in Labels.references, or () for none"
                )
        self.labels |= new

    def _labels_of(self, label: int) -> tuple[int, ...]:
        return () if self._shot.labels is None else self._shot.labels.references_of(label)


def _filled_up(items: list, compression: Compression) -> list:
    return items + items[-1:] * (compression.padded_frames(len(items)) - len(items))


def _free_bytes(device: torch.device) -> int | None:
    """Memory that can still be taken, or None where the system does not tell."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by PyTorch, for what comes
        return torch.cuda.mem_get_info(device)[0] + kept
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        line = next((x for x in meminfo.read_text().splitlines() if x.startswith("MemAvailable")), None)
        free = None if line is None else int(line.split()[1]) * 1024
        limit, use = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.stat")
        if free is not None and limit.exists() and use.exists() and limit.read_text().strip().isdigit():  # a container's share
            taken = next((int(x.split()[1]) for x in use.read_text().splitlines() if x.startswith("anon ")), 0)
            free = min(free, int(limit.read_text()) - taken)
        return free
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
