"""References carried onto drawings by the matcher: for each place the colour that the places most like it have, and how likely.

Not in the TimeColor paper. The embedded model's colours give way to these.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from timecolor import propagation
from timecolor.alignment import Likeness
from timecolor.denoiser import Picture
from timecolor.finish.lab import alike, shades_of, to_lab
from timecolor.finish.votes import Vote
from timecolor.geometry import Clip
from timecolor.matcher import STRIDE, Described, Matcher
from timecolor.shapes import Bool, Float, Int, UInt8
from timecolor.sketch import lines_in

SHORT_SIDE = 240  # pixels of what the matcher looks at, at most
MOST_KEYS = 4096  # places of a group that are looked at
NEARLY_WHITE = 0.9  # the darkest channel of what is taken for paper
POOLED = 0.3  # how much what a closed region agrees on counts, against what each of its places says


def clip_of(shot: Clip) -> Clip:
    """The size at which the matcher looks at a shot and its references: at most the shot's own."""
    scale = min(1.0, SHORT_SIDE / min(shot.height, shot.width))
    return Clip(shot.frames, round(shot.height * scale), round(shot.width * scale))


def memory_bytes(shot: Clip) -> int:
    """Peak for one drawing: how like each of its places is to each that is looked at of the references, and a quarter on top."""
    fine = clip_of(shot)
    return -(-fine.height // STRIDE) * -(-fine.width // STRIDE) * MOST_KEYS * 5


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """A part of a drawing: mask (h, w), and the references that may colour it."""

    mask: Bool[np.ndarray, "h w"]
    references: tuple[int, ...]


class Recoloured(NamedTuple):
    """A drawing's colours in [0, 1] at every `STRIDE`-th pixel, or as they were, and what its areas say.

    behind: at every such pixel, whether it is more likely of what is behind than anything else.
    """

    colours: Float[np.ndarray, "y x 3"]
    votes: Sequence[Vote]
    behind: Bool[np.ndarray, "rows columns"]


class Followed(NamedTuple):
    """Which colours each place of a drawing may have, and how like its places are to each frame's."""

    vote: Vote
    likeness: Mapping[int, Likeness]


class Carrier:
    """Carries a shot's references onto its drawings. What a group of references looks like is worked out once.

    pictures: at the size of `clip_of`. shown: bool (h, w) each, where they may be taken from. behind: likewise, where they show
    the place; what is found there keeps the model's colours, which know where in the place it is. None = nowhere.
    paper: what is behind is bare paper, so the model knows nothing of it, and a closed region is a figure's or paper as a whole.
    """

    def __init__(
        self,
        matcher: Matcher,
        pictures: Sequence[Picture],
        shown: Sequence[Bool[np.ndarray, "h w"]],
        behind: Sequence[Bool[np.ndarray, "h w"]] | None = None,
        paper: bool = False,
    ) -> None:
        self._matcher, self._pictures, self._shown, self._paper = matcher, pictures, shown, paper
        self._behind = [np.zeros_like(known) for known in shown] if behind is None else behind
        self._groups: dict[tuple[int, ...], _Group | None] = {}
        self._lock = Lock()

    def recoloured(
        self,
        colours: Float[np.ndarray, "n m 3"],
        lines: UInt8[np.ndarray, "h w"],
        areas: Sequence[Area],
        regions: Int[np.ndarray, "h w"],
    ) -> Recoloured:
        """A model's colours of a drawing, in [0, 1], with those of the references in their place.

        lines: the drawing's, their darkness. areas: none over another. regions: closed ones, by number.
        """
        rows, columns = _at_places(regions).shape
        made = cv2.resize(colours.astype(np.float32), (columns, rows), interpolation=cv2.INTER_NEAREST)
        votes, behind = [], np.zeros((rows, columns), bool)
        for area in areas:
            group = self._group(area.references)
            at = _at_places(area.mask)
            if group is None or not at.any():
                continue
            own = lines if area.mask.all() else lines_in(lines, area.mask)
            shares = group.shares(self._matcher, group.described(self._matcher, own, area.mask))
            region = _at_places(regions)[at]
            pooled = _pooled(shares, region).cpu().numpy()
            if self._paper:
                pooled = figures_whole(pooled, region)
            vote = Vote(at, shares[:, :-1].cpu().numpy(), group.shades, group.alike)
            made[at] = vote.settled(pooled[:, :-1], made[at])
            behind[at] = pooled[:, -1] > 0.5
            votes.append(vote)
        if not votes:  # cells made finer are only worth it where something was found
            return Recoloured(colours, votes, behind)
        return Recoloured(on_paper(made, behind, _at_places(regions)) if self._paper else made, votes, behind)

    def followed(
        self, lines: UInt8[np.ndarray, "h w"], references: tuple[int, ...], frames: Collection[int] = ()
    ) -> "Followed | None":
        """What a drawing has of these references, each place of it by itself; None where nothing is seen of them.

        lines: the drawing's, their darkness. frames: those of them that show the whole frame and are compared with the drawing.
        """
        group = self._group(references)
        if group is None:
            return None
        everywhere = np.ones(lines.shape, bool)
        described = group.described(self._matcher, lines, everywhere)
        shares = group.shares(self._matcher, described)[:, :-1].cpu().numpy()
        scale = float(self._matcher.scale.detach().exp())
        shown = [r for r in group.members if r in frames]
        likeness = {r: Likeness(described, group.places(r, everywhere), scale, lines) for r in shown}
        return Followed(Vote(_at_places(everywhere), shares, group.shades, group.alike, mixed=False), likeness)

    def _group(self, references: tuple[int, ...]) -> "_Group | None":
        with self._lock:  # who comes second waits, and has it
            if references not in self._groups:
                usable = [r for r in references if _at_places(self._shown[r]).any()]
                group = None
                if any(_at_places(self._shown[r] & ~self._behind[r]).any() for r in usable):
                    seen = {r: (self._pictures[r], self._shown[r], self._behind[r]) for r in usable}
                    group = _Group.of(self._matcher, seen)
                self._groups[references] = group
            return self._groups[references]


@dataclass(frozen=True, slots=True)
class Look:
    """A way in which the matcher looks at drawing and references alike. scale: times their size."""

    mirrored: bool
    scale: float

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """A picture (h, w), uint8 or bool, as it is looked at."""
        if self.scale != 1:
            height, width = (self._looked_at(size) for size in picture.shape[:2])
            how = cv2.INTER_NEAREST if picture.dtype == bool else cv2.INTER_CUBIC
            picture = cv2.resize(picture.astype(np.uint8), (width, height), interpolation=how).astype(picture.dtype)
        return np.ascontiguousarray(picture[:, ::-1]) if self.mirrored else picture

    def back(self, places: Float[Tensor, "d y x"], area: Bool[np.ndarray, "h w"]) -> Float[Tensor, "n d"]:
        """Of places as they were looked at, those that lie on the places of an area of the picture as it is."""

        def middle(some: np.ndarray, size: int) -> np.ndarray:
            return (some + 0.5) * STRIDE * self._looked_at(size) / size

        (height, width), (y, x) = area.shape, np.nonzero(_at_places(area))
        down, along = middle(y, height), middle(x, width)
        if self.mirrored:
            along = self._looked_at(width) - along
        row, column = (
            (at / STRIDE).clip(0, now - 1).astype(np.int64) for at, now in zip((down, along), places.shape[1:], strict=True)
        )
        return places[:, torch.from_numpy(row), torch.from_numpy(column)].T

    def _looked_at(self, size: int) -> int:
        return round(size * self.scale)


# What it says in each has errors of its own, so the mean of both errs less.
LOOKS = (Look(mirrored=False, scale=1.0), Look(mirrored=True, scale=1.5))


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """References that are looked at together.

    members: which they are. looks: for each of `LOOKS` the references as the matcher sees them, and their described places,
    (k, d). shade: (k, m + 1), 1 where a place has one of the group's shades, the last for what is behind. shades: (m, 3), in
    [0, 1]. alike: (m, m), how much a shade counts as another.
    """

    members: tuple[int, ...]
    looks: Sequence[tuple[Sequence[Described], Tensor]]
    shade: Tensor
    shades: Float[np.ndarray, "m 3"]
    alike: Float[np.ndarray, "m m"]

    @staticmethod
    def of(matcher: Matcher, references: Mapping[int, tuple[Picture, np.ndarray, np.ndarray]]) -> "_Group":
        """references: pictures, where they may be taken from, and where they show what is behind."""
        seen = list(references.values())
        sides = [(i, known & (behind == side), side) for i, (_, known, behind) in enumerate(seen) for side in (False, True)]
        parts = [(i, part, side) for i, part, side in sides if _at_places(part).any()]
        places = [_at_places(part) for _, part, _ in parts]
        dense = min(1.0, MOST_KEYS / sum(int(at.sum()) for at in places))
        # Of each part as many as of any other of its size, so that their order does not matter, and one at least.
        some = [np.linspace(0, at.sum() - 1, max(1, round(dense * at.sum()))).round().astype(np.int64) for at in places]
        looks = []
        for look in LOOKS:
            described = [_described(matcher, look(picture.lines), look(known)) for picture, known, _ in seen]
            keys = [look.back(described[i].places, part)[of_it] for (i, part, _), of_it in zip(parts, some, strict=True)]
            looks.append((described, torch.cat(keys)))
        every = [_at_places(seen[i][0].fills)[at][of_it] for (i, _, _), at, of_it in zip(parts, places, some, strict=True)]
        back = np.concatenate([np.full(len(of_it), side) for (_, _, side), of_it in zip(parts, some, strict=True)])
        colours = np.concatenate(every)
        shade = np.full(len(colours), -1)
        shade[~back], shades = shades_of(colours[~back])
        of_place = F.one_hot(torch.from_numpy(np.where(back, len(shades), shade)), len(shades) + 1).float()
        lab = to_lab(shades)
        return _Group(tuple(references), looks, of_place.to(looks[0][1].device), shades, alike(lab, lab))

    def described(
        self, matcher: Matcher, lines: UInt8[np.ndarray, "h w"], area: Bool[np.ndarray, "h w"]
    ) -> list[Float[Tensor, "n d"]]:
        """The places in an area of a drawing as each look finds them beside the references. lines: the area's."""
        return [
            look.back(_described(matcher, look(lines), look(area), seen).places, area)
            for look, (seen, _) in zip(LOOKS, self.looks, strict=True)
        ]

    def places(self, reference: int, area: Bool[np.ndarray, "h w"]) -> list[Float[Tensor, "n d"]]:
        """The same of a reference."""
        i = self.members.index(reference)
        return [look.back(seen[i].places, area) for look, (seen, _) in zip(LOOKS, self.looks, strict=True)]

    def shares(self, matcher: Matcher, described: Sequence[Float[Tensor, "n d"]]) -> Float[Tensor, "n k"]:
        """How likely places of a drawing have each shade, and are behind, which comes last.

        What looks say on average; what is missing to 1 is in no reference.
        """
        with torch.inference_mode():
            found = [matcher.told(own, keys, self.shade) for own, (_, keys) in zip(described, self.looks, strict=True)]
            return torch.stack(found).mean(dim=0)


def with_plate(
    colours: Float[np.ndarray, "n m 3"],
    plate: UInt8[np.ndarray, "h w 3"],
    flow: Float[np.ndarray, "y x 2"] | None,
    at: Bool[np.ndarray, "h w"],
) -> Float[np.ndarray, "rows columns 3"]:
    """A drawing's colours in [0, 1], at every `STRIDE`-th pixel or finer, with a plate's in its place.

    flow: how the camera sees the plate, at any size; None = as it stands. at: where it is seen.
    """
    rows, columns = (max(a, b) for a, b in zip(colours.shape, _at_places(at).shape, strict=False))
    made = cv2.resize(colours.astype(np.float32), (columns, rows), interpolation=cv2.INTER_NEAREST)
    if flow is not None:
        plate = propagation.warp(plate, propagation.resized(flow, *at.shape))
    shown = cv2.resize(plate, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    mine = cv2.resize(at.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST) > 0
    return np.where(mine[..., None], shown, made)


def _pooled(shares: Float[Tensor, "n m"], region: Int[np.ndarray, " n"]) -> Float[Tensor, "n m"]:
    """Shares moved towards their region's mean."""
    numbers, own = np.unique(region, return_inverse=True)
    of = torch.from_numpy(own).to(shares.device)
    ones = torch.ones(len(shares), 1, device=shares.device)
    sums = torch.zeros(len(numbers), shares.shape[1] + 1, device=shares.device).index_add_(
        0, of, torch.cat([shares, ones], dim=1)
    )
    return shares.lerp((sums[:, :-1] / sums[:, -1:])[of], POOLED)


def figures_whole(shares: Float[np.ndarray, "n m"], region: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n m"]:
    """Shares, of what is behind last, which goes to the figure where a region is a figure's sooner than behind."""
    figures = shares[:, :-1].sum(axis=1)
    of_figure = np.bincount(region, figures) > np.bincount(region, shares[:, -1])
    whole = np.pad(shares[:, :-1] * (1 + shares[:, -1] / figures.clip(1e-9))[:, None], ((0, 0), (0, 1)))
    return np.where(of_figure[region][:, None], whole, shares)


def on_paper(
    colours: Float[np.ndarray, "y x 3"], behind: Bool[np.ndarray, "y x"], region: Int[np.ndarray, "y x"]
) -> Float[np.ndarray, "y x 3"]:
    """Colours in [0, 1] with white paper behind, in regions whose places behind are nearly white for the most part."""
    white = (colours.min(axis=2) > NEARLY_WHITE) & behind
    most = np.bincount(region[white], minlength=region.max() + 1) * 2 > np.bincount(region[behind], minlength=region.max() + 1)
    return np.where((behind & most[region])[..., None], np.float32(1), colours)


def _described(
    matcher: Matcher, lines: UInt8[np.ndarray, "h w"], area: Bool[np.ndarray, "h w"], references: Sequence[Described] = ()
) -> Described:
    first = next(matcher.parameters())
    seen = torch.from_numpy(np.stack([lines.astype(np.float32) / 255, area.astype(np.float32)]))
    with torch.inference_mode():
        found = matcher.of_area(seen.to(first.device, first.dtype), references)
    return found._replace(places=found.places.float())


def _at_places(picture: np.ndarray) -> np.ndarray:
    """A picture (h, w, ...) at the places that the matcher describes."""
    h, w = picture.shape[:2]
    y, x = (np.minimum(np.arange(-(-n // STRIDE)) * STRIDE + STRIDE // 2, n - 1) for n in (h, w))
    return picture[y[:, None], x]
