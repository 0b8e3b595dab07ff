"""One predicate, run three ways: dense (the reference), grouped (CPU inference), block-sparse (GPU). They agree to rounding.

Each execution is prepared once for a set of queries and keys, then called in every layer and step with
q (b heads n d), k and v (b heads m d), and returns (b heads n d).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from timecolor.correspondence import Rule, Tokens, may_attend
from timecolor.layout import Kind
from timecolor.shapes import Bool, Float

Execution = Literal["auto", "dense", "grouped", "sparse"]


@runtime_checkable
class Attention(Protocol):
    """Attention of fixed queries over fixed keys."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


def prepare(queries: Tokens, keys: Tokens, rule: Rule, execution: Execution = "auto", training: bool = False) -> Attention:
    """The execution that fits: dense for training and for batches of unlike labels, block-sparse on a GPU, grouped on the CPU.

    Grouped does not carry gradients (its partial results are merged by their log-sum-exp).
    """
    if execution == "auto":
        alike = len(queries.bits) == 1 and len(keys.bits) == 1
        if training:
            execution = "dense"
        elif queries.bits.device.type == "cuda":
            execution = "sparse"
        else:
            execution = "grouped" if alike else "dense"
    match execution:
        case "dense":
            return Dense.of(queries, keys, rule)
        case "grouped":
            return Grouped.of(queries, keys, rule)
        case "sparse":
            return Sparse.of(queries, keys, rule)


def dense_mask(queries: Tokens, keys: Tokens, rule: Rule) -> Bool[Tensor, "b n m"]:
    """The predicate for every pair."""
    q = Tokens(queries.kind[:, None], queries.frame[:, None], queries.bits[:, :, None])
    k = Tokens(keys.kind[None], keys.frame[None], keys.bits[:, None])
    return may_attend(q, k, rule).expand(max(len(queries.bits), len(keys.bits)), -1, -1)


@dataclass(frozen=True)
class Dense:
    """Masked attention, query kind by query kind, over the smallest stretch of keys that holds all that the kind may see."""

    parts: tuple[tuple[slice, slice, Tensor | None], ...]  # queries, keys, 0 or -inf (b 1 n m) or None where all is visible

    @classmethod
    def of(cls, queries: Tokens, keys: Tokens, rule: Rule) -> "Dense":
        """Masks of all parts."""
        parts = []
        # References are apart from one another, so each is a part of its own.
        own = torch.where(queries.kind == Kind.REFERENCE, queries.bits[0], 0)
        for part in _runs(queries.kind, own):
            mask = dense_mask(queries[part], keys, rule)
            used = mask.any(0).any(0).nonzero()
            stretch = slice(int(used[0]), int(used[-1]) + 1)
            mask = mask[:, None, :, stretch]
            # As numbers to be added, where a mask of booleans would be turned into them in every layer.
            added = None if bool(mask.all()) else torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)
            parts.append((part, stretch, added))
        return cls(tuple(parts))

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        outs = []
        for n, m, mask in self.parts:
            fitting = None if mask is None else mask.to(q.dtype)
            outs.append(F.scaled_dot_product_attention(q[:, :, n], k[:, :, m], v[:, :, m], attn_mask=fitting))
        return torch.cat(outs, dim=2)


@dataclass(frozen=True)
class Grouped:
    """Rectangles of queries and keys that are wholly visible, merged by their log-sum-exp.

    Common keys are never copied per label: every rectangle is a slice of the one key tensor. Tokens sorted by `sort_order`
    give the fewest rectangles; any order is right.
    """

    blocks: tuple[tuple[slice, slice], ...]
    tokens: int

    @classmethod
    def of(cls, queries: Tokens, keys: Tokens, rule: Rule) -> "Grouped":
        """Rectangles from runs of like tokens; raises ValueError for a batch with unlike labels."""
        if len(queries.bits) != 1 or len(keys.bits) != 1:
            raise ValueError(f"grouped attention got a batch of {len(queries.bits)} label sets; give 1, or use dense")
        q_runs = _runs(queries.kind, queries.frame, queries.bits[0])
        # A key's bits matter for references only, so labels do not cut the common keys into pieces.
        k_runs = _runs(keys.kind, keys.frame, torch.where(keys.kind == Kind.REFERENCE, keys.bits[0], 0))
        q_first = queries[torch.tensor([r.start for r in q_runs], device=queries.kind.device)]
        k_first = keys[torch.tensor([r.start for r in k_runs], device=keys.kind.device)]
        visible = dense_mask(q_first, k_first, rule)[0].tolist()
        is_reference = (k_first.kind == Kind.REFERENCE).tolist()

        rows_of: dict[tuple[int, int], list[int]] = {}
        for row, columns in enumerate(visible):
            start = stop = -1
            for column, run in enumerate(k_runs):
                # Common keys and references stay apart, so that groups of unlike labels share the common rectangle.
                follows = columns[column] and run.start == stop and is_reference[column] == is_reference[column - 1]
                if start >= 0 and not follows:
                    rows_of.setdefault((start, stop), []).append(row)
                    start = -1
                if columns[column]:
                    start = start if start >= 0 else run.start
                    stop = run.stop
            if start >= 0:
                rows_of.setdefault((start, stop), []).append(row)
        blocks = []
        for (start, stop), rows in rows_of.items():
            first = previous = rows[0]
            for row in [*rows[1:], len(q_runs) + 1]:
                if row != previous + 1:
                    blocks.append((slice(q_runs[first].start, q_runs[previous].stop), slice(start, stop)))
                    first = row
                previous = row
        blocks.sort(key=lambda b: (b[0].start, b[1].start))
        return cls(tuple(blocks), len(queries.kind))

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.zeros(*q.shape[:3], v.shape[3], dtype=torch.float32, device=q.device)
        total = torch.full(q.shape[:3], -torch.inf, dtype=torch.float32, device=q.device)
        for n, m in self.blocks:
            part, weight = _attend_with_weight(q[:, :, n], k[:, :, m], v[:, :, m])
            merged = torch.logaddexp(total[:, :, n], weight)
            out[:, :, n] *= (total[:, :, n] - merged).exp()[..., None]
            out[:, :, n] += part * (weight - merged).exp()[..., None]
            total[:, :, n] = merged
        return out.to(q.dtype)


@dataclass(frozen=True)
class Sparse:
    """PyTorch's flex attention with the predicate as its mask; blocks without a visible pair are skipped on a GPU."""

    block_mask: object

    @classmethod
    def of(cls, queries: Tokens, keys: Tokens, rule: Rule) -> "Sparse":
        """The block mask of the predicate."""
        from torch.nn.attention.flex_attention import create_block_mask

        batch = max(len(queries.bits), len(keys.bits))
        q_bits, k_bits = queries.bits.expand(batch, -1), keys.bits.expand(batch, -1)

        def tokens(of: Tokens, bits: Tensor, b: Tensor, n: Tensor) -> Tokens:
            return Tokens(of.kind[n], of.frame[n], bits[b, n])

        # A lambda, since PyTorch tells the kind of mask by the signature.
        visible = lambda b, _, n, m: may_attend(tokens(queries, q_bits, b, n), tokens(keys, k_bits, b, m), rule)  # noqa: E731
        size = (len(queries.kind), len(keys.kind))
        device = queries.bits.device
        # Compiled, so that on a GPU the predicate of every pair never lies in memory at once.
        return cls(create_block_mask(visible, batch, None, *size, device=str(device), _compile=device.type == "cuda"))

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _flex(q.device.type)(q, k, v, block_mask=self.block_mask)


def sort_order(tokens: Tokens) -> Tensor:
    """The stable order that puts tokens of like visibility behind one another within each kind and frame; (n) indices.

    Kinds and frames already lie in runs, so only labels move, and only within their frame. For a batch of one label set.
    """
    place = F.pad(_changes(tokens.kind, tokens.frame).long().cumsum(0), (1, 0))
    by_bits = torch.argsort(tokens.bits[0], stable=True)
    return by_bits[torch.argsort(place[by_bits], stable=True)]


def _changes(*columns: Tensor) -> Tensor:
    """Whether token i + 1 differs from token i in any column, (n - 1)."""
    return torch.stack([c[1:] != c[:-1] for c in columns]).any(0)


def _runs(*columns: Tensor) -> list[slice]:
    """Maximal stretches over which all columns are constant."""
    ends = (_changes(*columns).nonzero().flatten() + 1).tolist()
    return [slice(a, b) for a, b in pairwise([0, *ends, len(columns[0])])]


def _attend_with_weight(q: Tensor, k: Tensor, v: Tensor) -> tuple[Float[Tensor, "b heads n d"], Float[Tensor, "b heads n"]]:
    """Unmasked attention and its log-sum-exp, by which partial results are merged."""
    kind = q.device.type
    if kind == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    if kind == "cuda" and q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] % 8 == 0:
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[:2]
    if kind == "cuda" and q.dtype == torch.float32:
        out, weight, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
        return out, weight[..., : q.shape[2]]  # padded to whole blocks
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    return scores.softmax(-1).to(v.dtype) @ v, scores.logsumexp(-1)


_compiled: dict[str, Callable[..., Tensor]] = {}


def _flex(device: str) -> Callable[..., Tensor]:
    """Flex attention, compiled where that pays."""
    from torch.nn.attention.flex_attention import flex_attention

    if device not in _compiled:
        _compiled[device] = torch.compile(flex_attention) if device == "cuda" else flex_attention
    return _compiled[device]
