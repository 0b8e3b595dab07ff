"""Whole characters: a skeleton in space, clothes and props on it, and a head on top, drawn flat from any side.

Body space: feet at y = 0, the top of the head near y = -1, x to the right on screen, z toward us.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from timecolor.world.curves import box, ellipse, moved, ribbon, smooth, turned
from timecolor.world.draw import Drawing
from timecolor.world.head import Head, HeadArtist, random_head
from timecolor.world.motion import Pose
from timecolor.world.palette import Slot

TRADITIONS = ("anime", "western", "chibi", "slim", "mascot")
TOPS = ("shirt", "jacket", "hoodie", "uniform", "tank", "sweater")
BOTTOMS = ("trousers", "shorts", "skirt", "dress", "coat")
PROPS = ("none", "none", "none", "none", "bag", "stick", "ball", "book", "umbrella", "cape", "scarf", "wings")


@dataclass(frozen=True, slots=True, eq=False)
class Character:
    """A character's design: proportions in body heights, and what it wears.

    folds (n, 4): folds of the torso's cloth as angle, height, length and slant.
    creases (n, 3): folds of the limbs' as place, side and length.
    """

    tradition: str
    head: Head
    head_size: float
    neck: float
    legs: float
    shoulder: float
    hip: float
    waist: float
    depth: float
    arm: float
    leg: float
    arm_length: float
    hand: float
    fingers: bool
    top: str
    bottom: str
    sleeve: float
    trouser: float
    skirt: float
    flare: float
    boot: float
    sock: float
    foot: float
    glove: bool
    belt: bool
    pattern: str
    emblem: int
    buttons: int
    neckwear: str
    prop: str
    tail: float
    shade: float
    cuffs: bool
    folds: np.ndarray
    creases: np.ndarray

    @property
    def furry(self) -> bool:
        """Whether the skin may have any colour."""
        return self.tradition == "mascot"

    def draw(self, pose: Pose) -> Drawing:
        """The character in a pose, in body space."""
        drawing = Drawing()
        _Artist(self, pose, drawing).draw()
        return drawing


def random_character(rng: np.random.Generator) -> Character:
    """A design drawn from five drawing traditions."""
    tradition = TRADITIONS[rng.choice(5, p=(0.42, 0.16, 0.12, 0.15, 0.15))]
    heads = {"anime": (5.0, 7.0), "western": (3.0, 5.0), "chibi": (2.1, 3.1), "slim": (6.3, 7.8), "mascot": (2.4, 4.0)}[tradition]
    head_size = 1 / float(rng.uniform(*heads))
    thick = {"anime": (0.75, 1.1), "western": (0.7, 1.9), "chibi": (0.9, 1.4), "slim": (0.75, 1.15), "mascot": (0.9, 1.6)}[
        tradition
    ]
    bulk = float(rng.uniform(*thick))
    body = 1 - head_size
    bottom = BOTTOMS[rng.choice(5, p=(0.42, 0.14, 0.18, 0.18, 0.08))]
    shoulder = float(rng.uniform(0.09, 0.13)) * bulk**0.7 * (0.75 + 0.25 * body / 0.85)
    folds = int(rng.integers(0, 10))
    return Character(
        tradition=tradition,
        head=random_head(rng, tradition),
        head_size=head_size,
        neck=float(rng.uniform(0.1, 0.24)) * head_size
        if tradition in ("anime", "slim")
        else float(rng.uniform(-0.05, 0.1)) * head_size,
        legs=float(rng.uniform(0.52, 0.6) if tradition in ("anime", "slim") else rng.uniform(0.36, 0.54)),
        shoulder=shoulder,
        hip=float(rng.uniform(0.065, 0.1)) * bulk,
        waist=float(rng.uniform(0.05, 0.075) if tradition in ("anime", "slim") else rng.uniform(0.06, 0.1)) * bulk,
        depth=float(rng.uniform(0.5, 0.75)),
        arm=float(rng.uniform(0.024, 0.034)) * bulk,
        leg=float(rng.uniform(0.036, 0.05)) * bulk,
        arm_length=float(rng.uniform(0.9, 1.15)),
        hand=float(rng.uniform(0.024, 0.034)) * (0.6 + 0.4 * bulk),
        fingers=bool(rng.random() < (0.7 if tradition in ("anime", "slim") else 0.3)),
        top=TOPS[rng.choice(6, p=(0.24, 0.24, 0.12, 0.16, 0.1, 0.14))],
        bottom=bottom,
        sleeve=float(rng.choice((0.0, 0.4, 0.55, 1.6, 1.9, 2.0), p=(0.08, 0.22, 0.1, 0.1, 0.25, 0.25))),
        trouser=float(rng.uniform(1.5, 1.95)) if bottom != "shorts" else float(rng.uniform(0.5, 1.0)),
        skirt=float(rng.uniform(0.3, 0.95)),
        flare=float(rng.uniform(1.1, 2.3)),
        boot=float(rng.uniform(0.1, 0.9)) if rng.random() < 0.35 else 0.0,
        sock=float(rng.uniform(0.15, 1.3)) if rng.random() < 0.4 else 0.0,
        foot=float(rng.uniform(0.075, 0.11)) * (0.7 + 0.3 * bulk),
        glove=bool(rng.random() < 0.2),
        belt=bool(rng.random() < 0.35),
        pattern=("none", "none", "none", "stripes", "bands", "dots", "yoke")[rng.integers(7)],
        emblem=int(rng.integers(0, 4)) if rng.random() < 0.4 else 0,
        buttons=int(rng.integers(2, 6)) if rng.random() < 0.5 else 0,
        neckwear=("none", "none", "tie", "bow", "scarf", "ribbon")[rng.integers(6)],
        prop=PROPS[rng.integers(len(PROPS))],
        tail=float(rng.uniform(0.2, 0.5)) if tradition == "mascot" or rng.random() < 0.05 else 0.0,
        shade=float(rng.uniform(0.6, 1.5)),
        cuffs=bool(rng.random() < 0.4),
        folds=np.stack(
            [rng.uniform(-3, 3, folds), rng.uniform(0.02, 0.9, folds), rng.uniform(0.06, 0.3, folds), rng.normal(0, 0.7, folds)],
            1,
        ),
        creases=np.stack([rng.uniform(0.1, 1.9, folds), rng.uniform(-1, 1, folds), rng.uniform(0.1, 0.4, folds)], 1),
    )


@lru_cache(4096)
def _limb_weights(start: float, stop: float, count: int) -> np.ndarray:
    """Weights (count, 3) of a limb's three joints for points along it."""
    t = np.linspace(start, stop, count)
    upper = t < 1
    at = np.stack([np.where(upper, 1 - t, 0), np.where(upper, t, 2 - t), np.where(upper, 0, t - 1)], 1)
    # Round the joint off.
    near = np.clip(1 - np.abs(t - 1) / 0.35, 0, 1)[:, None] * 0.15
    return at * (1 - near) + np.array([0.5, 0.0, 0.5]) * near


def _along(line: np.ndarray, start: float, stop: float, count: int = 7) -> np.ndarray:
    """A piece of a three-point limb as a soft line; 0 = root, 1 = the joint, 2 = the end."""
    return _limb_weights(float(start), float(stop), count) @ line


@dataclass
class _Artist:
    design: Character
    pose: Pose
    drawing: Drawing

    def _screen(self, x: float, y: float, z: float) -> tuple[np.ndarray, float]:
        """Body space -> screen (2,), depth toward us."""
        c, s = float(np.cos(self.pose.yaw)), float(np.sin(self.pose.yaw))
        return np.array([x * c + z * s, y]), z * c - x * s

    def draw(self) -> None:
        design, pose = self.design, self.pose
        body = 1 - design.head_size - design.neck
        self.leg_size, torso = body * design.legs, body * (1 - design.legs)
        self.torso_size = torso
        c, s = float(np.cos(pose.yaw)), float(np.sin(pose.yaw))
        self.c, self.s = c, s
        knees, ankles, depths = [], [], []
        for i, side in enumerate((1.0, -1.0)):
            out, forward = pose.leg_out[i], pose.leg_forward[i]
            thigh = (
                np.array([side * np.sin(out), np.cos(out) * np.cos(forward), np.cos(out) * np.sin(forward)]) * self.leg_size * 0.5
            )
            low = forward - pose.knee[i]
            shin = np.array([side * np.sin(out * 0.5), np.cos(low), np.sin(low)]) * self.leg_size * 0.5
            hip = np.array([side * design.hip * 0.55, 0.0, 0.0])
            knees.append(hip + thigh)
            ankles.append(hip + thigh + shin)
            depths.append(hip)
        floor = max(a[1] for a in ankles)
        rise = floor + pose.lift
        self.hips = np.array([0.0, -rise])
        legs: list[tuple[float, np.ndarray, np.ndarray]] = []
        for i in range(2):
            joints = [self._screen(*p) for p in (depths[i], knees[i], ankles[i])]
            legs.append(
                (joints[1][1], np.stack([j[0] for j in joints]) + self.hips, np.array([pose.leg_forward[i] - pose.knee[i]]))
            )
        legs.sort(key=lambda leg: leg[0])

        # The upper body leans about the hips.
        self.neck_root = turned(moved(self.hips, 0.0, -torso), pose.lean, (self.hips[0], self.hips[1]))
        shoulder_y = -torso * 0.93
        arms: list[tuple[float, float, np.ndarray, float]] = []
        upper, fore = torso * 0.62 * design.arm_length, torso * 0.55 * design.arm_length
        for i, side in enumerate((1.0, -1.0)):
            a, f = pose.arm_out[i], pose.arm_forward[i]
            first = np.array([side * np.sin(a), np.cos(a) * np.cos(f), np.cos(a) * np.sin(f)]) * upper
            a, f = pose.fore_out[i], pose.fore_forward[i]
            second = np.array([side * np.sin(a), np.cos(a) * np.cos(f), np.cos(a) * np.sin(f)]) * fore
            root = np.array([side * (design.shoulder - design.arm * 0.6), shoulder_y, 0.0])
            joints = [self._screen(*p) for p in (root, root + first, root + first + second)]
            line = turned(np.stack([j[0] for j in joints]) + self.hips, pose.lean, (self.hips[0], self.hips[1]))
            arms.append((joints[1][1] + joints[0][1], joints[2][1], line, side))
        arms.sort(key=lambda arm: arm[0])

        head_yaw = pose.yaw + pose.head_yaw
        artist = HeadArtist(design.head, (head_yaw + np.pi) % (2 * np.pi) - np.pi, pose, design.shade)
        back = c < -0.2
        drawing = self.drawing

        mark = len(drawing.points)
        artist.behind(drawing)
        self._place_head(mark)
        if not back:
            self._behind_things()
        behind = [arm for arm in arms if arm[0] < -0.03]
        front = [arm for arm in arms if arm[0] >= -0.03]
        for arm in behind:
            self._arm(arm)
        for leg in legs:
            self._leg(leg[1], float(leg[2][0]))
        if design.bottom in ("dress", "skirt", "coat"):
            self._skirt(legs)
        self._torso(back)
        late = [arm for arm in front if arm[1] > 0.0 and arm[2][2][1] < self.neck_root[1] + 0.3 * self.design.head_size]
        for arm in front:
            if not any(arm is other for other in late):
                self._arm(arm)
        if back:
            self._behind_things()
        mark = len(drawing.points)
        artist.before(drawing)
        self._place_head(mark)
        if design.neckwear == "scarf" or design.prop == "scarf":
            self._scarf()
        for arm in late:
            self._arm(arm)

    def _place_head(self, mark: int) -> None:
        design, pose = self.design, self.pose
        size = design.head_size
        angle = pose.roll + pose.lean * 0.7
        c, s = float(np.cos(angle)), float(np.sin(angle))
        up = np.array([s, -c]) * (size * 0.5 + design.neck)
        forward = 0.12 * size * self.s
        centre = self.neck_root + up + (forward, 0)
        self.drawing.head = (float(centre[0]), float(centre[1]), size)
        self.drawing.move(mark, np.array([[c, -s], [s, c]]) * size, (float(centre[0]), float(centre[1])))

    def _arm(self, arm: tuple[float, float, np.ndarray, float]) -> None:
        design, drawing = self.design, self.drawing
        line = arm[2]
        width = design.arm
        wrist, elbow = line[2], line[1]
        out = wrist - elbow
        out = out / (np.hypot(*out) + 1e-9)
        if design.prop in ("stick", "umbrella", "ball", "book") and arm[3] > 0:
            self._held(wrist + out * design.hand, out)
        self._hand(wrist, out, arm[3])
        bare = ribbon(_along(line, 0.0, 2.0, 9), np.linspace(width, width * 0.72, 9), root=0.8)
        reach = design.sleeve
        glove = design.glove
        if reach < 1.9:
            drawing.fill(bare, Slot.SKIN, closed=reach == 0)
            drawing.shade(width * 0.5 * design.shade)
        if glove:
            drawing.fill(ribbon(_along(line, 1.55, 2.0, 4), np.full(4, width * 0.92)), Slot.GLOVE)
        if reach > 0:
            count = 9 if reach > 1 else 5
            loose = np.linspace(1.15, 1.25 if design.top in ("hoodie", "jacket", "sweater") else 1.0, count)
            if reach <= 1:
                loose = np.linspace(1.15, 1.45, count)
            piece = _along(line, 0.0, reach, count)
            sleeve = ribbon(piece, width * loose, root=0.9)
            drawing.fill(sleeve, Slot.SLEEVE if design.top != "tank" else Slot.SKIN)
            if design.pattern == "bands" and reach > 1:
                drawing.inside(ribbon(_along(line, 0.8, 1.0, 3), np.full(3, width * 1.6)), Slot.PATTERN, 0.8)
            if design.cuffs:
                drawing.inside(
                    ribbon(_along(line, max(reach - 0.18, 0.1), reach + 0.1, 3), np.full(3, width * 1.8)), Slot.COLLAR, 0.9
                )
            drawing.shade(width * 0.6 * design.shade)
            self._creases(line, width * 1.1, reach)

    def _creases(self, line: np.ndarray, width: float, reach: float) -> None:
        """Short folds in a sleeve or a trouser leg, from its edge inward."""
        for place, side, length in self.design.creases:
            if place < reach - 0.1:
                start, stop = _along(line, place, place + length, 2)
                along = stop - start
                across = np.array([along[1], -along[0]]) / (np.hypot(*along) + 1e-9) * width
                self.drawing.stroke(np.stack([start + across * side * 0.9, stop + across * side * 0.2]), 0.6)

    def _hand(self, wrist: np.ndarray, out: np.ndarray, side: float) -> None:
        design, drawing = self.design, self.drawing
        size = design.hand
        slot = Slot.GLOVE if design.glove else Slot.SKIN
        across = np.array([-out[1], out[0]]) * side
        angle = float(np.arctan2(out[1], out[0]))
        centre = wrist + out * size * 0.8
        if design.fingers:
            for k in range(4):
                spread = (k - 1.5) * 0.42
                root = centre + across * size * spread
                tip = root + (out + across * (k - 1.5) * 0.16) * size * (1.55 - 0.12 * abs(k - 1.3))
                drawing.fill(
                    ribbon(np.stack([root, (root + tip) / 2, tip]), np.full(3, size * 0.24), 1.0), slot, 0.7, closed=False
                )
        thumb = np.stack([centre - across * size * 0.5, centre - across * size * 1.15 + out * size * 0.5])
        drawing.fill(ribbon(thumb, np.array([size * 0.35, size * 0.26]), 1.0), slot, 0.8, closed=False)
        drawing.fill(ellipse(float(centre[0]), float(centre[1]), size * 1.15, size * 0.95, angle, 12), slot, 0.8)
        drawing.shade(size * 0.4 * design.shade)

    def _leg(self, line: np.ndarray, swing: float) -> None:
        design, drawing = self.design, self.drawing
        width = design.leg
        widths = width * np.array([1.25, 1.2, 1.1, 1.0, 0.92, 0.88, 0.8, 0.7, 0.62])
        self._shoe(line[2], swing)
        drawing.fill(ribbon(_along(line, 0.0, 2.0, 9), widths), Slot.LEGS, closed=False)
        drawing.shade(width * 0.5 * design.shade)
        if design.sock and design.trouser < 1.5:
            start = 2 - design.sock
            drawing.fill(
                ribbon(_along(line, start, 2.0, 5), np.linspace(width * (0.95 if design.sock < 1 else 1.1), width * 0.68, 5)),
                Slot.BELT,
            )
        if design.bottom in ("trousers", "shorts"):
            reach = design.trouser
            loose = np.linspace(1.35, 1.15 if reach > 1.2 else 1.4, 7)
            drawing.fill(ribbon(_along(line, 0.0, reach, 7), width * loose), Slot.BOTTOM)
            if design.pattern == "yoke":
                side = ribbon(moved(_along(line, 0.0, reach, 7), width * 0.9, 0.0), np.full(7, width * 0.2))
                drawing.inside(side, Slot.BOTTOM2, 0.6)
            drawing.shade(width * 0.7 * design.shade)
            self._creases(line, width * 1.2, reach)
        if design.boot:
            drawing.fill(ribbon(_along(line, 2 - design.boot, 2.0, 4), np.linspace(width * 1.15, width * 0.85, 4)), Slot.SHOE)
            drawing.shade(width * 0.5 * design.shade)

    def _shoe(self, ankle: np.ndarray, swing: float) -> None:
        design, drawing = self.design, self.drawing
        size = design.foot
        forward = self.s * size
        wide = max(design.leg * 0.95, 0.3 * size)
        drop = size * 0.28
        toe = np.array([forward + np.sign(self.s) * 0.0, drop])
        depth = max(self.c, 0.0) * size * 0.3
        shape = np.array(
            [
                [-wide * 0.8 - 0.15 * forward, -drop * 0.5],
                [wide * 0.8 - 0.15 * forward, -drop * 0.5],
                [max(toe[0], 0) * 0.7 + wide * 0.95, drop * 0.35],
                [max(toe[0], 0) + wide * 0.75, drop + depth],
                [min(toe[0], 0) - wide * 0.75, drop + depth],
                [min(toe[0], 0) * 0.7 - wide * 0.95, drop * 0.35],
            ]
        )
        shape = turned(smooth(shape, 3), -swing * self.s * 0.8) + ankle
        drawing.fill(shape, Slot.SHOE)
        low = shape[:, 1].max()
        drawing.inside(
            box(float(shape[:, 0].min()), float(low - drop * 0.4), float(shape[:, 0].max()), float(low + 0.01)), Slot.SOLE, 0.8
        )
        drawing.shade(drop * 0.6 * design.shade)

    def _sides(self, half: float) -> float:
        """Half width on screen of a body section `half` wide."""
        return float(np.hypot(half * self.c, half * self.design.depth * self.s))

    def _on_torso(self, angle: float, height: float) -> tuple[float, float, float]:
        """A place on the torso: angle about it (0 = front), height 0 hips .. 1 neck -> x, y, share of width seen."""
        design = self.design
        half = design.waist + (design.shoulder - design.waist) * max(height - 0.35, 0.0) / 0.65
        turn = self.pose.yaw + angle
        x = float(np.sin(angle)) * self.c + design.depth * float(np.cos(angle)) * self.s
        return x * half, -self.torso_size * height, float(np.cos(turn))

    def _torso(self, back: bool) -> None:
        design, drawing, torso = self.design, self.drawing, self.torso_size
        mark = len(drawing.points)
        shoulder, waist, hip = self._sides(design.shoulder), self._sides(design.waist), self._sides(design.hip)
        neck = max(0.32 * design.shoulder, 0.17 * design.head_size) * (0.8 if design.tradition in ("anime", "slim") else 1.0)
        chest = 0.12 * shoulder * abs(self.s)
        lift = 0.02 if design.bottom in ("trousers", "shorts") else 0.0
        right = np.array(
            [
                [neck, -torso * 1.0],
                [shoulder * 0.85, -torso * 0.97],
                [shoulder, -torso * 0.86],
                [shoulder * 0.9 + max(self.s, 0) * chest, -torso * 0.65],
                [waist, -torso * 0.32],
                [hip, 0.0],
                [hip * 0.98, lift + 0.01],
            ]
        )
        left = right * (-1, 1)
        left[3, 0] = -(shoulder * 0.9 + max(-self.s, 0) * chest)
        shape = np.concatenate([smooth(right, 3, False), smooth(left[::-1], 3, False)])
        tall = np.array(
            [
                [-neck * 0.85, -torso * 0.95],
                [-neck * 0.8, -torso - design.neck - 0.3 * design.head_size],
                [neck * 0.8, -torso - design.neck - 0.3 * design.head_size],
                [neck * 0.85, -torso * 0.95],
            ]
        )
        drawing.fill(moved(tall, 0.05 * design.head_size * self.s, 0.0), Slot.SKIN)
        drawing.shade_in(
            box(-1.0, -torso - design.neck - 0.5 * design.head_size, 1.0, -torso - design.neck * 0.55 + 0.02 * design.head_size)
        )
        slot = Slot.TOP if design.top != "tank" else Slot.INNER
        drawing.fill(shape, slot)
        if design.pattern == "stripes":
            for k in range(5):
                y = -torso * (0.1 + 0.19 * k)
                drawing.inside(box(-0.5, y, 0.5, y + torso * 0.09), Slot.PATTERN, 0.6)
        elif design.pattern == "yoke":
            drawing.inside(box(-0.5, -torso * 1.1, 0.5, -torso * 0.7), Slot.PATTERN, 0.8)
        elif design.pattern == "dots":
            for k in range(8):
                x, y, c = self._on_torso(-1.2 + 0.8 * (k % 4), 0.35 + 0.35 * (k // 4))
                if c > 0.1:
                    drawing.inside(ellipse(x, y, 0.016 * c, 0.016, count=8), Slot.PATTERN, 0.6)
        if design.top == "jacket" and self.c > -0.7:
            self._opening(0.35, Slot.INNER)
        if self.c > -0.2:
            x, y, c = self._on_torso(0.0, 0.93)
            drop = torso * (0.22 if design.top in ("uniform", "jacket") else 0.1)
            wide = neck * max(c, 0.3) * 1.1
            slot = Slot.INNER if design.top in ("uniform",) else Slot.SKIN
            if design.top != "jacket":
                drawing.inside(
                    np.array([[x - wide, -torso * 1.05], [x, -torso * 1.0 + drop], [x + wide, -torso * 1.05]]), slot, 0.9
                )
        if design.emblem and not back:
            x, y, c = self._on_torso(0.5, 0.68)
            if c > 0.2:
                size = 0.03 + 0.01 * design.emblem
                shapes = (ellipse(x, y, size * c, size, count=10), box(x - size * c, y - size, x + size * c, y + size))
                drawing.inside(shapes[design.emblem % 2], Slot.ACCENT2, 0.8)
        if design.top == "hoodie" and self.c > 0.1:
            x, y, c = self._on_torso(0.0, 0.22)
            drawing.inside(
                np.array(
                    [[x - 0.07 * c, y - 0.05], [x + 0.07 * c, y - 0.05], [x + 0.09 * c, y + 0.05], [x - 0.09 * c, y + 0.05]]
                ),
                Slot.TOP2,
                0.8,
            )
        if design.belt:
            drawing.inside(box(-0.5, -torso * 0.12, 0.5, -torso * 0.02), Slot.BELT, 0.9)
            x, _, c = self._on_torso(0.0, 0.07)
            if c > 0.2:
                drawing.inside(box(x - 0.018, -torso * 0.13, x + 0.018, -torso * 0.01), Slot.METAL, 0.8)
        drawing.shade(0.35 * shoulder * design.shade)
        if design.buttons and not back:
            for k in range(design.buttons):
                x, y, c = self._on_torso(0.05 if design.top != "uniform" else 0.35, 0.72 - 0.6 * k / design.buttons)
                if c > 0.1:
                    drawing.fill(ellipse(x, y, 0.011 * max(c, 0.4), 0.011, count=8), Slot.BUTTON, 0.7)
                    if design.top == "uniform":
                        x, y, c = self._on_torso(-0.35, 0.72 - 0.6 * k / design.buttons)
                        if c > 0.1:
                            drawing.fill(ellipse(x, y, 0.011 * c, 0.011, count=8), Slot.BUTTON, 0.7)
        for angle, height, length, slant in design.folds:
            x, y, c = self._on_torso(angle, height)
            if c > 0.1:
                end = np.array([x + length * slant * 0.25 * c, y + length * 0.25])
                middle = (np.array([x, y]) + end) / 2 + (0.006 * np.sign(slant), 0.0)
                drawing.stroke(np.stack([[x, y], middle, end]), 0.6)
        self._collar(neck, back)
        self._neckwear(back)
        if design.prop == "bag":
            strap = np.array([[shoulder * 0.7, -torso * 0.97], [-hip * 0.9, -torso * 0.05]]) * (1 if self.c >= 0 else -1, 1)
            drawing.fill(ribbon(strap, np.full(2, 0.011)), Slot.PROP2, 0.8)
            x = float(strap[1, 0])
            drawing.fill(smooth(box(x - 0.075, -torso * 0.06, x + 0.075, torso * 0.2), 3), Slot.PROP)
            drawing.inside(box(x - 0.1, -torso * 0.1, x + 0.1, torso * 0.04), Slot.PROP2, 0.8)
            drawing.shade(0.02)
        points = np.array([[np.cos(self.pose.lean), -np.sin(self.pose.lean)], [np.sin(self.pose.lean), np.cos(self.pose.lean)]])
        drawing.move(mark, points, (float(self.hips[0]), float(self.hips[1])))

    def _opening(self, half: float, slot: int) -> None:
        """An open jacket: what lies under it, between two lapels."""
        torso = self.torso_size
        left = [self._on_torso(-half, h) for h in (1.02, 0.7, 0.35, -0.05)]
        right = [self._on_torso(half, h) for h in (-0.05, 0.35, 0.7, 1.02)]
        if max(p[2] for p in left) < -0.2 or max(p[2] for p in right) < -0.2:
            return
        shape = np.array([[p[0], p[1]] for p in left + right])
        self.drawing.inside(shape, slot, 1.0)
        lapel = np.array(
            [[shape[0, 0], shape[0, 1]], [shape[0, 0] - 0.035 * self.c, -torso * 0.72], [shape[1, 0] + 0.01, -torso * 0.6]]
        )
        other = np.array(
            [[shape[7, 0], shape[7, 1]], [shape[7, 0] + 0.035 * self.c, -torso * 0.72], [shape[6, 0] - 0.01, -torso * 0.6]]
        )
        self.drawing.inside(lapel, Slot.COLLAR, 0.9)
        self.drawing.inside(other, Slot.COLLAR, 0.9)

    def _collar(self, neck: float, back: bool) -> None:
        design, drawing, torso = self.design, self.drawing, self.torso_size
        if design.top in ("tank",):
            return
        if design.top == "hoodie":
            hood = np.array(
                [
                    [-neck * 1.7, -torso * 0.95],
                    [-neck * 1.3, -torso * 1.06],
                    [0, -torso * (0.99 if not back else 1.08)],
                    [neck * 1.3, -torso * 1.06],
                    [neck * 1.7, -torso * 0.95],
                    [0, -torso * (0.86 if not back else 0.66)],
                ]
            )
            drawing.fill(smooth(hood, 3), Slot.TOP2)
            drawing.shade(0.01)
            if not back:
                for side in (1.0, -1.0):
                    x, y, c = self._on_torso(0.25 * side, 0.8)
                    drawing.fill(box(x - 0.004, y, x + 0.004, y + torso * 0.2), Slot.ACCENT, 0.6)
        elif design.top == "sweater":
            drawing.fill(smooth(box(-neck * 1.05, -torso * 1.12, neck * 1.05, -torso * 0.96), 3), Slot.COLLAR)
        elif not back:
            for side in (1.0, -1.0):
                x, _, c = self._on_torso(0.0, 0.93)
                if c < -0.1 and side * self.s > 0:
                    continue
                tip = x + side * neck * 1.0 * max(c, 0.35)
                flap = np.array(
                    [
                        [side * neck * 0.95, -torso * 1.06],
                        [x, -torso * 0.9],
                        [tip, -torso * 0.8],
                        [side * neck * 1.25, -torso * 0.97],
                    ]
                )
                drawing.fill(flap, Slot.COLLAR, 0.9)
        else:
            drawing.fill(smooth(box(-neck * 1.1, -torso * 1.06, neck * 1.1, -torso * 0.93), 3), Slot.COLLAR, 0.9)

    def _neckwear(self, back: bool) -> None:
        design, drawing, torso = self.design, self.drawing, self.torso_size
        if back:
            return
        x, y, c = self._on_torso(0.0, 0.9)
        if c < -0.05:
            return
        if design.neckwear == "tie":
            x2, y2, _ = self._on_torso(0.0, 0.35)
            w = 0.022 * max(c, 0.4)
            x2 += self.pose.sway[0] * 0.1
            drawing.fill(
                np.array([[x - w * 0.6, y + 0.01], [x + w * 0.6, y + 0.01], [x2 + w, y2 - 0.02], [x2, y2], [x2 - w, y2 - 0.02]]),
                Slot.ACCENT,
            )
            if design.emblem:
                drawing.inside(box(x - 0.1, y + torso * 0.2, x + 0.1, y + torso * 0.3), Slot.ACCENT2, 0.6)
            drawing.fill(
                np.array([[x - w, y - 0.012], [x + w, y - 0.012], [x + w * 0.6, y + 0.014], [x - w * 0.6, y + 0.014]]),
                Slot.ACCENT,
            )
        elif design.neckwear in ("bow", "ribbon"):
            w = 0.05 * max(c, 0.4)
            if design.neckwear == "ribbon":
                drawing.fill(np.array([[x, y], [x - w * 0.3, y + 0.1], [x - w * 0.8, y + 0.09]]), Slot.ACCENT, 0.9)
                drawing.fill(np.array([[x, y], [x + w * 0.3, y + 0.1], [x + w * 0.8, y + 0.09]]), Slot.ACCENT, 0.9)
            drawing.fill(np.array([[x, y], [x - w, y - 0.025], [x - w, y + 0.03]]), Slot.ACCENT)
            drawing.fill(np.array([[x, y], [x + w, y - 0.025], [x + w, y + 0.03]]), Slot.ACCENT)
            drawing.fill(ellipse(x, y, w * 0.25, 0.014, count=8), Slot.ACCENT2)

    def _scarf(self) -> None:
        design, drawing = self.design, self.drawing
        x, y = self.neck_root
        wide = min(max(self._sides(design.shoulder) * 0.6, 0.2 * design.head_size), 0.42 * design.head_size)
        sway = self.pose.sway[0]
        tail = np.array([[x + wide * 0.5, y], [x + wide * 0.8 + sway * 0.3, y + 0.1], [x + wide * 0.6 + sway * 0.8, y + 0.22]])
        drawing.fill(ribbon(smooth(tail, 3, False), np.full(7, 0.025)), Slot.ACCENT)
        drawing.inside(ribbon(moved(tail[1:], 0.0, 0.04), np.full(2, 0.012)), Slot.ACCENT2, 0.5)
        drawing.fill(ellipse(x, y - 0.01, wide, 0.015 + 0.07 * design.head_size), Slot.ACCENT)
        drawing.shade(0.015)

    def _skirt(self, legs: list[tuple[float, np.ndarray, np.ndarray]]) -> None:
        design, drawing = self.design, self.drawing
        length = self.leg_size * (design.skirt if design.bottom != "coat" else 0.3 + 0.6 * design.skirt)
        hip = self._sides(design.hip)
        knees = np.array([leg[1][1][0] for leg in legs]) - self.hips[0]
        share = min(design.skirt, 1.0)
        wide = hip * design.flare
        right = max(wide, float(knees.max()) * share + design.leg * 1.4)
        left = min(-wide, float(knees.min()) * share - design.leg * 1.4)
        sway = self.pose.sway[0] * 0.35
        count = 6
        t = np.linspace(0, 1, 2 * count + 1)
        hem = np.stack(
            [
                right + (left - right) * t + sway,
                length + 0.02 * np.sin(np.pi * t) + 0.012 * np.where(np.arange(2 * count + 1) % 2, 1, -1),
            ],
            1,
        )
        top = hip * 1.02
        shape = np.concatenate(
            [
                [[-top, -0.01], [0.0, -0.02], [top, -0.01], [(top * 0.45 + right * 0.55), length * 0.4]],
                hem,
                [[(-top * 0.45 + left * 0.55), length * 0.4]],
            ]
        )
        slot = Slot.TOP if design.bottom in ("dress", "coat") else Slot.BOTTOM
        drawing.fill(shape + self.hips, slot)
        if design.pattern in ("bands", "stripes"):
            band = np.concatenate([hem - (0, length * 0.22), (hem - (0, length * 0.1))[::-1]])
            drawing.inside(band + self.hips, Slot.BOTTOM2, 0.7)
        if design.bottom == "coat" and self.c > 0.2:
            gap = np.array([[0.0, 0.0], [right * 0.4, length * 1.1], [left * 0.4, length * 1.1]])
            drawing.inside(gap + self.hips, Slot.BOTTOM, 1.0)
        drawing.shade(hip * 0.5 * design.shade)
        for k in range(2, 2 * count - 1, 2):
            end = hem[k]
            start = end * (0.55, 0.45)
            drawing.stroke(np.stack([start, end]) + self.hips, 0.6)

    def _behind_things(self) -> None:
        """Tail, cape, wings or backpack: on the far side from the front, on the near side from the back."""
        design, drawing = self.design, self.drawing
        sway = self.pose.sway[0]
        if design.tail:
            t = np.linspace(0, 1, 5)
            back = -self.s if abs(self.s) > 0.2 else 0.5
            x = self.hips[0] + back * (design.hip + design.tail * t) + sway * t
            y = self.hips[1] + 0.02 - design.tail * (0.9 * t**2 - 0.3 * t)
            line = smooth(np.stack([x, y], 1), 3, False)
            drawing.fill(ribbon(line, np.linspace(0.03, 0.045, len(line)), 0.9), Slot.EAR)
            drawing.inside(ribbon(line[-5:], np.full(5, 0.06), 1.0), Slot.EAR2, 0.8)
            drawing.shade(0.015)
        if design.prop == "cape":
            shoulder, wide = self._sides(design.shoulder), self._sides(design.shoulder) * 1.9
            x, y = self.neck_root
            pull = -self.s * 0.1 + sway
            low = self.hips[1] + self.leg_size * 0.5
            shape = np.array(
                [
                    [x - shoulder * 0.9, y + 0.02],
                    [x + shoulder * 0.9, y + 0.02],
                    [x + wide + pull, low],
                    [x + wide * 0.3 + pull, low + 0.03],
                    [x - wide * 0.4 + pull, low - 0.01],
                    [x - wide + pull, low + 0.02],
                ]
            )
            drawing.fill(smooth(shape, 3), Slot.PROP)
            drawing.shade(0.05 * design.shade)
            for k in (-0.4, 0.1, 0.5):
                drawing.stroke(np.array([[x + k * shoulder, y + 0.12], [x + k * wide + pull, low - 0.03]]), 0.6)
        elif design.prop == "wings":
            x, y = self.neck_root
            for side in (1.0, -1.0):
                wing = np.array(
                    [
                        [x, y + 0.08],
                        [x + side * 0.2, y - 0.12],
                        [x + side * 0.42, y - 0.1 + sway * 0.3],
                        [x + side * 0.33, y + 0.08],
                        [x + side * 0.22, y + 0.12],
                        [x + side * 0.12, y + 0.2],
                    ]
                )
                drawing.fill(smooth(wing, 3), Slot.PROP)
                drawing.shade(0.03)

    def _held(self, at: np.ndarray, out: np.ndarray) -> None:
        design, drawing = self.design, self.drawing
        x, y = float(at[0]), float(at[1])
        up = np.array([out[1], -out[0]])
        if up[1] > 0:
            up = -up
        if design.prop == "stick":
            drawing.fill(ribbon(np.stack([at - up * 0.15, at + up * 0.42]), np.full(2, 0.012)), Slot.PROP)
            drawing.fill(ribbon(np.stack([at + up * 0.36, at + up * 0.46]), np.full(2, 0.03)), Slot.METAL)
        elif design.prop == "ball":
            drawing.fill(ellipse(x, y + 0.05, 0.075, 0.075), Slot.PROP)
            drawing.inside(
                ribbon(
                    smooth(np.array([[x - 0.08, y + 0.04], [x, y + 0.07], [x + 0.08, y + 0.04]]), 3, False), np.full(7, 0.015)
                ),
                Slot.PROP2,
                0.7,
            )
            drawing.shade(0.03 * design.shade)
        elif design.prop == "book":
            drawing.fill(turned(box(x - 0.06, y - 0.08, x + 0.06, y + 0.08), 0.2, (x, y)), Slot.PROP)
            drawing.inside(turned(box(x - 0.035, y - 0.05, x + 0.035, y - 0.01), 0.2, (x, y)), Slot.PROP2, 0.7)
        else:
            top = at + up * 0.4
            drawing.fill(ribbon(np.stack([at - up * 0.08, top]), np.full(2, 0.007)), Slot.METAL, 0.8)
            across = np.array([-up[1], up[0]])
            t = np.linspace(0, np.pi, 9)
            dome = top + np.cos(t)[:, None] * across * 0.22 + np.sin(t)[:, None] * up * 0.14
            drawing.fill(dome, Slot.PROP)
            drawing.inside(np.stack([top + up * 0.14, top + across * 0.07, top - across * 0.07]), Slot.PROP2, 0.7)
            drawing.shade(0.05)
