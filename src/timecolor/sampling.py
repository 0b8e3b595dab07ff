"""The sampling loop: an iterator that yields its progress."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from timecolor.denoiser import Denoiser
from timecolor.shapes import Float


@runtime_checkable
class Solver(Protocol):
    """How to walk from noise to colours; one per job, since a solver may remember.

    times: where to predict, (s), falling, in (0, 1].
    """

    times: Tensor

    def step(self, index: int, clean: Float[Tensor, "b f c h w"], latents: Float[Tensor, "b f c h w"]) -> Tensor:
        """Latents at the time after `times[index]`; after the last, the result."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """One step done: `index` of `steps`, and the latents (b f c h w) as they now are."""

    index: int
    steps: int
    latents: Float[Tensor, "b f c h w"]


def sample(denoiser: Denoiser, noise: Float[Tensor, "b f c h w"], cache: Any, solver: Solver) -> Iterator[Step]:
    """Walk from noise to colours; the last step's latents are the result.

    Raises FloatingPointError, naming the step, where the model gives values that are not finite.
    """
    latents, steps = noise, len(solver.times)
    for i, now in enumerate(solver.times):
        clean = denoiser.predict(latents, now.expand(len(noise)).to(noise.device), cache)
        if not bool(torch.isfinite(clean).all()):
            raise FloatingPointError(f"the model gave values that are not finite at step {i + 1} of {steps}; try --dtype float32")
        latents = solver.step(i, clean, latents)
        yield Step(i + 1, steps, latents)
