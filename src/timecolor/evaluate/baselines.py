"""What costs nothing: results that a model has to beat."""

import cv2
import numpy as np

from timecolor.shapes import UInt8
from timecolor.shot import Reference, Shot

PAPER = 255


def copy_baseline(shot: Shot) -> UInt8[np.ndarray, "t h w 3"]:
    """A reference pasted as every frame (a read-only view): the plate or whole frame where there is one, else the first.

    A cut-out is pasted on white paper. Of about the frame's aspect, a reference is stretched to it; else letterboxed on white.
    """
    if not shot.references:
        raise ValueError(f"{shot.name}: no reference to copy; give at least one")
    frames, height, width = shot.sketch.shape[:3]
    reference = min(shot.references, key=_rank)
    image = reference.image
    if reference.alpha is not None:
        alpha = reference.alpha[..., None].astype(np.float32) / 255
        image = (image * alpha + PAPER * (1 - alpha) + 0.5).astype(np.uint8)
    h, w = image.shape[:2]
    scale = min(height / h, width / w)
    # A pixel or two of a rounded size is not worth a white rim.
    alike = abs(w * height / (h * width) - 1) < 0.03
    size = (width, height) if alike else (max(1, round(w * scale)), max(1, round(h * scale)))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    pasted = np.full((height, width, 3), PAPER, np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    pasted[top : top + size[1], left : left + size[0]] = image
    return np.broadcast_to(pasted, (frames, height, width, 3))


def _rank(reference: Reference) -> int:
    """0 = shows the whole frame. `min` keeps the first of equals."""
    if reference.role in ("frame", "background"):
        return 0
    opaque = reference.alpha is None or bool((reference.alpha == 255).all())
    return 1 if opaque and reference.role is None else 2
