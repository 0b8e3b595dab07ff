"""Positions of tokens and their rotary tables: modality-disjoint RoPE (TimeColor §3.3), as pure functions."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from timecolor.layout import Kind, TokenLayout
from timecolor.shapes import Float, Int

Scheme = Literal["disjoint", "normal"]


@dataclass(frozen=True, slots=True)
class Rope:
    """How positions are given and turned into angles. The defaults are the published ones.

    scheme: `disjoint` keeps the kinds apart in space; `normal` is the ablation, one continuous time without spatial offsets.
    base: (rows, columns) of the unit of the spatial offset. A larger grid widens the unit to its own size, so ranges stay
        disjoint at every size (the published code rescales positions below 480x720 but not the offsets, and they overlap).
    ranked: reference k sits at t = -(k+1), as published. False = all at t = -1, so their order cannot be seen.
    dims: channels of a head for t, h and w. theta: base of the geometric frequencies of h and w, and of t.
    periods: if given, frequencies of t are 2 pi / period instead. A clip of any length then stays within angles met in
        training, because the largest period divides by all the others.
    """

    scheme: Scheme = "disjoint"
    base: tuple[int, int] = (30, 45)
    ranked: bool = True
    dims: tuple[int, int, int] = (16, 24, 24)
    theta: float = 10_000.0
    periods: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if any(d % 2 or d < 0 for d in self.dims):
            raise ValueError(f"rope dims are {self.dims}; each must be even, since channels turn in pairs")
        if self.periods is not None and len(self.periods) * 2 != self.dims[0]:
            raise ValueError(f"rope has {len(self.periods)} periods for {self.dims[0]} time channels; give {self.dims[0] // 2}")


def positions(layout: TokenLayout, rope: Rope, start: int = 0) -> Int[Tensor, "n 3"]:
    """(t, y, x) of every token; text is at the origin and is not rotated (see `rotary`).

    start: latent frames of the shot that lie before this clip, so that a piece of a shot has the positions of the whole.
    """
    if start and rope.scheme == "normal":
        raise ValueError("normal positions run on from target to sketch to references; a shot cannot be run in pieces with them")
    grid = layout.grid
    unit = (max(rope.base[0], grid.height), max(rope.base[1], grid.width))
    apart = rope.scheme == "disjoint"
    plane = torch.cartesian_prod(torch.arange(grid.height), torch.arange(grid.width)).reshape(-1, 2)

    def frame(t: int, offset: int) -> Tensor:
        shift = torch.tensor(unit) * offset * apart
        return torch.cat([torch.full((len(plane), 1), t), plane + shift], dim=1)

    parts = []
    for span in layout.spans:
        match span.kind:
            case Kind.TEXT:
                parts.append(torch.zeros(layout.text, 3, dtype=torch.long))
            case Kind.TARGET:
                parts += [frame(start + t, 0) for t in range(grid.frames)]
            case Kind.SKETCH:
                behind = 0 if apart else grid.frames
                parts += [frame(start + behind + t, 1) for t in range(grid.frames)]
            case Kind.REFERENCE:
                behind = grid.frames * (1 + layout.sketch) + span.reference
                parts.append(frame(-(span.reference * rope.ranked + 1) if apart else behind, 3))
    return torch.cat(parts)


def rotary(ids: Int[Tensor, "n 3"], rope: Rope, text: int = 0) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """cos and sin of every token and channel, interleaved pairs (x0 x0 x1 x1 ...); the first `text` tokens stay unrotated."""
    angles = []
    for axis, dim in enumerate(rope.dims):
        if axis == 0 and rope.periods is not None:
            speeds = 2 * torch.pi / torch.tensor(rope.periods, dtype=torch.float32)
        else:
            speeds = rope.theta ** (-torch.arange(0, dim, 2, dtype=torch.float32) / max(dim, 1))
        angles.append(ids[:, axis, None].float() * speeds)
    table = torch.cat(angles, dim=1).repeat_interleave(2, dim=1)
    table[:text] = 0
    return table.cos(), table.sin()


def apply_rope(
    x: Float[Tensor, "b heads n d"], cos: Float[Tensor, "n d"], sin: Float[Tensor, "n d"]
) -> Float[Tensor, "b heads n d"]:
    """Turn each pair of channels of queries or keys by the angle of its token."""
    turned = torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)
