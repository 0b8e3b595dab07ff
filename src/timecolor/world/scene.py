"""The world and its shots: who is in a shot, where, under which camera and light; its frames, references and ground truth."""

from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import cached_property
from typing import Literal

import cv2
import numpy as np

from timecolor.shot import Labels, Reference, Shot
from timecolor.world.camera import Camera, View, random_camera
from timecolor.world.character import Character, random_character
from timecolor.world.creature import Creature, random_creature
from timecolor.world.draw import Canvas, Drawing
from timecolor.world.ink import LINE_STYLES, Style, random_style, separate, sketched
from timecolor.world.motion import Act, Pose, random_act, random_pose
from timecolor.world.palette import (
    FIRST_INDEX,
    FOREGROUND_INDEX,
    SLOTS_PER_CHARACTER,
    Light,
    character_colours,
    lookup,
    random_colour,
    random_light,
)
from timecolor.world.scenery import FOREGROUND_SLOTS, foreground, paint_plate

ReferenceForm = Literal["start frame", "arbitrary frame", "multi-reference"]
PROTOCOLS = ("start frame", "arbitrary frame", "multi-reference")
# What a random stream is for; (seed, index, purpose, ...) seeds it.
_CAST, _STYLE, _PLATE, _LIGHT, _CAMERA, _DESIGN, _PALETTE, _ACT, _NOISE, _REFERENCE, _CHOICE, _GLOW, _FOREGROUND = range(13)


Actor = Character | Creature  # both draw themselves in a pose: feet at y = 0, about one unit high


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """One frame. All uint8 and aligned.

    colour: (h, w, 3), finished, lines on top. fills: (h, w, 3), the same without lines. sketch: (h, w, 3), lines on white.
    labels: (h, w), 0 = background, k = character k, the front-most wins. parts: (h, w), palette indices, two to a slot: lit and
    shaded.
    """

    colour: np.ndarray
    fills: np.ndarray
    sketch: np.ndarray
    labels: np.ndarray
    parts: np.ndarray

    def copy(self) -> "Rendered":
        """The same, to be written into."""
        return Rendered(*(getattr(self, field.name).copy() for field in fields(self)))


@dataclass(frozen=True, slots=True)
class _Role:
    """One character's part in a shot: size in frame heights, where its feet are at the start, how they move a second."""

    size: float
    x: float
    y: float
    speed: tuple[float, float]
    growth: float
    act: Act


@dataclass(frozen=True, slots=True)
class World:
    """Seeded cartoon shots. The same (seed, index) is the same scene at every height and width; width / height may be anything.

    frames: length of a shot. line_style: None = drawn for each shot; else one of LINE_STYLES.
    shrink: paint that many times larger, then shrink, as a model shrinks real sketches to its working size (binary lines come out
    grey); 1 = paint at the size asked for.
    """

    seed: int = 0
    height: int = 256
    width: int = 384
    frames: int = 17
    line_style: str | None = None
    shrink: int = 1

    def __post_init__(self) -> None:
        if self.height < 16 or self.width < 16:
            raise ValueError(f"world is {self.width}x{self.height}; give at least 16x16 pixels")
        if self.frames < 1:
            raise ValueError(f"world has {self.frames} frames to a shot; give at least 1")
        if self.shrink < 1:
            raise ValueError(f"shrink is {self.shrink}; give 1 or more")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; give 0 or more")
        if self.line_style is not None and self.line_style not in LINE_STYLES:
            raise ValueError(f"unknown line style {self.line_style!r}; use one of {', '.join(LINE_STYLES)}, or None for all")

    def shot(self, index: int) -> "WorldShot":
        """Shot number `index`, not yet rendered."""
        if index < 0:
            raise ValueError(f"shot index is {index}; give 0 or more")
        return WorldShot(self, index)


class WorldShot:
    """One shot of the world, rendered frame by frame, in any order.

    frames, frame_rate, size (height, width), characters (0 to 3): what it holds.
    """

    def __init__(self, world: World, index: int) -> None:
        self.world, self.index = world, index
        self.frames = world.frames
        self.size = (world.height, world.width)
        self._inner = (world.height * world.shrink, world.width * world.shrink)  # what is painted
        rng = self._rng(_CAST)
        self.frame_rate = Fraction((24, 24, 24, 12, 30)[int(rng.integers(5))])
        self.characters = int(rng.choice(4, p=(0.05, 0.5, 0.34, 0.11)))
        self.hold = int(rng.choice((1, 2, 3), p=(0.35, 0.45, 0.2))) if self.frame_rate >= 24 else 1
        self._framing = ("face", "bust", "medium", "full", "long")[rng.choice(5, p=(0.12, 0.32, 0.25, 0.23, 0.08))]
        self._shading = bool(rng.random() < 0.72)
        angle = float(rng.normal(0.9, 0.6)) * (1.0 if rng.random() < 0.5 else -1.0)
        self._sun = (float(np.sin(angle)), float(abs(np.cos(angle)) * 0.8 + 0.2))
        self._line_strength = float(rng.uniform(0.55, 1.0)) if rng.random() < 0.3 else 1.0
        self._last: tuple[tuple[int, View], Rendered] | None = None

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng((self.world.seed, self.index, *purpose))

    @property
    def length_s(self) -> float:
        """Seconds from the first frame to the last."""
        return float((self.frames - 1) / self.frame_rate)

    @cached_property
    def style(self) -> Style:
        """The line style of the sketch."""
        return random_style(self._rng(_STYLE), self.world.line_style)

    @cached_property
    def light(self) -> Light:
        """The light on everything in the shot, its references included."""
        return random_light(self._rng(_LIGHT))

    @cached_property
    def camera(self) -> Camera:
        """The camera's move."""
        return random_camera(self._rng(_CAMERA), self.length_s)

    @cached_property
    def _actors(self) -> tuple[Actor, ...]:
        actors: list[Actor] = []
        for k in range(self.characters):
            rng = self._rng(_DESIGN, k)
            actors.append(random_creature(rng) if rng.random() < 0.1 else random_character(rng))
        return tuple(actors)

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        palettes = [character_colours(self._rng(_PALETTE, k), actor.furry) for k, actor in enumerate(self._actors)]
        rng = self._rng(_FOREGROUND, 1)
        return lookup(palettes, np.stack([random_colour(rng) for _ in range(FOREGROUND_SLOTS)]), self.light)

    @cached_property
    def _foreground(self) -> Drawing | None:
        """What of the background stands before the characters; None in most shots."""
        rng = self._rng(_FOREGROUND, 0)
        if rng.random() > 0.1 or not self.characters:
            return None
        return foreground(rng, self.world.width / self.world.height / 2)

    @cached_property
    def _roles(self) -> tuple[_Role, ...]:
        rng = self._rng(_ACT)
        aspect = self.world.width / self.world.height
        size = float(
            {
                "face": rng.uniform(3.0, 5.5),
                "bust": rng.uniform(1.9, 3.0),
                "medium": rng.uniform(1.25, 1.9),
                "full": rng.uniform(0.72, 1.0),
                "long": rng.uniform(0.35, 0.6),
            }[self._framing]
        )
        spots = np.linspace(-1, 1, self.characters + 2)[1:-1] if self.characters else np.zeros(0)
        rng.shuffle(spots)
        roles = []
        for k in range(self.characters):
            own = size * float(rng.uniform(0.75, 1.15))
            if isinstance(self._actors[k], Creature):
                own = min(own, 1.2)  # an animal close up is a riddle
            head = self._actors[k].head_size
            if self._framing in ("face", "bust", "medium"):
                own *= (0.17 / head) ** 0.7  # a big head fills the frame sooner
                top = (
                    float(rng.normal(-0.38, 0.07))
                    if self._framing != "face"
                    else -0.5 * own * head + float(rng.normal(0.0, 0.08)) - 0.05
                )
                y = top + own
            else:
                y = float(rng.uniform(0.32, 0.47)) if self._framing == "full" else float(rng.uniform(0.1, 0.45))
            spread = 0.62 if self.characters > 1 else 0.8
            x = float(spots[k]) * aspect * spread + float(rng.normal(0, 0.09)) * aspect
            walking = bool(rng.random() < (0.35 if self._framing in ("full", "long", "medium") else 0.08))
            start = random_pose(rng)
            if self._framing == "face" and abs(start.yaw) > 1.7:
                start = replace(start, yaw=start.yaw * 0.4)
            speed = (0.0, 0.0)
            if walking:
                # Side on, and forward.
                yaw = float(np.sign(start.yaw) or 1.0) * float(rng.uniform(1.0, 1.6))
                start = Pose(yaw=yaw, lean=0.08 * float(np.sign(yaw)), smile=start.smile, mouth=start.mouth, brow=start.brow)
                pace = float(rng.uniform(0.15, 0.5)) * own
                speed = (float(np.sign(yaw)) * pace, 0.0)
                x -= speed[0] * self.length_s / 2
            elif rng.random() < 0.2:
                speed = (float(rng.normal(0, 0.12)), float(rng.normal(0, 0.05)))
            growth = float(rng.normal(0, 0.15)) if rng.random() < 0.2 else 0.0
            roles.append(_Role(own, x, y, speed, growth, random_act(rng, self.length_s, walking, start)))
        return tuple(roles)

    @staticmethod
    def _base(k: int) -> int:
        """Palette index of the first slot of character k, counted from 0."""
        return FIRST_INDEX + 2 * SLOTS_PER_CHARACTER * k

    @cached_property
    def _stored_plate(self) -> tuple[np.ndarray, np.ndarray, float]:
        """The plate as far as the camera sees it: colours, line cover and pixels per unit."""
        height, width = self._inner
        x, y, zoom = self.camera.reach
        low = min(self.camera.start.zoom, self.camera.stop.zoom)
        scale = height * (zoom if self.camera.still else min(zoom, 1.25))
        half = (x + width / height / 2 / low + 0.01, y + 0.5 / low + 0.01)
        line = self._ink_width * scale / 480
        colour, ink = paint_plate((self.world.seed, self.index, _PLATE), scale, half, line, self.light, self.characters > 0)
        return colour, ink, scale

    @property
    def _ink_width(self) -> float:
        """Line width of the finished frame, pixels at 480 rows."""
        return self.style.drawn

    def _plate_under(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        colour, ink, scale = self._stored_plate
        height, width = self._inner
        zoom = view.zoom * height / scale
        x = width / 2 - zoom * (colour.shape[1] / 2 + view.x * scale)
        y = height / 2 - zoom * (colour.shape[0] / 2 + view.y * scale)
        matrix = np.array([[zoom, 0, x + (zoom - 1) / 2], [0, zoom, y + (zoom - 1) / 2]])
        warp = lambda a: cv2.warpAffine(a, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # noqa: E731
        return warp(colour), warp(ink)

    @cached_property
    def _still_plate(self) -> tuple[np.ndarray, np.ndarray]:
        return self._plate_under(self.camera.start)

    @cached_property
    def _glow(self) -> np.ndarray | None:
        """A soft fall of light over whole frames, characters too: uint8 (h, w, 3), 128 = no change. None in most shots."""
        rng = self._rng(_GLOW)
        if rng.random() > 0.15:
            return None
        height, width = self._inner
        coarse = rng.uniform(-1, 1, (3, 4)).astype(np.float32) * float(rng.uniform(0.05, 0.25))
        soft = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        return cv2.merge([np.clip(128 * (1 + soft), 0, 255).astype(np.uint8)] * 3)

    def _shrunk(self, picture: np.ndarray) -> np.ndarray:
        """A painted picture at the shot's own size."""
        if self.world.shrink == 1:
            return picture.copy()
        return cv2.resize(picture, (self.size[1], self.size[0]), interpolation=cv2.INTER_AREA)

    def _parts(self, canvas: Canvas) -> np.ndarray:
        step = self.world.shrink
        return np.ascontiguousarray(canvas.index[step :: 2 * step, step :: 2 * step])

    def _canvas(self) -> Canvas:
        height, width = self._inner
        style = self.style
        return Canvas(
            height,
            width,
            line=max(2 * self._ink_width * height / 480, 2.0 if style.binary else 0.0),
            wobble=0.45 * style.rough if style.name == "varying" else 0.0,
            shading=self._shading,
            borders=style.borders and self._shading,
            light=self._sun,
        )

    def _taken(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """An index plane (2h, 2w) -> its cover of each pixel, uint8 (h, w), and its colours on black, uint8 (h, w, 3)."""
        size = (self._inner[1], self._inner[0])
        cover = cv2.resize(cv2.threshold(index, 1, 255, cv2.THRESH_BINARY)[1], size, interpolation=cv2.INTER_AREA)
        return cover, cv2.resize(cv2.LUT(cv2.merge([index] * 3), self._tables[0]), size, interpolation=cv2.INTER_AREA)

    def _composed(self, canvas: Canvas, view: View, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The canvas over the plate: fills, uint8 (h, w, 3), and line cover, uint8 (h, w)."""
        fills, ink = self._still_plate if self.camera.still else self._plate_under(view)
        if self.characters:
            cover, painted = self._taken(canvas.index)
            open_ = cv2.bitwise_not(cover)
            fills = cv2.add(cv2.multiply(fills, cv2.merge([open_] * 3), scale=1 / 255), painted)
            ink = cv2.max(cv2.multiply(ink, open_, scale=1 / 255), line)
        if self._glow is not None:
            fills = cv2.multiply(fills, self._glow, scale=1 / 128)
        return fills, ink

    def _paint_foreground(self, canvas: Canvas, view: View) -> None:
        if self._foreground is not None:
            height, width = self._inner
            zoom = view.zoom * height
            canvas.paint(self._foreground, zoom, (width / 2 - view.x * zoom, height / 2 - view.y * zoom), FOREGROUND_INDEX)

    def _inked(self, fills: np.ndarray, ink: np.ndarray) -> np.ndarray:
        """Fills with the lines on top."""
        strength = cv2.merge([ink] * 3)
        if self._line_strength < 1:
            strength = cv2.convertScaleAbs(strength, alpha=self._line_strength)
        kept = cv2.multiply(fills, cv2.bitwise_not(strength), scale=1 / 255)
        tone = np.diag(self.light.line / 255)
        return cv2.add(kept, cv2.transform(strength, tone)) if tone.any() else kept

    def _check(self, frame: int) -> None:
        if not 0 <= frame < self.frames:
            raise IndexError(f"frame {frame} of a shot of {self.frames} frames; give 0 to {self.frames - 1}")

    def render(self, frame: int) -> Rendered:
        """Frame number `frame`, 0 <= frame < frames. A held drawing under a still camera is the same to the last bit."""
        self._check(frame)
        drawing = frame // self.hold
        view = self.camera.at(float(frame / self.frame_rate))
        if self._last is not None and self._last[0] == (drawing, view):
            return self._last[1].copy()
        canvas = self._canvas()
        height, width = self._inner
        time_s = float(drawing * self.hold / self.frame_rate)
        zoom = view.zoom * height
        for k, (actor, role) in enumerate(zip(self._actors, self._roles, strict=True)):
            size = role.size * (1 + role.growth * time_s)
            x, y = role.x + role.speed[0] * time_s, role.y + role.speed[1] * time_s
            offset = (width / 2 + (x - view.x) * zoom, height / 2 + (y - view.y) * zoom)
            canvas.paint(actor.draw(role.act.at(time_s)), size * zoom, offset, self._base(k))
        self._paint_foreground(canvas, view)
        line, shadow, light = separate(canvas.ink, canvas.borders)
        fills, ink = self._composed(canvas, view, line)
        colour = self._inked(fills, ink)
        sketch = sketched(self.style, ink, shadow, light, colour, self._rng(_NOISE, drawing))
        parts = self._parts(canvas)
        labels = cv2.LUT(parts, self._tables[1])
        rendered = Rendered(self._shrunk(colour), self._shrunk(fills), self._shrunk(sketch), labels, parts)
        self._last = ((drawing, view), rendered)
        return rendered.copy()

    def plate(self, frame: int = 0) -> np.ndarray:
        """The background with its lines and without characters, under the camera of a frame, uint8 (h, w, 3)."""
        self._check(frame)
        view = self.camera.at(float(frame / self.frame_rate))
        canvas = self._canvas()
        canvas.borders = False
        self._paint_foreground(canvas, view)
        return self._shrunk(self._inked(*self._composed(canvas, view, separate(canvas.ink, borders=False)[0])))

    def character(self, k: int, variant: int = 0) -> Reference:
        """Character k (1 to `characters`) in another pose, size and view than in the shot, cut out and centred."""
        return self.figure(k, variant)[0]

    def figure(self, k: int, variant: int = 0) -> tuple[Reference, np.ndarray]:
        """`character`, and its parts: palette indices as in `Rendered`, uint8 (h, w), 0 around it."""
        if not 1 <= k <= self.characters:
            raise ValueError(f"character {k} of a shot with {self.characters}; give 1 to {self.characters}")
        rng = self._rng(_REFERENCE, k, variant)
        actor = self._actors[k - 1]
        sign = -1.0 if rng.random() < 0.5 else 1.0
        yaw = sign * float(abs(rng.normal(0, 0.6))) if rng.random() < 0.8 else sign * float(rng.uniform(1.2, 3.1))
        drawing = actor.draw(random_pose(rng, yaw))
        x0, y0, x1, y1 = drawing.bounds()
        height, width = self._inner
        kind = rng.random()
        fill = float(rng.uniform(0.88, 0.99))
        if drawing.head and kind < 0.45:
            # Bust or close-up, cut by the lower edge; wide things may be cut too.
            x, y, head = drawing.head
            top = max(y0, y - head * float(rng.uniform(0.65, 0.9)))
            low = y + head * (float(rng.uniform(0.9, 2.6)) if kind < 0.34 else float(rng.uniform(0.55, 0.75)))
            scale = height / (low - top)
            offset = (width / 2 - x * scale, -top * scale)
        else:
            scale = fill * min(height / (y1 - y0), width / (x1 - x0))
            offset = (width / 2 - (x0 + x1) / 2 * scale, height / 2 - (y0 + y1) / 2 * scale)
        canvas = self._canvas()
        canvas.borders = False
        canvas.paint(drawing, scale, offset, self._base(k - 1))
        line, _, _ = separate(canvas.ink, borders=False)
        cover, painted = self._taken(canvas.index)
        share = np.maximum(cover, 1)[..., None]
        colour = np.minimum(painted.astype(np.uint16) * 255 // share, 255).astype(np.uint8)
        alpha = cv2.max(cover, line)
        picture = Reference(self._shrunk(self._inked(colour, line)), self._shrunk(alpha), "character", f"character {k}")
        return picture, self._parts(canvas)

    def references(self) -> tuple[Reference, ...]:
        """The published multi-reference form: the plate, then each character."""
        return Reference(self.plate(), None, "background", "background"), *(
            self.character(k) for k in range(1, self.characters + 1)
        )

    def to_shot(self, protocol: ReferenceForm) -> tuple[Shot, np.ndarray]:
        """All frames as a `Shot`, with the finished clip uint8 (t, h, w, 3) as ground truth.

        start frame: the reference is the first coloured frame. arbitrary frame: any coloured frame, drawn by the seed.
        multi-reference: `references()`, bound by labels.
        """
        if protocol not in PROTOCOLS:
            raise ValueError(f"unknown protocol {protocol!r}; use one of {', '.join(PROTOCOLS)}")
        frames = [self.render(i) for i in range(self.frames)]
        clip = np.stack([f.colour for f in frames])
        sketch = np.stack([f.sketch for f in frames])
        name = f"world {self.world.seed}/{self.index}"
        if protocol == "multi-reference":
            labels = Labels(np.stack([f.labels for f in frames]), {k: (k,) for k in range(self.characters + 1)})
            return Shot(sketch, self.references(), labels, self.frame_rate, name), clip
        at = 0 if protocol == "start frame" else int(self._rng(_CHOICE).integers(self.frames))
        return Shot(sketch, (Reference(clip[at], None, "frame", f"frame {at}"),), None, self.frame_rate, name), clip
