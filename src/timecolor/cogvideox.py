"""CogVideoX as a denoiser: the published TimeColor system, through diffusers' own seams; the only module that imports diffusers.

The transformer, its blocks and the VAE run as diffusers ships them. Ours are an attention processor, the rotary tables and the
frame axis, along which the target is followed by its sketch and its references (TimeColor §3.2).
"""

import hashlib
import importlib.util
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXTransformer3DModel,
    UniPCMultistepScheduler,
)
from diffusers.hooks import apply_group_offloading
from diffusers.models.embeddings import apply_rotary_emb, get_1d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from timecolor import attention
from timecolor.attention import Attention, Execution
from timecolor.correspondence import CellRule, Regime, Rule, Tokens
from timecolor.denoiser import Conditions, Defaults, Picture, Work
from timecolor.geometry import Clip, Compression, Grid
from timecolor.layout import Kind, TokenLayout
from timecolor.rope import Rope, positions
from timecolor.shapes import Float, UInt8

SolverName = Literal["ddim", "dpm", "unipc"]
Branches = Literal["together", "apart"]
Part = Literal["transformer", "vae", "text_encoder"]


@dataclass(frozen=True, slots=True)
class Rung:
    """A rung of the memory ladder: what is given up for memory.

    tiles: the VAE works tile by tile, which shows a little at their seams. weights: all = they stay on the device; parts = T5,
    VAE and transformer take turns there, and T5 is read again for a new prompt; groups = those of T5 and the transformer come a
    block at a time (on a CPU the same as parts: there is nowhere to wait, so what makes room is let go and read again).
    branches: of the guidance, see `CogVideoX`. eight_bits: of the weights of T5 and the transformer, which changes results by
    about their rounding; the other rungs differ from one another by no more than that of the arithmetic, and the seams.
    """

    name: str
    tiles: bool = True
    weights: Literal["all", "parts", "groups"] = "all"
    branches: Branches = "together"
    eight_bits: bool = False


LADDER = (  # fastest first
    Rung("resident", tiles=False),
    Rung("tiled"),
    Rung("offload", weights="parts"),
    Rung("groups", weights="groups"),
    Rung("low", weights="groups", branches="apart"),
    Rung("int8", weights="groups", branches="apart", eight_bits=True),
)

# Tensors of a token's width, or of the VAE's first width and a pixel, that are held at the widest moment: measured.
WIDEST = 16
CODEC_WIDEST = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted(Conditions):
    """Conditions with a text.

    text: embeddings (s n d) of one branch, the prompt, or of two, the empty prompt and the prompt. guidance: how far to go from
    the first to the second; without a second it does nothing. Sketch and references are the same in both (TimeColor §3).
    """

    text: Float[Tensor, "s n d"]
    guidance: float = 1.0


@dataclass(slots=True)
class Plan:
    """How one run through the blocks attends; the same in every layer but the last.

    attend: of all its tokens. last: of its first `asked` tokens, whose output alone is used after the last layer. order: place ->
    token, so that like tokens lie together, and back; None = as they are. kept: rotated keys and values of the conditions, each
    (b heads n d), layer by layer, which this run makes (`making`) or sees behind its own.
    """

    attend: Attention
    last: Attention
    asked: int
    rope: tuple[Tensor, Tensor]
    order: Tensor | None = None
    back: Tensor | None = None
    kept: list[tuple[Tensor, Tensor]] | None = None
    making: bool = False


class Processor:
    """CogVideoX's attention by a plan, which comes with every call; diffusers' own where nothing is hidden."""

    def __init__(self, layer: int, last: bool) -> None:
        self.layer, self.last = layer, last

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        plan: Plan | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Results for the frames' tokens and for the text's, as a diffusers block takes them."""
        if plan is None or image_rotary_emb is None:
            raise ValueError("this transformer belongs to a timecolor denoiser; load another for a diffusers pipeline")
        text = encoder_hidden_states.shape[1]
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        if plan.order is not None:
            tokens = tokens[:, plan.order]
        cos, sin = image_rotary_emb
        k = _rotated(attn.to_k(tokens), attn.heads, attn.norm_k, cos, sin)
        v = _heads(attn.to_v(tokens), attn.heads)
        if plan.kept is not None and plan.making:
            plan.kept.append((k, v))
        elif plan.kept is not None:
            # A copy for the time of one layer; places kept free in every layer would cost as much memory as the conditions do.
            k, v = (torch.cat(parts, dim=2) for parts in zip((k, v), plan.kept[self.layer], strict=True))

        count = tokens.shape[1]
        asked = plan.asked if self.last else count
        if asked:
            q = _rotated(attn.to_q(tokens[:, :asked]), attn.heads, attn.norm_q, cos[:asked], sin[:asked])
            out = (plan.last if self.last else plan.attend)(q, k, v)
            out = attn.to_out[1](attn.to_out[0](rearrange(out, "b h n d -> b n (h d)")))
        else:
            out = tokens[:, :0]
        if asked < count:  # nobody looks at the rest any more
            out = F.pad(out, (0, 0, 0, count - asked))
        if plan.back is not None:
            out = out[:, plan.back]
        return out[:, text:], out[:, :text]


@dataclass(slots=True)
class CogVideoXCache:
    """Per shot: what every step shares.

    frames: `joint` only, latent frames of the conditions (b f c h w), which every step runs anew.
    """

    conditions: Prompted
    plan: Plan
    frames: Tensor


class CogVideoX(nn.Module):
    """The published denoiser (TimeColor §3), predicting the clean target from v.

    `joint` is the published rule: one timestep for all tokens. In `cached` sketch and references see only one another, at t = 0,
    once per shot; text and target run with every step and see everything, as they do in plain CogVideoX, so both branches
    of the guidance share the one cache. Without sketch and references both are plain CogVideoX.
    """

    def __init__(
        self, transformer: CogVideoXTransformer3DModel, scheduler: CogVideoXDDIMScheduler, branches: Branches = "together"
    ) -> None:
        """branches: those of the guidance in one batch, as published, or one after the other, in half the memory. `cached` always
        takes the second way. Raises ValueError, naming the field, for a config that is not CogVideoX's."""
        super().__init__()
        self.config: Any = transformer.config
        self.rope = rope_of(self.config)
        kind = cast(Any, scheduler.config).prediction_type
        if kind != "v_prediction":
            raise ValueError(f"scheduler: prediction_type is {kind}; v_prediction is needed")
        self.transformer = transformer
        self.scheduler = scheduler
        self.branches: Branches = branches
        self.patch: int = self.config.patch_size
        self.text_tokens: int = self.config.max_text_seq_length
        names = list(transformer.attn_processors)
        mine: dict[str, Any] = {name: Processor(i, i == len(names) - 1) for i, name in enumerate(names)}
        transformer.set_attn_processor(mine)

    def prepare(self, conditions: Conditions) -> CogVideoXCache:
        """Settle who sees whom and, in the `cached` regime, run the conditions through all blocks once.

        Raises ValueError for conditions without a text and for parts whose sizes do not fit together.
        """
        if not isinstance(conditions, Prompted):
            raise ValueError("CogVideoX got conditions without a text; give Prompted ones, at least the empty prompt's embedding")
        self._check(conditions)
        layout, rule, execution = conditions.layout, conditions.rule, conditions.execution
        device, dtype = self.transformer.device, self.transformer.dtype
        frames = torch.cat([conditions.sketch, conditions.references], dim=1).to(device, dtype)
        cached = rule.regime == "cached" and frames.shape[1] > 0
        tokens = _grouping(conditions.tokens, rule).to(device)
        sorts = len(tokens.bits) == 1 and not torch.is_grad_enabled()
        order = attention.sort_order(tokens) if sorts else torch.arange(layout.tokens, device=device)
        tokens = tokens[order]
        cos, sin = (table.to(device)[order] for table in rotary_tables(layout, self.rope, conditions.start))
        split = layout.target.stop  # the sort never moves a token out of its kind

        last = _attention(tokens[:split], tokens, rule, execution)
        if not cached:
            attend = _attention(tokens, tokens, rule, execution)
            plan = Plan(attend, last, split, (cos, sin), *_places(order))
            return CogVideoXCache(conditions, plan, frames)

        kept: list[tuple[Tensor, Tensor]] = []
        rest = tokens[split:]
        attend = _attention(rest, rest, rule, execution)
        making = Plan(attend, attend, 0, (cos[split:], sin[split:]), *_places(order[split:] - split), kept, making=True)
        silent = conditions.text.new_zeros(len(frames), 0, self.config.text_embed_dim).to(device, dtype)
        self._run(frames, silent, torch.zeros(len(frames), dtype=torch.long, device=device), making)
        plan = Plan(last, last, split, (cos[:split], sin[:split]), *_places(order[:split]), kept)
        return CogVideoXCache(conditions, plan, frames[:, :0])

    def predict(self, latents: Float[Tensor, "b f c h w"], timestep: Float[Tensor, " b"], cache: CogVideoXCache) -> Tensor:
        """Clean latents (b f c h w), float32, for noisy ones; t in (0, 1] is (training timestep + 1) / their number.

        x_0 = sqrt(alpha_bar) x_t - sqrt(1 - alpha_bar) v (Salimans and Ho 2022, App. D), v guided over the text alone. Keep
        `timestep` on the CPU, where it is read.
        """
        most = len(self.scheduler.alphas_cumprod)
        steps = [max(0, round(t * most) - 1) for t in timestep.tolist()]
        speed = self._speed(latents, torch.tensor(steps, device=latents.device), cache)
        # One number a sample, as diffusers' scheduler has it: rounded the same in every dtype and on every device.
        alphas = [self.scheduler.alphas_cumprod[step] for step in steps]
        return torch.stack([a**0.5 * x - (1 - a) ** 0.5 * v for a, x, v in zip(alphas, latents, speed, strict=True)])

    def _speed(self, latents: Tensor, step: Tensor, cache: CogVideoXCache) -> Tensor:
        """Guided v (b f c h w), float32, at training timesteps (b)."""
        text = cache.conditions.text.to(latents.device, self.transformer.dtype)
        frames = torch.cat([latents.to(self.transformer.dtype), cache.frames], dim=1)
        batch, length = latents.shape[:2]
        if self.branches == "apart" or cache.plan.kept is not None:
            speeds = [self._run(frames, one.expand(batch, -1, -1), step, cache.plan)[:, :length].float() for one in text.split(1)]
        else:
            count = len(text)
            frames = frames.repeat(count, 1, 1, 1, 1)
            both = self._run(frames, text.repeat_interleave(batch, 0), step.repeat(count), cache.plan)
            speeds = list(both[:, :length].float().chunk(count))
        if len(speeds) == 1:
            return speeds[0]
        empty, prompt = speeds
        return empty + cache.conditions.guidance * (prompt - empty)

    def _run(self, frames: Tensor, text: Tensor, step: Tensor, plan: Plan) -> Tensor:
        return self.transformer(
            frames, text, step, image_rotary_emb=plan.rope, attention_kwargs={"plan": plan}, return_dict=False
        )[0]

    def _check(self, conditions: Prompted) -> None:
        layout, text = conditions.layout, conditions.text
        grid = layout.grid
        size = (grid.height * self.patch, grid.width * self.patch)
        channels = self.config.in_channels
        for name, latents, count in (
            ("sketch", conditions.sketch, grid.frames * layout.sketch),
            ("references", conditions.references, layout.references),
        ):
            if latents.shape[1:] != (count, channels, *size):
                expected = f"{count} frames of {channels}x{size[0]}x{size[1]}"
                raise ValueError(f"{name}: latents are {tuple(latents.shape[1:])}; the layout needs {expected}")
        width = self.config.text_embed_dim
        if len(text) not in (1, 2) or text.shape[1:] != (layout.text, width):
            expected = f"1 or 2 branches of {layout.text} tokens of {width}"
            raise ValueError(f"text: embeddings are {tuple(text.shape)}; the layout and the transformer need {expected}")


def rope_of(config: Any) -> Rope:
    """Positions of a transformer's config; raises ValueError, naming the field, where it is not CogVideoX's (first version)."""
    needed = {
        "patch_size_t": None,
        "ofs_embed_dim": None,
        "use_rotary_positional_embeddings": True,
        "use_learned_positional_embeddings": False,
        "out_channels": config.in_channels,
    }
    for name, value in needed.items():
        if config[name] != value:
            kin = "of the kind of CogVideoX-5b (text to video, first version)"
            raise ValueError(f"transformer: {name} is {config[name]}; {value} is needed, a model {kin}")
    head = config.attention_head_dim
    if head % 16:
        raise ValueError(f"transformer: attention_head_dim is {head}; a multiple of 16 is needed")
    base = (config.sample_height // config.patch_size, config.sample_width // config.patch_size)
    return Rope(base=base, dims=(head // 4, head // 8 * 3, head // 8 * 3))


def fitted_positions(layout: TokenLayout, rope: Rope, start: int = 0) -> Float[Tensor, "n 3"]:
    """(t, y, x) of every token: the published positions, fitted into the model's base grid (30x45 for CogVideoX-5b).

    Rows and columns are fitted as diffusers' pipeline does it, so that the target lies where the base model expects it at every
    size. The published code does this too but takes its offsets in units of the actual grid, so its kinds overlap below
    480x720; here offsets are in units of the base grid, within which every target lies, so they cannot.
    """
    grid = layout.grid
    ids = positions(layout, rope, start)
    corners = get_resize_crop_region_for_grid((grid.height, grid.width), rope.base[1], rope.base[0])
    places = [ids[:, 0].float()]
    for axis, size in enumerate((grid.height, grid.width)):
        first, last = corners[0][axis], corners[1][axis]
        line = torch.linspace(first, last * (size - 1) / size, size)
        unit = max(rope.base[axis], size)  # that of `positions`
        offset, place = ids[:, 1 + axis] // unit, ids[:, 1 + axis] % unit
        places.append(line[place] + offset * rope.base[axis])
    return torch.stack(places, dim=1)


def rotary_tables(layout: TokenLayout, rope: Rope, start: int = 0) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """cos and sin of every token and channel, interleaved pairs, text unrotated."""
    places = fitted_positions(layout, rope, start)
    # diffusers' own formula: the last bit of a table counts where results are to be equal.
    tables = [get_1d_rotary_pos_embed(d, cast(Any, places[:, i]), rope.theta, use_real=True) for i, d in enumerate(rope.dims)]
    cos, sin = (torch.cat(parts, dim=1) for parts in zip(*tables, strict=True))
    cos[: layout.text], sin[: layout.text] = 1, 0
    return cos, sin


class Solver:
    """diffusers' schedulers, walked by predictions of the clean latents; one per job, since a solver remembers.

    times: where to predict, (s), descending in (0, 1] as `CogVideoX.predict` takes them. ddim is the published one; dpm (a
    stochastic second-order DPM-Solver++) and unipc (deterministic) need fewer steps.
    """

    def __init__(self, scheduler: CogVideoXDDIMScheduler, steps: int, name: SolverName = "ddim", seed: int = 0) -> None:
        """seed: of the noise that dpm adds. Raises ValueError for an impossible number of steps."""
        most = len(scheduler.alphas_cumprod)
        if not 1 <= steps <= most:
            raise ValueError(f"got {steps} steps; give 1 to {most}")
        if name == "ddim":
            self._scheduler: Any = CogVideoXDDIMScheduler.from_config(scheduler.config, prediction_type="sample")
        elif name == "dpm":
            self._scheduler = CogVideoXDPMScheduler.from_config(scheduler.config, prediction_type="sample")
        else:
            # It knows no shifted schedule but takes any betas; pure noise gets the tiny signal that it needs for a logarithm.
            alphas = scheduler.alphas_cumprod.double().clamp(min=2**-24)
            betas = 1 - alphas / F.pad(alphas[:-1], (1, 0), value=1.0)
            self._scheduler = UniPCMultistepScheduler(
                trained_betas=betas.numpy(), timestep_spacing="trailing", final_sigmas_type="zero", prediction_type="sample"
            )
        self._scheduler.set_timesteps(steps)
        self._steps: list[int] = self._scheduler.timesteps.tolist()
        self._generator = torch.Generator().manual_seed(seed)
        self._before: Tensor | None = None
        self._name = name
        self.times: Float[Tensor, " s"] = (torch.tensor(self._steps) + 1) / most

    def step(self, index: int, clean: Float[Tensor, "b f c h w"], latents: Float[Tensor, "b f c h w"]) -> Tensor:
        """Latents at the next time, in their own dtype; after the last time, the result."""
        now = self._steps[index]
        if self._name == "dpm":
            back = self._steps[index - 1] if index else None
            moved, self._before = self._scheduler.step(clean, self._before, now, back, latents, generator=self._generator)
        else:
            moved = self._scheduler.step(clean, now, latents, return_dict=False)[0]
        return moved.to(latents.dtype)


class CogVideoXCodec:
    """CogVideoX's causal VAE as diffusers ships it: 8x8 pixels and, after the first frame, 4 frames to a latent."""

    def __init__(self, vae: AutoencoderKLCogVideoX, patch: int = 2) -> None:
        """patch: latents along the side of a token."""
        self.vae: Any = vae
        self.scale: float = self.vae.config.scaling_factor
        self.compression = compression_of(self.vae.config, patch)

    def lean(self, on: bool = True) -> None:
        """Work tile by tile, and sample by sample of a batch: less memory, results that differ a little at the seams."""
        if on:
            self.vae.enable_tiling()
            self.vae.enable_slicing()
        else:
            self.vae.disable_tiling()
            self.vae.disable_slicing()

    @torch.no_grad()
    def encode(self, frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "1 f c y x"]:
        """Scaled latents of a clip or, with t = 1, of a picture: the mode of the posterior, so there is nothing random in them.

        Raises ValueError naming the sizes that fit.
        """
        self._check(*frames.shape[:3])
        pixels = rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "t h w c -> 1 c t h w").to(self.vae.device)
        mode = self.vae.encode((pixels.float() / 127.5 - 1).to(self.vae.dtype)).latent_dist.mode()
        return rearrange(mode * self.scale, "1 c f y x -> 1 f c y x")

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "1 f c y x"]) -> Float[np.ndarray, "t h w 3"]:
        """Frames in [0, 1], as many as were encoded.

        Of an even number of latent frames, diffusers' VAE gives the first as many frames as the others; the last of them counts.
        """
        length = (latents.shape[1] - 1) * self.compression.time + 1
        scaled = rearrange(latents.to(self.vae.device, self.vae.dtype), "1 f c y x -> 1 c f y x") * (1 / self.scale)
        frames = self.vae.decode(scaled).sample[:, :, -length:]
        return rearrange((frames.float() / 2 + 0.5).clamp(0, 1), "1 c t h w -> t h w c").cpu().numpy()

    def _check(self, frames: int, height: int, width: int) -> None:
        self.compression.latent_frames(frames)
        space = self.compression.space
        for name, pixels in (("height", height), ("width", width)):
            if pixels % space:
                low = pixels // space * space
                raise ValueError(
                    f"clip has {name} {pixels}; use {f'{low} or ' if low else ''}{low + space} (a multiple of {space})"
                )


def compression_of(vae: Any, patch: int) -> Compression:
    """Pixels per token, by a VAE's config and the latents along the side of a token."""
    return Compression(int(vae.temporal_compression_ratio), 2 ** (len(vae.block_out_channels) - 1), patch)


class Prompts:
    """T5's embeddings of prompts, each computed once and kept on disk; T5 is loaded only for a prompt not met before."""

    def __init__(
        self,
        base: Path | None,
        tokens: int,
        width: int,
        folder: Path | None = None,
        files: Sequence[Path] = (),
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        rung: Rung = LADDER[0],
    ) -> None:
        """base: holds `tokenizer/` and `text_encoder/`; None = there is no T5. tokens, width: of an embedding, (tokens, width).
        folder: where embeddings are kept; None = the user's cache. files: embeddings that need no T5, such as that of the empty
        prompt, as `write` makes them. rung: where T5 lies and how; it stays loaded on those that keep all weights at hand."""
        self.base, self.tokens, self.width = base, tokens, width
        self.folder = folder or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "timecolor" / "prompts"
        self.device, self.dtype, self.rung = torch.device(device), dtype, rung
        self._known: dict[str, Tensor] = {}
        self._t5: tuple[Any, Any] | None = None
        self._identity: str | None = None
        for file in files:
            prompt, embedding = self._read(Path(file))
            self._known[prompt] = embedding

    def branches(self, prompt: str, guidance: float = 1.0) -> Float[Tensor, "s n d"]:
        """What `Prompted.text` takes: the empty prompt and the prompt, or one alone where guidance can do nothing."""
        return self(_texts(prompt, guidance))

    def __call__(self, prompts: Sequence[str]) -> Float[Tensor, "s n d"]:
        """Embeddings of prompts. Raises ValueError for an unknown one without T5."""
        found = torch.stack([self._embedding(prompt).to(self.device, self.dtype) for prompt in prompts])
        if self.rung.weights != "all":
            self.release()
        return found

    def knows(self, prompt: str) -> bool:
        """Whether its embedding is at hand, so that T5 is not needed."""
        return prompt in self._known or (self._has_t5 and self._file(prompt).exists())

    @property
    def loaded(self) -> bool:
        """Whether T5 is."""
        return self._t5 is not None

    def write(self, prompt: str, file: Path) -> None:
        """An embedding file, for machines without T5."""
        _write_embedding(file, self._embedding(prompt), prompt)

    def release(self) -> None:
        """Let T5 go, and its memory."""
        self._t5 = None

    def _embedding(self, prompt: str) -> Tensor:
        if prompt not in self._known:
            if not self._has_t5:
                where = f"{self.base} has no text_encoder/ and tokenizer/" if self.base else "there is no T5"
                raise ValueError(f"prompt {prompt!r} has no embedding yet and {where}; add T5, or give an embedding file")
            file = self._file(prompt)
            if file.exists():
                self._known[prompt] = self._read(file)[1]
            else:
                self._known[prompt] = self._encode(prompt)
                _write_embedding(file, self._known[prompt], prompt)
        return self._known[prompt]

    @property
    def _has_t5(self) -> bool:
        return self.base is not None and all((self.base / part).is_dir() for part in ("tokenizer", "text_encoder"))

    def _file(self, prompt: str) -> Path:
        assert self.base is not None
        if self._identity is None:
            self._identity = _identity(self.base / "tokenizer", self.base / "text_encoder")
        kind = "int8" if self.rung.eight_bits else str(self.dtype)
        key = hashlib.sha256(json.dumps([self._identity, self.tokens, kind, prompt]).encode()).hexdigest()
        return self.folder / f"{key}.safetensors"

    @torch.inference_mode(False)  # or the weights would be bound to the mode in which they were first needed
    @torch.no_grad()
    def _encode(self, prompt: str) -> Tensor:
        assert self.base is not None
        if self._t5 is None:
            from transformers import T5EncoderModel, T5Tokenizer

            tokenizer = _reading(self.base / "tokenizer", T5Tokenizer.from_pretrained)
            quantized = {"quantization_config": _eight_bits("transformers")} if self.rung.eight_bits else {}
            encoder = _loaded(T5EncoderModel, self.base / "text_encoder", dtype=self.dtype, **quantized).eval()
            self._t5 = tokenizer, _placed(encoder, self.device, self.rung, "leaf_level")
        tokenizer, encoder = self._t5
        given = tokenizer(prompt).input_ids
        if len(given) > self.tokens:
            lost = tokenizer.decode(given[self.tokens - 1 :], skip_special_tokens=True)
            warnings.warn(f"prompt has {len(given)} tokens and the model reads {self.tokens}; lost: {lost!r}", stacklevel=2)
        ids = tokenizer(prompt, padding="max_length", max_length=self.tokens, truncation=True, return_tensors="pt").input_ids
        return encoder(ids.to(self.device))[0][0].cpu()

    def _read(self, file: Path) -> tuple[str, Tensor]:
        try:
            with safe_open(str(file), framework="pt") as opened:
                prompt, embedding = (opened.metadata() or {}).get("prompt"), opened.get_tensor("embedding")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file}: is no embedding of a prompt ({_line(error)}); delete it, or make it again") from error
        if prompt is None or embedding.shape != (self.tokens, self.width):
            expected = f"({self.tokens}, {self.width}) and the prompt in its metadata"
            raise ValueError(f"{file}: holds {tuple(embedding.shape)}; this model needs {expected}")
        return prompt, embedding


@dataclass(frozen=True)
class Source:
    """Where the parts of a model lie, checked as far as configs and the headers of files tell.

    text: the directory that holds `tokenizer/` and `text_encoder/`, None = there is no T5. lora: None = a full fine-tune.
    trained: regime and cell rule of a fine-tune of ours (its timecolor.json), None = it does not say. prompts: embedding files in
    a `prompts/` of the model or the base, for which T5 is not needed.
    """

    transformer: Path
    lora: Path | None
    scheduler: Path
    vae: Path
    text: Path | None
    trained: tuple[Regime, CellRule] | None = None
    prompts: tuple[Path, ...] = ()

    @classmethod
    def of(cls, model: str | Path, base: str | Path | None = None) -> "Source":
        """A fine-tune with `transformer/` (and `scheduler/`), or a peft LoRA, upon the CogVideoX-5b base, from disk or by hub id.

        base: gives what the model's own directory lacks: vae, scheduler, tokenizer, text_encoder and, for a LoRA, the
        transformer; None = the model has all. Raises ValueError, naming folder and remedy, for a part that is missing, broken or
        of another model.
        """
        own = _folder(model)
        lora = (own / "adapter_config.json").is_file()
        # Hub ids bring the base's own transformer only for a LoRA, which lies upon it: it is the largest part.
        parent = own if base is None else _folder(base, None if lora else "transformer/*")
        if not lora and not (own / "transformer").is_dir():
            raise ValueError(f"{own}: has neither transformer/ (a full fine-tune) nor adapter_config.json (a peft LoRA)")
        source = cls(
            _part("transformer", parent if lora else own),
            own if lora else None,
            _part("scheduler", own, parent),
            _part("vae", own, parent),
            next((p for p in (own, parent) if (p / "text_encoder").is_dir()), None),
            _trained(own),
            tuple(file for folder in dict.fromkeys((own, parent)) for file in sorted((folder / "prompts").glob("*.safetensors"))),
        )
        rope_of(source.bare["transformer"].config)
        source._check()
        return source

    @cached_property
    def bare(self) -> dict[Part, Any]:
        """Each model without its weights: config, names and sizes."""
        parts: dict[Part, Any] = {
            "transformer": _reading(self.transformer, lambda path: _meta(CogVideoXTransformer3DModel, _config(Path(path)))),
            "vae": _reading(self.vae, lambda path: _meta(AutoencoderKLCogVideoX, _config(Path(path)))),
        }
        if self.text is not None:
            from transformers import T5Config, T5EncoderModel

            config = _config(self.text / "text_encoder")
            parts["text_encoder"] = _meta(T5EncoderModel, T5Config(**config))
        return parts

    def _check(self) -> None:
        transformer, vae = self.bare["transformer"].config, self.bare["vae"].config
        for name, at_vae, at_transformer in (
            ("latent channels", vae.latent_channels, transformer.in_channels),
            ("frames a latent", vae.temporal_compression_ratio, transformer.temporal_compression_ratio),
        ):
            if at_vae != at_transformer:
                raise ValueError(
                    f"{self.vae}: has {at_vae} {name} but the transformer {at_transformer}; give the base it was made from"
                )
        if self.text is not None:
            _part("tokenizer", self.text)
            given, width = self.bare["text_encoder"].config.d_model, transformer.text_embed_dim
            if given != width:
                folder = self.text / "text_encoder"
                raise ValueError(f"{folder}: its embeddings have {given} channels but the transformer takes {width}")
        _check_files(self.transformer, self.bare["transformer"])
        _check_files(self.vae, self.bare["vae"])


class CogVideoXModel:
    """A model from disk, for any number of jobs (implements `denoiser.Model`); every part is read when it is first needed."""

    hints = False
    matcher = None
    judge = None
    trust = None
    draws_lines = True

    def __init__(
        self,
        source: Source,
        device: torch.device,
        dtype: torch.dtype,
        memory: str = "auto",
        prompt_folder: Path | None = None,
        embeddings: Sequence[Path] = (),
    ) -> None:
        """memory: a rung of `LADDER`; auto = whoever asks settles one for each job. prompt_folder, embeddings: see `Prompts`.

        Raises ValueError for an unknown rung, and ModuleNotFoundError where int8 is asked for without torchao.
        """
        names = [rung.name for rung in LADDER]
        if memory not in ("auto", *names):
            raise ValueError(f"memory is {memory!r}; use auto, {', '.join(names)}")
        if memory == "int8" and not _has_torchao():
            raise ModuleNotFoundError("memory int8 needs torchao; install it with: pip install 'timecolor[int8]'", name="torchao")
        self.source, self.device, self.dtype, self.memory = source, device, dtype, memory
        self.config: Any = source.bare["transformer"].config
        self._vae_config: Any = source.bare["vae"].config
        self.compression = compression_of(self._vae_config, self.config.patch_size)
        self.text: int = self.config.max_text_seq_length
        self.layers: int = self.config.num_layers
        self.scheduler = _reading(source.scheduler, CogVideoXDDIMScheduler.from_pretrained)
        side = min(self.config.sample_height, self.config.sample_width) * self.compression.space
        # As published (TimeColor §3 and the release); a fine-tune of ours says under which rule it was trained.
        regime, cells = source.trained or ("joint", "majority")
        self.defaults = Defaults(steps=50, short_side=side, window=None, cells=cells, regime=regime, guidance=3.0)
        self._parts: dict[Part, Any] = {}
        self._prompts_at = (prompt_folder, (*source.prompts, *embeddings))
        self._rung = LADDER[0]
        self.prompts = self._prompts()
        self.settle("resident" if memory == "auto" else memory)

    @property
    def parameters(self) -> int:
        """How many numbers the transformer learned."""
        return sum(p.numel() for p in self.source.bare["transformer"].parameters())

    @property
    def denoiser(self) -> "CogVideoXModel":
        """Itself, since the network comes to the device only when it is used."""
        return self

    def prepare(self, conditions: Conditions) -> CogVideoXCache:
        """See `CogVideoX.prepare`."""
        return self.network.prepare(conditions)

    def predict(self, latents: Float[Tensor, "b f c h w"], timestep: Float[Tensor, " b"], cache: CogVideoXCache) -> Tensor:
        """See `CogVideoX.predict`."""
        return self.network.predict(latents, timestep, cache)

    @property
    def network(self) -> CogVideoX:
        """The transformer, brought to the device."""
        denoiser = self._part("transformer")
        denoiser.branches = self._rung.branches
        return denoiser

    @property
    def codec(self) -> CogVideoXCodec:
        """The VAE, brought to the device."""
        codec = CogVideoXCodec(self._part("vae"), self.config.patch_size)
        codec.lean(self._rung.tiles)
        return codec

    def encode_sketch(self, frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "1 f c y x"]:
        """See `CogVideoXCodec.encode`: the sketch as a whole video."""
        return self.codec.encode(frames)

    def encode_references(self, pictures: Sequence[Picture], size: Clip) -> Float[Tensor, "1 r c y x"]:
        """Each alone, as a video of one frame, with its own lines."""
        y, x = size.height // self.compression.space, size.width // self.compression.space
        codec = self.codec if pictures else None
        encoded = [codec.encode(picture.image[None]) for picture in pictures] if codec else []
        return torch.cat(encoded, dim=1) if encoded else torch.zeros(1, 0, self.config.in_channels, y, x)

    def decode(self, latents: Float[Tensor, "1 f c y x"]) -> Float[np.ndarray, "t h w 3"]:
        """See `CogVideoXCodec.decode`."""
        return self.codec.decode(latents)

    def noise(self, grid: Grid, seed: int, first: int) -> Float[Tensor, "1 f c y x"]:
        """That of diffusers' pipeline for the seed, in float32 whatever the model computes in."""
        patch, generator = self.config.patch_size, torch.Generator().manual_seed(seed)
        size = (self.config.in_channels, grid.height * patch, grid.width * patch)
        return torch.stack([torch.randn(size, generator=generator) for _ in range(first + grid.frames)][first:])[None]

    def told(self, conditions: Conditions, prompt: str, guidance: float) -> Prompted:
        """Conditions with the prompt's embedding. Raises ValueError for an unknown prompt where there is no T5."""
        if self._taking_turns and not all(map(self.prompts.knows, _texts(prompt, guidance))):
            self._send_away()
        given = {field.name: getattr(conditions, field.name) for field in fields(Conditions)}
        return Prompted(**given, text=self.prompts.branches(prompt, guidance), guidance=guidance)

    def solver(self, name: str | None, steps: int, seed: int) -> Solver:
        """DDIM, or another that needs fewer steps. Raises ValueError for one that there is not."""
        if name not in (None, *get_args(SolverName)):
            raise ValueError(f"solver is {name!r}; CogVideoX models have {', '.join(get_args(SolverName))}")
        return Solver(self.scheduler, steps, cast(SolverName, name or "ddim"), seed)

    def settle(self, rung: str) -> None:
        """Run what follows on this rung of `LADDER`. Parts that lie otherwise than it has them are read again."""
        new, old = next(r for r in LADDER if r.name == rung), self._rung
        if (new.weights, new.eight_bits) != (old.weights, old.eight_bits):
            self._parts.clear()
            self._rung = new
            self.prompts = self._prompts()
        self._rung = new

    def memory_bytes(self, work: Work) -> dict[str, int]:
        """Peak of a job by rung, without what the parts that are already there take; the rung of 8 bits only with torchao."""
        held = sum(
            tensor.numel() * tensor.element_size()
            for part in self._parts.values()
            for tensor in (*part.parameters(), *part.buffers())
            if tensor.device.type == self.device.type
        )
        rungs = (rung for rung in LADDER if not rung.eight_bits or _has_torchao())
        return {rung.name: max(0, self._peak(work, rung) - held) for rung in rungs}

    def operations(self, work: Work) -> float:
        """Each token against all; of the labels' rule, which leaves out a little, nothing is known yet."""
        width = self.config.num_attention_heads * self.config.attention_head_dim
        kept = (work.grid.frames + work.references) * work.grid.per_frame
        live = self.text + work.grid.tokens
        branches = 2 if guided(work.prompt, work.guidance) else 1

        def run(tokens: int, seen: int) -> float:
            return float(self.config.num_layers * tokens * (24 * width**2 + 4 * seen * width))

        if work.rule.regime == "cached":
            return run(kept, kept) + work.steps * branches * run(live, live + kept)
        return work.steps * branches * run(live + kept, live + kept)

    def _prompts(self) -> Prompts:
        folder, files = self._prompts_at
        return Prompts(
            self.source.text, self.text, self.config.text_embed_dim, folder, files, self.device, self.dtype, self._rung
        )

    @property
    def _taking_turns(self) -> bool:
        return _take_turns(self._rung, self.device)

    def _part(self, name: Part) -> Any:
        if self._taking_turns:
            self._send_away(name)
        # Not in inference mode, or the weights would be bound to it.
        with torch.inference_mode(False), torch.no_grad():
            if name not in self._parts:
                self._parts[name] = self._read(name)
            elif self._taking_turns:
                self._parts[name].to(self.device)
        return self._parts[name]

    def _send_away(self, but: Part | None = None) -> None:
        """Make room: on a GPU the others wait in the host's memory, on a CPU they are read again when they are needed."""
        others: list[Part] = [name for name in self._parts if name != but]
        for name in others:
            if self.device.type == "cpu":
                del self._parts[name]
            else:
                with torch.inference_mode(False), torch.no_grad():
                    self._parts[name].to("cpu")

    def _read(self, name: Part) -> Any:
        if name == "vae":
            vae = _loaded(AutoencoderKLCogVideoX, self.source.vae, torch_dtype=self.dtype)
            return vae.to(self.device).eval().requires_grad_(False)
        eight = self._rung.eight_bits
        quantized = {"quantization_config": _eight_bits("diffusers")} if eight and self.source.lora is None else {}
        transformer = _loaded(CogVideoXTransformer3DModel, self.source.transformer, torch_dtype=self.dtype, **quantized)
        if self.source.lora is not None:
            transformer = _with_lora(transformer, self.source.lora)
            if eight:
                _quantize(transformer)
        denoiser = CogVideoX(transformer, self.scheduler, self._rung.branches).eval().requires_grad_(False)
        denoiser.transformer = _placed(denoiser.transformer, self.device, self._rung, "block_level")
        return denoiser

    def _peak(self, work: Work, rung: Rung) -> int:
        """Bytes on the device at the worst moment of a job: weights and what is computed with them."""
        item = self.dtype.itemsize
        bare = self.source.bare
        weights = {name: _weight_bytes(model, item, rung.eight_bits and name != "vae") for name, model in bare.items()}
        network, pictures = self._network_bytes(work, rung), self._codec_bytes(work, rung)
        texts = _texts(work.prompt, work.guidance)
        text = 0 if all(map(self.prompts.knows, texts)) and not self.prompts.loaded else weights.get("text_encoder", 0)
        if rung.weights == "all":
            return weights["transformer"] + weights["vae"] + text + max(network, pictures)
        if _take_turns(rung, self.device):
            transformer = weights["transformer"]
            if rung.eight_bits and self.source.lora is not None:  # worked in at full width, then made smaller
                transformer = max(transformer, _weight_bytes(bare["transformer"], item, False) - network)
            return max(text, weights["vae"] + pictures, transformer + network)
        # The next group comes while one is at work.
        blocks = bare["transformer"].transformer_blocks
        block = _weight_bytes(blocks[0], item, rung.eight_bits)
        rest = weights["transformer"] - len(blocks) * block
        leaf = max((m.weight.numel() for m in bare["text_encoder"].modules() if hasattr(m, "weight")), default=0) if text else 0
        return weights["vae"] + max(2 * leaf * item, pictures, rest + 2 * block + network)

    def _network_bytes(self, work: Work, rung: Rung) -> int:
        """Activations of a block at its widest, which is the MLP or the attention's rotated keys, and keys that are kept."""
        width = self.config.num_attention_heads * self.config.attention_head_dim
        kept = (work.grid.frames + work.references) * work.grid.per_frame
        live, item = self.text + work.grid.tokens, self.dtype.itemsize
        if work.rule.regime == "cached":
            # Each layer sees a copy of the kept keys beside its own.
            held = 2 * self.config.num_layers * kept * width * item
            return held + max(WIDEST * kept, WIDEST * live + 2 * (live + kept)) * width * item
        both = 2 if guided(work.prompt, work.guidance) and rung.branches == "together" else 1
        return both * WIDEST * (live + kept) * width * item

    def _codec_bytes(self, work: Work, rung: Rung) -> int:
        """Activations of the VAE's decoder at its widest, for the frames that it takes at once, and the whole clip twice."""
        clip = work.working
        area = clip.height * clip.width
        at_once = 3 if clip.frames == 1 else 2 * self.compression.time + 1  # a causal convolution has two more before the first
        tile = min(area, self._vae_config.sample_height * self._vae_config.sample_width // 4) if rung.tiles else area
        colours = clip.frames * area * 3 * (2 * self.dtype.itemsize + 8)
        return colours + CODEC_WIDEST * at_once * tile * self._vae_config.block_out_channels[0] * self.dtype.itemsize


def load_model(
    model: str | Path,
    base: str | Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    memory: str = "auto",
    prompt_folder: Path | None = None,
    embeddings: Sequence[Path] = (),
) -> CogVideoXModel:
    """See `Source.of` and `CogVideoXModel`. Reads configs and headers; the weights follow when they are needed."""
    return CogVideoXModel(Source.of(model, base), torch.device(device), dtype, memory, prompt_folder, embeddings)


def _texts(prompt: str, guidance: float) -> list[str]:
    """The texts of a guidance's branches."""
    return ["", prompt] if guided(prompt, guidance) else [prompt]


def _take_turns(rung: Rung, device: torch.device) -> bool:
    return rung.weights == "parts" or (rung.weights == "groups" and device.type == "cpu")


def _has_torchao() -> bool:
    return importlib.util.find_spec("torchao") is not None


_EXPECTED = {
    "transformer": "CogVideoXTransformer3DModel",
    "vae": "AutoencoderKLCogVideoX",
    "scheduler": "CogVideoXDDIMScheduler or CogVideoXDPMScheduler",
    "tokenizer": "T5's tokenizer",
}


def _folder(source: str | Path, without: str | None = None) -> Path:
    """A directory, or where the hub's copy of a repository lies."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) or path.exists():
        raise ValueError(f"{source}: is no directory; give one in diffusers' format, or a hub id such as THUDM/CogVideoX-5b")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), ignore_patterns=without))
    except (OSError, ValueError) as error:
        raise ValueError(f"{source}: is no directory, and the hub gave none ({_line(error)})") from error


def _part(name: str, *folders: Path) -> Path:
    """The sub-folder of that name in the first directory that has it; its config must be of the right class."""
    found = next((folder / name for folder in folders if (folder / name).is_dir()), None)
    expected = _EXPECTED[name]
    if found is None:
        where = " nor ".join(dict.fromkeys(str(folder) for folder in folders))
        raise ValueError(f"{where}: has no {name}/ ({expected}); give the CogVideoX-5b base that holds it")
    if name != "tokenizer":
        given = _config(found, "scheduler_config.json" if name == "scheduler" else "config.json").get("_class_name")
        if given not in expected.split(" or "):
            raise ValueError(f"{found}: is a {given}; {expected} is needed")
    return found


def _trained(folder: Path) -> tuple[Regime, CellRule] | None:
    """What `timecolor train` wrote beside a model: the rule it was trained under."""
    if not (folder / "timecolor.json").is_file():
        return None
    about = _config(folder, "timecolor.json")
    for name, known in (("regime", get_args(Regime)), ("cells", get_args(CellRule))):
        if about.get(name) not in known:
            raise ValueError(f"{folder / 'timecolor.json'}: {name} is {about.get(name)!r}; {' or '.join(known)} is needed")
    return about["regime"], about["cells"]


def _config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / name}: cannot be read ({_line(error)})") from error


def _loaded(kind: Any, folder: Path, **options: Any) -> Any:
    """A model from its folder. Weights that are missing are an error, where the libraries would draw them at random."""
    model, info = _reading(folder, lambda path: kind.from_pretrained(path, output_loading_info=True, **options))
    for what in ("missing", "mismatched"):
        if info[f"{what}_keys"]:
            first = sorted(map(str, info[f"{what}_keys"]))[0]
            count = len(info[f"{what}_keys"])
            raise ValueError(f"{folder}: {count} weights are {what} (such as {first}); it is cut short or of another model")
    return model


def _reading(folder: Path, read: Callable[[str], Any]) -> Any:
    try:
        return read(str(folder))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"{folder}: cannot be read ({_line(error)}); it is incomplete or of another model") from error


def _meta(kind: Any, config: Any) -> Any:
    """A model of a config without its weights: names and sizes alone."""
    with torch.device("meta"):
        return kind.from_config(config) if hasattr(kind, "from_config") else kind(config)


def _check_files(folder: Path, expected: nn.Module) -> None:
    """Raise ValueError where the headers of the weights' files tell that they are cut short or of another model."""
    sizes: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(str(file), framework="pt") as opened:
                sizes |= {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file}: cannot be read ({_line(error)}); it is incomplete or of another model") from error
    if not sizes:
        return  # in another format, which is looked at when it is read
    needed = {name: list(tensor.shape) for name, tensor in expected.state_dict().items()}
    for what, names in (
        ("missing", needed.keys() - sizes.keys()),
        ("mismatched", {name for name, size in needed.items() if sizes.get(name, size) != size}),
    ):
        if names:
            raise ValueError(
                f"{folder}: {len(names)} weights are {what} (such as {min(names)}); it is incomplete or of another model"
            )


def _placed(model: Any, device: torch.device, rung: Rung, groups: Literal["block_level", "leaf_level"]) -> Any:
    """A model on the device, or in the host's memory with hooks that bring it there group by group."""
    if rung.weights != "groups" or device.type == "cpu":
        return model.to(device)
    streams = device.type == "cuda"
    apply_group_offloading(model, device, offload_type=groups, num_blocks_per_group=1, use_stream=streams)
    return model


_WHOLE = ["patch_embed", "time_embedding", "norm_out", "proj_out"]  # few weights on which everything hangs


def _eight_bits(library: Literal["diffusers", "transformers"]) -> Any:
    """What makes a library read the weights of linear layers as integers of 8 bits, each row with its scale."""
    from torchao.quantization import Int8WeightOnlyConfig  # pyright: ignore[reportMissingImports]

    config = Int8WeightOnlyConfig(version=2)
    if library == "diffusers":
        from diffusers import TorchAoConfig

        return TorchAoConfig(config, modules_to_not_convert=_WHOLE)
    from transformers import TorchAoConfig as OfTransformers

    return OfTransformers(config)


def _quantize(transformer: Any) -> None:
    """What `_eight_bits` does on reading, to a transformer that is there."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_  # pyright: ignore[reportMissingImports]

    quantize_(transformer.transformer_blocks, Int8WeightOnlyConfig(version=2))


def _weight_bytes(model: nn.Module, item: int, eight_bits: bool) -> int:
    total = sum(p.numel() for p in model.parameters()) * item
    if eight_bits:
        linear = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.split(".")[0] not in _WHOLE]
        total -= sum(m.weight.numel() * (item - 1) - m.weight.shape[0] * 4 for m in linear)
    return total


def _with_lora(transformer: Any, folder: Path) -> Any:
    """The transformer with a LoRA worked into its weights, so that it costs nothing more."""
    from peft import PeftModel

    return _reading(folder, lambda path: PeftModel.from_pretrained(transformer, path).merge_and_unload(safe_merge=True))


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _identity(*folders: Path) -> str:
    """A hash of what lies in folders; of large files, their sizes and both ends."""
    digest, end = hashlib.sha256(), 1 << 20
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            size = path.stat().st_size
            digest.update(f"{path.relative_to(folder.parent)} {size}\n".encode())
            with path.open("rb") as file:
                digest.update(file.read(end))
                if size > end:
                    file.seek(max(end, size - end))
                    digest.update(file.read())
    return digest.hexdigest()


def guided(prompt: str, guidance: float) -> bool:
    """Whether guidance takes two branches: the empty prompt and the prompt."""
    return guidance != 1 and bool(prompt)


def _write_embedding(file: Path, embedding: Tensor, prompt: str) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
        pass
    try:
        save_file({"embedding": embedding.contiguous()}, part.name, {"prompt": prompt})
        os.replace(part.name, file)
    finally:
        Path(part.name).unlink(missing_ok=True)


def _grouping(tokens: Tokens, rule: Rule) -> Tokens:
    """Tokens as the predicate is to see them here.

    In `cached` the text goes with the target: it runs with every step, and conditions do not see it. Without a window the frame
    decides nothing, so like tokens of all frames may lie together.
    """
    kind, frame = tokens.kind, tokens.frame
    if rule.regime == "cached":
        kind = torch.where(kind == int(Kind.TEXT), int(Kind.TARGET), kind)
    if rule.window is None:
        frame = frame.clamp(max=0)
    return Tokens(kind, frame, tokens.bits)


def _attention(queries: Tokens, keys: Tokens, rule: Rule, execution: Execution) -> Attention:
    """The execution that fits; the plain one where all is visible, which is full attention as diffusers runs it."""
    if len(queries.bits) == len(keys.bits) == 1:
        blocks = attention.Grouped.of(queries, keys, rule).blocks
        if sum((q.stop - q.start) * (k.stop - k.start) for q, k in blocks) == len(queries.kind) * len(keys.kind):
            return cast(Attention, F.scaled_dot_product_attention)
    return attention.prepare(queries, keys, rule, execution, training=torch.is_grad_enabled())


def _places(order: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """An order and its inverse, or None twice where it changes nothing."""
    straight = torch.arange(len(order), device=order.device)
    if bool((order == straight).all()):
        return None, None
    back = torch.empty_like(order)
    back[order] = straight
    return order, back


def _heads(x: Tensor, heads: int) -> Tensor:
    return rearrange(x, "b n (h d) -> b h n d", h=heads)


def _rotated(x: Tensor, heads: int, norm: nn.Module | None, cos: Tensor, sin: Tensor) -> Tensor:
    x = _heads(x, heads)
    return cast(Tensor, apply_rotary_emb(x if norm is None else norm(x), cast(Any, (cos, sin))))
