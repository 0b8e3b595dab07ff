"""diffusers' schedulers as solvers."""

from typing import Any, Literal

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, UniPCMultistepScheduler
from torch import Tensor
from torch.nn import functional as F

from timecolor.shapes import Float

SolverName = Literal["ddim", "dpm", "unipc"]


class Solver:
    """diffusers' schedulers, walked by predictions of the clean latents; one per job, since a solver remembers.

    times: where to predict, (s), descending in (0, 1] as `CogVideoX.predict` takes them. ddim is the published one; dpm (a
    stochastic second-order DPM-Solver++) and unipc (deterministic) need fewer steps.
    """

    def __init__(self, scheduler: CogVideoXDDIMScheduler, steps: int, name: SolverName = "ddim", seed: int = 0) -> None:
        """seed: of the noise that dpm adds. Raises ValueError for an impossible number of steps."""
        most = len(scheduler.alphas_cumprod)
        if not 1 <= steps <= most:
            raise ValueError(f"got {steps} steps; give 1 to {most}")
        if name == "ddim":
            self._scheduler: Any = CogVideoXDDIMScheduler.from_config(scheduler.config, prediction_type="sample")
        elif name == "dpm":
            self._scheduler = CogVideoXDPMScheduler.from_config(scheduler.config, prediction_type="sample")
        else:
            # It knows no shifted schedule but takes any betas; pure noise gets the tiny signal that it needs for a logarithm.
            alphas = scheduler.alphas_cumprod.double().clamp(min=2**-24)
            betas = 1 - alphas / F.pad(alphas[:-1], (1, 0), value=1.0)
            self._scheduler = UniPCMultistepScheduler(
                trained_betas=betas.numpy(), timestep_spacing="trailing", final_sigmas_type="zero", prediction_type="sample"
            )
        self._scheduler.set_timesteps(steps)
        self._steps: list[int] = self._scheduler.timesteps.tolist()
        self._generator = torch.Generator().manual_seed(seed)
        self._before: Tensor | None = None
        self._name = name
        self.times: Float[Tensor, " s"] = (torch.tensor(self._steps) + 1) / most

    def step(self, index: int, clean: Float[Tensor, "b f c h w"], latents: Float[Tensor, "b f c h w"]) -> Tensor:
        """Latents at the next time, in their own dtype; after the last time, the result."""
        now = self._steps[index]
        if self._name == "dpm":
            back = self._steps[index - 1] if index else None
            moved, self._before = self._scheduler.step(clean, self._before, now, back, latents, generator=self._generator)
        else:
            moved = self._scheduler.step(clean, now, latents, return_dict=False)[0]
        return moved.to(latents.dtype)
