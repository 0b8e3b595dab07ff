"""Coarse colours from a model + the artist's line art → the final frame, at the sketch's own size.

The model says which colour an area has, the sketch says where the area ends. Closed regions of the sketch take one colour each:
the one that explains the model's cells best, a cell that straddles regions being taken as their mixture. Where a region's colours
really vary, what one colour leaves unexplained is spread up to its lines and never across. The lines are the sketch's own, never
redrawn. Pure functions of one frame.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

from timecolor.choice import PLATE, SOURCES, Choose
from timecolor.finish.cells import Cells, coarse
from timecolor.finish.held import Held, over, over_place
from timecolor.finish.ink import Ink, regions_in
from timecolor.finish.offers import offers
from timecolor.finish.palettes import Palette, bound, palette_of, palettes_of, snap
from timecolor.finish.parts import parted
from timecolor.finish.pixels import painted_in, uint8
from timecolor.finish.plates import Place, Placed, Plate, exactly, plate_of, set_in, take_detail
from timecolor.finish.strokes import Strokes
from timecolor.finish.votes import Vote
from timecolor.pairing import Drawn
from timecolor.propagation import Way, fetched, resized, warp
from timecolor.shapes import Float
from timecolor.shot import Shot

Lines = Literal["match", "keep", "model", "none"]
Fill = Literal["flat", "smooth", "auto"]
PaletteMode = Literal["snap", "free"]

# A region of at least this share of the frame that takes a plate's colour, but has less than so much of it there, is not flat.
WIDE, MIXED = 0.002, 0.6


@dataclass(frozen=True, slots=True)
class FinishOptions:
    """How the final frame is made.

    lines: "match" = the sketch's own lines on top, in the colour and as strong as a coloured frame of the shot has them, without
    those that references do not show, as borders of shade, and what a drawing holds of a frame as it is there; "keep" = as they
    are, to the byte; "none" = the colour layer alone; "model" = the model's picture, only resized.
    fill: "flat" = one colour a region; "smooth" = colours vary inside every region; "auto" = only where they vary beyond noise.
    palette: "snap" = a region near a flat colour of its references takes exactly that colour; "free" = colours stay as found.
    """

    lines: Lines = "match"
    fill: Fill = "auto"
    palette: PaletteMode = "snap"


def finish(
    colours: np.ndarray,
    sketch: np.ndarray,
    options: FinishOptions = FinishOptions(),
    palette: Palette | None = None,
    labels: np.ndarray | None = None,
    palettes: Mapping[int, Palette] | None = None,
    plates: Sequence[Plate] = (),
    votes: Sequence[Vote] = (),
    choose: Choose | None = None,
    placed: Sequence[Placed] = (),
    strokes: Strokes | None = None,
    held: Sequence[Held] = (),
) -> np.ndarray:
    """The final frame, uint8 (h, w, 3).

    colours: float (h', w', 3) in [0, 1], any size; fills as if no lines were there. sketch: uint8 (h, w, 3).
    palette: of all references, None = not known. labels: integers (h, w), None = none.
    palettes: label -> its palette; a region of a label named here snaps to that palette alone, any other to `palette`.
    plates: pictures that show the place; where the fills agree with one, its detail is taken.
    votes: on the colours of small regions, which `colours` mixes with those around them; of areas that do not overlap, all of one
    grid. choose: between a region's own colour, votes and plates; None = its own.
    placed: pictures that are known to be seen; not where flat fills are asked for. strokes: how the lines are to look, None = as
    they are. held: coloured frames of which this drawing may hold something. These, and the lines of
    what is placed, are not asked where lines are left as they are or fills are to be flat.
    """
    h, w = sketch.shape[:2]
    if options.lines == "model":
        how = cv2.INTER_AREA if h < colours.shape[0] or w < colours.shape[1] else cv2.INTER_CUBIC
        return uint8(cv2.resize(colours.astype(np.float32), (w, h), interpolation=how))
    ink = Ink.of(sketch)
    areas, seen = regions_in(ink.opacity), coarse(colours, h, w)
    if options.fill == "auto":
        # Colours that are nothing but votes are told apart by these.
        areas = parted(areas, [vote for vote in votes if vote.mixed] or [Vote.of(seen)])
    cells = Cells.of(seen, areas)
    bindings = list(bound(areas, cells.areas, palette, labels, palettes or {}))
    stray, painted = np.zeros(cells.areas, bool), np.zeros(cells.areas, bool)
    for mine, known in bindings:
        painted[mine] = not len(known.colours)
    found, blur = cells.unmix(painted)
    sure, patterned = np.zeros(cells.areas, bool), np.zeros(cells.areas, bool)
    if choose is not None and (votes or plates):
        offered = offers(found, cells, areas, ink.opacity, plates, labels, votes)
        chosen = choose(offered)
        other = chosen > 0
        found[offered.regions[other]] = offered.colours[other, chosen[other]]
        sure[offered.regions[other]] = True
        mixed = other & (offered.most[np.arange(len(chosen)), chosen] < MIXED) & (chosen >= PLATE) & (offered.size >= WIDE)
        patterned[offered.regions[mixed]] = True
    flat = uint8(found)
    for mine, known in bindings:
        snapped, stray[mine] = snap(flat[mine], known.colours)
        if known.complete:
            closed = mine[cells.closed(found)[mine]]
            stray[closed], sure[closed] = False, True
            patterned[mine] = False
        if options.palette == "snap":
            flat[mine] = snapped
    fills = painted_in(flat, areas)
    loose = stray | painted | patterned  # regions that are not one flat colour
    if options.fill == "auto":
        shading = cells.shading(found, blur)
        varying = shading.varying(stray, painted)
        varying = varying[~sure[varying]]  # where references are flat all over, what varies is the model's doubt
        shading.paint(fills, areas, varying)
        loose[varying] = True
    elif options.fill == "smooth":
        cells.shading(found, blur).paint(fills, areas, np.arange(cells.areas))
        loose[:] = True
    if plates and options.fill != "flat":
        take_detail(fills, np.clip(colours, 0, 1), plates, loose[areas], labels)
    if placed and options.fill != "flat":
        fills = set_in(fills, placed, ink.opacity, areas, loose)
    if options.lines == "none":
        return fills
    if options.lines == "keep":
        return ink.over(fills)
    picture = ink.over(fills) if strokes is None else strokes.over(ink, fills, labels)
    if options.fill == "flat":
        return picture
    for place in placed:
        if place.sharp:
            picture = over_place(picture, sketch, place.picture, place.at)
    return over(picture, held, ink, fills, np.clip(colours, 0, 1).astype(np.float32)) if held else picture


@dataclass(frozen=True, slots=True, eq=False)
class Finisher:
    """The finish stage of one shot: what its references tell of palettes and of the place, found once.

    palette: of a shot without labels; palettes: by label. None where they do not apply. strokes: how the lines are to look.
    """

    options: FinishOptions
    palette: Palette | None
    palettes: Mapping[int, Palette] | None
    plates: Sequence[Plate]
    choose: Choose | None = None
    strokes: Strokes | None = None
    held: Mapping[int, Held] = field(default_factory=dict)  # by plate

    @staticmethod
    def of(
        shot: Shot,
        present: Iterable[int] = (),
        options: FinishOptions = FinishOptions(),
        choose: Choose | None = None,
        strokes: Strokes | None = None,
        paired: Mapping[int, Drawn] | None = None,
    ) -> "Finisher":
        """present: the labels that the shot's label video holds. choose, strokes: as in `finish`.

        paired: the drawings that references by number were made on, where known (`pairing.paired`).
        """
        height, width = shot.sketch.shape[1:3]
        labels, present, paired = shot.labels, list(present), paired or {}
        plates = [
            plate_of(r, height, width, labels and frozenset(k for k in present if i in labels.references_of(k)), paired.get(i))
            for i, r in enumerate(shot.references)
        ]
        shown = [(i, plate) for i, plate in enumerate(plates) if plate is not None]
        held = {at: Held.of(shot.references[i], plate.picture, paired[i]) for at, (i, plate) in enumerate(shown) if i in paired}
        return Finisher(
            options,
            palette_of(shot.references) if shot.references and labels is None else None,
            None if labels is None else palettes_of(shot.references, labels, present),
            [plate for _, plate in shown],
            choose,
            strokes,
            {at: one for at, one in held.items() if one is not None},
        )

    def __call__(
        self,
        colours: np.ndarray,
        sketch: np.ndarray,
        labels: np.ndarray | None = None,
        ways: Sequence[Sequence[Way]] = (),
        votes: Sequence[Vote] = (),
        places: Sequence[Place | None] = (),
        moves: Sequence[Float[np.ndarray, "y x 2"] | None] = (),
    ) -> np.ndarray:
        """`finish` with what is known of the shot. labels: the frame's, where the shot has any.

        ways: for each plate those in which it may lie on this frame, as it stands first, at any size; none = as it stands.
        votes: as in `finish`. places: for each plate where it is known to be seen; None, or none at all = not known. moves: for
        each plate the flow of the camera's move, roughly, at any size; None, or none at all = it stands still.
        """

        def seen(picture: np.ndarray, flow: np.ndarray | None) -> np.ndarray:
            return picture if flow is None else warp(picture, resized(flow, *sketch.shape[:2]))

        plates = []
        for plate, its in zip(self.plates, ways or [[Way()]] * len(self.plates), strict=True):
            for i, way in enumerate(its):
                plates.append(Plate(seen(plate.picture, way.flow), plate.labels, min(PLATE + i, SOURCES - 1), way.misfit))
        known = [(plate, place) for plate, place in zip(self.plates, places, strict=False) if place is not None]
        placed = []
        for plate, place in known:
            assert plate.lined is not None  # places are background plates'
            assert plate.lines is not None
            picture, lined = plate.picture, plate.lined
            if place.flow is not None:
                exact = exactly(plate.lines, sketch, place.flow, place.at)
                flow = resized(place.flow, *sketch.shape[:2]) if exact is None else exact
                picture, lined = warp(picture, flow), fetched(lined, flow)
            placed.append(Placed(picture, place.at, lined, plate.sharp))
        held = list(self.held.values())
        if self.options.lines == "match" and self.options.fill != "flat":
            moved = (one.along(move, sketch) for i, one in self.held.items() if (move := moves[i] if moves else None) is not None)
            held += [one for one in moved if one is not None]
        return finish(
            colours,
            sketch,
            self.options,
            self.palette,
            labels,
            self.palettes,
            plates,
            votes,
            self.choose,
            placed,
            self.strokes,
            held,
        )
