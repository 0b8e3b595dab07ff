"""Where the time of training the matcher goes: samples a second, the wait for batches, how long a GPU computes and what.

Steps of the training loop are timed first; some more under PyTorch's profiler tell what the device does. On a CPU its times are
those of operations, on a GPU those of kernels.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import record
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from timecolor.train.loop import train
from timecolor.train.matching import Matching, Pairs
from timecolor.train.presets import PRESETS, MatcherPreset

WARM = 8  # steps before any that count
# Names of kernels and operations that multiply matrices.
MATRIX = (
    "gemm",
    "conv",
    "cutlass",
    "xmma",
    "nvjet",
    "wgrad",
    "dgrad",
    "fprop",
    "fmha",
    "flash",
    "attention",
    "::mm",
    "bmm",
    "addmm",
)


class Timed(Matching):
    """A lesson that knows how long its batches were waited for."""

    waited = 0.0

    def batches(self, start: int) -> Iterator[Pairs]:
        """As they come."""
        made = iter(super().batches(start))
        while True:
            since = time.perf_counter()
            batch = next(made, None)
            self.waited += time.perf_counter() - since
            if batch is None:
                return
            yield batch


def measure(preset: MatcherPreset, device: torch.device, options: Any, steps: int) -> dict[str, Any]:
    """Times of a step, and shares of what the device does."""
    preset = replace(preset, steps=10 * (WARM + steps), log_every=1, validate_every=10**9, checkpoint_every=10**9)
    lesson = Timed(preset, device, options.data)
    with tempfile.TemporaryDirectory() as folder:
        run = train(lesson, Path(folder), init=options.init)
        for _ in range(WARM):
            next(run)
        lesson.waited, since = 0.0, time.perf_counter()
        for _ in range(steps):
            next(run)
        second, waited = (time.perf_counter() - since) / steps, lesson.waited / steps
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
        with profile(activities=activities) as seen:
            for _ in range(max(1, steps // 4)):
                next(run)
        run.close()
    wanted = DeviceType.CUDA if device.type == "cuda" else DeviceType.CPU
    spent: dict[str, float] = {}
    for event in seen.key_averages():
        if event.device_type == wanted and not event.key.startswith("ProfilerStep"):
            spent[event.key] = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
    computed = sum(spent.values()) / 1e6 / max(1, steps // 4)
    matrix = sum(v for k, v in spent.items() if any(name in k.lower() for name in MATRIX))
    batch = (1 + preset.again) * sum(v.weight * v.batch for v in preset.views) / sum(v.weight for v in preset.views)
    return {
        "samples_a_second": batch / second,
        "step_s": second,
        "wait_s": waited,
        "device_s": computed,
        "matrix_share": matrix / max(1e-9, sum(spent.values())),
        "most": {k[:90]: v / sum(spent.values()) for k, v in sorted(spent.items(), key=lambda x: -x[1])[:12]},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = record.parser("training", __doc__ or "", model=False)
    parser.add_argument("--preset", default="matcher-large-mixed")
    parser.add_argument("--data", type=Path, help="drawings by others, of `timecolor.train.art`")
    parser.add_argument("--init", type=Path, help="weights to start from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args(argv)
    name, steps = ("debug-matcher", 4) if options.quick else (options.preset, options.steps)
    preset = PRESETS[name]
    if not isinstance(preset, MatcherPreset):
        sys.exit(f"--preset {name} is not a matcher's; give one of {', '.join(k for k in PRESETS if 'matcher' in k)}")
    if options.workers is not None:
        preset = replace(preset, workers=options.workers)
    device = torch.device(options.device)
    found = measure(preset, device, options, steps)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    heads = ("preset", "device", "samples/s", "step s", "wait s", "device s", "matrix %")
    row = (name, where, *(found[k] for k in ("samples_a_second", "step_s", "wait_s", "device_s")), 100 * found["matrix_share"])
    print(record.table(heads, [row]))
    print(record.table(("most time", "%"), [(k, 100 * v) for k, v in found["most"].items()]))
    record.write(options.out, options, argv, {"preset": name, "device": where, "workers": preset.workers, **found})


if __name__ == "__main__":
    main()
