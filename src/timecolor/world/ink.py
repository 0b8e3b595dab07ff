"""Line styles: what a shot's sketch looks like, from clean thin lines to ragged ones extracted from video and binarised."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from timecolor.world.draw import LIGHT_BORDER, SHADOW_BORDER

LINE_STYLES = ("clean", "pencil", "varying", "gaps", "binarised", "thick", "speckled", "trace")
_SHARES = (0.14, 0.07, 0.1, 0.07, 0.17, 0.16, 0.19, 0.1)
_BANK = 1024  # side of the noise pictures, pixels


@dataclass(frozen=True, slots=True)
class Style:
    """A line style with its amounts.

    width: line width of the sketch in pixels of a 480-row frame; drawn: that of the finished frame. borders: shadow borders are
    drawn. extract: how far the lines are those found in the colours (0 = none). rough, gap, speck: strength of the flaws, 0..1.
    """

    name: str
    width: float
    drawn: float
    borders: bool
    extract: float
    rough: float
    gap: float
    speck: float
    grey: float

    @property
    def binary(self) -> bool:
        """Whether the sketch holds only black and white."""
        return self.name in ("binarised", "thick", "speckled")


def random_style(rng: np.random.Generator, name: str | None) -> Style:
    """A line style. name: None = drawn as often as real input has it; else one of LINE_STYLES."""
    drawn = LINE_STYLES[rng.choice(len(LINE_STYLES), p=_SHARES)]
    name = drawn if name is None else name
    widths = {
        "clean": (1.0, 3.0),
        "pencil": (1.3, 3.5),
        "varying": (1.5, 4.0),
        "gaps": (1.2, 3.5),
        "binarised": (1.2, 3.2),
        "thick": (3.2, 5.5),
        "speckled": (2.4, 5.0),
        "trace": (1.0, 3.0),
    }[name]
    found = rng.random() < {"binarised": 0.35, "thick": 0.55, "speckled": 0.75}.get(name, 0.0)
    width = float(rng.uniform(*widths))
    return Style(
        name=name,
        width=width,
        drawn=min(width, float(rng.uniform(1.2, 3.0))) if name in ("thick", "speckled") else width,
        borders=name == "trace" or (rng.random() < 0.25 and not found),
        extract=float(rng.uniform(0.5, 1.0)) if found else 0.0,
        rough=float(rng.uniform(0.2, 1.0)),
        gap=float(rng.uniform(0.2, 1.0)),
        speck=float(rng.uniform(0.1, 1.0)),
        grey=float(rng.uniform(0.0, 0.45)),
    )


@cache
def _noise(sigma: float) -> np.ndarray:
    """A picture of noise with unit variance, float32, smooth over `sigma` pixels (0 = white)."""
    picture = np.random.default_rng((71, int(sigma * 10))).standard_normal((_BANK, _BANK), dtype=np.float32)
    if sigma:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
        picture /= picture.std()
    return picture


def _crop(rng: np.random.Generator, sigma: float, height: int, width: int) -> np.ndarray:
    """A window of the noise picture. sigma: at 256 rows; finer in smaller frames."""
    picture = _noise(round(max(sigma * min(height / 256, 1.5), 0.6), 1) if sigma else 0.0)
    if height > _BANK or width > _BANK:
        picture = np.tile(picture, (height // _BANK + 1, width // _BANK + 1))
    y = int(rng.integers(picture.shape[0] - height + 1))
    x = int(rng.integers(picture.shape[1] - width + 1))
    return picture[y : y + height, x : x + width]


@cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lookup tables that take lines, shadow borders and light borders out of an ink plane."""
    line = np.arange(256, dtype=np.uint8)
    line[:8] = 0
    shadow, light = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    shadow[SHADOW_BORDER] = light[LIGHT_BORDER] = 255
    return line, shadow, light


def separate(plane: np.ndarray, borders: bool) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """A canvas's ink plane (2h, 2w) -> cover of lines, shadow borders and light borders, uint8 (h, w); None where not drawn."""
    size = (plane.shape[1] // 2, plane.shape[0] // 2)
    if not borders:
        return cv2.resize(plane, size, interpolation=cv2.INTER_AREA), None, None
    line, shadow, light = (cv2.resize(cv2.LUT(plane, table), size, interpolation=cv2.INTER_AREA) for table in _tables())
    return line, shadow, light


def extracted(colour: np.ndarray, strength: float) -> np.ndarray:
    """Lines as a difference of Gaussians finds them in a coloured frame: cover uint8 (h, w), before the threshold at 128."""
    unit = colour.shape[0] / 256
    grey = cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)
    small = cv2.GaussianBlur(grey, (0, 0), max(0.35, 0.55 * unit))
    large = cv2.GaussianBlur(grey, (0, 0), max(0.8, 2.0 * unit))
    return cv2.addWeighted(large, 10.0 * strength, small, -10.0 * strength, -8.0)


def sketched(
    style: Style,
    ink: np.ndarray,
    shadow: np.ndarray | None,
    light: np.ndarray | None,
    colour: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """The sketch, uint8 (h, w, 3), from the cover of lines and borders, uint8 (h, w), and the finished frame."""
    height, width = ink.shape
    unit = height / 256
    if style.name == "trace" and shadow is not None and light is not None:
        grey = cv2.bitwise_not(ink)
        red = cv2.subtract(grey, cv2.max(shadow, light))
        # Shadow borders are blue and light borders red, or the other way round: both are in use.
        first, second = (shadow, light) if style.rough > 0.5 else (light, shadow)
        return cv2.merge([cv2.subtract(grey, first), red, cv2.subtract(grey, second)])
    cover = ink
    if shadow is not None and light is not None:
        cover = cv2.max(ink, cv2.max(shadow, light))
    if style.extract:
        cover = cv2.max(cover, extracted(colour, style.extract))
    if style.name == "pencil":
        grain = _crop(rng, 0.0, height, width) * (0.28 * style.rough) + _crop(rng, 1.5, height, width) * 0.2
        soft = cover.astype(np.float32) * np.clip(0.85 - style.grey + grain, 0.1, 1.0)
        cover = soft.astype(np.uint8)
    elif style.name == "varying":
        sigma = max(0.4, 0.8 * unit)
        wide = cv2.GaussianBlur(cover, (0, 0), sigma).astype(np.float32)
        peak = 255 * min(1.0, style.drawn * height / 480 / (2.5 * sigma))
        edge = peak * np.clip(0.4 + _crop(rng, 12.0, height, width) * 0.16, 0.12, 0.75)
        cover = np.clip((wide - edge) * (800 / peak) + 128, 0, 255).astype(np.uint8)
        cover[wide < 0.1 * peak] = 0
    elif style.name == "gaps":
        broken = _crop(rng, 3.0, height, width) > 2.2 - 1.2 * style.gap
        cover = np.where(broken, 0, cover)
    elif style.binary:
        cover = _binarised(style, cover, rng)
    return cv2.merge([cv2.bitwise_not(cover)] * 3)


def _binarised(style: Style, cover: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cover cut to 0 and 255, ragged, broken and specked as the style has it."""
    height, width = cover.shape
    unit = height / 256
    if style.name == "binarised":
        edge = 90.0 + _crop(rng, 1.5, height, width) * (25 * style.rough)
        return np.where(cover > edge, 255, 0).astype(np.uint8)
    # A line of width `drawn`, blurred by half the width wanted, is cut where it is as wide as wanted; no line is under a pixel.
    drawn, wanted = max(style.drawn * height / 480, 1.0), max(style.width * height / 480, 1.2)
    sigma = max(0.45, wanted / 2)
    soft = cv2.GaussianBlur(cover, (0, 0), sigma)
    edge = 255 * min(0.4, 0.242 * drawn / sigma) * (1 + _crop(rng, 1.5, height, width) * (0.25 * style.rough))
    if style.name == "thick":
        return np.where(soft > np.maximum(edge, 20), 255, 0).astype(np.uint8)
    edge = edge + np.clip(_crop(rng, 3.0, height, width) - 1.2, 0, 2) * (110 * style.gap)
    black = soft > np.maximum(edge, 20)
    # Specks gather near lines and where a slow noise is high, and along the frame's edge as the extractors leave them.
    grain = _crop(rng, 1.5, height, width)
    slow = _crop(rng, 12.0, height, width)
    near = cv2.GaussianBlur(cover, (0, 0), max(3.0 * unit, 0.8)) > 6
    black |= grain > 4.3 - 0.7 * style.speck * np.clip(slow, -0.5, 2.0) - 0.9 * style.speck * near
    if style.speck > 0.5:
        rim = max(1, round(unit))
        mask = np.zeros(cover.shape, bool)
        mask[:rim] = mask[-rim:] = mask[:, :rim] = mask[:, -rim:] = True
        black |= mask & (grain > 0.8)
    return np.where(black, 255, 0).astype(np.uint8)
