"""Fine-tuning on tiny real components: one process or many, broken and resumed, exported and loaded back."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")

from peft import PeftModel
from safetensors.torch import load_file
from test_cogvideox import SIZES, TEXT, conditions, noise, predicted, ragged, scheduler, transformer
from test_precompute import SMALL, model_of, save_base, shot_folder

from timecolor import cli, cogvideox, diffusion
from timecolor.cogvideox import CogVideoX
from timecolor.correspondence import ALL
from timecolor.layout import Kind
from timecolor.train import finetune as made
from timecolor.train.finetune import draws, finetune, v_loss, without_dropped
from timecolor.train.precompute import Entry, Precomputed, encode
from timecolor.train.presets import FINETUNES, Finetune, Stage

FULL, LORA = FINETUNES["debug-cogvideox-full"], FINETUNES["debug-cogvideox-lora"]
CPU = torch.device("cpu")
SAME = 1e-5  # between runs on unlike numbers of ranks, which add in another order


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(base, tmp_path_factory) -> Path:
    """Three shots of the drawn world and one with a caption."""
    folder = tmp_path_factory.mktemp("data")
    shot = shot_folder(folder / "shot")
    model = model_of(base, folder / "prompts")
    list(encode(["world", str(shot)], model, folder / "latents", replace(SMALL, count=3)))
    return folder / "latents"


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """What a run exported."""
    return {k: v for file in (run / "model").rglob("*.safetensors") for k, v in load_file(file).items()}


def difference(a: Path, b: Path) -> float:
    ours, theirs = weights_of(a), weights_of(b)
    assert ours.keys() == theirs.keys()
    assert ours
    return max(float((ours[k] - theirs[k]).abs().max()) for k in ours)


def losses(run: Path) -> dict[int, float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines)}


def torchrun(preset: str, data: Path, base: Path, out: Path, *options: str) -> subprocess.Popen:
    """The command line on two processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "timecolor.train"]
    given = ["--preset", preset, "--data", str(data), "--base", str(base), "--out", str(out), "--device", "cpu", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen([*launch, *given], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def rank_of(process: Path) -> str | None:
    """RANK of a process, None = it has gone or has none."""
    try:
        settings = dict(line.partition("=")[::2] for line in (process / "environ").read_text().split("\0"))
    except OSError:
        return None
    return settings.get("RANK")


# Ranks


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="ranks are found by /proc")
def test_a_rank_is_killed_and_the_run_goes_on_with_one_and_with_two(data, base, tmp_path):
    preset, whole = replace(FULL, steps=10), tmp_path / "whole"
    list(finetune(preset, data, base, whole, CPU))
    broken, one = tmp_path / "two", tmp_path / "one"
    run = torchrun("debug-cogvideox-full", data, base, broken, "--steps", "10")
    deadline = time.monotonic() + 600
    while not (broken / "metrics.jsonl").exists() or len(losses(broken)) < 3:
        assert run.poll() is None, run.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    second = next(pid for pid in children if rank_of(Path("/proc", pid)) == "1")
    os.kill(int(second), signal.SIGKILL)
    said, _ = run.communicate(timeout=600)
    assert run.returncode != 0, said
    assert not (broken / "model").exists()
    assert 2 <= max(int(p.name) for p in (broken / "checkpoints").glob("[0-9]*")) < 10

    shutil.copytree(broken, one)
    resumed = torchrun("debug-cogvideox-full", data, base, broken, "--steps", "10")
    list(finetune(preset, data, base, one, CPU))
    said, _ = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, said
    assert said.count("step 10/10") == 1  # one rank speaks
    start = save_only(base / "transformer")
    for other in (one, broken):
        assert losses(other).keys() == losses(whole).keys() == set(range(1, 11))
        assert losses(other) == pytest.approx(losses(whole), abs=SAME)
        assert difference(whole, other) <= SAME
    assert max(float((weights_of(whole)[k] - start[k]).abs().max()) for k in start) > 100 * SAME  # so that this says something


def save_only(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def test_two_processes_train_a_lora_like_one(data, base, tmp_path):
    run = torchrun("debug-cogvideox-lora", data, base, tmp_path / "two", "--regime", "joint")
    list(finetune(replace(LORA, regime="joint"), data, base, tmp_path / "one", CPU))
    said, _ = run.communicate(timeout=600)
    assert run.returncode == 0, said
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=SAME)
    assert difference(tmp_path / "one", tmp_path / "two") <= SAME


def test_a_batch_that_cannot_be_shared_is_told(data, base, tmp_path, monkeypatch):
    class Three:
        get_rank = staticmethod(lambda: 0)
        size = staticmethod(lambda: 3)

    @contextmanager
    def three(_device):
        yield Three()

    monkeypatch.setattr(made, "_ranks", three)
    with pytest.raises(ValueError, match="batch 4 cannot be shared by 3 ranks; use 1, 2, 4 ranks, or --batch"):
        next(finetune(FULL, data, base, tmp_path, CPU))


# The loop


@pytest.mark.parametrize("preset", [FULL, replace(LORA, regime="joint")], ids=["full", "lora"])
def test_two_steps_and_two_resumed_equal_four(preset, data, base, tmp_path):
    whole = list(finetune(preset, data, base, tmp_path / "whole", CPU))
    broken = finetune(preset, data, base, tmp_path / "broken", CPU)
    assert [next(broken).step for _ in range(3)] == [1, 2, 3]  # stops after step 3; the last checkpoint is of step 2
    broken.close()
    resumed = list(finetune(preset, data, base, tmp_path / "broken", CPU))
    assert [(r.step, r.loss) for r in resumed] == [(r.step, r.loss) for r in whole[2:]]
    assert difference(tmp_path / "whole", tmp_path / "broken") == 0
    assert losses(tmp_path / "whole") == losses(tmp_path / "broken")
    assert sorted(p.name for p in (tmp_path / "whole" / "checkpoints").iterdir()) == ["00000002", "00000004"]


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("regime", ["joint", "cached"])
def test_sharded_gradients_are_those_of_the_plain_model(regime, checkpointing, data, base, tmp_path, monkeypatch):
    """One step, whose gradients are seen on their way to the clipping."""
    preset = replace(FULL, regime=regime, steps=1, batch=2, checkpointing=checkpointing)
    seen: dict[int, torch.Tensor] = {}
    clip = torch.nn.utils.clip_grad_norm_

    def watched(parameters, most):
        parameters = list(parameters)
        seen.update(enumerate(p.grad.full_tensor().clone() for p in parameters))
        return clip(parameters, most)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    [report] = finetune(preset, data, base, tmp_path, CPU)

    shots, denoiser = Precomputed(data), CogVideoX(transformer(seed=1).train(), scheduler())
    total = 0.0
    for draw in draws(preset, shots.samples, 0):
        loss = made._loss(denoiser, preset, shots, draw, CPU) / 2
        loss.backward()
        total += loss.item()
    assert report.loss == pytest.approx(total, rel=1e-5)
    for i, (name, parameter) in enumerate(denoiser.transformer.named_parameters()):
        torch.testing.assert_close(seen[i], parameter.grad, atol=1e-6, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


def test_precomputed_world_shots_lower_the_loss_of_a_lora(data, base, tmp_path):
    preset = replace(LORA, steps=200, batch=1, rate=1e-2, checkpoint_every=200, log_every=200, drop_reference=0.0)
    list(finetune(preset, data, base, tmp_path / "run", CPU))
    shots = Precomputed(data)
    fixed = draws(replace(preset, seed=5, batch=24), shots.samples, 0)

    def mean(denoiser: CogVideoX) -> float:
        with torch.no_grad():
            return sum(made._loss(denoiser, preset, shots, draw, CPU).item() for draw in fixed) / len(fixed)

    before, after = (
        mean(cogvideox.load_model(m, base, "cpu", torch.float32).network) for m in (base, tmp_path / "run" / "model")
    )
    assert after < 0.8 * before


def test_a_loss_that_is_not_finite_names_step_and_shot_and_keeps_the_checkpoint(data, base, tmp_path, monkeypatch):
    true, seen = diffusion.loss, []

    def poisoned(prediction: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return true(prediction, clean) * (float("nan") if len(seen) == 3 * 4 + 2 else 1)

    monkeypatch.setattr(diffusion, "loss", poisoned)
    name = Precomputed(data).samples[draws(FULL, Precomputed(data).samples, 3)[1].number].name
    with pytest.raises(FloatingPointError, match=f"loss is not finite at step 3, shot {name}; lower the rate"):
        list(finetune(FULL, data, base, tmp_path, CPU))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["00000002"]
    assert not (tmp_path / "model").exists()


def test_minutes_stop_with_a_checkpoint_and_a_model(data, base, tmp_path):
    assert [r.step for r in finetune(FULL, data, base, tmp_path, CPU, minutes=0.0)] == [1]
    assert json.loads((tmp_path / "model" / "timecolor.json").read_text())["steps"] == 1
    assert [r.step for r in finetune(FULL, data, base, tmp_path, CPU)] == [2, 3, 4]
    assert json.loads((tmp_path / "model" / "timecolor.json").read_text())["steps"] == 4


def test_bfloat16_computes_and_float32_learns(data, base, tmp_path):
    """Steps too small for bfloat16 add up in what is kept."""
    preset = replace(FULL, compute="bfloat16", rate=1e-5, steps=2, ema=None)
    list(finetune(preset, data, base, tmp_path, CPU))
    [file] = (tmp_path / "checkpoints" / "00000002").glob("*.safetensors")
    kept, start = load_file(file), save_only(base / "transformer")
    for name, before in start.items():
        assert kept[f"model.{name}"].dtype == torch.float32
        assert 0 < float((kept[f"model.{name}"] - before).abs().max()) < 1e-4
    assert {tensor.dtype for tensor in weights_of(tmp_path).values()} == {torch.bfloat16}


# What comes out


def test_a_full_fine_tune_loads_back_with_the_outputs_it_was_trained_to(data, base, tmp_path):
    list(finetune(replace(FULL, ema=None), data, base, tmp_path, CPU))
    [file] = (tmp_path / "checkpoints" / "00000004").glob("*.safetensors")
    trained = transformer()
    trained.load_state_dict({k.removeprefix("model."): v for k, v in load_file(file).items() if k.startswith("model.")})
    given = conditions(SIZES[1], 2, ragged(SIZES[1], 2), "cached")
    expected = predicted(CogVideoX(trained, scheduler()), given, noise(SIZES[1]))
    loaded = cogvideox.load_model(tmp_path / "model", base, "cpu", torch.float32)
    assert torch.equal(predicted(loaded.denoiser, given, noise(SIZES[1])), expected)
    untrained = predicted(CogVideoX(transformer(seed=1), scheduler()), given, noise(SIZES[1]))
    assert (untrained - expected).abs().max() > 0.01
    assert json.loads((tmp_path / "model" / "timecolor.json").read_text()) == {
        "regime": "cached",
        "cells": "coverage",
        "steps": 4,
        "seed": 0,
    }


def test_a_lora_loads_back_with_the_outputs_it_was_trained_to(data, base, tmp_path):
    list(finetune(replace(LORA, rate=3e-2), data, base, tmp_path, CPU))
    [file] = (tmp_path / "checkpoints" / "00000004").glob("*.safetensors")
    state = load_file(file)
    assert all(".lora_" in key for key in state)  # the base is not in the checkpoint
    beside = PeftModel.from_pretrained(transformer(seed=1), str(tmp_path / "model"))
    own = {f"base_model.model.{k.removeprefix('model.')}": v for k, v in state.items() if k.startswith("model.")}
    assert not beside.load_state_dict(own, strict=False).unexpected_keys
    given = conditions(SIZES[1], 2, ragged(SIZES[1], 2), "cached")
    expected = predicted(CogVideoX(beside.get_base_model(), scheduler()), given, noise(SIZES[1]))
    loaded = cogvideox.load_model(tmp_path / "model", base, "cpu", torch.float32)
    got = predicted(loaded.denoiser, given, noise(SIZES[1]))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    untrained = predicted(CogVideoX(transformer(seed=1), scheduler()), given, noise(SIZES[1]))
    assert (untrained - expected).abs().max() > 0.01


def test_the_average_is_what_is_exported(data, base, tmp_path):
    list(finetune(FULL, data, base, tmp_path, CPU))
    [file] = (tmp_path / "checkpoints" / "00000004").glob("*.safetensors")
    state, exported = load_file(file), weights_of(tmp_path)
    assert all(torch.equal(exported[name], state[f"average.{name}"]) for name in exported)
    assert any(not torch.equal(exported[name], state[f"model.{name}"]) for name in exported)


# Samples


def entries(count: int = 10, references: int = 3) -> list[Entry]:
    about = {"latent_frames": 2, "stills": 3, "labelled": True}
    return [Entry(name=f"shot {i}", caption="a girl", references=references, **about) for i in range(count)]


def test_draws_are_a_pure_function_and_an_epoch_has_each_sample_once():
    preset = Finetune(batch=5, stages=(Stage(1.0, 1.0, 0.0, 0.0),))
    first, second = draws(preset, entries(), 0), draws(preset, entries(), 1)
    assert sorted(d.number for d in first + second) == list(range(10))
    assert draws(preset, entries(), 0) == first
    assert draws(replace(preset, seed=1), entries(), 0) != first
    again = [d.number for d in draws(preset, entries(), 2) + draws(preset, entries(), 3)]
    assert sorted(again) == list(range(10))
    assert again != [d.number for d in first + second]
    assert len({d.seed for d in first + second}) == 10


def test_the_curriculum_brings_protocols_one_after_another_in_its_ratio():
    preset = Finetune(batch=1, steps=3000)
    each = [[draws(preset, entries(), s)[0].protocol for s in range(*part)] for part in ((0, 600), (600, 1500), (1500, 3000))]
    start, middle, end = (Counter(protocols) for protocols in each)
    assert set(start) == {"start frame"}
    assert set(middle) == {"start frame", "arbitrary frame"}
    assert middle["arbitrary frame"] / middle["start frame"] == pytest.approx(2, rel=0.25)
    assert end["multi-reference"] / end["start frame"] == pytest.approx(3, rel=0.25)
    assert end["arbitrary frame"] / end["start frame"] == pytest.approx(1, rel=0.25)


def test_captions_references_and_labels_are_dropped_at_their_rates_and_times_are_uniform():
    preset = Finetune(batch=2000, drop_caption=0.3, drop_reference=0.2, keep_labels=0.6, stages=(Stage(1.0, 0.0, 0.0, 1.0),))
    drawn = draws(preset, entries(), 0)
    assert sum(d.caption == "" for d in drawn) / 2000 == pytest.approx(0.3, abs=0.04)
    assert sum(len(d.kept) for d in drawn) / 6000 == pytest.approx(0.8, abs=0.03)
    assert sum(d.labels for d in drawn) / 2000 == pytest.approx(0.6, abs=0.04)
    times = torch.tensor([d.time for d in drawn]).float()
    assert (int(times.min()) >= 0, int(times.max()) < 1000) == (True, True)
    assert torch.histc(times, 4, 0, 1000).sub(500).abs().max() < 80
    arbitrary = draws(replace(preset, stages=(Stage(1.0, 0.0, 1.0, 0.0),)), entries(), 0)
    assert {d.still for d in arbitrary} == {1, 2}


def test_bits_of_references_that_are_left_are_counted_anew():
    bits = torch.tensor([0b001, 0b010, 0b100, 0b110, 0, ALL])
    assert without_dropped(bits, (0, 2)).tolist() == [0b01, 0, 0b10, 0b10, 0, ALL]
    assert without_dropped(bits, ()).tolist() == [0, 0, 0, 0, 0, ALL]
    assert torch.equal(without_dropped(bits, (0, 1, 2)), bits)


def test_conditions_hold_what_was_drawn(data):
    shots = Precomputed(data)
    sample, preset = shots.read(3), replace(FULL, cells="majority")
    drawn = draws(replace(preset, stages=(Stage(1.0, 0.0, 0.0, 1.0),)), shots.samples, 0)[0]

    def given(**changes):
        return made.conditions(preset, replace(drawn, number=3, **changes), sample, shots.prompt("a girl"), 2)

    start = given(protocol="start frame", still=0, kept=(0,), labels=False)
    assert torch.equal(start.references[0], sample.stills[:1])
    arbitrary = given(protocol="arbitrary frame", still=2, kept=(0,), labels=False)
    assert torch.equal(arbitrary.references[0], sample.stills[2:3])
    assert start.layout.text == TEXT
    both = given(protocol="multi-reference", kept=(0, 1), labels=True)
    target = both.tokens.bits[0][both.tokens.kind == int(Kind.TARGET)]
    assert torch.equal(target, sample.majority)
    assert torch.equal(both.references[0], sample.references)
    alone = given(protocol="multi-reference", kept=(1,), labels=True)
    assert torch.equal(alone.references[0], sample.references[1:])
    bits = alone.tokens.bits[0]
    assert torch.equal(bits[alone.tokens.kind == int(Kind.TARGET)], sample.majority >> 1)  # the hero's area sees what is left
    unbound = given(protocol="multi-reference", kept=(0, 1), labels=False)
    assert bool((unbound.tokens.bits[0][unbound.tokens.kind == int(Kind.TARGET)] == ALL).all())
    none = given(protocol="start frame", kept=(), labels=False)
    assert none.layout.references == 0


@pytest.mark.parametrize("time", [0, 400, 999])
def test_the_loss_is_the_plain_error_of_v(time):
    denoiser, given = CogVideoX(transformer(), scheduler()), conditions(SIZES[0], 1, branches=1, guidance=1.0)
    clean, dirt = noise(SIZES[0], 3), noise(SIZES[0], 4)
    with torch.no_grad():
        got = v_loss(denoiser, clean, dirt, time, given)
        alpha = scheduler().alphas_cumprod[time]
        noisy = alpha**0.5 * clean + (1 - alpha) ** 0.5 * dirt
        v = alpha**0.5 * dirt - (1 - alpha) ** 0.5 * clean
        speed = denoiser._speed(noisy, torch.tensor([time]), denoiser.prepare(given))
    torch.testing.assert_close(got, (speed - v).square().mean(), rtol=1e-4, atol=0)


# Bad input


def test_a_folder_with_another_run_is_refused(data, base, tmp_path):
    run = tmp_path / "run"
    list(finetune(replace(FULL, steps=1), data, base, run, CPU))
    kept = (run / "config.json").read_text()
    with pytest.raises(ValueError, match="holds a run with another regime; give another --out"):
        next(finetune(replace(FULL, regime="joint"), data, base, run, CPU))
    other = Path(shutil.copytree(base, tmp_path / "other"))
    transformer(seed=7).save_pretrained(other / "transformer")
    with pytest.raises(ValueError, match="holds a run with another weights"):
        next(finetune(FULL, data, other, run, CPU))
    assert (run / "config.json").read_text() == kept


def test_a_checkpoint_cut_short_is_told(data, base, tmp_path):
    list(finetune(FULL, data, base, tmp_path, CPU))
    [file] = (tmp_path / "checkpoints" / "00000004").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"00000004: cannot be read .*; delete it to go on from the checkpoint before it"):
        list(finetune(replace(FULL, steps=5), data, base, tmp_path, CPU))
    file.unlink()
    with pytest.raises(ValueError, match=r"00000004: cannot be read"):
        list(finetune(replace(FULL, steps=5), data, base, tmp_path, CPU))
    shutil.rmtree(tmp_path / "checkpoints" / "00000004")
    assert [r.step for r in finetune(FULL, data, base, tmp_path, CPU)] == [3, 4]


def test_what_cannot_be_trained_is_told(data, base, tmp_path):
    with pytest.raises(ValueError, match="a LoRA lies upon the base's own transformer; leave out --model"):
        next(finetune(LORA, data, base, tmp_path, CPU, model=base))
    with pytest.raises(ValueError, match="no sample has references, which multi-reference needs"):
        draws(replace(FULL, stages=(Stage(1.0, 0.0, 0.0, 1.0),)), entries(references=0), 0)
    with pytest.raises(ValueError, match="batch is 0; give at least 1"):
        replace(FULL, batch=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "cogvideox-lora"], "cogvideox-lora needs --data .* and --base"),
        (["--preset", "cogvideox-lara"], "unknown preset 'cogvideox-lara'; use cogvideox-lora"),
        (["--preset", "cogvideox-full", "--workers", "2"], "--workers is for presets of the embedded model"),
        (["--preset", "toon", "--batch", "2"], "--batch is for presets of CogVideoX; leave it out with toon"),
        (["--preset", "cogvideox-full", "--data", "{empty}", "--base", "{base}"], "has no index.json"),
    ],
)
def test_the_command_refuses_in_one_line(options, message, base, tmp_path, capsys):
    given = [option.format(empty=tmp_path, base=base) for option in options]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", *given, "--out", str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert not (tmp_path / "run").exists()
