"""Shots from files: a folder, the authors' job JSON, or a bare sketch."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from timecolor.media import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    FileFrames,
    InputError,
    StrPath,
    did_you_mean,
    first_frames,
    natural_key,
    open_frames,
    parse_frame_rate,
    read_image,
    read_labels,
)
from timecolor.shot import Frames, Labels, Reference, Role, Shot

_ROLE_WORDS: dict[Role, tuple[str, ...]] = {
    "background": ("background", "bg", "plate", "backdrop"),
    "sheet": ("sheet", "turnaround", "model"),
    "frame": ("frame", "keyframe"),
}


@dataclass(frozen=True, slots=True)
class ShotFile:
    """A shot and what its file says about how to colour it.

    options: name -> raw value, unchecked: `[options]` of shot.toml, or `steps`, `size` (height, width), `caption` and
    `output_name` of a job. Empty where the file says nothing.
    """

    shot: Shot
    options: dict[str, Any] = field(default_factory=dict)


def load_shots(path: StrPath) -> list[ShotFile]:
    """All shots of a path: a shot folder, a job JSON (may hold several), or a bare sketch without references.

    A bare sketch is a video, a folder with nothing but images, a glob or one image. A shot folder holds `sketch.mp4` (or another
    video) or `sketch/` with images; `references/` with images, or `reference_0.png` ... beside the sketch; optionally
    `labels.npz` or `labels/` with grey images, and `shot.toml`:

        frame_rate = 24
        [labels]               # label -> the references that may colour it, by name or by index
        0 = []                 # no reference
        1 = ["1_hero.png", "hero_sheet.png"]
        [options]              # options of the colorizer

    Labels without a line in `[labels]` go by the file names: the number a name starts with is its label (`1_hero.png` and
    `1_hero_sheet.png` both serve label 1); a name without a number serves the label of its position. Every label in the video,
    0 included, needs a reference or an explicit `[]`. Raises InputError.
    """
    target = Path(path)
    if target.suffix.lower() == ".json" and target.is_file():
        return _load_job(target)
    if target.is_dir() and not _is_image_folder(target):
        return [_load_folder(target)]
    sketch = open_frames(path)
    return [ShotFile(_shot(sketch, name=target.stem))]


def load_shot(path: StrPath) -> ShotFile:
    """The one shot of a path, as `load_shots`. Raises InputError where a job holds several."""
    shots = load_shots(path)
    if len(shots) != 1:
        raise InputError(f"{path}: holds {len(shots)} shots; expected one")
    return shots[0]


def read_reference(path: StrPath, role: Role | None = None) -> Reference:
    """A reference from an image file; its role, unless given, is guessed from the name. Raises InputError."""
    path = Path(path)
    image, alpha = read_image(path)
    try:
        return Reference(image, alpha, role or role_of(path.name), path.name)
    except ValueError as error:
        raise InputError(f"{path.parent}: {error}") from error


def role_of(name: str) -> Role | None:
    """What a reference's file name hints at: `0_background.png`, `bg.png`, `hero_sheet.png`, `frame_012.png`, `1_hero.png`."""
    words = re.split(r"[^a-z]+", Path(name).stem.lower())
    for role, hints in _ROLE_WORDS.items():
        if not set(hints).isdisjoint(words):
            return role
    return "character" if _number_of(name) else None


def _number_of(name: str) -> int | None:
    """The label a reference's file name starts with: 1 of `1_hero.png` and of `reference_1.png`."""
    found = re.match(r"(?:reference_?)?([0-9]+)(?![0-9])", name.lower())
    return int(found[1]) if found else None


# ---------------------------------------------------------------------------------------------------------------- folders

_FrameRate = Annotated[Fraction, BeforeValidator(parse_frame_rate)]


class _ShotToml(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    frame_rate: _FrameRate | None = None
    labels: dict[Annotated[int, Field(ge=0)], list[int | str] | int | str] = {}
    options: dict[str, Any] = {}


def _is_image_folder(folder: Path) -> bool:
    """Images, and nothing that makes it a shot folder: a bare sketch."""
    entries = [p for p in folder.iterdir() if not p.name.startswith(".")]
    images = [p for p in entries if p.suffix.lower() in IMAGE_SUFFIXES]
    named = any(p.stem.lower() == "sketch" or p.name.lower().startswith("reference") for p in entries)
    structured = any(p.is_dir() or p.suffix.lower() in (*VIDEO_SUFFIXES, ".npz", ".toml") for p in entries)
    return bool(images) and not named and not structured


def _load_folder(folder: Path) -> ShotFile:
    sketch = open_frames(_find_sketch(folder))
    paths = _find_references(folder)
    toml = _read_toml(folder / "shot.toml")
    labels = None
    if found := _only_one(folder, [p for p in (folder / "labels.npz", folder / "labels") if p.exists()], "labels"):
        numbers = [n if (n := _number_of(p.name)) is not None else i for i, p in enumerate(paths)]
        bound = {label: tuple(i for i, n in enumerate(numbers) if n == label) for label in numbers}
        bound |= {label: _resolve(folder, label, named, paths) for label, named in toml.labels.items()}
        example = 'a file "references/{label}_name.png", or a line "{label} = []" under [labels] in shot.toml'
        labels = _labels(read_labels(found), bound, str(folder), example)
    elif toml.labels:
        raise InputError(f"{folder / 'shot.toml'}: maps labels but there are none; add labels.npz or labels/, or drop [labels]")
    shot = _shot(sketch, [read_reference(p) for p in paths], labels, toml.frame_rate, folder.name)
    return ShotFile(shot, toml.options)


def _find_sketch(folder: Path) -> Path:
    found = [p for p in sorted(folder.iterdir()) if p.stem.lower() == "sketch"]
    found = [p for p in found if p.is_dir() or p.suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES]
    sketch = _only_one(folder, found, "sketches")
    if sketch is None:
        others = [p.name for p in sorted(folder.iterdir()) if p.suffix.lower() in VIDEO_SUFFIXES or p.is_dir()]
        there = f" (there is {', '.join(others)})" if others else ""
        raise InputError(f"{folder}: has no sketch{there}; expected sketch.mp4 or a folder sketch/ with images")
    return sketch


def _find_references(folder: Path) -> list[Path]:
    inside = [p for p in (folder / "references").glob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    beside = [p for p in folder.glob("reference*") if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES]
    if inside and beside:
        raise InputError(f"{folder}: has references/ and {beside[0].name} beside the sketch; keep all references in one place")
    return sorted(inside or beside, key=lambda p: natural_key(p.name))


def _only_one(folder: Path, found: list[Path], what: str) -> Path | None:
    if len(found) > 1:
        raise InputError(f"{folder}: has {len(found)} {what}, {' and '.join(p.name for p in found)}; keep one")
    return found[0] if found else None


def _read_toml(path: Path) -> _ShotToml:
    if not path.is_file():
        return _ShotToml()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read as TOML ({error}); correct it or remove it") from error
    return _checked(_ShotToml, content, str(path))


def _resolve(folder: Path, label: int, named: Sequence[int | str] | int | str, paths: list[Path]) -> tuple[int, ...]:
    """Indices of references named by file name (with or without suffix) or index."""
    names = [p.name for p in paths]
    stems = [p.stem for p in paths]
    indices: list[int] = []
    for one in [named] if isinstance(named, int | str) else named:
        if isinstance(one, int) and 0 <= one < len(paths):
            indices.append(one)
        elif one in names:
            indices.append(names.index(str(one)))
        elif stems.count(str(one)) == 1:
            indices.append(stems.index(str(one)))
        else:
            there = ", ".join(names) or "none"
            hint = did_you_mean(one, names) if isinstance(one, str) else ""
            raise InputError(f"{folder / 'shot.toml'}: label {label} names reference {one!r}; the references are {there}{hint}")
    return tuple(dict.fromkeys(indices))


def _labels(video: Frames, bound: Mapping[int, tuple[int, ...]], where: str, remedy: str) -> Labels:
    """Labels whose every value has its references. Reads the label video once."""
    frames_of: dict[int, list[int]] = {}
    for index in range(video.shape[0]):
        for label in np.flatnonzero(np.bincount(video[index : index + 1].ravel())):
            frames_of.setdefault(int(label), []).append(index)
    for label in sorted(frames_of.keys() - bound.keys()):
        found = f"label {label} (frames {_ranges(frames_of[label])})"
        have = ", ".join(map(str, sorted(bound))) or "none"
        raise InputError(f"{where}: {found} has no reference (labels with one: {have}); add {remedy.format(label=label)}")
    return Labels(video, MappingProxyType(dict(bound)))


def _ranges(numbers: list[int]) -> str:
    """1, 2, 3, 7 -> "1-3, 7"; at most four parts."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    text = ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in parts[:4])
    return text + (" ..." if len(parts) > 4 else "")


def _shot(
    sketch: FileFrames | Frames,
    references: Sequence[Reference] = (),
    labels: Labels | None = None,
    frame_rate: Fraction | None = None,
    name: str = "shot",
) -> Shot:
    rate = frame_rate or getattr(sketch, "frame_rate", None) or Fraction(24)
    try:
        return Shot(sketch, tuple(references), labels, rate, name)
    except ValueError as error:
        raise InputError(str(error)) from error


# ------------------------------------------------------------------------------------------------------- the authors' job


class _JobShot(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    sketch_control_path: str
    reference_paths: list[str] = []
    identity_mask_npz_path: str | None = None
    caption: str | None = None
    num_inference_steps: Annotated[int, Field(ge=1)] | None = None
    num_frames: Annotated[int, Field(ge=1)] | None = None
    frame_rate: _FrameRate | None = None
    height: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] | None = None
    custom_output_name: str | None = None


class _Job(BaseModel):
    model_config = ConfigDict(extra="forbid")
    data: Annotated[list[_JobShot], Field(min_length=1)]


def _load_job(path: Path) -> list[ShotFile]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); correct it") from error
    return [_job_shot(job, path.parent, f"{path}: data.{i}") for i, job in enumerate(_checked(_Job, content, str(path)).data)]


def _job_shot(job: _JobShot, base: Path, where: str) -> ShotFile:
    if (job.height is None) != (job.width is None):
        raise InputError(f"{where}: gives only one of height and width; give both or neither")
    sketch: Frames = open_frames(base / job.sketch_control_path)
    rate = job.frame_rate or getattr(sketch, "frame_rate", None)
    video = read_labels(base / job.identity_mask_npz_path) if job.identity_mask_npz_path else None
    if job.num_frames is not None:
        if job.num_frames > sketch.shape[0]:
            have = sketch.shape[0]
            raise InputError(
                f"{where}: num_frames is {job.num_frames} but the sketch has {have}; give {have} or less, or leave it out"
            )
        # Masks go with the sketch file, so a mask of another length than the sketch stays an error.
        if video is not None and video.shape[0] == sketch.shape[0]:
            video = first_frames(video, job.num_frames)
        sketch = first_frames(sketch, job.num_frames)
    labels = None
    if video is not None:
        bound = {i: (i,) for i in range(len(job.reference_paths))}
        labels = _labels(video, bound, where, "a path to reference_paths for index {label}, or correct the mask")
    name = job.custom_output_name or Path(job.sketch_control_path).stem
    shot = _shot(sketch, [read_reference(base / p) for p in job.reference_paths], labels, rate, name)
    size = (job.height, job.width) if job.height is not None else None
    said = {"steps": job.num_inference_steps, "size": size, "caption": job.caption, "output_name": job.custom_output_name}
    return ShotFile(shot, {key: value for key, value in said.items() if value is not None})


_Model = TypeVar("_Model", bound=BaseModel)


def _checked(model: type[_Model], content: object, where: str) -> _Model:
    """The content as `model`; InputError names the first wrong key, with the nearest right one."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":
            known = _JobShot.model_fields if place[0] == "data" else model.model_fields
            hint = did_you_mean(place[-1], known)
            raise InputError(f"{where}: unknown key {'.'.join(place)!r}{hint} (known: {', '.join(known)})") from error
        got = "" if first["type"] == "missing" else f" (got {first['input']!r:.60})"
        raise InputError(f"{where}: {'.'.join(place) or 'content'}: {first['msg'].removeprefix('Value error, ')}{got}") from error
