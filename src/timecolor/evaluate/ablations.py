"""What each mechanism is worth: one switch changed at a time, on given weights, or in short training runs of one budget.

Switches of `ColorizeOptions` are changed there; the others are models with the same weights whose positions or visibility differ.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from timecolor.colorize import ColorizeOptions, Colorizer
from timecolor.correspondence import ALL
from timecolor.denoiser import Conditions
from timecolor.layout import Kind
from timecolor.media import did_you_mean
from timecolor.models import ToonModel
from timecolor.rope import Scheme
from timecolor.shot import Labels, Shot
from timecolor.toon import Toon, ToonCache, ToonConfig
from timecolor.train.denoising import Denoising
from timecolor.train.loop import train
from timecolor.train.presets import PRESETS, Preset, Stage

# Switches that every protocol has are run under these two; the others where they mean something.
BROAD = ("start frame", "multi-reference with labels")
LABELLED = ("multi-reference with labels",)
CAST = ("multi-reference with labels", "multi-reference without labels")


@dataclass(frozen=True, slots=True, eq=False)
class Ablation:
    """One setting of one switch. protocols: those it is run under. references: the first so many; None = all."""

    name: str
    setting: str
    colorizer: Colorizer
    options: ColorizeOptions
    protocols: tuple[str, ...] = BROAD
    references: int | None = None


@dataclass(frozen=True, slots=True)
class Ablated:
    """What a setting came to on one case."""

    name: str
    setting: str
    values: dict[str, float | None]
    seconds_per_frame: float


@dataclass(frozen=True, slots=True)
class Trained:
    """What a short training run came to. values: means over `cases` held-out shots under `protocol`."""

    name: str
    setting: str
    protocol: str
    cases: int
    values: dict[str, float]


def ablations(colorizer: Colorizer, options: ColorizeOptions) -> list[Ablation]:
    """Every setting of every switch, from what `options` say and, where they do not, from what the model was made for.

    Positions, correspondence and hints need another network with the same weights, so only `toon` models have them; hints, those
    that take them.
    positions: disjoint / normal (TimeColor §3.3). correspondence, in attention only (§3.4; the finish keeps its labels): bound =
    level 4, areas see their own references; blind = level 3, all areas see all references, which do not see each other; full =
    level 0, no mask. references: the first so many of the shot's, whose labels lose the others.
    """
    options, model = options.settled(colorizer.model), colorizer.model
    found = []
    if isinstance(model, ToonModel):
        config = model.toon.config
        for scheme in get_args(Scheme):
            same = config.rope.scheme == scheme
            placed = replace(config, rope=replace(config.rope, scheme=scheme))
            found.append(Ablation("positions", scheme, colorizer if same else _like(model, Toon, placed), options))
        found += [
            Ablation("correspondence", "bound", colorizer, options, LABELLED),
            Ablation("correspondence", "blind", _like(model, _Blind, config), options, LABELLED),
            Ablation("correspondence", "full", _like(model, _Full, config), options, LABELLED),
        ]
        if config.hints:
            found.append(Ablation("hints", "on", colorizer, options))
            found.append(Ablation("hints", "off", _like(model, _Unhinted, config), options))
        if model.matcher is not None:
            found.append(Ablation("matcher", "on", colorizer, options, CAST))
            found.append(Ablation("matcher", "off", Colorizer(replace(model, matcher=None)), options, CAST))
        if model.judge is not None:
            found.append(Ablation("judge", "on", colorizer, options))
            found.append(Ablation("judge", "off", Colorizer(replace(model, judge=None)), options))
        if model.trust is not None:
            found.append(Ablation("trust", "on", colorizer, options))
            found.append(Ablation("trust", "off", Colorizer(replace(model, trust=None)), options))
    found += [
        Ablation("lines", "match", colorizer, replace(options, lines="match")),
        Ablation("lines", "keep", colorizer, replace(options, lines="keep")),
        Ablation("cells", "coverage", colorizer, replace(options, cells="coverage"), LABELLED),
        Ablation("cells", "majority", colorizer, replace(options, cells="majority"), LABELLED),
        Ablation("regime", "cached", colorizer, replace(options, regime="cached")),
        Ablation("regime", "joint", colorizer, replace(options, regime="joint")),
    ]
    found += [Ablation("steps", str(steps), colorizer, replace(options, steps=steps)) for steps in (1, 2, 4, 8, 16)]
    found += [Ablation("window", str(window), colorizer, replace(options, window=window)) for window in (0, 1, 2, "all")]
    found += [Ablation("references", str(count), colorizer, options, CAST, count) for count in (0, 1, 2, 3)]
    found.append(Ablation("references", "all", colorizer, options, CAST))
    return found


def ablate(
    protocol: str, shot: Shot, ways: Sequence[Ablation], measure: Callable[[np.ndarray], dict[str, float | None]]
) -> list[Ablated]:
    """Colour and measure a shot under every setting that its protocol has. Settings that come to the same are run once."""
    known: dict[tuple[int, ColorizeOptions, int], tuple[dict[str, float | None], float]] = {}
    found = []
    for way in ways:
        if protocol not in way.protocols:
            continue
        count = len(shot.references) if way.references is None else min(way.references, len(shot.references))
        key = (id(way.colorizer), way.options, count)
        if key not in known:
            started = time.perf_counter()
            output = way.colorizer.colorize(_with_first(shot, count), way.options)
            seconds = time.perf_counter() - started
            known[key] = measure(output), seconds / len(output)
        found.append(Ablated(way.name, way.setting, *known[key]))
    return found


def _with_first(shot: Shot, count: int) -> Shot:
    """The shot with its first `count` references."""
    if count == len(shot.references):
        return shot
    labels = shot.labels
    if labels is not None:
        video = np.asarray(labels.video[0 : shot.sketch.shape[0]])
        kept = {label: tuple(r for r in labels.references_of(label) if r < count) for label in np.unique(video).tolist()}
        labels = Labels(video, kept)
    return replace(shot, references=tuple(shot.references)[:count], labels=labels)


def _like(model: ToonModel, kind: type[Toon], config: ToonConfig) -> Colorizer:
    """A colorizer with the same weights in another network."""
    toon = kind(config)
    toon.load_state_dict(model.toon.state_dict())
    return Colorizer(replace(model, toon=toon.to(model.device, model.dtype).eval()))


class _Blind(Toon):
    """Every token of target and sketch sees every reference; a reference sees no other."""

    def prepare(self, conditions: Conditions) -> ToonCache:
        tokens = conditions.tokens
        bits = torch.where(tokens.kind == int(Kind.REFERENCE), tokens.bits, ALL)
        return super().prepare(replace(conditions, tokens=replace(tokens, bits=bits)))


class _Full(Toon):
    """Every token sees every other that the regime lets it."""

    def prepare(self, conditions: Conditions) -> ToonCache:
        bits = torch.full_like(conditions.tokens.bits, ALL)
        return super().prepare(replace(conditions, tokens=replace(conditions.tokens, bits=bits)))


class _Unhinted(Toon):
    """No hint is looked at."""

    def prepare(self, conditions: Conditions) -> ToonCache:
        return super().prepare(replace(conditions, hints=None, hint_of=None))


# ------------------------------------------------------------------------------------------------------------- in training


def trained_variants(preset: Preset, steps: int) -> dict[tuple[str, str], Preset]:
    """(switch, setting) -> a preset of `steps` steps; one that changes nothing is the first of each pair."""
    base = replace(
        preset,
        steps=steps,
        warmup=max(1, min(preset.warmup, steps // 5)),
        checkpoint_every=steps,
        validate_every=steps,
        log_every=steps,
    )
    model = base.model
    normal = replace(model.rope, scheme="normal")
    return {
        ("trained positions", "disjoint"): base,
        ("trained positions", "normal"): replace(base, model=replace(model, rope=normal)),
        ("trained correspondence", "bound"): base,
        ("trained correspondence", "labels never seen"): replace(base, keep_labels=0.0),
        ("trained pointer", "on"): base,
        ("trained pointer", "off"): replace(base, model=replace(model, pointer=False)),
        ("trained hints", "on"): base,
        ("trained hints", "off"): replace(base, model=replace(model, hints=False)),
        ("trained curriculum", "three stages"): base,
        ("trained curriculum", "all at once"): replace(base, stages=(Stage(1.0, 1.0, 1.0, 3.0),)),
    }


def train_ablations(preset: str, steps: int, folder: Path, device: torch.device | None = None) -> list[Trained]:
    """Train variants of a preset from nothing for `steps` steps each and give the one-step PSNR of the loop's own validation.

    Same seed, same data, same order. Runs lie in `folder`; one that is there already is not trained again. Raises ValueError for
    an unknown preset or no steps.
    """
    presets = {name: known for name, known in PRESETS.items() if isinstance(known, Preset)}
    if preset not in presets:
        raise ValueError(f"unknown preset {preset!r}; use one of {', '.join(presets)}{did_you_mean(preset, presets)}")
    if steps < 1:
        raise ValueError(f"got {steps} training steps; give at least 1")
    found: list[Trained] = []
    known: list[tuple[Preset, dict[str, float]]] = []
    for (name, setting), variant in trained_variants(presets[preset], steps).items():
        values = next((psnr for other, psnr in known if other == variant), None)
        if values is None:
            values = _validated(variant, folder / "-".join(_changes(variant, presets[preset], steps) or ["base"]), device)
            known.append((variant, values))
        for protocol in ("start frame", "arbitrary frame", "multi-reference"):
            measured = {"one_step_psnr": values.get(protocol), "one_step_psnr_characters": values.get(f"{protocol}, characters")}
            shown = f"{protocol} with labels" if protocol == "multi-reference" else protocol
            cases = variant.validation_shots
            found.append(Trained(name, setting, shown, cases, {k: v for k, v in measured.items() if v is not None}))
    return found


def _changes(variant: Preset, preset: Preset, steps: int) -> list[str]:
    """Names of what differs from the unchanged variant."""
    base = next(iter(trained_variants(preset, steps).values()))
    own = [f.name for f in fields(Preset) if f.name != "model" and getattr(variant, f.name) != getattr(base, f.name)]
    return own + [f.name for f in fields(ToonConfig) if getattr(variant.model, f.name) != getattr(base.model, f.name)]


def _validated(variant: Preset, folder: Path, device: torch.device | None) -> dict[str, float]:
    """Train, or go on with, a run; its last validation."""
    for _ in train(Denoising(variant, device or torch.device("cpu")), folder):
        pass
    reports: list[dict[str, Any]] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return reports[-1]["held_out"]
