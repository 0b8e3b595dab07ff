"""A procedural cartoon world: seeded shots with exact colours, line art, labels and references."""

from timecolor.world.ink import LINE_STYLES
from timecolor.world.scene import Rendered, World, WorldShot

__all__ = ["LINE_STYLES", "Rendered", "World", "WorldShot"]
