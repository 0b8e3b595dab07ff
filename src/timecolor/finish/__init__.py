"""From a model's coarse colours and the artist's line art to the final frame."""

from timecolor.finish.frame import Fill, Finisher, FinishOptions, Lines, PaletteMode, finish
from timecolor.finish.ink import regions
from timecolor.finish.palettes import Palette, palette_of, palettes_of
from timecolor.finish.plates import Place, Placed, Plate, plate_of
from timecolor.finish.strokes import Strokes
from timecolor.finish.votes import Vote

__all__ = [
    "Fill",
    "FinishOptions",
    "Finisher",
    "Lines",
    "Palette",
    "PaletteMode",
    "Place",
    "Placed",
    "Plate",
    "Strokes",
    "Vote",
    "finish",
    "palette_of",
    "palettes_of",
    "plate_of",
    "regions",
]
