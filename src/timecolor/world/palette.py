"""Colours: which slot of a character has which, in light and shade, under the shot's light.

Colours are drawn independently of shape, so that a network cannot guess them and has to look at the references.
"""

import colorsys
from dataclasses import dataclass
from enum import IntEnum, auto

import numpy as np


class Slot(IntEnum):
    """What a colour is for. At most 40 (two palette indices each, three characters)."""

    SKIN = 0
    BLUSH = auto()
    HAIR = auto()
    HAIR_LIGHT = auto()
    HAIR2 = auto()
    EYE_WHITE = auto()
    IRIS = auto()
    IRIS2 = auto()
    PUPIL = auto()
    EYE_LIGHT = auto()
    MOUTH = auto()
    TONGUE = auto()
    TEETH = auto()
    TOP = auto()
    TOP2 = auto()
    INNER = auto()
    SLEEVE = auto()
    PATTERN = auto()
    COLLAR = auto()
    BUTTON = auto()
    BOTTOM = auto()
    BOTTOM2 = auto()
    LEGS = auto()
    SHOE = auto()
    SOLE = auto()
    GLOVE = auto()
    BELT = auto()
    ACCENT = auto()
    ACCENT2 = auto()
    PROP = auto()
    PROP2 = auto()
    METAL = auto()
    MUZZLE = auto()
    NOSE = auto()
    EAR = auto()
    EAR2 = auto()


SLOTS_PER_CHARACTER = 40
FIRST_INDEX = 2  # palette indices 0 and 1 are transparent

_SKINS = np.array(
    [
        (255, 232, 215),
        (253, 219, 190),
        (247, 203, 166),
        (236, 188, 150),
        (214, 160, 117),
        (180, 125, 84),
        (141, 92, 60),
        (96, 62, 44),
    ],
    float,
)
_HAIRS = np.array(
    [
        (38, 32, 36),
        (22, 22, 34),
        (74, 50, 40),
        (112, 74, 46),
        (156, 110, 66),
        (222, 190, 110),
        (246, 226, 160),
        (170, 72, 40),
        (200, 200, 206),
    ],
    float,
)


# Mood -> lowest and highest saturation, lowest and highest value.
_MOODS = {
    "vivid": (0.65, 1.0, 0.65, 1.0),
    "pastel": (0.15, 0.45, 0.82, 1.0),
    "dark": (0.0, 0.8, 0.08, 0.32),
    "pale": (0.0, 0.1, 0.9, 1.0),
    "grey": (0.0, 0.15, 0.3, 0.85),
    "mid": (0.3, 0.7, 0.4, 0.8),
}
_MOOD_SHARES = np.cumsum((0.26, 0.16, 0.17, 0.12, 0.09))


def random_colour(rng: np.random.Generator, mood: str = "any") -> np.ndarray:
    """One RGB colour, float (3,) in 0..255. mood: any, vivid, pastel, dark, pale, grey."""
    if mood == "any":
        mood = tuple(_MOODS)[int(np.searchsorted(_MOOD_SHARES, rng.random(), side="right"))]
    s0, s1, v0, v1 = _MOODS[mood]
    hue, s, v = rng.random(3)
    return np.array(colorsys.hsv_to_rgb(hue, s0 + (s1 - s0) * s, v0 + (v1 - v0) * v)) * 255


def character_colours(rng: np.random.Generator, furry: bool) -> np.ndarray:
    """A character's colours, float (slots, 3). 8 to 15 of them differ; the rest repeat, as in a real colour sheet."""
    moods = ("any", "any", "any", "vivid", "pastel", "dark", "mid")
    mood = moods[rng.integers(len(moods))]
    colours = np.stack([random_colour(rng, mood if rng.random() < 0.6 else "any") for _ in range(SLOTS_PER_CHARACTER)])
    kind = rng.random()
    if furry or kind > 0.84:
        colours[Slot.SKIN] = random_colour(rng, "any" if furry else "pastel")
    else:
        tone = rng.choice(len(_SKINS), p=(0.2, 0.2, 0.16, 0.12, 0.1, 0.09, 0.08, 0.05))
        colours[Slot.SKIN] = np.clip(_SKINS[tone] + rng.normal(0, 6, 3), 0, 255)
    skin = colours[Slot.SKIN]
    colours[Slot.BLUSH] = skin * 0.7 + np.array([240, 100, 100]) * 0.3
    if rng.random() < 0.5:
        colours[Slot.HAIR] = np.clip(_HAIRS[rng.integers(len(_HAIRS))] + rng.normal(0, 8, 3), 0, 255)
    hair = colours[Slot.HAIR]
    colours[Slot.HAIR_LIGHT] = hair + (255 - hair) * rng.uniform(0.2, 0.6)
    if rng.random() < 0.8:
        colours[Slot.HAIR2] = hair
    colours[Slot.EYE_WHITE] = 255 - rng.random(3) * 14
    colours[Slot.IRIS2] = colours[Slot.IRIS] * rng.uniform(0.35, 0.7)
    colours[Slot.PUPIL] = colours[Slot.IRIS] * 0.15
    colours[Slot.EYE_LIGHT] = 255
    colours[Slot.MOUTH] = np.array([rng.uniform(90, 170), rng.uniform(20, 60), rng.uniform(30, 60)])
    colours[Slot.TONGUE] = np.array([235, 120, 120]) + rng.normal(0, 10, 3)
    colours[Slot.TEETH] = 252
    # Real palettes repeat: sleeves like the top, gloves or legs bare, and so on.
    for slot, other, share in (
        (Slot.SLEEVE, Slot.TOP, 0.7),
        (Slot.TOP2, Slot.TOP, 0.25),
        (Slot.LEGS, Slot.SKIN, 0.55),
        (Slot.GLOVE, Slot.SKIN, 0.75),
        (Slot.BELT, Slot.SHOE, 0.3),
        (Slot.BUTTON, Slot.METAL, 0.4),
        (Slot.COLLAR, Slot.INNER, 0.4),
        (Slot.ACCENT2, Slot.ACCENT, 0.4),
        (Slot.BOTTOM2, Slot.BOTTOM, 0.5),
        (Slot.BOTTOM, Slot.TOP, 0.15),
        (Slot.SOLE, Slot.SHOE, 0.4),
        (Slot.EAR, Slot.SKIN, 0.8),
    ):
        if rng.random() < share:
            colours[slot] = colours[other]
    colours[Slot.NOSE] = random_colour(rng, "dark") if rng.random() < 0.7 else random_colour(rng)
    return np.clip(colours, 0, 255)


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """The shot's light: colours -> gain * (colours mixed with grey by `fade`) + lift.

    shade: what a shadow multiplies by. line: colour of the ink. All float (3,), colours in 0..255.
    """

    gain: np.ndarray
    lift: np.ndarray
    fade: float
    shade: np.ndarray
    line: np.ndarray

    def matrix(self) -> np.ndarray:
        """Affine colour transform, float (3, 4), for RGB in 0..255."""
        grey = np.full((3, 3), 1 / 3)
        mix = np.eye(3) * (1 - self.fade) + grey * self.fade
        return np.concatenate([self.gain[:, None] * mix, self.lift[:, None]], 1)

    def on(self, colours: np.ndarray) -> np.ndarray:
        """Colours (..., 3) in this light, float in 0..255."""
        matrix = self.matrix()
        return np.clip(colours @ matrix[:, :3].T + matrix[:, 3], 0, 255)


def random_light(rng: np.random.Generator) -> Light:
    """Mostly plain daylight; else night, sunset, dim, faded or coloured light."""
    gain, lift, fade = np.ones(3), np.zeros(3), 0.0
    kind = rng.choice(6, p=(0.62, 0.1, 0.08, 0.07, 0.06, 0.07))
    if kind == 1:
        gain, lift, fade = np.array([0.42, 0.5, 0.75]) * rng.uniform(0.6, 1.1), np.array([4.0, 8.0, 26.0]), rng.uniform(0.1, 0.4)
    elif kind == 2:
        gain, lift = np.array([1.0, 0.78, 0.58]) * rng.uniform(0.85, 1.02), np.array([10.0, 2.0, 0.0])
    elif kind == 3:
        gain = np.full(3, rng.uniform(0.35, 0.7))
    elif kind == 4:
        gain, lift, fade = np.full(3, rng.uniform(0.55, 0.85)), np.full(3, rng.uniform(20, 60)), rng.uniform(0.0, 0.5)
    elif kind == 5:
        gain, fade = rng.uniform(0.5, 1.05, 3), rng.uniform(0.0, 0.3)
    shade = rng.uniform(0.55, 0.88) * np.array([1.0, rng.uniform(0.88, 1.0), rng.uniform(0.92, 1.15)])
    line = np.zeros(3) + rng.uniform(0, 30)
    if rng.random() < 0.35:
        line = rng.uniform(0, 1, 3) * np.array([90, 60, 70])
    return Light(gain, lift, float(fade), shade, np.clip(line * gain, 0, 255))


FOREGROUND_INDEX = FIRST_INDEX + 2 * SLOTS_PER_CHARACTER * 3


def lookup(characters: list[np.ndarray], foreground: np.ndarray, light: Light) -> tuple[np.ndarray, np.ndarray]:
    """Tables from palette index to colour, uint8 (1, 256, 3), and to label, uint8 (256,).

    characters: colours (slots, 3) of each. foreground: (slots, 3); what stands before the characters has label 0.
    """
    colours = np.zeros((256, 3))
    labels = np.zeros(256, np.uint8)
    starts = [FIRST_INDEX + 2 * SLOTS_PER_CHARACTER * k for k in range(len(characters))]
    for k, (start, lit) in enumerate(zip([*starts, FOREGROUND_INDEX], [*characters, foreground], strict=True)):
        shaded = lit * light.shade
        if k < len(characters):
            shaded[[Slot.EYE_LIGHT, Slot.TEETH]] = lit[[Slot.EYE_LIGHT, Slot.TEETH]]
            labels[start : start + 2 * len(lit)] = k + 1
        colours[start : start + 2 * len(lit) : 2] = light.on(lit)
        colours[start + 1 : start + 2 * len(lit) : 2] = light.on(shaded)
    return np.rint(colours).astype(np.uint8)[None], labels
