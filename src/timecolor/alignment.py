"""A whole frame laid onto a drawing as far as the matcher tells: where each place likely is, and how like what is there is.

Not in the paper. Optical flow follows lines as far as they look alike nearby; what moved far or turned is known by its
description. Where a place leads is the mean of all places, weighed by how like they are and how near to where it led before, in
ever narrower surroundings (as point sets are brought together, Myronenko & Song 2010); places that no line parts lead alike.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from timecolor.matcher import STRIDE
from timecolor.propagation import resized
from timecolor.shapes import Float, UInt8

MOST_PLACES = 3_000  # of a picture that are compared with all others; every so manieth is taken
# How far from where it led a place is sought, standard deviations as shares of the picture's height; a place that is as well
# known as can be has at least `EXACT`.
AROUND, EXACT = (0.12, 0.06, 0.03), 0.02
LEAST = 1e-30  # weight that all places together have at least
# How much places beside one another lead alike, and how much less over a line of full darkness (a logarithm); how often they do.
ALIKE, PARTED, ROUNDS = 1_000.0, 4.0, 40
UNLIKE, UNLIKELY = 12.0, 1e-4  # where the signs of `Likeness.along` end: a logarithm, and a likelihood


class Likeness:
    """How like the places of a drawing and of a frame of its size are.

    queries, keys: descriptions of every `STRIDE`-th pixel of drawing and frame, row by row, one of each for each look at them.
    scale: of the cosine between two, see `Matcher`. lines: the drawing's, their darkness.
    """

    def __init__(
        self,
        queries: Sequence[Float[Tensor, "n d"]],
        keys: Sequence[Float[Tensor, "n d"]],
        scale: float,
        lines: UInt8[np.ndarray, "h w"],
    ) -> None:
        self._lines = lines
        self._rows, self._columns = (-(-size // STRIDE) for size in lines.shape)
        self._step = math.ceil(math.sqrt(self._rows * self._columns / MOST_PLACES))
        asks, self._shown = (torch.cat([F.normalize(x.float(), dim=1) for x in looks], dim=1) for looks in (queries, keys))
        self._asks = asks * (scale / len(queries))

        def some(places: Tensor) -> Tensor:
            return places.unflatten(0, (self._rows, self._columns))[:: self._step, :: self._step]

        few = some(self._asks)
        self._few = few.shape[:2]
        fits = few.flatten(0, 1) @ some(self._shown).flatten(0, 1).mT
        self._most, self._most_back = fits.amax(dim=1), fits.amax(dim=0)
        self._likely, self._likely_back = (
            F.pad((likely / likely.sum(dim=side, keepdim=True)).unflatten(1, self._few), (1, 1, 1, 1))  # nothing around
            for side, likely in ((1, (fits - self._most[:, None]).exp()), (0, (fits - self._most_back).exp()))
        )

    def flow(self) -> Float[np.ndarray, "h w 2"]:
        """For each pixel of the drawing, how far off (x, y), in pixels, the same part most likely lies in the frame."""
        height, width = self._lines.shape
        down, along = (
            torch.arange(0, n, self._step, device=self._shown.device) * (STRIDE / height) + STRIDE / 2 / height
            for n in (self._rows, self._columns)
        )
        where = torch.stack(torch.meshgrid(along, down, indexing="xy"), dim=2)
        flow, likely = np.zeros(where.shape, np.float32), self._likely[:, 1:-1, 1:-1]
        for around in AROUND:
            leads = where + torch.from_numpy(flow).to(where)
            found = _expected(likely, leads.flatten(0, 1), down, along, around)
            at, spread = (x.unflatten(0, self._few) for x in found)
            known = 1 / (spread.clamp(min=0) + EXACT**2)
            flow = _alike((at - where).cpu().numpy(), known.cpu().numpy(), self._lines, self._step * STRIDE)
        return cv2.resize(flow * height, (width, height), interpolation=cv2.INTER_LINEAR)

    def along(self, flow: Float[np.ndarray, "h w 2"] | None = None) -> Float[np.ndarray, "y x 4"]:
        """For each place of the drawing, how far what lies along a flow, at any size, is the same; None = as the frame stands.

        The signs, at most about 0, which is the most: how like it is beside what of the frame is most like the place; and beside
        what of the drawing is most like what is there; how likely the place is thereabouts; and what is there hereabouts.
        """
        rows, columns, step = self._rows, self._columns, self._step
        y, x = np.mgrid[:rows, :columns].astype(np.float32)
        if flow is not None:
            moved = resized(flow, rows, columns)
            x, y = x + moved[..., 0], y + moved[..., 1]
        y, x = (torch.from_numpy(np.rint(at).clip(0, n - 1).astype(np.int64)) for at, n in ((y, rows), (x, columns)))
        y, x = y.to(self._shown.device), x.to(self._shown.device)
        fits = (self._asks * self._shown[(y * columns + x).flatten()]).sum(dim=1).unflatten(0, (rows, columns))
        y, x = (torch.minimum(at // step, at.new_tensor(n - 1)) for at, n in zip((y, x), self._few, strict=True))
        like = fits - self._fine(self._most)
        like_back = fits - self._most_back[y * self._few[1] + x]
        each, y, x = torch.arange(self._few.numel(), device=y.device), *(at[::step, ::step].flatten() for at in (y, x))
        beside = [(i, j) for i in range(3) for j in range(3)]
        likely = [
            self._fine((torch.stack([shares[each, y + i, x + j] for i, j in beside]).sum(dim=0) + UNLIKELY).log())
            for shares in (self._likely, self._likely_back)
        ]
        signs = [*(x.clamp(-UNLIKE, 0) / 6 for x in (like, like_back)), *(x / 4 for x in likely)]
        return torch.stack(signs, dim=2).cpu().numpy()

    def _fine(self, values: Float[Tensor, " n"]) -> Float[Tensor, "rows columns"]:
        """What is known of some places, for all."""
        planes = values.unflatten(0, self._few)[None, None]
        return F.interpolate(planes, size=(self._rows, self._columns), mode="bilinear")[0, 0]


def _expected(
    likely: Tensor, leads: Tensor, down: Tensor, along: Tensor, around: float
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
    """Where each place most likely is, and the variance of that.

    The weight of nearness is a product of rows' and columns', so both moments are one product with each.
    """

    def near(led: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        weight = (-((led[:, None] - at) ** 2) / (2 * around**2)).exp()
        return weight, torch.stack([weight, weight * at, weight * at**2], dim=2)

    (_, of_columns), (by_row, of_rows) = near(leads[:, 0], along), near(leads[:, 1], down)
    sums = likely @ of_columns  # (n, rows, moments along)
    total, x, xx = (by_row[:, :, None] * sums).sum(dim=1).unbind(dim=1)
    y, yy = (of_rows[:, :, 1:] * sums[:, :, :1]).sum(dim=1).unbind(dim=1)
    # Where nothing near is at all like it, a place stays where it led, hardly known.
    total = total + LEAST
    (x, xx), (y, yy) = (
        ((first + LEAST * at) / total, (second + LEAST * (at**2 + around**2)) / total)
        for first, second, at in ((x, xx, leads[:, 0]), (y, yy, leads[:, 1]))
    )
    return torch.stack([x, y], dim=1), xx - x**2 + yy - y**2


def _alike(
    flow: Float[np.ndarray, "y x 2"], known: Float[np.ndarray, "y x"], lines: UInt8[np.ndarray, "h w"], cell: int
) -> Float[np.ndarray, "y x 2"]:
    """A flow in cells, each drawn to those beside it, more where it is less well known and no line is between."""
    h, w = lines.shape
    ink = lines.astype(np.float32) / 255
    y, x = (np.minimum(np.arange(n) * cell + STRIDE // 2, size - 1) for n, size in zip(known.shape, (h, w), strict=True))

    def parted(across: np.ndarray, at: np.ndarray) -> np.ndarray:
        between = [across[:, np.minimum(at[:-1] + i, across.shape[1] - 1)] for i in range(cell + 1)]
        return ALIKE * np.exp(-PARTED * np.max(between, axis=0))[..., None]

    beside, below = parted(ink[y], x), parted(ink[:, x].T, y).swapaxes(0, 1)
    own = known[..., None]
    weight = own.copy()
    for links, (one, other) in ((beside, _BESIDE), (below, _BELOW)):
        weight[one] += links
        weight[other] += links
    made = flow
    for _ in range(ROUNDS):
        pulled = own * flow
        for links, (one, other) in ((beside, _BESIDE), (below, _BELOW)):
            pulled[one] += links * made[other]
            pulled[other] += links * made[one]
        made = pulled / weight
    return made


_BESIDE = np.s_[:, :-1], np.s_[:, 1:]
_BELOW = np.s_[:-1], np.s_[1:]
