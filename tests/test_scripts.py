"""The recipe of the embedded weights runs from an empty folder, stops by itself, and goes on where it was stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRESETS = ("debug-matcher", "debug")


def recipe(out: Path, steps: int, slices: int = 9) -> dict[str, list[int]]:
    """Steps reported of each preset after a run of the script."""
    environment = {**os.environ, "PRESETS": " ".join(PRESETS), "WORKERS": "0", "PYTHON": sys.executable, "SLICES": str(slices)}
    script = [str(ROOT / "scripts" / "train_toon.sh"), str(out), str(steps)]
    subprocess.run(script, env=environment, check=True, capture_output=True, timeout=300)
    logs = {preset: out / preset / "metrics.jsonl" for preset in PRESETS}
    return {
        preset: [json.loads(line)["step"] for line in log.read_text().splitlines()] if log.exists() else []
        for preset, log in logs.items()
    }


def test_the_recipe_runs_to_its_end_and_resumes(tmp_path):
    first, second = PRESETS
    assert recipe(tmp_path, 2, slices=1) == {first: [1, 2], second: []}
    assert recipe(tmp_path, 2) == {first: [1, 2], second: [1, 2]}
    assert recipe(tmp_path, 4) == {first: [1, 2, 3, 4], second: [1, 2, 3, 4]}
    for preset, name in zip(PRESETS, ("matcher", "toon"), strict=True):
        assert (tmp_path / preset / f"{name}.safetensors").stat().st_size > 0
