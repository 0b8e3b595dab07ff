"""References carried onto drawings by the matcher: for each place the colour that the places most like it have, and how likely.

Not in the TimeColor paper. The embedded model's colours give way to these.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from timecolor.analogy import view
from timecolor.denoiser import Picture
from timecolor.finish import apart, to_lab
from timecolor.matcher import STRIDE, Matcher
from timecolor.shapes import Bool, Float, Int, UInt8

NEAR = 10.0  # CIE Lab distance over which colours count as one another's
SHADES = 64  # colours that a group of references is told apart by
MOST_KEYS = 4096  # places of a group that are looked at
QUERIES = 1024  # places of a drawing compared at once
POOLED = 0.5  # how much what a closed region agrees on counts, against what each of its places says
# From what part of the references' share on one colour is taken alone, below which it is mixed with the others; and how softly.
SURE, SOFT = 0.25, 0.08


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """A part of a drawing: mask (h, w), and the references that may colour it."""

    mask: Bool[np.ndarray, "h w"]
    references: tuple[int, ...]


class Carrier:
    """Carries a shot's references onto its drawings. What a group of references looks like is worked out once.

    pictures: at the working size. shown: bool (h, w) each, where they may be taken from.
    """

    def __init__(self, matcher: Matcher, pictures: Sequence[Picture], shown: Sequence[Bool[np.ndarray, "h w"]]) -> None:
        self._matcher, self._pictures, self._shown = matcher, pictures, shown
        self._groups: dict[tuple[int, ...], _Group | None] = {}

    def recoloured(
        self,
        colours: Float[np.ndarray, "n m 3"],
        lines: UInt8[np.ndarray, "h w"],
        areas: Sequence[Area],
        regions: Int[np.ndarray, "h w"],
    ) -> Float[np.ndarray, "y x 3"]:
        """A model's colours of a drawing, in [0, 1], with those of the references in their place, at every `STRIDE`-th pixel.

        lines: the drawing's, their darkness. areas: none over another. regions: closed ones, by number.
        """
        rows, columns = _at_places(regions).shape
        made = cv2.resize(colours.astype(np.float32), (columns, rows), interpolation=cv2.INTER_NEAREST)
        for area in areas:
            group = self._group(area.references)
            at = _at_places(area.mask)
            if group is None or not at.any():
                continue
            own = lines if area.mask.all() else view(lines, area.mask)
            shares = group.shares(self._matcher, _described(self._matcher, own, area.mask)[:, at].T)
            shares = _pooled(shares, _at_places(regions)[at])
            made[at] = group.settled(shares, torch.from_numpy(made[at]).to(shares.device)).cpu().numpy()
        return made

    def _group(self, references: tuple[int, ...]) -> "_Group | None":
        if references not in self._groups:
            usable = [r for r in references if _at_places(self._shown[r]).any()]
            group = None
            if usable:
                group = _Group.of(self._matcher, [self._pictures[r] for r in usable], [self._shown[r] for r in usable])
            self._groups[references] = group
        return self._groups[references]


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """References that are looked at together.

    keys: (k, d), described places. shade: (k, m), which of the group's shades each has, summing to 1 in all. shades: (m, 3), in
    [0, 1]. alike: (m, m), how much a shade counts as another.
    """

    keys: Tensor
    shade: Tensor
    shades: Tensor
    alike: Tensor

    @staticmethod
    def of(matcher: Matcher, pictures: Sequence[Picture], shown: Sequence[np.ndarray]) -> "_Group":
        keys, colours = [], []
        for picture, known in zip(pictures, shown, strict=True):
            at = _at_places(known)
            keys.append(_described(matcher, picture.lines, known)[:, at].T)
            colours.append(_at_places(picture.fills)[at])
        described, every = torch.cat(keys), np.concatenate(colours)
        if len(every) > MOST_KEYS:
            some = np.linspace(0, len(every) - 1, MOST_KEYS).round().astype(np.int64)
            described, every = described[some], every[some]
        shade, means = _shades(every)
        shades = torch.from_numpy(means).to(described.device)
        share = F.one_hot(torch.from_numpy(shade), len(shades)).float() / len(every)
        return _Group(described, share.to(described.device), shades, _alike(shades, shades))

    def shares(self, matcher: Matcher, queries: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """How likely each place has each shade; what is missing to 1 is in none of the references."""
        found = []
        with torch.inference_mode():
            for part in queries.split(QUERIES):
                fits, nothing = matcher.likeness(part[None], self.keys[None])
                by_shade = fits[0] @ self.shade
                found.append(by_shade / (by_shade.sum(1, keepdim=True) + nothing[0, :, None]))
        return torch.cat(found)

    def settled(self, shares: Float[Tensor, "n m"], own: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """The colour that most of the shares are near to, or their mean where few are; for what is in no reference, one's own."""
        total = shares.sum(1, keepdim=True).clamp(min=1e-12)
        most, best = (shares @ self.alike).max(1, keepdim=True)
        near = self.alike[best[:, 0]] * shares
        likeliest = near @ self.shades / near.sum(1, keepdim=True).clamp(min=1e-12)
        mixed = torch.lerp(shares @ self.shades / total, likeliest, torch.sigmoid((most / total - SURE) / SOFT))
        return own.lerp(mixed, total.clamp(max=1))


def _pooled(shares: Float[Tensor, "n m"], region: Int[np.ndarray, " n"]) -> Float[Tensor, "n m"]:
    """Shares moved towards their region's mean."""
    numbers, own = np.unique(region, return_inverse=True)
    of = torch.from_numpy(own).to(shares.device)
    ones = torch.ones(len(shares), 1, device=shares.device)
    sums = torch.zeros(len(numbers), shares.shape[1] + 1, device=shares.device).index_add_(
        0, of, torch.cat([shares, ones], dim=1)
    )
    return shares.lerp((sums[:, :-1] / sums[:, -1:])[of], POOLED)


def _described(matcher: Matcher, lines: UInt8[np.ndarray, "h w"], area: Bool[np.ndarray, "h w"]) -> Float[Tensor, "d y x"]:
    first = next(matcher.parameters())
    seen = torch.from_numpy(np.stack([lines.astype(np.float32) / 255, area.astype(np.float32)]))[None]
    with torch.inference_mode():
        return matcher(seen.to(first.device, first.dtype))[0].float()


def _at_places(picture: np.ndarray) -> np.ndarray:
    """A picture (h, w, ...) at the places that the matcher describes."""
    h, w = picture.shape[:2]
    y, x = (np.minimum(np.arange(-(-n // STRIDE)) * STRIDE + STRIDE // 2, n - 1) for n in (h, w))
    return picture[y[:, None], x]


def _alike(colours: Float[Tensor, "n 3"], others: Float[Tensor, "m 3"]) -> Float[Tensor, "n m"]:
    """How much colours in [0, 1] count as one another."""
    a, b = (to_lab(x.cpu().numpy()) for x in (colours, others))
    away = ((a[:, None] - b[None]) ** 2).sum(axis=2)
    return torch.from_numpy(np.exp(-away / (2 * NEAR**2)).astype(np.float32)).to(colours.device)


def _shades(colours: UInt8[np.ndarray, "n 3"]) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "m 3"]]:
    """Which of at most `SHADES` shades each colour has; their means in [0, 1]. The commonest that are apart, with those near."""
    coarse = (colours >> 3).astype(np.int64) @ np.array([1 << 10, 1 << 5, 1])
    _, cell, counts = np.unique(coarse, return_inverse=True, return_counts=True)

    def means(group: np.ndarray, number: np.ndarray) -> np.ndarray:
        sums = [np.bincount(group, colours[:, channel], len(number)) for channel in range(3)]
        return (np.stack(sums, axis=1) / number[:, None] / 255).astype(np.float32)

    lab = to_lab(means(cell, counts))
    ranked = np.argsort(-counts, kind="stable")
    chosen = ranked[apart(lab[ranked], NEAR / 3)[:SHADES]]
    nearest = np.linalg.norm(lab[:, None] - lab[chosen][None], axis=2).argmin(axis=1)[cell]
    return nearest, means(nearest, np.bincount(nearest, minlength=len(chosen)))
