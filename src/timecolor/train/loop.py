"""The training loop: report, checkpoint, done?, gradient, step, EMA. To resume, run the same command again."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from timecolor import diffusion, weights
from timecolor.correspondence import Rule, shot_tokens
from timecolor.denoiser import Conditions
from timecolor.geometry import Grid
from timecolor.layout import TokenLayout
from timecolor.toon import Toon
from timecolor.train.batches import Batch, Protocol, loader, make_batch
from timecolor.train.presets import Preset
from timecolor.world import HELD_OUT_SEED

RULE = Rule(regime="cached")


@dataclass(frozen=True, slots=True)
class Report:
    """What the loop says after a step. psnr: of one-step colours on held-out shots, where they were measured."""

    step: int
    steps: int
    loss: float
    rate: float
    seconds: float
    psnr: dict[str, float] | None = None


def train(
    preset: Preset, folder: Path, device: torch.device, minutes: float | None = None, init: Path | None = None
) -> Iterator[Report]:
    """Run or resume a preset in `folder`: config.json, metrics.jsonl, checkpoints/last.safetensors, toon.safetensors (EMA).

    minutes: stop with a checkpoint after this long (None = at the last step). init: weights to start a new run from; parts that
    they do not have start at random. Raises FloatingPointError where the loss is not finite, and ValueError where the folder
    holds a run of another preset or the weights are of another width.
    """
    started = time.monotonic()
    _write_config(preset, folder)
    torch.manual_seed(preset.seed)
    model = Toon(preset.model)
    if init is not None:
        _fill_in(model, init)
    model = model.to(device)
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    optimizers = _optimizers(model, preset)
    state = folder / "checkpoints" / "last.safetensors"
    start = _restore(state, model, average, optimizers) if state.exists() else 0
    _forget_after(start, folder / "metrics.jsonl")
    autocast = torch.autocast(device.type, torch.bfloat16) if _has_bf16(device) else contextlib.nullcontext()
    validation = _validation(preset) if start < preset.steps else []

    losses: list[Tensor] = []
    since = time.monotonic()
    for step, batch in zip(range(start, preset.steps), loader(preset, start), strict=False):
        rate = preset.rate * _pace(step, preset)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
        generator = torch.Generator().manual_seed(preset.seed * 1_000_003 + step)
        with autocast:
            prediction, clean = _predict(model, batch, preset, generator, device)
            each = diffusion.loss(prediction, clean)
        if not bool(torch.isfinite(each).all()):
            sample = int(each.isfinite().int().argmin())
            raise FloatingPointError(f"loss is not finite at step {step}, sample {sample}; lower the rate")
        each.mean().backward()
        if not bool(torch.isfinite(nn.utils.clip_grad_norm_(model.parameters(), 1.0))):
            raise FloatingPointError(f"gradient is not finite at step {step}; lower the rate")
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        decay = min(preset.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for key, value in model.state_dict().items():
                average[key].lerp_(value, 1 - decay)
        losses.append(each.detach().mean())

        done = step + 1
        late = minutes is not None and time.monotonic() - started > minutes * 60
        last = done == preset.steps or late
        psnr = None
        if done % preset.validate_every == 0 or last:
            psnr = _validate(model, average, validation, preset, device)
        if done % preset.log_every == 0 or last:
            seconds = time.monotonic() - since
            report = Report(done, preset.steps, float(torch.stack(losses).mean()), rate, seconds, psnr)
            losses, since = [], time.monotonic()
            with (folder / "metrics.jsonl").open("a") as log:
                log.write(json.dumps(asdict(report)) + "\n")
        else:
            report = None
        if done % preset.checkpoint_every == 0 or last:
            _save(state, done, model, average, optimizers)
            weights.save_toon(folder / "toon.safetensors", model, average, preset.colour_cell, steps=done, seed=preset.seed)
        if report is not None:
            yield report
        if late:
            return


def _predict(
    model: Toon, batch: Batch, preset: Preset, generator: torch.Generator, device: torch.device, pure: bool = False
) -> tuple[Tensor, Tensor]:
    """Predicted and true clean latents of a batch; pure: from pure noise, as the first step of sampling."""
    clean = batch.clean.to(device)
    noise = torch.randn(batch.clean.shape, generator=generator).to(device)
    times = torch.ones(len(clean)) if pure else diffusion.training_times(len(clean), generator, preset.shift)
    # Any start is as likely as any other, so that shots of every length stay within angles of time met here.
    start = int(torch.randint(64, (1,), generator=generator)) if preset.model.rope.scheme == "disjoint" else 0
    frames, height, width = clean.shape[1], clean.shape[3] // preset.model.patch, clean.shape[4] // preset.model.patch
    layout = TokenLayout(Grid(frames, height, width), batch.references.shape[1])
    tokens = shot_tokens(layout, batch.bits).to(device)
    sketch, references, hints, of = (x.to(device) for x in (batch.sketch, batch.references, batch.hints, batch.hint_of))
    conditions = Conditions(layout, tokens, sketch, references, RULE, start=start, hints=hints, hint_of=of)
    times = times.to(device)
    return model(diffusion.noised(clean, noise, times), times, conditions), clean


def _pace(step: int, preset: Preset) -> float:
    """Share of the full learning rate: a linear rise, a plateau, a linear fall to 0."""
    left = (preset.steps - step) / max(1, preset.cooldown * preset.steps)
    return min(1.0, (step + 1) / preset.warmup, left)


def _optimizers(model: Toon, preset: Preset) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices (Jordan et al. 2024), AdamW for all else; gains of queries and keys at a higher rate."""
    matrices, gains, others = [], [], []
    for name, parameter in model.named_parameters():
        kind = matrices if parameter.ndim == 2 and name.startswith("blocks.") else gains if ".norm_" in name else others
        kind.append(parameter)
    muon = torch.optim.Muon(matrices, lr=preset.rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": others, "factor": 1.0}, {"params": gains, "factor": 3.0}]
    adamw = torch.optim.AdamW(groups, lr=preset.rate, betas=(0.9, 0.98), weight_decay=0.0)
    muon.param_groups[0]["factor"] = 1.0
    return [muon, adamw]


def _validation(preset: Preset) -> list[tuple[Protocol, Batch]]:
    """Held-out shots of every protocol at the first bucket's size."""
    bucket = preset.buckets[0]
    edges = range(0, preset.validation_shots + 1, min(bucket.batch, preset.validation_shots))
    protocols: tuple[tuple[Protocol, int], ...] = (("start frame", 1), ("arbitrary frame", 1), ("multi-reference", 3))
    return [
        (protocol, make_batch(preset, bucket, protocol, references, HELD_OUT_SEED, range(a, b), augment=False))
        for protocol, references in protocols
        for a, b in pairwise(edges)
    ]


@torch.no_grad()
def _validate(
    model: Toon, average: dict[str, Tensor], validation: list[tuple[Protocol, Batch]], preset: Preset, device: torch.device
) -> dict[str, float]:
    """PSNR in dB of one-step colours by the averaged weights, over all pixels and over the characters' alone."""
    kept = {k: v.detach().clone() for k, v in model.state_dict().items()}
    model.load_state_dict(average)
    errors: dict[str, list[float]] = {}
    for protocol, batch in validation:
        prediction, clean = _predict(model, batch, preset, torch.Generator().manual_seed(0), device, pure=True)
        # Two by two colours a token, whatever the codec, so that runs of unlike presets can be compared.
        size = (2 * clean.shape[3] // preset.model.patch, 2 * clean.shape[4] // preset.model.patch)
        error = ((prediction.float().clamp(-1, 1) - clean) / 2).flatten(0, 1).cpu()
        square = nn.functional.adaptive_avg_pool2d(error, size).square().mean(1, keepdim=True)
        inside = nn.functional.adaptive_avg_pool2d(batch.character.flatten(0, 1), size)
        for name, weight in ((protocol, torch.ones_like(inside)), (f"{protocol}, characters", inside)):
            total = weight.flatten(1).sum(1)
            each = (square * weight).flatten(1).sum(1) / total.clamp(min=1e-6)
            errors.setdefault(name, []).extend(each[total > 4].tolist())
    model.load_state_dict(kept)
    return {k: round(-10 * float(torch.tensor(v).clamp(min=1e-9).log10().mean()), 2) for k, v in errors.items() if v}


def _fill_in(model: Toon, path: Path) -> None:
    """Take over all that the weights in a file have."""
    known, own = weights.load_toon(path)[0].state_dict(), model.state_dict()
    for key, value in known.items():
        if key not in own or own[key].shape != value.shape:
            wanted = "no such part" if key not in own else f"{tuple(own[key].shape)}"
            raise ValueError(f"{path}: {key} is {tuple(value.shape)}, the preset has {wanted}; start from weights of its sizes")
    model.load_state_dict({**own, **known})


def _write_config(preset: Preset, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path, config = folder / "config.json", json.loads(json.dumps(asdict(preset)))
    if path.exists():
        # The length may change: a run is made longer, or brought to its cooldown, by resuming it with other --steps.
        changed = [k for k, v in json.loads(path.read_text()).items() if v != config.get(k) and k not in ("steps", "workers")]
        if changed:
            raise ValueError(f"{folder} holds a run with another {changed[0]}; give another --out, or its own options")
    path.write_text(json.dumps(config, indent=1))


def _forget_after(step: int, log: Path) -> None:
    """Drop reports of steps that a resumed run will do again."""
    if log.exists():
        lines = [line for line in log.read_text().splitlines(keepends=True) if json.loads(line)["step"] <= step]
        log.write_text("".join(lines))


def _save(path: Path, step: int, model: Toon, average: dict[str, Tensor], optimizers: list[torch.optim.Optimizer]) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()} | {f"average.{k}": v for k, v in average.items()}
    for o, optimizer in enumerate(optimizers):
        for p, entry in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{o}.{p}.{k}": torch.as_tensor(v) for k, v in entry.items()}
    weights.save(path, tensors, {"step": step})


def _restore(path: Path, model: Toon, average: dict[str, Tensor], optimizers: list[torch.optim.Optimizer]) -> int:
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


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
