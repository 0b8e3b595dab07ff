"""A whole-frame reference carried onto every drawing by its lines: colours that may be right, in the place they may be right for.

Not in the paper. The model is shown these pictures as hints and trusts each, token by token, or not; the `flow` baseline is
nothing but the second of them.
"""

import cv2
import numpy as np

from timecolor.shapes import Float, UInt8

# Blurs of the lines before their flow is sought, standard deviation in pixels of the working size: the wider, the farther lines
# are followed and the less exactly. A picture is also offered where it stands.
BLURS = (1.0, 4.0)
CANDIDATES = 1 + len(BLURS)


def line_flow(
    source: UInt8[np.ndarray, "h w"], target: UInt8[np.ndarray, "h w"], blur: float = 1.0
) -> Float[np.ndarray, "h w 2"]:
    """For each pixel of `target`, how far off (x, y), in pixels, it lies in `source`; both are darkness of lines, 255 = line.

    Dense inverse search (Kroeger et al. 2016) on blurred lines, since a line is narrower than its way.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(0)
    return flow.calc(_blurred(target, blur), _blurred(source, blur), np.zeros((*target.shape, 2), np.float32))


def warp(image: np.ndarray, flow: Float[np.ndarray, "h w 2"]) -> np.ndarray:
    """The image (h w) or (h w c) fetched along `line_flow`, at its size; beyond the edge it goes on as at the edge."""
    h, w = flow.shape[:2]
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    return cv2.remap(image, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def darkness(drawing: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    """How dark a drawing's ink is, in its darkest channel, so that a trace line counts as one."""
    return 255 - drawing.min(axis=2)


def flows(lines: UInt8[np.ndarray, "h w"], drawing: UInt8[np.ndarray, "h w 3"]) -> list[Float[np.ndarray, "h w 2"]]:
    """From a drawing to a picture with these lines, at each of `BLURS`."""
    ink = darkness(drawing)
    return [line_flow(lines, ink, blur) for blur in BLURS]


def candidates(
    colour: UInt8[np.ndarray, "h w 3"], lines: UInt8[np.ndarray, "h w"], drawing: UInt8[np.ndarray, "h w 3"]
) -> UInt8[np.ndarray, "k h w 4"]:
    """A picture and its lines as they stand, then carried onto the drawing along each of its `flows`."""
    picture = np.dstack([colour, lines])
    return np.stack([picture, *(warp(picture, flow) for flow in flows(lines, drawing))])


def _blurred(lines: np.ndarray, blur: float) -> np.ndarray:
    # Blurring spreads a line's ink; scaling it back up keeps the contrast that the search works on.
    spread = cv2.GaussianBlur(lines, (0, 0), blur).astype(np.float32)
    return np.clip(spread * (2 * blur + 0.5), 0, 255).astype(np.uint8)
