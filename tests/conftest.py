"""A tiny model with random weights, and small shots, for the tests that walk the whole way."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import settings

from timecolor import weights
from timecolor.rope import Rope
from timecolor.toon import Toon, ToonConfig

settings.register_profile("shared", deadline=None)  # a busy machine is no failure
settings.load_profile("shared")

TINY = ToonConfig(width=32, layers=2, heads=2, rope=Rope(base=(8, 8), ranked=False, dims=(4, 6, 6), theta=100.0, periods=(4, 8)))


def tiny_toon(seed: int = 0) -> Toon:
    """Every weight away from its zero start, so that all paths carry something."""
    torch.manual_seed(seed)
    toon = Toon(TINY)
    for parameter in toon.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return toon.eval()


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    """A weights file as `timecolor train` writes it: tokens of 8 pixels, working size 32."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    toon = tiny_toon()
    weights.save_toon(path, toon, toon.state_dict(), colour_cell=4, short_side=32)
    return path


def sketch_clip(frames: int = 3, height: int = 48, width: int = 64, step: int = 2) -> np.ndarray:
    """A circle that moves `step` pixels a frame, over a line: uint8 (t, h, w, 3)."""
    clip = np.full((frames, height, width, 3), 255, np.uint8)
    for i, frame in enumerate(clip):
        cv2.circle(frame, (width // 4 + step * i, height // 2), max(1, min(height, width) // 4), (0, 0, 0), 1)
        cv2.line(frame, (0, height - 3), (width, height - 5), (0, 0, 0), 1)
    return clip


def painted_image(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    """A figure in two flats on a ground, in colours of the seed's own: uint8 (h, w, 3)."""
    ground, figure, shade = np.random.default_rng(seed).integers(0, 256, (3, 3)).tolist()
    image = np.empty((height, width, 3), np.uint8)
    image[:] = ground
    cv2.circle(image, (width // 2, height // 2), height // 3, figure, -1)
    cv2.ellipse(image, (width // 2, height // 2), (height // 3, height // 3), 0, 0, 180, shade, -1)
    return image
