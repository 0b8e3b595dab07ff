"""The embedded denoiser: a small diffusion transformer over one sequence of target, sketch and references.

The clearest reading of TimeColor in code. Nothing in it counts references, and a block does not know what a token is:
tokens, positions and visibility are settled before the first block (§3.2-3.4), and only the target is predicted.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from timecolor import attention
from timecolor.attention import Attention
from timecolor.correspondence import Tokens, shot_tokens, unlabelled
from timecolor.denoiser import Conditions
from timecolor.geometry import Grid
from timecolor.layout import TokenLayout
from timecolor.rope import Rope, apply_rope, positions, rotary
from timecolor.shapes import Float

# Angles of time repeat after 64 frames, so no shot is too long; offsets in space are constant up to 48 x 48 tokens.
TOON_ROPE = Rope(base=(48, 48), ranked=False, dims=(8, 12, 12), theta=100.0, periods=(2, 4, 8, 64))


@dataclass(frozen=True, slots=True)
class ToonConfig:
    """Sizes of the model.

    channels: of target latents. cell: pixels along the side of a token at the working size. pointer: colours may be taken
    from the references as they are (see `Pointer`). hints: colours may be taken from hints (see `Chooser`).
    """

    width: int = 128
    layers: int = 6
    heads: int = 4
    channels: int = 3
    patch: int = 2
    cell: int = 8
    pointer: bool = True
    hints: bool = False
    sketch_channels: int = 3
    reference_channels: int = 4
    rope: Rope = TOON_ROPE

    def __post_init__(self) -> None:
        if self.pointer and self.channels != 3:
            raise ValueError(f"channels is {self.channels}; the pointer takes colours, which have 3")
        if sum(self.rope.dims) * self.heads != self.width:
            made = f"{self.heads} heads of {sum(self.rope.dims)}"
            raise ValueError(f"width is {self.width}; {made} need {self.heads * sum(self.rope.dims)}")


@dataclass(slots=True)
class ToonCache:
    """Per shot: what every step shares.

    keys, values: per layer, (b heads n d), the target's slots first and rewritten at each step. order: sequence position ->
    token, sorted for the grouped execution. embedded: `joint` only, the condition tokens, which every step runs anew.
    """

    conditions: Conditions
    order: Tensor
    cos: Tensor
    sin: Tensor
    attend: Attention
    keys: list[Tensor]
    values: list[Tensor]
    embedded: Tensor | None = None
    pointing: "Pointing | None" = None
    offered: "Offered | None" = None


def patchify(latents: Float[Tensor, "b f c h w"], patch: int) -> Float[Tensor, "b n d"]:
    """Cut latents into tokens, frame by frame, row by row (inverse: `unpatchify`)."""
    return rearrange(latents, "b f c (h p) (w q) -> b (f h w) (c p q)", p=patch, q=patch)


def unpatchify(tokens: Float[Tensor, "b n d"], layout: TokenLayout, patch: int) -> Float[Tensor, "b f c h w"]:
    """Put tokens back into latents."""
    grid = layout.grid
    return rearrange(tokens, "b (f h w) (c p q) -> b f c (h p) (w q)", f=grid.frames, h=grid.height, p=patch, q=patch)


class Stem(nn.Module):
    """Line art or a coloured picture to tokens, by convolutions that look a little beyond a token's own pixels."""

    def __init__(self, channels: int, width: int, cell: int) -> None:
        super().__init__()
        halvings = int(math.log2(cell))
        if 2**halvings != cell:
            raise ValueError(f"cell is {cell}; use a power of 2")
        widths = [channels, *(max(32, width >> (halvings - 1 - i)) for i in range(halvings - 1)), width]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))

    def forward(self, pictures: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b n d"]:
        x = pictures.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        for i, convolution in enumerate(self.convolutions):
            x = convolution(F.gelu(x) if i else x)
        return rearrange(x, "(b f) d h w -> b (f h w) d", b=len(pictures))


class Block(nn.Module):
    """Attention and MLP, each scaled, shifted and gated by the timestep."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.to_qkv = nn.Linear(width, 3 * width)  # the bias lets a head look at a place, whatever is there
        self.norm_q, self.norm_k = _gains(width // heads, 1.3)
        self.to_out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.offset = nn.Parameter(torch.zeros(6 * width))  # this block's own part of the shared modulation

    def qkv(self, x: Tensor, modulation: list[Tensor], cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens, (b heads n d) each."""
        shift, scale = modulation[0], modulation[1]
        q, k, v = rearrange(self.to_qkv(self.norm1(x) * (1 + scale) + shift), "b n (s h d) -> s b h n d", s=3, h=self.heads)
        return apply_rope(_unit(q, self.norm_q), cos, sin), apply_rope(_unit(k, self.norm_k), cos, sin), v

    def finish(self, x: Tensor, attended: Tensor, modulation: list[Tensor]) -> Tensor:
        """The tokens after attention's result and the MLP are added."""
        _, _, gate1, shift, scale, gate2 = modulation
        x = x + gate1 * self.to_out(rearrange(attended, "b h n d -> b n (h d)"))
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale) + shift)


@dataclass(slots=True)
class Pointing:
    """What the pointer looks at. colours: of the references' latents, (b m 3). keys: (b 1 1+m d), once they are known."""

    attend: Attention
    colours: Tensor
    cos: Tensor
    sin: Tensor
    keys: Tensor | None = None


class Pointer(nn.Module):
    """Colours taken from the references as they are: every target latent points at latents of the references it may see.

    A key of its own, which all see, stands for "none of them"; its weight is what the generated colour gets. So colours come
    out as mixtures of real ones, and a shot without references is generated. Not in the paper, whose decoder has to repaint
    every colour.
    """

    def __init__(self, width: int, slots: int, head: int) -> None:
        super().__init__()
        self.slots = slots
        self.to_q = nn.Linear(width, slots * head)
        self.to_k = nn.Linear(width, slots * head)
        self.norm_q, self.norm_k = _gains(head, 2.0)
        self.none = nn.Parameter(torch.zeros(head))

    def keys(self, references: Float[Tensor, "b n d"], to: Pointing) -> Float[Tensor, "b 1 m e"]:
        """Keys of "none" and of the references' final tokens."""
        k = rearrange(self.to_k(references), "b n (s e) -> b 1 (n s) e", s=self.slots)
        k = apply_rope(_unit(k, self.norm_k), to.cos, to.sin)
        return torch.cat([self.none.to(k.dtype).expand(len(k), 1, 1, -1), k], dim=2)

    def forward(
        self, target: Float[Tensor, "b n d"], generated: Float[Tensor, "b n c"], to: Pointing, cos: Tensor, sin: Tensor
    ) -> Float[Tensor, "b n c"]:
        """Colours of the target's tokens, channels first as `patchify` lays them."""
        q = rearrange(self.to_q(target), "b n (s e) -> b 1 (n s) e", s=self.slots)
        q = apply_rope(_unit(q, self.norm_q), cos, sin)
        assert to.keys is not None  # set before: once a shot when cached, else from the tokens just run
        k = to.keys
        # Values: three colours and, for "none", its weight; filled up to the width that fast kernels want.
        v = torch.zeros_like(k)
        v[:, 0, 1:, :3] = to.colours
        v[:, 0, 0, 3] = 1
        found = rearrange(to.attend(q, k, v)[:, 0, :, :4], "b (n s) c -> b n c s", s=self.slots)
        made = rearrange(generated, "b n (c s) -> b n c s", s=self.slots)
        return rearrange(found[:, :, :3] + found[:, :, 3:] * made, "b n c s -> b n (c s)")


@dataclass(slots=True)
class Offered:
    """What the chooser chooses from, for each of the target's tokens and its s latents.

    keys: (b k n s e). colours: (b k n s 3). there: bool (b k n), the hint exists and its reference may be seen.
    """

    keys: Tensor
    colours: Tensor
    there: Tensor

    def __getitem__(self, order: Tensor) -> "Offered":
        return Offered(self.keys[:, :, order], self.colours[:, :, order], self.there[:, :, order])


class Chooser(nn.Module):
    """The model's own colour, or that of a hint in its very place: a weighted mean, latent by latent.

    A hint's key tells how well its lines lie on the sketch's. Nothing is learned for a hint of its own, so any number may be
    offered, in any order. Not in the paper.
    """

    def __init__(self, channels: int, width: int, slots: int, head: int, cell: int) -> None:
        super().__init__()
        self.slots = slots
        self.stem = Stem(channels, width, cell)
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, slots * head)
        self.to_k = nn.Linear(width, slots * head)
        self.norm_q, self.norm_k = _gains(head, 2.0)
        self.own = nn.Parameter(torch.zeros(head))

    def keys(self, hints: Float[Tensor, "b f k c h w"], sketch: Float[Tensor, "b f 3 h w"]) -> Float[Tensor, "b k n s e"]:
        """Keys of hints seen beside the sketch they lie on."""
        count = hints.shape[2]
        both = torch.cat([hints, sketch[:, :, None].expand(-1, -1, count, -1, -1, -1)], dim=3)
        found = self.to_k(self.norm(self.stem(rearrange(both, "b f k c h w -> (b k) f c h w"))))
        return _unit(rearrange(found, "(b k) n (s e) -> b k n s e", k=count, s=self.slots), self.norm_k)

    def forward(self, target: Float[Tensor, "b n d"], own: Float[Tensor, "b n c"], offered: Offered) -> Float[Tensor, "b n c"]:
        """Colours of the target's tokens, channels first as `patchify` lays them."""
        q = _unit(rearrange(self.to_q(target), "b n (s e) -> b n s e", s=self.slots), self.norm_q) * self.own.numel() ** -0.5
        logits = (q[:, None] * offered.keys).sum(-1).float().masked_fill(~offered.there[..., None], -torch.inf)
        weights = torch.cat([(q * self.own.to(q.dtype)).sum(-1).float()[:, None], logits], dim=1).softmax(dim=1).to(own.dtype)
        mine = rearrange(own, "b n (c s) -> b 1 n s c", s=self.slots)
        chosen = (weights[..., None] * torch.cat([mine, offered.colours.to(own.dtype)], dim=1)).sum(1)
        return rearrange(chosen, "b n s c -> b n (c s)")


class Toon(nn.Module):
    """The embedded denoiser. Predicts the clean target (x0); conditions are modulated at t = 0 in the `cached` regime."""

    def __init__(self, config: ToonConfig = ToonConfig()) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed_target = nn.Linear(config.channels * config.patch**2, width)
        self.embed_sketch = Stem(config.sketch_channels, width, config.cell)
        self.embed_reference = Stem(config.reference_channels, width, config.cell)
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.final_modulation = nn.Linear(width, 2 * width)
        self.final = nn.Linear(width, config.channels * config.patch**2)
        self.pointer = Pointer(width, config.patch**2, width // config.heads) if config.pointer else None
        self.chooser = (
            Chooser(
                config.reference_channels + config.sketch_channels, width, config.patch**2, width // config.heads, config.cell
            )
            if config.hints
            else None
        )
        for layer in (self.modulation, self.final_modulation, self.final):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def prepare(self, conditions: Conditions) -> ToonCache:
        """Embed the conditions and, in the `cached` regime, run them through all blocks once."""
        layout, rule = conditions.layout, conditions.rule
        tokens = conditions.tokens.to(conditions.sketch.device)
        device = tokens.kind.device
        sort = len(tokens.bits) == 1 and not torch.is_grad_enabled()
        order = attention.sort_order(tokens) if sort else torch.arange(layout.tokens, device=device)
        tokens = tokens[order]
        cos, sin = rotary(positions(layout, self.config.rope, conditions.start).to(device)[order], self.config.rope)
        split = layout.target.stop  # the sort never moves a token out of its kind and frame
        x = torch.cat([self.embed_sketch(conditions.sketch), self.embed_reference(conditions.references)], dim=1)
        x = x[:, order[split:] - split]
        pointing = self._pointing(conditions, tokens, cos, sin)
        offered = self._offered(conditions)
        offered = None if offered is None else offered[order[:split]]
        if rule.regime == "joint":
            attend = attention.prepare(tokens, tokens, rule, conditions.execution)
            return ToonCache(conditions, order, cos, sin, attend, [], [], x, pointing, offered)

        attend = attention.prepare(tokens[layout.conditions], tokens[layout.conditions], rule, conditions.execution)
        shared = self.modulation(self.time(_waves(torch.zeros(len(x), device=device)).to(x.dtype)))
        keys, values = [], []
        for block in self._layers():
            modulation = _parts(shared + block.offset)
            q, k, v = block.qkv(x, modulation, cos[split:], sin[split:])
            slots = k.new_empty(k.shape[0], k.shape[1], split, k.shape[3])
            keys.append(torch.cat([slots, k], dim=2))
            values.append(torch.cat([slots, v], dim=2))
            x = block.finish(x, attend(q, k, v), modulation)
        if self.pointer is not None and pointing is not None:
            pointing.keys = self.pointer.keys(self.norm(x[:, layout.grid.tokens :]), pointing)
        attend = attention.prepare(tokens[layout.target.slice], tokens, rule, conditions.execution)
        return ToonCache(conditions, order, cos, sin, attend, keys, values, None, pointing, offered)

    def predict(self, latents: Float[Tensor, "b f c h w"], timestep: Float[Tensor, " b"], cache: ToonCache) -> Tensor:
        """Clean latents (b f c h w). `cached`: only the target's tokens run, against the cache's keys and values."""
        layout = cache.conditions.layout
        split = layout.target.stop
        order = cache.order[:split]
        x = self.embed_target(patchify(latents, self.config.patch))[:, order]
        emb = self.time(_waves(timestep).to(x.dtype))
        shared = self.modulation(emb)
        if cache.embedded is not None:
            x = torch.cat([x, cache.embedded], dim=1)
        cos, sin = cache.cos[: x.shape[1]], cache.sin[: x.shape[1]]
        for i, block in enumerate(self._layers()):
            modulation = _parts(shared + block.offset)
            q, k, v = block.qkv(x, modulation, cos, sin)
            if cache.embedded is None:
                cache.keys[i][:, :, :split], cache.values[i][:, :, :split] = k, v
                k, v = cache.keys[i], cache.values[i]
            x = block.finish(x, cache.attend(q, k, v), modulation)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        colours = self._colours(x, emb, layout, cache.pointing, cache.offered, cos, sin)
        return unpatchify(colours[:, back], layout, self.config.patch)

    def forward(self, latents: Float[Tensor, "b f c h w"], timestep: Float[Tensor, " b"], conditions: Conditions) -> Tensor:
        """What `prepare` and `predict` give, in one differentiable pass over the whole sequence; for training."""
        layout, rule = conditions.layout, conditions.rule
        tokens = conditions.tokens.to(latents.device)
        split = layout.target.stop
        cos, sin = rotary(positions(layout, self.config.rope, conditions.start).to(latents.device), self.config.rope)
        attend = attention.prepare(tokens, tokens, rule, conditions.execution, training=True)
        pointing = self._pointing(conditions, tokens, cos, sin, training=True)
        target = self.embed_target(patchify(latents, self.config.patch))
        x = torch.cat([target, self.embed_sketch(conditions.sketch), self.embed_reference(conditions.references)], dim=1)
        emb = self.time(_waves(timestep).to(target.dtype))
        at_target = self.modulation(emb)
        at_rest = (
            self.modulation(self.time(_waves(torch.zeros_like(timestep)).to(target.dtype)))
            if rule.regime == "cached"
            else at_target
        )
        for block in self._layers():
            pairs = zip(_parts(at_target + block.offset), _parts(at_rest + block.offset), strict=True)
            modulation = [torch.cat([a.expand(-1, split, -1), b.expand(-1, x.shape[1] - split, -1)], dim=1) for a, b in pairs]
            q, k, v = block.qkv(x, modulation, cos, sin)
            x = block.finish(x, attend(q, k, v), modulation)
        colours = self._colours(x, emb, layout, pointing, self._offered(conditions), cos, sin)
        return unpatchify(colours, layout, self.config.patch)

    def _layers(self) -> list[Block]:
        return cast(list[Block], list(self.blocks))

    def _colours(
        self,
        x: Tensor,
        emb: Tensor,
        layout: TokenLayout,
        pointing: Pointing | None,
        offered: Offered | None,
        cos: Tensor,
        sin: Tensor,
    ) -> Tensor:
        """Clean colours of the target's tokens from the last block's output: the target's tokens, or the whole sequence."""
        shift, scale = self.final_modulation(emb)[:, None].chunk(2, dim=-1)
        normed = self.norm(x)
        split = layout.target.stop
        colours = self.final(normed[:, :split] * (1 + scale) + shift)
        if self.pointer is not None and pointing is not None:
            if x.shape[1] > split:  # the references' tokens have just been run along
                pointing.keys = self.pointer.keys(normed[:, split + layout.grid.tokens :], pointing)
            slots = self.pointer.slots
            turn = (cos[:split].repeat_interleave(slots, 0), sin[:split].repeat_interleave(slots, 0))
            colours = self.pointer(normed[:, :split], colours, pointing, *turn)
        if self.chooser is not None and offered is not None:
            colours = self.chooser(normed[:, :split], colours, offered)
        return colours

    def _offered(self, conditions: Conditions) -> Offered | None:
        """Keys, colours and visibility of the hints; a few frames at a time where no gradient is wanted: they are pixels."""
        hints, of = conditions.hints, conditions.hint_of
        if self.chooser is None or hints is None or of is None or not hints.shape[2]:
            return None
        config, split = self.config, conditions.layout.target.stop
        at_once = hints.shape[1] if torch.is_grad_enabled() else 8
        parts = [slice(i, i + at_once) for i in range(0, hints.shape[1], at_once)]
        keys = torch.cat([self.chooser.keys(hints[:, part], conditions.sketch[:, part]) for part in parts], dim=2)
        bits = conditions.tokens.bits[:, None, :split].to(hints.device)
        of = of.to(hints.device)[..., None]
        there = (of >= 0) & ((bits >> of.clamp(min=0)) & 1).bool()
        colours = rearrange(
            self._mean_colours(hints), "b f k c (h p) (w q) -> b k (f h w) (p q) c", p=config.patch, q=config.patch
        )
        return Offered(keys, colours, there)

    def _mean_colours(self, pictures: Float[Tensor, "... c h w"]) -> Float[Tensor, "... 3 y x"]:
        """The colours of pictures, one per target latent."""
        shrunk = F.avg_pool2d(pictures[..., :3, :, :].flatten(0, -4), self.config.cell // self.config.patch)
        return shrunk.view(*pictures.shape[:-3], *shrunk.shape[1:])

    def _pointing(
        self, conditions: Conditions, tokens: Tokens, cos: Tensor, sin: Tensor, training: bool = False
    ) -> Pointing | None:
        """Who may point at what: the predicate again, for each latent of a token, with "none" as a text token before the keys."""
        if self.pointer is None:
            return None
        layout, slots = conditions.layout, self.pointer.slots
        start = layout.target.stop + layout.grid.tokens  # tokens of references keep their order when sorted
        latents = torch.arange(slots * layout.tokens, device=cos.device) // slots
        queries, found = tokens[latents[: slots * layout.target.stop]], tokens[latents[slots * start :]]
        none = shot_tokens(TokenLayout(Grid(1, 1, 1), 0, sketch=False, text=1), unlabelled(Grid(1, 1, 1)))[:1].to(cos.device)
        bits = torch.cat([none.bits.expand(len(found.bits), -1), found.bits], dim=1)
        keys = Tokens(torch.cat([none.kind, found.kind]), torch.cat([none.frame, found.frame]), bits)
        attend = attention.prepare(queries, keys, conditions.rule, conditions.execution, training)
        shrunk = self._mean_colours(conditions.references)
        colours = rearrange(shrunk, "b r c (h p) (w q) -> b (r h w p q) c", p=self.config.patch, q=self.config.patch)
        turn = (cos[start:].repeat_interleave(slots, 0), sin[start:].repeat_interleave(slots, 0))
        return Pointing(attend, colours, *turn)


def _gains(channels: int, gain: float) -> tuple[nn.RMSNorm, nn.RMSNorm]:
    """Norms of queries and keys. They bound a logit by gain^2 sqrt(channels), so the gain decides how sharply a head can look."""
    norms = nn.RMSNorm(channels, eps=1e-6), nn.RMSNorm(channels, eps=1e-6)
    for norm in norms:
        nn.init.constant_(norm.weight, gain)
    return norms


def _unit(x: Tensor, norm: nn.RMSNorm) -> Tensor:
    """RMS norm in the dtype of its input, where autocast would mix two."""
    return F.rms_norm(x, x.shape[-1:], norm.weight.to(x.dtype), norm.eps)


def _parts(modulation: Float[Tensor, "b d"]) -> list[Tensor]:
    """shift, scale, gate of attention, then of the MLP; (b 1 d) each."""
    return list(modulation[:, None].chunk(6, dim=-1))


def _waves(timestep: Float[Tensor, " b"], channels: int = 64) -> Float[Tensor, "b c"]:
    """Sinusoidal features of t in [0, 1]."""
    speeds = torch.exp(torch.linspace(0, math.log(1000.0), channels // 2, device=timestep.device))
    angles = timestep.float()[:, None] * speeds
    return torch.cat([angles.cos(), angles.sin()], dim=1)
