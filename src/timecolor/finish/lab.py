"""How far colours are apart to the eye: CIE Lab."""

import cv2
import numpy as np

# CIE Lab distance over which colours count as one another's.
ALIKE = 10.0


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


def apart(lab: np.ndarray, least: float) -> list[int]:
    """Which of these colours (n, 3), first come first served, lie at least so far (CIE Lab) from all chosen before."""
    chosen: list[int] = []
    for i in range(len(lab)):
        if not chosen or np.linalg.norm(lab[chosen] - lab[i], axis=1).min() > least:
            chosen.append(i)
    return chosen
