"""What a benchmark writes down, so that its figures can be had again, and how it reads the memory of a process."""

import argparse
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
MIB = 2**20


def parser(name: str, about: str, model: bool = True) -> argparse.ArgumentParser:
    """The options all benchmarks have. model: whether it runs one that can be chosen."""
    options = argparse.ArgumentParser(description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    if model:
        options.add_argument("--model", default="toon", help="toon (embedded), or a .safetensors file")
    options.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / f"{name}.json")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    options.add_argument("--probe", help=argparse.SUPPRESS)  # the part that runs in a process of its own
    return options


def write(path: Path, options: argparse.Namespace, argv: Sequence[str] | None, figures: dict[str, Any]) -> None:
    """Figures as JSON, with command, commit, seed and machine."""
    words = sys.argv if argv is None else [f"benchmarks/{path.stem}.py", *argv]
    about = {
        "command": shlex.join(["python", *words]),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seed": options.seed,
        "model": str(getattr(options, "model", "random")),
        "machine": machine(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_plain({**about, **figures}), indent=1, allow_nan=False) + "\n")
    print(f"\n{path}")


def machine() -> dict[str, Any]:
    """Processor, cores, torch and its threads."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load_at_end": load,
    }


def commit() -> str | None:
    """The commit of the code, with "+" where files differ from it; None outside a repository."""
    try:
        head, changes = (
            subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(changes)


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; columns of numbers to the right, None and nan as a dash."""
    cells = [[_shown(value) for value in row] for row in rows]
    columns = []
    for head, *values in zip(heads, *cells, strict=True):
        right = all(value == "–" or value[-1].isdigit() for value in values)
        width = max(3, *(len(value) for value in (head, *values)))
        rule = "-" * (width - 1) + ":" if right else "-" * width
        columns.append([head.ljust(width), rule, *(v.rjust(width) if right else v.ljust(width) for v in values)])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def fresh(script: str, probe: str, options: argparse.Namespace, *more: str) -> dict[str, Any]:
    """What `script --probe` says, run in a process of its own."""
    words = [sys.executable, script, "--probe", probe, "--model", str(options.model), "--seed", str(options.seed), *more]
    done = subprocess.run(words + ["--quick"] * options.quick, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(words)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def forget_peak() -> None:
    """Start the peak of this process anew (Linux)."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def peak_bytes() -> int:
    """Most memory this process has held since `forget_peak`, or since its start."""
    return _status("VmHWM")


def held_bytes() -> int:
    """Memory this process holds now."""
    return _status("VmRSS")


def _status(field: str) -> int:
    # Not getrusage: its peak survives exec, so a child would start with its parent's.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)


def _plain(value: Any) -> Any:
    """JSON has no nan and no infinity: None."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
