"""Shape annotations: jaxtyping's where it is installed, the bare array type elsewhere.

Axes: b batch, t frames, f latent frames, c channels, h w space, n and m tokens, d width, r references.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt8
else:
    try:
        from jaxtyping import Bool, Float, Int, UInt8
    except ImportError:  # a training machine may have torch and numpy only

        class _Bare:
            """`Float[Tensor, "b n d"]` is `Tensor`."""

            def __class_getitem__(cls, item: tuple[type, str]) -> type:
                return item[0]

        Bool = Float = Int = UInt8 = _Bare

__all__ = ["Bool", "Float", "Int", "UInt8"]
