"""Drawings (lists of shapes, back to front) and the canvas that paints them as colour indices and ink.

The canvas is twice the frame's size. It holds an index plane (palette slots, two indices to a slot: lit and shaded; 0 and 1 are
transparent) and an ink plane (line strength). Painting a shape hides the ink under it, so what is in front hides what is behind.
Colours, labels and anti-aliasing all come from the index plane in the end, which keeps them aligned exactly.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

FILL, CLIP, SHADE, SHADE_IN, LIT_IN, STROKE, SOLID = range(7)
SHADOW_BORDER, LIGHT_BORDER = 2, 3  # codes in the ink plane, below any line
_SHIFT = 4
_FAR = 6000.0  # pixels; beyond this OpenCV's fixed point would overflow

Clip = tuple[int, int, int, int]


@dataclass(slots=True)
class Drawing:
    """Shapes back to front, in one coordinate system. `slot`s are colours of the owner's palette; line widths are relative."""

    points: list[np.ndarray] = field(default_factory=list)
    shapes: list[tuple[int, int, float, bool]] = field(default_factory=list)  # kind, slot, line width or amount, closed
    head: tuple[float, float, float] | None = None  # x, y and height of the head, if there is one

    def _add(self, kind: int, points: np.ndarray, slot: int, amount: float, closed: bool) -> None:
        self.points.append(points)
        self.shapes.append((kind, slot, amount, closed))

    def fill(self, points: np.ndarray, slot: int, line: float = 1.0, closed: bool = True) -> None:
        """A filled area with its outline. line: 0 = none. closed: False leaves the side from last to first point open."""
        self._add(FILL, points, slot, line, closed)

    def inside(self, points: np.ndarray, slot: int, line: float = 0.0) -> None:
        """An area that shows only within the last `fill`."""
        self._add(CLIP, points, slot, line, True)

    def shade(self, amount: float) -> None:
        """Shade the last `fill` on the side away from the light, over a width of `amount`."""
        if amount > 0:
            self._add(SHADE, self.points[-1][:1], 0, amount, True)

    def shade_in(self, points: np.ndarray) -> None:
        """A cast shadow: shade this area of the last `fill`."""
        self._add(SHADE_IN, points, 0, 0.0, True)

    def light_in(self, points: np.ndarray, slot: int) -> None:
        """A highlight within the last `fill`."""
        self._add(LIT_IN, points, slot, 0.0, True)

    def stroke(self, points: np.ndarray, line: float = 1.0, closed: bool = False) -> None:
        """A line alone."""
        self._add(STROKE, points, 0, line, closed)

    def solid(self, points: np.ndarray) -> None:
        """An area of solid ink (lashes, brows)."""
        self._add(SOLID, points, 0, 0.0, True)

    def move(self, since: int, linear: np.ndarray, offset: tuple[float, float]) -> None:
        """Transform what was added after the first `since` shapes: p -> linear @ p + offset."""
        turn = linear.T
        for i in range(since, len(self.points)):
            self.points[i] = self.points[i] @ turn + offset

    def bounds(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of all that shows."""
        points = np.concatenate([p for p, shape in zip(self.points, self.shapes, strict=True) if shape[0] == FILL])
        (x0, y0), (x1, y1) = points.min(0), points.max(0)
        return float(x0), float(y0), float(x1), float(y1)


@dataclass(slots=True)
class Canvas:
    """Index and ink planes, uint8 (2h, 2w).

    line: line width in plane pixels. wobble: how much it differs from stroke to stroke. light: where shadows fall, on screen.
    shading, borders: paint two tones, and the lines between them.
    """

    height: int
    width: int
    line: float = 2.0
    wobble: float = 0.0
    shading: bool = True
    borders: bool = False
    light: tuple[float, float] = (0.6, 0.8)
    index: np.ndarray = field(init=False)
    ink: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.index = np.zeros((2 * self.height, 2 * self.width), np.uint8)
        self.ink = np.zeros((2 * self.height, 2 * self.width), np.uint8)

    def paint(self, drawing: Drawing, scale: float, offset: tuple[float, float], base: int, mirror: bool = False) -> None:
        """Paint a drawing: p -> scale * p + offset, in frame pixels. base: palette index of slot 0."""
        if not drawing.shapes:
            return
        rows, columns = self.index.shape
        index, ink = self.index, self.ink
        flat = np.concatenate(drawing.points)
        flat = flat * ((-2 * scale if mirror else 2 * scale), 2 * scale) + (2 * offset[0] - 0.5, 2 * offset[1] - 0.5)
        np.clip(flat, -_FAR, _FAR, out=flat)
        lengths = np.array([len(p) for p in drawing.points])
        stops = np.cumsum(lengths)
        starts = stops - lengths
        low = np.minimum.reduceat(flat, starts, axis=0)
        high = np.maximum.reduceat(flat, starts, axis=0)
        margin = self.line * 2 + 2
        seen = np.asarray((high + margin > 0).all(1) & (low - margin < (columns, rows)).all(1)).tolist()
        boxes = np.concatenate(
            [np.clip(np.floor(low) - 1, 0, (columns, rows)), np.clip(np.ceil(high) + 2, 0, (columns, rows))], 1
        )
        corners: list[list[int]] = boxes.astype(np.int32).tolist()
        fixed = np.rint(flat * (1 << _SHIFT)).astype(np.int32)
        begin, end = starts.tolist(), stops.tolist()

        last = -1  # the last fill, if any of it is in sight
        mask: np.ndarray | None = None
        for i, (kind, slot, amount, closed) in enumerate(drawing.shapes):
            points = fixed[begin[i] : end[i]]
            if kind == FILL:
                mask = None
                last = i if seen[i] else -1
                if last < 0:
                    continue
                cv2.fillPoly(index, [points], base + 2 * slot, shift=_SHIFT)
                cv2.fillPoly(ink, [points], 0, shift=_SHIFT)
                if amount:
                    self._line(ink, points, amount, closed)
                continue
            if kind == STROKE:
                if seen[i]:
                    self._line(ink, points, amount, closed)
                continue
            if kind == SOLID:
                if seen[i]:
                    cv2.fillPoly(ink, [points], 255, shift=_SHIFT)
                continue
            if last < 0 or (not self.shading and kind in (SHADE, SHADE_IN, LIT_IN)) or (kind != SHADE and not seen[i]):
                continue
            # The rest shows only within the last fill.
            x0, y0, x1, y1 = corners[last]
            if x1 <= x0 or y1 <= y0:
                continue
            corner = np.array([x0 << _SHIFT, y0 << _SHIFT], np.int32)
            whole = fixed[begin[last] : end[last]] - corner
            if mask is None:
                mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
                cv2.fillPoly(mask, [whole], 255, shift=_SHIFT)
            view, lines = index[y0:y1, x0:x1], ink[y0:y1, x0:x1]
            if kind == SHADE:
                shift = 2 * scale * amount * (1 << _SHIFT)
                edge = whole - np.rint(np.array(self.light) * shift).astype(np.int32)
                part = mask.copy()
                cv2.fillPoly(part, [edge], 0, shift=_SHIFT)
                part &= 1
                cv2.bitwise_or(view, part, dst=view)
            else:
                edge = points - corner
                part = np.zeros_like(mask)
                cv2.fillPoly(part, [edge], 255, shift=_SHIFT)
                part &= mask
                if kind == SHADE_IN:
                    part &= 1
                    cv2.bitwise_or(view, part, dst=view)
                else:
                    view[part > 0] = base + 2 * slot
            if (kind == CLIP and amount) or (kind != CLIP and self.borders):
                part[:] = 0
                if kind == CLIP:
                    self._line(part, edge, amount, closed)
                else:
                    code = LIGHT_BORDER if kind == LIT_IN else SHADOW_BORDER
                    cv2.polylines(part, [edge], True, code, max(1, round(self.line * 0.7)), shift=_SHIFT)
                part[mask == 0] = 0
                cv2.max(lines, part, dst=lines)

    def _line(self, plane: np.ndarray, points: np.ndarray, amount: float, closed: bool) -> None:
        width = self.line * amount
        if self.wobble:
            # Widths differ from stroke to stroke but not from frame to frame: the number of points is the stroke's fingerprint.
            width *= 1 + self.wobble * (((len(points) * 37) % 17) / 8 - 1)
        strength = 255 if width >= 1 else max(60, int(255 * width))
        cv2.polylines(plane, [points], closed, strength, max(1, round(width)), shift=_SHIFT)
