"""Frames to CogVideoX's latents and back."""

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from einops import rearrange
from torch import Tensor

from timecolor.geometry import Compression
from timecolor.shapes import Float, UInt8


class CogVideoXCodec:
    """CogVideoX's causal VAE as diffusers ships it: 8x8 pixels and, after the first frame, 4 frames to a latent."""

    def __init__(self, vae: AutoencoderKLCogVideoX, patch: int = 2) -> None:
        """patch: latents along the side of a token."""
        self.vae: Any = vae
        self.scale: float = self.vae.config.scaling_factor
        self.compression = compression_of(self.vae.config, patch)

    def lean(self, on: bool = True) -> None:
        """Work tile by tile, and sample by sample of a batch: less memory, results that differ a little at the seams."""
        if on:
            self.vae.enable_tiling()
            self.vae.enable_slicing()
        else:
            self.vae.disable_tiling()
            self.vae.disable_slicing()

    @torch.no_grad()
    def encode(self, frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "1 f c y x"]:
        """Scaled latents of a clip or, with t = 1, of a picture: the mode of the posterior, so there is nothing random in them.

        Raises ValueError naming the sizes that fit.
        """
        self._check(*frames.shape[:3])
        pixels = rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "t h w c -> 1 c t h w").to(self.vae.device)
        mode = self.vae.encode((pixels.float() / 127.5 - 1).to(self.vae.dtype)).latent_dist.mode()
        return rearrange(mode * self.scale, "1 c f y x -> 1 f c y x")

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "1 f c y x"]) -> Float[np.ndarray, "t h w 3"]:
        """Frames in [0, 1], as many as were encoded.

        Of an even number of latent frames, diffusers' VAE gives the first as many frames as the others; the last of them counts.
        """
        length = (latents.shape[1] - 1) * self.compression.time + 1
        scaled = rearrange(latents.to(self.vae.device, self.vae.dtype), "1 f c y x -> 1 c f y x") * (1 / self.scale)
        frames = self.vae.decode(scaled).sample[:, :, -length:]
        return rearrange((frames.float() / 2 + 0.5).clamp(0, 1), "1 c t h w -> t h w c").cpu().numpy()

    def _check(self, frames: int, height: int, width: int) -> None:
        self.compression.latent_frames(frames)
        space = self.compression.space
        for name, pixels in (("height", height), ("width", width)):
            if pixels % space:
                low = pixels // space * space
                raise ValueError(
                    f"clip has {name} {pixels}; use {f'{low} or ' if low else ''}{low + space} (a multiple of {space})"
                )


def compression_of(vae: Any, patch: int) -> Compression:
    """Pixels per token, by a VAE's config and the latents along the side of a token."""
    return Compression(int(vae.temporal_compression_ratio), 2 ** (len(vae.block_out_channels) - 1), patch)
