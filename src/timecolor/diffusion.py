"""Flow matching: the path from colours to noise, what is predicted, and the loss. No model, no files."""

import torch
from torch import Tensor

from timecolor.shapes import Float


def noised(clean: Float[Tensor, "b ..."], noise: Float[Tensor, "b ..."], timestep: Float[Tensor, " b"]) -> Float[Tensor, "b ..."]:
    """x_t = (1 - t) x_0 + t noise: the straight path of rectified flow (Liu et al. 2022, Eq. 1)."""
    t = _like(timestep, clean)
    return (1 - t) * clean + t * noise


def velocity(
    clean: Float[Tensor, "b ..."], noisy: Float[Tensor, "b ..."], timestep: Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """dx/dt = (x_t - x_0) / t, for t > 0; equals noise - x_0 on the path."""
    return (noisy - clean) / _like(timestep, noisy)


def schedule(steps: int, shift: float = 3.0) -> Float[Tensor, " s"]:
    """Times from 1 to 0, (steps + 1): t = shift u / (1 + (shift - 1) u) for u evenly spaced (Esser et al. 2024, Eq. 23).

    shift > 1 spends more steps at high noise, where colours are decided. Raises ValueError for fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"got {steps} steps; give at least 1")
    return _shifted(torch.linspace(1, 0, steps + 1), shift)


class Euler:
    """Straight steps along the path, from prediction to prediction of the clean latents. times: (steps), from 1 on."""

    def __init__(self, steps: int, shift: float = 3.0) -> None:
        """Raises ValueError for fewer than one step."""
        self._schedule = schedule(steps, shift)
        self.times = self._schedule[:-1]

    def step(self, index: int, clean: Float[Tensor, "b ..."], latents: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Latents at the next time; after the last, the clean ones."""
        now, then = (self._schedule[i].expand(len(latents)).to(latents.device) for i in (index, index + 1))
        if index + 1 == len(self.times):
            return clean
        return latents + _like(then - now, latents) * velocity(clean, latents, now)


def training_times(batch: int, generator: torch.Generator, shift: float = 3.0, pure: float = 0.35) -> Float[Tensor, " b"]:
    """Random times in (0, 1], shifted as in `schedule`; a share `pure` of them is exactly 1, where sampling starts."""
    u = torch.rand(batch, generator=generator)
    t = _shifted(u, shift).clamp(min=0.02)
    return torch.where(torch.rand(batch, generator=generator) < pure, torch.ones(batch), t)


def loss(prediction: Float[Tensor, "b ..."], clean: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """Squared error of the predicted clean target, per sample. Target frames only, as published: nothing else is predicted."""
    return (prediction.float() - clean.float()).square().flatten(1).mean(1)


def _shifted(u: Tensor, shift: float) -> Tensor:
    return u / (u + (1 - u) / shift)  # exact at both ends


def _like(timestep: Tensor, x: Tensor) -> Tensor:
    return timestep.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
