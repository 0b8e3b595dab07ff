"""Contact sheets: pictures side by side, with captions that can be read."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from timecolor.shapes import UInt8

BACKGROUND = (236, 236, 238)
INK = (28, 28, 32)
GAP = 8


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]],
    cell: tuple[int, int],
    columns: Sequence[str] = (),
    text_size: int = 15,
) -> UInt8[np.ndarray, "h w 3"]:
    """Rows of pictures, each fitted whole into a cell of (height, width), with the row's caption at the left.

    rows: (caption, pictures), uint8 (h, w), (h, w, 3) or (h, w, 4); a short row leaves its last cells empty.
    columns: captions above the columns, () = none. Captions wrap at spaces and at "\\n".
    """
    if not rows:
        raise ValueError("no rows; give at least one (caption, pictures)")
    font = ImageFont.load_default(size=text_size)
    height, width = cell
    count = max(len(columns), *(len(pictures) for _, pictures in rows))
    captions = [_wrap(caption, font, max(90, width)) for caption, _ in rows]
    gutter = max(_extent(caption, font)[0] for caption in captions)
    left = GAP + (gutter + GAP if gutter else 0)
    heads = [_wrap(column, font, width) for column in columns]
    header = max((_extent(head, font)[1] for head in heads), default=0)
    top = GAP + (header + GAP if header else 0)
    tops, bottom = [], top
    for caption in captions:
        tops.append(bottom)
        bottom += max(height, _extent(caption, font)[1]) + GAP

    canvas = np.empty((bottom, left + count * (width + GAP), 3), np.uint8)
    canvas[:] = BACKGROUND
    for y, (_, pictures) in zip(tops, rows, strict=True):
        for column, picture in enumerate(pictures):
            x = left + column * (width + GAP)
            fitted = _fit(picture, height, width)
            h, w = fitted.shape[:2]
            canvas[y + (height - h) // 2 :, x + (width - w) // 2 :][:h, :w] = fitted

    sheet = Image.fromarray(canvas)
    draw = ImageDraw.Draw(sheet)
    for y, caption in zip(tops, captions, strict=True):
        draw.multiline_text((GAP, y), caption, INK, font)
    for column, head in enumerate(heads):
        draw.multiline_text((left + column * (width + GAP), GAP), head, INK, font)
    return np.asarray(sheet).copy()


def _fit(picture: np.ndarray, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """The whole picture in colour, as large as fits; transparent parts show the sheet."""
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.size == 0:
        raise ValueError(f"picture is {picture.dtype} {picture.shape}; give uint8 (h, w), (h, w, 3) or (h, w, 4)")
    if picture.ndim == 2:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
    if picture.shape[2] == 4:
        alpha = picture[..., 3:].astype(np.float32) / 255
        picture = (picture[..., :3] * alpha + np.array(BACKGROUND) * (1 - alpha) + 0.5).astype(np.uint8)
    scale = min(height / picture.shape[0], width / picture.shape[1])
    size = min(width, max(1, round(picture.shape[1] * scale))), min(height, max(1, round(picture.shape[0] * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """`text` in lines of at most `width` px, cut at spaces."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return "\n".join(lines)


def _extent(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> tuple[int, int]:
    """Width and height of wrapped text in px."""
    if not text:
        return 0, 0
    _, _, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font)
    return round(right), round(bottom)
