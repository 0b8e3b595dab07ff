"""`python -m timecolor.train`: training where only torch, numpy, OpenCV, Pillow, einops and safetensors are installed.

`torchrun --nproc-per-node N -m timecolor.train --preset cogvideox-full ...` shares a fine-tune among N processes.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from timecolor.correspondence import Regime
from timecolor.train.denoising import Denoising
from timecolor.train.loop import Lesson, train
from timecolor.train.matching import Matching
from timecolor.train.presets import FINETUNES, PRESETS, MatcherPreset, Preset


def run(
    preset: str,
    out: Path | None,
    device: str,
    minutes: float | None,
    steps: int | None,
    seed: int | None,
    workers: int | None,
    init: Path | None,
    say: Callable[[str], None],
    data: Path | None = None,
    base: str | None = None,
    model: str | None = None,
    regime: Regime | None = None,
    batch: int | None = None,
    timed: bool | None = None,
) -> None:
    """Run or resume a preset in `out` (None = runs/PRESET), saying a line for every report.

    workers, init, timed: for presets of embedded networks; base, model, regime, batch: for those of CogVideoX. data: what those
    learn from, or the drawings by others that the matcher does. Raises ValueError for an unknown preset or device, for options of
    the other kind, and ModuleNotFoundError where an extra is not installed.
    """
    if preset not in PRESETS and preset not in FINETUNES:
        known = [*PRESETS, *FINETUNES]
        near = get_close_matches(preset, known, 1)
        raise ValueError(f"unknown preset {preset!r}; use {near[0] if near else ', '.join(known)}")
    embedded = preset in PRESETS
    others: dict[str, object] = (
        {"base": base, "model": model, "regime": regime, "batch": batch}
        if embedded
        else {"workers": workers, "init": init, "timed": timed}
    )
    for name, value in others.items():
        if value is not None:
            kind = "CogVideoX" if embedded else "the embedded model"
            raise ValueError(f"--{name} is for presets of {kind}; leave it out with {preset}")
    where, out = _device(device), out or Path("runs") / preset
    if embedded:
        changes = _given(steps=steps, seed=seed, workers=workers)
        reports = train(_lesson(replace(PRESETS[preset], **changes), where, data), out, minutes, init, bool(timed))
    else:
        if data is None or base is None:
            raise ValueError(f"{preset} needs --data (a folder of `timecolor precompute`) and --base (the CogVideoX directory)")
        try:
            from timecolor.train.finetune import finetune
        except ModuleNotFoundError as error:
            extra = "pip install 'timecolor[cogvideox]'"
            raise ModuleNotFoundError(f"{preset} needs {error.name}; install it with: {extra}", name=error.name) from error
        changes = _given(steps=steps, seed=seed, regime=regime, batch=batch)
        reports = finetune(replace(FINETUNES[preset], **changes), data, base, out, where, model, minutes)
    for report in reports:
        held_out = "" if report.held_out is None else "  " + ", ".join(f"{k} {v}" for k, v in report.held_out.items())
        if int(os.environ.get("RANK", "0")) == 0:
            say(f"step {report.step}/{report.steps}  loss {report.loss:.4f}  {report.seconds:.0f} s{held_out}")


def _lesson(preset: Preset | MatcherPreset, device: torch.device, data: Path | None) -> Lesson:
    """What a preset of the embedded networks teaches."""
    if isinstance(preset, MatcherPreset):
        return Matching(preset, device, data)
    if data is not None:
        raise ValueError(
            "--data is for matcher presets that learn from drawings by others, and for those of CogVideoX; leave it out"
        )
    return Denoising(preset, device)


def _given(**changes: Any) -> dict[str, Any]:
    return {k: v for k, v in changes.items() if v is not None}


def _device(name: str) -> torch.device:
    """A device by name; auto = the GPU of this rank, else the CPU."""
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    try:
        where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        if where.type == "cuda" and where.index is None:
            where = torch.device("cuda", rank)
            torch.cuda.set_device(where)
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not usable here ({str(error).splitlines()[0]}); use auto or cpu") from error
    return where


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m timecolor.train")
    parser.add_argument("--preset", default="toon")
    parser.add_argument("--out", type=Path, help="the run's folder; runs/PRESET unless given")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--timed", action="store_const", const=True, help="let the rate fall to 0 as --minutes end")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--init", type=Path, help="weights to start a new run from")
    parser.add_argument("--data", type=Path, help="a folder of `timecolor.train.art`, or for CogVideoX of `timecolor precompute`")
    of_cogvideox = parser.add_argument_group("presets of CogVideoX")
    of_cogvideox.add_argument("--base", help="the CogVideoX directory that it was made with")
    of_cogvideox.add_argument("--model", help="a full fine-tune to start from")
    of_cogvideox.add_argument("--regime", choices=("cached", "joint"))
    of_cogvideox.add_argument("--batch", type=int, help="samples a step, over all processes")
    given = parser.parse_args()
    try:
        run(**vars(given), say=lambda line: print(line, flush=True))  # noqa: T201 (the program's output)
    except (ValueError, FloatingPointError, OSError, ModuleNotFoundError) as error:
        sys.exit(f"timecolor.train: {error}")


if __name__ == "__main__":
    main()
