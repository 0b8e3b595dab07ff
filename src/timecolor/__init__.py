"""Colour a line-art animation shot from any number of coloured references."""

__version__ = "0.1.0"
