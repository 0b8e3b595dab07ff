"""How far colours are apart to the eye: CIE Lab."""

import cv2
import numpy as np

# CIE Lab distance over which colours count as one another's; by how many shades, at most, many colours are told apart.
ALIKE, SHADES = 10.0, 64


def to_lab(colours: np.ndarray) -> np.ndarray:
    """sRGB (..., 3), uint8 or in [0, 1] → CIE Lab, float32."""
    if not colours.size:
        return np.zeros(colours.shape, np.float32)
    scaled = colours.astype(np.float32) / 255 if colours.dtype == np.uint8 else colours.clip(0, 1).astype(np.float32)
    return cv2.cvtColor(np.ascontiguousarray(scaled.reshape(-1, 1, 3)), cv2.COLOR_RGB2LAB).reshape(colours.shape)


def alike(lab: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How much CIE Lab colours (n, 3) count as others (m, 3), in [0, 1]: (n, m), float32."""
    fits = (lab @ others.T).astype(np.float32, copy=False)
    fits -= (lab**2).sum(axis=1, dtype=np.float32)[:, None] / 2
    fits -= (others**2).sum(axis=1, dtype=np.float32) / 2
    np.minimum(fits, 0, out=fits)
    return np.exp(np.divide(fits, ALIKE**2, out=fits), out=fits)


def apart(lab: np.ndarray, least: float, most: int | None = None) -> list[int]:
    """Which of these colours (n, 3), first come first served, lie at least so far (CIE Lab) from all chosen before; the first
    `most` of them, None = all."""
    chosen: list[int] = []
    for i in range(len(lab)):
        if len(chosen) == most:
            break
        if not chosen or np.linalg.norm(lab[chosen] - lab[i], axis=1).min() > least:
            chosen.append(i)
    return chosen


def shades_of(colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of at most `SHADES` shades each colour (n, 3), uint8, has, (n,), and their means in [0, 1], float32 (m, 3): the
    commonest that are apart, with those near."""
    coarse = (colours >> 3).astype(np.int64) @ np.array([1 << 10, 1 << 5, 1])
    _, cell, counts = np.unique(coarse, return_inverse=True, return_counts=True)

    def means(group: np.ndarray, number: np.ndarray) -> np.ndarray:
        sums = [np.bincount(group, colours[:, channel], len(number)) for channel in range(3)]
        return (np.stack(sums, axis=1) / number[:, None] / 255).astype(np.float32)

    lab = to_lab(means(cell, counts))
    ranked = np.argsort(-counts, kind="stable")
    chosen = ranked[apart(lab[ranked], ALIKE / 3, SHADES)]
    nearest = np.linalg.norm(lab[:, None] - lab[chosen][None], axis=2).argmin(axis=1)[cell]
    return nearest, means(nearest, np.bincount(nearest, minlength=len(chosen)))
