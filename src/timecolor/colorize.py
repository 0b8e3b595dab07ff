"""The façade: the only place that walks the whole way from a shot to coloured frames at its own size."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from timecolor import codec, propagation, weights
from timecolor.attention import Execution
from timecolor.correspondence import MOST_REFERENCES, CellRule, Regime, Rule, label_bits, shot_tokens, unlabelled
from timecolor.denoiser import Conditions
from timecolor.diffusion import Euler
from timecolor.finish import Fill, Finisher, FinishOptions, Lines, PaletteMode
from timecolor.geometry import Clip, Compression, Grid
from timecolor.layout import TokenLayout
from timecolor.sampling import sample
from timecolor.shot import Frames, Shot
from timecolor.sketch import SketchStyle, extract_clip, require_line_art
from timecolor.toon import Toon

Picture = tuple[np.ndarray, np.ndarray]  # a reference's fills and its lines, at the working size

READ_AT_ONCE = 8  # native frames held in memory
PIECE_TOKENS = 80_000  # target and sketch tokens run at once; longer shots go in pieces


@dataclass(frozen=True, slots=True)
class ColorizeOptions:
    """How a shot is coloured; the same in Python, in files and on the command line.

    Parameters
    ----------
    steps
        Sampling steps; the shipped weights decide in one or two.
    seed
        One seed, one result.
    size
        The model's working short side in pixels; unset (None), the one its weights were chosen with. The output has the sketch's
        own size.
    window
        Drawings to either side that a drawing sees. "all" (or None) = every one.
    lines
        keep = the artist's own on top; model = the network's picture as it is; none = the colours alone.
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
    """

    steps: int = 2
    seed: int = 0
    size: int | None = None
    window: int | Literal["all"] | None = 1
    lines: Lines = "keep"
    finish: Fill = "auto"
    palette: PaletteMode = "snap"
    cells: CellRule = "coverage"
    regime: Regime = "cached"
    extract_lines: bool = False
    sketch_style: SketchStyle = "clean"
    execution: Execution = "auto"

    def __post_init__(self) -> None:
        for name, least, also in (("steps", 1, ()), ("seed", 0, ()), ("size", 1, (None,)), ("window", 0, (None, "all"))):
            value = getattr(self, name)
            if value not in also and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                words = "".join(f", or {x}" for x in also)
                raise ValueError(f"{name} is {value!r}; give a whole number of at least {least}{words}")
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(get_args(kind))}")
        if not isinstance(self.extract_lines, bool):
            raise ValueError(f"extract_lines is {self.extract_lines!r}; give true or false, and the style as sketch_style")
        if self.sketch_style != "clean" and not self.extract_lines:
            raise ValueError(f"sketch_style is {self.sketch_style} but no lines are taken; add extract_lines, or leave it out")

    @property
    def reach(self) -> int | None:
        """The window as a number of drawings, None = all."""
        return None if self.window == "all" else self.window


_CHOICES = {
    "lines": Lines,
    "finish": Fill,
    "palette": PaletteMode,
    "cells": CellRule,
    "regime": Regime,
    "sketch_style": SketchStyle,
    "execution": Execution,
}


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the work is: `done` of `total` of a stage."""

    stage: Literal["reading", "preparing", "sampling", "finishing"]
    done: int
    total: int


@dataclass(frozen=True, slots=True, eq=False)
class Coloured:
    """One finished frame, uint8 (h, w, 3), in the shot's order."""

    index: int
    frame: np.ndarray


@dataclass(frozen=True, slots=True)
class Need:
    """What a job takes. memory_bytes: peak beyond the program itself. operations: multiply-adds x 2 of the network."""

    working: Clip
    grid: Grid
    piece: int
    tokens: int
    memory_bytes: int
    operations: float


class Cancelled(Exception):  # noqa: N818 (not an error)
    """The caller asked to stop."""


class Colorizer:
    """A loaded model, for any number of shots."""

    def __init__(self, denoiser: Toon, pixel_codec: codec.PixelCodec, short_side: int = 160) -> None:
        """short_side: working size in pixels where a job names none."""
        self.denoiser = denoiser
        self.codec = pixel_codec
        self.short_side = short_side
        parameter = next(denoiser.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.compression = Compression(time=1, space=pixel_codec.space, patch=denoiser.config.patch)
        if self.compression.cell != denoiser.config.cell:
            got = f"{pixel_codec.space} pixels a latent and {denoiser.config.patch} latents a token"
            raise ValueError(f"codec and model do not fit: {got}, but the model's tokens are {denoiser.config.cell} pixels wide")

    @classmethod
    def load(cls, model: str | Path = "toon", device: str = "auto", dtype: str = "auto") -> "Colorizer":
        """A model by name (`toon`, embedded) or by its .safetensors file.

        device: auto, cpu, cuda, mps ... dtype: auto (bfloat16 where it is fast), float32, bfloat16, float16. Raises ValueError
        for an unknown model, weights that do not fit or a device that is not there.
        """
        where = _device(device)
        path = weights.EMBEDDED if str(model) == "toon" else Path(model)
        if path.suffix != ".safetensors":
            raise ValueError(f"unknown model {str(model)!r}; use toon, or the path of a .safetensors file")
        toon, about = weights.load_toon(path)
        return cls(toon.to(where, _dtype(dtype, where)), codec.PixelCodec(about["colour_cell"]), about.get("short_side", 160))

    def need(self, shot: Clip, references: int, options: ColorizeOptions = ColorizeOptions()) -> Need:
        """Predict size, memory and operations for a shot of this size."""
        working = self.compression.nearest(shot, options.size or self.short_side)
        grid = self.compression.grid(working)
        config = self.denoiser.config
        piece = self._piece(grid, options)
        tokens = piece * grid.per_frame
        conditions = tokens + references * grid.per_frame
        item = self.dtype.itemsize
        kv = 2 * config.layers * (2 * tokens + references * grid.per_frame) * config.width * item
        # Activations of the widest moment: the MLP's hidden layer and its input, for the conditions.
        activations = 12 * conditions * config.width * item
        pictures = READ_AT_ONCE * shot.height * shot.width * 3 * 12 + grid.tokens * self.compression.cell**2 * 3
        span = grid.frames if options.reach is None else min(grid.frames, 2 * options.reach + 1)
        seen = (2 * span + references) * grid.per_frame
        per_token = config.layers * (24 * config.width**2 + 4 * seen * config.width)
        again = 1.0 if piece == grid.frames else piece / (piece - 2 * self._halo(options))  # halos are run twice
        total = again * grid.tokens * (1 + options.steps if options.regime == "cached" else 2 * options.steps)
        return Need(
            working, grid, piece, 2 * grid.tokens + references * grid.per_frame, kv + activations + pictures, total * per_token
        )

    @torch.inference_mode()
    def measured_seconds(self, need: Need, references: int, options: ColorizeOptions) -> float:
        """Time of the network's part of a job, from a run of a few drawings at the job's working size."""
        few = Grid(min(3, need.grid.frames), need.grid.height, need.grid.width)
        layout = TokenLayout(few, references)
        patch = self.denoiser.config.patch
        rule = Rule(options.regime, options.reach)
        size = (need.working.height, need.working.width)
        conditions = Conditions(
            layout,
            shot_tokens(layout, unlabelled(few)).to(self.device),
            torch.zeros(1, few.frames, 3, *size, device=self.device, dtype=self.dtype),
            torch.zeros(1, references, 4, *size, device=self.device, dtype=self.dtype),
            rule,
            options.execution,
        )
        latents = torch.zeros(1, few.frames, 3, few.height * patch, few.width * patch, device=self.device, dtype=self.dtype)
        seconds = []
        for _ in range(2):  # the first run warms up
            started = time.perf_counter()
            cache = self.denoiser.prepare(conditions)
            for _ in range(options.steps):
                self.denoiser.predict(latents, torch.ones(1, device=self.device), cache)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        few_need = self.need(Clip(few.frames, *size), references, replace(options, size=min(size)))
        return seconds[-1] * need.operations / few_need.operations

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

        Native frames are read a few at a time and the network runs in pieces; what grows with the length is one picture of the
        working size a drawing (about 0.1 MB).
        Raises ValueError for input that does not fit, MemoryError where it needs more than there is (naming a size that fits),
        and FloatingPointError where the model gives values that are not finite.
        """
        self.check(shot, options)
        frames, height, width = shot.sketch.shape[:3]
        native = Clip(frames, height, width)
        sketch = _Extracted(shot.sketch, options.sketch_style) if options.extract_lines else shot.sketch
        working = self.compression.nearest(native, options.size or self.short_side)
        grid = self.compression.grid(working)

        drawings = _Drawings(working, grid, shot, self.compression, options.cells)
        for start in range(0, frames, READ_AT_ONCE):
            stop = min(frames, start + READ_AT_ONCE)
            drawings.add(sketch[start:stop], None if shot.labels is None else shot.labels.video[start:stop])
            yield Progress("reading", stop, frames)

        # Where no reference shows a background, the paper stays white: cut-outs lie on white instead of the published black.
        ground = 255 if all(r.alpha is not None for r in shot.references) else 0
        pictures = [codec.letterbox(r, working, native, ground) for r in shot.references]
        encoded = [codec.encode_reference(image, lines) for image, lines in pictures]
        references = torch.cat(encoded, dim=1) if encoded else torch.zeros(1, 0, 4, working.height, working.width)
        whole = {r: pictures[r] for r, reference in enumerate(shot.references) if reference.shows_frame(height, width)}
        finisher = Finisher.of(shot, drawings.labels, FinishOptions(options.lines, options.finish, options.palette))

        shown = 0
        for first, stop, colours in self._sample(drawings, references, whole, options):
            if isinstance(colours, Progress):
                yield colours
                continue
            while shown < frames and drawings.of_frame[shown] < stop:
                until = shown
                while until < min(frames, shown + READ_AT_ONCE) and drawings.of_frame[until] < stop:
                    until += 1
                originals = sketch[shown:until]
                areas = None if shot.labels is None else np.asarray(shot.labels.video[shown:until])
                for i, original in enumerate(originals):
                    cells = colours[drawings.of_frame[shown + i] - first]
                    drawing = drawings.sketches[drawings.of_frame[shown + i]]
                    flows = [propagation.flows(lines, drawing) for _, lines in whole.values()]
                    yield Coloured(shown + i, finisher(cells, original, None if areas is None else areas[i], flows))
                    yield Progress("finishing", shown + i + 1, frames)
                shown = until

    def check(self, shot: Shot, options: ColorizeOptions = ColorizeOptions()) -> None:
        """Raise what `stream` would raise for this shot before its work begins: ValueError or MemoryError."""
        frames, height, width = shot.sketch.shape[:3]
        least = self.compression.cell
        if min(height, width) < least:
            raise ValueError(f"{shot.name}: sketch is {width}x{height} pixels; give at least {least}x{least}")
        if len(shot.references) > MOST_REFERENCES:
            raise ValueError(f"{shot.name}: has {len(shot.references)} references; give at most {MOST_REFERENCES}")
        self._check_memory(Clip(frames, height, width), len(shot.references), options)
        if not options.extract_lines:
            require_line_art(shot.sketch, shot.name)

    def _sample(
        self, drawings: "_Drawings", references: Tensor, whole: Mapping[int, Picture], options: ColorizeOptions
    ) -> Iterator[tuple[int, int, np.ndarray | Progress]]:
        """Colours of drawings first:stop, float (n, y, x, 3), piece by piece; progress on the way.

        whole: references that show a whole frame, by index, of which hints are made.
        A piece is run with as many drawings around it as can touch it, so that cutting does not show in the result.
        """
        total = len(drawings.sketches)
        grid = Grid(total, drawings.grid.height, drawings.grid.width)
        halo = self._halo(options)
        piece = self._piece(grid, options)
        stride = total if piece >= total else piece - 2 * halo
        starts = range(0, total, stride)
        for number, first in enumerate(starts):
            stop = min(total, first + stride)
            low, high = max(0, first - halo), min(total, stop + halo)
            yield first, stop, Progress("preparing", number, len(starts))
            layout = TokenLayout(Grid(high - low, grid.height, grid.width), references.shape[1])
            bits = torch.cat(drawings.bits[low:high])[None]
            conditions = Conditions(
                layout,
                shot_tokens(layout, bits).to(self.device),
                codec.encode_sketch(np.stack(drawings.sketches[low:high])).to(self.device, self.dtype),
                references.to(self.device, self.dtype),
                Rule(options.regime, options.reach),
                options.execution,
                low,
                *self._hints(drawings.sketches[low:high], whole),
            )
            # Entered anew for each part, since whoever reads this iterator must not be left in inference mode.
            with _running():
                cache = self.denoiser.prepare(conditions)
            yield first, stop, Progress("preparing", number + 1, len(starts))
            noise = torch.stack([self._noise(options.seed, i, layout.grid) for i in range(low, high)])[None]
            clean = noise.to(self.device, self.dtype)
            steps = sample(self.denoiser, clean, cache, Euler(options.steps))
            for done in range(1, options.steps + 1):
                with _running():
                    clean = next(steps).latents
                yield first, stop, Progress("sampling", number * options.steps + done, len(starts) * options.steps)
            yield first, stop, self.codec.decode(clean)[first - low : stop - low]

    def _hints(self, drawings: Sequence[np.ndarray], whole: Mapping[int, Picture]) -> tuple[Tensor | None, Tensor | None]:
        """The references that show a whole frame, carried onto each drawing, and which reference each is of."""
        if not whole or not self.denoiser.config.hints:
            return None, None
        made = [np.concatenate([propagation.candidates(*p, drawing) for p in whole.values()]) for drawing in drawings]
        of = torch.tensor([list(whole)]).repeat_interleave(propagation.CANDIDATES, dim=1)
        return codec.encode_hints(np.stack(made)).to(self.device, self.dtype), of.to(self.device)

    def _noise(self, seed: int, drawing: int, grid: Grid) -> Tensor:
        """Noise of one drawing, the same however the shot is cut."""
        patch, channels = self.denoiser.config.patch, self.denoiser.config.channels
        generator = torch.Generator().manual_seed((seed * 1_000_003 + drawing) % 2**63)
        return torch.randn(channels, grid.height * patch, grid.width * patch, generator=generator)

    def _piece(self, grid: Grid, options: ColorizeOptions) -> int:
        """Drawings run at once, halo included."""
        if options.reach is None or options.regime == "joint":  # in `joint`, references carry news from any frame to any other
            return grid.frames
        return min(grid.frames, max(PIECE_TOKENS // (2 * grid.per_frame), 3 * self._halo(options), 1))

    def _halo(self, options: ColorizeOptions) -> int:
        """Drawings to either side that can touch a drawing: the window, once a layer and step."""
        return (options.reach or 0) * self.denoiser.config.layers * options.steps

    def _check_memory(self, shot: Clip, references: int, options: ColorizeOptions) -> None:
        free = _free_bytes(self.device)
        need = self.need(shot, references, options).memory_bytes
        if free is None or need <= free:
            return
        got = f"the job needs {need / 2**30:.1f} GiB but {free / 2**30:.1f} GiB are free"
        window = 1 if options.reach is None else min(1, options.reach)
        for short in range(options.size or self.short_side, self.compression.cell - 1, -self.compression.cell):
            if self.need(shot, references, replace(options, size=short, window=window)).memory_bytes <= free:
                raise MemoryError(f"{got}; size {short} with window {window} would fit")
        raise MemoryError(f"{got}; free some, or cut the shot")


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
    """The shot at the working size. A held drawing (on twos, on threes) is kept, and coloured, once."""

    def __init__(self, working: Clip, grid: Grid, shot: Shot, compression: Compression, cells: CellRule) -> None:
        self.working, self.grid, self._shot, self._compression = working, grid, shot, compression
        self._cells: CellRule = cells
        self.sketches: list[np.ndarray] = []
        self.bits: list[Tensor] = []
        self.of_frame: list[int] = []
        self.labels: set[int] = set()
        self._last: np.ndarray | None = None

    def add(self, frames: np.ndarray, areas: np.ndarray | None) -> None:
        """The next frames of the shot, and their labels."""
        for i, frame in enumerate(codec.shrink(frames, self.working)):
            area = None
            if areas is not None:
                size = (self.working.width, self.working.height)
                area = cv2.resize(np.asarray(areas[i]).astype(np.int32).astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
                self._check_labels(set(np.unique(areas[i]).tolist()) - self.labels)
            # A coder's noise on a held drawing is a few grey levels; a new drawing moves whole lines.
            held = bool(self.sketches) and int(cv2.absdiff(frame, self.sketches[-1]).max()) <= 12
            if not held or (area is not None and self._last is not None and not np.array_equal(area, self._last)):
                self.sketches.append(frame)
                self.bits.append(self._bits(area))
            self._last = area
            self.of_frame.append(len(self.sketches) - 1)

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

    def _bits(self, area: np.ndarray | None) -> Tensor:
        if area is None:
            return unlabelled(Grid(1, self.grid.height, self.grid.width))[0]
        ids = torch.from_numpy(area.astype(np.int64))[None]
        return label_bits(ids, self._labels_of, self._compression, self._cells)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not usable here ({str(error).splitlines()[0]}); use auto or cpu") from error
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        fast = device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported())
        return torch.bfloat16 if fast else torch.float32
    if name not in known:
        raise ValueError(f"unknown dtype {name!r}; use auto, {', '.join(known)}")
    return known[name]


def _free_bytes(device: torch.device) -> int | None:
    """Memory that can still be taken, or None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
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
