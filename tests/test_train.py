"""Training: exact resume, data as a pure function of the step, and a loss that falls."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from timecolor import diffusion, weights
from timecolor.correspondence import ALL
from timecolor.shot import Reference
from timecolor.train import batches, denoising, loop
from timecolor.train.batches import Batch, Steps, loader, make_batch
from timecolor.train.denoising import Denoising
from timecolor.train.loop import Report, train
from timecolor.train.presets import PRESETS, Bucket, Preset

DEBUG = PRESETS["debug"]
CPU = torch.device("cpu")
PARTS = ("clean", "sketch", "references", "bits", "character")


def learn(preset: Preset, folder: Path, minutes: float | None = None, init: Path | None = None) -> Iterator[Report]:
    return train(Denoising(preset, CPU), folder, minutes, init)


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, part), getattr(b, part)) for part in PARTS)


def test_two_steps_and_two_resumed_equal_four(tmp_path):
    whole = list(learn(DEBUG, tmp_path / "whole"))
    assert [r.step for r in whole] == [1, 2, 3, 4]
    broken = learn(DEBUG, tmp_path / "broken")
    assert [next(broken).step for _ in range(3)] == [1, 2, 3]  # stops after step 3; the last checkpoint is of step 2
    broken.close()
    resumed = list(learn(DEBUG, tmp_path / "broken"))
    assert [(r.step, r.loss) for r in resumed] == [(r.step, r.loss) for r in whole[2:]]
    for name in ("checkpoints/last.safetensors", "toon.safetensors"):
        (a, about_a), (b, about_b) = (weights.read(tmp_path / run / name) for run in ("whole", "broken"))
        assert about_a == about_b
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_leaves_all_that_is_needed_to_repeat_and_to_use_it(tmp_path):
    reports = list(learn(replace(DEBUG, steps=2), tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model"]["width"] == 64
    assert config["seed"] == DEBUG.seed
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert reports[-1].held_out is not None
    assert {"start frame", "arbitrary frame", "multi-reference"} <= reports[-1].held_out.keys()
    model, about = weights.load_toon(tmp_path / "toon.safetensors")
    assert (model.config, about["steps"], about["colour_cell"]) == (DEBUG.model, 2, DEBUG.colour_cell)


def test_a_finished_run_stays_as_it_is(tmp_path):
    short = replace(DEBUG, steps=1)
    list(learn(short, tmp_path))
    before = (tmp_path / "toon.safetensors").read_bytes()
    assert list(learn(short, tmp_path)) == []
    assert (tmp_path / "toon.safetensors").read_bytes() == before


def test_minutes_stop_with_a_checkpoint(tmp_path):
    assert [r.step for r in learn(DEBUG, tmp_path, minutes=0.0)] == [1]
    assert [r.step for r in learn(DEBUG, tmp_path)] == [2, 3, 4]


def test_a_timed_runs_rate_falls_to_nothing_as_its_minutes_end(tmp_path, monkeypatch):
    clock = iter(range(10**6))  # each look at it is a second later
    monkeypatch.setattr("timecolor.train.loop.time.monotonic", lambda: float(next(clock)))
    preset = replace(DEBUG, steps=10**6, warmup=1, cooldown=0.5, validate_every=10**9)
    rates = [r.rate for r in train(Denoising(preset, CPU), tmp_path, minutes=1.0, timed=True)]
    assert 10 < len(rates) < 60
    assert rates[0] == preset.rate
    assert all(a >= b for a, b in pairwise(rates))
    assert 0 <= rates[-1] < 0.1 * preset.rate
    with pytest.raises(ValueError, match="needs minutes"):
        next(train(Denoising(preset, CPU), tmp_path / "other", timed=True))


class _Line:
    """A lesson with a few weights, learned from parts of so many samples."""

    name = "line"

    def __init__(self, at_once: int) -> None:
        self.preset = replace(DEBUG, steps=3, warmup=1, rate=0.1, validate_every=10**9, checkpoint_every=10**9)
        self.at_once = at_once
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, 1)

    def fill_in(self, path: Path) -> None: ...

    def optimizers(self) -> list[torch.optim.Optimizer]:
        optimizer = torch.optim.SGD(self.model.parameters())
        optimizer.param_groups[0]["factor"] = 1.0
        return [optimizer]

    def batches(self, start: int) -> Iterator[torch.Tensor]:
        return (torch.randn(5, 3, generator=torch.Generator().manual_seed(step)) for step in range(start, 3))

    def parts(self, batch: torch.Tensor) -> list[tuple[torch.Tensor, float]]:
        return [(part, len(part) / len(batch)) for part in batch.split(self.at_once)]

    def losses(self, part: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return (self.model(part)[:, 0] - part.sum(1)).float().square()

    def measured(self) -> dict[str, float]:
        return {}

    def save(self, path: Path, average: dict[str, torch.Tensor], steps: int) -> None: ...


def test_a_batch_in_parts_teaches_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "has_bf16", lambda device: False)
    whole, parts = _Line(5), _Line(2)
    before = whole.model.weight.detach().clone()
    found = [[r.loss for r in train(lesson, tmp_path / str(lesson.at_once))] for lesson in (whole, parts)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert not torch.allclose(whole.model.weight, before)
    torch.testing.assert_close(whole.model.weight, parts.model.weight)


def test_weights_part_of_the_way_lie_between_those_before_and_the_runs_own(tmp_path):
    list(learn(DEBUG, tmp_path / "before"))
    before = tmp_path / "before" / "toon.safetensors"
    further = replace(DEBUG, seed=1, rate=1e-2)
    list(learn(further, tmp_path / "own", init=before))
    part = replace(further, moved=0.25)
    assert [r.step for r in learn(part, tmp_path / "part", minutes=0.0, init=before)] == [1]
    list(learn(part, tmp_path / "part", init=before))  # resumed, so what lies before is not what the checkpoint has
    first, own, found = (
        weights.read(path)[0] for path in (before, *(tmp_path / x / "toon.safetensors" for x in ("own", "part")))
    )
    moves = 0.0
    for key, value in found.items():
        a, b = first[key].float(), own[key].float()
        assert torch.allclose(value.float(), a + 0.25 * (b - a), rtol=2e-3, atol=1e-5), key
        moves = max(moves, float((b - a).abs().max()))
    assert moves > 0.01
    with pytest.raises(ValueError, match="give them, --init, each time"):
        next(learn(part, tmp_path / "part"))
    with pytest.raises(ValueError, match=r"moved is 1\.5; give more than 0 and at most 1"):
        replace(part, moved=1.5)


@pytest.mark.parametrize("change", [{"seed": 1}, {"rate": 1e-3}, {"model": replace(DEBUG.model, layers=3)}])
def test_a_folder_with_another_run_is_refused(tmp_path, change):
    loop.write_config(tmp_path, asdict(DEBUG))
    kept = (tmp_path / "config.json").read_text()
    with pytest.raises(ValueError, match=f"holds a run with another {next(iter(change))}; give another --out"):
        next(learn(replace(DEBUG, **change), tmp_path))
    assert (tmp_path / "config.json").read_text() == kept


def test_a_loss_that_is_not_finite_names_step_and_sample_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    true, seen = diffusion.loss, []

    def poisoned(prediction: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        each = true(prediction, clean)
        seen.append(len(each))
        if len(seen) == 4:
            each = torch.stack([each[0], torch.tensor(float("nan"))])
        return each

    monkeypatch.setattr(diffusion, "loss", poisoned)
    with pytest.raises(FloatingPointError, match="loss is not finite at step 3, sample 1; lower the rate"):
        list(learn(DEBUG, tmp_path))
    assert weights.read(tmp_path / "checkpoints" / "last.safetensors")[1]["step"] == 2


def test_loss_falls_on_one_batch():
    preset = replace(DEBUG, rate=4e-3, stages=(DEBUG.stages[0],))
    lesson, batch = Denoising(preset, CPU), Steps(preset)[0]
    model, optimizers = lesson.model, lesson.optimizers()
    losses = []
    for _ in range(60):
        prediction, clean = denoising.predict(model, batch, preset, torch.Generator().manual_seed(0), CPU)
        loss = diffusion.loss(prediction, clean).mean()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


# ----------------------------------------------------------------------------------------------------------------------- batches


def test_a_batch_is_a_pure_function_of_preset_and_step():
    first = Steps(DEBUG)[3]
    Steps(DEBUG)[0]
    np.random.default_rng().random()
    assert same(first, Steps(replace(DEBUG))[3])
    assert not torch.equal(first.clean, Steps(DEBUG)[2].clean)
    assert not torch.equal(first.clean, Steps(replace(DEBUG, seed=1))[3].clean)


def test_worker_processes_make_the_same_batches():
    here, there = (list(loader(Steps(DEBUG), replace(DEBUG, workers=n), 1)) for n in (0, 1))
    assert len(here) == len(there) == 3
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


def test_shapes_and_ranges_are_as_the_codec_gives_them():
    batch = make_batch(DEBUG, Bucket(32, 48, 2, 2, 1.0), "multi-reference", 3, 0, range(2), augment=True)
    assert batch.clean.shape == (2, 2, 3, 8, 12)
    assert batch.sketch.shape == (2, 2, 3, 32, 48)
    assert batch.references.shape == (2, 3, 4, 32, 48)
    assert batch.bits.shape == (2, 2 * 4 * 6)
    assert batch.clean.abs().max() <= 1
    assert batch.references.abs().max() <= 1
    assert 0 <= batch.sketch.min() < batch.sketch.max() <= 1


def test_the_curriculum_begins_with_the_start_frame():
    preset = replace(DEBUG, steps=1000)
    counts = [Steps(preset)[step].references.shape[1] for step in (0, 30, 60, 99)]
    assert counts == [1, 1, 1, 1]
    assert max(Steps(preset)[step].references.shape[1] for step in range(900, 906)) > 1


# The plate in red and each character in a colour of its own, so that a reference can be told by its colour alone.
FLATS = ((230, 20, 20), (20, 230, 20), (20, 20, 230), (230, 230, 20))


def flat_cast(shot, references, rng, plate):
    """Stands in for `_cast`: one flat picture for the plate and for each of three characters."""
    return [Reference(np.full((32, 48, 3), colour, np.uint8)) for colour in FLATS], {k: [k] for k in range(4)}


@pytest.mark.parametrize("lost", [0.0, 0.5])
def test_shuffled_and_dropped_references_keep_their_labels(monkeypatch, lost):
    monkeypatch.setattr(batches, "_cast", flat_cast)
    preset = replace(DEBUG, keep_labels=1.0, drop_reference=lost)
    orders, checked = set(), 0
    for index in range(6):
        batch = make_batch(preset, Bucket(32, 48, 2, 1, 1.0), "multi-reference", 4, 0, range(index, index + 1), augment=True)
        centres = batch.references[0, :, :3, 12:20, 18:30].mean(dim=(2, 3))
        distance = (centres[:, None] - (torch.tensor(FLATS) / 127.5 - 1)[None]).norm(dim=2)
        is_lost = (centres == -1).all(dim=1)
        label_of = [None if gone else int(row.argmin()) for gone, row in zip(is_lost, distance, strict=True)]
        orders.add(tuple(label_of))
        share = torch.nn.functional.avg_pool2d(batch.character[0], 8).flatten()
        for bits, covered in zip(batch.bits[0].tolist(), share.tolist(), strict=True):
            seen = {label_of[r] for r in range(4) if bits >> r & 1} - {None}
            if covered == 0:
                assert seen <= {0}
                assert seen == {0} or 0 not in label_of
                checked += 1
            elif covered == 1:
                assert 0 not in seen
                checked += 1
    assert checked > 50
    assert len(orders) > 3


def test_sketch_colours_and_labels_are_mirrored_together():
    mirrored = 0
    for index in range(8):
        plain, varied = (
            make_batch(DEBUG, Bucket(32, 48, 2, 1, 1.0), "start frame", 1, 0, range(index, index + 1), augment)
            for augment in (False, True)
        )
        turned = not torch.equal(plain.clean, varied.clean)
        mirrored += turned
        for part in ("clean", "character"):
            expected = getattr(plain, part).flip(-1) if turned else getattr(plain, part)
            torch.testing.assert_close(getattr(varied, part), expected)
    assert 0 < mirrored < 8


def test_without_labels_every_token_sees_every_reference():
    for protocol, keep in (("start frame", 1.0), ("multi-reference", 0.0)):
        batch = make_batch(replace(DEBUG, keep_labels=keep), Bucket(32, 48, 1, 1, 1.0), protocol, 2, 0, range(1), augment=True)
        assert (batch.bits == ALL).all()
