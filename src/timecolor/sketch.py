"""Colour frames → line art, in several styles.

Every style is drawn from a black and white mask of where lines are, so no fill colour can leak through its greys.
All thresholds are absolute and every kernel follows the picture's size alone, so a clip does not flicker.
Needs numpy and OpenCV only.
"""

from typing import Literal, get_args

import cv2
import numpy as np

from timecolor.shapes import Bool, UInt8
from timecolor.shot import Frames

SketchStyle = Literal["clean", "drawn", "soft", "thick", "extracted"]

LINE_DARKNESS = 60  # of 255: from there on what `reference_lines` finds is a line

# Film has grain at pixel size and soft lines; lines are looked for at a size where they are a few pixels wide.
_LONGEST_SIDE = 960

# Shares of a frame's area. Of eleven real sketches, the least paper is 0.81 and the most paint and grey 0.0000; each of 44 colour
# clips has 0.08 or more of paint and grey together. Pencil smudges pass, a film in grey does not.
_PAPER_AT_LEAST = 0.3
_PAINT_AT_MOST = 0.004
_GREY_AT_MOST = 0.03


def extract_lines(frame: np.ndarray, style: SketchStyle = "clean", binarise: bool = False) -> np.ndarray:
    """Dark lines on white, uint8 (h, w, 3) without colour, of a coloured frame, uint8 (h, w, 3).

    Drawn dark lines and borders between fills both become lines. Widths are for a long side of 720 px and grow with it.
    clean: even lines of 2 px, as an animator's clean-up. drawn: drawn lines keep their own width, borders are thin.
    soft: grey pencil, 3 px. thick: a marker, 5 px. extracted: as the published extraction looks, thick, ragged and speckled.
    binarise: 0 and 255 only.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.size == 0:
        raise ValueError(f"frame is {frame.dtype} {frame.shape}; give uint8 (h, w, 3)")
    height, width = frame.shape[:2]
    shrink = min(1.0, _LONGEST_SIDE / max(height, width))
    if shrink < 1:
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    unit = max(frame.shape[:2]) / 720
    match style:
        case "clean":
            ink = _smooth(_stroke(_thin(_line_mask(frame)), max(1.5, 2 * unit)), 0.8 * unit)
        case "drawn":
            ink = _smooth(_line_mask(frame), 0.5)
        case "soft":
            ink = cv2.GaussianBlur(_stroke(_thin(_line_mask(frame)), 3 * unit), (0, 0), max(0.5, 0.9 * unit))
            ink = cv2.LUT(ink, _PENCIL)
        case "thick":
            ink = _smooth(_stroke(_thin(_line_mask(frame)), 5 * unit), 0.8 * unit)
        case "extracted":
            ink = _extracted(frame)
        case _:
            raise ValueError(f"unknown sketch style {style!r}; use one of {', '.join(get_args(SketchStyle))}")
    if shrink < 1:
        ink = cv2.resize(ink, (width, height), interpolation=cv2.INTER_LINEAR)
    if binarise:
        ink = np.where(ink > 127, np.uint8(255), np.uint8(0))
    return cv2.cvtColor(cv2.bitwise_not(ink), cv2.COLOR_GRAY2RGB)


def extract_clip(frames: np.ndarray, style: SketchStyle = "clean", binarise: bool = False) -> np.ndarray:
    """`extract_lines` of every frame: uint8 (t, h, w, 3) → uint8 (t, h, w, 3)."""
    return np.stack([extract_lines(frame, style, binarise) for frame in frames])


def lines_in(lines: UInt8[np.ndarray, "h w"], area: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """The lines that belong to an area: its own, with those at its rim."""
    reach = max(1, round(min(lines.shape) / 80))
    return lines * cv2.dilate(area.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))


def require_line_art(frames: Frames, name: str) -> None:
    """Raise ValueError where a clip is not drawn lines on paper, since its colours or tones would give the answer away.

    White, cream or greyish paper, dark or coloured thin lines, pencil and solid blacks are line art. Looks at up to five frames
    spread over the clip; blank frames say nothing.
    """
    last = frames.shape[0] - 1
    for index in sorted({round(i * last / 4) for i in range(5)}):
        frame = frames[index : index + 1][0]
        if np.array_equal(frame.min(axis=(0, 1)), frame.max(axis=(0, 1))):
            continue
        paper, colour, grey = _shares(frame)
        if _is_drawn(paper, colour, grey):
            continue
        if (frame.min(axis=-1) >= 160).mean() > 0.005 and _is_drawn(*_shares(255 - frame)):
            raise ValueError(f"{name}: sketch looks inverted (light lines on dark); invert it, or save it as dark lines on white")
        share = 1 - paper if paper < _PAPER_AT_LEAST else colour + grey
        raise ValueError(
            f"{name}: sketch looks like a colour picture ({share:.1%} of the area of frame {index} is painted); "
            "give line art, or add --extract-lines to take the lines from it"
        )


def _is_drawn(paper: float, colour: float, grey: float) -> bool:
    return paper >= _PAPER_AT_LEAST and colour <= _PAINT_AT_MOST and grey <= _GREY_AT_MOST


def _shares(frame: np.ndarray) -> tuple[float, float, float]:
    """Shares of the area: bare paper, fills in colour, fills in grey. frame: uint8 (h, w, 3).

    Lines thinner than 1/40 of the shorter side (13 px at 480, at least 7) are taken off by an opening, so trace lines of any
    colour do not count.
    """
    shrink = max(1.0, min(frame.shape[:2]) / 480)
    if shrink > 1:
        size = round(frame.shape[1] / shrink), round(frame.shape[0] / shrink)
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    planes = np.ascontiguousarray(frame.transpose(2, 0, 1)).astype(np.float32)  # maxima over a short last axis are slow
    brightest, darkest = planes.max(0), planes.min(0)
    difference = planes - _paper(frame, (darkest >= 140) & (brightest - darkest <= 48))[:, None, None]
    luma = 0.299 * difference[0] + 0.587 * difference[1] + 0.114 * difference[2]
    dark = brightest < 90
    colour = (np.abs(difference - luma).max(0) > 22) & ~dark
    grey = (luma < -56) & ~dark & ~colour
    side = max(7, round(min(frame.shape[:2]) / 40) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))

    def fills(mask: np.ndarray) -> float:
        left = float(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel).mean())
        # Crossings of lines stay, too, but are little beside the lines.
        return left if left > 0.02 or left > 0.4 * float(mask.mean()) else 0.0

    return float((~dark & ~colour & ~grey).mean()), fills(colour), fills(grey)


def _paper(frame: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """The colour most of the bright, nearly neutral pixels have; white where there are none."""
    bright = frame[candidates]
    if not len(bright):
        return np.full(3, 255, np.float32)
    red, green, blue = (bright >> 3).astype(np.int32).T
    bins = red << 10 | green << 5 | blue
    return np.median(bright[bins == np.bincount(bins).argmax()], axis=0).astype(np.float32)


def reference_lines(image: np.ndarray, alpha: np.ndarray | None = None) -> np.ndarray:
    """Darkness of the lines of a coloured reference at working size (long side 200 to 400), uint8 (h, w), 255 = line.

    Quick enough for every model input (1 ms at 192x288). image: uint8 (h, w, 3). alpha: uint8 (h, w), None = opaque.
    The silhouette of a cut-out counts as a line; what lies under alpha 0 does not,
    nor does a straight frame edge (letterbox bars).
    """
    lines = np.zeros(image.shape[:2], np.uint8)
    if alpha is None:
        return _dark_and_border_lines(image, lines)
    inside = np.where(alpha > 127, np.uint8(255), np.uint8(0))
    x, y, width, height = cv2.boundingRect(inside)
    if not width:
        return lines
    # One pixel of matte is kept on a side where the cut-out ends by itself. Where it fills half the side, the frame
    # cuts it there, and what lies outside the crop counts as more of the same.
    box = inside[y : y + height, x : x + width]
    top = y - int(y > 0 and _is_silhouette(box[0]))
    left = x - int(x > 0 and _is_silhouette(box[:, 0]))
    bottom = y + height + int(_is_silhouette(box[-1]))
    right = x + width + int(_is_silhouette(box[:, -1]))
    crop = np.s_[top:bottom, left:right]
    mask = np.ascontiguousarray(inside[crop])
    # On white, a dark outline stays a thin dark line; on the black matte it would drown.
    on_white = image[crop].copy()
    on_white[mask == 0] = 255
    silhouette = cv2.subtract(mask, cv2.erode(mask, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))))
    lines[crop] = _dark_and_border_lines(on_white, silhouette) & mask
    return lines


def without_lines(
    image: np.ndarray, lines: np.ndarray | None = None, alpha: np.ndarray | None = None, long_side: int = 720
) -> np.ndarray:
    """The fills alone: every pixel of a line takes the colour of the nearest pixel that is none, uint8 (h, w, 3).

    image: uint8 (h, w, 3). lines: as `reference_lines` gives them, found here where None, at `long_side` if the image is larger.
    alpha: uint8 (h, w), None = opaque; what lies outside takes the nearest colour too, so that no edge mixes with what is behind.
    """
    h, w = image.shape[:2]
    if lines is None:
        scale = min(1.0, long_side / max(h, w))
        size = max(1, round(w * scale)), max(1, round(h * scale))
        small = image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        over = alpha if alpha is None or scale == 1 else cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
        lines = reference_lines(small, over)
        lines = lines if scale == 1 else cv2.resize(lines, (w, h), interpolation=cv2.INTER_LINEAR)
    gone = lines > LINE_DARKNESS
    if alpha is not None:
        gone |= alpha <= 127
    if not gone.any() or gone.all():
        return image
    found = cv2.distanceTransformWithLabels(gone.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    nearest = np.asarray(found[1], np.int32)
    kept = np.flatnonzero(~gone)
    source = np.zeros(int(nearest.max()) + 1, np.int64)
    source[nearest.ravel()[kept]] = kept
    return image.reshape(-1, 3)[source[nearest]]


def _is_silhouette(side: np.ndarray) -> bool:
    return bool(2 * np.count_nonzero(side) <= side.size)


def _line_mask(frame: np.ndarray) -> np.ndarray:
    """255 on lines, 0 elsewhere, uint8 (h, w)."""
    unit = max(frame.shape[:2]) / 720
    reach = max(2, round(2.5 * unit))
    smallest = round(12 * unit)
    even = cv2.LUT(cv2.bilateralFilter(frame, 5, 20, 2), _EVEN_STEPS)
    fills = cv2.morphologyEx(even, cv2.MORPH_CLOSE, _disc(reach))
    depth = cv2.subtract(fills, even)
    dark = _strongest(depth)
    # A line is as wide as it was drawn, whatever its contrast; the channels' mean tells it from a thin coloured fill beside it.
    body = cv2.transform(depth, np.full((1, 3), 1 / 3, np.float32))
    lines = ((dark > 8) & (body >= cv2.dilate(body, _disc(reach)) * 0.5)).astype(np.uint8)
    lines = _keep(lines, dark > 24, smallest)
    borders = cv2.GaussianBlur(fills, (0, 0), max(0.6, unit))
    # A blurred step is as steep as it is high, divided by its width.
    borders = cv2.Canny(borders, 24 / max(1, unit), 60 / max(1, unit), L2gradient=True)
    # Closing moves the border of two lined fills to one side of their line; the line itself says it better.
    borders[cv2.dilate(lines, _disc(round(unit))) > 0] = 0
    found = cv2.morphologyEx(lines | borders, cv2.MORPH_CLOSE, _disc(1))
    found = _keep(found, found > 0, smallest)
    # Pin holes between the two sides of one line would become rings when it is thinned.
    paper = cv2.bitwise_not(found)
    return cv2.bitwise_not(_keep(paper, paper > 0, smallest))


def _keep(found: np.ndarray, sure: np.ndarray, smallest: int) -> np.ndarray:
    """255 on the connected pieces of `found` that hold a `sure` pixel and at least `smallest` pixels, uint8 (h, w)."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(found, connectivity=8)
    pieces = labels.astype(np.intp, copy=False)
    keep = np.zeros(count, np.uint8)
    keep[pieces[sure]] = 255
    keep[stats[:, cv2.CC_STAT_AREA] < smallest] = 0
    keep[0] = 0
    return keep[pieces]


def _thin(mask: np.ndarray) -> np.ndarray:
    """Centre lines of `mask`, 1 px wide, as connected as it is (Zhang and Suen 1984), 255 or 0."""
    path = (mask > 0).astype(np.uint8)
    size = 0
    while size != (size := cv2.countNonZero(path)):
        for kept in _KEPT:
            neighbours = cv2.filter2D(path, -1, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT)
            path = cv2.bitwise_and(path, cv2.LUT(neighbours, kept))
    return 255 * path


def _stroke(path: np.ndarray, width: float) -> np.ndarray:
    """Darkness of a pen of `width` px drawn along the 1 px wide `path`, uint8 (h, w)."""
    distance = cv2.distanceTransform(cv2.bitwise_not(path), cv2.DIST_L2, 3)
    return (255 * np.clip(width / 2 - distance + 0.5, 0, 1)).astype(np.uint8)


def _smooth(ink: np.ndarray, sigma: float) -> np.ndarray:
    """Take the stairs out of thin lines without greying them: blur, then raise the contrast again."""
    return cv2.LUT(cv2.GaussianBlur(ink, (0, 0), max(0.5, sigma)), _CONTRAST)


def _extracted(frame: np.ndarray) -> np.ndarray:
    """Thick, ragged, slightly speckled lines, uint8 (h, w), as a network's soft answer cut at a high threshold gives."""
    unit = max(frame.shape[:2]) / 720
    even = cv2.LUT(frame, _EVEN_STEPS)
    dark = _strongest(cv2.morphologyEx(even, cv2.MORPH_BLACKHAT, _disc(max(2, round(3 * unit)))))
    step = _strongest(cv2.morphologyEx(cv2.GaussianBlur(even, (0, 0), max(0.6, unit)), cv2.MORPH_GRADIENT, _disc(1)))
    answer = cv2.GaussianBlur(cv2.LUT(cv2.max(dark, step), _ANSWER), (0, 0), max(0.6, unit))
    # One grain for every frame, so that still lines stay still.
    grain = np.random.default_rng(0).integers(80, 176, answer.shape, dtype=np.uint8)
    return np.where(answer > grain, np.uint8(255), np.uint8(0))


def _dark_and_border_lines(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The stronger of thin dark lines, borders between fills, and `known` lines, uint8 (h, w)."""
    reach = max(1, round(max(image.shape[:2]) / 150))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    image = cv2.LUT(image, _EVEN_STEPS)
    # Closing paints over thin dark lines with the fills beside them: what it changed are the lines, what is left are the fills.
    fills = cv2.morphologyEx(image, cv2.MORPH_CLOSE, kernel)
    dark = _strongest(cv2.subtract(fills, image))
    # The step is drawn on its darker side, which is where closing puts the border of a lined fill: under its line, not beside it.
    fills = cv2.medianBlur(fills, 3)
    border = _strongest(cv2.subtract(cv2.dilate(fills, np.ones((3, 3), np.uint8)), fills))
    return cv2.max(known, cv2.max(cv2.LUT(dark, _DARK), cv2.LUT(border, _BORDER)))


def _strongest(image: np.ndarray) -> np.ndarray:
    """Largest of three channels: two hues of one luminance still differ in one of them."""
    a, b, c = cv2.split(image)
    return cv2.max(cv2.max(a, b), c)


def _disc(reach: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))


def _ramp(low: int, high: int, top: int = 255) -> np.ndarray:
    """Table for cv2.LUT: 0 up to `low`, `top` from `high`, straight between."""
    return (np.clip((np.arange(256) - low) / (high - low), 0, 1) * top).round().astype(np.uint8)


def _kept_tables() -> tuple[np.ndarray, np.ndarray]:
    """Two tables for cv2.LUT, one a pass: neighbourhood → 0 where Zhang and Suen take the pixel away, else 1."""
    bit = np.arange(256)[:, None] >> np.arange(8) & 1
    rises = ((bit == 0) & (np.roll(bit, -1, axis=1) == 1)).sum(axis=1)
    rim = (bit.sum(axis=1) >= 2) & (bit.sum(axis=1) <= 6) & (rises == 1)
    top, right, bottom, left = bit[:, 0], bit[:, 2], bit[:, 4], bit[:, 6]
    first = rim & (top * right * bottom == 0) & (right * bottom * left == 0)
    second = rim & (top * right * left == 0) & (top * bottom * left == 0)
    return (~first).astype(np.uint8), (~second).astype(np.uint8)


# A line drawn in a night scene is a few levels darker than its fill; after this, equal steps look about equal at any brightness.
_EVEN_STEPS = (255 * np.log1p(np.arange(256) / 48) / np.log1p(255 / 48)).round().astype(np.uint8)
_DARK = _ramp(10, 48)
_BORDER = _ramp(14, 120)
_ANSWER = _ramp(6, 24)
_CONTRAST = _ramp(40, 180)
_PENCIL = _ramp(0, 230, top=180)
# Bit i of a neighbourhood is neighbour i, clockwise from the top.
_NEIGHBOURS = np.array([[128, 1, 2], [64, 0, 4], [32, 16, 8]], np.float32)
_KEPT = _kept_tables()
