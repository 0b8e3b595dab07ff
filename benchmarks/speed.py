"""Speed and memory of the embedded model at 480x720, three references: a cached step against a joint one, and whole shots.

Whole shots run in processes of their own, so that their peak memory is that of the program and nothing else.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import record
import torch
from torch import Tensor

from timecolor import codec, propagation
from timecolor.colorize import ColorizeOptions, Colorizer, Coloured, Progress
from timecolor.correspondence import Regime, Rule, label_bits, shot_tokens
from timecolor.denoiser import Conditions
from timecolor.geometry import Clip
from timecolor.layout import TokenLayout
from timecolor.shot import Shot
from timecolor.world import HELD_OUT_SEED, World, WorldShot

SIZE = (480, 720)
FRAMES = (17, 49)
QUICK_SIZE = (64, 96)
QUICK_FRAMES = (3, 7)
CHARACTERS = 2  # with the plate: three references


def scene(height: int, width: int, frames: int, seed: int) -> WorldShot:
    """The first held-out shot from `seed` on with two characters and a new drawing in every frame, so that nothing is held."""
    world = World(HELD_OUT_SEED, height, width, frames)
    return next(s for i in range(seed, seed + 1000) if (s := world.shot(i)).characters == CHARACTERS and s.hold == 1)


def wanted(options) -> ColorizeOptions:
    """Default options; only --quick works smaller."""
    return ColorizeOptions(seed=options.seed, size=32 if options.quick else None)


def conditions(
    colorizer: Colorizer, frames: int, size: tuple[int, int], how: ColorizeOptions, seed: int
) -> tuple[Conditions, Tensor]:
    """What the denoiser is told of a drawn shot at the model's working size, and noise."""
    model, how = colorizer.model, how.settled(colorizer.model)
    working = colorizer.need(Clip(frames, *size), CHARACTERS + 1, how).working
    shot, _ = scene(working.height, working.width, frames, seed).to_shot("multi-reference")
    assert shot.labels is not None  # a multi-reference shot has them
    grid = model.compression.grid(working)
    labels = torch.from_numpy(np.asarray(shot.labels.video).astype(np.int64))
    bits = label_bits(labels, shot.labels.references_of, model.compression, how.cells or "coverage")
    layout = TokenLayout(grid, len(shot.references))
    pictures = [codec.letterbox(r, working) for r in shot.references]
    to = {"device": model.device, "dtype": model.dtype}
    plate = pictures[0]
    ways = [propagation.flows(plate.lines, drawing) for drawing in np.asarray(shot.sketch)]
    hints = [propagation.candidates(plate.fills, plate.lines, flows) for flows in ways]
    given = Conditions(
        layout,
        shot_tokens(layout, bits[None]),
        model.encode_sketch(np.asarray(shot.sketch)).to(**to),
        model.encode_references(pictures, working).to(**to),
        Rule(how.regime or "cached", None if how.window in (None, "all") else int(how.window)),
        hints=codec.encode_hints(np.stack(hints)).to(**to),
        hint_of=torch.zeros(1, propagation.CANDIDATES, dtype=torch.long),
    )
    return given, model.noise(grid, seed, 0).to(**to)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


@torch.inference_mode()
def steps(options, dtype: str, window: int | None) -> dict[str, Any]:
    """Time of one step, cached and joint in turns, with the same weights on the same shot."""
    colorizer = Colorizer.load(options.model, "cpu", dtype)
    frames, size = (QUICK_FRAMES[0], QUICK_SIZE) if options.quick else (FRAMES[0], SIZE)
    given, latents = conditions(colorizer, frames, size, wanted(options), options.seed)
    model, now = colorizer.model.denoiser, torch.ones(1)
    regimes: tuple[Regime, ...] = ("cached", "joint")
    ready, caches = {}, {}
    for regime in regimes:
        ready[regime], caches[regime] = timed(lambda r=regime: model.prepare(replace(given, rule=Rule(r, window))))
    seconds: dict[str, list[float]] = {regime: [] for regime in regimes}
    for turn in range(options.repeat + 1):
        for regime in regimes:
            took, _ = timed(lambda r=regime: model.predict(latents, now, caches[r]))
            if turn:  # the first warms up
                seconds[regime].append(took)
    middle = {regime: median(took) for regime, took in seconds.items()}
    return {
        "dtype": str(colorizer.model.dtype).removeprefix("torch."),
        "window": window,
        "tokens": given.layout.tokens,
        "target": given.layout.grid.tokens,
        "prepare_s": ready,
        "step_s": middle,
        "all_step_s": seconds,
        "ratio": middle["joint"] / middle["cached"],
    }


@torch.inference_mode()
def agreement(options) -> dict[str, Any]:
    """Cached against uncached evaluation of the same rule, float32: the whole sequence through `Toon.forward` with masks."""
    colorizer = Colorizer.load(options.model, "cpu", "float32")
    frames, size = (QUICK_FRAMES[0], QUICK_SIZE) if options.quick else (FRAMES[0], SIZE)
    given, latents = conditions(colorizer, frames, size, wanted(options), options.seed)
    model, now = colorizer.model.denoiser, torch.full((1,), 0.75)
    cached = model.predict(latents, now, model.prepare(given))
    took, uncached = timed(lambda: model(latents, now, given))
    return {
        "max_difference": float((cached - uncached).abs().max()),
        "largest_value": float(uncached.abs().max()),
        "uncached_s": took,
    }


def whole(options, frames: int) -> dict[str, Any]:
    """Wall time of a shot through the façade, by stage, and the peak memory of this process."""
    size = QUICK_SIZE if options.quick else SIZE
    shot, _ = scene(*size, frames, options.seed).to_shot("multi-reference")
    loading, colorizer = timed(lambda: Colorizer.load(options.model, "cpu", options.dtype))
    model = colorizer.model.denoiser
    inside = {"preparing": 0.0, "sampling": 0.0}

    def watched(stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            took, result = timed(lambda: work(*given))
            inside[stage] += took
            return result

        return run

    model.prepare = watched("preparing", model.prepare)
    model.predict = watched("sampling", model.predict)
    reading, matching, total, drawn = split(colorizer, shot, wanted(options))
    assert drawn == frames
    finishing = total - reading - matching - sum(inside.values())
    stages = {"reading": reading, "matching": matching, **inside, "finishing": finishing}
    peak = record.peak_bytes() / record.MIB
    return {"frames": frames, "seconds": total, "loading_s": loading, "stages": stages, "peak_mib": peak}


def split(colorizer: Colorizer, shot: Shot, how: ColorizeOptions) -> tuple[float, float, float, int]:
    """Seconds until the shot is read, of matching its references, in all, and frames made."""
    started = time.perf_counter()
    began: dict[str, float] = {}
    drawn = 0
    for event in colorizer.stream(shot, how):
        if isinstance(event, Coloured):
            drawn += 1
        elif isinstance(event, Progress):
            began.setdefault(event.stage, time.perf_counter())
    return began["matching"] - started, began["preparing"] - began["matching"], time.perf_counter() - started, drawn


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = record.parser("speed", (__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3, help="steps of each regime; the median is given")
    parser.add_argument("--dtype", default="auto", help="of the whole shots: auto, float32, bfloat16")
    parser.add_argument("--all-frames", action="store_true", help="time steps without a window too (slow)")
    options = parser.parse_args(argv)
    options.repeat = 1 if options.quick else options.repeat
    if options.probe:
        print(json.dumps(whole(options, int(options.probe))))
        return

    window = Colorizer.load(options.model, "cpu", "float32").model.defaults.window
    windows = [window, None] if options.all_frames else [window]
    loaded = (Colorizer.load(options.model, "cpu", d).model.dtype for d in ("float32", "auto"))
    dtypes = dict.fromkeys(str(dtype).removeprefix("torch.") for dtype in loaded)
    step_rows = [steps(options, dtype, w) for dtype in dtypes for w in windows]
    print("steps: done", file=sys.stderr)
    agree = agreement(options)
    print("agreement: done", file=sys.stderr)
    shots = []
    for frames in QUICK_FRAMES if options.quick else FRAMES:
        shots.append(record.fresh(__file__, str(frames), options, "--dtype", options.dtype))
        print(f"{frames} frames: done", file=sys.stderr)

    heads = ["dtype", "window", "tokens", "prepare (s)", "cached step (s)", "joint step (s)", "joint / cached"]
    rows = [
        [
            r["dtype"],
            "all" if r["window"] is None else r["window"],
            r["tokens"],
            r["prepare_s"]["cached"],
            *r["step_s"].values(),
            r["ratio"],
        ]
        for r in step_rows
    ]
    print(record.table(heads, rows))
    print(f"\ncached and uncached evaluation differ by at most {agree['max_difference']:.1e} (float32)\n")
    heads = ["frames", "total (s)", *(f"{stage} (s)" for stage in shots[0]["stages"]), "peak MiB", "time / first"]
    rows = [
        [s["frames"], s["seconds"], *s["stages"].values(), round(s["peak_mib"]), s["seconds"] / shots[0]["seconds"]]
        for s in shots
    ]
    print(record.table(heads, rows))
    how = wanted(options)
    figures = {
        "options": {name: getattr(how, name) for name in how.__dataclass_fields__},
        "steps": step_rows,
        "agreement": agree,
        "shots": shots,
        "ratio_of_shots": shots[-1]["seconds"] / shots[0]["seconds"],
    }
    record.write(options.out, options, argv, figures)


if __name__ == "__main__":
    main()
