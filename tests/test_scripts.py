"""The recipe of the embedded weights runs from an empty folder, stops by itself, and goes on where it was stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from timecolor.train.art import Piece

ROOT = Path(__file__).parents[1]
PRESETS = ("debug-matcher", "debug")


def run(out: Path, steps: int, presets: str, slices: int = 9, art: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PRESETS": presets,
        "WORKERS": "0",
        "PYTHON": sys.executable,
        "SLICES": str(slices),
        "SHOTS": "1",
    }
    if art is not None:
        environment["ART"] = str(art)
    script = [str(ROOT / "scripts" / "train_toon.sh"), str(out), str(steps)]
    return subprocess.run(script, env=environment, capture_output=True, timeout=300, text=True)


def recipe(out: Path, steps: int, slices: int = 9) -> dict[str, list[int]]:
    """Steps reported of each preset after a run of the script."""
    ended = run(out, steps, " ".join(PRESETS), slices)
    assert ended.returncode == 0, ended.stderr
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


def test_a_preset_starts_from_another_ones_weights(tmp_path):
    """The denoiser cannot take a matcher's, and says so; without any, nothing is trained."""
    ended = run(tmp_path, 1, "debug-matcher debug:debug-matcher")
    assert ended.returncode != 0
    assert str(tmp_path / "debug-matcher" / "matcher.safetensors") in ended.stderr
    missing = run(tmp_path / "empty", 1, "debug:debug-matcher")
    assert missing.returncode != 0
    assert not (tmp_path / "empty").exists()


def test_a_preset_of_drawings_by_others_is_given_them(tmp_path):
    """They are there already, so nothing is rendered; the run takes them in."""
    image = np.zeros((120, 120, 4), np.uint8)
    image[10:110, 10:110] = (200, 60, 50, 255)
    image[30:60, 30:60] = (60, 200, 50, 255)
    image[70:100, 30:90] = (60, 50, 200, 255)
    piece = Piece.of(image)
    assert piece is not None
    (tmp_path / "art").mkdir()
    for name in "ab":
        piece.save(tmp_path / "art" / f"{name}.0.png")
    ended = run(tmp_path / "runs", 1, "debug-matcher debug-mixed:debug-matcher", art=tmp_path / "art")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "runs" / "debug-mixed" / "matcher.safetensors").exists()


def test_the_judge_learns_from_what_the_others_colour(tmp_path):
    presets = "debug-matcher debug judge:debug:debug-matcher"
    ended = run(tmp_path, 1, presets)
    assert ended.returncode == 0, ended.stderr
    assert "1 of 1 shots" in ended.stdout
    assert (tmp_path / "judge" / "judge.safetensors").exists()
    assert "of 1 shots" not in run(tmp_path, 1, presets).stdout
