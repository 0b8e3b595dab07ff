"""A procedural cartoon world: seeded shots with exact colours, line art, labels and references."""

from timecolor.world.ink import LINE_STYLES
from timecolor.world.scene import Rendered, World, WorldShot

HELD_OUT_SEED = 1_000_003  # validation, the demo and reported figures; training refuses it

__all__ = ["HELD_OUT_SEED", "LINE_STYLES", "Rendered", "World", "WorldShot"]
