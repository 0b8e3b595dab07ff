"""Measures of one result against the truth: pure functions on uint8 sRGB frames (h, w, 3) or clips (t, h, w, 3)."""

from collections.abc import Mapping

import cv2
import numpy as np

from timecolor.shapes import Bool, Float, Int, UInt8

_BLOCK = 1 << 18  # pixels at once: about 60 MB while CIEDE2000 is worked out


def psnr(a: UInt8[np.ndarray, "... 3"], b: UInt8[np.ndarray, "... 3"]) -> float:
    """Peak signal-to-noise ratio in dB, higher is better; inf where a and b are equal.

    Of a clip, from the mean squared error over all its frames (as FFmpeg's average), not the mean of its frames' PSNRs.
    """
    _same_shape(a, b)
    error = (
        sum(np.square(np.subtract(x, y, dtype=np.float64)).sum() for x, y in zip(_frames(a), _frames(b), strict=True)) / a.size
    )
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def ssim(a: UInt8[np.ndarray, "... 3"], b: UInt8[np.ndarray, "... 3"]) -> float:
    """Structural similarity, at most 1 (equal); mean over channels, pixels and frames.

    Wang et al. 2004: 11x11 Gaussian window, sigma 1.5, K1 = 0.01, K2 = 0.03. A rim of 5 px, where windows are cut, is left out.
    """
    _same_shape(a, b)
    if min(a.shape[-3:-1]) < 11:
        raise ValueError(f"frames are {a.shape[-2]}x{a.shape[-3]}; SSIM needs at least 11x11")
    return float(np.mean([_ssim(x, y) for x, y in zip(_frames(a), _frames(b), strict=True)]))


def _ssim(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> float:
    def window(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (11, 11), 1.5)[5:-5, 5:-5]

    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = window(x), window(y)
    variance = window(x * x) - mean_x**2 + window(y * y) - mean_y**2
    covariance = window(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance + c2)
    return float(similarity.mean())


def to_lab(image: UInt8[np.ndarray, "*any 3"]) -> Float[np.ndarray, "*any 3"]:
    """CIELAB of sRGB colours under D65 (2 degrees), float32: L in [0, 100]."""
    xyz = _LINEAR[image] @ _XYZ_OVER_WHITE.T
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def delta_e(a: Float[np.ndarray, "*#any 3"], b: Float[np.ndarray, "*#any 3"]) -> Float[np.ndarray, "*any"]:
    """CIEDE2000 between CIELAB colours, which broadcast; 0 = equal, about 1 = just seen. Sharma, Wu and Dalal 2005."""
    l1, a1, b1 = np.moveaxis(a, -1, 0)
    l2, a2, b2 = np.moveaxis(b, -1, 0)
    mean_chroma7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(mean_chroma7 / (mean_chroma7 + 25**7))
    c1, c2 = np.hypot(a1 * stretch, b1), np.hypot(a2 * stretch, b2)
    h1, h2 = np.arctan2(b1, a1 * stretch), np.arctan2(b2, a2 * stretch)

    # Hues live on a circle: the shorter way round, and the middle of that way. A grey has no hue, so the other's is taken.
    turn = h2 - h1
    turn = np.where(turn > np.pi, turn - 2 * np.pi, np.where(turn < -np.pi, turn + 2 * np.pi, turn))
    middle = np.where(c1 == 0, h2, np.where(c2 == 0, h1, h1 + turn / 2))
    dl, dc = l2 - l1, c2 - c1
    dh = 2 * np.sqrt(c1 * c2) * np.sin(turn / 2)

    lightness50 = ((l1 + l2) / 2 - 50) ** 2
    chroma = (c1 + c2) / 2
    t = 1 - 0.17 * np.cos(middle - np.pi / 6) + 0.24 * np.cos(2 * middle)
    t += 0.32 * np.cos(3 * middle + np.pi / 30) - 0.20 * np.cos(4 * middle - 63 * np.pi / 180)
    sl = 1 + 0.015 * lightness50 / np.sqrt(20 + lightness50)
    sc = 1 + 0.045 * chroma
    sh = 1 + 0.015 * chroma * t
    from_blue = (np.degrees(middle) % 360 - 275) / 25
    chroma7 = chroma**7
    twist = -2 * np.sqrt(chroma7 / (chroma7 + 25**7)) * np.sin(np.pi / 3 * np.exp(-(from_blue**2)))
    squared = (dl / sl) ** 2 + (dc / sc) ** 2 + (dh / sh) ** 2 + twist * (dc / sc) * (dh / sh)
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


def ciede2000(a: UInt8[np.ndarray, "... 3"], b: UInt8[np.ndarray, "... 3"]) -> Float[np.ndarray, "..."]:
    """Colour difference of every pixel, float32; 0 = equal, about 1 = just seen. Sharma, Wu and Dalal 2005."""
    _same_shape(a, b)
    difference = np.zeros(a.shape[:-1], np.float32)
    flat, a, b = difference.reshape(-1), a.reshape(-1, 3), b.reshape(-1, 3)
    for start in range(0, len(flat), _BLOCK):
        block = slice(start, start + _BLOCK)
        # Flat art is right or wrong by whole regions, so much of it is equal and need not be worked out.
        unequal = start + np.flatnonzero((a[block] != b[block]).any(axis=1))
        flat[unequal] = delta_e(to_lab(a[unequal]), to_lab(b[unequal]))
    return difference


def share_within(
    a: UInt8[np.ndarray, "... 3"],
    b: UInt8[np.ndarray, "... 3"],
    within: float | int = 10,
    mask: Bool[np.ndarray, "..."] | None = None,
) -> float:
    """Share of pixels with a CIEDE2000 of at most `within`, in [0, 1]. mask: None = all; nan where it is empty."""
    _same_shape(a, b)
    difference = ciede2000(a, b) if mask is None else ciede2000(a[mask], b[mask])
    return float((difference <= within).mean()) if difference.size else float("nan")


def painted_mask(
    truth: UInt8[np.ndarray, "*t h w 3"], sketch: UInt8[np.ndarray, "*t h w 3"] | None = None
) -> Bool[np.ndarray, "*t h w"]:
    """Painted area of flat studio frames: not white paper, not a line, not the rim a line's anti-aliasing mixes.

    sketch: the frames' lines, dark on white; None = what is not flat over 3x3 px, or thin and dark, is taken for a line.
    """
    paper = truth.min(axis=-1) >= 250
    if sketch is not None:
        _same_shape(truth, sketch)
        return ~paper & (sketch.min(axis=-1) >= 250)
    lines = [_unflat(frame) for frame in _frames(truth)]
    return ~paper & ~np.stack(lines).reshape(paper.shape)


def _unflat(frame: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    uneven = cv2.morphologyEx(frame, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).max(axis=2) > 4
    # A thick line is flat inside: it is what a closing of about a hundredth of the picture paints over.
    reach = max(1, round(max(frame.shape[:2]) / 200))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return uneven | (cv2.morphologyEx(frame, cv2.MORPH_BLACKHAT, kernel).max(axis=2) > 32)


def leak_rate(
    output: UInt8[np.ndarray, "*t h w 3"],
    labels: Int[np.ndarray, "*t h w"],
    palettes: Mapping[int, UInt8[np.ndarray, "_ 3"]],
    margin: float | int = 5,
) -> float:
    """Share of labelled pixels whose colour came from elsewhere, in [0, 1], 0 is best; nan if no label of `palettes` is there.

    palettes: label → the colours of its own references. A pixel leaks when another label's palette is nearer than its own by
    more than `margin` (CIEDE2000). A label that is not in `palettes` is left out. 0 on a truth made of its own palettes' colours.
    """
    if output.shape[:-1] != labels.shape:
        raise ValueError(f"output is {output.shape[:-1]} but labels are {labels.shape}; give one label to each pixel")
    empty = [label for label, palette in palettes.items() if not len(palette)]
    if empty:
        raise ValueError(f"label {empty[0]} has an empty palette; give its references' colours")
    known = np.isin(labels, list(palettes))
    # Flat art has few colours: the distances are worked out once for each.
    packed = output[known].astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    packed, colour_of_pixel = np.unique(packed, return_inverse=True)
    colours = to_lab(np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1).astype(np.uint8))
    nearest = {label: _nearest(colours, to_lab(palette)) for label, palette in palettes.items()}
    leaks = 0
    for label in palettes:
        others = [distance for other, distance in nearest.items() if other != label]
        if others:
            leaking = nearest[label] > np.min(others, axis=0) + margin
            leaks += np.count_nonzero(leaking[colour_of_pixel[labels[known] == label]])
    return leaks / len(colour_of_pixel) if len(colour_of_pixel) else float("nan")


def _nearest(colours: Float[np.ndarray, "n 3"], palette: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, " n"]:
    """CIEDE2000 to the nearest colour of the palette."""
    nearest = np.full(len(colours), np.inf, np.float32)
    for paint in palette:
        np.minimum(nearest, delta_e(colours, paint), out=nearest)
    return nearest


def _frames(frames: UInt8[np.ndarray, "*t h w 3"]) -> UInt8[np.ndarray, "t h w 3"]:
    return frames.reshape(-1, *frames.shape[-3:])


def _same_shape(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise ValueError(f"got {a.shape} and {b.shape}; measure frames of one number and size")


_SRGB = np.arange(256) / 255
_LINEAR = np.where(_SRGB > 0.04045, ((_SRGB + 0.055) / 1.055) ** 2.4, _SRGB / 12.92).astype(np.float32)
_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_XYZ_OVER_WHITE = (_XYZ / np.array([[0.95047], [1.0], [1.08883]])).astype(np.float32)
