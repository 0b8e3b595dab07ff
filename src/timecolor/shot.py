"""What a user hands in: sketch frames, coloured references, and labels that say which reference is for which area.

Plain arrays; `shotfiles` reads these from folders and job files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Literal, Protocol, runtime_checkable

import cv2
import numpy as np

Role = Literal["background", "character", "frame", "sheet"]


@runtime_checkable
class Frames(Protocol):
    """A clip that can be read in slices, so that a long one need not lie in memory. A numpy array is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(frames, height, width, 3), or (frames, height, width) for labels."""
        ...

    def __getitem__(self, frames: slice, /) -> np.ndarray:
        """Frames `start:stop` as one array."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """One coloured image. Its alpha is kept: a cut-out is composited on black, as the published system does.

    image: uint8 (h, w, 3). alpha: uint8 (h, w), None = opaque. role: only a hint for reading folders.
    """

    image: np.ndarray
    alpha: np.ndarray | None = None
    role: Role | None = None
    name: str = "reference"

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8 or self.image.size == 0:
            raise ValueError(f"{self.name}: got {self.image.dtype} {self.image.shape}; give uint8 (h, w, 3)")
        if self.alpha is None:
            return
        if self.alpha.dtype != np.uint8:
            raise ValueError(f"{self.name}: alpha is {self.alpha.dtype}; give uint8 (h, w)")
        if self.alpha.shape != self.image.shape[:2]:
            (ah, aw), (ih, iw) = self.alpha.shape[:2], self.image.shape[:2]
            raise ValueError(f"{self.name}: alpha is {aw}x{ah} but the image is {iw}x{ih}; save them at one size")
        if not self.alpha.any():
            raise ValueError(f"{self.name}: alpha is 0 everywhere, so there is no colour to take; give a visible image")

    def shows_frame(self, height: int, width: int) -> bool:
        """Whether this is a picture of a whole frame of that size, as it was or as it is behind the characters.

        It is opaque and of the frame's shape. Where no role says so, its rim must not be black: that is a cut-out.
        """
        h, w = self.image.shape[:2]
        if self.role in ("character", "sheet") or self.alpha is not None or abs(w * height / (h * width) - 1) > 0.03:
            return False
        rim = np.concatenate([self.image[0], self.image[-1], self.image[:, 0], self.image[:, -1]])
        return self.role is not None or bool(rim.any(axis=1).mean() > 0.5)

    def cut_out(self, height: int, width: int) -> "Reference":
        """What stands on black or white beside a frame of that size, with that ground as its alpha; any other as it is."""
        if self.alpha is not None or self.role in ("frame", "background") or self.shows_frame(height, width):
            return self
        for ground in (0, 255):
            stands = (cv2.absdiff(self.image, np.full_like(self.image, ground)).max(axis=2) > 8).astype(np.uint8)
            rim = np.concatenate([stands[0], stands[-1], stands[:, 0], stands[:, -1]])
            if rim.mean() <= 0.5 and stands.any():
                # The same colour inside it is paint: only what is joined to the rim is ground.
                around = cv2.copyMakeBorder(1 - stands, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
                _, parts = cv2.connectedComponents(around, connectivity=4)
                return replace(self, alpha=np.where(parts[1:-1, 1:-1] == parts[0, 0], np.uint8(0), np.uint8(255)))
        return self

    @property
    def on_black(self) -> np.ndarray:
        """The image composited on black, uint8 (h, w, 3)."""
        return self.over(0)

    def over(self, grey: int) -> np.ndarray:
        """The image composited on a grey level, uint8 (h, w, 3)."""
        if self.alpha is None:
            return self.image
        share = self.alpha[..., None].astype(np.float32) / 255
        return (self.image * share + grey * (1 - share) + 0.5).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Which area of the shot is coloured from which references.

    video: integers (t, h, w), 0 = background. references: label -> indices of the references that may colour it;
    two sheets of one character share one label. A label without an entry takes the reference of its own number, as published.
    """

    video: Frames
    references: Mapping[int, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def references_of(self, label: int) -> tuple[int, ...]:
        """Indices of the references that may colour `label`."""
        return tuple(self.references.get(label, (label,)))


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """A sketch clip with its references.

    sketch: uint8 (t, h, w, 3). labels: None = every area may take colour from every reference. frame_rate: frames per second.
    """

    sketch: Frames
    references: Sequence[Reference] = ()
    labels: Labels | None = None
    frame_rate: Fraction = Fraction(24)
    name: str = "shot"

    def __post_init__(self) -> None:
        shape = tuple(self.sketch.shape)
        if len(shape) != 4 or shape[3] != 3:
            raise ValueError(f"{self.name}: sketch is {shape}; give (frames, height, width, 3)")
        if 0 in shape:
            raise ValueError(f"{self.name}: sketch is {shape}; it needs at least one frame with at least one pixel")
        # Frames from files say no type: they are always right.
        kind = getattr(self.sketch, "dtype", None)
        if kind is not None and kind != np.uint8:
            raise ValueError(f"{self.name}: sketch is {kind}; give uint8, 0 to 255")
        kind = None if self.labels is None else getattr(self.labels.video, "dtype", None)
        if kind is not None and kind.kind not in "iub":
            raise ValueError(f"{self.name}: labels are {kind}; give integers")
        if self.labels is not None and tuple(self.labels.video.shape) != shape[:3]:
            raise ValueError(
                f"{self.name}: labels are {tuple(self.labels.video.shape)} but the sketch is {shape[:3]} "
                "(frames, height, width); save them with the same frames at the same size"
            )
        for label, indices in () if self.labels is None else self.labels.references.items():
            missing = [r for r in indices if not 0 <= r < len(self.references)]
            if missing:
                count = len(self.references)
                raise ValueError(f"{self.name}: label {label} names reference {missing[0]} but there are {count}, counted from 0")
