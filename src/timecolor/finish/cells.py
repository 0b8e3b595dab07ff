"""The model's cells cut along the sketch's regions: which colour explains each region best, and what it leaves unexplained."""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from timecolor.finish.lab import to_lab
from timecolor.finish.pixels import runs

LEAST = 2  # pixels that a cell has at least
# Blurs of the model's picture that are tried, standard deviation in cells; weights of the window that tells what is well inside.
BLURS = (0.0, 0.6, 1.0)
WINDOW = (0.239, 0.522, 0.239)
# A cell this far (RGB, 0..1) from what its regions' colours explain is doubted: the model is wrong there.
OUTLIER = 0.2
# What a region's vote weighs against the cells it is mixed in: in flat art, in painted art, and more for each cell well inside.
HOLD = 0.15
HOLD_PAINTED = 3.0
HOLD_INSIDE = 0.3
# Spread of colours (CIE Lab) inside a region from which it is shaded, alone and as a multiple of the frame's noise. A region
# whose colour is no flat colour of its references is believed sooner.
VARIES, VARIES_NOISE = 2.5, 2.8
STRAY_VARIES, STRAY_NOISE = 1.0, 1.5
USUAL = 1.126  # root mean square of a normal vector's length in three dimensions, over its median
# Up to this share of the frame, and if so much of it is so near to its colour (Lab), a region is closed, and of one flat colour.
SMALL, MOSTLY, NEAR = 0.05, 0.6, 25.0


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The model's colour cells cut along the regions: one entry for each cell and region that overlap, by cell, then by region.

    colours: float32 (h', w', 3). cell, area: int64 (n,), the entry's cell (flat index) and region. pixels: float64 (n,), those in
    both. share: float64 (n,), the part of the cell inside the region. deep: float64 (n,), the same over the cell's neighbourhood.
    areas: number of regions.
    """

    colours: np.ndarray
    cell: np.ndarray
    area: np.ndarray
    pixels: np.ndarray
    share: np.ndarray
    deep: np.ndarray
    areas: int

    @staticmethod
    def of(colours: np.ndarray, areas: np.ndarray) -> "Cells":
        """Cut a grid of colours along the regions."""
        shape, count = (colours.shape[0], colours.shape[1]), int(areas.max()) + 1
        keys, pixels = overlaps(areas, shape)
        cell, area = keys // count, keys % count
        share = pixels / np.bincount(cell, pixels)[cell]
        return Cells(colours, cell, area, pixels, share, _neighbourhood(keys, count, share, shape), count)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of the entries' values (n, k) over each region, (areas, k)."""
        return np.stack([np.bincount(self.area, column, self.areas) for column in values.T], axis=1)

    def by_area(self) -> tuple[np.ndarray, np.ndarray]:
        """Region by region: those of region r are order[bounds[r]:bounds[r + 1]]."""
        order = np.argsort(self.area, kind="stable")
        return order, np.searchsorted(self.area[order], np.arange(self.areas + 1))

    def vote(self) -> np.ndarray:
        """The colour most of a region agrees on, (areas, 3): geometric median of the cells well inside, then the mode by it."""
        values = self.colours.reshape(-1, 3)[self.cell].astype(np.float64)
        base = np.maximum(self.share * self.deep**3, 1e-9)

        def mean(weight: np.ndarray, of: np.ndarray) -> np.ndarray:
            return self.sums(weight[:, None] * of) / np.bincount(self.area, weight, self.areas)[:, None]

        centre = mean(base, values)
        for _ in range(8):
            away = np.linalg.norm(values - centre[self.area], axis=1)
            centre = mean(base / np.maximum(away, 0.02), values)
        away = np.linalg.norm(values - centre[self.area], axis=1)
        # As wide as the region's own scatter: a narrower window would follow the noise.
        width = np.maximum(mean(base, away[:, None]), 0.05)[self.area, 0]
        for _ in range(5):
            off = ((values - centre[self.area]) ** 2).sum(axis=1)
            centre = mean(base * (np.exp(-off / (2 * width**2)) + 1e-9), values)
        return centre

    def closed(self, found: np.ndarray) -> np.ndarray:
        """Regions that may be taken for one flat colour, bool (areas,): small ones, most of which is near their colour `found`.

        Others are open: their lines have gaps, or nobody drew what lies in them.
        """
        weight = self.share * self.deep
        away = np.linalg.norm(to_lab(self.colours).reshape(-1, 3)[self.cell] - to_lab(found)[self.area], axis=1)
        near = np.bincount(self.area, weight * (away < NEAR), self.areas)
        size = np.bincount(self.area, self.share, self.areas)
        total = np.bincount(self.area, weight, self.areas)
        return (near >= MOSTLY * total) & (size <= SMALL * size.sum())

    def unmix(self, painted: np.ndarray) -> tuple[np.ndarray, float]:
        """Region colours (areas, 3) that explain the cells best, and the blur of the model's picture that does so.

        painted: bool (areas,), regions where mixtures of flat colours explain little, so that their vote counts more.
        """
        vote = self.vote()
        # A region with cells well inside knows its colour, and need not follow the cells at its rim.
        inside = np.bincount(self.area, self.share * self.deep**5, self.areas)
        hold = (np.where(painted, HOLD_PAINTED, HOLD) + HOLD_INSIDE * inside)[:, None]
        mixed = Mixture.of(self)
        tried = [(*self._solve(mixed, vote, hold, vote, blur, rounds=2), blur) for blur in BLURS]
        flat, _, blur = min(tried, key=lambda found: found[1])
        flat, _ = self._solve(mixed, vote, hold, flat, blur, rounds=3)
        return np.clip(flat, 0, 1), blur

    def _solve(
        self, mixed: "Mixture", vote: np.ndarray, hold: np.ndarray, flat: np.ndarray, blur: float, rounds: int
    ) -> tuple[np.ndarray, float]:
        """Least squares around the vote, from `flat` on, and its cost: conjugate gradients, outliers weighed anew each round."""
        cost = 0.0
        for _ in range(rounds):
            error = self.colours - mixed.explain(flat, blur)
            trust = np.minimum(OUTLIER / np.maximum(_length(error)[..., None], 1e-6), 1) ** 2
            step = residual = mixed.gather(trust * error, blur) + hold * (vote - flat)
            power = (residual**2).sum(axis=0)
            for _ in range(8):
                turned = mixed.gather(trust * mixed.explain(step, blur), blur) + hold * step
                length = power / np.maximum((step * turned).sum(axis=0), 1e-12)
                flat = flat + length * step
                residual = residual - length * turned
                before, power = power, (residual**2).sum(axis=0)
                step = residual + power / np.maximum(before, 1e-12) * step
            away = _length(self.colours - mixed.explain(flat, blur))
            cost = float((np.minimum(away, OUTLIER) ** 2).mean())
        return flat, cost

    def shading(self, flat: np.ndarray, blur: float) -> "Shading":
        """What the regions' flat colours leave unexplained."""
        order, bounds = self.by_area()
        return Shading(self, flat, blur, self.colours - Mixture.of(self).explain(flat, blur), order, bounds)


class Mixture(NamedTuple):
    """Cells as mixtures of their regions' colours, float32; as sums over bags of rows, which is how PyTorch sums sparsely.

    area, cell: int64 (n,), the entries' region, in order of cells, and cell, in order of regions. starts, bounds: where cells and
    regions begin among them. by_cell, by_area: (n,), the entries' shares in the one order and in the other. rows: of cells.
    """

    area: torch.Tensor
    starts: torch.Tensor
    by_cell: torch.Tensor
    cell: torch.Tensor
    bounds: torch.Tensor
    by_area: torch.Tensor
    rows: int

    @staticmethod
    def of(cells: Cells) -> "Mixture":
        order, bounds = cells.by_area()
        starts, share = np.flatnonzero(np.diff(cells.cell, prepend=-1)), cells.share.astype(np.float32)
        arrays = cells.area, starts, share, cells.cell[order], bounds[:-1], share[order]
        area, starts, by_cell, cell, bounds, by_area = (torch.from_numpy(x) for x in arrays)
        return Mixture(area, starts, by_cell, cell, bounds, by_area, len(cells.colours))

    def explain(self, flat: np.ndarray, blur: float) -> np.ndarray:
        """What the model would show, had every region the colour `flat` (areas, 3): (h', w', 3)."""
        return _blur(_bags(self.area, flat, self.starts, self.by_cell).reshape(self.rows, -1, 3), blur)

    def gather(self, cells: np.ndarray, blur: float) -> np.ndarray:
        """The transpose of `explain`: (h', w', 3) → (areas, 3)."""
        return _bags(self.cell, _blur(cells, blur).reshape(-1, 3), self.bounds, self.by_area)


@dataclass(frozen=True, slots=True, eq=False)
class Shading:
    """How the model's colours differ from flat regions.

    flat: (areas, 3) in [0, 1]. blur: of the model's picture, in cells. rest: float32 (h', w', 3), what the flat colours leave of
    each cell. order, bounds: the entries of region r are order[bounds[r]:bounds[r + 1]].
    """

    cells: Cells
    flat: np.ndarray
    blur: float
    rest: np.ndarray
    order: np.ndarray
    bounds: np.ndarray

    def varying(self, stray: np.ndarray, painted: np.ndarray) -> np.ndarray:
        """Regions whose colours vary more than the frame's noise explains, int (n,).

        stray: bool (areas,), the colour is no flat colour of the references; painted: they have none at all, so that even a
        region too small to measure is taken to vary.
        """
        cells, (rows, columns) = self.cells, self.rest.shape[:2]
        inside = cells.deep > 0.9
        area = np.full(rows * columns, -1, np.int64)
        area[cells.cell[inside]] = cells.area[inside]
        known = (area >= 0).reshape(rows, columns)
        off = to_lab(cells.colours) - to_lab(self.flat)[area].reshape(rows, columns, 3)
        off[~known] = 0
        count = _sum_3x3(known.astype(np.float32))
        slow = _sum_3x3(off) / np.maximum(count, 1)[..., None]
        use = (known & (count >= 5)).ravel()
        number = np.bincount(area[use], minlength=cells.areas)

        def size(values: np.ndarray) -> np.ndarray:
            squares = (values.reshape(-1, 3)[use] ** 2).sum(axis=1)
            return np.sqrt(np.bincount(area[use], squares, cells.areas) / np.maximum(number, 1))

        large = number >= 6
        # Noise changes from cell to cell, shading does not. Noise is much the same everywhere, so the regions settle it together.
        # Borders of what is painted without lines are no noise, so each region is asked for what most of its cells have, which
        # is told as well as the square root of their number.
        rough, ranked = np.linalg.norm(off - slow, axis=2).reshape(-1)[use], np.argsort(area[use], kind="stable")
        parts, some = np.split(rough[ranked], np.cumsum(number)[:-1]), np.flatnonzero(large)
        noise = USUAL * _middle(np.array([np.median(parts[r]) for r in some]), np.sqrt(number[some]))
        enough = np.where(stray, max(STRAY_VARIES, STRAY_NOISE * noise), max(VARIES, VARIES_NOISE * noise))
        return np.flatnonzero(np.where(large, size(slow) > enough, painted))

    def paint(self, fills: np.ndarray, areas: np.ndarray, chosen: np.ndarray) -> None:
        """Paint the chosen regions in place: their flat colour and their own cells' rest, interpolated up to the border."""
        rest = self.rest.copy()
        # Large regions first: what they explain of a cell is no longer there for a small neighbour to make up for.
        for area in chosen[np.argsort(self.bounds[chosen] - self.bounds[chosen + 1], kind="stable")]:
            self._paint(fills, areas, int(area), rest)

    def _paint(self, fills: np.ndarray, areas: np.ndarray, area: int, rest: np.ndarray) -> None:
        cells, (rows, columns), (h, w) = self.cells, rest.shape[:2], areas.shape
        mine = self.order[self.bounds[area] : self.bounds[area + 1]]
        y, x = cells.cell[mine] // columns, cells.cell[mine] % columns
        top, left = max(int(y.min()) - 2, 0), max(int(x.min()) - 2, 0)
        bottom, right = min(int(y.max()) + 3, rows), min(int(x.max()) + 3, columns)
        weight = np.zeros((bottom - top, right - left), np.float32)
        weight[y - top, x - left] = cells.share[mine] * cells.deep[mine]
        field = _fill_in(rest[top:bottom, left:right], weight / weight.max())
        share = np.zeros_like(weight)
        share[y - top, x - left] = cells.share[mine]
        rest[top:bottom, left:right] -= _blur(field * share[..., None], self.blur)
        box = slice(top * h // rows, -(-bottom * h // rows)), slice(left * w // columns, -(-right * w // columns))
        # From the middle of a pixel of the box to the same place in the field.
        across, down = columns / w, rows / h
        to_field = np.array(
            [
                [across, 0, (box[1].start + 0.5) * across - 0.5 - left],
                [0, down, (box[0].start + 0.5) * down - 0.5 - top],
            ]
        )
        size = box[1].stop - box[1].start, box[0].stop - box[0].start
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        painted = cv2.warpAffine(
            self.flat[area].astype(np.float32) + field, to_field, size, flags=how, borderMode=cv2.BORDER_REPLICATE
        )
        inside = (areas[box] == area).view(np.uint8)
        shade = cv2.convertScaleAbs(np.maximum(painted, 0, out=painted), alpha=255)
        fills[box] = cv2.copyTo(shade, inside, fills[box].copy())


def coarse(colours: np.ndarray, h: int, w: int) -> np.ndarray:
    """Colours in cells of at least `LEAST` native pixels, float32 (h', w', 3)."""
    size = (min(colours.shape[1], max(1, w // LEAST)), min(colours.shape[0], max(1, h // LEAST)))
    return np.clip(cv2.resize(colours.astype(np.float32), size, interpolation=cv2.INTER_AREA), 0, 1)


def overlaps(areas: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The pixels that each cell of a grid shares with each region: cell * regions + region, in order, and their number."""
    (h, w), (rows, columns) = areas.shape, shape
    row = (np.arange(h) * 2 + 1) * rows // (2 * h)
    column = (np.arange(w) * 2 + 1) * columns // (2 * w)
    at, pixels = runs(areas, np.broadcast_to(column, (h, w)))
    key = (row[at // w] * columns + column[at % w]) * (int(areas.max()) + 1) + areas.ravel()[at]
    keys, inverse = np.unique(key, return_inverse=True)
    return keys, np.bincount(inverse, weights=pixels)


def _neighbourhood(keys: np.ndarray, count: int, share: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """For each entry, its region's share of the 3 by 3 cells around; beyond the picture counts as the cell at the rim."""
    rows, columns = shape
    cell, area = keys // count, keys % count
    total = np.zeros(len(keys))
    for dy, dx in np.ndindex(3, 3):
        y = np.clip(cell // columns + dy - 1, 0, rows - 1)
        x = np.clip(cell % columns + dx - 1, 0, columns - 1)
        wanted = (y * columns + x) * count + area
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        total += WINDOW[dy] * WINDOW[dx] * np.where(keys[at] == wanted, share[at], 0)
    return total


def _bags(index: torch.Tensor, rows: np.ndarray, starts: torch.Tensor, weights: torch.Tensor) -> np.ndarray:
    """Weighed sums of runs of rows (n, 3)."""
    with torch.inference_mode():
        values = torch.from_numpy(rows.astype(np.float32, copy=False))
        return F.embedding_bag(index, values, starts, mode="sum", per_sample_weights=weights).numpy()


def _middle(values: np.ndarray, weights: np.ndarray) -> float:
    """The weighted median, (n,) of both; 0 of nothing."""
    if not len(values):
        return 0.0
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _length(vectors: np.ndarray) -> np.ndarray:
    """Of vectors (h, w, 3): sooner than along an axis of three."""
    x, y, z = cv2.split(vectors)
    return np.sqrt(x * x + y * y + z * z)


def _blur(cells: np.ndarray, sigma: float) -> np.ndarray:
    # With this border the blur is its own transpose.
    return cv2.GaussianBlur(cells, (5, 5), sigma, borderType=cv2.BORDER_REFLECT) if sigma else cells


def _sum_3x3(values: np.ndarray) -> np.ndarray:
    return cv2.boxFilter(values, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)


def _fill_in(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Values (h, w, 3) where they have weight (h, w), in [0, 1], elsewhere what surrounds them: down a pyramid and up again."""
    h, w = weight.shape
    if h <= 1 and w <= 1:
        return values
    half = ((w + 1) // 2, (h + 1) // 2)
    small = cv2.resize(np.dstack([values * weight[..., None], weight]), half, interpolation=cv2.INTER_AREA)
    below = _fill_in(small[..., :3] / np.maximum(small[..., 3:], 1e-9), np.minimum(small[..., 3] * 4, 1))
    around = cv2.resize(below, (w, h), interpolation=cv2.INTER_LINEAR).reshape(values.shape)
    return (weight[..., None] * values + (1 - weight[..., None]) * around).astype(np.float32)
