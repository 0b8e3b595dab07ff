"""The training loop: report, checkpoint, done?, gradient, step, EMA. To resume, run the same command again."""

import contextlib
import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from timecolor import weights
from timecolor.train.presets import Run


@dataclass(frozen=True, slots=True)
class Report:
    """What the loop says after a step. held_out: by measure, on held-out shots, where they were measured."""

    step: int
    steps: int
    loss: float
    rate: float
    seconds: float
    held_out: dict[str, float] | None = None


@runtime_checkable
class Lesson(Protocol):
    """Something to be learned: a network, what it learns from and how it is judged. name: of the file that its weights go to."""

    name: str

    @property
    def preset(self) -> Run:
        """What decides the run."""
        ...

    @property
    def model(self) -> nn.Module:
        """The network, on its device."""
        ...

    def fill_in(self, path: Path) -> None:
        """Start from the weights in a file; raises ValueError where they do not fit."""
        ...

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Their groups have a `factor`, that of the run's rate."""
        ...

    def batches(self, start: int) -> Iterable[Any]:
        """One for each step from `start` on, a pure function of preset and step."""
        ...

    def parts(self, batch: Any) -> Iterable[tuple[Any, float]]:
        """The batch in parts small enough to be learned from one after the other, and what share of it each is."""
        ...

    def losses(self, part: Any, generator: torch.Generator) -> Tensor:
        """For each sample, (b,). generator: the step's own, on the CPU."""
        ...

    def measured(self) -> dict[str, float]:
        """How the network does on held-out shots."""
        ...

    def save(self, path: Path, average: dict[str, Tensor], steps: int) -> None:
        """Write them as they are used."""
        ...


def train(
    lesson: Lesson, folder: Path, minutes: float | None = None, init: Path | None = None, timed: bool = False
) -> Iterator[Report]:
    """Run or resume a lesson in `folder`: config.json, metrics.jsonl, checkpoints/last.safetensors, NAME.safetensors (EMA).

    minutes: stop with a checkpoint after this long (None = at the last step). init: weights to start a new run from; parts that
    they do not have start at random. timed: the rate falls to 0 as the minutes end, in however many steps there were, instead of
    by the preset's. Raises FloatingPointError where the loss is not finite, and ValueError where the folder
    holds a run of another preset or from other weights, they are of another width, there are none and the preset's `moved` is
    below 1, or `timed` has no minutes.
    """
    started, preset = time.monotonic(), lesson.preset
    if preset.moved < 1 and init is None:
        raise ValueError(f"what this run writes lies {preset.moved} of the way from other weights; give them, --init, each time")
    if timed and minutes is None:
        raise ValueError("a timed run needs minutes; give them, --minutes")
    if init is not None:
        lesson.fill_in(init)
    about = {**asdict(preset), "init": None if init is None else weights.digest([init]), "minutes": minutes if timed else None}
    write_config(folder, about, free=("steps", "workers"), kept=("init",) if init is None else ())
    model = lesson.model
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    before = {k: v.clone() for k, v in average.items()} if preset.moved < 1 else None

    def written() -> dict[str, Tensor]:
        return average if before is None else {k: v.lerp(average[k], preset.moved) for k, v in before.items()}

    optimizers = lesson.optimizers()
    state = folder / "checkpoints" / "last.safetensors"
    start = _restore(state, model, average, optimizers) if state.exists() else 0
    forget_after(start, folder / "metrics.jsonl")
    device = next(model.parameters()).device
    autocast = torch.autocast(device.type, torch.bfloat16) if has_bf16(device) else contextlib.nullcontext()

    losses: list[Tensor] = []
    since = time.monotonic()
    for step, batch in zip(range(start, preset.steps), lesson.batches(start), strict=False):
        passed = step / preset.steps
        if timed and minutes is not None:
            passed = min(1.0, (time.monotonic() - started) / (minutes * 60))
        rate = preset.rate * _pace(step, passed, preset)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
        generator, found = torch.Generator().manual_seed(preset.seed * 1_000_003 + step), []
        for part, share in lesson.parts(batch):
            with autocast:
                of_part = lesson.losses(part, generator)
            (share * of_part.mean()).backward()
            found.append(of_part.detach())
        each = torch.cat(found)
        if not bool(torch.isfinite(each).all()):
            sample = int(each.isfinite().int().argmin())
            raise FloatingPointError(f"loss is not finite at step {step}, sample {sample}; lower the rate")
        if not bool(torch.isfinite(nn.utils.clip_grad_norm_(model.parameters(), 1.0))):
            raise FloatingPointError(f"gradient is not finite at step {step}; lower the rate")
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        decay = min(preset.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for key, value in model.state_dict().items():
                average[key].lerp_(value, 1 - decay)
        losses.append(each.mean())

        done = step + 1
        late = minutes is not None and time.monotonic() - started > minutes * 60
        last = done == preset.steps or late
        held_out = _measured(lesson, written()) if done % preset.validate_every == 0 or last else None
        if done % preset.log_every == 0 or last:
            seconds = time.monotonic() - since
            report = Report(done, preset.steps, float(torch.stack(losses).mean()), rate, seconds, held_out)
            losses, since = [], time.monotonic()
            with (folder / "metrics.jsonl").open("a") as log:
                log.write(json.dumps(asdict(report)) + "\n")
        else:
            report = None
        if done % preset.checkpoint_every == 0 or last:
            _save(state, done, model, average, optimizers)
            lesson.save(folder / f"{lesson.name}.safetensors", written(), done)
        if report is not None:
            yield report
        if late:
            return


@torch.no_grad()
def _measured(lesson: Lesson, state: dict[str, Tensor]) -> dict[str, float]:
    """The lesson's measures of these weights."""
    kept = {k: v.detach().clone() for k, v in lesson.model.state_dict().items()}
    lesson.model.load_state_dict(state)
    found = lesson.measured()
    lesson.model.load_state_dict(kept)
    return found


def _pace(step: int, passed: float, preset: Run) -> float:
    """Share of the full learning rate: a linear rise, a plateau, a linear fall to 0. passed: share of the run."""
    left = (1 - passed) / max(1 / preset.steps, preset.cooldown)
    return min(1.0, (step + 1) / preset.warmup, left)


def write_config(folder: Path, about: Mapping[str, Any], free: Collection[str] = ("steps",), kept: Collection[str] = ()) -> None:
    """Write down all that decides a run. Raises ValueError where the folder holds one that was decided otherwise.

    free: what may change: a run is made longer, or brought to its cooldown, by resuming it with other --steps. kept: what is not
    given again and stays as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, config = folder / "config.json", json.loads(json.dumps(about))
    if path.exists():
        former = json.loads(path.read_text())
        config |= {k: former.get(k) for k in kept}
        changed = [k for k, v in former.items() if v != config.get(k) and k not in free]
        if changed:
            raise ValueError(f"{folder} holds a run with another {changed[0]}; give another --out, or its own options")
    path.write_text(json.dumps(config, indent=1))


def forget_after(step: int, log: Path) -> None:
    """Drop reports of steps that a resumed run will do again."""
    if log.exists():
        lines = [line for line in log.read_text().splitlines(keepends=True) if json.loads(line)["step"] <= step]
        log.write_text("".join(lines))


def _save(path: Path, step: int, model: nn.Module, average: dict[str, Tensor], optimizers: list[torch.optim.Optimizer]) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()} | {f"average.{k}": v for k, v in average.items()}
    for o, optimizer in enumerate(optimizers):
        for p, entry in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{o}.{p}.{k}": torch.as_tensor(v) for k, v in entry.items()}
    weights.save(path, tensors, {"step": step})


def _restore(path: Path, model: nn.Module, average: dict[str, Tensor], optimizers: list[torch.optim.Optimizer]) -> int:
    """Fill in all state from a checkpoint; the step to go on from."""
    tensors, metadata = weights.read(path)
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    for key in average:
        average[key].copy_(tensors[f"average.{key}"])
    for o, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimizer.{o}."):
                _, _, p, name = key.split(".")
                state.setdefault(int(p), {})[name] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(metadata["step"])


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is fast there."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
