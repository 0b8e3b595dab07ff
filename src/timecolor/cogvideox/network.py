"""The transformer as a denoiser. Its blocks run as diffusers ships them; ours are an attention processor, the rotary tables and
the frame axis, along which the target is followed by its sketch and its references (TimeColor §3.2).
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from diffusers.models.embeddings import apply_rotary_emb, get_1d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from timecolor import attention
from timecolor.attention import Attention, Execution
from timecolor.cogvideox.memory import Branches
from timecolor.correspondence import Rule, Tokens
from timecolor.denoiser import Conditions
from timecolor.layout import Kind, TokenLayout
from timecolor.rope import Rope, positions
from timecolor.shapes import Float


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
