"""Animals and things: four-legged beasts, birds, fish, and vehicles. Seen from the side or half turned."""

from dataclasses import dataclass

import numpy as np

from timecolor.world.curves import box, ellipse, moved, ribbon, smooth, turned
from timecolor.world.draw import Drawing
from timecolor.world.motion import Pose
from timecolor.world.palette import Slot

KINDS = ("beast", "beast", "bird", "fish", "car", "blob")


@dataclass(frozen=True, slots=True, eq=False)
class Creature:
    """A design. sizes (12,): shape parameters in 0..1, what they mean depends on the kind. spots (n, 3): x, y, size."""

    kind: str
    sizes: np.ndarray
    spots: np.ndarray
    ears: int
    shade: float
    furry: bool = True

    @property
    def head_size(self) -> float:
        """How much of the height is head."""
        return 0.45

    def draw(self, pose: Pose) -> Drawing:
        """The creature in a pose: feet at y = 0, about one unit high."""
        drawing = Drawing()
        {"beast": self._beast, "bird": self._bird, "fish": self._fish, "car": self._car, "blob": self._blob}[self.kind](
            drawing, pose
        )
        # Drawn facing right; turned to its yaw, never quite head on.
        facing = float(np.sin(pose.yaw))
        wide = np.sign(facing + 1e-9) * max(abs(facing), 0.55)
        tilt = pose.lean * 0.5
        drawing.move(0, np.array([[wide * np.cos(tilt), -np.sin(tilt)], [wide * np.sin(tilt), np.cos(tilt)]]), (0.0, -pose.lift))
        return drawing

    def _eye(self, drawing: Drawing, pose: Pose, x: float, y: float, size: float) -> None:
        if pose.eyes < 0.3:
            drawing.stroke(np.array([[x - size, y], [x, y + size * 0.4], [x + size, y]]), 1.0)
            return
        drawing.fill(ellipse(x, y, size, size * 1.2, count=12), Slot.EYE_WHITE, 0.9)
        drawing.inside(ellipse(x + size * 0.3, y, size * 0.6, size * 0.8, count=10), Slot.IRIS, 0.5)
        drawing.inside(ellipse(x + size * 0.35, y, size * 0.35, size * 0.5, count=10), Slot.PUPIL)
        drawing.inside(ellipse(x + size * 0.5, y - size * 0.3, size * 0.2, size * 0.22, count=8), Slot.EYE_LIGHT)

    def _spotted(self, drawing: Drawing, x: float, y: float, wide: float, high: float) -> None:
        for dx, dy, size in self.spots:
            drawing.inside(
                ellipse(x + dx * wide, y + dy * high, size * wide * 0.35, size * wide * 0.3, count=10), Slot.PATTERN, 0.7
            )

    def _beast(self, drawing: Drawing, pose: Pose) -> None:
        s = self.sizes
        legs, long, deep, thick = 0.25 + 0.3 * s[0], 0.32 + 0.3 * s[1], 0.14 + 0.1 * s[2], 0.025 + 0.04 * s[3]
        y = -legs - deep * 0.7
        t = np.linspace(0, 1, 5)
        tail = np.stack(
            [-long - 0.35 * s[4] * t + 0.1 * pose.sway[0] * t, y - 0.1 + (0.25 - 0.6 * s[5]) * t + 0.3 * pose.sway[0] * t**2], 1
        )
        tail = smooth(tail, 3, False)
        drawing.fill(ribbon(tail, np.linspace(thick, thick * (0.5 + 1.5 * s[6]), len(tail)), 0.9), Slot.EAR)
        drawing.inside(ribbon(tail[-4:], np.full(4, thick * 2), 1.0), Slot.EAR2, 0.6)
        for number, (x, forward) in enumerate(((long * 0.75, 0), (-long * 0.8, 1), (long * 0.6, 1), (-long * 0.62, 0))):
            swing = pose.leg_forward[forward] * 0.7
            knee = np.array([x + np.sin(swing) * legs * 0.6, y + deep * 0.4 + legs * 0.45])
            foot = np.array([knee[0] + np.sin(swing - pose.knee[forward] * 0.6) * legs * 0.5, min(0.0, knee[1] + legs * 0.6)])
            line = smooth(np.stack([[x, y], knee, foot]), 3, False)
            drawing.fill(
                ellipse(float(foot[0]) + thick * 0.5, float(foot[1]) - thick * 0.4, thick * 1.5, thick * 0.8, count=10), Slot.SHOE
            )
            drawing.fill(
                ribbon(line, np.linspace(thick * 1.8, thick, len(line))), Slot.SKIN if number > 1 else Slot.EAR, closed=False
            )
            drawing.shade(thick * 0.5)
            if number == 1:
                self._trunk(drawing, y, long, deep)
        self._head(drawing, pose, long, y - deep * 0.5)

    def _trunk(self, drawing: Drawing, y: float, long: float, deep: float) -> None:
        body = np.array(
            [
                [-long, y],
                [-long * 0.8, y - deep],
                [0, y - deep * 0.9],
                [long * 0.8, y - deep * 1.1],
                [long, y],
                [long * 0.7, y + deep],
                [0, y + deep * 0.75],
                [-long * 0.75, y + deep * 0.9],
            ]
        )
        drawing.fill(smooth(body, 4), Slot.SKIN)
        drawing.inside(ellipse(0.0, y + deep * 0.9, long * 0.8, deep * 0.5), Slot.MUZZLE, 0.7)
        self._spotted(drawing, 0.0, y, long, deep)
        drawing.shade(deep * 0.4 * self.shade)

    def _head(self, drawing: Drawing, pose: Pose, x: float, y: float) -> None:
        s = self.sizes
        size = 0.15 + 0.08 * s[7]
        rise = 0.08 + 0.25 * s[8]
        hx, hy = x + 0.1 + 0.04 * pose.pitch, y - rise + 0.06 * pose.pitch
        drawing.fill(
            ribbon(np.array([[x - 0.1, y + 0.05], [(x + hx) / 2, (y + hy) / 2], [hx, hy]]), np.array([0.12, 0.1, size * 0.6])),
            Slot.SKIN,
            closed=False,
        )
        drawing.inside(
            ribbon(np.array([[x - 0.02, y - rise * 0.3], [x + 0.12, y - rise * 0.1]]), np.full(2, 0.025)), Slot.ACCENT, 0.9
        )
        if self.ears == 2:
            drawing.fill(
                np.array([[hx - 0.04, hy - size * 0.6], [hx - 0.14, hy - size * 2.0], [hx + 0.03, hy - size * 0.7]]), Slot.METAL
            )
        mark = len(drawing.points)
        drawing.fill(ellipse(hx + size * 0.9, hy + size * 0.3, size * (0.5 + 0.5 * s[9]), size * 0.5), Slot.MUZZLE)
        drawing.fill(ellipse(hx, hy, size * 1.05, size), Slot.SKIN)
        drawing.shade(size * 0.25 * self.shade)
        reach = size * (1.0 + 0.5 * s[9])
        drawing.fill(ellipse(hx + reach * 0.8, hy + size * 0.35, reach * 0.5, size * 0.42), Slot.MUZZLE)
        drawing.fill(ellipse(hx + reach * 1.2, hy + size * 0.2, size * 0.2, size * 0.16, count=10), Slot.NOSE)
        if pose.mouth > 0.3:
            drawing.fill(
                ellipse(hx + reach * 0.8, hy + size * 0.62, size * 0.3, size * 0.16 * pose.mouth + 0.004, count=10), Slot.MOUTH
            )
        else:
            drawing.stroke(
                np.array(
                    [
                        [hx + reach * 1.1, hy + size * 0.5],
                        [hx + reach * 0.7, hy + size * 0.6],
                        [hx + reach * 0.5, hy + size * 0.5],
                    ]
                ),
                0.8,
            )
        self._eye(drawing, pose, hx + size * 0.3, hy - size * 0.2, size * (0.16 + 0.12 * s[10]))
        if self.ears == 0:
            ear = np.array(
                [[hx - size * 0.6, hy - size * 0.5], [hx - size * 0.5, hy - size * 1.6], [hx + size * 0.1, hy - size * 0.85]]
            )
        else:
            ear = np.array(
                [
                    [hx - size * 0.7, hy - size * 0.6],
                    [hx - size * 1.2, hy + size * 0.3],
                    [hx - size * 0.7, hy + size * 0.6],
                    [hx - size * 0.25, hy - size * 0.4],
                ]
            )
        drawing.fill(smooth(ear, 3), Slot.EAR)
        drawing.inside(smooth((ear - ear.mean(0)) * 0.5 + ear.mean(0), 3), Slot.EAR2, 0.6)
        c, sn = np.cos(pose.roll * 1.5), np.sin(pose.roll * 1.5)
        turn = np.array([[c, -sn], [sn, c]])
        offset = np.array([hx, hy]) - turn @ np.array([hx, hy])
        drawing.move(mark, turn, (float(offset[0]), float(offset[1])))
        drawing.head = None

    def _bird(self, drawing: Drawing, pose: Pose) -> None:
        s = self.sizes
        fat, neck = 0.2 + 0.12 * s[0], 0.1 + 0.35 * s[1]
        y = -0.2 - fat
        for k, x in enumerate((-0.05, 0.08)):
            foot = x + 0.2 * pose.leg_forward[k]
            drawing.fill(ribbon(np.array([[x, y + fat * 0.6], [foot, -0.02]]), np.full(2, 0.014)), Slot.SHOE)
            drawing.fill(np.array([[foot - 0.03, 0.0], [foot, -0.04], [foot + 0.09, 0.0]]), Slot.SHOE)
        drawing.fill(
            np.array(
                [[-fat, y - 0.04], [-fat - 0.25 * s[2] - 0.1, y - 0.1], [-fat - 0.2 * s[2] - 0.1, y + 0.08], [-fat, y + 0.08]]
            ),
            Slot.EAR,
        )
        top = y - neck - 0.1
        line = smooth(np.array([[0.06, y], [0.16, (y + top) / 2], [0.14, top]]), 4, False)
        drawing.fill(ribbon(line, np.linspace(fat * 0.7, 0.1, len(line))), Slot.SKIN)
        drawing.fill(ellipse(-0.02, y, fat * 1.25, fat), Slot.SKIN)
        drawing.inside(ellipse(0.1, y + fat * 0.7, fat, fat * 0.7), Slot.MUZZLE, 0.7)
        drawing.shade(fat * 0.35 * self.shade)
        flap = pose.arm_out[0] - 0.2
        wing = turned(
            np.array(
                [
                    [0.06, y - 0.05],
                    [-0.1, y - 0.12],
                    [-0.38, y],
                    [-0.3, y + 0.04],
                    [-0.32, y + 0.08],
                    [-0.18, y + 0.1],
                    [0.0, y + 0.1],
                ]
            ),
            flap * 0.5,
            (0.05, y),
        )
        drawing.fill(wing, Slot.EAR)
        drawing.inside((wing - wing[0]) * 0.55 + wing[0], Slot.EAR2, 0.8)
        drawing.shade(0.03 * self.shade)
        beak = np.array([[0.2, top - 0.05], [0.24 + 0.2 * s[3], top + 0.02], [0.2, top + 0.05 + 0.03 * pose.mouth]])
        drawing.fill(beak, Slot.METAL)
        drawing.fill(ellipse(0.13, top, 0.11, 0.11), Slot.SKIN)
        drawing.shade(0.03 * self.shade)
        if self.ears:
            drawing.fill(
                np.array([[0.05, top - 0.08], [0.0, top - 0.22], [0.1, top - 0.13], [0.12, top - 0.24], [0.17, top - 0.09]]),
                Slot.ACCENT,
            )
        self._eye(drawing, pose, 0.16, top - 0.02, 0.025 + 0.025 * s[4])

    def _fish(self, drawing: Drawing, pose: Pose) -> None:
        s = self.sizes
        long, deep = 0.4 + 0.25 * s[0], 0.15 + 0.25 * s[1]
        y, wag = -0.5, pose.sway[0] * 0.4
        drawing.fill(
            np.array(
                [
                    [-long * 0.8, y],
                    [-long * 1.4 + wag * 0.2, y - deep * 0.8 + wag],
                    [-long * 1.2, y + wag],
                    [-long * 1.4 - wag * 0.2, y + deep * 0.8 + wag],
                ]
            ),
            Slot.EAR,
        )
        drawing.fill(
            smooth(np.array([[-long * 0.4, y - deep * 0.7], [-long * 0.2, y - deep * 1.5], [long * 0.35, y - deep * 0.8]]), 3),
            Slot.EAR2,
        )
        drawing.fill(
            smooth(
                np.array(
                    [
                        [-long, y],
                        [-long * 0.3, y - deep],
                        [long * 0.5, y - deep * 0.9],
                        [long, y],
                        [long * 0.5, y + deep * 0.9],
                        [-long * 0.3, y + deep],
                    ]
                ),
                4,
            ),
            Slot.SKIN,
        )
        drawing.inside(ellipse(0.1, y + deep, long * 0.9, deep * 0.6), Slot.MUZZLE, 0.6)
        for k in range(4):
            x = long * (0.3 - 0.3 * k)
            drawing.inside(box(x, y - 1, x + long * 0.12, y + 1), Slot.PATTERN, 0.7)
        drawing.shade(deep * 0.4 * self.shade)
        drawing.fill(np.array([[0.05, y + 0.02], [-0.15, y + 0.12 + wag], [-0.12, y + 0.02]]), Slot.EAR2)
        drawing.stroke(ellipse(long * 0.45, y, long * 0.12, deep * 0.7, count=14)[3:12], 0.8)
        drawing.stroke(np.array([[long * 0.95, y + deep * 0.15], [long * 0.75, y + deep * 0.25]]), 0.9)
        self._eye(drawing, pose, long * 0.68, y - deep * 0.25, 0.03 + 0.03 * s[2])

    def _car(self, drawing: Drawing, pose: Pose) -> None:
        s = self.sizes
        long, high, roof = 0.7 + 0.5 * s[0], 0.18 + 0.15 * s[1], 0.2 + 0.2 * s[2]
        wheel = 0.1 + 0.07 * s[3]
        low = -wheel
        cabin = np.array(
            [
                [-long * 0.75, low - high],
                [-long * 0.5, low - high - roof],
                [long * 0.2, low - high - roof],
                [long * 0.45, low - high],
            ]
        )
        drawing.fill(cabin, Slot.TOP)
        drawing.inside((cabin - cabin.mean(0)) * (0.82, 0.7) + cabin.mean(0), Slot.TOP2, 0.9)
        drawing.stroke(np.array([[-0.1 * long, low - high], [-0.1 * long, low - high - roof]]), 1.0)
        body = np.array(
            [
                [-long, low],
                [-long, low - high * 0.9],
                [-long * 0.75, low - high],
                [long * 0.45, low - high],
                [long * 0.95, low - high * 0.7],
                [long, low],
            ]
        )
        drawing.fill(body, Slot.SKIN)
        if self.ears:
            drawing.inside(box(-2.0, low - high * 0.55, 2.0, low - high * 0.35), Slot.PATTERN, 0.7)
        drawing.shade(high * 0.4 * self.shade)
        drawing.stroke(np.array([[-0.1 * long, low], [-0.1 * long, low - high]]), 0.8)
        drawing.fill(ellipse(long * 0.9, low - high * 0.45, 0.04, 0.05, count=10), Slot.METAL)
        drawing.fill(box(-long - 0.03, low - 0.05, long + 0.03, low + 0.02), Slot.BELT)
        for x in (-long * 0.6, long * 0.6):
            spin = 6 * pose.leg_forward[0]
            drawing.fill(ellipse(x, -wheel, wheel, wheel), Slot.SHOE)
            drawing.fill(ellipse(x, -wheel, wheel * 0.55, wheel * 0.55, count=12), Slot.METAL)
            across = np.array([[-1.0, 0.0], [1.0, 0.0]]) * wheel * 0.5
            drawing.stroke(moved(turned(across, spin), x, -wheel), 0.8)

    def _blob(self, drawing: Drawing, pose: Pose) -> None:
        """A ghost, slime or robot: one soft body with a face, arms and perhaps an antenna."""
        s = self.sizes
        wide, high = 0.25 + 0.25 * s[0], 0.6 + 0.4 * s[1]
        squash = 1 + 0.3 * pose.sway[0]
        t = np.linspace(0, np.pi, 7)
        top = np.stack([np.cos(t) * wide, -high * 0.5 - np.sin(t) * high * 0.5 * squash], 1)
        count = 2 * (2 + int(4 * s[2])) + 1
        hem = np.stack([np.linspace(-wide * 1.1, wide * 1.1, count), np.where(np.arange(count) % 2, 0.02, -0.08 * s[3])], 1)
        for k, side in enumerate((1.0, -1.0)):
            reach = turned(np.array([[0.0, 0.0], [0.1, 0.06], [0.22, 0.0]]), -pose.arm_out[k] * 0.7) * (side, 1) + (
                side * wide * 0.85,
                -high * 0.45,
            )
            drawing.fill(ribbon(smooth(reach, 3, False), np.full(7, 0.035), 1.0), Slot.EAR)
        if self.ears:
            drawing.fill(
                ribbon(np.array([[0.0, -high * 0.95], [0.05 + pose.sway[0] * 0.3, -high * 1.2]]), np.full(2, 0.012)), Slot.METAL
            )
            drawing.fill(ellipse(0.05 + pose.sway[0] * 0.3, -high * 1.22, 0.045, 0.045, count=12), Slot.ACCENT)
        drawing.fill(smooth(np.concatenate([top, hem]), 3), Slot.SKIN)
        drawing.inside(ellipse(0.0, -high * 0.2, wide * 0.6, high * 0.2), Slot.MUZZLE, 0.7)
        self._spotted(drawing, 0.0, -high * 0.4, wide, high * 0.4)
        drawing.shade(wide * 0.4 * self.shade)
        for side in (1.0, -1.0):
            self._eye(drawing, pose, side * wide * 0.35 + 0.05, -high * 0.62, 0.05 + 0.05 * s[4])
        y = -high * 0.42
        if pose.mouth > 0.2:
            drawing.fill(ellipse(0.05, y, wide * 0.2, 0.05 * pose.mouth + 0.01, count=12), Slot.MOUTH)
        else:
            drawing.stroke(
                smooth(np.array([[0.05 - wide * 0.2, y - 0.02], [0.05, y + 0.03], [0.05 + wide * 0.2, y - 0.02]]), 3, False)
            )


def random_creature(rng: np.random.Generator) -> Creature:
    """An animal or a thing."""
    count = int(rng.integers(3, 8)) if rng.random() < 0.4 else 0
    return Creature(
        kind=KINDS[rng.integers(len(KINDS))],
        sizes=rng.random(12),
        spots=np.stack([rng.uniform(-0.8, 0.8, count), rng.uniform(-0.8, 0.8, count), rng.uniform(0.2, 1.0, count)], 1),
        ears=int(rng.integers(0, 3)),
        shade=float(rng.uniform(0.6, 1.5)),
    )
