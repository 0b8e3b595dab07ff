"""The judge learns: shots that say what each region should have had, and a network that gets better by it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from timecolor import models
from timecolor.choice import FEATURES, OWN, Offers, judge
from timecolor.train.judging import JudgingPreset, Regions, collect, fit, measured, regions_of, shots, train
from timecolor.world import HELD_OUT_SEED, World

SMALL = JudgingPreset(shots=2, height=96, width=144, frames=2, strides=(3,), steps=400, batch=256)


def test_a_shot_tells_what_every_offer_was_worth():
    model = models.load("toon", "cpu")
    drawn = World(SMALL.seed, SMALL.height, SMALL.width).shot(0)
    for shot, truth in shots(drawn, SMALL):
        found = regions_of(shot, truth, model)
        assert found is not None
        n, k = found.away.shape
        assert found.what.shape == (n, k, FEATURES)
        assert found.there[:, OWN].all()
        assert (found.size <= 0.05).all()
        assert np.isfinite(found.away).all()
        # What plates show is right for many regions and wrong for others.
        plates = found.there[:, 2:]
        assert 0 < (found.away[:, 2:] < 10)[plates].mean() < 1


def test_forms_vary_and_shots_are_given_again():
    world = World(SMALL.seed, SMALL.height, SMALL.width)
    made = [list(shots(world.shot(i), SMALL)) for i in range(6)]
    bound = [shot.labels is not None for some in made for shot, _ in some[1:]]
    assert 0 < sum(bound) < len(bound)
    again = list(shots(world.shot(0), SMALL))
    assert all(np.array_equal(a[0].sketch, b[0].sketch) for a, b in zip(made[0], again, strict=True))


def invented(n: int) -> Regions:
    """Regions whose own colour is right where the first feature is positive, and whose plate's elsewhere."""
    rng = np.random.default_rng(0)
    what = rng.normal(size=(n, 3, FEATURES)).astype(np.float32)
    what[:, :, 0] = what[:, :1, 0]
    what[:, :, -3:] = np.eye(3)
    own = what[:, 0, 0] > 0
    away = np.stack([np.where(own, 2.0, 30.0), np.full(n, 1.0), np.where(own, 30.0, 2.0)], axis=1).astype(np.float32)
    there = np.ones((n, 3), bool)
    there[:, 1] = False
    return Regions(what, away, there, rng.uniform(0.001, 0.05, n))


def test_a_network_learns_when_to_take_what():
    network = fit(SMALL, invented(4000), say=lambda _: None)
    right = measured(network, invented(500))
    assert right["own"][0] < 0.6
    assert right["chosen"][0] > 0.95
    assert right["best"] == [1.0, 1.0]


def test_a_run_leaves_a_network_that_can_be_used_and_goes_on_from_what_it_collected(tmp_path):
    preset, said = replace(SMALL, steps=20), []
    train(preset, tmp_path, 1, said.append)
    assert any("2 of 2 shots" in line for line in said)
    network = judge(tmp_path / "judge.safetensors")
    picks = network(_nothing())
    assert picks.tolist() == [OWN]
    assert json.loads((tmp_path / "judge.json").read_text())["regions"] > 0
    again: list[str] = []
    train(preset, tmp_path, 1, again.append)
    assert not any("of 2 shots" in line for line in again)
    for (weight, bias), (same, too) in zip(network.layers, judge.__wrapped__(tmp_path / "judge.safetensors").layers, strict=True):
        assert np.array_equal(weight, same)
        assert np.array_equal(bias, too)
    with pytest.raises(ValueError, match="give another --out"):
        train(replace(preset, shots=3), tmp_path, 1, again.append)


def _nothing() -> Offers:
    """A region that is offered its own colour alone."""
    zero, one = np.zeros((1, 2)), np.zeros(1)
    there = np.array([[True, False]])
    return Offers(
        np.zeros(1, int), one + 0.01, np.zeros(1, int), np.zeros(1, int), np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), there,
        np.array([0, 1]), one, one, one, one, zero, zero, zero, zero, zero > 0,
    )  # fmt: skip


def test_the_held_out_world_is_not_learned_from():
    with pytest.raises(ValueError, match="held-out"):
        JudgingPreset(seed=HELD_OUT_SEED)


def test_workers_change_nothing():
    one, two = (collect(SMALL, workers, lambda _: None) for workers in (1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
