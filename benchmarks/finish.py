"""The finish at 1080p and 4K: seconds a frame within a whole run of the embedded model, by a coloured frame and by references."""

import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import record
from speed import scene, timed, wanted

from timecolor.colorize import Colorizer
from timecolor.finish import Finisher
from timecolor.world.scene import ReferenceForm

SIZES = ((1080, 1920), (2160, 3840))
QUICK_SIZES = ((96, 160),)
FRAMES = 3
FORMS: tuple[ReferenceForm, ...] = ("start frame", "multi-reference")


def measure(colorizer: Colorizer, size: tuple[int, int], form: ReferenceForm, options) -> dict[str, Any]:
    """A drawn shot with two characters and a new drawing in every frame: seconds of each call of the finish, and of all."""
    shot, _ = scene(*size, FRAMES, options.seed).to_shot(form)
    how = wanted(options)
    seconds: list[float] = []
    plain = Finisher.__call__

    def watched(self: Finisher, *given: Any) -> np.ndarray:
        took, frame = timed(lambda: plain(self, *given))
        seconds.append(took)
        return frame

    Finisher.__call__ = watched
    try:
        total, frames = timed(lambda: colorizer.colorize(shot, how))
    finally:
        Finisher.__call__ = plain
    assert frames.shape == (FRAMES, *size, 3)
    return {"size": size, "form": form, "finish_s": median(seconds), "all_finish_s": seconds, "shot_s_a_frame": total / FRAMES}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = record.parser("finish", (__doc__ or "").splitlines()[0])
    options = parser.parse_args(argv)
    colorizer = Colorizer.load(options.model, "cpu")
    cases = []
    for size in QUICK_SIZES if options.quick else SIZES:
        for form in FORMS:
            cases.append(measure(colorizer, size, form, options))
            print(f"{size[1]}x{size[0]}, {form}: done", file=sys.stderr)
    heads = ["size", "reference", "finish (s a frame)", "all (s a frame)"]
    rows = [[f"{c['size'][1]}x{c['size'][0]}", c["form"], c["finish_s"], c["shot_s_a_frame"]] for c in cases]
    print(record.table(heads, rows))
    record.write(options.out, options, argv, {"cases": cases})


if __name__ == "__main__":
    main()
