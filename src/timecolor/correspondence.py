"""Which token may look at which: correspondence-masked attention (TimeColor §3.4) as ONE predicate.

A target or sketch token carries the set of references it may see, as bits; a reference token carries its own bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from timecolor.geometry import Compression, Grid
from timecolor.layout import Kind, TokenLayout
from timecolor.shapes import Bool, Int

Regime = Literal["joint", "cached"]
CellRule = Literal["coverage", "majority"]
ALL = -1  # every bit set
MOST_REFERENCES = 62  # bits of a non-negative int64


@dataclass(frozen=True, slots=True)
class Rule:
    """The terms under which tokens may look at one another.

    regime: `joint` is the published rule. `cached` adds one clause: no token looks at a later kind (text < reference < sketch <
        target), so keys and values of the conditions do not depend on the noise and are computed once per shot, and those of
        the references do not even depend on the shot.
    window: a target or sketch token sees target and sketch frames at most this many latent frames away. None = all frames.
        References are always in sight.
    """

    regime: Regime = "joint"
    window: int | None = None

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 0:
            raise ValueError(f"window is {self.window}; give 0 or more frames, or None for all")


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the predicate knows of tokens.

    kind: `Kind`. frame: latent frame, -1 for text and references. bits: references that may be seen (the own bit for a
    reference's tokens, all bits for text). Shapes (n) or, for bits, (b n).
    """

    kind: Tensor
    frame: Tensor
    bits: Tensor

    def __getitem__(self, index: slice | Tensor) -> "Tokens":
        return Tokens(self.kind[index], self.frame[index], self.bits[..., index])

    def to(self, device: torch.device | str) -> "Tokens":
        """The same on another device."""
        return Tokens(self.kind.to(device), self.frame.to(device), self.bits.to(device))


def may_attend(q: Tokens, k: Tokens, rule: Rule) -> Bool[Tensor, "..."]:
    """The predicate, elementwise: shapes of `q` and `k` broadcast.

    A pair that involves a reference's token as the key needs a shared bit; target and sketch see each other within the window;
    all else is open (a reference sees all of target and sketch, as published, unless the regime forbids it).
    """
    visible = (k.kind != int(Kind.REFERENCE)) | ((q.bits & k.bits) != 0)
    if rule.window is not None:
        untimed = (q.frame < 0) | (k.frame < 0)
        visible = visible & (untimed | ((q.frame - k.frame).abs() <= rule.window))
    if rule.regime == "cached":
        visible = visible & (k.kind <= q.kind)
    return visible


def shot_tokens(layout: TokenLayout, bits: Int[Tensor, "b target"]) -> Tokens:
    """Tokens of a whole sequence whose target may see the references of `bits`; a sketch token sees what the target there does.

    Raises ValueError for more references than there are bits.
    """
    if layout.references > MOST_REFERENCES:
        raise ValueError(f"shot has {layout.references} references; at most {MOST_REFERENCES} are supported")
    rows = []
    for span in layout.spans:
        if span.kind in (Kind.TARGET, Kind.SKETCH):
            rows.append(bits)
        else:
            own = ALL if span.kind is Kind.TEXT else 1 << span.reference
            rows.append(torch.full((len(bits), span.stop - span.start), own))
    return Tokens(layout.kinds(), layout.frames(), torch.cat(rows, dim=1))


def unlabelled(grid: Grid) -> Int[Tensor, "1 target"]:
    """Bits of a shot without labels: every token may see every reference."""
    return torch.full((1, grid.tokens), ALL)


def label_bits(
    labels: Int[Tensor, "t h w"],
    references_of: Callable[[int], tuple[int, ...]],
    compression: Compression,
    rule: CellRule = "coverage",
    share: float = 0.125,
) -> Int[Tensor, " target"]:
    """References that each target token may see, from a label video at the working size.

    coverage: every label that fills at least `share` of the token's pixels counts, and the most frequent one always does, so
        thin limbs keep their colours and a token on a border sees both neighbours' references.
    majority: the published rule. A vote over the codec's cell and the frames of its time group, then one over the patch; ties go
        to the lowest id.
    """
    t, h, w = labels.shape
    frames = compression.latent_frames(t)
    # Time groups of a causal codec: [0], [1..time], ... ; the first is filled up with copies of itself.
    filled = torch.cat([labels[:1].expand(compression.time - 1, h, w), labels])
    grouped = rearrange(filled, "(f s) h w -> f s h w", f=frames)
    ids = torch.unique(labels).tolist()
    seen = torch.stack([(grouped == label).float().mean(1) for label in ids])
    if rule == "majority":
        latent = F.avg_pool2d(seen, compression.space).argmax(0)  # argmax keeps the first of equals: the lowest id
        patches = torch.stack([(latent == i).float() for i in range(len(ids))])
        winner = F.avg_pool2d(patches, compression.patch).argmax(0)
        counts = torch.stack([winner == i for i in range(len(ids))])
    else:
        covered = F.avg_pool2d(seen, compression.cell)
        first = covered.argmax(0)
        counts = torch.stack([(c >= share) | (first == i) for i, c in enumerate(covered)])
    bits = torch.zeros(counts.shape[1:], dtype=torch.long)
    for label, here in zip(ids, counts, strict=True):
        own = sum(1 << r for r in set(references_of(int(label))))
        bits |= here * own
    return bits.flatten()
