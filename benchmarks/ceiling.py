"""What true colours would reach on the world: the finish stage is given them in the place of a model's, as finely.

The finish draws the sketch's own lines as references have them, but where the sketch has them, so no method can be perfect.
"""

from collections.abc import Sequence
from typing import get_args

import cv2
import numpy as np
import record

from timecolor.evaluate.protocols import Protocol, Selection, sources
from timecolor.evaluate.run import Measures, Yardstick
from timecolor.finish import Finisher, FinishOptions, Lines, Strokes
from timecolor.matcher import STRIDE
from timecolor.matching import SHORT_SIDE
from timecolor.shot import Shot
from timecolor.sketch import reference_lines
from timecolor.world import HELD_OUT_SEED, World

PROTOCOLS: tuple[Protocol, ...] = ("start frame", "arbitrary frame", "multi-reference with labels")
SMALL = 160  # short side at which a frame's drawing is sought
WANTED = ("psnr", "painted_psnr", "segment_accuracy_10", "segment_area_10", "leak_rate")


def main(argv: Sequence[str] | None = None) -> None:
    """Print and write the means over shots."""
    options = record.parser("ceiling", __doc__ or "", model=False)
    options.add_argument("--shots", type=int, default=64)
    options.add_argument("--frames", type=int, default=5)
    options.add_argument("--lines", choices=get_args(Lines)[:2], default="match")
    given = options.parse_args(argv)
    shots, frames = (2, 2) if given.quick else (given.shots, given.frames)
    selection = Selection(shots=shots, frames=frames)
    world = World(HELD_OUT_SEED, selection.height, selection.width, frames)
    found: dict[str, list[list[float]]] = {}
    for source in sources("world", selection, given.seed):
        drawn = world.shot(int(source.name.partition("/")[2]))
        fills = [drawn.render(t).fills for t in range(frames)]
        size = round(selection.width * SHORT_SIDE / selection.height) // STRIDE, SHORT_SIDE // STRIDE
        cells = [cv2.resize(f, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255 for f in fills]
        for protocol in (p for p in PROTOCOLS if p in source.protocols):
            case = source.case(protocol)
            labels = None if case.shot.labels is None else np.asarray(case.shot.labels.video[0:frames])
            sketch = np.asarray(case.shot.sketch[0:frames])
            present = [] if labels is None else np.unique(labels).tolist()
            strokes = _strokes(case.shot, sketch, present) if given.lines == "match" else None
            finisher = Finisher.of(case.shot, present, FinishOptions(given.lines), strokes=strokes)
            made = [finisher(cells[t], sketch[t], None if labels is None else labels[t]) for t in range(frames)]
            values, _ = Yardstick(case, Measures([])).values(np.stack(made), case.scored)
            found.setdefault(protocol, []).append([np.nan if values[k] is None else values[k] for k in WANTED])
    means = {p: dict(zip(WANTED, np.nanmean(np.array(rows, float), axis=0).tolist(), strict=True)) for p, rows in found.items()}
    print(record.table(["protocol", "shots", *WANTED], [[p, len(found[p]), *m.values()] for p, m in means.items()]))
    record.write(given.out, given, argv, {"shots": shots, "frames": frames, "means": means})


def _strokes(shot: Shot, sketch: np.ndarray, present: Sequence[int]) -> Strokes | None:
    """How references show the lines, as the embedded model's finish is told."""
    height, width = sketch.shape[1:3]
    size = round(width * SMALL / height), SMALL
    drawings = [cv2.resize(drawing, size, interpolation=cv2.INTER_AREA) for drawing in sketch]
    whole = {r: reference.image for r, reference in enumerate(shot.references) if reference.shows_frame(height, width)}
    lines = {r: reference_lines(cv2.resize(image, size, interpolation=cv2.INTER_AREA)) for r, image in whole.items()}
    return Strokes.of(shot, lines, drawings, range(len(drawings)), present)


if __name__ == "__main__":
    main()
