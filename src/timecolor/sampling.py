"""The sampling loop: an iterator that yields its progress."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from timecolor import diffusion
from timecolor.denoiser import Denoiser
from timecolor.shapes import Float


@dataclass(frozen=True, slots=True)
class Step:
    """One step done: `index` of `steps`, and the clean latents (b f c h w) as they now look."""

    index: int
    steps: int
    clean: Float[Tensor, "b f c h w"]


def sample(denoiser: Denoiser, noise: Float[Tensor, "b f c h w"], cache: Any, steps: int, shift: float = 3.0) -> Iterator[Step]:
    """Walk from noise to colours by Euler steps; the last step's `clean` is the result.

    Raises FloatingPointError, naming the step, where the model gives values that are not finite.
    """
    times = diffusion.schedule(steps, shift)
    latents = noise
    for i in range(steps):
        now, then = times[i].expand(len(noise)), times[i + 1].expand(len(noise))
        clean = denoiser.predict(latents, now.to(noise.device), cache)
        if not bool(torch.isfinite(clean).all()):
            raise FloatingPointError(f"the model gave values that are not finite at step {i + 1} of {steps}; try --dtype float32")
        speed = diffusion.velocity(clean, latents, now.to(noise.device))
        latents = latents + (then - now).to(noise).view(-1, 1, 1, 1, 1) * speed
        yield Step(i + 1, steps, clean)
