"""Plane curves as point lists, float64 (n, 2): the shapes that everything in the world is drawn from."""

from functools import cache

import numpy as np


@cache
def _catmull_rom(count: int, steps: int, closed: bool) -> np.ndarray:
    """Weights (m, count) that turn `count` control points into a smooth line through them."""
    spans = count if closed else count - 1
    weights = np.zeros((spans * steps + (0 if closed else 1), count))
    for row in range(len(weights)):
        span, step = divmod(row, steps)
        u = step / steps
        if not closed and span == spans:
            span, u = spans - 1, 1.0
        terms = (-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, u**3 - u**2)
        for offset, term in enumerate(terms, start=-1):
            at = (span + offset) % count if closed else min(max(span + offset, 0), count - 1)
            weights[row, at] += term / 2
    return weights


def smooth(points: np.ndarray, steps: int = 4, closed: bool = True) -> np.ndarray:
    """A smooth line through the control points (n, 2), `steps` points to a span."""
    return _catmull_rom(len(points), steps, closed) @ points


@cache
def _circle(count: int) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0, count: int = 18) -> np.ndarray:
    """An ellipse about (x, y), turned by `angle` radians."""
    points = _circle(count) * (rx, ry)
    if angle:
        c, s = np.cos(angle), np.sin(angle)
        points = points @ np.array([[c, s], [-s, c]])
    return points + np.array((x, y))


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """An upright rectangle."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=np.float64)


def ribbon(line: np.ndarray, widths: np.ndarray, tip: float = 0.0, root: float = 0.0) -> np.ndarray:
    """The area within widths (n,) of a line (n, 2): down its left side, round the tip, back up its right.

    tip, root: how far the end and the start are rounded, in widths (0 = cut off flat). The first and last point are the start.
    """
    along = np.empty_like(line)
    along[1:-1] = line[2:] - line[:-2]
    along[0] = line[1] - line[0]
    along[-1] = line[-1] - line[-2]
    along /= np.hypot(along[:, 0], along[:, 1])[:, None] + 1e-9
    side = np.stack([along[:, 1], -along[:, 0]], 1) * widths[:, None]
    left, right = line + side, line - side
    if root:
        begin, back, over = line[0], -along[0] * widths[0] * root, side[0]
        right = np.concatenate(
            [np.stack([begin + back * 0.7 + over * 0.7, begin + back, begin + back * 0.7 - over * 0.7]), right]
        )
    if not tip:
        return np.concatenate([left, right[::-1]])
    end, out, across = line[-1], along[-1] * widths[-1] * tip, side[-1]
    cap = np.stack([end + out * 0.7 + across * 0.7, end + out, end + out * 0.7 - across * 0.7])
    return np.concatenate([left, cap, right[::-1]])


def moved(points: np.ndarray, x: float, y: float) -> np.ndarray:
    """The points moved by (x, y)."""
    return points + np.array((x, y))


def turned(points: np.ndarray, angle: float, about: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """The points turned by `angle` radians (clockwise on screen, y down)."""
    c, s = np.cos(angle), np.sin(angle)
    return (points - about) @ np.array([[c, s], [-s, c]]) + about
