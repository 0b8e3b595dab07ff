"""Where the camera looks: still, panning, zooming or shaking."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class View:
    """One frame's window on the scene: centre in frame heights, zoom 1 = one frame height is one unit."""

    x: float
    y: float
    zoom: float


@dataclass(frozen=True, slots=True)
class Camera:
    """A move from one view to another over `length_s` seconds, with shake (frame heights)."""

    start: View
    stop: View
    length_s: float
    shake: float = 0.0
    phase: float = 0.0

    @property
    def still(self) -> bool:
        """Whether every frame shows the same window."""
        return self.start == self.stop and not self.shake

    @property
    def reach(self) -> tuple[float, float, float]:
        """(x, y, zoom): the farthest the centre gets from the origin, and the largest zoom."""
        x = max(abs(self.start.x), abs(self.stop.x)) + self.shake
        y = max(abs(self.start.y), abs(self.stop.y)) + self.shake
        return x, y, max(self.start.zoom, self.stop.zoom)

    def at(self, time_s: float) -> View:
        """The view at a time in seconds."""
        if self.still:
            return self.start
        share = min(max(time_s / self.length_s, 0.0), 1.0) if self.length_s > 0 else 0.0
        share = share * share * (3 - 2 * share)
        mix = lambda a, b: a + (b - a) * share  # noqa: E731
        x, y = mix(self.start.x, self.stop.x), mix(self.start.y, self.stop.y)
        if self.shake:
            x += self.shake * float(np.sin(61 * time_s + self.phase))
            y += self.shake * float(np.sin(47 * time_s + 2 * self.phase))
        return View(x, y, mix(self.start.zoom, self.stop.zoom))


def random_camera(rng: np.random.Generator, length_s: float) -> Camera:
    """Mostly still; else a pan, a zoom or both, now and then shaking."""
    zoom = float(rng.uniform(1.0, 1.15))
    start = View(float(rng.normal(0, 0.08)), float(rng.normal(0, 0.04)), zoom)
    kind = rng.random()
    if kind < 0.62:
        return Camera(start, start, length_s)
    stop = start
    if kind < 0.84 or kind > 0.95:
        stop = View(start.x + float(rng.normal(0, 0.25)), start.y + float(rng.normal(0, 0.08)), start.zoom)
    if kind > 0.8:
        stop = View(stop.x, stop.y, float(rng.uniform(1.0, 1.45)))
        if rng.random() < 0.5:
            start, stop = stop, start
    clip = lambda v: View(float(np.clip(v.x, -0.45, 0.45)), float(np.clip(v.y, -0.2, 0.2)), v.zoom)  # noqa: E731
    shake = float(rng.uniform(0.002, 0.01)) if rng.random() < 0.2 else 0.0
    return Camera(clip(start), clip(stop), length_s, shake, float(rng.uniform(0, 6)))
