"""A whole frame laid onto a drawing as far as the matcher tells: a flow that leads each place to where it most likely is.

Not in the paper. Optical flow follows lines as far as they look alike nearby; what moved far or turned is known by its
description. Where a place leads is the mean of all places, weighed by how like they are and how near to where it led before, in
ever narrower surroundings (as point sets are brought together, Myronenko & Song 2010); places that no line parts lead alike.
"""

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from timecolor.matcher import STRIDE
from timecolor.shapes import Float, UInt8

MOST_PLACES = 3_000  # of a picture that are compared; every so manieth is taken
AT_ONCE = 512  # of a drawing, so that the likeness of all pairs is never kept
# How far from where it led a place is sought, standard deviations as shares of the picture's height; a place that is as well
# known as can be has at least `EXACT`.
AROUND, EXACT = (0.12, 0.06, 0.03), 0.02
LEAST = 1e-30  # weight that all places together have at least
# How much places beside one another lead alike, and how much less over a line of full darkness (a logarithm); how often they do.
ALIKE, PARTED, ROUNDS = 1_000.0, 4.0, 40


def likely_flow(
    queries: Sequence[Float[Tensor, "n d"]],
    keys: Sequence[Float[Tensor, "n d"]],
    scale: float,
    lines: UInt8[np.ndarray, "h w"],
) -> Float[np.ndarray, "h w 2"]:
    """For each pixel of a drawing, how far off (x, y), in pixels, the same part most likely lies in a frame of its size.

    queries, keys: descriptions of every `STRIDE`-th pixel of drawing and frame, row by row, one of each for each look at them.
    scale: of the cosine between two, see `Matcher`. lines: the drawing's, their darkness.
    """
    height, width = lines.shape
    rows, columns = -(-height // STRIDE), -(-width // STRIDE)
    step = math.ceil(math.sqrt(rows * columns / MOST_PLACES))

    def some(looks: Sequence[Tensor]) -> Tensor:
        normal = torch.cat([F.normalize(x.float(), dim=1) for x in looks], dim=1)
        return normal.unflatten(0, (rows, columns))[::step, ::step].flatten(0, 1)

    asks, shown = some(queries) * (scale / len(queries)), some(keys)
    down, along = (
        torch.arange(0, n, step, device=shown.device) * (STRIDE / height) + STRIDE / 2 / height for n in (rows, columns)
    )
    where = torch.stack(torch.meshgrid(along, down, indexing="xy"), dim=2)
    flow = np.zeros(where.shape, np.float32)
    for around in AROUND:
        leads = where + torch.from_numpy(flow).to(where)
        parts = list(_expected(asks, shown, leads.flatten(0, 1), down, along, around))
        at, spread = (torch.cat(x).unflatten(0, (len(down), len(along))) for x in zip(*parts, strict=True))
        known = 1 / (spread.clamp(min=0) + EXACT**2)
        flow = _alike((at - where).cpu().numpy(), known.cpu().numpy(), lines, step * STRIDE)
    return cv2.resize(flow * height, (width, height), interpolation=cv2.INTER_LINEAR)


def _expected(
    asks: Tensor, shown: Tensor, leads: Tensor, down: Tensor, along: Tensor, around: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Where each place most likely is, (n, 2), and the variance of that, (n,), a few at a time.

    The weight of nearness is a product of rows' and columns', so both moments are one product with each.
    """

    def near(led: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        weight = (-((led[:, None] - at) ** 2) / (2 * around**2)).exp()
        return weight, torch.stack([weight, weight * at, weight * at**2], dim=2)

    for ask, led in zip(asks.split(AT_ONCE), leads.split(AT_ONCE), strict=True):
        logits = ask @ shown.mT
        likely = (logits - logits.amax(dim=1, keepdim=True)).exp().unflatten(1, (len(down), len(along)))
        (_, of_columns), (by_row, of_rows) = near(led[:, 0], along), near(led[:, 1], down)
        sums = likely @ of_columns  # (n, rows, moments along)
        total, x, xx = (by_row[:, :, None] * sums).sum(dim=1).unbind(dim=1)
        y, yy = (of_rows[:, :, 1:] * sums[:, :, :1]).sum(dim=1).unbind(dim=1)
        # Where nothing near is at all like it, a place stays where it led, hardly known.
        total = total + LEAST
        (x, xx), (y, yy) = (
            ((first + LEAST * at) / total, (second + LEAST * (at**2 + around**2)) / total)
            for first, second, at in ((x, xx, led[:, 0]), (y, yy, led[:, 1]))
        )
        yield torch.stack([x, y], dim=1), xx - x**2 + yy - y**2


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
