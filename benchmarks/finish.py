"""The finish at 1080p and 4K, one frame at a time, and whole runs of the embedded model, by a frame and by references."""

import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import record
from speed import scene, timed, wanted

from timecolor import finishing
from timecolor.colorize import Colorizer
from timecolor.finish import Finisher
from timecolor.world.scene import ReferenceForm

SIZES = ((1080, 1920), (2160, 3840))
QUICK_SIZES = ((96, 160),)
FRAMES = 4
FORMS: tuple[ReferenceForm, ...] = ("start frame", "multi-reference")


def measure(colorizer: Colorizer, size: tuple[int, int], form: ReferenceForm, options) -> dict[str, Any]:
    """A drawn shot with two characters and a new drawing in every frame: seconds of each call of the finish, and of all.

    Calls are timed where no two run at once, which a whole run has as it comes.
    """
    shot, _ = scene(*size, FRAMES, options.seed).to_shot(form)
    how = wanted(options)
    seconds: list[float] = []
    plain = Finisher.__call__

    def watched(self: Finisher, *given: Any) -> np.ndarray:
        took, frame = timed(lambda: plain(self, *given))
        seconds.append(took)
        return frame

    at_once = finishing.AT_ONCE
    Finisher.__call__, finishing.AT_ONCE = watched, 1
    try:
        alone, one_by_one = timed(lambda: colorizer.colorize(shot, how))
    finally:
        Finisher.__call__, finishing.AT_ONCE = plain, at_once
    total, frames = timed(lambda: colorizer.colorize(shot, how))
    assert frames.shape == (FRAMES, *size, 3)
    assert np.array_equal(frames, one_by_one)
    return {
        "size": size,
        "form": form,
        "finish_s": median(seconds),
        "all_finish_s": seconds,
        "one_by_one_s_a_frame": alone / FRAMES,
        "shot_s_a_frame": total / FRAMES,
    }


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
    heads = ["size", "reference", "finish (s a frame)", "all, one by one (s a frame)", "all (s a frame)"]
    told = ("form", "finish_s", "one_by_one_s_a_frame", "shot_s_a_frame")
    rows = [[f"{c['size'][1]}x{c['size'][0]}", *(c[key] for key in told)] for c in cases]
    print(record.table(heads, rows))
    record.write(options.out, options, argv, {"cases": cases})


if __name__ == "__main__":
    main()
