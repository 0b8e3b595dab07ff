"""Every benchmark runs, at a tiny size and on random weights, and its figures are finite."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from timecolor.rope import Rope
from timecolor.toon import Toon, ToonConfig
from timecolor.weights import save_toon

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
SMALL = ToonConfig(width=32, layers=2, heads=2, rope=Rope(base=(8, 8), ranked=False, dims=(4, 6, 6), theta=100.0, periods=(4, 8)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    toon = Toon(SMALL)
    for parameter in toon.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_toon(path, toon, toon.state_dict(), colour_cell=4)
    return path


def run(name, model, tmp_path, *more):
    """What a benchmark prints and the figures it writes."""
    out = tmp_path / f"{name}.json"
    words = [sys.executable, FOLDER / f"{name}.py", "--quick", "--model", model, "--out", out, *more]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert {"command", "commit", "seed", "machine"} <= figures.keys()
    assert figures["machine"]["threads"] >= 1
    return done.stdout, figures


def test_grouped_and_masked_attention_are_compared(model, tmp_path):
    printed, figures = run("attention", model, tmp_path)
    assert [c["case"]["name"] for c in figures["cases"]] == ["toon", "published"]
    for case in figures["cases"]:
        assert case["difference"]["grouped"] < 1e-5
        assert all(math.isfinite(s) and s > 0 for s in case["seconds"].values())
        assert all(m["call_mib"] >= 0 for m in case["memory"].values())
    assert "| toon, cached, window 1" in printed


def test_cached_and_joint_steps_and_whole_shots_are_timed(model, tmp_path):
    _, figures = run("speed", model, tmp_path)
    assert figures["agreement"]["max_difference"] < 1e-4
    assert all(s["ratio"] > 0 for s in figures["steps"])
    assert figures["ratio_of_shots"] > 0
    for shot in figures["shots"]:
        assert shot["peak_mib"] > 50
        assert sum(shot["stages"].values()) == pytest.approx(shot["seconds"])
