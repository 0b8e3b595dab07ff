"""Sizes of clips, latents and tokens, and the conversions between them.

The only home of strides, patches and "4k+1". Axes throughout the project: b batch, t frames, f latent frames, c channels,
h w space, n tokens, d width, r references.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clip:
    """A size in pixel space."""

    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        _positive("clip", self.frames, self.height, self.width)


@dataclass(frozen=True, slots=True)
class Grid:
    """A size in tokens: latent frames, rows, columns."""

    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        _positive("grid", self.frames, self.height, self.width)

    @property
    def per_frame(self) -> int:
        """Tokens of one latent frame."""
        return self.height * self.width

    @property
    def tokens(self) -> int:
        """Tokens of all latent frames."""
        return self.frames * self.per_frame


@dataclass(frozen=True, slots=True)
class Compression:
    """Pixels per token: the codec's stride in time and space, times the transformer's patch.

    The default is CogVideoX's. `time=1` is a codec that encodes every frame alone.
    """

    time: int = 4
    space: int = 8
    patch: int = 2

    def __post_init__(self) -> None:
        _positive("compression", self.time, self.space, self.patch)

    @property
    def cell(self) -> int:
        """Pixels along one side of a token."""
        return self.space * self.patch

    def latent_frames(self, frames: int) -> int:
        """f = 1 + (t - 1) / time; raises ValueError naming the nearest lengths that fit."""
        # A causal codec encodes the first frame alone, then `time` frames at a step.
        steps, rest = divmod(frames - 1, self.time)
        if rest:
            fits = frames - rest
            raise ValueError(f"clip has {frames} frames; use {fits} or {fits + self.time} ({self.time}k+1)")
        return 1 + steps

    def grid(self, clip: Clip) -> Grid:
        """Token grid of a clip; raises ValueError naming the nearest sizes that fit."""
        frames = self.latent_frames(clip.frames)
        for name, pixels in (("height", clip.height), ("width", clip.width)):
            if pixels % self.cell:
                low = pixels // self.cell * self.cell
                near = f"{low} or {low + self.cell}" if low else f"{self.cell}"
                raise ValueError(f"clip has {name} {pixels}; use {near} (a multiple of {self.cell})")
        return Grid(frames, clip.height // self.cell, clip.width // self.cell)

    def clip(self, grid: Grid) -> Clip:
        """The clip that fills a token grid (inverse of `grid`)."""
        return Clip((grid.frames - 1) * self.time + 1, grid.height * self.cell, grid.width * self.cell)

    def padded_frames(self, frames: int) -> int:
        """The shortest legal length that holds `frames` frames."""
        return -(-(frames - 1) // self.time) * self.time + 1

    def nearest(self, clip: Clip, short_side: int) -> Clip:
        """The legal clip of about `short_side` pixels on its short side whose aspect ratio is nearest to `clip`'s.

        Raises ValueError where `short_side` is below one token.
        """
        if short_side < self.cell:
            raise ValueError(f"working size is {short_side}; use at least {self.cell}")
        scale = short_side / min(clip.height, clip.width)
        cells = (max(1, round(side * scale / self.cell)) for side in (clip.height, clip.width))
        height, width = (c * self.cell for c in cells)
        return Clip(self.padded_frames(clip.frames), height, width)


def _positive(what: str, *sizes: int) -> None:
    if min(sizes) < 1:
        raise ValueError(f"{what} is {'x'.join(map(str, sizes))}; every side must be at least 1")
