"""`python -m timecolor.train`: training where only torch, numpy, OpenCV, Pillow, einops and safetensors are installed."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import torch

from timecolor.train.loop import train
from timecolor.train.presets import PRESETS


def run(
    preset: str,
    out: Path,
    device: str,
    minutes: float | None,
    steps: int | None,
    seed: int | None,
    workers: int | None,
    init: Path | None,
    say: Callable[[str], None],
) -> None:
    """Run or resume a preset, saying a line for every report. Raises ValueError for an unknown preset or device."""
    if preset not in PRESETS:
        near = get_close_matches(preset, PRESETS, 1)
        raise ValueError(f"unknown preset {preset!r}; use {near[0] if near else ', '.join(PRESETS)}")
    changes = {"steps": steps, "seed": seed, "workers": workers}
    chosen = replace(PRESETS[preset], **{k: v for k, v in changes.items() if v is not None})
    try:
        where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} is not usable here ({str(error).splitlines()[0]}); use auto or cpu") from error
    for report in train(chosen, out, where, minutes, init):
        held_out = "" if report.psnr is None else "  " + ", ".join(f"{k} {v} dB" for k, v in report.psnr.items())
        say(f"step {report.step}/{report.steps}  loss {report.loss:.4f}  {report.seconds:.0f} s{held_out}")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m timecolor.train")
    parser.add_argument("--preset", default="toon")
    parser.add_argument("--out", type=Path, default=Path("runs/toon"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--init", type=Path, help="weights to start a new run from")
    given = parser.parse_args()
    try:
        run(**vars(given), say=lambda line: print(line, flush=True))  # noqa: T201 (the program's output)
    except (ValueError, FloatingPointError, OSError) as error:
        sys.exit(f"timecolor.train: {error}")


if __name__ == "__main__":
    main()
