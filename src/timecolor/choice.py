"""Which colour a small region of a drawing, or a cell of it, takes of those offered: the model's own, what its places vote for,
what plates and frames show.

Not in the paper. A model's cells know little of a small region, and a plate carried wrongly shows what was there at another
moment; how far either may be trusted is seen around the region. What each sign is worth is learned on the drawn world
(`train.judging`) by small networks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch.nn import functional as F

from timecolor.shapes import Bool, Float, Int

EMBEDDED = Path(__file__).parent / "weights" / "judge.safetensors"
TRUST = Path(__file__).parent / "weights" / "trust.safetensors"
# Where an offer is from. Plates: as it stands, then carried along each of their flows.
OWN, VOTED, PLATE = 0, 1, 2
SOURCES = 6
# What is known of each offer, in the order of the network's inputs; then, one for each source, whether it is from there.
NAMES = (
    *("size", "unexplained", "inside", "mixed", "voted", "likeliest", "known"),  # of its region
    *("from_own", "from_voted", "agreeing", "lightness", "chroma", "votes", "own_votes", "less_votes"),  # of its colour
    *("apart", "around", "misfit", "most", "named"),  # of its plate
    *("least_around", "more_around", "least_misfit", "more_misfit"),  # of the best plate, and beside it
)
# Lab distance within which offers are of one mind; where distances and misfits end; what a plate's are divided by.
AGREE, FAR, WORST, LEVELS = 10.0, 60.0, 4.0, 32.0
FEATURES = len(NAMES) + SOURCES
AT_ONCE = 1 << 12  # offers that a network looks at, so that they fit a processor's memory
# What it adds to a cell's score that a cell of its region beside it, or across a corner, takes such a colour or the same picture;
# Lab distance of such colours; how often cells look at one another; of how many offers, as what it costs grows with their square.
BESIDE, CORNER, SUCH, ROUNDS, MOST = 0.5, 0.35, 6.0, 8, 6


@dataclass(frozen=True, slots=True, eq=False)
class Offers:
    """Colours offered for m regions, k each: the model's own first, then what their places vote for, then plates'.

    regions: (m,), their numbers. size: (m,), shares of the frame. pixels: (p,), those bare of ink, region by region, as flat
    indices; of: (p,), in which of the regions each is.
    colours: (m, k, 3), in [0, 1]. lab: the same in CIE Lab. there: (m, k), whether there is such an offer. source: (k,).
    unexplained: (m,), how far the model's cells are from what the regions' own colours explain, in [0, 1]. inside: (m,), the
    share of a region that lies well inside cells. known, likeliest: (m,), what part of its places' votes is on any colour, and
    on the likeliest. believed: (m, k), what part is on the offer's. mixed: own colours are nothing but these votes.
    apart, around: (m, k), levels between a plate and the model's cells, in the region and around it. misfit: (m, k), how badly
    the plate's lines lie there on the drawing's. most: (m, k), what share of the region has the colour that the plate offers.
    named: (m, k), a label names the plate for the region. All five are 0 for other sources.
    """

    regions: Int[np.ndarray, " m"]
    size: Float[np.ndarray, " m"]
    pixels: Int[np.ndarray, " p"]
    of: Int[np.ndarray, " p"]
    colours: Float[np.ndarray, "m k 3"]
    lab: Float[np.ndarray, "m k 3"]
    there: Bool[np.ndarray, "m k"]
    source: Int[np.ndarray, " k"]
    unexplained: Float[np.ndarray, " m"]
    inside: Float[np.ndarray, " m"]
    known: Float[np.ndarray, " m"]
    likeliest: Float[np.ndarray, " m"]
    believed: Float[np.ndarray, "m k"]
    mixed: bool
    apart: Float[np.ndarray, "m k"]
    around: Float[np.ndarray, "m k"]
    misfit: Float[np.ndarray, "m k"]
    most: Float[np.ndarray, "m k"]
    named: Bool[np.ndarray, "m k"]


Choose = Callable[[Offers], Int[np.ndarray, " m"]]


def features(offers: Offers) -> Float[np.ndarray, "m k f"]:
    """What is known of each offer: `NAMES`, then its source."""
    m, k = offers.there.shape
    voted, plate, around = offers.there[:, VOTED], offers.source >= PLATE, offers.around / LEVELS

    def away(i: int) -> np.ndarray:
        return np.linalg.norm(offers.lab - offers.lab[:, i : i + 1], axis=2)

    def least(values: np.ndarray) -> np.ndarray:
        """Of the plates that are there; none at all is as bad as one that is as wrong as can be."""
        return np.where(offers.there & plate, values, WORST).clip(max=WORST).min(axis=1, keepdims=True)

    agreeing = sum((away(i) < AGREE) & offers.there[:, i : i + 1] for i in range(k)) - np.ones((m, k))
    known = {
        "size": np.log10(offers.size + 1e-6)[:, None] / 2 + 2,
        "unexplained": offers.unexplained[:, None] * 5,
        "inside": offers.inside[:, None],
        "mixed": np.full((m, 1), float(offers.mixed)),
        "voted": voted[:, None],
        "likeliest": (voted * offers.likeliest)[:, None],
        "known": (voted * offers.known)[:, None],
        "from_own": away(OWN).clip(max=FAR) / 30,
        "from_voted": voted[:, None] * away(VOTED).clip(max=FAR) / 30,
        "agreeing": agreeing / np.maximum(offers.there.sum(axis=1) - 1, 1)[:, None],
        "lightness": offers.lab[:, :, 0] / 100,
        "chroma": np.linalg.norm(offers.lab[:, :, 1:], axis=2) / 50,
        "votes": voted[:, None] * offers.believed,
        "own_votes": voted[:, None] * offers.believed[:, :1],
        "less_votes": voted[:, None] * (offers.believed - np.where(offers.there, offers.believed, 0).max(axis=1, keepdims=True)),
        "apart": offers.apart / LEVELS,
        "around": around,
        "misfit": offers.misfit,
        "most": offers.most,
        "named": offers.named,
        "least_around": least(around),
        "more_around": plate * (around.clip(max=WORST) - least(around)),
        "least_misfit": least(offers.misfit),
        "more_misfit": plate * (offers.misfit.clip(max=WORST) - least(offers.misfit)),
    }
    found = np.zeros((m, k, FEATURES), np.float32)
    for i, name in enumerate(NAMES):
        found[:, :, i] = known[name]
    found[:, np.arange(k), len(NAMES) + offers.source] = 1
    return found


def taken(scores: Float[np.ndarray, "m k"], offers: Offers) -> Int[np.ndarray, " m"]:
    """For each region the index of the offer with the highest score.

    Votes stand in for own colours that are nothing but these votes seen through coarser cells. Others, which may be finer than
    the region, stay where what scores best is as good as the same.
    """
    best = np.where(offers.there, scores, -np.inf).argmax(axis=1)
    if offers.mixed:
        return np.where((best == OWN) & offers.there[:, VOTED], VOTED, best)
    away = np.linalg.norm(offers.lab[np.arange(len(best)), best] - offers.lab[:, OWN], axis=1)
    return np.where(away < AGREE, OWN, best)


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Gives each offer a score by what is known of it: the mean of what its members say.

    layers: weights (members, out, in) and biases (members, out), float32.
    """

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]

    def __call__(self, features: Float[np.ndarray, "*n f"]) -> Float[np.ndarray, "*n"]:
        """The scores."""
        given = torch.from_numpy(np.ascontiguousarray(features, np.float32).reshape(-1, features.shape[-1]))
        layers = [(torch.from_numpy(weight).mT, torch.from_numpy(bias)[:, None]) for weight, bias in self.layers]
        found = torch.empty(len(given))
        with torch.inference_mode():
            for at in range(0, len(given), AT_ONCE):
                x = given[at : at + AT_ONCE].expand(len(layers[0][0]), -1, -1)
                for i, (weight, bias) in enumerate(layers):
                    x = torch.baddbmm(bias, x, weight)
                    if i < len(layers) - 1:
                        x = F.silu(x, inplace=True)
                found[at : at + AT_ONCE] = x[..., 0].mean(dim=0)
        return found.numpy().reshape(features.shape[:-1])

    @staticmethod
    def of(path: Path) -> "Network":
        """The network in a file: tensors 0.weight, 0.bias, 1.weight ..."""
        tensors = load_file(path)
        return Network(tuple((tensors[f"{i}.weight"], tensors[f"{i}.bias"]) for i in range(len(tensors) // 2)))


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """A network that gives each offer a score."""

    network: Network

    def __call__(self, offers: Offers) -> Int[np.ndarray, " m"]:
        """Which offer each region takes."""
        return taken(self.network(features(offers)), offers)


@cache
def judge(path: Path = EMBEDDED) -> Judge:
    """The network in a file; see `Network`."""
    return Judge(Network.of(path))


@dataclass(frozen=True, slots=True, eq=False)
class CellOffers:
    """Colours offered for each cell of a drawing, k each: the model's own first.

    colours: (y, x, k, 3), in [0, 1]. lab: the same in CIE Lab. there: whether there is such an offer. features: what is known of
    each (`trust.NAMES`). region: the closed region that each cell is of.
    """

    colours: Float[np.ndarray, "y x k 3"]
    lab: Float[np.ndarray, "y x k 3"]
    there: Bool[np.ndarray, "y x k"]
    features: Float[np.ndarray, "y x k f"]
    region: Int[np.ndarray, "y x"]


Trust = Callable[[CellOffers], Int[np.ndarray, "y x"]]


@dataclass(frozen=True, slots=True, eq=False)
class Truster:
    """A network that gives each offer a score; neighbours agree on what they take."""

    network: Network

    def __call__(self, offers: CellOffers) -> Int[np.ndarray, "y x"]:
        """Which offer each cell takes."""
        return agreed(np.where(offers.there, self.network(offers.features), -np.inf), offers)


def agreed(scores: Float[np.ndarray, "y x k"], offers: CellOffers) -> Int[np.ndarray, "y x"]:
    """Which offer each cell takes, by scores that are logarithms of odds and by what the neighbours in its region may take.

    No line parts them, so they mostly have one colour, or what one picture shows: a field in which each knows its neighbours'
    mean (mean field of a Potts model), over the `MOST` best offers of each.
    """
    best = np.argsort(-scores, axis=2, kind="stable")[:, :, :MOST]
    own, lab = np.take_along_axis(scores, best, axis=2), np.take_along_axis(offers.lab, best[..., None], axis=2)
    # Offers before cells, so that what is done to each is done along whole rows of cells.
    best, own = (np.ascontiguousarray(np.moveaxis(x, 2, 0)) for x in (best, own))
    lab = np.ascontiguousarray(lab.transpose(2, 3, 0, 1))
    links = []
    for one, other, weight in beside(*offers.region.shape):
        such = np.exp(np.square(lab[one][:, None] - lab[other][None]).sum(axis=2) / (-2 * SUCH**2))
        such[(best[one][:, None] == best[other][None]) & (best[one] >= PLATE)[:, None]] = 1  # of the same picture
        links.append((one, other, such * (weight * (offers.region[one] == offers.region[other])).astype(np.float32)))
    found = own
    for _ in range(ROUNDS):
        likely = np.exp(found - found.max(axis=0))
        likely /= likely.sum(axis=0)
        found = own.copy()
        for one, other, such in links:
            found[one] += np.einsum("ijyx,jyx->iyx", such, likely[other])
            found[other] += np.einsum("ijyx,iyx->jyx", such, likely[one])
    return np.take_along_axis(best, found.argmax(axis=0)[None], axis=0)[0]


def beside(rows: int, columns: int) -> Iterator[tuple[tuple, tuple, float]]:
    """Cells of fields (..., y, x) and those beside them or across a corner, as slices of both, and what that counts."""
    for down, along, weight in ((0, 1, BESIDE), (1, 0, BESIDE), (1, 1, CORNER), (1, -1, CORNER)):
        one = np.s_[..., : rows - down, max(0, -along) : columns - max(0, along)]
        yield one, np.s_[..., down:, max(0, along) : columns - max(0, -along)], weight


@cache
def truster(path: Path = TRUST) -> Truster:
    """The network in a file; see `Network`."""
    return Truster(Network.of(path))
