"""The line between a model and everything around it: conditions in, a cache once per shot, a prediction at every step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from timecolor.attention import Execution
from timecolor.choice import Choose, Trust
from timecolor.correspondence import CellRule, Regime, Rule, Tokens
from timecolor.geometry import Clip, Compression, Grid
from timecolor.layout import TokenLayout
from timecolor.matcher import Matcher
from timecolor.shapes import Bool, Float, Int, UInt8


@dataclass(frozen=True, slots=True)
class Conditions:
    """All that a denoiser is told of a shot.

    sketch: latents (b f c h w). references: latents (b r e h w), r may be 0. tokens: what each token is and may see.
    start: index in the shot of the first latent frame, where a long shot is run in pieces.
    hints: pictures carried onto each frame, in the references' form and the sketch's place (b f k e h w), None = none; hint_of:
    the reference that each comes from (b k), -1 = a picture that is not there. A hint is seen where its reference may be.
    """

    layout: TokenLayout
    tokens: Tokens
    sketch: Float[Tensor, "b f c h w"]
    references: Float[Tensor, "b r e h w"]
    rule: Rule = field(default_factory=Rule)
    execution: Execution = "auto"
    start: int = 0
    hints: Float[Tensor, "b f k e h w"] | None = None
    hint_of: Int[Tensor, "b k"] | None = None


@runtime_checkable
class Denoiser(Protocol):
    """A model that predicts the clean target."""

    def prepare(self, conditions: Conditions) -> Any:
        """The model's cache: what can be computed once per shot."""
        ...

    def predict(self, latents: Float[Tensor, "b f c h w"], timestep: Float[Tensor, " b"], cache: Any) -> Tensor:
        """The clean latents (b f c h w) for noisy ones at `timestep` in [0, 1], 1 = pure noise."""
        ...


@dataclass(frozen=True, slots=True)
class Picture:
    """A reference at the working size, letterboxed.

    image: with its own lines, uint8 (h, w, 3). fills: without them. lines: their darkness, uint8 (h, w). shown: where there is
    anything, bool (h, w); the black that a cut-out stands on is nothing.
    """

    image: UInt8[np.ndarray, "h w 3"]
    fills: UInt8[np.ndarray, "h w 3"]
    lines: UInt8[np.ndarray, "h w"]
    shown: Bool[np.ndarray, "h w"]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a model was made for, where a job does not say. window: None = all frames."""

    steps: int
    short_side: int
    window: int | None
    cells: CellRule
    regime: Regime
    guidance: float = 1.0


@dataclass(frozen=True, slots=True)
class Work:
    """A job as a model sees it. piece: drawings run at once, halo included; working: pixels."""

    working: Clip
    grid: Grid
    piece: int
    references: int
    steps: int
    rule: Rule
    guidance: float = 1.0
    prompt: str = ""


@runtime_checkable
class Model(Protocol):
    """A denoiser and what belongs to it, so that whoever walks from a shot to colours need not know which one runs.

    compression: pixels to tokens. text: tokens of a prompt, 0 = it reads none. layers: how often news moves on by a window in one
    prediction. hints: it takes pictures carried onto the frames. draws_lines: it decodes to whole pictures, otherwise to fills.
    memory: the rung of its memory ladder that the user asked for; auto = the fastest that fits.
    """

    defaults: Defaults
    compression: Compression
    text: int
    layers: int
    hints: bool
    draws_lines: bool
    memory: str

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """In which precision it takes its conditions."""
        ...

    @property
    def parameters(self) -> int:
        """How many numbers it learned."""
        ...

    @property
    def denoiser(self) -> Denoiser:
        """The network."""
        ...

    @property
    def matcher(self) -> Matcher | None:
        """The colours give way to those of the references that this finds in a drawing; None = they do not."""
        ...

    @property
    def judge(self) -> Choose | None:
        """Which colour a small region takes of those it is offered; None = its own, since another model's errors are others."""
        ...

    @property
    def trust(self) -> Trust | None:
        """Which picture each cell takes where whole frames colour a shot; None = the model's own."""
        ...

    def encode_sketch(self, frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "1 f c y x"]:
        """Sketch latents."""
        ...

    def encode_references(self, pictures: Sequence[Picture], size: Clip) -> Float[Tensor, "1 r e y x"]:
        """Reference latents, one latent frame each; r = 0 for none. size: the working size."""
        ...

    def decode(self, latents: Float[Tensor, "1 f c y x"]) -> Float[np.ndarray, "t y x 3"]:
        """Colours in [0, 1]."""
        ...

    def noise(self, grid: Grid, seed: int, first: int) -> Float[Tensor, "1 f c y x"]:
        """Where sampling starts, for latent frames from `first` on, the same however the shot is cut."""
        ...

    def told(self, conditions: Conditions, prompt: str, guidance: float) -> Conditions:
        """Conditions with a text, where the model reads one. Raises ValueError for a prompt that it cannot read."""
        ...

    def solver(self, name: str | None, steps: int, seed: int) -> Any:
        """A `sampling.Solver`; None = its own. Raises ValueError for one that it does not have."""
        ...

    def memory_bytes(self, work: Work) -> Mapping[str, int]:
        """Peak of the network's part of a job by rung of the memory ladder, fastest first, beyond what is already taken."""
        ...

    def settle(self, rung: str) -> None:
        """Run what follows on this rung, one of `memory_bytes`."""
        ...

    def operations(self, work: Work) -> float:
        """Multiply-adds x 2 of the network's part of a job."""
        ...
