"""The recipe of the embedded weights runs from an empty folder, stops by itself, and goes on where it was stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def recipe(out: Path, steps: int, slices: int = 9) -> list[int]:
    """Steps reported after a run of the script."""
    environment = {**os.environ, "PRESET": "debug", "WORKERS": "0", "PYTHON": sys.executable, "SLICES": str(slices)}
    script = [str(ROOT / "scripts" / "train_toon.sh"), str(out), str(steps)]
    subprocess.run(script, env=environment, check=True, capture_output=True, timeout=300)
    return [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_recipe_runs_to_its_end_and_resumes(tmp_path):
    assert recipe(tmp_path / "run", 2) == [1, 2]
    assert recipe(tmp_path / "run", 4, slices=1) == [1, 2, 3, 4]
    assert (tmp_path / "run" / "toon.safetensors").stat().st_size > 0
