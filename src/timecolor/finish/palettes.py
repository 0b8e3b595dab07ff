"""The flat colours of references, and which regions take exactly one of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from timecolor.finish.lab import apart, to_lab
from timecolor.finish.pixels import runs
from timecolor.shot import Labels, Reference
from timecolor.sketch import reference_lines

# CIE Lab distance up to which a region takes a palette's colour, or the white of bare paper.
SNAP = 8.0
SNAP_WHITE = 3.0
# A reference with less than this share of flat colours is painted and has no palette; from this share on it is flat all over.
FLAT_ART = 0.15
COMPLETE = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """Flat colours of references, uint8 (k, 3), largest area first; k = 0 = they are painted.

    complete: hardly anything in the references has another colour, so whatever they colour has one of these.
    """

    colours: np.ndarray
    complete: bool = False


def palette_of(references: Sequence[Reference]) -> Palette:
    """The flat colours in the references.

    Lines, anti-aliasing and gradients are left out, and so is a painted reference, where hardly anything is flat.
    """
    counts: dict[tuple[int, ...], int] = {}
    complete = bool(references)
    for reference in references:
        found, covered = _flat_colours(reference)
        complete &= covered >= COMPLETE
        for colour, count in found:
            counts[colour] = max(counts.get(colour, 0), count)
    ranked = np.array(sorted(counts, key=lambda colour: (-counts[colour], colour)), np.uint8).reshape(-1, 3)
    return Palette(ranked[apart(to_lab(ranked), 2.0)], complete)


def palettes_of(references: Sequence[Reference], labels: Labels, present: Iterable[int]) -> dict[int, Palette]:
    """For each label present: the palette of the references that may colour it."""
    bound = {label: [r for r in labels.references_of(label) if 0 <= r < len(references)] for label in present}
    return {label: palette_of([references[r] for r in indices]) for label, indices in bound.items() if indices}


def snap(colours: np.ndarray, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (n, 3) moved to the palette's nearest where that is near, and which found none: uint8 (n, 3), bool (n,)."""
    white = np.full((1, 3), 255, np.uint8)
    lab, known = to_lab(colours), to_lab(np.concatenate([palette, white]))
    distance = np.linalg.norm(lab[:, None] - known[None], axis=2)
    # Paper that stays bare is in no palette; it must be very near to be meant.
    distance[:, -1] *= SNAP / SNAP_WHITE
    best = distance.argmin(axis=1)
    near = distance.min(axis=1) <= SNAP
    return np.where(near[:, None], np.concatenate([palette, white])[best], colours), ~near


def bound(
    areas: np.ndarray, count: int, palette: Palette | None, labels: np.ndarray | None, palettes: Mapping[int, Palette]
) -> Iterator[tuple[np.ndarray, Palette]]:
    """Regions (indices) with the palette they may snap to. A region belongs to the label that most of it lies in."""
    if labels is None:
        values, own = np.zeros(1, np.int64), np.zeros(count, np.int64)
    else:
        at, pixels = runs(areas, labels)
        values, index = np.unique(labels.ravel()[at], return_inverse=True)
        votes = np.bincount(areas.ravel()[at] * np.int64(len(values)) + index, pixels, count * len(values))
        own = votes.reshape(count, -1).argmax(axis=1)
    for i, value in enumerate(values):
        known = palette if labels is None else palettes.get(int(value), palette)
        if known is not None:
            yield np.flatnonzero(own == i), known


def _flat_colours(reference: Reference) -> tuple[list[tuple[tuple[int, ...], int]], float]:
    """Colours of a reference's flat areas with their pixel counts, none of a painted one; the share of paint that has them."""
    image = reference.image
    h, w = image.shape[:2]
    # A window wider than a line: lines and their anti-aliasing are nowhere flat in it.
    side = 2 * max(2, round(min(h, w) / 240)) + 1
    window = np.ones((side, side), np.uint8)
    flat = cv2.subtract(cv2.dilate(image, window), cv2.erode(image, window)).max(axis=2) <= 3
    shown = np.ones((h, w), bool) if reference.alpha is None else reference.alpha > 250
    if reference.alpha is None and _on_black(image):
        shown = image.any(axis=2)
    inside = cv2.erode(np.asarray(shown, np.uint8), window, borderType=cv2.BORDER_REPLICATE) > 0
    flat &= inside
    packed, counts = np.unique(image[flat].astype(np.int64) @ np.array([65536, 256, 1]), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:4096]
    counts = counts[order]
    colours = np.stack([packed[order] >> 16, packed[order] >> 8 & 255, packed[order] & 255], axis=1).astype(np.uint8)
    found = _peaks(colours, counts, max(12.0, 2e-5 * h * w))
    if sum(count for _, count in found) <= FLAT_ART * shown.sum():
        return [], 0.0
    # Lines are neither paint nor proof of it; a few thousand places tell the rest.
    scale = min(1.0, 360 / max(h, w))
    size = max(1, round(w * scale)), max(1, round(h * scale))
    small, there = (cv2.resize(x, size, interpolation=cv2.INTER_NEAREST) for x in (image, inside.astype(np.uint8)))
    lines = reference_lines(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    paint = small[(there > 0) & (cv2.dilate(lines, np.ones((3, 3), np.uint8)) < 40)]
    if not len(paint):
        return found, 0.0
    known = to_lab(np.array([colour for colour, _ in found], np.uint8))
    near = np.linalg.norm(to_lab(paint)[:, None] - known[None], axis=2).min(axis=1) < 3
    return found, float(near.mean())


def _on_black(image: np.ndarray) -> bool:
    """Whether this is a cut-out that stands on black: that black is no paint."""
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return bool((~rim.any(axis=1)).mean() > 0.5)


def _peaks(colours: np.ndarray, counts: np.ndarray, smallest: float) -> list[tuple[tuple[int, ...], int]]:
    """Colours (k, 3), most frequent first, that stand alone with what compression scatters around them; gradients do not."""
    lab = to_lab(colours)
    left = np.ones(len(colours), bool)
    found: list[tuple[tuple[int, ...], int]] = []
    for i in range(len(colours)):
        if not left[i] or counts[i] < 3:
            continue
        distance = np.linalg.norm(lab - lab[i], axis=1)
        core = counts[distance <= 2].sum()
        left &= distance > 3
        if core >= smallest and core > 0.6 * counts[distance <= 6].sum():
            found.append((tuple(colours[i].tolist()), int(core)))
        if len(found) >= 64:
            break
    return found
