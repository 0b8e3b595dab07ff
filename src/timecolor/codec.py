"""Frames to latents and back. Only codecs scale values or permute axes."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from timecolor.denoiser import Picture
from timecolor.geometry import Clip
from timecolor.pairing import Drawn, resized
from timecolor.shapes import Float, UInt8
from timecolor.shot import Reference
from timecolor.sketch import reference_lines, without_lines

LINES_FOUND_AT = 720  # long side, in pixels, above which a reference is shrunk before its lines are sought


@dataclass(frozen=True, slots=True)
class PixelCodec:
    """The embedded codec: a target latent is the mean colour of `space` x `space` pixels; conditions keep every pixel.

    Colours are decided below the sketch's size, since the finish stage has the lines; so there is nothing to learn here.
    """

    space: int = 1

    def encode(self, frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "1 t 3 y x"]:
        """Colours in [-1, 1]."""
        pixels = rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "t h w c -> t c h w").float()
        return F.avg_pool2d(pixels, self.space)[None] / 127.5 - 1

    def decode(self, latents: Float[Tensor, "1 t 3 y x"]) -> Float[np.ndarray, "t y x 3"]:
        """Colours in [0, 1], one per latent."""
        return rearrange(latents[0].float().clamp(-1, 1) / 2 + 0.5, "t c y x -> t y x c").cpu().numpy()


def encode_sketch(frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "1 t 3 h w"]:
    """Ink in [0, 1] per colour channel, so that paper is 0 and a red or blue trace line stays one."""
    return rearrange(1 - torch.from_numpy(np.ascontiguousarray(frames)).float() / 255, "t h w c -> 1 t c h w")


def encode_reference(picture: Picture) -> Float[Tensor, "1 1 4 h w"]:
    """Fills in [-1, 1] and the picture's own lines in [0, 1], the key by which the sketch finds its place in it."""
    colour = torch.from_numpy(np.ascontiguousarray(picture.fills)).float() / 127.5 - 1
    ink = torch.from_numpy(np.ascontiguousarray(picture.lines)).float() / 255
    return rearrange(torch.cat([colour, ink[..., None]], dim=2), "h w c -> 1 1 c h w")


def shrink(frames: UInt8[np.ndarray, "t h w 3"], clip: Clip) -> UInt8[np.ndarray, "t y x 3"]:
    """Frames at the working size, by area, as training sees them."""
    return np.stack([resized(frame, clip.height, clip.width) for frame in frames])


def encode_hints(pictures: UInt8[np.ndarray, "t k h w 4"]) -> Float[Tensor, "1 t k 4 h w"]:
    """Candidates of `propagation`, in the ranges of `encode_reference`."""
    colour, ink = torch.from_numpy(np.ascontiguousarray(pictures)).float().split([3, 1], dim=-1)
    return rearrange(torch.cat([colour / 127.5 - 1, ink / 255], dim=-1), "t k h w c -> 1 t k c h w")


def letterbox(
    reference: Reference,
    clip: Clip,
    frame: Clip | None = None,
    ground: int = 0,
    drawn: Drawn | None = None,
) -> Picture:
    """A reference at the working size, centred with its aspect ratio kept, as it is and parted into fills and lines.

    frame: the shot's own size, None = the working one. Bringing a frame to whole tokens stretches it by a pixel or two; a
    reference is fitted into the frame and stretched with it, so that one of the frame's shape fills it.
    ground: grey level around it and behind a cut-out. Black, as published, unless it would be taken for the shot's background.
    drawn: what a coloured frame was made on, which tells what its lines are. None = they are sought.
    """
    frame = frame or clip
    height, width = reference.image.shape[:2]
    scale = min(frame.height / height, frame.width / width)
    h = max(1, round(height * scale * clip.height / frame.height))
    w = max(1, round(width * scale * clip.width / frame.width))
    # Lines are found and taken out where they are still lines, then everything is shrunk.
    finer = min(1.0, max(max(h, w), LINES_FOUND_AT) / max(height, width))
    size = max(1, round(height * finer)), max(1, round(width * finer))
    image = resized(reference.image, *size)
    alpha = None if reference.alpha is None else resized(reference.alpha, *size)
    if alpha is not None and not alpha.any():
        alpha = None
    ink = reference_lines(image, alpha)
    fills = without_lines(image, ink if drawn is None else drawn.lines(image), alpha)
    box = np.s_[(clip.height - h) // 2 : (clip.height - h) // 2 + h, (clip.width - w) // 2 : (clip.width - w) // 2 + w]

    def placed(part: np.ndarray, around: int) -> np.ndarray:
        canvas = np.full((clip.height, clip.width, *part.shape[2:]), around, np.uint8)
        canvas[box] = resized(part, h, w)
        return canvas

    whole, bare = (placed(Reference(x, alpha).over(ground), ground) for x in (image, fills))
    shown = np.full((height, width), 255, np.uint8) if reference.alpha is None else reference.alpha
    lines = ink if drawn is None else drawn.ink(resized(ink, h, w))
    return Picture(whole, bare, placed(lines, 0), placed(resized(shown, *size), 0) > 127)


def labels_at(labels: np.ndarray, clip: Clip) -> np.ndarray:
    """Labels (h, w) at a size."""
    numbers = labels.astype(np.int32).astype(np.float32)
    return cv2.resize(numbers, (clip.width, clip.height), interpolation=cv2.INTER_NEAREST)
