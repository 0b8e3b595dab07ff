"""Which picture each cell of a drawing is taken from, where whole frames colour it: the model's, the matcher's, a frame carried.

Not in the paper. The model sees the same frames as hints and mixes what it doubts; a cell takes one of them or keeps its own.
Beside colours and lines, what tells is whether a closed region of the frame, carried, is a region of the drawing: what a figure
left behind is a small part of one. What each sign is worth is learned on the drawn world (`train.judging`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt

import cv2
import numpy as np
import torch

from timecolor.choice import CellOffers
from timecolor.finish.ink import regions_in
from timecolor.finish.lab import ALIKE, alike, to_lab
from timecolor.finish.votes import Vote
from timecolor.propagation import INK, Way, darkness, fetched, ink, warp, ways
from timecolor.shapes import Float, Int, UInt8

# Where an offer is from. Frames: as one stands, along each of its flows, the matcher's last, as the camera sees it; and what is
# behind figures that have left.
OWN, VOTED, FRAME, BEHIND = 0, 1, 2, 8
SOURCES = 9
# How like the places of a drawing are to what a frame shows there (`Likeness.along`): of its cell, near it, in its region, and
# beside the frame of which they are most like.
LIKE = ("like", "like_back", "likely", "likely_back")
LIKE_NAMES = tuple(f"{less}{name}{of}" for less, of in (("", ""), ("", "_near"), ("", "_region"), ("less_", "")) for name in LIKE)
# What is known of each offer, in the order of the network's inputs; then, one for each source, whether it is from there.
NAMES = (
    *("ink", "ink_near", "ink_far", "region", "edge", "voted", "known", "likeliest"),  # of its cell
    *("from_own", "from_voted", "agreeing", "lightness", "chroma"),  # of its colour
    *(
        "votes",
        "votes_near",
        "own_votes",
        "own_votes_near",
        "most_votes",
    ),  # of it, its own colour, the best frame
    *("votes_region", "less_votes_region"),  # of it in the whole region, also where the cell knows nothing
    *("apart", "apart_near", "apart_far", "apart_all", "least_apart", "more_apart"),  # a frame from the model's colours
    *("misfit", "misfit_far", "misfit_all", "least_misfit", "more_misfit", "least_misfit_far", "more_misfit_far"),
    *("apart_region", "misfit_region", "more_misfit_region"),  # of a frame in the whole of the drawing's region
    *("paired", "texture", "fills", "filled", "same", "less_same", "most_same", "edge_there"),  # of a frame
    *LIKE_NAMES,  # of the matcher's descriptions of the place and of what a frame shows there
    *("typical", "typical_near", "own_typical", "less_typical"),  # how much of the drawing's region has such a colour
)
FEATURES = len(NAMES) + SOURCES
# CIE Lab distance within which offers are of one mind, and where distances end; where misfits end; levels that a frame's
# distance ends at and is divided by; the least of votes that counts; what "beside", "near" and "far" are, in the model's cells;
# cells that tell what is typical.
AGREE, FAR_OFF, WORST, APART, LEVELS, KNOWN = 10.0, 60.0, 4.0, 64.0, 32.0, 0.3
BESIDE, NEAR, FAR, SOME = 1.0, 1.5, 4.0, 800
# Times as fine are cells where the drawings of all frames are known, at most, and as all offers of all cells stay under so many.
FINER, OFFERED = 3, 400_000
AT_ONCE = 1 << 19  # pairs of cells that are compared, so that they fit a processor's memory
NEVER = -9.0  # below all that `Likeness.along` says
INSET = 0.008  # of the short side: so far within the picture's edge, where a frame is often drawn around it, areas meet it
# A region of a frame has left where at least this share of its outline is drawn no more, by any line within so many pixels, and
# it touches less than this share of the picture's edge.
LEFT, DRAWN, EDGE = 0.5, 2, 0.25


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A frame as it may lie on a drawing. fills: (h, w, 3). misfit: (h, w), of its lines. areas: (h, w), its closed regions.

    source: `FRAME` = as it stands, from there on along which flow; `BEHIND`. paired: its own drawing is known (`pairing`), else
    its lines are sought. like: how like the drawing's places are to what it shows, see `Likeness.along`; None = not told.
    """

    fills: UInt8[np.ndarray, "h w 3"]
    misfit: Float[np.ndarray, "h w"]
    areas: Int[np.ndarray, "h w"]
    source: int = FRAME
    paired: bool = False
    like: Float[np.ndarray, "y x 4"] | None = None


def views(
    fills: UInt8[np.ndarray, "h w 3"],
    areas: Int[np.ndarray, "h w"],
    its: Sequence[Way],
    paired: bool = False,
    like: Callable[[Float[np.ndarray, "h w 2"] | None], Float[np.ndarray, "y x 4"]] | None = None,
) -> list[View]:
    """A frame in each of the ways that it may lie on a drawing, as it stands first.

    areas: its closed regions. like: see `View`, along a flow.
    """
    found = []
    for i, way in enumerate(its):
        assert way.misfit is not None
        carried = (fills, areas) if way.flow is None else (warp(fills, way.flow), fetched(areas, way.flow))
        found.append(View(carried[0], way.misfit, carried[1], min(FRAME + i, BEHIND - 1), paired, like and like(way.flow)))
    return found


def frame_areas(lines: UInt8[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    """The closed regions of a frame with these lines, by number."""
    return regions_in(lines.astype(np.float32) / 255)


def behind(
    fills: UInt8[np.ndarray, "h w 3"],
    lines: UInt8[np.ndarray, "h w"],
    areas: Int[np.ndarray, "h w"],
    drawing: UInt8[np.ndarray, "h w 3"],
    like: Float[np.ndarray, "y x 4"] | None = None,
) -> View | None:
    """A frame without the figures that have left, as it stands: what was around them goes on behind them; None = none has.

    lines: darkness of the frame's, which is paired. areas: its closed regions. like: see `View`, with the figures. Of one that
    has left, the outline is drawn no more; the edge of the picture counts as drawn, and what has much of that is the place.
    """
    side = 2 * DRAWN + 1
    drawn = cv2.dilate(ink(drawing), np.ones((side, side), np.uint8)) > INK / 2
    count = int(areas.max()) + 1
    edge = np.bincount(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]), minlength=count)
    outline, gone = edge.copy(), np.zeros(count, np.int64)
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        for a, b in ((areas[one], areas[other]), (areas[other], areas[one])):
            outline += np.bincount(a[a != b], minlength=count)
            gone += np.bincount(a[(a != b) & ~drawn[one] & ~drawn[other]], minlength=count)
    left = (gone > LEFT * outline) & (edge < EDGE * edge.sum())
    if not left.any() or left[areas].all():
        return None
    hole = cv2.dilate(left[areas].astype(np.uint8), np.ones((side, side), np.uint8))
    bare = cv2.inpaint(fills, hole, 3, cv2.INPAINT_TELEA)
    lines = np.where(hole > 0, np.uint8(0), lines)
    misfit = ways(lines, drawing, [])[0].misfit
    assert misfit is not None
    return View(bare, misfit, frame_areas(lines), BEHIND, paired=True, like=like)


def offers(
    cells: Float[np.ndarray, "rows columns 3"],
    drawing: UInt8[np.ndarray, "h w 3"],
    areas: Int[np.ndarray, "h w"],
    shown: Sequence[View],
    vote: Vote,
) -> CellOffers:
    """What each cell of a model's picture may take instead. areas: the drawing's closed regions. vote: of the whole frame.

    Where the drawings of all frames are known, each of the model's cells becomes up to `FINER` by `FINER`; between lines that
    are sought, what frames show is soft beside them.
    """
    every = cells.shape[0] * cells.shape[1] * (FRAME + len(shown))
    finer = min(FINER, max(1, isqrt(OFFERED // every))) if shown and all(view.paired for view in shown) else 1
    near, far = NEAR * finer, FAR * finer

    def spread(values: np.ndarray) -> np.ndarray:
        """The model's cells in as many as there are."""
        return values.repeat(finer, axis=0).repeat(finer, axis=1)

    whole = np.clip(cells, 0, 1).astype(np.float32)
    own, whole_lab = spread(whole), to_lab(whole)
    rows, columns = own.shape[:2]
    ink = shrunk(darkness(drawing), rows, columns) / 255
    empty = np.zeros((rows, columns), np.float32)
    shares = _shares(vote, rows, columns)
    voted = vote.settled(shares, own.reshape(-1, 3)).reshape(own.shape)
    known, likeliest = (x.reshape(rows, columns) for x in (shares.sum(axis=1), (shares @ vote.alike).max(axis=1)))
    colours, source = [own, voted], [OWN, VOTED]
    signs: list[list[np.ndarray]] = [[empty] * (6 + len(LIKE))] * 2
    from_own = [empty, np.linalg.norm(to_lab(own) - to_lab(voted), axis=2)]
    region_sizes = np.bincount(areas.reshape(-1))
    for view in shown:
        theirs = shrunk(view.fills, rows, columns) / 255
        # What the model shows of a cell is of all of it, so it is compared with all that the frame shows there.
        all_theirs = shrunk(view.fills, *cells.shape[:2]) / 255
        squares = shrunk((view.fills.astype(np.float32) / 255) ** 2, *cells.shape[:2])
        texture = spread(10 * np.sqrt(np.maximum(squares - all_theirs**2, 0).mean(axis=2)))
        apart = spread((np.abs(whole - all_theirs).max(axis=2) * 255).clip(max=APART) / LEVELS)
        from_own.append(spread(np.linalg.norm(whole_lab - to_lab(all_theirs), axis=2)))
        sizes, both = np.bincount(view.areas.reshape(-1)), _overlap(areas, view.areas)
        fills, filled = (shrunk(both / of[at], rows, columns) for of, at in ((region_sizes, areas), (sizes, view.areas)))
        colours.append(theirs)
        source.append(view.source)
        misfit, edge = (shrunk(x, rows, columns) for x in (view.misfit, _edge(view.areas)))
        like = [empty] * len(LIKE) if view.like is None else np.moveaxis(shrunk(view.like, rows, columns), 2, 0)
        signs.append([apart, misfit, texture, fills, filled, edge, *like])
    offered, k = np.stack(colours, axis=2), len(colours)
    lab = to_lab(offered)
    there = np.ones((rows, columns, k), bool)
    there[:, :, VOTED] = known >= KNOWN
    apart, misfit, texture, fills, filled, edge, *like = (np.stack(sign, axis=2) for sign in zip(*signs, strict=True))
    shades = to_lab(vote.shades)
    votes = [np.einsum("nm,nm->n", shares, alike(x, shades)) for x in np.moveaxis(lab.reshape(-1, k, 3), 1, 0)]
    votes = np.stack(votes, axis=1).reshape(rows, columns, k)
    region = np.asarray(cv2.resize(areas.astype(np.int32), (columns, rows), interpolation=cv2.INTER_NEAREST), np.int64)
    typical = _typical(lab, region)
    same, frame, heard = fills * filled, np.array(source) >= FRAME, there[:, :, VOTED : VOTED + 1]

    planes = [np.ascontiguousarray(plane) for plane in np.moveaxis(lab, 3, 0)]

    def away(i: int) -> np.ndarray:
        return np.sqrt(sum(np.square(plane - plane[:, :, i : i + 1]) for plane in planes))

    def least(values: np.ndarray) -> np.ndarray:
        return np.where(frame, values, WORST).min(axis=2, keepdims=True).clip(max=WORST)

    def most(values: np.ndarray, of: np.ndarray) -> np.ndarray:
        return np.where(of, values, 0).max(axis=2, keepdims=True)

    agreeing = sum((away(i) < AGREE) & there[:, :, i : i + 1] for i in range(k)) - np.ones((rows, columns, k))
    votes_region, misfit_region = _of_region(votes, region), _of_region(misfit, region)
    apart_near, misfit_far, votes_near = _blurred(apart, near), _blurred(misfit, far), _blurred(votes, near)
    known_of = {
        "ink": ink[..., None],
        "ink_near": _blurred(ink[..., None], near),
        "ink_far": _blurred(ink[..., None], far),
        "region": (np.log10(region_sizes[region] / areas.size + 1e-6) / 2 + 2)[..., None],
        "edge": shrunk(_edge(areas), rows, columns)[..., None],
        "voted": heard,
        "known": heard * known[..., None],
        "likeliest": heard * likeliest[..., None],
        "from_own": np.stack(from_own, axis=2).clip(max=FAR_OFF) / 30,
        "from_voted": heard * away(VOTED).clip(max=FAR_OFF) / 30,
        "agreeing": agreeing / np.maximum(there.sum(axis=2, keepdims=True) - 1, 1),
        "lightness": lab[..., 0] / 100,
        "chroma": np.linalg.norm(lab[..., 1:], axis=3) / 50,
        "votes": heard * votes,
        "votes_near": heard * votes_near,
        "own_votes": heard * votes[:, :, :1],
        "own_votes_near": heard * votes_near[:, :, :1],
        "most_votes": heard * most(votes, frame),
        "votes_region": votes_region,
        "less_votes_region": votes_region - most(votes_region, there),
        "apart": apart,
        "apart_near": apart_near,
        "apart_far": _blurred(apart, far),
        "apart_all": apart.mean(axis=(0, 1), keepdims=True),
        "least_apart": least(apart_near),
        "more_apart": frame * (apart_near - least(apart_near)),
        "misfit": misfit,
        "misfit_far": misfit_far,
        "misfit_all": misfit.mean(axis=(0, 1), keepdims=True),
        "least_misfit": least(misfit),
        "more_misfit": frame * (misfit.clip(max=WORST) - least(misfit)),
        "least_misfit_far": least(misfit_far),
        "more_misfit_far": frame * (misfit_far - least(misfit_far)),
        "apart_region": _of_region(apart, region),
        "misfit_region": misfit_region,
        "more_misfit_region": frame * (misfit_region - least(misfit_region)),
        "paired": np.array([False, False, *(view.paired for view in shown)])[None, None],
        "texture": texture,
        "fills": fills,
        "filled": filled,
        "same": same,
        "less_same": frame * (same - most(same, frame)),
        "most_same": most(same, frame),
        "edge_there": edge,
        "typical": typical,
        "typical_near": _blurred(typical, BESIDE * finer),
        "own_typical": typical[:, :, :1],
        "less_typical": typical - most(typical, there),
    }
    for name, field in zip(LIKE, like, strict=True):
        known_of |= {name: field, f"{name}_near": _blurred(field, near), f"{name}_region": _of_region(field, region)}
        known_of[f"less_{name}"] = frame * (field - np.where(frame, field, NEVER).max(axis=2, keepdims=True))
    features = np.zeros((rows, columns, k, FEATURES), np.float32)
    for i, name in enumerate(NAMES):
        features[..., i] = known_of[name]
    features[:, :, np.arange(k), len(NAMES) + np.array(source)] = 1
    return CellOffers(offered, lab, there, features, region)


def taken(offered: CellOffers, which: Int[np.ndarray, "y x"]) -> Float[np.ndarray, "y x 3"]:
    """The cells' colours, each from the offer that it takes."""
    return np.take_along_axis(offered.colours, which[..., None, None], axis=2)[:, :, 0]


def shrunk(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """A picture (h, w) or (h, w, 3) in cells, float32."""
    return cv2.resize(picture.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)


def _blurred(values: np.ndarray, cells: float) -> np.ndarray:
    """Fields (y, x, k)."""
    return np.stack([cv2.GaussianBlur(np.ascontiguousarray(field), (0, 0), cells) for field in np.moveaxis(values, 2, 0)], axis=2)


def _shares(vote: Vote, rows: int, columns: int) -> np.ndarray:
    """What the places of each cell vote for, (cells, m)."""
    field = vote.shares.reshape(*vote.at.shape, -1)
    planes = [shrunk(field[:, :, i], rows, columns) for i in range(field.shape[2])]
    return np.stack(planes, axis=2).reshape(rows * columns, -1)


def _overlap(areas: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many pixels share both their areas with each pixel, (h, w)."""
    key = areas.astype(np.int64) * (int(others.max()) + 1) + others
    _, of, counts = np.unique(key, return_inverse=True, return_counts=True)
    return counts[of].reshape(areas.shape)


def _edge(areas: np.ndarray) -> np.ndarray:
    """How much of the picture's edge is in each pixel's area, (h, w): the square root of its share."""
    side = min(areas.shape)
    at = min(max(1, round(INSET * side)), (side - 1) // 2)
    inner = areas[at : areas.shape[0] - at, at : areas.shape[1] - at]
    met = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
    return np.sqrt(np.bincount(met, minlength=int(areas.max()) + 1) / len(met))[areas]


def _of_region(values: np.ndarray, region: np.ndarray) -> np.ndarray:
    """The mean of fields (y, x, k) over each cell's region."""
    _, of, counts = np.unique(region, return_inverse=True, return_counts=True)
    of = of.reshape(-1)
    sums = np.stack([np.bincount(of, field) for field in values.reshape(-1, values.shape[2]).T], axis=1)
    return (sums / counts[:, None])[of].reshape(values.shape)


def _typical(lab: np.ndarray, region: np.ndarray) -> np.ndarray:
    """For each offer of a cell, (y, x, k), in what share of its region that offer has such a colour."""
    rows, columns, k = lab.shape[:3]
    flat, of = torch.from_numpy(lab.reshape(rows * columns, k, 3) / ALIKE), region.reshape(-1)
    some = np.zeros(len(of), bool)
    some[:: max(1, len(of) // SOME)] = True
    found = np.ones((len(of), k), np.float32)
    order = np.argsort(of, kind="stable")
    with torch.inference_mode():
        for mine in np.split(order, np.flatnonzero(np.diff(of[order])) + 1):
            others = mine[some[mine]]
            if not len(others):
                continue
            theirs = flat[others].permute(1, 2, 0)  # (k, 3, cells)
            squares = theirs.square().sum(dim=1, keepdim=True) / -2
            for part in np.array_split(mine, -(-len(mine) * len(others) * k // AT_ONCE)):
                own = flat[part].transpose(0, 1)
                away = torch.baddbmm(squares, own, theirs).sub_(own.square().sum(dim=2, keepdim=True) / 2)
                count = away.exp_().sum(dim=2)  # `alike`
                found[part] = ((count + 1) / (len(others) + 1)).T.numpy()
    return found.reshape(rows, columns, k)
