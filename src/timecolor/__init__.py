"""Colour a line-art animation shot from any number of coloured references."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ColorizeOptions", "Colorizer", "Labels", "Reference", "Shot", "load", "load_shot"]

if TYPE_CHECKING:
    from timecolor.colorize import ColorizeOptions, Colorizer
    from timecolor.shot import Labels, Reference, Shot
    from timecolor.shotfiles import load_shot

    load = Colorizer.load

# Looked up when first used, so that `import timecolor` costs nothing.
_HOMES = {
    "Colorizer": "colorize",
    "ColorizeOptions": "colorize",
    "Labels": "shot",
    "Reference": "shot",
    "Shot": "shot",
    "load_shot": "shotfiles",
}


def __getattr__(name: str) -> Any:
    if name == "load":
        return __getattr__("Colorizer").load
    if name not in _HOMES:
        raise AttributeError(f"module 'timecolor' has no attribute {name!r}")
    return getattr(import_module(f"timecolor.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
