"""A reference of any kind carried onto a drawing by what its lines look like around each place: colours that may be right.

Patches of the drawing's lines are sought among those of the reference, at several scales and mirrored, and the places found
vote on the colours: PatchMatch (Barnes et al. 2009) on descriptors of line art; votes as in image analogies (Hertzmann et al.
2001) and patch synthesis (Wexler et al. 2007). The baseline of that name is nothing but these.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from timecolor.propagation import INK
from timecolor.shapes import Bool, Float, UInt8
from timecolor.sketch import lines_in

STRIDE = 2  # pixels between the places that are matched
COARSE = 2  # of which every so-manyth is matched to every such key first
ROUNDS = 2
RINGS = (2, 5, 9, 16, 26)  # radii, in pixels of a 160-line picture, around a place whose distances to lines describe it
PLACE, PLACE_LOOSE = 3.0, 0.3  # weights of a place in the frame, and in the box of a cut-out
MARGIN = 16  # px around a cut-out
SCALES = (1.0, 0.7, 1.4)  # of a cut-out, against the size expected


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A reference as patches are taken from it.

    colours: uint8 (h, w, 3), its fills. lines: uint8 (h, w), their darkness. known: bool (h, w), where it may be taken from.
    whole: it shows the whole frame, so that a place in it is a place in the drawing. scale: how much larger things are in the
    drawing than in it.
    """

    colours: UInt8[np.ndarray, "h w 3"]
    lines: UInt8[np.ndarray, "h w"]
    known: Bool[np.ndarray, "h w"]
    whole: bool
    scale: float = 1.0


def expected_scale(areas: int, shown: int) -> float:
    """How much larger something is in a drawing, where it has this many pixels, than in its picture; 1 where it is not there."""
    return float(np.sqrt(areas / max(1, shown))) if areas else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """A reference's places, at several scales and mirrored, one picture after another.

    keys: float32 (n, d), described. colours: float32 (n, 3). usable: bool (n,), a place whose colour may be taken. base, heights,
    widths: where each variant starts, and its size. coarse: (m,), the places that are searched exhaustively.
    """

    keys: np.ndarray
    colours: np.ndarray
    usable: np.ndarray
    base: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    coarse: np.ndarray
    whole: bool

    @staticmethod
    def of(source: Source) -> "Patches":
        """All variants of a reference, described."""
        unit = min(source.lines.shape) / 160
        keys, colours, usable, sizes, coarse = [], [], [], [], []
        base = 0
        for own, lines, known in _variants(source):
            h, w = lines.shape
            keys.append(np.concatenate([_described(lines, unit), _where(known, source.whole)], axis=2).reshape(h * w, -1))
            colours.append(own.reshape(h * w, 3).astype(np.float32))
            usable.append(known.ravel())
            step = STRIDE * COARSE
            y, x = np.mgrid[step // 2 : h : step, step // 2 : w : step].reshape(2, -1)
            at = y * w + x
            at = at[known.ravel()[at]]
            coarse.append(base + (at if len(at) else np.flatnonzero(known)))
            sizes.append((base, h, w))
            base += h * w
        starts, heights, widths = np.array(sizes).reshape(-1, 3).T
        all_keys, all_colours, all_usable, found = map(np.concatenate, (keys, colours, usable, coarse))
        return Patches(all_keys, all_colours, all_usable, starts, heights, widths, found, source.whole)

    def carried(
        self, lines: UInt8[np.ndarray, "h w"], area: Bool[np.ndarray, "h w"]
    ) -> tuple[Float[np.ndarray, "y x 3"], Float[np.ndarray, "y x"]]:
        """The reference's colours for every `STRIDE`-th place of an area of a drawing, and how unlike what was found is there.

        lines: darkness of the drawing's. Outside the area colours are 0 and nothing was found (infinity).
        """
        h, w = lines.shape
        grid = np.mgrid[0:h:STRIDE, 0:w:STRIDE] + STRIDE // 2
        grid = np.minimum(grid, np.array([h - 1, w - 1])[:, None, None])
        mine = area[grid[0], grid[1]]
        error = np.full(mine.shape, np.inf, np.float32)
        colours = np.zeros((*mine.shape, 3), np.float32)
        x, y, width, height = cv2.boundingRect(mine.astype(np.uint8))
        if not width or not len(self.coarse):
            return colours, error
        part = np.s_[y : y + height, x : x + width]
        described = np.concatenate([_described(lines_in(lines, area), min(h, w) / 160), _where(area, self.whole)], axis=2)
        at, found = self._match(described[grid[0][part], grid[1][part]])
        inside = mine[part]
        error[part][inside] = np.where(at >= 0, found, np.inf)[inside]
        colours[part][inside] = self._vote(at, found, inside)[inside]
        return colours, error

    def _match(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each place (rows, columns, d), the reference's place that is most like it, and how far it is from being so."""
        rng = np.random.default_rng(0)  # the same whatever was matched before
        rows, columns = queries.shape[:2]
        middle = COARSE // 2 if min(rows, columns) > COARSE // 2 else 0
        few = queries[middle::COARSE, middle::COARSE]
        found = self._nearest(few.reshape(-1, few.shape[2])).reshape(few.shape[:2])
        y = np.minimum(np.arange(rows) // COARSE, few.shape[0] - 1)
        x = np.minimum(np.arange(columns) // COARSE, few.shape[1] - 1)
        at = found[y[:, None], x[None]]
        # A neighbour's match, moved by as much as the neighbour is away.
        dy, dx = np.arange(rows) - y * COARSE - middle, np.arange(columns) - x * COARSE - middle
        at = self._moved(at, dy[:, None] * STRIDE, dx * STRIDE)
        error = self._error(queries, at)
        for _ in range(ROUNDS):
            for step in (3, 1):
                for dy, dx in ((0, step), (0, -step), (step, 0), (-step, 0)):
                    # The match of the place (dy, dx) away.
                    other = np.roll(at, (-dy, -dx), (0, 1))
                    at, error = self._better(queries, at, error, self._moved(other, -dy * STRIDE, -dx * STRIDE))
            for reach in (16, 4):
                off = rng.integers(-reach, reach + 1, (2, rows, columns))
                at, error = self._better(queries, at, error, self._moved(at, off[0], off[1]))
        return at, error

    def _nearest(self, queries: np.ndarray) -> np.ndarray:
        keys = self.keys[self.coarse]
        half = (keys**2).sum(axis=1) / 2
        best = [
            self.coarse[(part @ keys.T - half).argmax(axis=1)] for part in np.array_split(queries, max(1, len(queries) // 512))
        ]
        return np.concatenate(best)

    def _moved(self, at: np.ndarray, dy: np.ndarray | int, dx: np.ndarray | int) -> np.ndarray:
        """Places (dy, dx) further in the same variant, -1 where that is outside it or where nothing is shown."""
        variant = np.searchsorted(self.base, np.maximum(at, 0), side="right") - 1
        width, start = self.widths[variant], self.base[variant]
        y, x = np.divmod(at - start, width)
        y, x = y + dy, x + dx
        there = start + y * width + x
        inside = (at >= 0) & (y >= 0) & (x >= 0) & (y < self.heights[variant]) & (x < width)
        there = np.where(inside, there, 0)
        return np.where(inside & self.usable[there], there, -1)

    def _error(self, queries: np.ndarray, at: np.ndarray) -> np.ndarray:
        error = ((queries - self.keys[at]) ** 2).sum(axis=2)
        return np.where(at >= 0, error, np.float32(1e6))

    def _better(self, queries: np.ndarray, at: np.ndarray, error: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tried = self._error(queries, other)
        better = tried < error
        return np.where(better, other, at), np.where(better, tried, error)

    def _vote(self, at: np.ndarray, error: np.ndarray, mine: np.ndarray) -> np.ndarray:
        """Colours (rows, columns, 3): neighbours say what their matches have at a place; the vote nearest to all others wins."""
        votes, weights = [], []
        typical = float(np.median(error[mine])) + 1e-3
        for dy, dx in np.ndindex(3, 3):
            dy, dx = 2 * (dy - 1), 2 * (dx - 1)
            other = self._moved(np.roll(at, (-dy, -dx), (0, 1)), -dy * STRIDE, -dx * STRIDE)
            from_mine = np.roll(mine, (-dy, -dx), (0, 1)) & (other >= 0)
            votes.append(self.colours[other])
            weights.append(np.where(from_mine, np.exp(-np.roll(error, (-dy, -dx), (0, 1)) / typical), 0))
        votes, weights = np.stack(votes), np.stack(weights).astype(np.float32)
        weights[4] += 1e-6
        apart = [(weights * np.minimum(np.abs(votes - vote).sum(axis=3), 120)).sum(axis=0) for vote in votes]
        apart = np.where(weights <= 0, np.inf, np.stack(apart))
        return np.take_along_axis(votes, apart.argmin(axis=0)[None, ..., None], 0)[0]


def _variants(source: Source) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Colours, lines and what is known: a whole frame as it is; a cut-out at the scales it may be met at, and mirrored."""
    if source.whole:
        yield source.colours, source.lines, source.known
        return
    # As much around it as far rings see.
    left, top, width, height = cv2.boundingRect(source.known.astype(np.uint8))
    if not width:
        left, top, height, width = 0, 0, *source.known.shape
    crop = np.s_[max(0, top - MARGIN) : top + height + MARGIN, max(0, left - MARGIN) : left + width + MARGIN]
    parts = source.colours[crop], source.lines[crop], 255 * source.known[crop].astype(np.uint8)
    h, w = parts[1].shape
    for scale in SCALES:
        factor = float(np.clip(source.scale * scale, 0.2, 3.0))
        size = max(8, round(w * factor)), max(8, round(h * factor))
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        colours, lines, known = (cv2.resize(part, size, interpolation=how) for part in parts)
        if factor < 1:  # shrinking greys thin lines
            lines = cv2.convertScaleAbs(lines, alpha=1 / factor)
        yield colours, lines, known > 127
        yield np.ascontiguousarray(colours[:, ::-1]), np.ascontiguousarray(lines[:, ::-1]), known[:, ::-1] > 127


def _where(mask: np.ndarray, whole: bool) -> Float[np.ndarray, "h w 2"]:
    """Place in the frame, or in the box of what is set, as part of a description."""
    h, w = mask.shape
    left, top, width, height = (0, 0, w, h) if whole or not mask.any() else cv2.boundingRect(mask.astype(np.uint8))
    weight = PLACE if whole else PLACE_LOOSE
    short = (min(h, w), min(h, w)) if whole else (height, width)
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    return np.dstack([(y - top) / short[0], (x - left) / short[1]]) * np.float32(weight * np.sqrt(1 + 8 * len(RINGS)))


def _described(lines: np.ndarray, unit: float) -> Float[np.ndarray, "h w d"]:
    """Each pixel by the distances to lines on rings around it; far rings are looked at coarsely."""
    h, w = lines.shape
    found = (lines > INK).astype(np.uint8)
    to_line = cv2.distanceTransform(1 - found, cv2.DIST_L2, 5) if found.any() else np.full((h, w), np.inf, np.float32)
    described = []
    for radius in (0, *RINGS):
        reach = radius * unit
        far = max(4.0, 1.0 * radius) * unit
        field = np.sqrt(np.minimum(to_line, far) / far)
        if reach > 4:
            field = cv2.GaussianBlur(field, (0, 0), reach / 5)
        for k in range(8 if radius else 1):
            angle = (k + 0.5 * (radius % 2)) * np.pi / 4
            shift = np.array([[1, 0, -reach * np.cos(angle)], [0, 1, -reach * np.sin(angle)]], np.float32)
            described.append(cv2.warpAffine(field, shift, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    return np.stack(described, axis=2).astype(np.float32)
