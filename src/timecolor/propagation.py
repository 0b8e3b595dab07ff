"""A whole-frame reference carried onto every drawing by its lines: colours that may be right, in the place they may be right for.

Not in the paper. The model is shown these pictures as hints and trusts each, token by token, or not; the `flow` baseline is
nothing but the second of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from timecolor.shapes import Bool, Float, UInt8

# Blurs of the lines before their flow is sought, standard deviation in pixels of the working size: the wider, the farther lines
# are followed and the less exactly. A picture is also offered where it stands.
BLURS = (1.0, 4.0)
CANDIDATES = 1 + len(BLURS)  # without a track
# Following lines from drawing to drawing: blurs near and far, in pixels; from what darkness a pixel is a line; in pixels of a
# 160-line picture, how far two lines can be apart and what "around a pixel" is; weight of the whole picture's misfit beside it.
FINE, WIDE = 1.5, 6.0
INK = 64
FAR, AROUND, WHOLE = 8.0, 6.0, 0.3
# A camera's move: by how many pixels of lines it is told at least, how near flow must be to it (pixels of a 160-line picture), at
# which misfit lines are on one another, by what factor a move must lessen it to be believed, and to be made more exact again.
TOLD, NEAR, ON, NEARER, BETTER = 20, 1.5, 0.03, 0.7, 0.95
ZOOM, ROLL = 2.0, 0.2  # the most that it zooms (a factor) and rolls (radians)


class Way(NamedTuple):
    """How a picture may lie on a drawing: along a `line_flow`, None = as it stands. misfit: of its lines, None = not known."""

    flow: Float[np.ndarray, "h w 2"] | None = None
    misfit: Float[np.ndarray, "h w"] | None = None


def line_flow(
    source: UInt8[np.ndarray, "h w"], target: UInt8[np.ndarray, "h w"], blur: float = 1.0
) -> Float[np.ndarray, "h w 2"]:
    """For each pixel of `target`, how far off (x, y), in pixels, it lies in `source`; both are darkness of lines, 255 = line.

    Dense inverse search (Kroeger et al. 2016) on blurred lines, since a line is narrower than its way.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(0)
    return flow.calc(_blurred(target, blur), _blurred(source, blur), np.zeros((*target.shape, 2), np.float32))


def warp(image: np.ndarray, flow: Float[np.ndarray, "h w 2"], how: int = cv2.INTER_LINEAR) -> np.ndarray:
    """The image (h w) or (h w c) fetched along `line_flow`, at its size; beyond the edge it goes on as at the edge."""
    x, y = _leads(flow)
    return cv2.remap(image, x, y, how, borderMode=cv2.BORDER_REPLICATE)


def fetched(numbers: np.ndarray, flow: Float[np.ndarray, "h w 2"]) -> np.ndarray:
    """Whole numbers (h w), up to 2 ** 24, fetched along `line_flow`, each from the nearest pixel."""
    x, y = _leads(flow)
    found = cv2.remap(numbers.astype(np.float32), x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return found.astype(numbers.dtype)


def covered(flow: Float[np.ndarray, "h w 2"]) -> Bool[np.ndarray, "h w"]:
    """Where a flow leads into the picture and not beyond its edge."""
    (h, w), (x, y) = flow.shape[:2], _leads(flow)
    return (x > -0.5) & (x < w - 0.5) & (y > -0.5) & (y < h - 0.5)


def _leads(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where to a flow leads, x and y (h, w)."""
    x, y = cv2.split(flow.astype(np.float32))
    x += np.arange(flow.shape[1], dtype=np.float32)
    y += np.arange(flow.shape[0], dtype=np.float32)[:, None]
    return x, y


def resized(flow: Float[np.ndarray, "h w 2"], height: int, width: int) -> Float[np.ndarray, "y x 2"]:
    """A flow for pictures of another size."""
    scale = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
    return cv2.resize(flow * scale, (width, height), interpolation=cv2.INTER_LINEAR)


def darkness(drawing: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    """How dark a drawing's ink is, in its darkest channel, so that a trace line counts as one."""
    return 255 - drawing.min(axis=2)


def flows(lines: UInt8[np.ndarray, "h w"], drawing: UInt8[np.ndarray, "h w 3"]) -> list[Float[np.ndarray, "h w 2"]]:
    """From a drawing to a picture with these lines, at each of `BLURS`."""
    own = darkness(drawing)
    return [line_flow(lines, own, blur) for blur in BLURS]


def candidates(
    colour: UInt8[np.ndarray, "h w 3"], lines: UInt8[np.ndarray, "h w"], ways: Sequence[Float[np.ndarray, "h w 2"]]
) -> UInt8[np.ndarray, "k h w 4"]:
    """A picture and its lines as they stand, then carried along each of the flows."""
    picture = np.dstack([colour, lines])
    return np.stack([picture, *(warp(picture, flow) for flow in ways)])


def ink(drawing: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    """Darkness of the lines, 0 = paper, whatever its tone, 255 = what the darkest lines reach: shrinking greys thin ones."""
    dark = darkness(drawing).astype(np.float32)
    dark = np.maximum(dark - np.median(dark), 0)
    inked = dark[dark > 24]
    return np.clip(dark * (255 / max(float(np.percentile(inked, 90)), 48.0) if inked.size else 1.0), 0, 255).astype(np.uint8)


def follow(
    lines: UInt8[np.ndarray, "h w"],
    views: Sequence[UInt8[np.ndarray, "h w"]],
    places: Sequence[Sequence[Float[np.ndarray, "h w 2"]]] | None = None,
) -> list[tuple[Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w"]]]:
    """A picture with these lines followed through drawings: its flow onto each, and how badly its lines fit there.

    views: `ink` of each drawing. places: flows to start from on each, None = as it stands.
    """
    if places is None:
        places = [[np.zeros((*view.shape, 2), np.float32)] for view in views]
    starts = [fittest(lines, view, tried) for view, tried in zip(views, places, strict=True)]
    # Nothing says which moment a picture is of: it is followed from where its lines fit best as they are.
    anchor = int(np.argmin([misfit.mean() for _, misfit in starts]))
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for t in [*range(anchor, len(views)), *range(anchor - 1, -1, -1)]:
        tried = _carried(lines, views[t], starts[t][0])
        before = t - 1 if t > anchor else t + 1
        if before in found:
            link, _ = fittest(views[before], views[t], _carried(views[before], views[t], np.zeros_like(starts[t][0])))
            chained = link + warp(found[before][0], link)
            tried += [chained, refined(lines, views[t], chained)]
        found[t] = fittest(lines, views[t], tried)
    return [found[t] for t in range(len(views))]


def standing(lines: UInt8[np.ndarray, "h w"], drawings: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[float]:
    """How badly the lines of a picture, as it stands, fit each drawing's."""
    still = [np.zeros((*lines.shape, 2), np.float32)]
    return [float(fittest(lines, ink(drawing), still)[1].mean()) for drawing in drawings]


def fittest(
    lines: UInt8[np.ndarray, "h w"], view: UInt8[np.ndarray, "h w"], tried: Sequence[Float[np.ndarray, "h w 2"]]
) -> tuple[Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w"]]:
    """The flow that lays the lines best on a drawing's, and how far they lie apart then, both ways: 0 = on one another.

    The misfit (h, w) is of what is around each pixel, and a share of the whole picture's.
    """
    unit = min(view.shape) / 160
    far, to_view = FAR * unit, _distance(view, FAR * unit)
    best, least, apart = tried[0], np.inf, np.zeros_like(to_view)
    for known in tried:
        warped = warp(lines, known)
        off = _apart(warped, view, to_view, far)
        if off.mean() < least:
            best, least, apart = known, float(off.mean()), off
    return best, cv2.GaussianBlur(apart, (0, 0), AROUND * unit) + np.float32(WHOLE * least)


def refined(
    lines: UInt8[np.ndarray, "h w"],
    view: UInt8[np.ndarray, "h w"],
    known: Float[np.ndarray, "h w 2"],
    blur: float = FINE,
) -> Float[np.ndarray, "h w 2"]:
    """A flow of lines onto a drawing's (`view`), and what is still to go after it."""
    step = line_flow(warp(lines, known), view, blur)
    return step + warp(known, step)


def ways(
    lines: UInt8[np.ndarray, "h w"], drawing: UInt8[np.ndarray, "h w 3"], tried: Sequence[Float[np.ndarray, "h w 2"]]
) -> list[Way]:
    """How a picture with these lines may lie on a drawing: as it stands, then along each of the flows.

    The misfit is how far lines around a pixel are from the other's lines, both ways, as a share of `FAR`.
    """
    view = ink(drawing)
    unit = min(view.shape) / 160
    far, blur = FAR * unit, AROUND * unit
    to_view, found = _distance(view, far), []
    for flow in (None, *tried):
        carried = lines if flow is None else warp(lines, flow)
        off = _apart(carried, view, to_view, far)
        lined = ((carried > INK) | (view > INK)).astype(np.float32)
        found.append(Way(flow, cv2.GaussianBlur(off, (0, 0), blur) / (cv2.GaussianBlur(lined, (0, 0), blur) + np.float32(0.05))))
    return found


def camera(
    lines: UInt8[np.ndarray, "h w"],
    drawing: UInt8[np.ndarray, "h w 3"],
    tried: Sequence[Float[np.ndarray, "h w 2"]],
    within: Bool[np.ndarray, "h w"],
) -> Float[np.ndarray, "h w 2"] | None:
    """The move of the whole picture with these lines that lays them best on a drawing's: what pans and zooms do to a place.

    Its flow, or None: it stands still, as it does where hardly any lines tell. tried: flows that may hold it. within: where the
    drawing shows the place.
    """
    view = ink(drawing)
    far = FAR * min(view.shape) / 160
    # The outlines of what stands before the place are none of its lines.
    within = cv2.erode(within.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1) > 0
    to_view = _distance(np.where(within, view, 0), far)
    seen = (view > INK) & within
    still = _told(lines, seen, to_view, within, None, far)
    if still is None or still <= ON:
        return None
    best, least, known = None, still, list(tried)
    while known:
        before = least
        for flow in known:
            moved = _moved(flow, seen)
            off = None if moved is None else _told(lines, seen, to_view, within, moved, far)
            if off is not None and off < least:
                best, least = moved, off
        known = [refined(lines, view, best)] if best is not None and least < BETTER * before else []
    return best if least < NEARER * still else None


def _moved(flow: np.ndarray, seen: np.ndarray) -> np.ndarray | None:
    """The flow of the move of a whole picture that most pixels seen of a flow agree with; None = there is none."""
    h, w = seen.shape
    y, x = np.nonzero(seen)
    at = np.stack([x, y], axis=1).astype(np.float32)
    if len(at) < TOLD:
        return None
    move, _ = cv2.estimateAffinePartial2D(at, at + flow[y, x], ransacReprojThreshold=NEAR * min(h, w) / 160)
    if move is None:
        return None
    zoom, roll = float(np.hypot(*move[:, 0])), float(np.arctan2(move[1, 0], move[0, 0]))
    if not 1 / ZOOM < zoom < ZOOM or abs(roll) > ROLL:
        return None
    places = np.dstack([*np.meshgrid(np.arange(w), np.arange(h)), np.ones((h, w))])
    return (places @ move.T - places[..., :2]).astype(np.float32)


def _told(
    lines: np.ndarray, seen: np.ndarray, to_view: np.ndarray, within: np.ndarray, flow: np.ndarray | None, far: float
) -> float | None:
    """How far the lines of a picture and those seen of a drawing lie apart, in [0, 1]; None where either has too few."""
    known = within
    if flow is not None:
        known, lines = within & covered(flow), warp(lines, flow)
    theirs, own = (lines > INK) & known, seen & known
    if min(theirs.sum(), own.sum()) < TOLD:
        return None
    return float((to_view[theirs].sum() + _distance(lines, far)[own].sum()) / (theirs.sum() + own.sum()) / far)


def _carried(lines: np.ndarray, view: np.ndarray, start: np.ndarray) -> list[np.ndarray]:
    """Flows of lines onto a drawing's: none, the near one, and the wide one made exact."""
    wide = refined(lines, view, start, WIDE)
    return [start, refined(lines, view, start), refined(lines, view, wide)]


def _apart(lines: np.ndarray, view: np.ndarray, to_view: np.ndarray, far: float) -> np.ndarray:
    """On either's lines, how far from the other's they lie, as a share of `far`. to_view: distance to the drawing's."""
    return ((lines > INK) * to_view + (view > INK) * _distance(lines, far)) / np.float32(far)


def _distance(lines: np.ndarray, far: float) -> np.ndarray:
    """Pixels to the nearest line, at most `far`."""
    found = (lines > INK).astype(np.uint8)
    if not found.any():
        return np.full(lines.shape, far, np.float32)
    return np.minimum(cv2.distanceTransform(1 - found, cv2.DIST_L2, 5), far)


def _blurred(lines: np.ndarray, blur: float) -> np.ndarray:
    # Blurring spreads a line's ink; scaling it back up keeps the contrast that the search works on.
    spread = cv2.GaussianBlur(lines, (0, 0), blur).astype(np.float32)
    return np.clip(spread * (2 * blur + 0.5), 0, 255).astype(np.uint8)
