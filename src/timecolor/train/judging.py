"""How the judge of `choice` learns: regions of the drawn world as the embedded model colours them, and what was right.

`python -m timecolor.train.judging --out FOLDER` colours shots of a world of its own, keeps what each small region was offered
and how far from the truth each offer is, and fits the network: regions.npz, judge.json and judge.safetensors there.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from timecolor import models, weights
from timecolor.choice import FEATURES, NAMES, OWN, Offers, features, taken
from timecolor.colorize import ColorizeOptions, Colorizer
from timecolor.finish import commonest, to_lab
from timecolor.shapes import Bool, Float
from timecolor.shot import Labels, Reference, Shot
from timecolor.world import HELD_OUT_SEED, World, WorldShot

RIGHT = 10.0  # CIE Lab distance from the truth within which an offer is right
# How sharply; where a distance ends; a distance that is as bad as not to be right.
SOFT, FAR, BAD = 2.0, 80.0, 28.0
# Features whose scale is another one in drawings by other hands, those together that change together.
SCALES = (
    ("unexplained",),
    ("inside",),
    ("apart", "around", "least_around", "more_around"),
    ("misfit", "least_misfit", "more_misfit"),
    ("most",),
)


@dataclass(frozen=True, slots=True)
class JudgingPreset:
    """shots: of the world, in two forms each. height, width: pixels. frames: of a shot, by turns `strides` apart.

    jitter: standard deviation of the logarithm of the factors on `SCALES`.
    """

    shots: int = 96
    height: int = 256
    width: int = 384
    frames: int = 5
    strides: tuple[int, ...] = (1, 2, 3, 4)
    seed: int = 7
    hidden: int = 32
    jitter: float = 0.4
    steps: int = 6_000
    batch: int = 1_024
    rate: float = 3e-3

    def __post_init__(self) -> None:
        if self.seed == HELD_OUT_SEED:
            raise ValueError(f"seed {self.seed} is the held-out world's; give another")


class Regions(NamedTuple):
    """what: (n, k, f), `choice.features`. away: (n, k), CIE Lab distance from the truth. there: (n, k). size: (n,), shares."""

    what: Float[np.ndarray, "n k f"]
    away: Float[np.ndarray, "n k"]
    there: Bool[np.ndarray, "n k"]
    size: Float[np.ndarray, " n"]


def regions_of(shot: Shot, truth: np.ndarray, model: models.ToonModel) -> Regions | None:
    """What the small regions of a shot were offered, and how good that was. truth: uint8 (t, h, w, 3)."""
    found: list[Regions] = []

    def seen(offers: Offers) -> np.ndarray:
        right, _ = commonest(truth[len(found)].reshape(-1, 3)[offers.pixels], offers.of, len(offers.regions))
        away = np.linalg.norm(offers.lab - to_lab(right)[:, None], axis=2)
        bare = np.bincount(offers.of, minlength=len(offers.regions)) > 0
        found.append(Regions(*(x[bare] for x in (features(offers), away, offers.there, offers.size))))
        return np.full(len(offers.regions), OWN)

    Colorizer(replace(model, judge=seen)).colorize(shot, ColorizeOptions())
    # Of the frame that is the reference there is nothing to learn.
    others = [
        r for r, frame in zip(found, truth, strict=True) if not any(np.array_equal(frame, x.image) for x in shot.references)
    ]
    return Regions(*(np.concatenate(part) for part in zip(*others, strict=True))) if others else None


def shots(drawn: WorldShot, preset: JudgingPreset) -> Iterator[tuple[Shot, np.ndarray]]:
    """One shot by a frame, the first or any, and one by references, with labels or without, as it falls; with the truth."""
    stride = preset.strides[drawn.index % len(preset.strides)]
    frames = [drawn.render(t) for t in range(0, drawn.frames, stride)[: preset.frames]]
    sketch, truth, areas = (np.stack([getattr(f, part) for f in frames]) for part in ("sketch", "colour", "labels"))
    rng = np.random.default_rng((preset.seed, drawn.index, 19))
    at = int(rng.integers(len(frames))) if rng.random() < 0.5 else 0
    yield Shot(sketch, (Reference(truth[at], None, "frame", f"frame {at}"),), None, drawn.frame_rate, f"{drawn.index}"), truth
    if drawn.characters:
        labels = Labels(areas, {k: (k,) for k in range(drawn.characters + 1)}) if rng.random() < 0.5 else None
        yield Shot(sketch, drawn.references(), labels, drawn.frame_rate, f"{drawn.index}"), truth


_MODEL: list[models.ToonModel] = []  # of a worker


def _begin(toon: str | Path, matcher: Path | None) -> None:
    torch.set_num_threads(1)
    model = models.load(toon, "cpu")
    assert isinstance(model, models.ToonModel)
    if matcher is not None:
        model = replace(model, matcher=weights.load_matcher(matcher).to(model.device, model.dtype))
    _MODEL.append(model)


def _collected(job: tuple[JudgingPreset, int]) -> list[Regions]:
    preset, index = job
    drawn = World(preset.seed, preset.height, preset.width).shot(index)
    made = (regions_of(shot, truth, _MODEL[0]) for shot, truth in shots(drawn, preset))
    return [regions for regions in made if regions is not None]


def collect(
    preset: JudgingPreset,
    workers: int,
    say: Callable[[str], None],
    toon: str | Path = "toon",
    matcher: Path | None = None,
) -> Regions:
    """What the regions of all shots were offered. toon, matcher: weights that colour them, the embedded ones unless given."""
    found: list[Regions] = []
    with multiprocessing.get_context("spawn").Pool(workers, _begin, (toon, matcher)) as pool:
        for number, some in enumerate(pool.imap(_collected, [(preset, i) for i in range(preset.shots)]), 1):
            found += some
            say(f"{number} of {preset.shots} shots, {sum(len(r.size) for r in found)} regions")
    most = max(r.away.shape[1] for r in found)

    def wider(values: np.ndarray) -> np.ndarray:
        return np.pad(values, [(0, 0), (0, most - values.shape[1]), *[(0, 0)] * (values.ndim - 2)])

    return Regions(
        np.concatenate([wider(r.what) for r in found]),
        np.concatenate([wider(r.away) for r in found]),
        np.concatenate([wider(r.there) for r in found]),
        np.concatenate([r.size for r in found]),
    )


def fit(preset: JudgingPreset, regions: Regions, say: Callable[[str], None]) -> nn.Sequential:
    """The network that chooses best: what is right, and nothing far off where nothing is."""
    torch.manual_seed(preset.seed)
    hidden = preset.hidden
    network = nn.Sequential(nn.Linear(FEATURES, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=preset.rate, weight_decay=0.01)
    known = [torch.from_numpy(x) for x in (regions.what, regions.away.clip(max=FAR), regions.there)]
    # Half of a batch as regions come, half by their size.
    share = torch.from_numpy(0.5 / len(regions.size) + 0.5 * regions.size / regions.size.sum())
    generator = torch.Generator().manual_seed(preset.seed)
    for step in range(preset.steps):
        for group in optimizer.param_groups:
            group["lr"] = preset.rate * min(1.0, 2 * (preset.steps - step) / preset.steps)
        at = torch.multinomial(share, preset.batch, replacement=True, generator=generator)
        what, away, there = (x[at] for x in known)
        for scale in SCALES:
            what[..., [NAMES.index(name) for name in scale]] *= torch.exp(
                preset.jitter * torch.randn(len(at), 1, 1, generator=generator)
            )
        loss = _loss(network(what)[..., 0], away, there)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 500 == 0:
            say(f"step {step + 1}/{preset.steps}  loss {loss.item():.4f}")
    return network


def _loss(scores: Tensor, away: Tensor, there: Tensor) -> Tensor:
    shares = scores.masked_fill(~there, -1e9).log_softmax(dim=1)
    right = torch.sigmoid((RIGHT - away) / SOFT) * there
    chosen = torch.logsumexp(shares + right.clamp(min=1e-4).log(), dim=1)
    return (-right.amax(dim=1) * chosen + (shares.exp() * (away / BAD) ** 2).sum(dim=1)).mean()


def measured(network: nn.Sequential, regions: Regions) -> dict[str, list[float]]:
    """Shares of regions, and of their area, that are right: with their own colours, as chosen, and as well as offers allow."""
    with torch.no_grad():
        scores = network(torch.from_numpy(regions.what))[..., 0].numpy()
    every, there = np.arange(len(scores)), regions.there
    picks = {"own": np.full(len(scores), OWN), "chosen": taken(scores, there)}
    picks["best"] = np.where(there, regions.away, np.inf).argmin(axis=1)
    right = {name: regions.away[every, pick] < RIGHT for name, pick in picks.items()}
    return {k: [round(float(v.mean()), 4), round(float(v @ regions.size / regions.size.sum()), 4)] for k, v in right.items()}


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m timecolor.train.judging")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shots", type=int, default=JudgingPreset().shots)
    parser.add_argument("--steps", type=int, default=JudgingPreset().steps)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--toon", type=Path, help="weights that colour the shots; the embedded ones unless given")
    parser.add_argument("--matcher", type=Path)
    given = parser.parse_args()

    def say(line: str) -> None:
        print(line, flush=True)  # noqa: T201 (its output)

    try:
        preset = replace(JudgingPreset(), shots=given.shots, steps=given.steps)
        if given.matcher is not None:
            weights.load_matcher(given.matcher)  # an error here is one line, in a worker it is a page
        train(preset, given.out, given.workers, say, given.toon or "toon", given.matcher)
    except (ValueError, OSError) as error:
        sys.exit(f"timecolor.train.judging: {error}")


def train(
    preset: JudgingPreset,
    out: Path,
    workers: int,
    say: Callable[[str], None],
    toon: str | Path = "toon",
    matcher: Path | None = None,
) -> dict[str, list[float]]:
    """Collect, unless the folder holds what was collected, and fit; what of the last quarter of regions is right is returned.

    Raises ValueError where the folder holds regions of other shots, or coloured by other weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "regions.npz"
    source = {name: getattr(preset, name) for name in ("shots", "height", "width", "frames", "strides", "seed")}
    source = json.dumps({**source, "toon": str(toon), "matcher": str(matcher)})
    if kept.exists():
        with np.load(kept) as file:
            if str(file["source"]) != source:
                raise ValueError(
                    f"{kept}: holds regions of {file['source']}, not of {source}; give another --out, or its own options"
                )
            regions = Regions(*(file[name] for name in Regions._fields))
    else:
        regions = collect(preset, workers, say, toon, matcher)
        partial = out / ".regions.npz"
        np.savez_compressed(partial, source=source, **regions._asdict())
        partial.replace(kept)
    # Shots come one after the other, so the last quarter is of others than the rest.
    cut = len(regions.size) * 3 // 4
    held_out = measured(fit(preset, Regions(*(x[:cut] for x in regions)), say), Regions(*(x[cut:] for x in regions)))
    say(f"regions and area right: {held_out}")
    network = fit(preset, regions, say)
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    tensors = {f"{i}.{name}": value.detach() for i, layer in enumerate(linear) for name, value in layer.named_parameters()}
    weights.save(out / "judge.safetensors", tensors, {"model": "judge", "shots": preset.shots, "seed": preset.seed})
    report = {"preset": asdict(preset), "regions": len(regions.size), "held_out": held_out}
    (out / "judge.json").write_text(json.dumps(report, indent=1))
    return held_out


if __name__ == "__main__":
    main()
