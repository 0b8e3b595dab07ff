"""How the networks of `choice` learn: cells and regions of the drawn world as the embedded model colours them, and the truth.

`python -m timecolor.train.judging --out FOLDER` colours shots of a world of its own, keeps what each cell was offered and how far
from the truth each offer is, and fits the network that trusts; then the same of small regions, with what it trusts, and the
network that judges. cells.npz, regions.npz, trust.safetensors, judge.safetensors and judge.json are written there.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from timecolor import models, propagation, trust, weights
from timecolor.choice import NAMES, OWN, CellOffers, Network, Offers, features, truster
from timecolor.colorize import ColorizeOptions, Colorizer, Coloured
from timecolor.finish.ink import LINE
from timecolor.finish.lab import to_lab
from timecolor.finish.offers import commonest
from timecolor.shapes import Bool, Float
from timecolor.shot import Labels, Reference, Shot
from timecolor.sketch import extract_clip
from timecolor.world import HELD_OUT_SEED, World, WorldShot

Unit = Literal["cells", "regions"]

RIGHT = 10.0  # CIE Lab distance from the truth within which an offer is right
# How sharply; where a distance ends; a distance that is as bad as not to be right.
SOFT, FAR, BAD = 2.0, 80.0, 28.0
CELLS = 1_200  # of a drawing that are kept


@dataclass(frozen=True, slots=True)
class Fitting:
    """jitter: standard deviation of the logarithm of the factors on `scales`, features whose scale is another one in drawings by
    other hands, those together that change together. even: what part of a batch is taken as units come, the rest by their size.
    members: networks, begun at random each, whose mean is taken: they err less badly together than one does.
    """

    scales: tuple[tuple[str, ...], ...]
    hidden: int
    steps: int
    batch: int
    rate: float = 3e-3
    jitter: float = 0.4
    even: float = 0.5
    members: int = 1


FITTING: dict[Unit, Fitting] = {
    "cells": Fitting(
        (
            ("apart", "apart_near", "apart_far", "apart_all", "least_apart", "more_apart", "apart_region"),
            (
                *("misfit", "misfit_far", "misfit_all", "least_misfit", "misfit_region"),
                *("more_misfit", "least_misfit_far", "more_misfit_far", "more_misfit_region"),
            ),
            ("texture",),
            ("fills", "filled", "same", "less_same", "most_same"),
            trust.LIKE_NAMES,
            ("typical", "typical_near", "own_typical", "less_typical"),
            (
                *("votes", "votes_near", "own_votes", "own_votes_near", "most_votes", "known", "likeliest"),
                *("votes_region", "less_votes_region"),
            ),
        ),
        hidden=48,
        steps=1_500,
        batch=4_096,
        jitter=0.15,
        even=0.0,
        members=4,
    ),
    "regions": Fitting(
        (
            ("unexplained",),
            ("inside",),
            ("apart", "around", "least_around", "more_around"),
            ("misfit", "least_misfit", "more_misfit"),
            ("most",),
        ),
        hidden=32,
        steps=6_000,
        batch=1_024,
    ),
}


@dataclass(frozen=True, slots=True)
class JudgingPreset:
    """shots: of the world. judged: of these, how many tell of regions. height, width: pixels. frames: of a shot, by turns
    `strides` apart. drawings: how many of these, beside the frame's own, tell of cells, which are much alike in one shot. sheets:
    share of shots by references that have no plate. worn: share of shots by a frame that are film, their lines extracted. away:
    share of shots by a frame whose own drawing is not among those given, so that it is seldom paired.
    """

    shots: int = 960
    judged: int = 96
    height: int = 256
    width: int = 384
    frames: int = 5
    strides: tuple[int, ...] = (1, 2, 3, 4)
    drawings: int = 1
    sheets: float = 0.25
    worn: float = 0.4
    away: float = 0.5
    seed: int = 7

    def __post_init__(self) -> None:
        if self.seed == HELD_OUT_SEED:
            raise ValueError(f"seed {self.seed} is the held-out world's; give another")


class Cases(NamedTuple):
    """Cells or regions, n, with k offers each.

    what: (n, k, f), what is known of each. away: (n, k), how far from the truth. there: (n, k). size: (n,), shares.
    """

    what: Float[np.ndarray, "n k f"]
    away: Float[np.ndarray, "n k"]
    there: Bool[np.ndarray, "n k"]
    size: Float[np.ndarray, " n"]


def cells_of(shot: Shot, truth: np.ndarray, shown: Collection[int], model: models.ToonModel) -> Cases | None:
    """What the cells of a shot were offered, and how good that was.

    truth: fills, uint8 (t, h, w, 3). shown: frames whose drawing the reference shows; they teach nothing.
    """
    found: list[Cases] = []
    now = 0
    rng = np.random.default_rng((int(shot.name), 23))

    def seen(offers: CellOffers) -> np.ndarray:
        rows, columns = offers.there.shape[:2]
        if now not in shown:
            bare = (propagation.darkness(np.asarray(shot.sketch[now : now + 1])[0]) < LINE * 255).astype(np.float32)
            share, right = trust.shrunk(bare, rows, columns), trust.shrunk(truth[now] * bare[..., None], rows, columns)
            right /= np.maximum(share, 1e-3)[..., None] * 255
            away = np.linalg.norm(offers.lab - to_lab(right)[:, :, None], axis=3)
            some = rng.permutation(rows * columns)[:CELLS]
            parts = (offers.features.astype(np.float16), away.astype(np.float16), offers.there, share)
            found.append(Cases(*(x.reshape(rows * columns, *x.shape[2:])[some] for x in parts)))
        return np.full((rows, columns), OWN)

    for event in Colorizer(replace(model, trust=seen)).stream(shot, ColorizeOptions(lines="model")):  # nothing to finish
        if isinstance(event, Coloured):
            now = event.index + 1
    return _joined(found)


def regions_of(shot: Shot, truth: np.ndarray, shown: Collection[int], model: models.ToonModel) -> Cases | None:
    """The same of small regions."""
    found: list[Cases] = []
    now = 0

    def seen(offers: Offers) -> np.ndarray:
        if now not in shown:
            right, _ = commonest(truth[now].reshape(-1, 3)[offers.pixels], offers.of, len(offers.regions))
            away = np.linalg.norm(offers.lab - to_lab(right)[:, None], axis=2)
            bare = np.bincount(offers.of, minlength=len(offers.regions)) > 0
            found.append(Cases(*(x[bare] for x in (features(offers), away, offers.there, offers.size))))
        return np.full(len(offers.regions), OWN)

    for event in Colorizer(replace(model, judge=seen)).stream(shot):
        if isinstance(event, Coloured):
            now = event.index + 1
    return _joined(found)


def shots(drawn: WorldShot, preset: JudgingPreset) -> Iterator[tuple[Shot, np.ndarray, Collection[int]]]:
    """One shot by a frame, the first or any, and one by references, with labels or without, or sheets alone, as it falls.

    With the true fills, uint8 (t, h, w, 3), and the frames whose drawing, held or not, the reference shows.
    """
    stride = preset.strides[drawn.index % len(preset.strides)]
    frames = [drawn.render(t) for t in range(0, drawn.frames, stride)[: preset.frames]]
    sketch, truth, areas = (np.stack([getattr(f, part) for f in frames]) for part in ("sketch", "fills", "labels"))
    rng = np.random.default_rng((preset.seed, drawn.index, 19))
    at = int(rng.integers(len(frames))) if rng.random() < 0.5 else 0
    colour, lines = np.stack([f.colour for f in frames]), sketch
    if rng.random() < preset.worn:
        colour = _worn(colour, rng)
        lines = extract_clip(colour, "clean", binarise=True)
    frame, number = Reference(colour[at], None, "frame", f"frame {at}"), np.arange(len(frames)) * stride // drawn.hold
    shown, others = np.flatnonzero(number == number[at]), np.flatnonzero(number != number[at])
    if rng.random() < preset.away and len(others):
        shown = shown[:0]
    given = np.sort(np.append(shown, rng.permutation(others)[: preset.drawings]))
    yield (
        Shot(lines[given], (frame,), None, drawn.frame_rate, f"{drawn.index}"),
        truth[given],
        np.searchsorted(given, shown).tolist(),
    )
    if drawn.characters:
        first = int(rng.random() < preset.sheets)  # without the plate
        own = {k: (k - first,) if k >= first else () for k in range(drawn.characters + 1)}
        labels = Labels(areas, own) if rng.random() < 0.5 else None
        yield Shot(sketch, drawn.references()[first:], labels, drawn.frame_rate, f"{drawn.index}"), truth, ()


def _worn(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames uint8 (t, h, w, 3) as a film shows them: softer, grainy and compressed."""
    h, w = frames.shape[1:3]
    scale, grain, quality = rng.uniform(0.5, 1), rng.uniform(0, 5), int(rng.integers(50, 95))
    size = (round(w * scale), round(h * scale))

    def one(frame: np.ndarray) -> np.ndarray:
        soft = cv2.resize(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), (w, h), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(soft + rng.normal(0, grain, (h, w, 1)), 0, 255).astype(np.uint8)
        coded = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))

    return np.stack([one(frame) for frame in frames])


_MODEL: list[models.ToonModel] = []  # of a worker


def _begin(toon: str | Path, matcher: Path | None, trusted: Path | None) -> None:
    torch.set_num_threads(1)
    model = models.load(toon, "cpu")
    assert isinstance(model, models.ToonModel)
    if matcher is not None:
        model = replace(model, matcher=weights.load_matcher(matcher).to(model.device, model.dtype))
    if trusted is not None:
        model = replace(model, trust=truster(trusted))
    _MODEL.append(model)


def _collected(job: tuple[Unit, JudgingPreset, int]) -> Cases | None:
    unit, preset, index = job
    if unit == "regions":  # small ones are few
        preset = replace(preset, drawings=preset.frames)
    drawn = World(preset.seed, preset.height, preset.width).shot(index)
    made = []
    for shot, truth, shown in shots(drawn, preset):
        if unit == "regions":
            made.append(regions_of(shot, truth, shown, _MODEL[0]))
        elif shot.references[0].role == "frame":
            made.append(cells_of(shot, truth, shown, _MODEL[0]))
    return _joined([cases for cases in made if cases is not None])


def _joined(cases: Sequence[Cases]) -> Cases | None:
    if not cases:
        return None
    most = max(c.away.shape[1] for c in cases)

    def wider(values: np.ndarray) -> np.ndarray:
        return np.pad(values, [(0, 0), (0, most - values.shape[1]), (0, 0)][: values.ndim]) if values.ndim > 1 else values

    return Cases(*(np.concatenate([wider(part) for part in parts]) for parts in zip(*cases, strict=True)))


def collect(
    unit: Unit,
    preset: JudgingPreset,
    workers: int,
    say: Callable[[str], None],
    toon: str | Path = "toon",
    matcher: Path | None = None,
    trusted: Path | None = None,
) -> Cases:
    """What the cells or regions of all shots were offered. toon, matcher, trusted: weights, else the embedded ones."""
    found: list[Cases] = []
    with multiprocessing.get_context("spawn").Pool(workers, _begin, (toon, matcher, trusted)) as pool:
        count = preset.shots if unit == "cells" else min(preset.shots, preset.judged)
        for number, some in enumerate(pool.imap(_collected, [(unit, preset, i) for i in range(count)]), 1):
            found += [] if some is None else [some]
            say(f"{number} of {count} shots, {sum(len(c.size) for c in found)} {unit}")
    cases = _joined(found)
    if cases is None:
        raise ValueError(f"{count} shots have no {unit} to learn from; give more --shots")
    return cases


def fit(unit: Unit, cases: Cases, say: Callable[[str], None], seed: int = 7, steps: int | None = None) -> list[nn.Sequential]:
    """Networks whose mean chooses best: what is right, and nothing far off where nothing is. steps: None = as many as are due."""
    return [_member(unit, cases, say, seed + 100 * i, steps) for i in range(FITTING[unit].members)]


def network_of(members: Sequence[nn.Sequential]) -> Network:
    """What these networks say on average."""
    layers = zip(*([layer for layer in member if isinstance(layer, nn.Linear)] for member in members), strict=True)
    found = [[torch.stack([getattr(one, name).detach() for one in same]) for name in ("weight", "bias")] for same in layers]
    return Network(tuple((weight.numpy(), bias.numpy()) for weight, bias in found))


def _member(unit: Unit, cases: Cases, say: Callable[[str], None], seed: int, steps: int | None) -> nn.Sequential:
    how, names = FITTING[unit], {"cells": trust.NAMES, "regions": NAMES}[unit]
    torch.manual_seed(seed)
    hidden, steps = how.hidden, steps or how.steps
    network = nn.Sequential(
        nn.Linear(cases.what.shape[2], hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=how.rate, weight_decay=0.01)
    known = [torch.from_numpy(x) for x in (cases.what, cases.away.clip(max=FAR), cases.there)]
    chance = np.cumsum(how.even / len(cases.size) + (1 - how.even) * cases.size.astype(np.float64) / cases.size.sum())
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = how.rate * min(1.0, 2 * (steps - step) / steps)
        drawn = np.searchsorted(chance, rng.random(how.batch) * chance[-1]).clip(max=len(chance) - 1)
        what, away, there = (x[torch.from_numpy(drawn)] for x in known)
        what = what.float()
        for scale in how.scales:
            factor = torch.exp(how.jitter * torch.randn(how.batch, 1, 1, generator=generator))
            what[..., [names.index(name) for name in scale]] *= factor
        loss = _loss(network(what)[..., 0], away.float(), there)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 500 == 0:
            say(f"{unit}: step {step + 1}/{steps}  loss {loss.item():.4f}")
    return network


def _loss(scores: Tensor, away: Tensor, there: Tensor) -> Tensor:
    shares = scores.masked_fill(~there, -1e9).log_softmax(dim=1)
    right = torch.sigmoid((RIGHT - away) / SOFT) * there
    chosen = torch.logsumexp(shares + right.clamp(min=1e-4).log(), dim=1)
    return (-right.amax(dim=1) * chosen + (shares.exp() * (away / BAD) ** 2).sum(dim=1)).mean()


def measured(network: Network, cases: Cases) -> dict[str, list[float]]:
    """Shares of cells or regions, and of their area, that are right, and the area's mean squared distance from the truth.

    own: as the model colours them. chosen: as the network does. best: as well as offers allow.
    """
    scores = np.concatenate([network(part) for part in np.array_split(cases.what, -(-len(cases.what) // (1 << 16)))])
    every, there = np.arange(len(scores)), cases.there
    chosen = np.where(there, scores, -np.inf).argmax(axis=1)
    picks = {"own": np.full(len(scores), OWN), "chosen": chosen, "best": np.where(there, cases.away, np.inf).argmin(axis=1)}
    size = cases.size.astype(np.float64) / cases.size.sum(dtype=np.float64)
    away = {name: cases.away[every, pick].astype(np.float64) for name, pick in picks.items()}
    return {k: [round(float(x), 4) for x in ((v < RIGHT).mean(), (v < RIGHT) @ size, v**2 @ size)] for k, v in away.items()}


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m timecolor.train.judging")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shots", type=int, default=JudgingPreset().shots)
    parser.add_argument("--steps", type=int, help="of each network; as many as are due unless given")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--toon", type=Path, help="weights that colour the shots; the embedded ones unless given")
    parser.add_argument("--matcher", type=Path)
    given = parser.parse_args()

    def say(line: str) -> None:
        print(line, flush=True)  # noqa: T201 (its output)

    try:
        preset = replace(JudgingPreset(), shots=given.shots)
        # An error here is one line, in a worker it is a page.
        if given.toon is not None:
            weights.load_toon(given.toon)
        if given.matcher is not None:
            weights.load_matcher(given.matcher)
        train(preset, given.out, given.workers, say, given.toon or "toon", given.matcher, given.steps)
    except (ValueError, OSError) as error:
        sys.exit(f"timecolor.train.judging: {error}")


def train(
    preset: JudgingPreset,
    out: Path,
    workers: int,
    say: Callable[[str], None],
    toon: str | Path = "toon",
    matcher: Path | None = None,
    steps: int | None = None,
) -> dict[Unit, dict[str, list[float]]]:
    """Collect, unless the folder holds what was collected, and fit; what of the last quarter is right is returned (`measured`).

    Raises ValueError where the folder holds what is of other shots, or coloured by other weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = (weights.EMBEDDED if str(toon) == "toon" else Path(toon), matcher or weights.EMBEDDED_MATCHER)
    source = json.dumps({**asdict(preset), "weights": weights.digest(files)})
    report: dict = {"preset": asdict(preset)}
    held_out: dict[Unit, dict[str, list[float]]] = {}
    names: dict[Unit, str] = {"cells": "trust", "regions": "judge"}
    for unit, name in names.items():
        # Regions are seen as they are once cells are chosen.
        cases = _kept(unit, preset, out / f"{unit}.npz", source, workers, say, toon, matcher, out / "trust.safetensors")
        # Shots come one after the other, so the last quarter is of others than the rest.
        cut = len(cases.size) * 3 // 4
        first = network_of(fit(unit, Cases(*(x[:cut] for x in cases)), say, preset.seed, steps))
        held_out[unit] = measured(first, Cases(*(x[cut:] for x in cases)))
        say(f"{unit} and area right, squared distance: {held_out[unit]}")
        network = network_of(fit(unit, cases, say, preset.seed, steps))
        tensors = {}
        for i, (weight, bias) in enumerate(network.layers):
            tensors |= {f"{i}.weight": torch.from_numpy(weight), f"{i}.bias": torch.from_numpy(bias)}
        weights.save(out / f"{name}.safetensors", tensors, {"model": name, "shots": preset.shots, "seed": preset.seed})
        report[unit] = {"number": len(cases.size), "fitting": asdict(FITTING[unit]), "held_out": held_out[unit]}
    (out / "judge.json").write_text(json.dumps(report, indent=1))
    return held_out


def _kept(
    unit: Unit,
    preset: JudgingPreset,
    path: Path,
    source: str,
    workers: int,
    say: Callable[[str], None],
    toon: str | Path,
    matcher: Path | None,
    trusted: Path,
) -> Cases:
    if path.exists():
        with np.load(path) as file:
            if str(file["source"]) != source:
                raise ValueError(f"{path}: is of {file['source']}, not of {source}; give another --out, or its own options")
            return Cases(*(file[name] for name in Cases._fields))
    cases = collect(unit, preset, workers, say, toon, matcher, trusted if unit == "regions" else None)
    partial = path.with_name(f".{path.name}")
    np.savez_compressed(partial, source=source, **cases._asdict())
    partial.replace(path)
    return cases


if __name__ == "__main__":
    main()
