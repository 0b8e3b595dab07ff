"""Where each part of a shot lies in the one token sequence: text | target | sketch | reference 0 | reference 1 ...

TimeColor §3.2: sketch and references are further latent frames, concatenated in time behind the noisy target.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import torch
from torch import Tensor

from timecolor.geometry import Grid
from timecolor.shapes import Int


class Kind(IntEnum):
    """What a token is. The order is that of the `cached` regime: a token never looks at a later kind."""

    TEXT = 0
    REFERENCE = 1
    SKETCH = 2
    TARGET = 3


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `start:stop` of the sequence. reference: its index r, -1 for the other kinds."""

    kind: Kind
    start: int
    stop: int
    reference: int = -1

    @property
    def slice(self) -> slice:
        """The span as a slice of the token axis."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class TokenLayout:
    """The sequence of a shot with a target of `grid` tokens, its sketch (or none), R references and a text.

    The number of references is a length, not a mode: 0, 1 and 9 take the same path.
    """

    grid: Grid
    references: int
    sketch: bool = True
    text: int = 0

    def __post_init__(self) -> None:
        if self.references < 0 or self.text < 0:
            raise ValueError(f"layout has {self.references} references and {self.text} text tokens; give 0 or more")

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """The parts in order; they tile the sequence exactly."""
        parts = [(Kind.TEXT, self.text, -1)] if self.text else []
        parts.append((Kind.TARGET, self.grid.tokens, -1))
        if self.sketch:
            parts.append((Kind.SKETCH, self.grid.tokens, -1))
        parts += [(Kind.REFERENCE, self.grid.per_frame, r) for r in range(self.references)]
        spans, start = [], 0
        for kind, length, reference in parts:
            spans.append(Span(kind, start, start + length, reference))
            start += length
        return tuple(spans)

    @property
    def tokens(self) -> int:
        """Length of the whole sequence."""
        return self.spans[-1].stop

    @cached_property
    def target(self) -> Span:
        """The noisy tokens, the only ones whose prediction is kept."""
        return next(s for s in self.spans if s.kind is Kind.TARGET)

    @cached_property
    def conditions(self) -> slice:
        """Sketch and references, which follow the target without a gap."""
        return slice(self.target.stop, self.tokens)

    def kinds(self) -> Int[Tensor, " n"]:
        """Kind of every token."""
        return torch.cat([torch.full((s.stop - s.start,), int(s.kind)) for s in self.spans])

    def frames(self) -> Int[Tensor, " n"]:
        """Latent frame of every target and sketch token; -1 for text and references, which belong to no moment."""
        moments = torch.arange(self.grid.frames).repeat_interleave(self.grid.per_frame)
        timed = (Kind.TARGET, Kind.SKETCH)
        return torch.cat([moments if s.kind in timed else torch.full((s.stop - s.start,), -1) for s in self.spans])
