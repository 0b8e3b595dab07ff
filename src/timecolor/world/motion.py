"""Poses and how they change: key poses with easing, walks, head turns, blinking, talking; drawn on ones, twos or threes."""

from dataclasses import dataclass, fields, replace

import numpy as np


@dataclass(frozen=True, slots=True)
class Pose:
    """One drawing's pose. Angles in radians; yaw 0 faces us, pi/2 looks to screen right, pi shows the back."""

    yaw: float = 0.0
    head_yaw: float = 0.0  # added to the body's
    pitch: float = 0.0  # nod, positive looks down
    roll: float = 0.0
    lean: float = 0.0
    arm_out: tuple[float, float] = (0.2, 0.2)  # away from the body; character's left, right
    arm_forward: tuple[float, float] = (0.0, 0.0)
    fore_out: tuple[float, float] = (0.15, 0.15)
    fore_forward: tuple[float, float] = (0.2, 0.2)
    leg_out: tuple[float, float] = (0.06, 0.06)
    leg_forward: tuple[float, float] = (0.0, 0.0)
    knee: tuple[float, float] = (0.05, 0.05)
    eyes: float = 1.0  # open
    mouth: float = 0.0  # open
    smile: float = 0.4
    brow: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)
    sway: tuple[float, float] = (0.0, 0.0)  # hair and cloth, to the right and up
    lift: float = 0.0  # off the ground, in heights


_NAMES = tuple(f.name for f in fields(Pose))


def blend(a: Pose, b: Pose, share: float) -> Pose:
    """The pose `share` of the way from a to b."""
    rest = 1 - share
    values = []
    for name in _NAMES:
        x, y = getattr(a, name), getattr(b, name)
        if isinstance(x, tuple):
            values.append((x[0] * rest + y[0] * share, x[1] * rest + y[1] * share))
        else:
            values.append(x * rest + y * share)
    return Pose(*values)


def random_yaw(rng: np.random.Generator) -> float:
    """A body's facing: mostly front and three-quarter, often side, sometimes back."""
    kind = rng.random()
    sign = -1.0 if rng.random() < 0.5 else 1.0
    if kind < 0.3:
        return sign * float(rng.uniform(0, 0.25))
    if kind < 0.65:
        return sign * float(rng.uniform(0.35, 0.95))
    if kind < 0.89:
        return sign * float(rng.uniform(1.2, 1.6))
    return sign * float(rng.uniform(2.2, 3.14))


def _arm(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Upper arm (out, forward) and forearm (out, forward) of one arm."""
    kind = rng.random()
    if kind < 0.36:  # hanging
        out, forward = rng.uniform(0.08, 0.35), rng.uniform(-0.2, 0.3)
        return out, forward, out + rng.uniform(-0.15, 0.1), forward + rng.uniform(0.05, 0.5)
    if kind < 0.52:  # on the hip
        out = rng.uniform(0.5, 0.9)
        return out, rng.uniform(-0.2, 0.2), -rng.uniform(0.4, 0.9), rng.uniform(0, 0.5)
    if kind < 0.68:  # raised, waving
        out = rng.uniform(1.0, 2.2)
        return out, rng.uniform(0, 0.4), out + rng.uniform(0.2, 1.2), rng.uniform(0, 0.4)
    if kind < 0.86:  # bent forward
        forward = rng.uniform(0.1, 0.9)
        return rng.uniform(0.05, 0.4), forward, rng.uniform(-0.5, 0.3), forward + rng.uniform(0.6, 1.6)
    out = rng.uniform(0.8, 1.6)  # stretched out
    return out, rng.uniform(-0.2, 1.2), out + rng.uniform(-0.2, 0.2), rng.uniform(0, 1.2)


def random_pose(rng: np.random.Generator, yaw: float | None = None) -> Pose:
    """A standing, running or jumping pose. yaw: None = drawn too."""
    arms = np.array([_arm(rng), _arm(rng)])
    active = rng.random() < 0.3
    spread, swing = (0.3, 0.7) if active else (0.1, 0.15)
    legs = np.abs(rng.normal(0, spread, 2)) + 0.03
    forward = rng.normal(0, swing, 2)
    knees = np.abs(rng.normal(0, swing, 2)) + np.maximum(forward, 0) * 0.8
    pair = lambda v: (float(v[0]), float(v[1]))  # noqa: E731
    return Pose(
        yaw=random_yaw(rng) if yaw is None else yaw,
        head_yaw=float(rng.normal(0, 0.4)),
        pitch=float(rng.normal(0, 0.35)),
        roll=float(rng.normal(0, 0.12)),
        lean=float(rng.normal(0, 0.18 if active else 0.06)),
        arm_out=pair(arms[:, 0]),
        arm_forward=pair(arms[:, 1]),
        fore_out=pair(arms[:, 2]),
        fore_forward=pair(arms[:, 3]),
        leg_out=pair(legs),
        leg_forward=pair(forward),
        knee=pair(knees),
        eyes=float(rng.choice((1.0, 0.85, 0.5, 0.0), p=(0.62, 0.2, 0.1, 0.08))),
        mouth=float(rng.choice((0.0, 0.5, 1.0), p=(0.55, 0.2, 0.25))),
        smile=float(rng.uniform(-0.7, 1.0)),
        brow=float(rng.normal(0, 0.5)),
        gaze=(float(rng.normal(0, 0.4)), float(rng.normal(0, 0.25))),
        sway=(float(rng.normal(0, 0.12)), float(abs(rng.normal(0, 0.05)))),
        lift=float(rng.uniform(0, 0.15)) if active and rng.random() < 0.3 else 0.0,
    )


def _nearby(rng: np.random.Generator, pose: Pose, amount: float) -> Pose:
    """Another key of the same act: part of the way to a new pose, with a turn now and then."""
    turn = rng.normal(0, 0.6) if rng.random() < 0.3 else rng.normal(0, 0.1)
    other = random_pose(rng, pose.yaw + float(turn) * amount)
    arms = blend(pose, other, amount)
    return replace(arms, head_yaw=pose.head_yaw + float(rng.normal(0, 0.45)) * amount, eyes=1.0, lift=other.lift * amount)


@dataclass(frozen=True, slots=True)
class Act:
    """What one character does in a shot: a pose at every time.

    times: seconds of the keys. walk: steps a second (0 = stands); stride: size of a step, radians. talk: syllables a second.
    blink: seconds between blinks (0 = none). phase: where walk, blink and talk begin. sway: of hair and cloth.
    """

    keys: tuple[Pose, ...]
    times: tuple[float, ...]
    walk: float = 0.0
    stride: float = 0.5
    talk: float = 0.0
    blink: float = 0.0
    phase: float = 0.0
    sway: float = 0.1

    def at(self, time_s: float) -> Pose:
        """The pose at a time in seconds."""
        i = int(np.searchsorted(np.array(self.times), time_s, side="right")) - 1
        if i >= len(self.keys) - 1:
            pose = self.keys[-1]
        else:
            i = max(i, 0)
            share = (time_s - self.times[i]) / (self.times[i + 1] - self.times[i])
            share = min(max(share, 0.0), 1.0)
            pose = blend(self.keys[i], self.keys[i + 1], share * share * (3 - 2 * share))
        changes: dict[str, float | tuple[float, float]] = {}
        if self.walk:
            swing = float(np.sin(2 * np.pi * (self.walk * time_s + self.phase)))
            bend = float(np.cos(2 * np.pi * (self.walk * time_s + self.phase)))
            s = self.stride
            changes |= {
                "leg_forward": (s * swing, -s * swing),
                "knee": (0.1 + s * max(0.0, bend) * 1.3, 0.1 + s * max(0.0, -bend) * 1.3),
                "arm_forward": (-s * 0.8 * swing, s * 0.8 * swing),
                "fore_forward": (-s * 0.8 * swing + 0.5 * s + 0.2, s * 0.8 * swing + 0.5 * s + 0.2),
                "arm_out": (0.12, 0.12),
                "fore_out": (0.05, 0.05),
                "leg_out": (0.03, 0.03),
                "lift": 0.0,
            }
        wave = float(np.sin(2 * np.pi * (0.7 * time_s + self.phase)))
        changes["sway"] = (pose.sway[0] + self.sway * wave, pose.sway[1])
        if self.talk:
            changes["mouth"] = float(
                max(0.0, np.sin(2 * np.pi * (self.talk * time_s + self.phase))) * (0.6 + 0.4 * np.sin(5.3 * time_s))
            )
        if self.blink and (time_s + self.phase * self.blink) % self.blink < 0.16:
            changes["eyes"] = 0.0
        return replace(pose, **changes)  # pyright: ignore[reportArgumentType]


def random_act(rng: np.random.Generator, length_s: float, walking: bool, start: Pose) -> Act:
    """An act of about `length_s` seconds from the pose `start`; walking keeps its yaw."""
    count = int(rng.integers(1, 4)) if length_s > 0 else 1
    amount = float(rng.uniform(0.15, 0.9))
    keys = [start]
    for _ in range(count - 1):
        step = _nearby(rng, keys[-1], amount)
        keys.append(replace(step, yaw=start.yaw) if walking else step)
    gaps = rng.uniform(0.3, 1.0, count)
    times = np.concatenate([[0.0], np.cumsum(gaps[1:])]) * (length_s / max(float(gaps[1:].sum()), 1e-6) if count > 1 else 1.0)
    return Act(
        keys=tuple(keys),
        times=tuple(float(t) for t in times),
        walk=float(rng.uniform(0.8, 2.0)) if walking else 0.0,
        stride=float(rng.uniform(0.3, 0.8)),
        talk=float(rng.uniform(2, 5)) if rng.random() < 0.4 else 0.0,
        blink=float(rng.uniform(0.5, 3)) if rng.random() < 0.6 else 0.0,
        phase=float(rng.random()),
        sway=float(abs(rng.normal(0, 0.12))),
    )
