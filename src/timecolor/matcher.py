"""A small network that knows the parts of a drawing again in a reference: descriptions of line art, alike for like parts.

Not in the TimeColor paper. Paint bucket colorization learns to match closed segments (BasicPBC, Dai et al. 2024); this describes
every second pixel, so that nothing need be closed, and is asked through a softmax over a reference's places, as the embedded
model's pointer is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timecolor.shapes import Bool, Float

STRIDE = 2  # pixels to a described place
# Pixels around an area that are looked at too; a multiple of the stride. With fewer, maps at stride 16 may be one column wide,
# and the gradient of what follows is wrong in bfloat16 on a CPU (docs/trials.md).
AROUND = 16
INPUTS = 2  # lines, and the area that they are of
HEADS = 4
AT_ONCE = 64  # pictures that go through the network together at most: on a GPU their number is filled up to a power of two
WAVES = 4  # by which attention is told where in its picture a token is, an axis


@dataclass(frozen=True, slots=True)
class MatcherConfig:
    """widths: channels at strides 2, 4, 8 ...; describe: numbers to a place.

    attention: layers of it among cells one stride above the deepest.
    refined: whether maps between the deepest and the finest have a residual block more and describe places themselves too.
    boxes: pixels of which the sides of the boxes around areas are whole ones, as far as a picture goes. With 48 few sizes are
    met, so more pictures go through the network at once; one that learned so is worse in boxes that are exact (docs/trials.md).
    """

    widths: tuple[int, ...] = (32, 64, 128, 192, 256)
    describe: int = 64
    attention: int = 0
    refined: bool = False
    boxes: int = 1


class Described(NamedTuple):
    """A picture's descriptions, and the tokens that others may look at, of each layer of attention: none where it is blank."""

    places: Float[Tensor, "d y x"]
    tokens: Float[Tensor, "layers n c"]


class Others(NamedTuple):
    """Tokens that pictures may look at beside their own. there: where there are any; None = everywhere."""

    tokens: Float[Tensor, "b layers m c"]
    there: Bool[Tensor, "b m"] | None


class Matcher(nn.Module):
    """A U-Net over line art. The same network reads drawing and reference.

    One stride above the deepest its cells are tokens: those of a picture look at one another, and those of a drawing at its
    references' too. References never look at the drawing, so they are described once a shot.

    scale: of the cosine between two descriptions, in the softmax. nothing: the description of "in no reference".
    """

    def __init__(self, config: MatcherConfig = MatcherConfig()) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = _Conv(INPUTS * STRIDE**2, widths[0])
        self.down = nn.ModuleList(nn.Sequential(_Conv(a, b, 2), _Residual(b)) for a, b in pairwise(widths))
        ups = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in ups)
        self.join = nn.ModuleList(_Conv(b, b) for _, b in ups)
        self.attention = nn.ModuleList(_Attention(widths[-2]) for _ in range(config.attention))
        between = widths[-2:0:-1] if config.refined else ()
        self.refine = nn.ModuleList(_Residual(b, silent=True) for b in between)
        coarse = [nn.Conv2d(b, config.describe, 1, bias=False) for b in between]
        for head in coarse:
            nn.init.zeros_(head.weight)
        self.coarse = nn.ModuleList(coarse)
        self.head = nn.Conv2d(widths[0], config.describe, 1)
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.nothing = nn.Parameter(torch.randn(config.describe))
        self.nothing_bias = nn.Parameter(torch.zeros(()))

    def forward(
        self, drawings: Float[Tensor, "b 2 h w"], others: Others | None = None
    ) -> tuple[Float[Tensor, "b d y x"], Float[Tensor, "b layers n c"]]:
        """Descriptions at every `STRIDE`-th pixel, and tokens of each layer.

        drawings: darkness of lines and the area, in [0, 1]. others: tokens of what they are compared with.
        """
        h, w = drawings.shape[-2:]
        padded = F.pad(drawings, (0, w % STRIDE, 0, h % STRIDE))
        x = self.stem(F.pixel_unshuffle(padded, STRIDE))
        seen = []
        for down in self.down:
            seen.append(x)
            x = down(x)
        tokens, described = x.new_zeros(len(x), 0, 0, self.config.widths[-2]), None
        for i, (up, join) in enumerate(zip(self.up, self.join, strict=True)):
            beside = seen.pop()
            x = join(beside + _widened(up(x), beside))
            if not i and self.attention:
                x, tokens = self._attended(x, others)
            if i < len(self.refine):
                x = self.refine[i](x)
                coarse = self.coarse[i](x)
                described = coarse if described is None else coarse + _widened(described, coarse)
        found = self.head(x)
        return found if described is None else found + _widened(described, found), tokens

    def _attended(
        self, x: Float[Tensor, "b c y x"], others: Others | None
    ) -> tuple[Float[Tensor, "b c y x"], Float[Tensor, "b layers n c"]]:
        own, where, tokens = x.flatten(2).mT, _waves(*x.shape[2:]).to(x), []
        for i, layer in enumerate(self.attention):
            theirs, there = (None, None) if others is None else (others.tokens[:, i], others.there)
            own, shown = layer(own, where, theirs, there)
            tokens.append(shown)
        return own.mT.unflatten(2, x.shape[2:]), torch.stack(tokens, dim=1)

    def of_area(self, picture: Float[Tensor, "2 h w"], references: Sequence[Described] = ()) -> Described:
        """What `forward` finds of one picture, worked out where its area lies; descriptions are 0 elsewhere."""
        return self.of_areas(picture[None], [references])[0]

    def of_areas(self, pictures: Float[Tensor, "b 2 h w"], references: Sequence[Sequence[Described]]) -> list[Described]:
        """`of_area` of each picture with its own references; boxes of one size go through the network at once."""
        h, w = pictures.shape[2:]
        nowhere = pictures.new_zeros(self.config.describe, -(-h // STRIDE), -(-w // STRIDE))
        blank = Described(nowhere, pictures.new_zeros(len(self.attention), 0, self.config.widths[-2]))
        found = [blank] * len(pictures)
        for (height, width), all_members in _boxes(pictures[:, 1] > 0, self.config.boxes).items():
            for members in (all_members[at : at + AT_ONCE] for at in range(0, len(all_members), AT_ONCE)):
                if pictures.is_cuda:  # its library plans convolutions for every shape it meets, which takes longer than they do
                    members += members[:1] * ((1 << (len(members) - 1).bit_length()) - len(members))
                cut = torch.stack([pictures[i, :, y : y + height, x : x + width] for i, y, x in members])
                places, tokens = self(cut, _together([[blank, *references[i]] for i, _, _ in members]))
                rows, columns = places.shape[2:]
                # Unbound: the gradient of one taken out by its number is as large as all together.
                for (i, y, x), described, shown in zip(members, places.unbind(), tokens.unbind(), strict=True):
                    top, left = y // STRIDE, x // STRIDE
                    around = (left, nowhere.shape[2] - left - columns, top, nowhere.shape[1] - top - rows)
                    found[i] = Described(F.pad(described, around), shown)
        return found

    def likeness(self, queries: Float[Tensor, "b q d"], keys: Float[Tensor, "b k d"]) -> tuple[Tensor, Tensor]:
        """How like each place is to each of a reference's (b q k), and to none of them (b q), against the likest, which has 1.

        A reference's mean over its places is to be compared with "none", so that it does not matter how densely it is described.
        """
        with torch.autocast(queries.device.type, enabled=False):
            queries, keys = F.normalize(queries.float(), dim=2), F.normalize(keys.float(), dim=2)
            scale, nothing = self.scale.float().exp(), F.normalize(self.nothing.float(), dim=0)
            fits, none = scale * (queries @ keys.mT), scale * (queries @ nothing) + self.nothing_bias.float()
            most = torch.maximum(fits.amax(2), none).detach()
            return (fits - most[..., None]).exp(), (none - most).exp()

    def told(
        self, queries: Float[Tensor, "q d"], keys: Float[Tensor, "k d"], values: Float[Tensor, "k v"]
    ) -> Float[Tensor, "q v"]:
        """What the values of the places like it come to, for each place: their mean by `likeness`, "nothing" having none.

        One attention, with "nothing" as a further key, so the likeness of all pairs is never kept.
        """
        with torch.autocast(queries.device.type, enabled=False):
            ones = queries.new_ones(len(queries), 1, dtype=torch.float32)
            asks = torch.cat([self.scale.float().exp() * F.normalize(queries.float(), dim=1), ones], dim=1)
            shown = F.normalize(torch.cat([keys.float(), self.nothing.float()[None]]), dim=1)
            bias = torch.cat([ones.new_full((len(keys),), -math.log(len(keys))), self.nothing_bias.float()[None]])
            shown = torch.cat([shown, bias[:, None]], dim=1)
            wide = -(-max(shown.shape[1], values.shape[1]) // 8) * 8  # of all three, or the pairs would be kept
            q, k, v = (F.pad(x, (0, wide - x.shape[1])) for x in (asks, shown, F.pad(values.float(), (0, 0, 0, 1))))
            told = F.scaled_dot_product_attention(q[None, None], k[None, None], v[None, None], scale=1.0)
            return told[0, 0, :, : values.shape[1]]


class _Conv(nn.Module):
    """3 by 3; the weights are one matrix, as Muon wants them."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.randn(outputs, inputs * 9) * (inputs * 9) ** -0.5)
        self.norm = nn.GroupNorm(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x, norm = F.conv2d(x, self.weight.unflatten(1, (-1, 3, 3)), None, self.stride, 1), self.norm
        # On a GPU autocast would have it in float32, in which it is not used, and a fifth fewer pairs in its memory.
        with torch.autocast(x.device.type, enabled=False):
            return F.silu(F.group_norm(x, norm.num_groups, norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps))


class _Residual(nn.Module):
    """silent: whether it adds nothing before it is trained."""

    def __init__(self, width: int, silent: bool = False) -> None:
        super().__init__()
        self.first, self.second = _Conv(width, width), _Conv(width, width)
        if silent:
            nn.init.zeros_(self.second.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class _Attention(nn.Module):
    """Tokens look at those of their own picture and at others. Adds nothing before it is trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.where = nn.Linear(4 * WAVES, width, bias=False)
        self.theirs = nn.Parameter(torch.zeros(width))
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width, bias=False)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.narrow.weight)

    def forward(
        self,
        own: Float[Tensor, "b n c"],
        where: Float[Tensor, "n w"],
        theirs: Float[Tensor, "b m c"] | None,
        there: Bool[Tensor, "b m"] | None,
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
        """The tokens as they leave, and as others may see them. theirs, there: see `Others`."""
        shown = self.norm(own) + self.where(where)
        seen = shown if theirs is None else torch.cat([shown, theirs + self.theirs], dim=1)
        looks = ((self.query, shown), (self.key, seen), (self.value, seen))
        q, k, v = (look(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for look, x in looks)
        mask = None if there is None else torch.cat([there.new_ones(own.shape[:2]), there], dim=1)[:, None, None]
        own = own + self.out(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))
        return own + self.narrow(F.silu(self.wide(self.after(own)))), shown


def _together(references: Sequence[Sequence[Described]]) -> Others:
    """What each picture of a batch may look at, filled up to the same number."""
    each = [torch.cat([r.tokens for r in own], dim=1) for own in references]
    counts = torch.tensor([tokens.shape[1] for tokens in each])
    most = int(counts.max())
    there = torch.arange(most) < counts[:, None]
    filled = torch.stack([F.pad(tokens, (0, 0, 0, most - tokens.shape[1])) for tokens in each])
    return Others(filled, None if bool(there.all()) else there.to(filled.device))


def _boxes(areas: Bool[Tensor, "b h w"], multiple: int) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
    """By height and width, whose boxes they are of, and their tops and left sides. Those without an area have none."""
    found: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    sides = [areas.any(axis).cpu().numpy() for axis in (2, 1)]
    for i, of_one in enumerate(zip(*sides, strict=True)):
        if of_one[0].any():
            (y, height), (x, width) = (_span(along, multiple) for along in of_one)
            found.setdefault((height, width), []).append((i, y, x))
    return found


def _span(along: np.ndarray, multiple: int) -> tuple[int, int]:
    """Where a box begins along an axis, and its length."""
    at = along.nonzero()[0]
    low = max(int(at[0]) - AROUND, 0) // STRIDE * STRIDE
    end = min(int(at[-1]) + 1 + AROUND, len(along))
    length = min(-(-(end - low) // multiple) * multiple, len(along))
    return min(low, (len(along) - length) // STRIDE * STRIDE), length


def _widened(x: Float[Tensor, "b c y x"], to: Float[Tensor, "b d rows columns"]) -> Float[Tensor, "b c rows columns"]:
    return F.interpolate(x, size=to.shape[-2:], mode="bilinear")


def _waves(rows: int, columns: int) -> Float[Tensor, "n w"]:
    """Where in its picture each cell is: sines and cosines of 1 to `WAVES` half turns across it, row by row."""
    turns = torch.arange(1, WAVES + 1) * torch.pi
    y, x = ((torch.arange(n)[:, None] + 0.5) / n * turns for n in (rows, columns))
    axes = [torch.cat([a.sin(), a.cos()], dim=1) for a in (y, x)]
    return torch.cat([axes[0].repeat_interleave(columns, dim=0), axes[1].repeat(rows, 1)], dim=1)
