"""What is coloured and measured: datasets and protocols become cases, one at a time.

A dataset is `world` (held-out shots of the drawn world), a folder of shots or of colour clips, one shot or clip, or a manifest of
scenes. Every choice is fixed by `Selection`, so the same words select the same frames again.
"""

import csv
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import isfinite, isnan
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlparse

import cv2
import numpy as np

from timecolor.evaluate.metrics import painted_mask
from timecolor.media import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    FileFrames,
    ImageFrames,
    InputError,
    did_you_mean,
    natural_key,
    open_frames,
    parse_frame_rate,
)
from timecolor.shapes import Bool, UInt8
from timecolor.shot import Labels, Reference, Shot
from timecolor.shotfiles import load_shot, read_reference
from timecolor.sketch import SketchStyle, extract_clip
from timecolor.world import HELD_OUT_SEED, Rendered, World, WorldShot

Protocol = Literal[
    "start frame", "arbitrary frame", "multi-reference with labels", "multi-reference without labels", "character sheet"
]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
WORLD = "world"
WORLD_SHOTS, WORLD_FRAMES = 64, 17
PAPER = 250  # from this level on, white is paper
PLAIN = 3  # levels by which a frame of the world may differ from its fills where there is no line
SHEET_VIEWS = 3  # of a character of the world


@dataclass(frozen=True, slots=True)
class Selection:
    """Which shots and frames are taken, and at what size.

    Parameters
    ----------
    shots
        At most so many of each dataset, the first ones; unset (None), 64 of the world and all of a folder or manifest.
    frames
        The first so many of each shot, or all where it has fewer; unset (None), 17.
    first_shot
        Index of the first shot of the held-out world.
    height
        Of the world's frames, in pixels.
    width
        Of the world's frames, in pixels.
    long_side
        Clips whose lines are extracted are first shrunk to this, in pixels. Drawn sketches keep their own size.
    line_style
        How extracted lines look; they are always black and white only.
    """

    shots: int | None = None
    frames: int | None = None
    first_shot: int = 1000
    height: int = 256
    width: int = 384
    long_side: int = 720
    line_style: SketchStyle = "clean"

    def __post_init__(self) -> None:
        for name, least in (("shots", 1), ("frames", 1), ("first_shot", 0), ("height", 16), ("width", 16), ("long_side", 16)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; give at least {least}")

    @property
    def most(self) -> int:
        """Frames taken of a shot that has as many."""
        return self.frames or WORLD_FRAMES


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One shot under one protocol.

    truth: uint8 (t, h, w, 3), with lines; None = only looked at. painted: bool (t, h, w), where colours are compared: no line, no
    paper. scored: frames that are measured; the reference frame and exact copies of it are left out. areas: the true labels and
    their references, which the measures know even where the shot does not tell them.
    """

    dataset: str
    protocol: Protocol
    name: str
    shot: Shot
    truth: UInt8[np.ndarray, "t h w 3"] | None = None
    painted: Bool[np.ndarray, "t h w"] | None = None
    scored: tuple[int, ...] = ()
    areas: Labels | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A shot of a dataset. protocols: those it has what is needed for. case: raises InputError where its files are broken.

    peers: method -> video that another system made of it.
    """

    dataset: str
    name: str
    protocols: tuple[Protocol, ...]
    case: Callable[[Protocol], Case]
    peers: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Broken:
    """A shot that cannot be used, and why."""

    dataset: str
    name: str
    why: InputError


def dataset_name(dataset: str) -> str:
    """What a dataset is called in results: `world`, or the name of its folder or manifest."""
    return (
        WORLD if dataset == WORLD else (Path(dataset).resolve().stem if Path(dataset).is_file() else Path(dataset).resolve().name)
    )


def is_one_shot(dataset: str) -> bool:
    """Whether a dataset is a single shot or clip, from its name on disk alone."""
    path = Path(dataset)
    if path.is_file():
        return path.suffix.lower() in VIDEO_SUFFIXES
    return path.is_dir() and (_is_shot(path) or _is_clip(path))


def sources(dataset: str, selection: Selection, seed: int = 0) -> Iterator[Source | Broken]:
    """The shots of a dataset in a fixed order, opened one after the other.

    dataset: `world`, or a path to a folder whose entries are shots (`sketch`, and `colour` as truth), colour clips (videos,
    folders of images, or folders with `colour` or `clip` and no sketch), to one such shot or clip, or to a manifest (.csv or
    .jsonl, see `scenes`). A sheet lies beside the sketch as `sheet.png` or among the references. seed: draws arbitrary frames.
    Raises InputError for a dataset that is not there or empty.
    """
    if dataset == WORLD:
        yield from _world(selection, seed)
        return
    path = Path(dataset)
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"{dataset}: no such dataset; give world or a path{did_you_mean(path.name, [WORLD, *siblings])}")
    found = scenes(path, selection, seed) if path.suffix.lower() in (".csv", ".jsonl") else _folder(path, selection, seed)
    empty = True
    for number, source in enumerate(found):
        if selection.shots is not None and number >= selection.shots:
            break
        empty = False
        yield source
    if empty:
        raise InputError(f"{dataset}: holds no shots; give shots (with a sketch), colour clips, or lines of a manifest")


# ------------------------------------------------------------------------------------------------------------- the world


def _world(selection: Selection, seed: int) -> Iterator[Source]:
    world = World(HELD_OUT_SEED, selection.height, selection.width, selection.most)
    for index in range(selection.first_shot, selection.first_shot + (selection.shots or WORLD_SHOTS)):
        drawn = world.shot(index)
        # Without a character there is nothing for a sheet to show.
        protocols = PROTOCOLS if drawn.characters else PROTOCOLS[: PROTOCOLS.index("character sheet")]
        yield Source(WORLD, f"{WORLD}/{index}", protocols, _DrawnCase(drawn, seed))


class _DrawnCase:
    """Cases of one shot of the world, whose frames are rendered once."""

    def __init__(self, drawn: WorldShot, seed: int) -> None:
        self.drawn, self.seed = drawn, seed
        self.name = f"{WORLD}/{drawn.index}"
        self._frames: list[Rendered] | None = None

    def __call__(self, protocol: Protocol) -> Case:
        if self._frames is None:
            self._frames = [self.drawn.render(t) for t in range(self.drawn.frames)]
        frames = self._frames
        truth, fills, sketch, labels = (
            np.stack([getattr(f, part) for f in frames]) for part in ("colour", "fills", "sketch", "labels")
        )
        painted = (cv2.absdiff(fills, truth).max(axis=-1) <= PLAIN) & (truth.min(axis=-1) < PAPER)
        areas, given, at = None, None, None
        match protocol:
            case "start frame" | "arbitrary frame":
                _need(truth, 2, self.name, protocol)
                at = 0 if protocol == "start frame" else _arbitrary(self.name, len(truth), self.seed)
                references = (_frame(truth[at], at),)
            case "character sheet":
                references = tuple(self._sheet(k) for k in range(1, self.drawn.characters + 1))
                # No reference shows the place, so it is left out of sketch and truth: bare paper.
                near = np.stack([cv2.dilate((area > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) for area in labels])
                sketch = np.where(near[..., None] > 0, sketch, np.uint8(255))
                truth = np.where(labels[..., None] > 0, truth, sketch)
                painted &= labels > 0
            case _:
                references = self.drawn.references()
                areas = Labels(labels, {k: (k,) for k in range(self.drawn.characters + 1)})
                given = areas if protocol == "multi-reference with labels" else None
        shot = Shot(sketch, references, given, self.drawn.frame_rate, self.name)
        return Case(WORLD, protocol, self.name, shot, truth, painted, _scored(truth, at, references), areas)

    def _sheet(self, k: int) -> Reference:
        """Views of a character beside one another, without a background."""
        views = [self.drawn.character(k, variant) for variant in range(SHEET_VIEWS)]
        gap = self.drawn.size[1] // 24
        cells = []
        for view in views:
            assert view.alpha is not None  # the world's characters are cut out
            columns = np.flatnonzero(view.alpha.any(axis=0))
            cut = np.dstack([view.image, view.alpha])[:, columns[0] : columns[-1] + 1]
            cells.append(np.pad(cut, ((0, 0), (gap, gap), (0, 0))))
        sheet = np.concatenate(cells, axis=1)
        return Reference(np.ascontiguousarray(sheet[..., :3]), np.ascontiguousarray(sheet[..., 3]), "sheet", f"sheet {k}")


# ---------------------------------------------------------------------------------------------------------------- files


def _folder(path: Path, selection: Selection, seed: int) -> Iterator[Source | Broken]:
    dataset = dataset_name(str(path))
    if is_one_shot(str(path)):
        entries = [path]
    else:
        entries = [p for p in path.iterdir() if not p.name.startswith(".") and (p.is_dir() or p.suffix.lower() in VIDEO_SUFFIXES)]
        entries.sort(key=lambda p: natural_key(p.name))
    for entry in entries:
        name = entry.name if entry.is_dir() else entry.stem
        try:
            yield _opened(entry, dataset, name, selection, seed)
        except InputError as why:
            yield Broken(dataset, name, why)


def _is_shot(path: Path) -> bool:
    """Whether it holds a part of a shot: its sketch, or its colours."""
    return path.is_dir() and any(p.stem.lower() in ("sketch", "colour", "clip") for p in path.iterdir())


def _is_clip(path: Path) -> bool:
    """Whether it holds images and nothing else that could be a shot."""
    inside = [p for p in path.iterdir() if not p.name.startswith(".")]
    videos = any(p.is_dir() or p.suffix.lower() in VIDEO_SUFFIXES for p in inside)
    return not videos and any(p.suffix.lower() in IMAGE_SUFFIXES for p in inside)


def _opened(path: Path, dataset: str, name: str, selection: Selection, seed: int) -> Source:
    """A shot or colour clip from its files. Raises InputError."""
    if path.is_file() or (not _is_shot(path) and _is_clip(path)):
        return _source(_Files(dataset, name, str(path), colour=open_frames(path)), selection, seed)
    if not _is_shot(path):
        raise InputError(f"{path}: holds neither a sketch nor colour frames; give sketch/, colour/ or a clip, or take it away")
    colour = _part(path, "colour") or _part(path, "clip")
    sheets = tuple(
        read_reference(p, "sheet") for p in sorted(path.glob("*sheet*")) if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES
    )
    peers = peer_videos(path / "peers")
    if _part(path, "sketch") is None:
        assert colour is not None  # it holds a part of a shot
        return _source(_Files(dataset, name, str(path), colour=colour, sheets=sheets), selection, seed, peers)
    shot = load_shot(path).shot
    assert isinstance(shot.sketch, FileFrames)  # from files
    if colour is not None:
        _refuse_unlike(path, shot.sketch, colour)
    files = _Files(dataset, name, str(path), shot.sketch, colour, tuple(shot.references), sheets, shot.labels, shot.frame_rate)
    return _source(files, selection, seed, peers)


def _part(folder: Path, part: str) -> FileFrames | None:
    """Frames of `part/` or `part.mp4` ..., None where there is neither."""
    suffixes = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)
    found = [p for p in sorted(folder.iterdir()) if p.stem.lower() == part and (p.is_dir() or p.suffix.lower() in suffixes)]
    if len(found) > 1:
        raise InputError(f"{folder}: has {' and '.join(p.name for p in found)}; keep one")
    return open_frames(found[0]) if found else None


def _refuse_unlike(folder: Path, sketch: FileFrames, colour: FileFrames) -> None:
    """The truth must have a frame for each of the sketch's, of its size."""
    if isinstance(sketch, ImageFrames) and isinstance(colour, ImageFrames):
        drawn, painted = {p.stem: p for p in sketch.paths}, {p.stem: p for p in colour.paths}
        if drawn.keys() & painted.keys():
            for stem in [s for s in drawn if s not in painted][:1]:
                gap = colour.paths[0].with_stem(stem)
                raise InputError(f"{gap}: missing, so {drawn[stem].name} of the sketch has no ground truth; add it")
            for stem in [s for s in painted if s not in drawn][:1]:
                raise InputError(
                    f"{painted[stem]}: ground truth of a frame that the sketch lacks; take it away or add the drawing"
                )
    if sketch.shape[0] != colour.shape[0]:
        raise InputError(
            f"{folder}: the ground truth {colour.name} has {colour.shape[0]} frames but the sketch has {sketch.shape[0]}; "
            "give one for each"
        )
    if sketch.shape[1:3] != colour.shape[1:3]:
        (h, w), (height, width) = colour.shape[1:3], sketch.shape[1:3]
        raise InputError(
            f"{folder}: the ground truth {colour.name} is {w}x{h} but the sketch is {width}x{height}; save both at one size"
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Files:
    """A shot or clip in files. sketch: None = taken from the colours. start, stop: a scene of the colours; None = to the end."""

    dataset: str
    name: str
    where: str
    sketch: FileFrames | None = None
    colour: FileFrames | None = None
    references: tuple[Reference, ...] = ()
    sheets: tuple[Reference, ...] = ()
    labels: Labels | None = None
    frame_rate: Fraction | None = None
    start: int = 0
    stop: int | None = None

    @property
    def frames(self) -> int:
        frames = self.sketch if self.colour is None else self.colour
        assert frames is not None  # a shot has one of them
        return (frames.shape[0] if self.stop is None else self.stop) - self.start


def _source(files: _Files, selection: Selection, seed: int, peers: dict[str, Path] | None = None) -> Source:
    return Source(files.dataset, files.name, _supported(files), _FileCase(files, selection, seed), peers or {})


def _supported(files: _Files) -> tuple[Protocol, ...]:
    """Protocols that the files have the references for."""
    found: list[Protocol] = []
    cast = [r for r in files.references if r.role != "sheet"]
    if files.colour is not None:
        found.extend(("start frame", "arbitrary frame"))
    elif len(files.references) == 1 and files.labels is None and cast and files.references[0].alpha is None:
        # Nothing but its name says which moment a coloured frame without a clip is from.
        return ("start frame",) if files.name.lower().startswith("start") else ("arbitrary frame",)
    if cast and files.labels is not None:
        found.append("multi-reference with labels")
    if cast:
        found.append("multi-reference without labels")
    if _sheets(files):
        found.append("character sheet")
    return tuple(found)


def _sheets(files: _Files) -> tuple[Reference, ...]:
    """The sheets, where every labelled character has one."""
    if files.sheets:
        return files.sheets
    drawn = {i for i, r in enumerate(files.references) if r.role == "sheet"}
    if files.labels is not None:
        bound = [set(own) for label, own in files.labels.references.items() if label > 0]
        if not all(own & drawn for own in bound):
            return ()
    return tuple(files.references[i] for i in sorted(drawn))


class _FileCase:
    """Cases of one shot in files, which are read once."""

    def __init__(self, files: _Files, selection: Selection, seed: int) -> None:
        self.files, self.selection, self.seed = files, selection, seed
        self._frames: tuple[np.ndarray, np.ndarray | None, np.ndarray | None] | None = None

    def __call__(self, protocol: Protocol) -> Case:
        files = self.files
        self._frames = self._frames or self._read()
        sketch, truth, painted = self._frames
        at, areas, given = None, None, None
        match protocol:
            case "start frame" | "arbitrary frame" if files.colour is not None:
                assert truth is not None  # it has colours
                _need(truth, 2, files.where, protocol)
                at = 0 if protocol == "start frame" else _arbitrary(files.name, files.frames, self.seed)
                references = (_frame(self._colours(at, at + 1)[0], at),)
            case "character sheet":
                references = _sheets(files)
            case _:
                references = files.references
                if files.labels is not None:
                    video = files.labels.video[files.start : files.start + len(sketch)]
                    areas = Labels(np.asarray(video), files.labels.references)
                given = areas if protocol == "multi-reference with labels" else None
        rate = files.frame_rate or (files.colour.frame_rate if files.colour is not None else None) or Fraction(24)
        try:
            shot = Shot(sketch, references, given, rate, files.name)
        except ValueError as error:
            raise InputError(f"{files.where}: {error}") from error
        scored = () if truth is None else _scored(truth, at, references)
        return Case(files.dataset, protocol, files.name, shot, truth, painted, scored, areas)

    def _read(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Sketch, truth and painted area of the frames taken."""
        files = self.files
        count = min(self.selection.most, files.frames)
        truth = None if files.colour is None else self._colours(0, count)
        if files.sketch is not None:
            sketch = files.sketch[files.start : files.start + count]
        else:
            assert truth is not None  # a shot has its sketch or its colours
            sketch = extract_clip(truth, self.selection.line_style, binarise=True)
        return sketch, truth, None if truth is None else painted_mask(truth, sketch)

    def _colours(self, first: int, stop: int) -> np.ndarray:
        """True frames first:stop, at the size of the sketch."""
        assert self.files.colour is not None
        frames = self.files.colour[self.files.start + first : self.files.start + stop]
        return frames if self.files.sketch is not None else _shrunk(frames, self.selection.long_side)


def _need(truth: np.ndarray, least: int, where: str, protocol: Protocol) -> None:
    if len(truth) < least:
        raise InputError(
            f"{where}: {len(truth)} frame is too few for {protocol!r}; give at least {least}, the reference and one more"
        )


def _arbitrary(name: str, frames: int, seed: int) -> int:
    """A frame of the whole shot other than the first, drawn by the seed and the shot's name."""
    return int(np.random.default_rng((seed, zlib.crc32(name.encode()))).integers(1, frames))


def _frame(image: np.ndarray, index: int) -> Reference:
    return Reference(image, None, "frame", f"frame {index}")


def _scored(truth: np.ndarray, at: int | None, references: Sequence[Reference]) -> tuple[int, ...]:
    """Frames to measure: not the one given, nor its exact copies (a held drawing) while there are others."""
    others = [t for t in range(len(truth)) if t != at]
    if at is None:
        return tuple(others)
    differing = [t for t in others if not np.array_equal(truth[t], references[0].image)]
    return tuple(differing or others)


def _shrunk(frames: UInt8[np.ndarray, "t _ _ 3"], long_side: int) -> UInt8[np.ndarray, "t _ _ 3"]:
    """Frames whose long side is at most `long_side`."""
    height, width = frames.shape[1:3]
    scale = long_side / max(height, width)
    if scale >= 1:
        return frames
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def peer_videos(folder: Path) -> dict[str, Path]:
    """Method -> its video, of a folder with one for each method; empty where there is no such folder."""
    if not folder.is_dir():
        return {}
    found = [p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith(".")]
    return {p.stem: p for p in sorted(found, key=lambda p: natural_key(p.name))}


# ------------------------------------------------------------------------------------------------------------- manifests


def scenes(manifest: Path, selection: Selection, seed: int = 0) -> Iterator[Source | Broken]:
    """The scenes of a manifest, .csv with a header or .jsonl, one a line; the columns are those of Sakuga-42M's own tables.

    identifier: "VIDEO:CLIP"; the file is VIDEO with the suffix of `url_link` (or any of a video), beside the manifest, where
    Sakuga-42M's downloader puts it. path: the file, from the manifest's folder; instead of an identifier, or beside it.
    scene_start_time, scene_end_time: "HH:MM:SS.mmm" or seconds, the end left out; both empty = the whole file.
    fps: where the file does not tell its own. Other columns are not looked at. A line that is wrong is Broken, with its number.
    """
    dataset = dataset_name(str(manifest))
    seen: dict[str, int] = {}
    opened: tuple[Path, FileFrames] | None = None
    for line, row in _lines(manifest):
        where = f"{manifest}:{line}"
        name = f"line {line}"
        try:
            if isinstance(row, InputError):
                raise row
            identifier = _text(row, "identifier") or _text(row, "path")
            if not identifier:
                raise InputError(f"{where}: has neither identifier nor path; give one of them")
            name = identifier if _text(row, "identifier") else str(Path(identifier).with_suffix(""))
            if name in seen and not _text(row, "identifier"):  # several scenes of one file
                name = f"{name}:{line}"
            if name in seen:
                raise InputError(f"{where}: {name} stands in line {seen[name]} already; give every scene a name of its own")
            seen[name] = line
            path = _video_of(manifest.parent, row, where)
            if opened is None or opened[0] != path:
                opened = (path, _read(path, where))
            yield _source(_scene(opened[1], row, dataset, name, where), selection, seed)
        except InputError as why:
            yield Broken(dataset, name, why)


def _lines(manifest: Path) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    """Number and content of each line that is not empty."""
    try:
        text = manifest.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{manifest}: cannot be read ({error}); save it as UTF-8 text") from error
    if manifest.suffix.lower() == ".csv":
        reader = csv.DictReader(text.splitlines())
        heads = reader.fieldnames or []
        if "identifier" not in heads and "path" not in heads:
            near = did_you_mean("identifier", heads)
            raise InputError(f"{manifest}:1: the header has {', '.join(heads) or 'nothing'}; expected identifier or path{near}")
        for row in reader:
            missing = None in row or None in row.values()
            wrong = InputError(
                f"{manifest}:{reader.line_num}: has another number of cells than the header's {len(heads)}; mend the line"
            )
            yield reader.line_num, wrong if missing else row
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, InputError(f"{manifest}:{number}: is not JSON ({error.msg}, column {error.colno}); mend the line")
            continue
        known = isinstance(row, dict)
        yield (
            number,
            row if known else InputError(f"{manifest}:{number}: is {line:.40}; expected an object with identifier or path"),
        )


def _text(row: dict[str, Any], key: str) -> str:
    """A cell as text; empty for what is missing, None or not a number (as tables write what they do not know)."""
    value = row.get(key)
    if value is None or (isinstance(value, float) and isnan(value)) or str(value).strip().lower() in ("nan", "none", "null"):
        return ""
    return str(value).strip()


def _video_of(folder: Path, row: dict[str, Any], where: str) -> Path:
    if path := _text(row, "path"):
        found = folder / path
        if not found.exists():
            raise InputError(f"{where}: {found} is not there; correct the path, which starts from the manifest's folder")
        return found
    video, colon, _ = _text(row, "identifier").partition(":")
    if not colon or not video:
        raise InputError(f"{where}: identifier is {_text(row, 'identifier')!r}; expected VIDEO:CLIP")
    suffix = Path(urlparse(_text(row, "url_link")).path).suffix
    names = [f"{video}{s}" for s in ([suffix] if suffix else VIDEO_SUFFIXES)]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{where}: {folder / names[0]} is not there; put the video beside the manifest, or name it in a column path")


def _read(path: Path, where: str) -> FileFrames:
    try:
        return open_frames(path)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _scene(colour: FileFrames, row: dict[str, Any], dataset: str, name: str, where: str) -> _Files:
    whole = _Files(dataset, name, where, colour=colour)
    times = [_text(row, key) for key in ("scene_start_time", "scene_end_time")]
    if not any(times):
        return whole
    rate = colour.frame_rate
    if rate is None:
        try:
            rate = parse_frame_rate(_text(row, "fps") or None)
        except InputError as error:
            raise InputError(f"{where}: {colour.name} tells no frame rate and fps is no help ({error}); give fps") from error
    start, stop = (round(_seconds(text, key, where) * rate) for text, key in zip(times, ("start", "end"), strict=True))
    if not 0 <= start < stop <= colour.shape[0]:
        frames = f"frames {start} to {stop} at {float(rate):g} a second"
        raise InputError(
            f"{where}: the scene is {times[0]} to {times[1]} ({frames}) but {colour.name} has {colour.shape[0]} frames"
        )
    return replace(whole, start=start, stop=stop, frame_rate=rate)


def _seconds(text: str, which: str, where: str) -> Fraction:
    """Of "HH:MM:SS.mmm", "MM:SS" or a number of seconds."""
    try:
        parts = [Fraction(part) for part in text.split(":")]
        if len(parts) > 3 or not all(isfinite(part) and part >= 0 for part in parts):
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{where}: scene_{which}_time is {text!r}; give HH:MM:SS.mmm or seconds") from None
    return sum((part * 60**power for power, part in enumerate(reversed(parts))), Fraction(0))
