"""What references tell of each drawing of a shot: colours that are carried to it, votes, places and moves.

Not in the TimeColor paper. They are set in the place of the embedded model's colours, and the finish is told the rest.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from timecolor import codec, propagation, trust
from timecolor.denoiser import Model, Picture
from timecolor.finish import Place, Vote, regions
from timecolor.geometry import Clip
from timecolor.matching import Area, Carrier, Followed, clip_of, with_plate
from timecolor.pairing import Drawn, mask_at
from timecolor.shot import Shot


class Made(NamedTuple):
    """A drawing's colours, float (y, x, 3), and what the finish is told beside them."""

    colours: np.ndarray
    ways: Sequence[Sequence[propagation.Way]] = ()
    votes: Sequence[Vote] = ()
    places: Sequence[Place | None] = ()
    moves: Sequence[np.ndarray | None] = ()


class Carrying:
    """What references tell of each drawing of a shot, set in the place of the embedded model's colours.

    whole: pictures that show the frame, at the working size, and tracks: their flows onto each drawing. labels: those present.
    ground: grey level behind cut-outs. paired: the drawings, by reference, on which frames were made.
    """

    def __init__(
        self,
        model: Model,
        shot: Shot,
        whole: Mapping[int, Picture],
        tracks: Mapping[int, Sequence[np.ndarray]],
        working: Clip,
        labels: Iterable[int],
        ground: int,
        paired: Mapping[int, Drawn],
    ) -> None:
        frames, height, width = shot.sketch.shape[:3]
        native = Clip(frames, height, width)
        self._shot, self._whole, self._tracks, self._working = shot, whole, tracks, working
        self._native, self._fine = native, clip_of(native)
        frames_only = len(whole) == len(shot.references)
        self._carrier, self._plates, self._trust, self._followed, self._paired = None, {}, model.trust, False, set(paired)
        if model.matcher is None or not shot.references:
            return
        self._seen = [codec.letterbox(r, self._fine, native, ground, paired.get(i)) for i, r in enumerate(shot.references)]
        self._plates = _plates(shot, labels, whole)
        # Frames of the shot are followed cell by cell, also where sheets and a plate lie beside them; a picture that does not say
        # what it is may be a plate, then. Frames that labels name are left to the model and its hints.
        free = shot.labels is None and self._trust is not None
        self._followed = frames_only or (free and any(shot.references[r].role == "frame" for r in whole))
        if shot.labels is None or not frames_only:
            paper = shot.labels is None and ground > 0  # then the white around a sheet is the place behind
            shows = [picture.shown | paper for picture in self._seen]
            behind = None if self._followed else [~picture.shown | (r in whole) for r, picture in enumerate(self._seen)]
            if self._followed:
                self._frame_areas = {r: trust.frame_areas(picture.lines) for r, picture in whole.items()}
            self._carrier = Carrier(model.matcher, self._seen, shows, behind, paper)

    def __call__(self, cells: np.ndarray, original: np.ndarray, labels: np.ndarray | None, drawing: np.ndarray, at: int) -> Made:
        """cells: the model's colours of drawing number `at`. original: the drawing as it is; drawing: at the working size."""
        votes, behind = (), np.zeros((1, 1), bool)
        flows = {r: flows_of(picture, drawing, self._tracks[r][at]) for r, picture in self._whole.items()}
        ways = [propagation.ways(picture.lines, drawing, flows[r]) for r, picture in self._whole.items()]
        everywhere, follows = np.ones(drawing.shape[:2], bool), self._whole if self._followed else self._paired
        moves = [
            propagation.camera(picture.lines, drawing, flows[r], everywhere) if r in follows else None
            for r, picture in self._whole.items()
        ]
        if self._carrier is not None:
            large = codec.shrink(original[None], self._fine)[0]
            lines, closed = propagation.ink(large), regions(large)
            if not self._followed:
                areas = _areas(self._shot, labels, self._fine, self._whole)
                cells, votes, behind = self._carrier.recoloured(cells, lines, areas, closed)
            elif self._trust is not None:
                found = self._carrier.followed(lines, tuple(range(len(self._seen))), self._whole)
                if found is not None:
                    cells, votes = self._trusted(cells, drawing, closed, ways, moves, found), (found.vote,)
        places = []
        for r, picture in self._whole.items():
            shown = behind if labels is None else np.isin(labels, self._plates.get(r, []))
            if r not in self._plates or not shown.any():
                places.append(None)
                continue
            moved = propagation.camera(picture.lines, drawing, flows[r], _at(shown, self._working))
            shown = _at(shown, self._native)
            if moved is not None:
                shown &= _at(propagation.covered(moved), self._native)
            cells = with_plate(cells, self._seen[r].fills, moved, _at(shown, self._fine))
            places.append(Place(shown, moved))
        return Made(cells, ways, votes, places, moves)

    def _trusted(
        self,
        cells: np.ndarray,
        drawing: np.ndarray,
        closed: np.ndarray,
        ways: Sequence[Sequence[propagation.Way]],
        moves: Sequence[np.ndarray | None],
        found: Followed,
    ) -> np.ndarray:
        """The model's cells of a drawing, or finer ones, each from the picture that is trusted there. closed: its regions."""
        assert self._trust is not None
        height, width = drawing.shape[:2]
        ink = propagation.ink(drawing)
        views: list[trust.View] = []
        for (r, picture), its, moved in zip(self._whole.items(), ways, moves, strict=True):
            likeness, areas = found.likeness[r], self._frame_areas[r]
            likely = propagation.resized(likeness.flow(), height, width)
            more = [propagation.refined(picture.lines, ink, likely)]
            more += [] if moved is None else [moved]
            its = [*its, *propagation.ways(picture.lines, drawing, more)[1:]]
            seen = trust.views(picture.fills, areas, its, r in self._paired, likeness.along)
            views += seen
            if r in self._paired:  # else lines are sought, and what was not found there has not left
                placed = [(seen[0], picture.lines)]
                if moved is not None:  # or it is a figure's, and the place stands still
                    placed.append((seen[-1], propagation.warp(picture.lines, moved)))
                left = (trust.behind(view.fills, lines, view.areas, drawing, view.like) for view, lines in placed)
                views += [gone for gone in left if gone is not None]
        areas = cv2.resize(closed, (width, height), interpolation=cv2.INTER_NEAREST)
        offers = trust.offers(cells, drawing, areas, views, found.vote)
        return trust.taken(offers, self._trust(offers))


def track_of(picture: Picture, drawings: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The picture's flow onto each drawing, followed from one to the next; float16, since all are kept."""
    views = [propagation.ink(drawing) for drawing in drawings]
    return [flow.astype(np.float16) for flow, _ in propagation.follow(picture.lines, views)]


def flows_of(picture: Picture, drawing: np.ndarray, track: np.ndarray) -> list[np.ndarray]:
    return [*propagation.flows(picture.lines, drawing), track.astype(np.float32)]


def _plates(shot: Shot, labels: Iterable[int], whole: Collection[int]) -> dict[int, list[int]]:
    """Plates that alone may colour what they show, and the labels that name them.

    Without labels, the plate that alone shows a whole frame: what the matcher sees behind may be a figure in another.
    """
    if shot.labels is None:
        return {r: [] for r in whole if len(whole) == 1 and shot.references[r].role == "background"}
    named: dict[int, list[int]] = {}
    for label in sorted(labels):
        own = shot.labels.references_of(label)
        if len(own) == 1 and shot.references[own[0]].role == "background":
            named.setdefault(own[0], []).append(label)
    return named


def _at(mask: np.ndarray, clip: Clip) -> np.ndarray:
    return mask_at(mask, clip.height, clip.width)


def _areas(shot: Shot, labels: np.ndarray | None, clip: Clip, whole: Collection[int]) -> list[Area]:
    """What cut-outs may colour of a drawing, at a size. whole: references that show the frame, which hints follow better."""
    if labels is None:
        return [Area(np.ones((clip.height, clip.width), bool), tuple(range(len(shot.references))))]
    assert shot.labels is not None
    labels, found = codec.labels_at(labels, clip), []
    for label in np.unique(labels).astype(int).tolist():
        own = shot.labels.references_of(label)
        if own and not any(r in whole for r in own):
            found.append(Area(labels == label, own))
    return found
