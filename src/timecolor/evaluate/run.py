"""Runs methods over cases, one case at a time, and writes down what came out: results.json and the strips of its report.

Each finished case is kept under `cases/` until all are done, so an evaluation that was stopped goes on when the same command is
given again, and results.json is either whole or not there.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from PIL import Image

from timecolor import choice, weights
from timecolor.colorize import ColorizeOptions, Colorizer
from timecolor.evaluate.ablations import Ablated, Ablation, Trained, ablate, ablations, train_ablations
from timecolor.evaluate.baselines import BASELINES, baseline
from timecolor.evaluate.learned import LearnedMetric, frechet_distance, learned_metrics
from timecolor.evaluate.metrics import (
    ciede2000,
    colours_of,
    edmd,
    flat_segments,
    leak_rate,
    psnr,
    segment_accuracy,
    segment_differences,
    ssim,
    temporal_consistency,
)
from timecolor.evaluate.protocols import (
    PROTOCOLS,
    Broken,
    Case,
    Protocol,
    Selection,
    Source,
    dataset_name,
    is_one_shot,
    peer_videos,
    sources,
)
from timecolor.evaluate.report import OURS, SCHEMA, WEBP_SIDE
from timecolor.evaluate.statistics import mean_interval
from timecolor.finish import FinishOptions
from timecolor.media import InputError, did_you_mean, open_frames
from timecolor.shot import Labels
from timecolor.sketch import extract_clip

METHODS = (OURS, *BASELINES)
BEST_PSNR = 60.0  # dB that equal pictures count as; rounding to 8 bits alone leaves 58.9
STRIP_WIDTH = 480  # px of a frame on a strip
ABLATION_SHOTS = 16

NOTES = {
    "scored frames": "the reference frame and exact copies of it (held drawings) are left out while there are others",
    "whole clip": "TC and FVD need frames that follow one another: they see all frames of the clip, the reference frame too",
    "psnr": f"equal pictures count as {BEST_PSNR:g} dB",
    "painted": "where colours are compared: no line, no white paper",
    "seconds_per_frame": "wall clock, reading and finish included; a run before the first case warms up",
    "peak_mib": "of the whole process, libraries and the case itself included, while the method ran (VmHWM, Linux); on a GPU, "
    "what torch held there",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is evaluated.

    datasets: see `protocols.sources`. protocols: a shot is measured under those of them that it has the references for.
    options: of our method; its seed also draws the arbitrary frames, and its finish is that of the baselines. model, device,
    dtype, base, memory: see `models.load`.
    peers: videos that other systems made, SHOT/METHOD.mp4 (or SHOT/PROTOCOL/METHOD.mp4, with dashes for spaces), or METHOD.mp4
    for a single shot; `peers/` in a shot's own folder joins too. weights_dir: of learned measures, see `learned`.
    ablation_shots: cases of each dataset and protocol that ablations take, 0 = none. train_steps: of each training-time ablation
    of train_preset, 0 = none. Raises ValueError for an unknown name.
    """

    datasets: tuple[str, ...]
    methods: tuple[str, ...] = METHODS
    protocols: tuple[Protocol, ...] = PROTOCOLS
    selection: Selection = field(default_factory=Selection)
    options: ColorizeOptions = field(default_factory=ColorizeOptions)
    model: str = "toon"
    device: str = "auto"
    dtype: str = "auto"
    base: str | None = None
    memory: str = "auto"
    peers: Path | None = None
    weights_dir: Path | None = None
    skip_broken: bool = False
    ablation_shots: int = 0
    train_steps: int = 0
    train_preset: str = "toon"

    def __post_init__(self) -> None:
        for what, given, known in (("method", self.methods, METHODS), ("protocol", self.protocols, PROTOCOLS)):
            for name in given:
                if name not in known:
                    raise ValueError(f"unknown {what} {name!r}; use some of {', '.join(known)}{did_you_mean(name, known)}")
            if not given or len(set(given)) < len(given):
                raise ValueError(f"{what}s are {', '.join(given) or 'none'}; give at least one, and each once")
        names = [dataset_name(dataset) for dataset in self.datasets]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"datasets are {', '.join(names) or 'none'}; give world or paths, each with a name of its own")
        if self.options.extract_lines:
            raise ValueError(
                "extract_lines is for sketches that are colour clips; here lines of such clips are taken once, for all"
            )
        if self.ablation_shots < 0 or self.train_steps < 0:
            raise ValueError(f"got {self.ablation_shots} ablation shots and {self.train_steps} training steps; give 0 or more")


def names_of(what: Literal["method", "protocol"], words: str) -> tuple[Any, ...]:
    """Methods or protocols from words with commas between; `Plan` checks them."""
    return tuple(word.strip() for word in words.split(",") if word.strip())


def part_of(words: str | None) -> tuple[int, int] | None:
    """(i, n) of "i/n"; raises ValueError."""
    if words is None:
        return None
    first, slash, of = words.partition("/")
    if not slash or not first.isdigit() or not of.isdigit() or not 1 <= int(first) <= int(of):
        raise ValueError(f"part is {words!r}; give i/n, such as 1/2")
    return int(first), int(of)


def read_results(folder: Path) -> dict[str, Any]:
    """results.json of a finished evaluation. Raises InputError."""
    path = folder / "results.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        state = "is not finished" if (folder / "cases").is_dir() else "holds no results.json"
        raise InputError(f"{folder}: {state}; give a folder that `timecolor evaluate` wrote") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); evaluate again") from error


@dataclass(frozen=True, slots=True)
class Done:
    """One case is finished. values: method -> its figures; empty where there is no truth. again: it was known from before."""

    number: int
    dataset: str
    protocol: str
    case: str
    values: dict[str, dict[str, float | None]]
    again: bool


@dataclass(frozen=True, slots=True)
class Skipped:
    """A case that was left out, and why."""

    dataset: str
    case: str
    why: str


def evaluate(
    plan: Plan, out: Path, command: str = "", overwrite: bool = False, part: tuple[int, int] | None = None
) -> Iterator[Done | Skipped]:
    """Measure and draw every case, then write out/results.json.

    command: noted in the results. overwrite: replace other results in `out`. part: (i, n) = every n-th case from the i-th on,
    for processes that share `out`; the same command without it then writes the results. Raises InputError for broken input unless
    the plan skips it, for a folder that holds another evaluation, and where nothing is left to measure.
    """
    colorizer = Colorizer.load(plan.model, plan.device, plan.dtype, plan.base, plan.memory)
    measures = Measures(learned_metrics(plan.weights_dir, str(colorizer.model.device)), plan.train_steps > 0)
    cases = _Cases(out, _config(plan), overwrite)
    ways = ablations(colorizer, plan.options) if plan.ablation_shots else []
    trained = (
        train_ablations(plan.train_preset, plan.train_steps, out / "ablations", colorizer.model.device)
        if plan.train_steps and part is None
        else []
    )
    skipped: list[Skipped] = []
    seen: dict[tuple[str, str], int] = {}
    number, warm = 0, False
    for dataset in plan.datasets:
        for source in sources(dataset, plan.selection, plan.options.seed):
            if isinstance(source, Broken):
                skipped.append(_skip(plan, source.dataset, source.name, source.why))
                yield skipped[-1]
                continue
            chosen: list[Protocol] = [protocol for protocol in plan.protocols if protocol in source.protocols]
            for protocol in chosen:
                group = source.dataset, protocol
                seen[group] = seen.get(group, 0) + 1
                number += 1
                if part is not None and (number - part[0]) % part[1]:
                    continue
                record = cases.find(*group, source.name)
                if record is None:
                    try:
                        peers = _peers_of(source, protocol, chosen, plan)
                        case = source.case(protocol)
                        colorizer.check(case.shot, plan.options)
                        found = {name: _Peer.read(name, path, case) for name, path in peers.items()}
                    except ValueError as why:
                        skipped.append(_skip(plan, source.dataset, source.name, why, protocol))
                        yield skipped[-1]
                        continue
                    if not warm:
                        _warm_up(colorizer, case, plan.options)
                        warm = True
                    work = _CaseRun(case, plan, colorizer, measures, found)
                    record = cases.add(work, ways if seen[group] <= plan.ablation_shots else [])
                    again = False
                else:
                    again = True
                values = {row["method"]: row["values"] for row in record["rows"] if row["values"]}
                yield Done(len(cases.records), source.dataset, protocol, source.name, values, again)
    if part is not None:
        return
    if not cases.records:
        wanted = " or ".join(map(repr, plan.protocols))
        raise InputError(f"{', '.join(plan.datasets)}: nothing to measure; no usable shot has what {wanted} needs")
    cases.finish(_results(plan, cases, measures, ways, trained, skipped, colorizer, command))


def _skip(plan: Plan, dataset: str, name: str, why: ValueError, protocol: str = "") -> Skipped:
    text = " ".join(str(why).split())
    text = text if name in text else f"{name}: {text}"
    if not plan.skip_broken:
        raise InputError(f"{text} (--skip-broken leaves such cases out and counts them)") from why
    return Skipped(dataset, f"{name}, {protocol}" if protocol else name, text)


def _warm_up(colorizer: Colorizer, case: Case, options: ColorizeOptions) -> None:
    """What the first run of a process does once must not count as time of the first case."""
    labels = None if case.shot.labels is None else Labels(case.shot.labels.video[0:1], case.shot.labels.references)
    colorizer.colorize(replace(case.shot, sketch=case.shot.sketch[0:1], labels=labels), options)


# ------------------------------------------------------------------------------------------------------------- measuring


class Measures:
    """All measures there are, and what a case is worth by them."""

    def __init__(self, learned: Sequence[LearnedMetric], trained: bool = False) -> None:
        self.learned = learned
        own = [
            ("psnr", "PSNR", "dB", "higher"),
            ("painted_psnr", "PSNR, painted", "dB", "higher"),
            ("ssim", "SSIM", "", "higher"),
            ("segment_accuracy_5", "Segments within dE 5", "", "higher"),
            ("segment_accuracy_10", "Segments within dE 10", "", "higher"),
            ("segment_area_5", "Segment area within dE 5", "", "higher"),
            ("segment_area_10", "Segment area within dE 10", "", "higher"),
            ("mean_ciede2000", "Mean dE, painted", "", "lower"),
            ("leak_rate", "Leak rate", "", "lower"),
            ("edmd", "EDMD", "", "lower"),
            ("temporal_consistency", "TC", "", "lower"),
        ]
        self.metrics = [{"name": n, "label": l, "unit": u, "better": b, "missing": None} for n, l, u, b in own]
        self.metrics += [{"name": m.name, "label": m.label, "unit": "", "better": "lower", "missing": m.missing} for m in learned]
        if trained:
            own = [("one_step_psnr", "One-step PSNR"), ("one_step_psnr_characters", "One-step PSNR, characters")]
            self.metrics += [{"name": n, "label": l, "unit": "dB", "better": "higher", "missing": None} for n, l in own]

    @property
    def sets(self) -> list[LearnedMetric]:
        """Those with one figure for a whole data set."""
        return [metric for metric in self.learned if metric.features is not None]


class Yardstick:
    """What the measures need of one case's truth, worked out once for all methods."""

    def __init__(self, case: Case, measures: Measures) -> None:
        assert case.truth is not None
        assert case.painted is not None
        self.truth, self.painted, self.measures = case.truth, case.painted, measures
        self.segments = flat_segments(case.truth, case.painted)
        self.still = bool((case.truth[1:] == case.truth[:-1]).all())
        self.lines = extract_clip(case.truth, binarise=True)
        self.areas = None if case.areas is None else np.asarray(case.areas.video[0 : len(case.truth)]).astype(np.int32)
        self.palettes: dict[int, np.ndarray] = {}
        if case.areas is not None and self.areas is not None:
            for label in np.unique(self.areas).tolist():
                own = [case.shot.references[r] for r in case.areas.references_of(label) if r < len(case.shot.references)]
                self.palettes[label] = colours_of([(r.image, r.alpha) for r in own])
            self.palettes = {label: palette for label, palette in self.palettes.items() if len(palette)}

    def values(self, output: np.ndarray, frames: Sequence[int]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Figures of the frames named, and those of each frame."""
        index = list(frames)
        made, truth, painted, segments = output[index], self.truth[index], self.painted[index], self.segments[index]
        difference = ciede2000(made, truth)
        values: dict[str, Any] = {
            "psnr": _capped(psnr(made, truth)),
            "painted_psnr": _capped(psnr(made[painted][None], truth[painted][None])) if painted.any() else None,
            "ssim": ssim(made, truth),
            "mean_ciede2000": _mean(difference[painted]),
        }
        wrong, area = segment_differences(made, truth, segments)
        for within in (5, 10):
            values[f"segment_accuracy_{within}"] = segment_accuracy(wrong, within=within)
            values[f"segment_area_{within}"] = segment_accuracy(wrong, area, within)
        of_areas = None if self.areas is None else np.where(painted, self.areas[index], -1)
        values["leak_rate"] = None if of_areas is None else leak_rate(made, truth, of_areas, self.palettes)
        values["edmd"] = edmd(extract_clip(made, binarise=True), self.lines[index])
        # Against a truth without any motion the ratio has no meaning.
        whole = len(output) == len(self.truth) > 1 and not self.still
        values["temporal_consistency"] = temporal_consistency(output, self.truth) if whole else None
        per_frame: dict[str, Any] = {
            "psnr": [_capped(psnr(a, b)) for a, b in zip(made, truth, strict=True)],
            "ssim": [ssim(a, b) for a, b in zip(made, truth, strict=True)],
            "mean_ciede2000": [_mean(d[p]) for d, p in zip(difference, painted, strict=True)],
            "segment_accuracy_10": [
                segment_accuracy(segment_differences(a, b, s)[0]) for a, b, s in zip(made, truth, segments, strict=True)
            ],
        }
        for metric in self.measures.learned:
            values[metric.name] = None
            if metric.distance is not None:
                distances = metric.distance(made, truth)
                values[metric.name], per_frame[metric.name] = float(distances.mean()), distances.tolist()
        return _tidy(values), _tidy(per_frame)

    def features(self, clip: np.ndarray, frames: Sequence[int]) -> dict[str, np.ndarray]:
        """Of measures that compare whole data sets: of the frames named, or of clips long enough."""
        found = {}
        for metric in self.measures.sets:
            assert metric.features is not None
            # A measure of clips sees all of it: its frames must follow one another.
            seen = clip[list(frames)] if metric.frames == 1 else clip
            if len(seen) >= metric.frames and len(clip) == len(self.truth):
                found[metric.name] = metric.features(seen).astype(np.float32)
        return found


def _capped(decibels: float) -> float:
    return min(decibels, BEST_PSNR)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean(dtype=np.float64)) if values.size else None


def _tidy(value: Any) -> Any:
    """For JSON: six digits, and None for what is not finite."""
    if isinstance(value, Mapping):
        return {key: _tidy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_tidy(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.6g}") if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


# ------------------------------------------------------------------------------------------------------------- one case


@dataclass(frozen=True, slots=True, eq=False)
class _Peer:
    """Another system's video of a case. frames: uint8 (t, h, w, 3), the last repeated to the case's length; own: those it has."""

    frames: np.ndarray
    own: list[int]
    note: str | None

    @staticmethod
    def read(name: str, path: Path, case: Case) -> "_Peer":
        """Frames by their time, at the case's size."""
        video = open_frames(path)
        count, height, width = case.shot.sketch.shape[:3]
        rate = video.frame_rate or case.shot.frame_rate
        at = [int(t * rate / case.shot.frame_rate) for t in range(count)]
        own = [t for t in range(count) if at[t] < video.shape[0]]
        read = video[0 : min(video.shape[0], at[-1] + 1)]
        notes = []
        if video.shape[0] != count:
            notes.append(f"{name} has {video.shape[0]} frames, {len(own)} of the {count} here")
        if rate != case.shot.frame_rate:
            notes.append(
                f"{name} runs at {float(rate):g} frames a second, the shot at {float(case.shot.frame_rate):g}: matched by time"
            )
        if read.shape[1:3] != (height, width):
            notes.append(f"{name} is {read.shape[2]}x{read.shape[1]}: resized to {width}x{height}")
            read = np.stack([_resized(frame, height, width) for frame in read])
        frames = np.stack([read[min(index, len(read) - 1)] for index in at])
        return _Peer(frames, own, "; ".join(notes) or None)


def _peers_of(source: Source, protocol: Protocol, chosen: Sequence[Protocol], plan: Plan) -> dict[str, Path]:
    """Videos of a shot under a protocol, by method."""
    found = dict(source.peers)
    if plan.peers is not None:
        if not plan.peers.is_dir():
            raise InputError(f"{plan.peers}: no such folder; --peers takes one that holds SHOT/METHOD.mp4")
        if direct := peer_videos(plan.peers):
            if plan.selection.shots != 1 and not (len(plan.datasets) == 1 and is_one_shot(plan.datasets[0])):
                raise InputError(
                    f"{plan.peers}: holds videos of one shot but there may be several; put them into SHOT/METHOD.mp4"
                )
            found |= direct
        found |= peer_videos(plan.peers / source.name) | peer_videos(plan.peers / source.name / "peers")
    if found and len(chosen) > 1:
        raise InputError(
            f"{source.name}: has {next(iter(found.values()))} and {len(chosen)} protocols; put it into a folder "
            f"{_slug(protocol)}, or give one of --protocols"
        )
    if plan.peers is not None:
        found |= peer_videos(plan.peers / source.name / _slug(protocol))
    # The published TimeColor is a peer of the same name.
    return {f"{name} (peer)" if name in METHODS or name in ("truth", "sketch") else name: path for name, path in found.items()}


class _CaseRun:
    """The work on one case."""

    def __init__(self, case: Case, plan: Plan, colorizer: Colorizer, measures: Measures, peers: dict[str, _Peer]) -> None:
        self.case, self.plan, self.colorizer, self.peers = case, plan, colorizer, peers
        self.measures = measures
        self.features: dict[str, np.ndarray] = {}

    def record(self, folder: Path, slug: str, ways: Sequence[Ablation]) -> dict[str, Any]:
        """Rows, strip and ablations of the case, ready for JSON; `features` are left beside."""
        case, plan = self.case, self.plan
        yardstick = None if case.truth is None else Yardstick(case, self.measures)
        rows, outputs = [], {}
        for method in plan.methods:
            with _Cost(self.colorizer) as cost:
                outputs[method] = self._made(method)
            figures = _tidy({"seconds_per_frame": cost.seconds / len(outputs[method]), "peak_mib": cost.peak_mib})
            rows.append({**self._row(yardstick, method, outputs[method], case.scored), **figures, "note": None})
        for name, peer in self.peers.items():
            scored = [t for t in case.scored if t in peer.own]
            made = peer.frames if len(peer.own) == len(peer.frames) else peer.frames[: len(peer.own)]
            row = self._row(yardstick if scored else None, name, made, scored)
            rows.append({**row, "seconds_per_frame": None, "peak_mib": None, "note": peer.note})
            outputs[name] = peer.frames
        if yardstick is not None:
            assert case.truth is not None
            for metric, found in yardstick.features(case.truth, case.scored).items():
                self.features[f"{metric}/truth"] = found
        ablated: list[Ablated] = []
        if yardstick is not None and ways:
            known = yardstick

            def values(output: np.ndarray) -> dict[str, Any]:
                return known.values(output, case.scored)[0]

            ablated = ablate(case.protocol, case.shot, ways, values)
        return {
            "rows": rows,
            "strip": self._strip(folder, slug, outputs),
            "ablations": [_tidy(asdict(one)) for one in ablated],
        }

    def _made(self, method: str) -> np.ndarray:
        options = self.plan.options
        if method == OURS:
            return self.colorizer.colorize(self.case.shot, options)
        return baseline(method, self.case.shot, FinishOptions(options.lines, options.finish, options.palette)).frames

    def _row(self, yardstick: Yardstick | None, method: str, output: np.ndarray, frames: Sequence[int]) -> dict[str, Any]:
        case = self.case
        values, per_frame = ({}, {}) if yardstick is None else yardstick.values(output, frames)
        if yardstick is not None and tuple(frames) == case.scored:
            for metric, found in yardstick.features(output, frames).items():
                self.features[f"{metric}/of/{method}"] = found
        return {
            "dataset": case.dataset,
            "protocol": case.protocol,
            "case": case.name,
            "method": method,
            "frames": list(frames) if yardstick is not None else [],
            "values": values,
            "per_frame": per_frame,
        }

    def _strip(self, folder: Path, slug: str, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Draw what the players of the report show."""
        case = self.case
        sketch = case.shot.sketch[0 : case.shot.sketch.shape[0]]
        count, h, w = sketch.shape[:3]
        width = min(STRIP_WIDTH, w)
        height = max(1, round(h * width / w))
        suffix = "webp" if count * width <= WEBP_SIDE else "png"
        place = folder / "strips" / slug
        place.mkdir(parents=True, exist_ok=True)
        references, players = [], []
        for r, reference in enumerate(case.shot.references):
            image = reference.image if reference.alpha is None else np.dstack([reference.image, reference.alpha])
            shrunk = min(1.0, STRIP_WIDTH / image.shape[1])
            size = max(1, round(image.shape[0] * shrunk)), max(1, round(image.shape[1] * shrunk))
            Image.fromarray(_resized(image, *size)).save(place / f"reference-{r}.png")
            references.append(f"strips/{slug}/reference-{r}.png")
        shown = {"sketch": sketch, **outputs} | ({} if case.truth is None else {"truth": case.truth})
        for number, (name, frames) in enumerate(shown.items()):
            file = f"strips/{slug}/{number}-{_slug(name)}.{suffix}"
            strip = np.concatenate([_resized(frame, height, width) for frame in frames], axis=1)
            Image.fromarray(strip).save(folder / file, quality=90)  # PNG is exact anyway
            player: dict[str, Any] = {"name": name, "file": file}
            if name in self.peers and len(self.peers[name].own) < count:
                player["shown"] = self.peers[name].own
            players.append(player)
        return {
            "dataset": case.dataset,
            "protocol": case.protocol,
            "case": case.name,
            "frames": count,
            "width": width,
            "height": height,
            "fps": round(float(case.shot.frame_rate), 4),
            "references": references,
            "players": players,
        }


def _resized(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    if frame.shape[:2] == (height, width):
        return frame
    smaller = frame.shape[0] > height
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


class _Cost:
    """Seconds and peak memory of what runs inside."""

    seconds: float
    peak_mib: float | None = None

    def __init__(self, colorizer: Colorizer) -> None:
        self.gpu = colorizer.model.device if colorizer.model.device.type == "cuda" else None

    def __enter__(self) -> "_Cost":
        if self.gpu is not None:
            torch.cuda.reset_peak_memory_stats(self.gpu)
        elif _CLEAR.exists():
            _CLEAR.write_text("5")  # proc(5): the peak starts anew
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        if self.gpu is not None:
            self.peak_mib = torch.cuda.max_memory_allocated(self.gpu) / 2**20
        elif _CLEAR.exists():
            line = next(x for x in _STATUS.read_text().splitlines() if x.startswith("VmHWM"))
            self.peak_mib = int(line.split()[1]) / 1024


_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


# ------------------------------------------------------------------------------------------------- cases already finished


class _Cases:
    """Finished cases: in memory what results.json needs, on disk what a stopped run goes on from."""

    def __init__(self, out: Path, config: dict[str, Any], overwrite: bool) -> None:
        self.out, self.folder = out, out / "cases"
        if (out / "results.json").exists() and not overwrite and not self.folder.exists():
            raise InputError(f"{out}: holds results already; give another --out, or --overwrite")
        known = self.folder / "config.json"
        if known.exists() and not overwrite:
            former = json.loads(known.read_text())
            config = json.loads(json.dumps(config))
            changed = [key for key in {**former, **config} if former.get(key) != config.get(key)]
            if changed:
                got = f"{former.get(changed[0])!r:.80}, not {config.get(changed[0])!r:.80}"
                raise InputError(
                    f"{out}: holds an unfinished evaluation whose {changed[0]} is {got}; give its own options, another --out, "
                    "or --overwrite"
                )
        else:
            for old in (self.folder, out / "strips"):
                shutil.rmtree(old, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(known, json.dumps(config, indent=1))
        self.records: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._slugs: dict[str, tuple[str, str, str]] = {}

    def _slug_of(self, *key: str) -> str:
        dataset, protocol, name = key
        slug = _slug(f"{dataset} {protocol} {name.removeprefix(f'{dataset}/')}")
        if self._slugs.setdefault(slug, (dataset, protocol, name)) != (dataset, protocol, name):
            slug += "-" + hashlib.sha256("\n".join(key).encode()).hexdigest()[:8]
        return slug

    def find(self, dataset: str, protocol: str, name: str) -> dict[str, Any] | None:
        """The record of a case that was finished before."""
        path = self.folder / f"{self._slug_of(dataset, protocol, name)}.json"
        if not path.exists():
            return None
        record = json.loads(path.read_text())
        self.records[dataset, protocol, name] = record
        return record

    def add(self, work: _CaseRun, ways: Sequence[Ablation]) -> dict[str, Any]:
        """Do the work on a case and keep it."""
        case = work.case
        key = (case.dataset, case.protocol, case.name)
        slug = self._slug_of(*key)
        record = work.record(self.out, slug, ways)
        if work.features:
            partial = self.folder / f".{slug}.npz"
            with partial.open("wb") as file:
                np.savez(file, **work.features)  # pyright: ignore[reportArgumentType] (names are the data's own)
            partial.replace(self.folder / f"{slug}.npz")
        _write(self.folder / f"{slug}.json", json.dumps(record))
        self.records[key] = record
        return record

    def features(self, key: tuple[str, str, str]) -> dict[str, np.ndarray]:
        """Of a finished case."""
        path = self.folder / f"{self._slug_of(*key)}.npz"
        if not path.exists():
            return {}
        with np.load(path) as archive:
            return dict(archive)

    def finish(self, results: dict[str, Any]) -> None:
        """Write results.json; what was kept for going on is no longer needed."""
        _write(self.out / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
        shutil.rmtree(self.folder)


def _write(path: Path, text: str) -> None:
    """A file that is either the old one or the whole new one."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------------- the results


def _results(
    plan: Plan,
    cases: _Cases,
    measures: Measures,
    ways: Sequence[Ablation],
    trained: Sequence[Trained],
    skipped: Sequence[Skipped],
    colorizer: Colorizer,
    command: str,
) -> dict[str, Any]:
    rows = [row for record in cases.records.values() for row in record["rows"]]
    ablated = [(key, Ablated(**one)) for key, record in cases.records.items() for one in record["ablations"]]
    return {
        "schema": SCHEMA,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command,
        "commit": _commit(),
        "seed": plan.options.seed,
        "machine": _machine(colorizer),
        "versions": _versions(),
        "model": _model(plan.model, colorizer),
        "options": asdict(plan.options.settled(colorizer.model)),
        "settings": _settings(plan, cases, ways),
        "metrics": measures.metrics,
        "methods": list(dict.fromkeys([*plan.methods, *(row["method"] for row in rows)])),
        "rows": rows,
        "strips": [record["strip"] for record in cases.records.values()],
        "skipped": [asdict(one) for one in skipped],
        "summary": _summary(cases, rows, measures, plan.options.seed),
        "ablations": [*_ablation_summary(ablated, ways, measures, plan.options.seed), *_trained_summary(trained)],
    }


def _summary(cases: _Cases, rows: Sequence[dict[str, Any]], measures: Measures, seed: int) -> list[dict[str, Any]]:
    """Means over cases; measures of whole data sets are worked out here."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["values"]:
            groups.setdefault((row["dataset"], row["protocol"], row["method"]), []).append(row)
    found = []
    for (dataset, protocol, method), mine in groups.items():
        values: dict[str, Any] = {
            m["name"]: _interval([row["values"].get(m["name"]) for row in mine], seed) for m in measures.metrics
        }
        kept = [cases.features((dataset, protocol, row["case"])) for row in mine]
        for metric in measures.sets:
            names = f"{metric.name}/of/{method}", f"{metric.name}/truth"
            both = [np.concatenate([k[name] for k in kept if names[0] in k] or [np.empty((0, 1))]) for name in names]
            if min(map(len, both)) >= 2:
                values[metric.name] = {"mean": _tidy(frechet_distance(*both)), "low": None, "high": None}
        found.append({"dataset": dataset, "protocol": protocol, "method": method, "cases": len(mine), "values": values})
    return found


def _interval(values: Iterable[float | None], seed: int) -> dict[str, float | None] | None:
    known = [value for value in values if value is not None]
    return _tidy(asdict(mean_interval(known, seed))) if known else None


def _ablation_summary(
    ablated: Sequence[tuple[tuple[str, str, str], Ablated]], ways: Sequence[Ablation], measures: Measures, seed: int
) -> list[dict[str, Any]]:
    """Means over cases of every setting, switch by switch."""
    groups: dict[tuple[str, str, str, str], list[Ablated]] = {}
    for (dataset, protocol, _), one in ablated:
        groups.setdefault((one.name, one.setting, protocol, dataset), []).append(one)
    order = list(dict.fromkeys(way.name for way in ways))
    return [
        {
            "name": name,
            "setting": setting,
            "protocol": protocol,
            "dataset": dataset,
            "cases": len(mine),
            "values": {m["name"]: _interval([one.values.get(m["name"]) for one in mine], seed) for m in measures.metrics},
            "seconds_per_frame": _tidy(float(np.mean([one.seconds_per_frame for one in mine]))),
        }
        for (name, setting, protocol, dataset), mine in sorted(groups.items(), key=lambda item: order.index(item[0][0]))
    ]


def _trained_summary(trained: Sequence[Trained]) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "setting": one.setting,
            "protocol": one.protocol,
            "dataset": "world",
            "cases": one.cases,
            "values": {name: {"mean": value, "low": None, "high": None} for name, value in one.values.items()},
            "seconds_per_frame": None,
        }
        for one in trained
    ]


def _settings(plan: Plan, cases: _Cases, ways: Sequence[Ablation]) -> dict[str, Any]:
    held = {(dataset, protocol) for dataset, protocol, _ in cases.records}
    lacking = {
        name: missing
        for name in map(dataset_name, plan.datasets)
        if (missing := [protocol for protocol in plan.protocols if (name, protocol) not in held])
    }
    return {
        "datasets": list(plan.datasets),
        **asdict(plan.selection),
        "protocols": list(plan.protocols),
        "device": plan.device,
        "dtype": plan.dtype,
        "skip_broken": plan.skip_broken,
        "protocols_without_shots": lacking,
        "ablation_shots": plan.ablation_shots,
        "ablations": sorted({way.name for way in ways}),
        "train_ablation_steps": plan.train_steps,
        "notes": NOTES,
    }


def _config(plan: Plan) -> dict[str, Any]:
    """All that decides the figures: what a stopped run must have in common with the one that goes on."""
    plain = json.loads(json.dumps(asdict(plan), default=str))
    files, code = _weights_of(plan.model), sorted(_PACKAGE.rglob("*.py"))
    return {**plain, "weights": weights.digest(files) if files else None, "code": weights.digest(code)}


_PACKAGE = Path(__file__).parents[1]


def _weights_of(model: str) -> list[Path]:
    """A model's file, and those of the embedded networks that go with it; none of a directory."""
    path = weights.EMBEDDED if model == "toon" else Path(model)
    return [path, weights.EMBEDDED_MATCHER, choice.EMBEDDED, choice.TRUST] if path.is_file() else []


def _model(model: str, colorizer: Colorizer) -> dict[str, Any]:
    files = _weights_of(model)
    about = weights.read(files[0])[1] if files else {}
    return {
        "name": model,
        "steps_trained": about.get("steps"),
        "sha256": weights.digest(files) if files else None,
        "parameters": colorizer.model.parameters,
        "dtype": str(colorizer.model.dtype).removeprefix("torch."),
    }


def _commit() -> str | None:
    """The commit of the code, "-dirty" where files differ from it; None where it does not run from a checkout of its own."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(_PACKAGE), *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != _PACKAGE.resolve().parents[1]:
            return None
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _machine(colorizer: Colorizer) -> dict[str, Any]:
    cpu, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        cpu = next(
            (line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")), cpu
        )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    gpu = torch.cuda.get_device_name(colorizer.model.device) if colorizer.model.device.type == "cuda" else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(pages / 2**30, 1),
        "gpu": gpu,
    }


def _versions() -> dict[str, str]:
    """Of what can change a figure."""
    found = {"python": sys.version.split()[0]}
    for name in (
        "timecolor",
        "torch",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "av",
        "lpips",
        "torch-fidelity",
        "efficientnet-lite-pytorch",
    ):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
