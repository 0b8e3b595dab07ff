"""Every benchmark runs, at a tiny size and on random weights, and its figures are finite."""

import importlib
import json
import math
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

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
    chosen = ["--model", model] if model else []
    words = [sys.executable, FOLDER / f"{name}.py", "--quick", *chosen, "--out", out, *more]
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


def test_the_published_step_is_written_plainly_and_compared(tmp_path):
    pytest.importorskip("diffusers")
    printed, figures = run("cogvideox", None, tmp_path, "--device", "cpu")
    assert [(c["frames"], c["references"]) for c in figures["cases"]] == [(5, 1), (5, 2), (5, 4)]
    for case in figures["cases"]:
        assert case["difference"] < 1e-4
        assert case["largest_value"] > 1
        published, joint, cached = (case["methods"][method] for method in ("published", "joint", "cached"))
        for name in ("operations", "operations_5b"):
            assert cached[name]["step"] < 0.5 * published[name]["step"]
            assert joint[name]["step"] < published[name]["step"]
        assert all(m["step_s"] > 0 and m["peak_mib"] >= 0 for m in (published, joint, cached))
        assert published["kept_mib"] == joint["kept_mib"] == 0 < cached["kept_mib"]
    assert "published and joint differ by at most" in printed


def test_operations_of_a_step_are_those_that_run(monkeypatch):
    """PyTorch's own count, which sees every matrix product, also the small ones of the timestep."""
    pytest.importorskip("diffusers")
    monkeypatch.syspath_prepend(FOLDER)
    made = importlib.import_module("cogvideox")

    def attention(q, k, v, *_, **__):
        return sdpa_flop_count(q, k, v)

    mine = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}

    def counted(work, _):
        with FlopCounterMode(display=False, custom_mapping=mine) as counter:
            result = work()
        return counter.get_total_flops(), result

    monkeypatch.setattr(made, "timed", counted)
    scale, options = replace(made.TINY, layers=3), Namespace(seed=0, repeat=1)
    scheduler = made.CogVideoXDDIMScheduler(prediction_type="v_prediction")
    denoiser = made.CogVideoX(made.built(scale, torch.device("cpu"), torch.float32, 0), scheduler)
    for references in (1, 3):
        for method, figures in made.measure(denoiser, scale, 9, references, options)["methods"].items():
            assert figures["step_s"] == pytest.approx(figures["operations"]["step"], rel=0.02), (references, method)
            assert figures["prepare_s"] == pytest.approx(figures["operations"]["once"], rel=0.02), (references, method)


def test_true_colours_show_how_far_a_method_can_get(tmp_path):
    printed, figures = run("ceiling", None, tmp_path)
    assert figures["means"].keys() == {"start frame", "arbitrary frame", "multi-reference with labels"}
    assert all(20 < m["painted_psnr"] < 60 and m["segment_accuracy_10"] > 0.5 for m in figures["means"].values())
    assert "| start frame " in printed


def test_exchanged_references_are_counted(model, tmp_path):
    _, figures = run("swap", model, tmp_path)
    for shares in (figures["plain"], figures["swapped"]):
        assert shares["named"] > 2 * shares["other"] > 0
        assert shares["strange"] < 0.5


def test_the_finish_is_timed_in_every_frame(model, tmp_path):
    printed, figures = run("finish", model, tmp_path)
    assert [case["form"] for case in figures["cases"]] == ["start frame", "multi-reference"]
    for case in figures["cases"]:
        assert len(case["all_finish_s"]) == 4
        assert 0 < case["finish_s"] < case["one_by_one_s_a_frame"]
        assert case["shot_s_a_frame"] > 0
    assert "| 160x96" in printed


def test_training_is_timed_and_profiled(tmp_path):
    printed, figures = run("training", None, tmp_path, "--device", "cpu")
    assert figures["preset"] == "debug-matcher"
    assert 0 <= figures["wait_s"] < figures["step_s"]
    assert figures["device_s"] > 0
    assert 0.05 < figures["matrix_share"] < 1
    assert sum(figures["most"].values()) <= 1
    assert "| debug-matcher | cpu" in printed
