"""Fine-tuning CogVideoX on precomputed latents, on one process or many. To resume, run the same command again.

Weights, gradients and the optimizer's state are sharded by FSDP2. Data, noise and times are functions of (seed, step, sample), so
a run does not depend on how many ranks share its work, and goes on with another number of them.
"""

import copy
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from timecolor import cogvideox, diffusion
from timecolor.cogvideox import CogVideoX, Plan, Prompted, Source, files
from timecolor.correspondence import ALL, Rule, shot_tokens
from timecolor.geometry import Grid
from timecolor.layout import TokenLayout
from timecolor.shapes import Float, Int
from timecolor.train.loop import Report, forget_after, write_config
from timecolor.train.precompute import Entry, Precomputed, Sample
from timecolor.train.presets import Finetune, Stage

Protocol = Literal["start frame", "arbitrary frame", "multi-reference"]
PROTOCOLS: tuple[Protocol, ...] = ("start frame", "arbitrary frame", "multi-reference")
LORA_ON = ["to_q", "to_k", "to_v", "to_out.0"]
KEPT = 2  # checkpoints
_PROTOCOL, _ORDER, _SAMPLE = range(1, 4)  # what a random stream is for
NEEDED: dict[Protocol, str] = {
    "start frame": "a coloured frame",
    "arbitrary frame": "two coloured frames (see --stills)",
    "multi-reference": "references",
}


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample of a step.

    number: which. still: the one that the protocols of one reference take. kept: references that are not dropped. labels: whether
    they are used. time: training timestep, 0 = nearly clean. seed: of the noise.
    """

    number: int
    protocol: Protocol
    caption: str
    still: int
    kept: tuple[int, ...]
    labels: bool
    time: int
    seed: int


def draws(preset: Finetune, samples: list[Entry], step: int, times: int = 1000) -> list[Draw]:
    """The samples of a step, a pure function of its arguments. One protocol a step, so that ranks have about the same to do.

    Raises ValueError where no sample has what a protocol of this step's stage needs.
    """
    rng = np.random.default_rng((preset.seed, _PROTOCOL, step))
    stage = next(s for s in preset.stages if step < s.until * preset.steps or s is preset.stages[-1])
    shares = np.array(_shares(stage))
    protocol = PROTOCOLS[rng.choice(len(PROTOCOLS), p=shares / shares.sum())]
    pool = _pool(samples, protocol)
    return [_draw(preset, samples, pool, protocol, step, place, times) for place in range(preset.batch)]


def _draw(preset: Finetune, samples: list[Entry], pool: list[int], protocol: Protocol, step: int, place: int, times: int) -> Draw:
    # Every epoch has each sample of the pool once, in an order of its own.
    epoch, index = divmod(step * preset.batch + place, len(pool))
    number = pool[np.random.default_rng((preset.seed, _ORDER, epoch)).permutation(len(pool))[index]]
    entry = samples[number]
    rng = np.random.default_rng((preset.seed, _SAMPLE, step, place))
    caption = "" if rng.random() < preset.drop_caption else entry.caption
    still = int(rng.integers(1, entry.stills)) if protocol == "arbitrary frame" else 0
    offered = range(entry.references) if protocol == "multi-reference" else range(1)
    kept = tuple(r for r in offered if rng.random() >= preset.drop_reference)
    labels = protocol == "multi-reference" and entry.labelled and bool(rng.random() < preset.keep_labels)
    return Draw(number, protocol, caption, still, kept, labels, int(rng.integers(times)), int(rng.integers(2**63)))


def _shares(stage: Stage) -> tuple[float, ...]:
    """How often a stage draws each of `PROTOCOLS`."""
    return stage.start_frame, stage.arbitrary_frame, stage.multi_reference


def _pool(samples: list[Entry], protocol: Protocol) -> list[int]:
    """Indices of the samples that have what a protocol needs."""
    least = {"start frame": lambda e: e.stills > 0, "arbitrary frame": lambda e: e.stills > 1}
    pool = [i for i, entry in enumerate(samples) if least.get(protocol, lambda e: e.references > 0)(entry)]
    if not pool:
        raise ValueError(f"no sample has {NEEDED[protocol]}, which {protocol} needs; precompute such shots too")
    return pool


def conditions(preset: Finetune, draw: Draw, sample: Sample, text: Float[Tensor, "n d"], patch: int) -> Prompted:
    """What the denoiser is told of a drawn sample."""
    frames, _, height, width = sample.target.shape
    grid = Grid(frames, height // patch, width // patch)
    if draw.protocol == "multi-reference":
        references, bits = sample.references[list(draw.kept)], sample.bits(preset.cells)
    else:
        references, bits = sample.stills[draw.still : draw.still + len(draw.kept)], sample.coverage
    bits = without_dropped(bits, draw.kept) if draw.labels else torch.full_like(bits, ALL)
    layout = TokenLayout(grid, len(references), text=len(text))
    tokens = shot_tokens(layout, bits[None])
    return Prompted(layout, tokens, sample.sketch[None], references[None], Rule(preset.regime), text=text[None])


def without_dropped(bits: Int[Tensor, " n"], kept: tuple[int, ...]) -> Int[Tensor, " n"]:
    """Bits of the references that are left, counted anew."""
    left = torch.zeros_like(bits)
    for new, old in enumerate(kept):
        left |= (bits >> old & 1) << new
    return torch.where(bits == ALL, bits, left)


def v_loss(
    denoiser: CogVideoX, clean: Float[Tensor, "1 f c h w"], noise: Float[Tensor, "1 f c h w"], time: int, given: Prompted
) -> Float[Tensor, ""]:
    """Squared error of v on the target's frames.

    The denoiser gives x_0 = sqrt(alpha_bar) x_t - sqrt(1 - alpha_bar) v, so the error of x_0 is -sqrt(1 - alpha_bar) times that
    of v, and |v' - v|^2 = |x_0' - x_0|^2 / (1 - alpha_bar) exactly: the published loss (TimeColor, release).
    """
    alphas = denoiser.scheduler.alphas_cumprod
    alpha = float(alphas[time])
    noisy = alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise
    prediction = denoiser.predict(noisy, torch.tensor([(time + 1) / len(alphas)]), denoiser.prepare(given))
    return diffusion.loss(prediction, clean)[0] / (1 - alpha)


class _Whole(Plan):
    """A plan that FSDP hands on as it is: it rebuilds the dataclasses among its inputs, and with them the list of kept keys."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Any]] = {}


class ShardedCogVideoX(CogVideoX):
    """The denoiser as FSDP can follow it.

    ends: outputs of runs that are made for their keys alone. They belong into the loss, times 0: for FSDP the way back begins
    at a module's output, where it gathers the weights that the way back of the keys needs too. (Under checkpointing, running a
    block again would gather them as well.)
    """

    def __init__(self, transformer: Any, scheduler: Any) -> None:
        super().__init__(transformer, scheduler)
        self.ends: list[Tensor] = []

    def _run(self, frames: Tensor, text: Tensor, step: Tensor, plan: Plan) -> Tensor:
        out = super()._run(frames, text, step, _Whole(*(getattr(plan, field.name) for field in fields(Plan))))
        if plan.making:
            self.ends.append(out)
        return out


def finetune(
    preset: Finetune,
    data: Path,
    base: str | Path,
    folder: Path,
    device: torch.device,
    model: str | Path | None = None,
    minutes: float | None = None,
) -> Iterator[Report]:
    """Run or resume a preset in `folder`: config.json, metrics.jsonl, checkpoints/STEP/, and model/ to be loaded, with its base.

    data: of `precompute`. base: the CogVideoX directory that it was made with. model: a full fine-tune to start from, None = the
    base's own transformer. minutes: stop with a checkpoint after this long. Under torchrun every rank calls this; all get the
    reports, and rank 0 writes. Raises FloatingPointError where a loss is not finite, naming step and shot, and ValueError for
    data, base or a folder that do not fit.
    """
    started = time.monotonic()
    shots, source = Precomputed(data), Source.of(model or base, base)
    shots.check(source)
    if preset.lora is not None and (model is not None or source.lora is not None):
        raise ValueError("a LoRA lies upon the base's own transformer; leave out --model, or train cogvideox-full")
    for i, protocol in enumerate(PROTOCOLS):
        if any(_shares(stage)[i] for stage in preset.stages):
            _pool(shots.samples, protocol)
    with _ranks(device) as mesh:
        rank, ranks = mesh.get_rank(), mesh.size()
        if preset.batch % ranks:
            fits = [n for n in range(1, preset.batch + 1) if preset.batch % n == 0]
            raise ValueError(
                f"batch {preset.batch} cannot be shared by {ranks} ranks; use {', '.join(map(str, fits))} ranks, or --batch"
            )
        if rank == 0:
            weights = files.identity(source.transformer)
            write_config(folder, {**asdict(preset), "data": shots.identity, "weights": weights})
        dist.barrier()
        denoiser, tuned = _built(preset, source, mesh, device)
        trained = {name: p for name, p in denoiser.transformer.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(
            trained.values(), lr=preset.rate, betas=(0.9, 0.95), weight_decay=preset.weight_decay, fused=device.type == "cuda"
        )
        average = {name: p.detach().clone() for name, p in trained.items()} if preset.ema else None
        state = _State(trained, optimizer, average, folder / "checkpoints")
        start = state.restore()
        if rank == 0:
            forget_after(start, folder / "metrics.jsonl")

        logged: list[Tensor] = []
        since = time.monotonic()
        for step in range(start, preset.steps):
            rate = preset.rate * min(1.0, (step + 1) / preset.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            chosen = draws(preset, shots.samples, step, len(denoiser.scheduler.alphas_cumprod))
            each = torch.zeros(preset.batch, device=device)
            for place in range(rank, preset.batch, ranks):
                loss = _loss(denoiser, preset, shots, chosen[place], device)
                each[place] = loss.detach()
                # FSDP takes the mean over ranks. It does so after every sample, so that no rank has to hold a whole gradient.
                tail = sum((end.sum() for end in denoiser.ends), torch.zeros((), device=device))
                (loss * ranks / preset.batch + 0 * tail).backward()
                denoiser.ends.clear()
            dist.all_reduce(each)
            if not bool(torch.isfinite(each).all()):
                name = shots.samples[chosen[int(each.isfinite().int().argmin())].number].name
                raise FloatingPointError(f"loss is not finite at step {step}, shot {name}; lower the rate")
            if not bool(torch.isfinite(_whole(nn.utils.clip_grad_norm_(trained.values(), 1.0)))):
                raise FloatingPointError(f"gradient is not finite at step {step}; lower the rate")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                decay = min(preset.ema or 0.0, (1 + step) / (10 + step))
                with torch.no_grad():
                    for name, parameter in trained.items():
                        average[name].lerp_(parameter.detach(), 1 - decay)
            logged.append(each.mean())

            done = step + 1
            late = minutes is not None and _agreed(time.monotonic() - started > minutes * 60, device)
            last = done == preset.steps or late
            report = None
            if done % preset.log_every == 0 or last:
                report = Report(done, preset.steps, float(torch.stack(logged).mean()), rate, time.monotonic() - since)
                logged, since = [], time.monotonic()
                if rank == 0:
                    with (folder / "metrics.jsonl").open("a") as log:
                        log.write(json.dumps(asdict(report)) + "\n")
            if last:  # before the checkpoint: whoever resumes at the last step finds it done
                _export(preset, folder / "model", source, denoiser, tuned, average or trained, done)
            if done % preset.checkpoint_every == 0 or last:
                state.save(done)
            if report is not None:
                yield report
            if late:
                return


@contextmanager
def _ranks(device: torch.device) -> Iterator[DeviceMesh]:
    """The ranks that share the work: those of torchrun, or this process alone."""
    # Control messages of checkpoints go by the CPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh(device.type, (dist.get_world_size(),))
    finally:
        dist.destroy_process_group()


def _built(preset: Finetune, source: Source, mesh: DeviceMesh, device: torch.device) -> tuple[ShardedCogVideoX, Any]:
    """The sharded denoiser, and what saves its LoRA, if it is one. Rank 0 reads the weights and the others get their shards."""
    # What is not trained may lie in the precision that it is computed in.
    compute = getattr(torch, preset.compute)
    dtype = torch.float32 if preset.lora is None else compute
    with torch.no_grad():
        bare: Any = nn.Module.to(copy.deepcopy(source.bare["transformer"]), dtype)
    tuned = None if preset.lora is None else _with_lora(bare, preset)
    bare.train()
    if preset.checkpointing:
        bare.enable_gradient_checkpointing()
    model = cogvideox.CogVideoXModel(source, torch.device("cpu"), dtype, "resident")
    denoiser = ShardedCogVideoX(bare, model.scheduler)

    # Inputs are cast where the frames, text and time come in; from there on rotary tables stay in float32, as in inference.
    policy = MixedPrecisionPolicy(compute, torch.float32, cast_forward_inputs=True)
    inner = MixedPrecisionPolicy(compute, torch.float32, cast_forward_inputs=False)
    for part in (bare.patch_embed, bare.time_embedding):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    for block in bare.transformer_blocks:
        fully_shard(block, mesh=mesh, mp_policy=inner)
    # Its output is one, and nothing works in place on it.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    fully_shard(bare, mesh=mesh, mp_policy=inner)
    bare.to_empty(device=device)

    weights: dict[str, Any] = {}
    if mesh.get_rank() == 0:
        read = model.network.transformer
        if preset.lora is not None:
            torch.manual_seed(preset.seed)
            _with_lora(read, preset)
        weights = read.state_dict()
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(bare, weights, options=options)
    return denoiser, tuned


def _with_lora(transformer: Any, preset: Finetune) -> Any:
    """Put a LoRA into a transformer, in place; the peft model that knows how to save it."""
    from peft import LoraConfig, get_peft_model

    assert preset.lora is not None
    return get_peft_model(transformer, LoraConfig(r=preset.lora, lora_alpha=preset.lora, target_modules=LORA_ON))


def _loss(denoiser: CogVideoX, preset: Finetune, shots: Precomputed, draw: Draw, device: torch.device) -> Tensor:
    sample = shots.read(draw.number)
    given = conditions(preset, draw, sample, shots.prompt(draw.caption), denoiser.patch)
    clean = sample.target[None].float()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(draw.seed))
    return v_loss(denoiser, clean.to(device), noise.to(device), draw.time, given)


def _whole(tensor: Tensor) -> Tensor:
    """A tensor from its shards, on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _agreed(fact: bool, device: torch.device) -> bool:
    """Whether it is so on any rank."""
    told = torch.tensor(float(fact), device=device)
    dist.all_reduce(told)
    return bool(told > 0)


@dataclass
class _State:
    """All that a run has learned, in checkpoints of safetensors shards that any number of ranks can read."""

    trained: dict[str, nn.Parameter]
    optimizer: torch.optim.AdamW
    average: dict[str, Tensor] | None
    folder: Path

    def save(self, step: int) -> None:
        """Whole or not at all; older ones than the last few go."""
        path, partial = self.folder / f"{step:08d}", self.folder / f".{step:08d}.partial"
        if dist.get_rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        dist.barrier()
        writer = checkpoint.HuggingFaceStorageWriter(str(partial), save_distributed=True)
        checkpoint.save(self._tensors(), storage_writer=writer)
        dist.barrier()
        if dist.get_rank() == 0:
            shutil.rmtree(path, ignore_errors=True)
            partial.rename(path)
            for old in self._steps()[:-KEPT]:
                shutil.rmtree(self.folder / f"{old:08d}")
        dist.barrier()

    def restore(self) -> int:
        """Fill all in from the last checkpoint; the step to go on from. Raises ValueError for one that is broken."""
        steps = self._steps()
        if not steps:
            return 0
        path = self.folder / f"{steps[-1]:08d}"
        for parameter in self.trained.values():
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = {"step": torch.zeros((), device=_step_device(self.optimizer, parameter)), **moments}
        try:
            for file in path.glob("*.safetensors"):
                with safe_open(file, "pt"):
                    pass  # whole, by its header
            checkpoint.load(self._tensors(), storage_reader=checkpoint.HuggingFaceStorageReader(str(path)))
        except (SafetensorError, OSError, checkpoint.CheckpointException) as error:
            line = str(error).strip().splitlines()[-1]
            raise ValueError(f"{path}: cannot be read ({line}); delete it to go on from the checkpoint before it") from error
        return steps[-1]

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": p.detach() for name, p in self.trained.items()}
        for name, parameter in self.trained.items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        return tensors | {f"average.{name}": value for name, value in (self.average or {}).items()}

    def _steps(self) -> list[int]:
        return sorted(int(p.name) for p in self.folder.glob("[0-9]*") if p.is_dir())


def _step_device(optimizer: torch.optim.AdamW, parameter: Tensor) -> torch.device:
    """Where AdamW counts its steps."""
    return parameter.device if optimizer.defaults["fused"] else torch.device("cpu")


def _export(preset: Finetune, folder: Path, source: Source, denoiser: CogVideoX, tuned: Any, tensors: Any, steps: int) -> None:
    """What `colorize` loads, with the base: a full fine-tune's transformer/ and scheduler/, or a LoRA as peft writes it.

    timecolor.json says how it was trained. The folder is the old one or the whole new one.
    """
    dtype = getattr(torch, preset.compute)
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():  # every rank gives its shards
        full = _whole(tensor.detach())
        if dist.get_rank() == 0:
            whole[name] = full.to("cpu", dtype if preset.lora is None else torch.float32)
    if dist.get_rank() == 0:
        partial, old = (folder.with_name(f".{folder.name}.{what}") for what in ("partial", "old"))
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if tuned is None:
            transformer = copy.deepcopy(source.bare["transformer"])
            transformer.load_state_dict(whole, assign=True)
            transformer.save_pretrained(partial / "transformer")
        else:
            tuned.save_pretrained(partial, state_dict={f"base_model.model.{name}": tensor for name, tensor in whole.items()})
        cast(Any, denoiser.scheduler).save_pretrained(partial / "scheduler")
        about = {"regime": preset.regime, "cells": preset.cells, "steps": steps, "seed": preset.seed}
        (partial / "timecolor.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    dist.barrier()
