"""The networks of choice learn: shots that say what each cell and region should have had, and networks that get better by it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from timecolor import models, trust
from timecolor.choice import FEATURES, OWN, CellOffers, Offers, judge, truster
from timecolor.train.judging import (
    FITTING,
    Cases,
    JudgingPreset,
    cells_of,
    collect,
    fit,
    measured,
    network_of,
    regions_of,
    shots,
    train,
)
from timecolor.world import HELD_OUT_SEED, World

SMALL = JudgingPreset(shots=2, height=96, width=144, frames=2, strides=(3,))


def test_a_shot_tells_what_every_offer_was_worth():
    model = models.load("toon", "cpu")
    drawn = World(SMALL.seed, SMALL.height, SMALL.width).shot(0)
    for shot, truth, shown in shots(drawn, SMALL):
        found = regions_of(shot, truth, shown, model)
        assert found is not None
        n, k = found.away.shape
        assert found.what.shape == (n, k, FEATURES)
        assert found.there[:, OWN].all()
        assert (found.size <= 0.05).all()
        assert np.isfinite(found.away).all()
        # What plates show is right for many regions and wrong for others.
        plates = found.there[:, 2:]
        assert 0 < (found.away[:, 2:] < 10)[plates].mean() < 1


def test_a_shot_tells_what_every_cell_could_have():
    model = models.load("toon", "cpu")
    shot, truth, shown = next(shots(World(SMALL.seed, SMALL.height, SMALL.width).shot(0), SMALL))
    found = cells_of(shot, truth, shown, model)
    assert found is not None
    n, k = found.away.shape
    assert n == 1200 * (len(truth) - 1)  # the frame that is the reference teaches nothing
    assert found.what.shape == (n, k, trust.FEATURES)
    assert found.there[:, OWN].all()
    right = found.away < 10
    assert right[:, 2].mean() > 0.3
    assert (right.any(axis=1)).mean() > right[:, OWN].mean()


def test_forms_vary_and_shots_are_given_again():
    world = World(SMALL.seed, SMALL.height, SMALL.width)
    made = [list(shots(world.shot(i), SMALL)) for i in range(12)]
    bound = [shot.labels is not None for some in made for shot, _, _ in some[1:]]
    assert 0 < sum(bound) < len(bound)
    plates = [shot.references[0].role == "background" for some in made for shot, _, _ in some[1:]]
    assert 0 < sum(plates) < len(plates)
    # A film's lines are extracted: black and white only; drawn ones are soft.
    film = [len(np.unique(some[0][0].sketch)) == 2 for some in made]
    assert 0 < sum(film) < len(film)
    again = list(shots(world.shot(0), SMALL))
    assert all(np.array_equal(a[0].sketch, b[0].sketch) for a, b in zip(made[0], again, strict=True))


def test_half_of_the_frames_are_of_a_drawing_that_is_not_given():
    preset = replace(SMALL, frames=4, strides=(1,), drawings=4, worn=0.0)
    world = World(preset.seed, preset.height, preset.width)
    given, held = [], 0
    for index in range(16):
        drawn = world.shot(index)
        shot, truth, shown = next(shots(drawn, preset))
        assert len(shot.sketch) == len(truth)
        colour = np.stack([drawn.render(t).colour for t in range(4)])
        same = [t for t in range(4) if np.array_equal(colour[t], shot.references[0].image)]
        given.append(len(shown) > 0)
        if shown:
            assert len(shot.sketch) == 4
            assert set(same) <= set(shown)
        else:
            sketches = [drawn.render(t).sketch for t in same]
            assert not any(np.array_equal(own, other) for own in sketches for other in np.asarray(shot.sketch[0 : len(truth)]))
        held += len(same) > 1
    assert 0 < sum(given) < 16
    assert held


def test_few_drawings_of_a_shot_tell_and_keep_their_truth():
    """Of four, two, and where it is given the frame's own; each beside its own fills."""
    preset = replace(SMALL, frames=4, strides=(1,), drawings=2, worn=0.0)
    world = World(preset.seed, preset.height, preset.width)
    lengths = set()
    for index in range(8):
        drawn = world.shot(index)
        shot, truth, shown = next(shots(drawn, preset))
        frames = [drawn.render(t) for t in range(4)]
        assert 1 <= len(truth) - len(shown) <= 2
        assert len(shot.sketch) == len(truth)
        for i, fills in enumerate(truth):
            same = [t for t in range(4) if np.array_equal(frames[t].sketch, shot.sketch[i : i + 1][0])]
            assert any(np.array_equal(frames[t].fills, fills) for t in same)
            own = any(np.array_equal(frames[t].colour, shot.references[0].image) for t in same)
            assert own == (i in shown)
        lengths.add(len(truth) - len(shown))
    assert 2 in lengths


def invented(n: int, features: int) -> Cases:
    """What is own is right where the first feature is positive, and what a plate shows elsewhere."""
    rng = np.random.default_rng(0)
    what = rng.normal(size=(n, 3, features)).astype(np.float32)
    what[:, :, 0] = what[:, :1, 0]
    what[:, :, -3:] = np.eye(3)
    own = what[:, 0, 0] > 0
    away = np.stack([np.where(own, 2.0, 30.0), np.full(n, 1.0), np.where(own, 30.0, 2.0)], axis=1).astype(np.float32)
    there = np.ones((n, 3), bool)
    there[:, 1] = False
    return Cases(what, away, there, rng.uniform(0.001, 0.05, n))


@pytest.mark.parametrize(("unit", "features"), [("regions", FEATURES), ("cells", trust.FEATURES)])
def test_a_network_learns_when_to_take_what(unit, features):
    network = network_of(fit(unit, invented(4000, features), say=lambda _: None, steps=300))
    right = measured(network, invented(500, features))
    assert right["own"][0] < 0.6
    assert right["chosen"][0] > 0.95
    assert right["best"][:2] == [1.0, 1.0]


def test_members_begin_at_random_and_their_mean_is_taken(monkeypatch):
    cases = invented(500, trust.FEATURES)
    both = network_of(fit("cells", cases, say=lambda _: None, steps=5))
    monkeypatch.setitem(FITTING, "cells", replace(FITTING["cells"], members=1))
    alone = [network_of(fit("cells", cases, say=lambda _: None, seed=seed, steps=5))(cases.what) for seed in (7, 107, 207, 307)]
    assert np.allclose(both(cases.what), np.mean(alone, axis=0), atol=1e-5)
    assert not np.allclose(alone[0], alone[1], atol=1e-2)


def test_a_run_leaves_networks_that_can_be_used_and_goes_on_from_what_it_collected(tmp_path):
    preset, said = SMALL, []
    train(preset, tmp_path, 1, said.append, steps=20)
    assert sum("2 of 2 shots" in line for line in said) == 2
    network = judge(tmp_path / "judge.safetensors")
    picks = network(_nothing())
    assert picks.tolist() == [OWN]
    report = json.loads((tmp_path / "judge.json").read_text())
    assert min(report["cells"]["number"], report["regions"]["number"]) > 0
    again: list[str] = []
    train(preset, tmp_path, 1, again.append, steps=20)
    assert not any("of 2 shots" in line for line in again)
    same = judge.__wrapped__(tmp_path / "judge.safetensors")
    for layer, too in zip(network.network.layers, same.network.layers, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(layer, too, strict=True))
    black = np.zeros((1, 1, 1, 3))
    alone = CellOffers(black, black, np.ones((1, 1, 1), bool), np.zeros((1, 1, 1, trust.FEATURES)), np.zeros((1, 1), int))
    assert truster(tmp_path / "trust.safetensors")(alone).tolist() == [[OWN]]
    with pytest.raises(ValueError, match="give another --out"):
        train(replace(preset, shots=3), tmp_path, 1, again.append)
    other = tmp_path / "matcher.safetensors"
    other.write_bytes(b"others")
    with pytest.raises(ValueError, match="give another --out"):
        train(preset, tmp_path, 1, again.append, matcher=other)


def _nothing() -> Offers:
    """A region that is offered its own colour alone."""
    zero, one = np.zeros((1, 2)), np.zeros(1)
    there = np.array([[True, False]])
    return Offers(
        np.zeros(1, int), one + 0.01, np.zeros(1, int), np.zeros(1, int), np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), there,
        np.array([0, 1]), one, one, one, one, zero, True, zero, zero, zero, zero, zero > 0,
    )  # fmt: skip


def test_the_held_out_world_is_not_learned_from():
    with pytest.raises(ValueError, match="held-out"):
        JudgingPreset(seed=HELD_OUT_SEED)


@pytest.mark.parametrize("unit", ["cells", "regions"])
def test_workers_change_nothing(unit):
    one, two = (collect(unit, SMALL, workers, lambda _: None) for workers in (1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
