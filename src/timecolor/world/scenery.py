"""Background plates: rooms, landscapes, streets, seas, and the plain, graded or blurred grounds that many shots have.

Scene space: the frame at zoom 1 is one unit high about the origin; plates reach a little beyond it, so that the camera can move.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from timecolor.world.curves import box, ellipse, smooth
from timecolor.world.draw import Drawing
from timecolor.world.palette import Light, random_colour

KINDS = ("white", "solid", "gradient", "blurred", "room", "land", "street", "sea", "abstract", "wall")
_SHARES = (0.08, 0.05, 0.05, 0.1, 0.27, 0.2, 0.14, 0.06, 0.02, 0.03)
_SHIFT = 4


@dataclass(slots=True)
class Plate:
    """A plate being painted. colour: uint8 (h, w, 3); ink: line cover, uint8 (h, w).

    scale: pixels per unit; origin: pixel of (0, 0); line: line width, pixels.
    """

    colour: np.ndarray
    ink: np.ndarray
    scale: float
    origin: tuple[float, float]
    line: float
    light: Light

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        pixels = np.clip(points * self.scale + self.origin - 0.5, -4000, 8000)
        return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)

    def area(self, points: np.ndarray, colour: np.ndarray, line: float = 1.0) -> None:
        """A flat area with its outline (0 = none). colour: RGB before the light, 0..255."""
        fixed = self._fixed(points)
        shown = self.light.on(colour)
        cv2.fillPoly(self.colour, [fixed], shown.tolist(), cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(self.ink, [fixed], 0, cv2.LINE_8, _SHIFT)
        if line:
            self._trace(fixed, line, True)

    def stroke(self, points: np.ndarray, line: float = 0.8, closed: bool = False) -> None:
        """A line alone."""
        self._trace(self._fixed(points), line, closed)

    def _trace(self, fixed: np.ndarray, line: float, closed: bool) -> None:
        width = self.line * line
        strength = 255 if width >= 1 else max(70, int(255 * width))
        cv2.polylines(self.ink, [fixed], closed, strength, max(1, round(width)), cv2.LINE_AA, _SHIFT)

    def graded(self, top: np.ndarray, bottom: np.ndarray, y0: float, y1: float) -> None:
        """A vertical gradient over the whole width between two heights."""
        a, b = round(y0 * self.scale + self.origin[1]), round(y1 * self.scale + self.origin[1])
        rows = np.arange(self.colour.shape[0])
        share = np.clip((rows - a) / max(b - a, 1), 0, 1)[:, None]
        shown = self.light.on(top + (bottom - top) * share)
        a, b = max(a, 0), min(b, len(rows))
        if b > a:
            self.colour[a:b] = np.rint(shown[a:b]).astype(np.uint8)[:, None]
            self.ink[a:b] = 0


def _shade(colour: np.ndarray, by: float) -> np.ndarray:
    return np.clip(colour * by, 0, 255)


def _cloud(plate: Plate, rng: np.random.Generator, colour: np.ndarray, line: float) -> None:
    x, y = rng.uniform(-1.2, 1.2), rng.uniform(-0.55, -0.1)
    size = rng.uniform(0.08, 0.22)
    count = int(rng.integers(5, 9))
    t = np.linspace(0, np.pi, count)
    top = np.stack([x - np.cos(t) * size, y - np.sin(t) * size * 0.45 * rng.uniform(0.6, 1.2, count)], 1)
    middle = (top[1:] + top[:-1]) / 2 + np.array([0, -0.35 * size])
    points = np.empty((2 * count - 1, 2))
    points[::2], points[1::2] = top, middle
    plate.area(smooth(points, 3), colour, line)


def _tree(
    plate: Plate, rng: np.random.Generator, x: float, y: float, size: float, leaf: np.ndarray, trunk: np.ndarray, line: float
) -> None:
    plate.area(
        np.array(
            [[x - size * 0.06, y], [x + size * 0.06, y], [x + size * 0.04, y - size * 0.5], [x - size * 0.04, y - size * 0.5]]
        ),
        trunk,
        line,
    )
    if rng.random() < 0.35:
        for k in range(3):
            half, low = size * (0.34 - 0.08 * k), y - size * (0.3 + 0.22 * k)
            plate.area(np.array([[x - half, low], [x + half, low], [x, low - size * 0.42]]), leaf * (1 + 0.06 * k), line)
        return
    count = int(rng.integers(7, 12))
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    r = size * rng.uniform(0.26, 0.42, count)
    crown = smooth(np.stack([x + np.cos(t) * r, y - size * 0.72 + np.sin(t) * r * 0.9], 1), 3)
    plate.area(crown, leaf, line)
    plate.area((crown - (x, y - size * 0.72)) * 0.55 + (x - size * 0.06, y - size * 0.8), np.clip(leaf * 1.15, 0, 255), 0.0)


def _house(plate: Plate, rng: np.random.Generator, x: float, y: float, size: float, line: float) -> None:
    wall, roof, glass = random_colour(rng), random_colour(rng), random_colour(rng, "pastel")
    wide, high = size * rng.uniform(0.7, 1.4), size * rng.uniform(0.6, 1.8)
    plate.area(box(x - wide / 2, y - high, x + wide / 2, y), wall, line)
    if rng.random() < 0.6:
        plate.area(np.array([[x - wide * 0.6, y - high], [x + wide * 0.6, y - high], [x, y - high - size * 0.45]]), roof, line)
    columns, rows = int(rng.integers(1, 4)), max(1, int(high / size * 2))
    for i in range(columns):
        for j in range(rows):
            cx = x + wide * ((i + 0.5) / columns - 0.5)
            cy = y - high + high * (j + 0.4) / rows
            plate.area(box(cx - wide * 0.1, cy - size * 0.09, cx + wide * 0.1, cy + size * 0.09), glass, line * 0.8)
    if rng.random() < 0.7:
        plate.area(box(x - wide * 0.09, y - size * 0.32, x + wide * 0.09, y), roof, line)


def _hills(
    plate: Plate, rng: np.random.Generator, base: float, height: float, colour: np.ndarray, line: float, jagged: bool
) -> None:
    count = int(rng.integers(6, 12))
    x = np.linspace(-2, 2, count)
    y = base - height * rng.random(count)
    top = np.stack([x, y], 1)
    top = top if jagged else smooth(top, 6, False)
    plate.area(np.concatenate([top, [[2.2, 1.2], [-2.2, 1.2]]]), colour, line)


def _sky(plate: Plate, rng: np.random.Generator, horizon: float, line: float) -> None:
    if rng.random() < 0.6:
        top = np.array([rng.uniform(40, 130), rng.uniform(120, 190), rng.uniform(200, 250)])
        low = np.array([rng.uniform(170, 240), rng.uniform(215, 245), 250.0])
    else:
        top, low = random_colour(rng), random_colour(rng, "pastel")
    plate.graded(low, low, -1.2, 1.2)
    plate.graded(top, low, -1.2, horizon + 0.05)
    if rng.random() < 0.3:
        plate.area(ellipse(rng.uniform(-0.7, 0.7), rng.uniform(-0.4, -0.1), 0.08, 0.08), random_colour(rng, "vivid"), line)
    cloud = np.array([250.0, 250, 252]) if rng.random() < 0.7 else random_colour(rng, "pastel")
    for _ in range(int(rng.integers(0, 6))):
        _cloud(plate, rng, cloud, line)


def _land(plate: Plate, rng: np.random.Generator, line: float) -> None:
    horizon = float(rng.uniform(-0.1, 0.3))
    _sky(plate, rng, horizon, line)
    for k in range(int(rng.integers(0, 4))):
        far = random_colour(rng, ("mid", "pastel", "grey")[int(rng.integers(3))])
        _hills(plate, rng, horizon + 0.06 * k, float(rng.uniform(0.05, 0.3)), far, line, rng.random() < 0.3)
    ground = (
        random_colour(rng, "mid")
        if rng.random() < 0.4
        else np.array([rng.uniform(70, 190), rng.uniform(130, 210), rng.uniform(40, 110)])
    )
    plate.graded(ground, ground * rng.uniform(0.7, 1.0), horizon + 0.1, 1.2)
    plate.stroke(np.array([[-2.2, horizon + 0.1], [2.2, horizon + 0.1]]), line)
    if rng.random() < 0.4:
        a, b, w = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(0.2, 0.5)
        path = np.array([[a - 0.03, horizon + 0.1], [a + 0.03, horizon + 0.1], [b + w, 1.0], [b - w, 1.0]])
        plate.area(path, random_colour(rng, "pastel"), line)
    leaf, trunk = random_colour(rng, "mid"), random_colour(rng, "dark")
    if rng.random() < 0.6:
        leaf = np.array([rng.uniform(20, 130), rng.uniform(90, 170), rng.uniform(20, 90)])
    for _ in range(int(rng.integers(0, 6))):
        y = horizon + rng.uniform(0.08, 0.35)
        _tree(plate, rng, rng.uniform(-1.1, 1.1), y, 0.25 + (y - horizon) * 1.6, leaf * rng.uniform(0.85, 1.15), trunk, line)
    if rng.random() < 0.3:
        _house(plate, rng, rng.uniform(-0.8, 0.8), horizon + 0.15, rng.uniform(0.15, 0.4), line)
    if rng.random() < 0.3:
        _fence(plate, rng, horizon + 0.3, line)


def _fence(plate: Plate, rng: np.random.Generator, y: float, line: float) -> None:
    colour, high, step = random_colour(rng), rng.uniform(0.1, 0.25), rng.uniform(0.06, 0.2)
    for k in (0.3, 0.75):
        plate.area(box(-2.2, y - high * k - 0.015, 2.2, y - high * k + 0.015), colour, line)
    for x in np.arange(-1.6, 1.6, step):
        plate.area(box(x - 0.015, y - high, x + 0.015, y), colour, line)


def _street(plate: Plate, rng: np.random.Generator, line: float) -> None:
    ground = float(rng.uniform(0.1, 0.35))
    _sky(plate, rng, ground, line)
    x = -1.5
    while x < 1.5:
        size = float(rng.uniform(0.2, 0.5))
        _house(plate, rng, x, ground, size, line)
        x += size * float(rng.uniform(0.8, 1.5))
    plate.graded(random_colour(rng, "grey"), random_colour(rng, "grey"), ground, 1.2)
    plate.stroke(np.array([[-2.2, ground], [2.2, ground]]), line)
    plate.area(box(-2.2, ground, 2.2, ground + 0.05), random_colour(rng, "grey"), line)
    for k in range(-6, 7):
        plate.area(
            np.array([[k * 0.4, 0.45], [k * 0.4 + 0.2, 0.45], [k * 0.4 + 0.19, 0.475], [k * 0.4 - 0.01, 0.475]]),
            np.full(3, 240.0),
            line * 0.8,
        )


def _sea(plate: Plate, rng: np.random.Generator, line: float) -> None:
    horizon = float(rng.uniform(-0.15, 0.15))
    _sky(plate, rng, horizon, line)
    water = (
        np.array([rng.uniform(20, 110), rng.uniform(110, 190), rng.uniform(150, 230)])
        if rng.random() < 0.7
        else random_colour(rng)
    )
    plate.graded(water, water * 0.8, horizon, 1.2)
    plate.stroke(np.array([[-2.2, horizon], [2.2, horizon]]), line)
    for _ in range(int(rng.integers(3, 12))):
        x, y, w = rng.uniform(-1, 1), horizon + rng.uniform(0.03, 0.3), rng.uniform(0.04, 0.15)
        wave = smooth(np.array([[x - w, y], [x - w / 2, y - 0.012], [x, y], [x + w / 2, y - 0.012], [x + w, y]]), 3, False)
        plate.stroke(wave, line * 0.8)
    if rng.random() < 0.5:
        x, y = rng.uniform(-0.8, 0.8), horizon + 0.02
        plate.area(np.array([[x - 0.09, y], [x + 0.09, y], [x + 0.06, y + 0.05], [x - 0.06, y + 0.05]]), random_colour(rng), line)
        plate.area(np.array([[x, y - 0.01], [x, y - 0.2], [x + 0.09, y - 0.03]]), random_colour(rng, "pale"), line)
    if rng.random() < 0.7:
        shore = float(rng.uniform(0.2, 0.4))
        top = smooth(np.stack([np.linspace(-2.2, 2.2, 8), shore + rng.normal(0, 0.02, 8)], 1), 5, False)
        plate.area(np.concatenate([top, [[2.2, 1.2], [-2.2, 1.2]]]), random_colour(rng, "pastel"), line)


def _room(plate: Plate, rng: np.random.Generator, line: float) -> None:
    floor = float(rng.uniform(0.15, 0.45))
    wall = random_colour(rng, ("pastel", "pale", "mid", "grey", "dark")[rng.choice(5, p=(0.35, 0.2, 0.2, 0.15, 0.1))])
    plate.graded(wall, wall * rng.uniform(0.85, 1.0), -1.2, floor)
    style = rng.random()
    if style < 0.3:
        step = rng.uniform(0.06, 0.25)
        for x in np.arange(-1.6, 1.6, step):
            if style < 0.12:
                plate.area(box(x, -1.2, x + step / 2, floor), _shade(wall, 0.93), line * 0.7)
            else:
                plate.stroke(np.array([[x, -1.2], [x, floor]]), line * 0.7)
    elif style < 0.4:
        for y in np.arange(-0.8, floor, 0.12):
            plate.stroke(np.array([[-2.2, y], [2.2, y]]), line * 0.7)
    ground = random_colour(rng)
    plate.graded(ground, ground * 0.9, floor, 1.2)
    if rng.random() < 0.4:
        for x in np.linspace(-3, 3, 16):
            plate.stroke(np.array([[x * 0.5, floor], [x * 1.4, 1.2]]), line * 0.7)
    plate.area(box(-2.2, floor - 0.035, 2.2, floor), _shade(wall, rng.uniform(0.5, 1.1)), line)
    if rng.random() < 0.35:
        _panes(plate, rng, floor, line)
    spots = list(rng.permutation(np.linspace(-1.0, 1.0, 11)))
    for _ in range(int(rng.integers(2, 11))):
        x = float(spots.pop())
        kind = rng.integers(7)
        colour, other = random_colour(rng), random_colour(rng)
        if kind == 0:  # window
            w, h, y = rng.uniform(0.12, 0.25), rng.uniform(0.15, 0.3), rng.uniform(-0.3, -0.1)
            plate.area(box(x - w, y - h, x + w, y + h), colour, line)
            plate.area(box(x - w + 0.02, y - h + 0.02, x + w - 0.02, y + h - 0.02), random_colour(rng, "pastel"), line)
            plate.area(box(x - 0.01, y - h, x + 0.01, y + h), colour, line * 0.8)
            plate.area(box(x - w, y - 0.01, x + w, y + 0.01), colour, line * 0.8)
            if rng.random() < 0.5:
                for side in (-1, 1):
                    curtain = np.array(
                        [
                            [x + side * (w + 0.05), y - h - 0.04],
                            [x + side * w * 0.55, y - h - 0.04],
                            [x + side * w * 0.75, y + h],
                            [x + side * (w + 0.07), y + h + 0.05],
                        ]
                    )
                    plate.area(curtain, other, line)
        elif kind == 1:  # door
            plate.area(box(x - 0.14, floor - 0.62, x + 0.14, floor), colour, line)
            plate.area(box(x - 0.1, floor - 0.56, x + 0.1, floor - 0.34), _shade(colour, 0.9), line)
            plate.area(ellipse(x + 0.1, floor - 0.3, 0.012, 0.012), other, line)
        elif kind == 2:  # shelf with books
            w, y = rng.uniform(0.15, 0.3), rng.uniform(-0.3, 0.0)
            for k in range(int(rng.integers(1, 4))):
                low = y + 0.2 * k
                bx = x - w
                while bx < x + w - 0.03:
                    bw, bh = rng.uniform(0.02, 0.05), rng.uniform(0.09, 0.15)
                    plate.area(box(bx, low - bh, bx + bw, low), random_colour(rng), line * 0.8)
                    bx += bw
                plate.area(box(x - w - 0.02, low, x + w + 0.02, low + 0.02), colour, line)
        elif kind == 3:  # picture
            w, h, y = rng.uniform(0.06, 0.15), rng.uniform(0.06, 0.14), rng.uniform(-0.35, -0.1)
            plate.area(box(x - w, y - h, x + w, y + h), colour, line)
            plate.area(box(x - w * 0.8, y - h * 0.8, x + w * 0.8, y + h * 0.8), other, line)
            plate.area(ellipse(x, y, w * 0.4, h * 0.5), random_colour(rng), line)
        elif kind == 4:  # table
            w, y = rng.uniform(0.15, 0.35), floor - rng.uniform(0.08, 0.22)
            for side in (-0.85, 0.85):
                plate.area(box(x + side * w - 0.015, y, x + side * w + 0.015, floor + 0.06), _shade(colour, 0.8), line)
            plate.area(box(x - w, y - 0.03, x + w, y), colour, line)
            plate.area(box(x - 0.03, y - 0.1, x + 0.03, y - 0.03), other, line)
        elif kind == 5:  # sofa
            w, y = rng.uniform(0.2, 0.4), floor + 0.05
            plate.area(smooth(box(x - w, y - 0.35, x + w, y), 4), colour, line)
            plate.area(box(x - w * 0.9, y - 0.16, x + w * 0.9, y), _shade(colour, 1.1), line)
            for side in (-1, 1):
                plate.area(smooth(box(x + side * w - 0.06, y - 0.22, x + side * w + 0.06, y), 3), _shade(colour, 0.9), line)
        else:  # lamp or plant
            plate.area(box(x - 0.01, floor - 0.4, x + 0.01, floor), other, line)
            plate.area(
                np.array([[x - 0.06, floor - 0.52], [x + 0.06, floor - 0.52], [x + 0.1, floor - 0.38], [x - 0.1, floor - 0.38]]),
                colour,
                line,
            )


def _panes(plate: Plate, rng: np.random.Generator, floor: float, line: float) -> None:
    """A row of tall windows or lockers along the wall, as in corridors and classrooms."""
    frame, step = random_colour(rng), float(rng.uniform(0.18, 0.45))
    top, low = float(rng.uniform(-0.7, -0.3)), floor - float(rng.uniform(0.03, 0.35))
    glass, lower = random_colour(rng, "pastel"), random_colour(rng, "pale")
    for x in np.arange(-1.6, 1.6, step):
        plate.area(box(x, top, x + step, low), frame, line)
        middle = top + (low - top) * 0.3
        plate.area(box(x + 0.02, top + 0.02, x + step - 0.02, middle), glass, line)
        plate.area(box(x + 0.02, middle + 0.02, x + step - 0.02, low - 0.02), lower, line)
        glare = np.array(
            [
                [x + step * 0.3, middle + 0.02],
                [x + step * 0.5, middle + 0.02],
                [x + step * 0.3, low - 0.02],
                [x + step * 0.1, low - 0.02],
            ]
        )
        plate.area(glare, np.clip(lower * 1.1 + 8, 0, 255), 0.0)


FOREGROUND_SLOTS = 6


def foreground(rng: np.random.Generator, half_width: float) -> Drawing:
    """Something of the background that stands before the characters: a fence, a table, leaves, a post or a window's frame."""
    drawing = Drawing()
    kind = rng.integers(5)
    y = float(rng.uniform(0.2, 0.38))
    if kind == 0:
        step, high = float(rng.uniform(0.1, 0.3)), float(rng.uniform(0.15, 0.3))
        for share in (0.15, 0.6):
            drawing.fill(box(-2.5, y + high * share, 2.5, y + high * share + 0.04), 0)
        for x in np.arange(-2.0, 2.0, step):
            drawing.fill(box(float(x), y, float(x) + 0.04, 1.0), 1)
    elif kind == 1:
        x, wide = float(rng.uniform(-0.5, 0.5)), float(rng.uniform(0.4, 1.5))
        drawing.fill(box(x - wide, y + 0.04, x + wide, 1.2), 1)
        drawing.shade(0.03)
        drawing.fill(box(x - wide - 0.04, y, x + wide + 0.04, y + 0.05), 0)
        for k in range(int(rng.integers(0, 4))):
            at, size = x + wide * float(rng.uniform(-0.9, 0.9)), float(rng.uniform(0.03, 0.07))
            drawing.fill(box(at - size, y - size * 2.2, at + size, y + 0.01), 2 + k)
            drawing.shade(size * 0.6)
    elif kind == 2:
        for k in range(int(rng.integers(4, 14))):
            x, size, lean = float(rng.uniform(-1.0, 1.0)), float(rng.uniform(0.1, 0.3)), float(rng.normal(0, 0.1))
            half = size * 0.2
            leaf = np.array(
                [
                    [x - half, 0.6],
                    [x + lean - half, 0.55 - size * 0.6],
                    [x + 2 * lean, 0.5 - size],
                    [x + half, 0.6],
                ]
            )
            drawing.fill(smooth(leaf, 3), k % 4)
            drawing.stroke(leaf[[0, 2]], 0.6)
    elif kind == 3:
        x, wide = float(rng.uniform(-1.0, 1.0)) * half_width * 0.8, float(rng.uniform(0.02, 0.1))
        drawing.fill(box(x - wide, -1.2, x + wide, 1.2), 0)
        drawing.shade(wide * 0.6)
    else:
        wide = float(rng.uniform(0.03, 0.12))
        for x in (-half_width, half_width):
            drawing.fill(box(x - wide, -1.2, x + wide, 1.2), 0)
        drawing.fill(box(-2.5, 0.5 - wide, 2.5, 1.2), 0)
        drawing.shade(wide * 0.4)
    return drawing


def _wall(plate: Plate, rng: np.random.Generator, line: float) -> None:
    """Bricks, boards, tiles or blinds close up."""
    colour = random_colour(rng)
    plate.graded(colour, colour * rng.uniform(0.6, 1.0), -1.2, 1.2)
    wide, high = rng.uniform(0.1, 0.5), rng.uniform(0.04, 0.2)
    tilt = rng.normal(0, 0.15)
    for j, y in enumerate(np.arange(-1.0, 1.0, high)):
        plate.stroke(np.array([[-1.8, y - tilt], [1.8, y + tilt]]), line * 0.9)
        for x in np.arange(-1.8, 1.8, wide) if rng.random() < 0.8 else ():
            a = x + (wide / 2 if j % 2 else 0)
            drop = tilt * a / 1.8
            plate.stroke(np.array([[a, y + drop], [a, y + high + drop]]), line * 0.9)
            if rng.random() < 0.1:
                plate.area(box(a, y + drop, a + wide, y + high + drop), _shade(colour, rng.uniform(0.8, 1.15)), line * 0.9)


def _abstract(plate: Plate, rng: np.random.Generator, line: float) -> None:
    plate.graded(random_colour(rng), random_colour(rng), -1.2, 1.2)
    x, y = rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.3)
    if rng.random() < 0.5:
        colour = random_colour(rng)
        for angle in np.arange(0, 2 * np.pi, 0.4):
            fan = np.array(
                [
                    [x, y],
                    [x + 3 * np.cos(angle), y + 3 * np.sin(angle)],
                    [x + 3 * np.cos(angle + 0.2), y + 3 * np.sin(angle + 0.2)],
                ]
            )
            plate.area(fan, colour, line)
        return
    for _ in range(int(rng.integers(4, 14))):
        r = rng.uniform(0.03, 0.3)
        plate.area(ellipse(rng.uniform(-1, 1), rng.uniform(-0.6, 0.6), r, r, count=48), random_colour(rng), line)


def _brushed(rng: np.random.Generator, colour: np.ndarray, scale: float) -> np.ndarray:
    """The picture gone over with short strokes of its own colours, as painted backgrounds are."""
    height, width = colour.shape[:2]
    over = colour.copy()
    slope = rng.normal(0, 1.0)
    for _ in range(int(rng.integers(30, 160))):
        x, y = rng.uniform(0, 1) * width, rng.uniform(0, 1) * height
        tone = colour[min(int(y), height - 1), min(int(x), width - 1)] * rng.uniform(0.8, 1.2)
        angle, length = slope + rng.normal(0, 0.3), rng.uniform(0.02, 0.12) * scale
        end = (x + np.cos(angle) * length, y + np.sin(angle) * length)
        points = np.rint(np.array([(x, y), end]) * (1 << _SHIFT)).astype(np.int32)
        thickness = max(1, round(rng.uniform(0.004, 0.025) * scale))
        cv2.polylines(over, [points], False, np.clip(tone, 0, 255).tolist(), thickness, cv2.LINE_AA, _SHIFT)
    return cv2.addWeighted(over, 0.6, colour, 0.4, 0.0)


def paint_plate(
    seed: tuple[int, ...], scale: float, half: tuple[float, float], line: float, light: Light, plain: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """A plate without characters: colours uint8 (h, w, 3) without lines, and its line cover uint8 (h, w).

    scale: pixels per unit. half: half width and height to be covered, units. line: line width, pixels.
    plain: it may be empty paper. The same seed gives the same scene at any size.
    """
    rng = np.random.default_rng(seed)
    width, height = max(2, 2 * round(half[0] * scale)), max(2, 2 * round(half[1] * scale))
    plate = Plate(
        np.zeros((height, width, 3), np.uint8),
        np.zeros((height, width), np.uint8),
        scale,
        (width / 2, height / 2),
        line,
        light,
    )
    kind = KINDS[rng.choice(len(KINDS), p=_SHARES)]
    if not plain and kind in ("white", "solid", "gradient"):
        kind = "land"
    if kind == "white":
        plate.colour[:] = 255
        return plate.colour, plate.ink
    if kind == "solid":
        plate.colour[:] = light.on(random_colour(rng))
        return plate.colour, plate.ink
    if kind == "gradient":
        plate.graded(random_colour(rng), random_colour(rng), -0.6, 0.6)
        return plate.colour, plate.ink
    drawn = rng.random() > 0.38
    painter = {"room": _room, "land": _land, "street": _street, "sea": _sea, "wall": _wall, "abstract": _abstract}
    names = tuple(painter)
    faint = float(rng.uniform(0.5, 1.1))
    painter[kind if kind in painter else names[int(rng.integers(len(names)))]](plate, rng, faint)
    colour, ink = plate.colour, plate.ink
    if kind == "blurred":
        blur = float(rng.uniform(0.015, 0.06)) * scale
        colour = cv2.GaussianBlur(colour, (0, 0), max(blur, 0.5))
        ink[:] = 0
    elif not drawn:
        ink[:] = 0
        if rng.random() < 0.5:
            colour = cv2.GaussianBlur(colour, (0, 0), max(0.004 * scale, 0.3))
    if kind != "blurred" and (not drawn or rng.random() < 0.2):
        colour = _brushed(rng, colour, scale)
    if rng.random() < (0.35 if drawn else 0.7):
        # Painted texture: noise made at fixed sizes, so that it is the same at every size.
        cloud = np.zeros((height, width), np.float32)
        for rows in (6, 24, 96)[: int(rng.integers(1, 4))]:
            rough = rng.standard_normal((rows, 2 * rows), dtype=np.float32)
            cloud += cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC) * float(rng.uniform(0.005, 0.045))
        colour = np.clip(colour * (1 + cloud[..., None]), 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        glow = np.exp(-(((xs - x) ** 2 + (ys - y) ** 2) / (0.6 * scale) ** 2)) * float(rng.uniform(-0.35, 0.35))
        colour = np.clip(colour * (1 + glow[..., None]), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(colour), ink
