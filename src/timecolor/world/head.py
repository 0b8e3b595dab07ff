"""Heads: skull, face and hair of people and mascots, seen from any side.

Head space: the centre is (0, 0), the skull's top y = -0.5, the chin y = 0.5, x to the right on screen.
Yaw turns about the vertical axis; 0 faces us.
"""

from dataclasses import dataclass

import numpy as np

from timecolor.world.curves import ellipse, moved, ribbon, smooth
from timecolor.world.draw import Drawing
from timecolor.world.motion import Pose
from timecolor.world.palette import Slot

EYE_STYLES = ("anime", "almond", "western", "dot")
HAIR_STYLES = ("short", "bob", "long", "twintails", "ponytail", "buns", "spiky", "bald")
HATS = ("cap", "beanie", "brim", "helmet", "headband", "bow", "crown")


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A head's design. Lengths in head heights.

    hair_angle, hair_fall (n,): the hair's lower edge round the head, as angle (0 = front) and height; alternates notch, tip.
    strands (n, 3): lines within the hair as angle, height of their start, and length.
    """

    width: float
    jaw: float
    chin: float
    eye_style: str
    eye_size: float
    eye_apart: float
    eye_height: float
    iris_share: float
    brow_weight: float
    nose: float
    nose_style: int
    blush: bool
    freckles: bool
    hair: str
    hair_volume: float
    hair_angle: np.ndarray
    hair_fall: np.ndarray
    hair_flare: float
    hair_lines: np.ndarray
    strands: np.ndarray
    hair_shine: float
    spikes: np.ndarray
    tail_length: float
    tail_width: float
    ahoge: float
    hat: str
    glasses: int
    ears: str
    beard: int
    ear_size: float
    muzzle: float


def _fringe(rng: np.random.Generator, hair: str) -> tuple[np.ndarray, np.ndarray]:
    """The hair's lower edge round the head."""
    count = int(rng.integers(9, 20))
    steps = rng.uniform(0.5, 1.5, count)
    tips = np.cumsum(steps) / steps.sum() * 2 * np.pi - np.pi
    fringe = float(rng.uniform(-0.24, 0.0))
    side = float(rng.uniform(-0.05, 0.15)) if hair in ("short", "spiky", "ponytail", "buns") else float(rng.uniform(0.1, 0.6))
    nape = {"short": 0.28, "spiky": 0.28, "bob": 0.5, "long": 1.1, "twintails": 0.22, "ponytail": 0.2, "buns": 0.22, "bald": 0.3}[
        hair
    ]
    nape = nape * float(rng.uniform(0.8, 1.35)) + (float(rng.uniform(0, 1.2)) if hair == "long" else 0.0)
    parting = float(rng.normal(0, 0.5))
    depth = float(rng.uniform(0.04, 0.24)) if rng.random() < 0.8 else 0.015

    def edge(angle: np.ndarray) -> np.ndarray:
        off = np.abs(angle)
        front = fringe - 0.05 * np.cos(2 * (angle - parting))
        mid = np.where(off < 0.95, front, np.where(off < 1.6, side, nape))
        return np.where((off > 1.6) & (off < 1.9) & (nape > 0.4), (side + nape) / 2, mid)

    notch = tips - np.diff(tips, prepend=tips[-1] - 2 * np.pi) / 2
    fall = edge(tips) + rng.uniform(-0.3, 1.0, count) * depth * 0.6
    rise = edge(notch) - depth * rng.uniform(0.3, 1.1, count) - np.where(np.abs(notch) < 1.0, 0.03, 0.0)
    if rng.random() < 0.3:  # parted: the forehead shows
        near = np.abs(notch - parting) < 0.35
        rise = np.where(near, -0.42, rise)
    angle = np.stack([notch, tips], 1).ravel()
    height = np.stack([rise, fall], 1).ravel()
    return angle, np.clip(height, -0.43, 2.6)


def random_head(rng: np.random.Generator, tradition: str) -> Head:
    """A head in one drawing tradition: anime, western, chibi, slim or mascot."""
    mascot = tradition == "mascot"
    if mascot:
        hair = "bald" if rng.random() < 0.8 else "short"
    else:
        hair = HAIR_STYLES[rng.choice(8, p=(0.22, 0.16, 0.2, 0.09, 0.1, 0.06, 0.15, 0.02))]
    angle, fall = _fringe(rng, hair)
    eyes = {
        "anime": ("anime",) * 5 + ("almond",),
        "chibi": ("anime", "anime", "dot"),
        "western": ("western", "western", "dot", "almond"),
        "slim": ("almond", "almond", "anime"),
        "mascot": ("western", "dot", "anime"),
    }[tradition]
    eye_style = eyes[rng.integers(len(eyes))]
    size = {"anime": (0.1, 0.155), "almond": (0.065, 0.095), "western": (0.08, 0.15), "dot": (0.03, 0.055)}[eye_style]
    ears = "human"
    if mascot:
        ears = ("cat", "dog", "bunny", "bear")[rng.integers(4)]
    elif rng.random() < 0.1:
        ears = ("cat", "bunny", "elf", "elf")[rng.integers(4)]
    count = int(rng.integers(7, 15)) if hair == "spiky" or (hair == "short" and rng.random() < 0.4) else 0
    strands = int(rng.integers(0, 26)) if tradition != "western" else int(rng.integers(0, 8))
    return Head(
        width=float(rng.uniform(0.37, 0.45) if tradition in ("anime", "slim") else rng.uniform(0.42, 0.56)),
        jaw=float(rng.uniform(1.5, 2.4) if tradition == "anime" else rng.uniform(1.6, 3.6)),
        chin=float(rng.uniform(0.02, 0.1) if tradition == "anime" else rng.uniform(0.05, 0.22)),
        eye_style=eye_style,
        eye_size=float(rng.uniform(*size)) * (1.2 if tradition == "chibi" else 1.0),
        eye_apart=float(rng.uniform(0.36, 0.52)),
        eye_height=float(rng.uniform(0.04, 0.16)) if tradition != "western" else float(rng.uniform(-0.1, 0.08)),
        iris_share=float(rng.uniform(0.62, 0.9)) if eye_style == "anime" else float(rng.uniform(0.35, 0.7)),
        brow_weight=float(rng.uniform(0.004, 0.022)),
        nose=float(rng.uniform(0.02, 0.06)) if tradition in ("anime", "chibi") else float(rng.uniform(0.04, 0.13)),
        nose_style=int(rng.integers(3)),
        blush=bool(rng.random() < 0.25),
        freckles=bool(rng.random() < 0.06),
        hair=hair,
        hair_volume=float(rng.uniform(1.05, 1.24)),
        hair_angle=angle,
        hair_fall=fall,
        hair_flare=float(rng.uniform(-0.15, 0.45)),
        hair_lines=rng.random(len(angle)) * (rng.random(len(angle)) < 0.6),
        strands=np.stack(
            [rng.uniform(-np.pi, np.pi, strands), rng.uniform(-0.4, 0.0, strands), rng.uniform(0.1, 0.9, strands)], 1
        ),
        hair_shine=float(rng.uniform(0.05, 0.16)) if rng.random() < 0.35 else 0.0,
        spikes=rng.uniform(0.04, 0.3, count),
        tail_length=float(rng.uniform(0.6, 1.9)),
        tail_width=float(rng.uniform(0.09, 0.2)),
        ahoge=float(rng.uniform(0.1, 0.3)) if rng.random() < 0.2 else 0.0,
        hat=HATS[rng.integers(len(HATS))] if rng.random() < 0.24 else "none",
        glasses=int(rng.integers(1, 4)) if rng.random() < 0.13 else 0,
        ears=ears,
        beard=int(rng.integers(1, 3)) if tradition in ("western", "slim") and rng.random() < 0.22 else 0,
        ear_size=float(rng.uniform(0.7, 1.3)),
        muzzle=float(rng.uniform(0.16, 0.28)) if mascot else 0.0,
    )


_LEVELS = np.concatenate([[-0.5], np.linspace(-0.46, 0.34, 9), [0.42, 0.47, 0.5]])
_UPPER = np.sqrt(np.clip(1 - (np.minimum(_LEVELS, 0.0) / 0.5) ** 2, 0, 1))
_LOWER = np.clip(_LEVELS / 0.5, 0, 1)


@dataclass(slots=True)
class HeadArtist:
    """Draws one head in one pose, in two halves: what lies behind the body, and what lies before it."""

    head: Head
    yaw: float
    pose: Pose
    shade: float

    def _outline(self) -> np.ndarray:
        """The skull's and face's silhouette."""
        head, c, s = self.head, np.cos(self.yaw), np.sin(self.yaw)
        drop = np.clip(1 - _LOWER**head.jaw, 0, 1) * (1 - head.chin) + head.chin * (1 - _LOWER**8)
        wide = head.width * _UPPER * drop
        front = 0.42 * _UPPER * (1 - 0.28 * _LOWER**2) * (1 - 0.55 * _LOWER**12)
        back = 0.5 * _UPPER * np.clip(1 - 1.15 * _LOWER**1.1, -0.3, 1)
        side = np.clip((abs(s) - 0.9) / 0.1, 0, 1) * np.clip(c + 1, 0, 1)
        bump = head.nose * np.exp(-(((_LEVELS - 0.17) / 0.055) ** 2)) + 0.02 * np.exp(-(((_LEVELS - 0.3) / 0.04) ** 2))
        if head.muzzle:
            bump = (head.muzzle * 0.9) * np.exp(-(((_LEVELS - 0.2) / 0.14) ** 2))
        front = front + bump * side
        forward = np.hypot(wide * c, front * s)
        behind = np.where(back > 0, np.hypot(wide * c, back * s), wide * abs(c) + back * abs(s))
        right, left = (forward, -behind) if s >= 0 else (behind, -forward)
        return np.concatenate([np.stack([right, _LEVELS], 1), np.stack([left, _LEVELS], 1)[-2:0:-1]])

    def _spot(self, angle: float, y: float, radius: float = 0.41) -> tuple[float, float, float]:
        """A place on the face -> x, y and how much of its width is seen (negative: turned away)."""
        turn = self.yaw + angle
        c = float(np.cos(turn))
        return float(np.sin(turn)) * radius, y + self.pose.pitch * 0.12 * c, c

    def _dome(self) -> tuple[float, float, float]:
        """The hair's half width, height above the centre and x offset."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        wide = np.hypot(self.head.width * c, 0.49 * s) * (0.4 + 0.6 * self.head.hair_volume) + 0.03
        return float(wide), 0.5 * self.head.hair_volume, float(-0.05 * s)

    def _curtain(self, near: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The hair's edge on the near or the far side, left to right: points (n, 2), which are tips, and their numbers."""
        head = self.head
        turn = (head.hair_angle + self.yaw + np.pi) % (2 * np.pi) - np.pi
        order = np.argsort(turn)
        turn, fall, number = turn[order], head.hair_fall[order], order
        if near:
            keep = np.abs(turn) < np.pi / 2 + 0.1
        else:
            keep = np.abs(turn) > np.pi / 2 - 0.1
            half = turn % (2 * np.pi)
            order = np.argsort(-half)
            turn, fall, number, keep = turn[order], fall[order], number[order], keep[order]
        turn, fall, number = turn[keep], fall[keep], number[keep]
        wide, _, x0 = self._dome()
        down = np.maximum(fall, 0)
        radius = wide * (
            np.where(fall < 0, np.sqrt(np.clip(1 - (fall / 0.62) ** 2, 0.05, 1)), 1)
            + head.hair_flare * down
            - 0.12 * np.minimum(down, 0.4)
        )
        sway_x, sway_y = self.pose.sway
        x = x0 + np.sin(turn) * radius + sway_x * down**1.3
        y = fall + self.pose.pitch * 0.1 * np.cos(turn) - sway_y * down
        return np.stack([x, y], 1), number % 2 == 1, number

    def _mass(self, near: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A closed shape of the near or far hair; its edge; the numbers of its edge points."""
        edge, tip, number = self._curtain(near)
        wide, high, x0 = self._dome()
        spikes = self.head.spikes
        count = 2 * len(spikes) + 1 if len(spikes) else 13
        angle = np.linspace(0, np.pi, count)
        radius = np.ones(count)
        if len(spikes):
            radius[1::2] += spikes
            radius[0] = radius[-1] = 1.05
        dome = np.stack([x0 + np.cos(angle) * wide * radius, -np.sin(angle) * high * radius - 0.02], 1)
        if not len(spikes):
            dome = smooth(dome, 2, closed=False)
        if len(spikes):
            dome[1::2, 0] += 0.06 * np.sign(np.sin(self.yaw) + 0.3)
        if len(edge) < 3:
            edge = np.array([[x0 - wide, 0.0], [x0, -0.1], [x0 + wide, 0.0]])
            number = np.zeros(3, int)
            tip = np.array([False, True, False])
        # Strands are convex on one side and concave on the other: a control point between notch and tip.
        middle = (edge[1:] + edge[:-1]) / 2
        middle[:, 0] += np.where(tip[1:], -0.2, 0.2) * np.abs(np.diff(edge[:, 0])) + 0.02 * np.sign(middle[:, 0] - x0)
        middle[:, 1] += 0.12 * np.abs(np.diff(edge[:, 1]))
        line = np.empty((2 * len(edge) - 1, 2))
        line[::2], line[1::2] = edge, middle
        return np.concatenate([dome, line]), edge, number

    def behind(self, drawing: Drawing) -> None:
        """The far half of the hair, hats' and ears' far parts."""
        head = self.head
        if head.hair != "bald":
            mass, _, _ = self._mass(near=False)
            drawing.fill(mass, Slot.HAIR)
            drawing.shade_in(moved(mass, 0.0, 0.12))
        self._tails(drawing, near=False)
        if head.ears in ("cat", "dog", "bunny", "bear"):
            self._animal_ears(drawing, near=False)

    def before(self, drawing: Drawing) -> None:
        """The face and all that lies before it."""
        head = self.head
        outline = smooth(self._outline(), 2)
        facing = float(np.cos(self.yaw))
        drawing.fill(outline, Slot.SKIN)
        mass, edge, number = self._mass(near=True)
        if head.hair != "bald":
            drawing.shade_in(moved(mass, 0.02, 0.05))
        drawing.shade(self.shade * 0.12)
        if head.muzzle:
            self._muzzle(drawing)
        if facing > -0.75:
            self._ears(drawing, facing)
            self._face(drawing)
        elif head.ears in ("human", "elf"):
            self._ears(drawing, facing)
        if head.beard:
            self._beard(drawing)
        if head.hair != "bald":
            self._hair(drawing, mass, edge, number)
        if head.glasses:
            self._glasses(drawing)
        self._hat(drawing)
        self._tails(drawing, near=True)
        if head.ears in ("cat", "dog", "bunny", "bear"):
            self._animal_ears(drawing, near=True)

    def _hair(self, drawing: Drawing, mass: np.ndarray, edge: np.ndarray, number: np.ndarray) -> None:
        head = self.head
        wide, high, x0 = self._dome()
        drawing.fill(mass, Slot.HAIR)
        if head.hair_shine:
            band = np.linspace(-0.85, 0.85, 9)
            y = -0.62 * high * np.sqrt(1 - band**2 * 0.6)
            jag = np.where(np.arange(9) % 2, head.hair_shine, 0.25 * head.hair_shine)
            top, bottom = np.stack([x0 + band * wide, y], 1), np.stack([x0 + band * wide, y + jag], 1)
            drawing.light_in(np.concatenate([top, bottom[::-1]]), Slot.HAIR_LIGHT)
        drawing.shade(self.shade * 0.16)
        for point, i in zip(edge[1:-1], number[1:-1], strict=True):
            length = head.hair_lines[i]
            if length > 0.05:
                root = np.array([x0 + (point[0] - x0) * 0.55, -0.42 * high])
                reach = 0.25 + 0.6 * length
                end = point + (root - point) * reach
                bend = (point + end) / 2 + (0.03 * np.sign(point[0] - x0), 0)
                drawing.stroke(smooth(np.stack([point, bend, end]), 3, closed=False), 0.7)
        drop = float(edge[:, 1].max())
        for angle, start, length in head.strands:
            turn = (angle + self.yaw + np.pi) % (2 * np.pi) - np.pi
            if abs(turn) > 1.35:
                continue
            # On the dome above, along the fall below; only where there is hair at that angle.
            floor = float(np.interp(np.sin(turn) * wide + x0, edge[:, 0], edge[:, 1])) if len(edge) > 2 else drop
            y = np.linspace(start, min(start + length, floor - 0.03), 4)
            if y[-1] < start + 0.06:
                continue
            radius = (
                wide
                * np.sqrt(np.clip(1 - (np.minimum(y, 0) / 0.6) ** 2, 0.04, 1))
                * (1 + head.hair_flare * np.maximum(y, 0) * 0.8)
            )
            x = x0 + np.sin(turn) * radius * 0.97 + self.pose.sway[0] * np.maximum(y, 0) ** 1.3
            drawing.stroke(np.stack([x, y], 1), 0.6)
        if head.ahoge:
            line = smooth(
                np.array([[x0, -high], [x0 + 0.03, -high - head.ahoge * 0.7], [x0 + head.ahoge, -high - head.ahoge * 0.5]]),
                4,
                False,
            )
            drawing.fill(ribbon(line, np.linspace(0.035, 0.003, len(line))), Slot.HAIR, 0.8)

    def _tails(self, drawing: Drawing, near: bool) -> None:
        """Twin tails, a ponytail or buns."""
        head = self.head
        if head.hair not in ("twintails", "ponytail", "buns"):
            return
        roots = [(1.75, -0.2), (-1.75, -0.2)] if head.hair != "ponytail" else [(np.pi, -0.22)]
        for angle, y in roots:
            turn = self.yaw + angle
            if (np.cos(turn) > -0.1) != near:
                continue
            x = float(np.sin(turn)) * 0.5
            if head.hair == "buns":
                drawing.fill(ellipse(x * 1.05, y - 0.2, head.tail_width + 0.05, head.tail_width + 0.04), Slot.HAIR2)
                drawing.shade(self.shade * 0.1)
                drawing.stroke(ellipse(x * 1.05, y - 0.2, head.tail_width * 0.5, head.tail_width * 0.45)[3:14], 0.6)
                continue
            out = np.sign(x) if abs(x) > 0.05 else 0.3
            sway_x, sway_y = self.pose.sway
            t = np.array([0, 0.15, 0.4, 0.7, 1.0])
            px = x + out * np.array([0, 0.14, 0.24, 0.2, 0.1]) * (1 + head.hair_flare) + sway_x * 1.4 * t**1.3
            py = y + head.tail_length * t - np.array([0, 0.1, 0.05, 0, 0]) - sway_y * 2 * t
            line = smooth(np.stack([px, py], 1), 3, closed=False)
            share = np.linspace(0, 1, len(line))
            widths = head.tail_width * np.sin(np.pi * np.clip(0.12 + 0.88 * share, 0, 1)) ** 0.7 + 0.004
            drawing.fill(ribbon(line, widths), Slot.HAIR2)
            drawing.shade(self.shade * 0.08)
            drawing.stroke(moved(line[2:9], 0.02, 0.0), 0.6)
            drawing.fill(ellipse(x, y, 0.07, 0.06, count=10), Slot.ACCENT)

    def _ears(self, drawing: Drawing, facing: float) -> None:
        if self.head.ears not in ("human", "elf"):
            return
        for angle in (1.52, -1.52):
            x, y, c = self._spot(angle, 0.1, self.head.width)
            if c < -0.45:
                continue
            wide = 0.045 + 0.05 * max(c, 0.0)
            if self.head.ears == "elf":
                out = 1.0 if x >= 0 else -1.0
                drawing.fill(
                    smooth(np.array([[x, y - 0.08], [x + out * 0.28, y - 0.16], [x + out * 0.1, y + 0.04], [x, y + 0.09]]), 3),
                    Slot.SKIN,
                )
                continue
            drawing.fill(ellipse(x, y, wide, 0.09, count=12), Slot.SKIN, 0.9)
            drawing.stroke(ellipse(x, y, wide * 0.5, 0.05, count=10)[5:9], 0.6)

    def _animal_ears(self, drawing: Drawing, near: bool) -> None:
        size = self.head.ear_size
        for angle in (0.9, -0.9):
            turn = self.yaw + angle
            if (np.cos(turn) > 0) != near:
                continue
            x, out = float(np.sin(turn)) * self.head.width * 1.05, (1.0 if np.sin(turn) >= 0 else -1.0)
            y = -0.36
            if self.head.ears == "bear":
                drawing.fill(ellipse(x, y - 0.04, 0.15 * size, 0.15 * size), Slot.EAR)
                drawing.inside(ellipse(x, y - 0.02, 0.08 * size, 0.08 * size), Slot.EAR2, 0.6)
                continue
            if self.head.ears == "dog":
                flap = np.array(
                    [[x, y - 0.1], [x + out * 0.16, y], [x + out * 0.2, y + 0.35 * size], [x + out * 0.06, y + 0.3 * size]]
                )
                drawing.fill(smooth(moved(flap, self.pose.sway[0] * 0.3, 0.0), 4), Slot.EAR)
                drawing.shade(self.shade * 0.08)
                continue
            high = (0.75 if self.head.ears == "bunny" else 0.34) * size
            half = 0.11 if self.head.ears == "bunny" else 0.14
            tip = x + out * 0.1 + self.pose.sway[0] * 0.4
            ear = np.array(
                [
                    [x - half, y],
                    [x - half * 0.9, y - high * 0.5],
                    [tip, y - high],
                    [x + half * 0.95, y - high * 0.5],
                    [x + half, y],
                ]
            )
            ear = smooth(ear, 3, closed=False)
            drawing.fill(ear, Slot.EAR, closed=False)
            drawing.inside((ear - (x, y)) * 0.62 + (x, y - 0.05), Slot.EAR2, 0.6)

    def _muzzle(self, drawing: Drawing) -> None:
        head = self.head
        x, y, c = self._spot(0.0, 0.22, 0.36)
        if c < -0.05:
            return
        size = head.muzzle
        x += float(np.sin(self.yaw)) * size * 0.6
        drawing.fill(ellipse(x, y, size * (1.1 + 0.2 * abs(np.sin(self.yaw))), size * 0.8), Slot.MUZZLE)
        drawing.shade(self.shade * 0.08)

    def _face(self, drawing: Drawing) -> None:
        head = self.head
        for angle in (head.eye_apart, -head.eye_apart):
            x, y, c = self._spot(angle, head.eye_height)
            if c > 0.12:
                self._eye(drawing, x, y, c, 1.0 if angle > 0 else -1.0)
        if head.blush:
            for angle in (0.62, -0.62):
                x, y, c = self._spot(angle, head.eye_height + 0.17)
                if c > 0.25:
                    drawing.fill(ellipse(x, y, 0.07 * c, 0.035, count=10), Slot.BLUSH, 0.0)
        if head.freckles:
            for angle in (0.5, 0.6, 0.7, -0.5, -0.6, -0.7):
                x, y, c = self._spot(angle, head.eye_height + 0.14 + 0.02 * np.cos(angle * 31))
                if c > 0.25:
                    drawing.stroke(ellipse(x, y, 0.008, 0.008, count=6), 0.6, True)
        self._nose(drawing)
        self._mouth(drawing)

    def _eye(self, drawing: Drawing, x: float, y: float, c: float, side: float) -> None:
        head, pose = self.head, self.pose
        size = head.eye_size
        wide = size * min(1.0, c + 0.12)
        if head.eye_style == "dot":
            if pose.eyes < 0.3:
                drawing.stroke(np.array([[x - wide, y], [x, y + 0.02], [x + wide, y]]), 1.0)
            else:
                drawing.fill(ellipse(x, y, wide, size * 1.35 * pose.eyes, count=12), Slot.PUPIL, 0.8)
                drawing.inside(ellipse(x + wide * 0.3, y - size * 0.5, wide * 0.3, size * 0.3, count=8), Slot.EYE_LIGHT)
            self._brow(drawing, x, y - size * 2.2, wide * 1.6, side)
            return
        tall = size * {"anime": 1.25, "western": 1.2, "almond": 0.55}[head.eye_style]
        opened = tall * pose.eyes
        self._brow(drawing, x, y - tall - 0.06, wide * 1.15, side)
        if pose.eyes < 0.25:
            bend = 0.035 if pose.smile < 0.5 else -0.05
            lid = smooth(np.array([[x - wide, y], [x, y + bend], [x + wide, y]]), 4, closed=False)
            drawing.stroke(lid, 1.4)
            return
        if head.eye_style == "western":
            white = ellipse(x, y, wide, opened, count=14)
        else:
            outer = side * np.sign(c) * wide
            white = np.array(
                [
                    [x + outer, y - opened * 0.25],
                    [x + outer * 0.55, y - opened * 0.85],
                    [x - outer * 0.3, y - opened * 0.95],
                    [x - outer * 0.95, y - opened * 0.2],
                    [x - outer * 0.55, y + opened * 0.8],
                    [x + outer * 0.5, y + opened * 0.85],
                ]
            )
            white = smooth(white, 3)
        drawing.fill(white, Slot.EYE_WHITE, 0.55 if head.eye_style == "anime" else 0.9)
        if head.eye_style == "anime":
            drawing.shade_in(white - (0, opened * 1.5))
        gaze_x, gaze_y = np.clip(pose.gaze[0], -1, 1) * wide * 0.35, np.clip(pose.gaze[1], -1, 1) * tall * 0.2
        iris_x, iris_y = x + gaze_x, y + gaze_y
        iris_wide, iris_tall = wide * head.iris_share, tall * head.iris_share * 1.02
        if head.eye_style == "western":
            iris_wide = iris_tall = wide * head.iris_share
        elif head.eye_style == "almond":
            iris_wide = iris_tall = tall * 0.95
            iris_wide *= min(1.0, c + 0.12)
        drawing.inside(ellipse(iris_x, iris_y, iris_wide, iris_tall, count=14), Slot.IRIS, 0.6)
        if head.eye_style == "anime":
            drawing.inside(ellipse(iris_x, iris_y - iris_tall * 0.45, iris_wide * 0.9, iris_tall * 0.6, count=12), Slot.IRIS2)
        drawing.inside(ellipse(iris_x, iris_y, iris_wide * 0.45, iris_tall * 0.5, count=10), Slot.PUPIL)
        drawing.inside(
            ellipse(iris_x + iris_wide * 0.35, iris_y - iris_tall * 0.5, iris_wide * 0.32, iris_tall * 0.26, count=10),
            Slot.EYE_LIGHT,
        )
        if head.eye_style != "western":
            half = len(white) * 10 // 18
            lash = white[:half]
            lift = np.array([0.0, -0.25 * size * (0.9 if head.eye_style == "anime" else 0.3)])
            drawing.solid(np.concatenate([lash, lash[::-1] + lift * np.sin(np.linspace(0.25, np.pi, half))[:, None]]))

    def _brow(self, drawing: Drawing, x: float, y: float, wide: float, side: float) -> None:
        tilt = self.pose.brow * 0.05 * side * (1 if np.cos(self.yaw) > 0 else -1)
        line = np.array([[x - wide, y + 0.02 + tilt], [x, y - 0.015 - 0.02 * self.pose.brow], [x + wide, y + 0.02 - tilt]])
        line = smooth(line, 3, closed=False)
        if self.head.brow_weight > 0.013:
            drawing.fill(ribbon(line, np.full(len(line), self.head.brow_weight)), Slot.HAIR2, 0.5)
        else:
            drawing.stroke(line, 0.9)

    def _nose(self, drawing: Drawing) -> None:
        head = self.head
        x, y, c = self._spot(0.0, 0.17, 0.42)
        if c < 0.02 and not head.muzzle:
            return
        if head.muzzle:
            x += float(np.sin(self.yaw)) * head.muzzle * 1.2
            if c > -0.05:
                drawing.fill(ellipse(x, y - head.muzzle * 0.25, 0.09, 0.06, count=12), Slot.NOSE)
            return
        lean = 1.0 if self.yaw >= 0 else -1.0
        size = head.nose
        if head.nose_style == 0:
            drawing.stroke(np.array([[x, y - size], [x + lean * size * 0.7, y], [x, y + size * 0.1]]), 0.7)
        elif head.nose_style == 1:
            drawing.stroke(np.array([[x - size * 0.4, y], [x + lean * size * 0.2, y + size * 0.25], [x + size * 0.4, y]]), 0.7)
        elif size > 0.06:
            drawing.fill(ellipse(x, y, size * 0.9, size * 0.7, count=12), Slot.SKIN, 0.9)
            drawing.shade(self.shade * 0.04)

    def _mouth(self, drawing: Drawing) -> None:
        head, pose = self.head, self.pose
        x, y, c = self._spot(0.0, 0.32 if not head.muzzle else 0.3, 0.38 + head.muzzle)
        if c < 0.05:
            return
        wide = (0.06 + 0.07 * abs(pose.smile)) * (0.35 + 0.65 * c) * (1.5 if head.eye_style == "western" else 1.0)
        bow = 0.05 * pose.smile
        if pose.mouth < 0.15:
            drawing.stroke(smooth(np.array([[x - wide, y - bow], [x, y + bow * 0.6], [x + wide, y - bow]]), 3, closed=False), 0.9)
            return
        tall = 0.1 * pose.mouth * (1.0 + 0.4 * abs(pose.smile))
        lips = np.array(
            [
                [x - wide, y - bow],
                [x, y - bow * 0.4],
                [x + wide, y - bow],
                [x + wide * 0.6, y + tall * 0.8],
                [x, y + tall],
                [x - wide * 0.6, y + tall * 0.8],
            ]
        )
        lips = smooth(lips, 3)
        drawing.fill(lips, Slot.MOUTH, 0.9)
        if pose.mouth > 0.4:
            drawing.inside(ellipse(x, y + tall, wide * 0.7, tall * 0.55, count=10), Slot.TONGUE)
            if pose.smile > 0.2:
                drawing.inside(ellipse(x, y - bow * 0.6, wide, tall * 0.3, count=10), Slot.TEETH)

    def _beard(self, drawing: Drawing) -> None:
        x, y, c = self._spot(0.0, 0.3, 0.4)
        if c < 0.0:
            return
        wide = self.head.width * (0.5 + 0.5 * c)
        if self.head.beard == 1:
            shape = np.array([[x - wide * 0.5, y - 0.06], [x, y - 0.09], [x + wide * 0.5, y - 0.06], [x, y - 0.02]])
        else:
            shape = np.array(
                [
                    [x - wide * 0.75, y - 0.02],
                    [x - wide * 0.4, y + 0.12],
                    [x, y + 0.1],
                    [x + wide * 0.4, y + 0.12],
                    [x + wide * 0.75, y - 0.02],
                    [x + wide * 0.5, y + 0.26],
                    [x, y + 0.36],
                    [x - wide * 0.5, y + 0.26],
                ]
            )
        drawing.fill(smooth(shape, 3), Slot.HAIR2, 0.8)

    def _glasses(self, drawing: Drawing) -> None:
        head = self.head
        if np.cos(self.yaw) < -0.3:
            return
        size = max(head.eye_size * 1.3, 0.11)
        frames: list[tuple[float, float, float]] = []
        for angle in (head.eye_apart, -head.eye_apart):
            x, y, c = self._spot(angle, head.eye_height + 0.01, 0.44)
            if c > 0.1:
                wide = size * min(1.0, c + 0.12)
                frames.append((x, y, wide))
                if head.glasses == 3:
                    drawing.fill(ellipse(x, y, wide, size * 0.85, count=14), Slot.METAL, 1.2)
                    drawing.inside(ellipse(x - wide, y - size, wide, size, count=10), Slot.EYE_LIGHT)
                else:
                    rim = ellipse(x, y, wide, size * (0.95 if head.glasses == 1 else 0.7), count=14)
                    drawing.stroke(rim, 1.3, True)
        if len(frames) == 2:
            (xa, ya, wa), (xb, _, wb) = sorted(frames)
            drawing.stroke(np.array([[xa + wa, ya], [xb - wb, ya]]), 1.2)

    def _hat(self, drawing: Drawing) -> None:
        head = self.head
        if head.hat == "none":
            return
        wide, high, x0 = self._dome()
        wide, high = wide * 1.05, high * 1.06
        s, c = float(np.sin(self.yaw)), float(np.cos(self.yaw))
        nod = self.pose.pitch * 0.06
        angle = np.linspace(0, np.pi, 11)
        if head.hat in ("cap", "beanie", "brim", "helmet"):
            brim = {"cap": -0.2, "beanie": -0.16, "brim": -0.24, "helmet": -0.02}[head.hat] + nod * c
            tall = high * (1.35 if head.hat == "brim" else 1.12)
            dome = np.stack([x0 + np.cos(angle) * wide, brim - np.sin(angle) ** 0.7 * (tall + brim)], 1)
            if head.hat == "brim":
                drawing.fill(ellipse(x0, brim, wide * 1.6, 0.13), Slot.PROP)
            drawing.fill(dome, Slot.PROP)
            drawing.inside(
                np.concatenate([moved(dome[[0, -1]], 0.0, 0.02), moved(dome[[-1, 0]], 0.0, -0.1)]),
                Slot.PROP2,
                0.8,
            )
            drawing.shade(self.shade * 0.15)
            if head.hat == "cap" and c > -0.6:
                x = x0 + s * wide * 1.35
                peak = np.array(
                    [
                        [x0 + s * wide * 0.5 - wide * 0.75 * max(c, 0.25), brim - 0.03],
                        [x, brim + 0.1 * c + 0.03],
                        [x0 + s * wide * 0.5 + wide * 0.75 * max(c, 0.25), brim - 0.03],
                    ]
                )
                drawing.fill(smooth(peak, 4), Slot.PROP2)
            elif head.hat == "beanie":
                drawing.fill(ellipse(x0, brim - tall - brim, 0.09, 0.09, count=12), Slot.PROP2)
        elif head.hat == "headband":
            band = np.stack([x0 + np.cos(angle[1:-1]) * wide, -0.2 - np.sin(angle[1:-1]) * high * 0.45], 1)
            drawing.fill(np.concatenate([band, moved(band, 0.0, 0.09)[::-1]]), Slot.PROP)
        elif head.hat == "bow":
            turn = self.yaw + 0.9
            x, y = x0 + float(np.sin(turn)) * wide * 0.8, -high * 0.75
            if np.cos(turn) > -0.4:
                w = 0.2 * head.ear_size
                drawing.fill(np.array([[x, y], [x - w, y - w * 0.7], [x - w, y + w * 0.6]]), Slot.ACCENT)
                drawing.fill(np.array([[x, y], [x + w, y - w * 0.7], [x + w, y + w * 0.6]]), Slot.ACCENT)
                drawing.fill(ellipse(x, y, 0.05, 0.05, count=8), Slot.ACCENT2)
        elif head.hat == "crown":
            teeth = np.linspace(-1, 1, 9)
            top = np.stack([x0 + teeth * wide * 0.7, -high * 0.85 - np.where(np.arange(9) % 2 == 0, 0.3, 0.12)], 1)
            drawing.fill(np.concatenate([top, [[x0 + wide * 0.6, -high * 0.68], [x0 - wide * 0.6, -high * 0.68]]]), Slot.METAL)
