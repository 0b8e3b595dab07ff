"""The line between a model and everything around it: conditions in, a cache once per shot, a prediction at every step."""

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from timecolor.attention import Execution
from timecolor.correspondence import Rule, Tokens
from timecolor.layout import TokenLayout
from timecolor.shapes import Float, Int


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
