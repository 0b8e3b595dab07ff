"""Two characters whose references are exchanged: their colours must follow, and stay within their areas.

Held-out shots of the world with two characters: as they are, and with each character's label bound to the other's reference.
Counted over the characters' painted pixels: whose palette is the nearer one (CIEDE2000), that of the reference which the label
names or that of the other character's; and how many are nearer, by more than 5, to any other reference's than to that one's.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import record

from timecolor.colorize import ColorizeOptions, Colorizer
from timecolor.evaluate.metrics import colours_of, strangeness
from timecolor.shot import Labels
from timecolor.world import HELD_OUT_SEED, World

FIRST = 1000
MARGIN = 5.0
LEAST = 200  # pixels that each of the two must have


def main(argv: Sequence[str] | None = None) -> None:
    """Print and write shares over shots."""
    options = record.parser("swap", __doc__ or "")
    options.add_argument("--shots", type=int, default=16)
    options.add_argument("--frames", type=int, default=5)
    given = options.parse_args(argv)
    wanted, frames = (1, 2) if given.quick else (given.shots, given.frames)
    world = World(HELD_OUT_SEED, *((64, 96) if given.quick else (256, 384)), frames)
    colorizer = Colorizer.load(given.model)
    rows: list[list[float]] = []
    names: list[int] = []
    index = FIRST - 1
    while len(rows) < wanted:
        index += 1
        drawn = world.shot(index)
        if drawn.characters != 2:
            continue
        shot, _ = drawn.to_shot("multi-reference")
        rendered = [drawn.render(t) for t in range(frames)]
        labels = np.stack([r.labels for r in rendered]).astype(np.int32)
        lines = np.stack([np.abs(r.colour.astype(int) - r.fills).max(axis=2) > 12 for r in rendered])
        if min((labels == k).sum() for k in (1, 2)) < LEAST * (0.05 if given.quick else 1):
            continue
        palettes = [colours_of([(r.image, r.alpha)]) for r in shot.references]
        inside = (labels > 0) & ~lines
        row: list[float] = []
        for bound in ({0: 0, 1: 1, 2: 2}, {0: 0, 1: 2, 2: 1}):
            told = replace(shot, labels=Labels(labels, {k: (r,) for k, r in bound.items()}))
            made = colorizer.colorize(told, ColorizeOptions(seed=given.seed))
            pair = strangeness(made[inside], labels[inside], {k: palettes[bound[k]] for k in (1, 2)})
            every = strangeness(made[inside], labels[inside], {k: palettes[r] for k, r in bound.items()})
            row += [float((pair < 0).mean()), float((pair > 0).mean()), float((every > MARGIN).mean())]
        rows.append(row)
        names.append(index)
    heads = ["named", "other", "strange"]
    plain, swapped = (
        dict(zip(heads, np.mean(part, axis=0).tolist(), strict=True)) for part in np.split(np.array(rows), 2, axis=1)
    )
    print(record.table(["references", *heads], [["as they are", *plain.values()], ["exchanged", *swapped.values()]]))
    record.write(given.out, given, argv, {"shots": names, "frames": frames, "plain": plain, "swapped": swapped, "rows": rows})


if __name__ == "__main__":
    main()
