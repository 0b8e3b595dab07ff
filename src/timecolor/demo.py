"""The main job on a drawn shot, with its truth known: files in, video, contact sheet and figures out."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from timecolor.colorize import Colorizer, Coloured
from timecolor.evaluate import contact_sheet, copy_baseline, psnr, share_within
from timecolor.media import write_clip, write_image
from timecolor.shotfiles import load_shot
from timecolor.world import HELD_OUT_SEED, World

SIZE = (480, 720)


def run(folder: Path, index: int, show: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Draw shot `index` of the held-out world at 480x720, colour it from its files, and measure it against the truth."""
    shot, truth = World(HELD_OUT_SEED, *SIZE).shot(index).to_shot("multi-reference")
    source = folder / "shot"
    for left in (*source.glob("references/[0-9]_*.png"), *source.glob("labels/[0-9]*.png")):  # of a demo of another shot
        left.unlink()
    write_clip(f"{source}/sketch/", shot.sketch, shot.frame_rate, overwrite=True)
    for r, reference in enumerate(shot.references):
        image = reference.image if reference.alpha is None else np.dstack([reference.image, reference.alpha])
        write_image(source / "references" / f"{r}_{reference.role}.png", image, overwrite=True)
    assert shot.labels is not None  # a multi-reference shot has them
    for i, labels in enumerate(shot.labels.video[0 : len(truth)]):
        write_image(source / "labels" / f"{i:06}.png", labels.astype(np.uint8), overwrite=True)

    loaded = load_shot(source).shot
    colorizer = Colorizer.load("toon")
    frames = []
    for event in colorizer.stream(loaded):
        if isinstance(event, Coloured):
            frames.append(event.frame)
        else:
            show(event.stage, event.done, event.total)
    result = np.stack(frames)
    pasted = copy_baseline(loaded)
    figures = {
        "index": index,
        "seed": HELD_OUT_SEED,
        "figures": {name: _figures(clip, truth) for name, clip in (("timecolor", result), ("copy", pasted))},
    }
    write_clip(folder / "coloured.mp4", result, Fraction(shot.frame_rate), overwrite=True)
    write_clip(folder / "truth.mp4", truth, Fraction(shot.frame_rate), overwrite=True)
    picked = np.linspace(0, len(truth) - 1, 5).astype(int)
    rows = [
        ("references", [r.on_black for r in loaded.references]),
        ("sketch", list(np.asarray(loaded.sketch[0 : len(truth)])[picked])),
        ("timecolor", list(result[picked])),
        ("truth", list(truth[picked])),
    ]
    write_image(folder / "sheet.png", contact_sheet(rows, cell=(160, 240)), overwrite=True)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1))
    return figures


def _figures(clip: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {"PSNR (dB)": round(psnr(clip, truth), 2), "within dE 10 (%)": round(100 * share_within(clip, truth), 1)}
