"""Measures of one result against the truth: pure functions on uint8 sRGB frames (h, w, 3) or clips (t, h, w, 3)."""

from collections.abc import Iterable, Mapping

import cv2
import numpy as np

from timecolor.shapes import Bool, Float, Int, UInt8

_BLOCK = 1 << 18  # pixels at once: about 60 MB while CIEDE2000 is worked out
_PAPER = 250  # from this level on, white is paper


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
    paper = truth.min(axis=-1) >= _PAPER
    if sketch is not None:
        _same_shape(truth, sketch)
        return ~paper & (sketch.min(axis=-1) >= _PAPER)
    lines = [_unflat(frame) for frame in _frames(truth)]
    return ~paper & ~np.stack(lines).reshape(paper.shape)


def _unflat(frame: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    uneven = cv2.morphologyEx(frame, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).max(axis=2) > 4
    return uneven | _thin_and_dark(frame)


def _thin_and_dark(frame: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """What a closing of about a hundredth of the picture paints over; a thick line is flat inside, and still a line."""
    reach = max(1, round(max(frame.shape[:2]) / 200))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.morphologyEx(frame, cv2.MORPH_BLACKHAT, kernel).max(axis=2) > 32


def flat_segments(
    truth: UInt8[np.ndarray, "*t h w 3"],
    mask: Bool[np.ndarray, "..."] | None = None,
    tolerance: int = 3,
    smallest: int = 16,
) -> Int[np.ndarray, "*t h w"]:
    """Flat areas of true colour, numbered from 1 through all frames, int32; 0 = in none.

    Pixels side by side belong together where no channel differs by more than `tolerance` levels: what grain and compression leave
    within a paint of a film frame of about 720 px (shrink larger ones first), and less than a line's soft edge. Shading creeps
    through that, so a segment must also be flat as a whole: nine tenths of its pixels within CIEDE2000 3 of its median.
    tolerance: 0 = exact colours. smallest: px; what is less is in no segment. mask: where segments may lie, such as
    `painted_mask(truth, sketch)`; None = all but white paper and what is thin and dark.
    """
    if mask is not None and mask.shape != truth.shape[:-1]:
        raise ValueError(f"mask is {mask.shape} but the truth has {truth.shape[:-1]} pixels; give one value to each pixel")
    if tolerance < 0 or smallest < 1:
        raise ValueError(f"tolerance is {tolerance} and smallest is {smallest}; give at least 0 and 1")
    numbered, count = [], 0
    masks = None if mask is None else mask.reshape(-1, *mask.shape[-2:])
    for i, frame in enumerate(_frames(truth)):
        inside = (frame.min(axis=-1) < _PAPER) & ~_thin_and_dark(frame) if masks is None else masks[i]
        found = _connected(frame, inside, tolerance)
        found = _renumbered(found, _areas(found) >= smallest)
        strays = _areas(found, delta_e(to_lab(frame), to_lab(_medians(frame, found)[found])) > 3)
        found = _renumbered(found, strays <= 0.1 * _areas(found))
        numbered.append(np.where(found, found + count, 0))
        count += int(found.max())
    return np.stack(numbered).reshape(truth.shape[:-1]).astype(np.int32)


def _connected(frame: UInt8[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"], tolerance: int) -> Int[np.ndarray, "h w"]:
    """Connected areas of nearly one colour, numbered from 1; 0 = not inside."""
    height, width = inside.shape
    # On a grid twice as fine, a pixel and the joints to its like neighbours are set, so one labelling of it follows the joints.
    grid = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    grid[::2, ::2] = inside
    across = cv2.absdiff(frame[:, 1:], frame[:, :-1]).max(axis=-1) <= tolerance if width > 1 else np.zeros((height, 0), bool)
    down = cv2.absdiff(frame[1:], frame[:-1]).max(axis=-1) <= tolerance if height > 1 else np.zeros((0, width), bool)
    grid[::2, 1::2] = across & inside[:, 1:] & inside[:, :-1]
    grid[1::2, ::2] = down & inside[1:] & inside[:-1]
    return cv2.connectedComponents(grid, connectivity=4, ltype=cv2.CV_32S)[1][::2, ::2]


def _areas(segments: Int[np.ndarray, "h w"], counted: Bool[np.ndarray, "h w"] | None = None) -> Float[np.ndarray, " n"]:
    """Pixels of each number. counted: None = all."""
    return np.bincount(segments.reshape(-1), None if counted is None else counted.reshape(-1)).astype(np.float64)


def _renumbered(segments: Int[np.ndarray, "h w"], keep: Bool[np.ndarray, " n"]) -> Int[np.ndarray, "h w"]:
    """Those to keep numbered from 1, the others 0."""
    kept = np.flatnonzero(keep[1:]) + 1
    number = np.zeros(len(keep), np.int32)
    number[kept] = np.arange(1, len(kept) + 1)
    return number[segments]


def _medians(frame: UInt8[np.ndarray, "h w 3"], segments: Int[np.ndarray, "h w"]) -> UInt8[np.ndarray, "n 3"]:
    """Median of each channel in each segment, the lower of two; a number that is not there gets 0."""
    flat = segments.reshape(-1).astype(np.int64)
    count = int(flat.max()) + 1
    medians = np.zeros((count, 3), np.uint8)
    for channel in range(3):
        levels = (
            np.bincount(256 * flat + frame[..., channel].reshape(-1), minlength=256 * count).reshape(count, 256).cumsum(axis=1)
        )
        medians[:, channel] = (2 * levels >= levels[:, -1:]).argmax(axis=1)
    return medians


def segment_differences(
    output: UInt8[np.ndarray, "... 3"], truth: UInt8[np.ndarray, "... 3"], segments: Int[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """CIEDE2000 between each segment's median colours, and its area in px.

    segments: `flat_segments(truth)`, of some or all of its frames. A median is taken channel by channel, so a segment that is
    wrong in less than half of its area counts as right, as a painter's one click would make it.
    """
    _same_shape(output, truth)
    if segments.shape != truth.shape[:-1]:
        raise ValueError(f"segments are {segments.shape} but the truth has {truth.shape[:-1]} pixels; give one number to each")
    differences, areas = [], []
    for a, b, numbers in zip(_frames(output), _frames(truth), segments.reshape(-1, *segments.shape[-2:]), strict=True):
        present, own = np.unique(np.append(numbers, 0), return_inverse=True)
        own = own[:-1].reshape(numbers.shape).astype(np.int32)
        differences.append(delta_e(to_lab(_medians(a, own)), to_lab(_medians(b, own)))[1:])
        areas.append(np.bincount(own.reshape(-1), minlength=len(present))[1:])
    return np.concatenate(differences), np.concatenate(areas)


def segment_accuracy(
    differences: Float[np.ndarray, " n"], areas: Int[np.ndarray, " n"] | None = None, within: float | int = 10
) -> float:
    """Share of segments whose CIEDE2000 is at most `within`, in [0, 1]; nan where there are none. As PaintBucket and DACoN count.

    differences, areas: what `segment_differences` gives. areas: weigh each segment by its area; None = all count alike.
    """
    if not len(differences):
        return float("nan")
    return float(np.average(differences <= within, weights=areas))


def leak_rate(
    output: UInt8[np.ndarray, "*t h w 3"],
    truth: UInt8[np.ndarray, "*t h w 3"],
    labels: Int[np.ndarray, "*t h w"],
    palettes: Mapping[int, UInt8[np.ndarray, "_ 3"]],
    margin: float | int = 5,
) -> float:
    """Share of labelled pixels whose colour came from elsewhere, in [0, 1], 0 is best; nan where none can be judged.

    palettes: label → the colours of its own references (`colours_of`); a label that is not in it is left out. A pixel leaks when
    another label's palette is nearer to it than its own by more than `margin` (CIEDE2000). References do not show every colour
    that is painted, and where the true colour itself is nearer to another's, an output that has it would be blamed: such pixels
    are left out (`leak_judged`). What is left is 0 on the truth, with the whole margin to spare, whatever the palettes.
    """
    judged = leak_judged(truth, labels, palettes)
    _same_shape(output, truth)
    if not judged.any():
        return float("nan")
    return float((strangeness(output[judged], labels[judged], palettes) > margin).mean())


def leak_judged(
    truth: UInt8[np.ndarray, "*t h w 3"], labels: Int[np.ndarray, "*t h w"], palettes: Mapping[int, UInt8[np.ndarray, "_ 3"]]
) -> Bool[np.ndarray, "*t h w"]:
    """Pixels of a label in `palettes` whose true colour is at least as near to its own palette as to any other's (CIEDE2000).

    None where there is no other palette: then nothing can leak.
    """
    if truth.shape[:-1] != labels.shape:
        raise ValueError(f"truth is {truth.shape[:-1]} but labels are {labels.shape}; give one label to each pixel")
    empty = [label for label, palette in palettes.items() if not len(palette)]
    if empty:
        raise ValueError(f"label {empty[0]} has an empty palette; give its references' colours")
    judged = np.isin(labels, list(palettes))
    if len(palettes) < 2:
        return np.zeros_like(judged)
    judged[judged] = strangeness(truth[judged], labels[judged], palettes) <= 0
    return judged


def colours_of(
    images: Iterable[tuple[UInt8[np.ndarray, "_ _ 3"], UInt8[np.ndarray, "_ _"] | None]], least: float = 1e-3
) -> UInt8[np.ndarray, "k 3"]:
    """The colours that pictures show, flat or painted: cells of 8 levels a channel that hold a share of at least `least`.

    images: (image, alpha) of one label's references, alpha None = opaque; under an alpha of half or less nothing is looked at.
    Each cell is given as its mean. A palette for `leak_rate` that owes nothing to any method's own.
    """
    opaque = [image.reshape(-1, 3) if alpha is None else image[alpha > 127] for image, alpha in images]
    pixels = np.concatenate([*opaque, np.empty((0, 3), np.uint8)])
    cells = (pixels >> 3).astype(np.int64) @ np.array([1 << 10, 1 << 5, 1])
    counts = np.bincount(cells, minlength=1 << 15)
    kept = np.flatnonzero(counts >= max(1, least * len(pixels)))
    sums = [np.bincount(cells, pixels[:, channel], 1 << 15)[kept] for channel in range(3)]
    return np.rint(np.stack(sums, axis=1) / counts[kept, None]).astype(np.uint8)


def strangeness(
    colours: UInt8[np.ndarray, "n 3"], labels: Int[np.ndarray, " n"], palettes: Mapping[int, UInt8[np.ndarray, "_ 3"]]
) -> Float[np.ndarray, " n"]:
    """How much nearer (CIEDE2000) the nearest other palette is than that of the colour's own label."""
    # Flat art has few colours: the distances are worked out once for each.
    packed, colour_of_pixel = np.unique(
        colours.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32), return_inverse=True
    )
    lab = to_lab(np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1).astype(np.uint8))
    nearest = {label: _nearest(lab, to_lab(palette)) for label, palette in palettes.items()}
    strangeness = np.zeros(len(colours), np.float32)
    for label, own in nearest.items():
        mine = labels == label
        others = [distance for other, distance in nearest.items() if other != label]
        strangeness[mine] = (own - np.min(others, axis=0))[colour_of_pixel[mine]]
    return strangeness


def edmd(output: UInt8[np.ndarray, "... 3"], truth: UInt8[np.ndarray, "... 3"]) -> float:
    """Line fidelity: RMSE between distance maps of two line drawings, in [0, 1], 0 is best; mean over frames.

    output, truth: dark lines on white, taken from the coloured frames by one extractor, as
    `sketch.extract_clip(frames, binarise=True)`; darker than mid-grey is a line. A distance map holds each pixel's Euclidean
    distance to the nearest line, as a share of the frame's diagonal; without any line it is 1 everywhere.
    The measure is LVCD's (Huang et al. 2024, arXiv 2409.12960). Their code for it is not published: extractor and normaliser
    here are ours, so figures compare only with figures of this function.
    """
    _same_shape(output, truth)
    maps = ((_distance_map(a), _distance_map(b)) for a, b in zip(_frames(output), _frames(truth), strict=True))
    return float(np.mean([np.sqrt(np.square(a - b).mean()) for a, b in maps]))


def _distance_map(lines: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    paper = (lines.min(axis=-1) > 127).astype(np.uint8)
    if paper.all():
        return np.ones(paper.shape, np.float32)
    return cv2.distanceTransform(paper, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / np.float32(np.hypot(*paper.shape))


def temporal_consistency(output: UInt8[np.ndarray, "t _ _ 3"], truth: UInt8[np.ndarray, "t h w 3"]) -> float:
    """Flicker: flow-warp error over that of the truth; 1 = as steady as the truth, more = flicker, less = stiller than it.

    Each frame is predicted from the one before along the truth's own optical flow; the error is the absolute difference over
    pixels seen in both (forward and backward flow agree: Sundaram, Brox and Keutzer 2010), summed over all pairs before the
    ratio is taken. inf = the truth is wholly steady and the output is not; 1 where both are. Frames must follow one another.
    The measure is LVCD's TC (Huang et al. 2024, arXiv 2409.12960); flow here is OpenCV's DIS (Kroeger et al. 2016) on grey
    frames, where theirs is a network's, so figures compare only with figures of this function.
    """
    _same_shape(output, truth)
    if len(truth) < 2:
        raise ValueError(f"clip has {len(truth)} frame; flicker needs at least 2")
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    errors = np.zeros(2)
    for t in range(1, len(truth)):
        before, now = (_padded_grey(frame) for frame in truth[t - 1 : t + 1])
        height, width = truth.shape[1:3]
        back = flow.calc(now, before, np.zeros((*now.shape, 2), np.float32))[:height, :width]
        ahead = flow.calc(before, now, np.zeros((*now.shape, 2), np.float32))[:height, :width]
        y, x = np.indices((height, width), np.float32)
        source_x, source_y = x + back[..., 0], y + back[..., 1]
        returned = cv2.remap(ahead, source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        apart = np.square(back + returned).sum(axis=-1)
        seen = apart <= 0.01 * (np.square(back).sum(axis=-1) + np.square(returned).sum(axis=-1)) + 0.5
        seen &= (source_x >= 0) & (source_x <= width - 1) & (source_y >= 0) & (source_y <= height - 1)
        for i, clip in enumerate((output, truth)):
            predicted = cv2.remap(clip[t - 1], source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            errors[i] += cv2.absdiff(predicted, clip[t])[seen].sum(dtype=np.float64)
    of_output, of_truth = errors
    if not of_truth:
        return float("inf") if of_output else 1.0
    return float(of_output / of_truth)


def _padded_grey(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W"]:
    """Grey, and at least 64 px to a side, below which DIS does not run."""
    height, width = frame.shape[:2]
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.copyMakeBorder(grey, 0, max(0, 64 - height), 0, max(0, 64 - width), cv2.BORDER_REPLICATE)


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
