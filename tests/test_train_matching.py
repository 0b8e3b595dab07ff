"""Training of the matcher: scenes as a pure function of the step, parts that lie on their lines, a loss that means something."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from timecolor import weights
from timecolor.matcher import Described, Matcher, MatcherConfig
from timecolor.matching import Look
from timecolor.train.batches import loader
from timecolor.train.loop import train
from timecolor.train.matching import LARGER, Matching, Met, Pairs, Steps, asked, described, enlarged, known, losses, make_pairs
from timecolor.train.presets import PRESETS, MatcherPreset, Views
from timecolor.world import HELD_OUT_SEED

DEBUG = PRESETS["debug-matcher"]
CPU = torch.device("cpu")
VIEWS = Views(64, 96, 4, 1.0)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(a: Pairs, b: Pairs) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def pairs(augment=False, seed=0, first=0, **changes) -> Pairs:
    return make_pairs(replace(DEBUG, **changes), VIEWS, seed, range(first, first + 4), augment)


def test_two_steps_and_two_resumed_equal_four(tmp_path):
    whole = list(train(Matching(DEBUG, CPU), tmp_path / "whole"))
    broken = train(Matching(DEBUG, CPU), tmp_path / "broken")
    assert [next(broken).step for _ in range(3)] == [1, 2, 3]
    broken.close()
    resumed = list(train(Matching(DEBUG, CPU), tmp_path / "broken"))
    assert [(r.step, r.loss) for r in resumed] == [(r.step, r.loss) for r in whole[2:]]
    assert {"loss", "found", "nothing", "tone"} <= whole[-1].held_out.keys()
    a, b = (weights.load_matcher(tmp_path / run / "matcher.safetensors") for run in ("whole", "broken"))
    assert a.config == DEBUG.model
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_weights_to_start_from_must_fit(tmp_path):
    list(train(Matching(replace(DEBUG, steps=1), CPU), tmp_path / "first"))
    path = tmp_path / "first" / "matcher.safetensors"
    lesson = Matching(DEBUG, CPU)
    lesson.fill_in(path)
    known = weights.load_matcher(path).state_dict()
    assert all(torch.equal(v, known[k]) for k, v in lesson.model.state_dict().items())
    with pytest.raises(ValueError, match="start from weights of its sizes"):
        Matching(replace(DEBUG, model=replace(DEBUG.model, describe=16)), CPU).fill_in(path)


def test_a_run_goes_on_from_the_weights_that_it_started_from_which_need_not_be_given_again(tmp_path):
    for name, seed in (("one", 0), ("other", 1)):
        list(train(Matching(replace(DEBUG, steps=1, seed=seed), CPU), tmp_path / name))
    one, other = (tmp_path / name / "matcher.safetensors" for name in ("one", "other"))
    list(train(Matching(replace(DEBUG, steps=2), CPU), tmp_path / "run", init=one))
    with pytest.raises(ValueError, match="run holds a run with another init; give another --out"):
        list(train(Matching(replace(DEBUG, steps=3), CPU), tmp_path / "run", init=other))
    for steps, init in ((3, None), (4, one)):
        assert list(train(Matching(replace(DEBUG, steps=steps), CPU), tmp_path / "run", init=init))[-1].step == steps
    with pytest.raises(ValueError, match="one holds a run with another init"):
        list(train(Matching(replace(DEBUG, steps=2), CPU), tmp_path / "one", init=other))


def test_a_batch_is_a_pure_function_of_preset_and_step():
    here, there = (list(loader(Steps(DEBUG), replace(DEBUG, workers=n), 1)) for n in (0, 1))
    assert len(here) == len(there) == 3
    assert all(same(a, b) for a, b in zip(here, there, strict=True))
    assert not same(here[0], here[1])


def test_the_held_out_world_is_refused():
    with pytest.raises(ValueError, match="held-out"):
        MatcherPreset(seed=HELD_OUT_SEED)


def test_shapes_and_ranges():
    batch = pairs(augment=True)
    assert batch.drawing.shape == (4, 2, 64, 96)
    assert batch.references.shape == (4, 2, 2, 64, 96)
    assert batch.parts.shape == batch.counted.shape == (4, 32, 48)
    assert batch.theirs.shape == batch.shown.shape == (4, 2, 32, 48)
    for picture in (batch.drawing, batch.references):
        assert picture.dtype == torch.uint8
        assert set(picture[..., 1, :, :].unique().tolist()) <= {0, 255}
        assert picture[..., 0, :, :].max() > 200
    assert batch.counted.any(dim=(1, 2)).all()
    assert batch.shown.any(dim=(1, 2, 3)).all()


def test_places_that_count_are_asked_for_small_parts_too_and_shown_ones_come_first():
    batch = pairs(frames=0.0, labelled=1.0)
    of_own, of_theirs = asked(batch, 64, chance()), known(batch, 300, chance())
    for counted, shown, own, theirs in zip(batch.counted, batch.shown, of_own, of_theirs, strict=True):
        assert counted.flatten()[own].all()
        assert len(theirs.unique()) == len(theirs) == 300
        assert int(shown.flatten()[theirs].sum()) == min(300, int(shown.sum()))
    assert known(batch, 10**6, chance()).shape == (4, 2 * 32 * 48)  # all there are
    parts = torch.zeros(1, 32, 48, dtype=torch.uint8)
    parts[0, :20], parts[0, 0, :10] = 2, 4
    drawing = torch.zeros(1, 2, 64, 96, dtype=torch.uint8)
    drawing[0, 1] = 255 * (parts[0] > 0).repeat_interleave(2, 0).repeat_interleave(2, 1)
    one = batch._replace(drawing=drawing, parts=parts)
    share = float((parts.flatten()[asked(one, 4000, chance())] == 4).float().mean())
    assert 0.1 < share < 0.25  # of 1 % of the places; 0.14 expected
    thin = asked(one._replace(drawing=torch.zeros_like(drawing)), 50, chance())
    assert thin.shape == (1, 50)


def test_labelled_scenes_ask_for_one_character_and_show_that_one():
    batch = pairs(frames=0.0, labelled=1.0)
    for parts, counted, theirs, shown in zip(batch.parts, batch.counted, batch.theirs, batch.shown, strict=True):
        asked = {(int(p) - 2) // 80 for p in parts[counted].unique() if 2 <= p < 242}
        assert len(asked) == 1
        there = {(int(p) - 2) // 80 for p in theirs[shown].unique() if 2 <= p < 242}
        assert there == asked


def test_frames_show_the_place_too_and_cut_outs_do_not():
    whole = pairs(frames=1.0, labelled=0.0)
    assert whole.shown[:, 0].all()
    assert not whole.shown[:, 1].any()
    assert (whole.theirs[:, 0] < 2).any()
    cut = pairs(frames=0.0, labelled=0.0, plates=0.0)
    assert (cut.theirs[cut.shown] >= 2).float().mean() > 0.9
    assert cut.counted.all()
    beside = pairs(frames=0.0, labelled=0.0, plates=1.0)
    assert (beside.theirs[:, 0][beside.shown[:, 0]] >= 2).float().mean() > 0.9
    assert beside.shown[:, 1].all()
    assert (beside.theirs[:, 1] < 2).all()


def test_some_drawings_are_taken_from_the_coloured_one():
    drawn, taken = (pairs(augment=True, frames=0.0, labelled=0.0, extracted=share) for share in (0.0, 1.0))
    assert not torch.equal(drawn.drawing, taken.drawing)
    assert (taken.drawing[:, 0] > 127).flatten(1).any(dim=1).all()
    assert drawn.parts.shape == taken.parts.shape


def test_parts_lie_where_the_lines_are():
    """Where parts change there is mostly a line, in drawings and in references, however they are turned."""
    batch = pairs(augment=True, frames=0.0, labelled=1.0)
    batch = batch.mirrored(torch.tensor([True, False, True, False]), torch.tensor([[True, True], [False, False]] * 2))
    for lines, parts, where in (
        (batch.drawing[:, 0], batch.parts, batch.counted),
        (batch.references[:, 0, 0], batch.theirs[:, 0], batch.shown[:, 0]),
    ):
        dark = torch.nn.functional.max_pool2d(lines[:, None] / 255, 6, 2, 2)[:, 0] > 0.2
        h, w = parts.shape[1:]
        borders = (parts[:, :, 1:] >> 1 != parts[:, :, :-1] >> 1) & where[:, :, 1:] & where[:, :, :-1]
        at = dark[:, :h, :w][:, :, 1:]
        assert at[borders].float().mean() > at[~borders].float().mean() + 0.3


def test_places_stay_on_what_they_are_of_when_pictures_are_mirrored():
    width = 96
    columns = torch.arange(width, dtype=torch.uint8).expand(4, 2, 64, width)
    at_places = columns[:, 0, 1::2, 1::2]
    told = Pairs(columns, at_places, columns[:, None].expand(-1, 2, -1, -1, -1), at_places[:, None].expand(-1, 2, -1, -1))
    drawings, references = torch.tensor([True, True, False, False]), torch.tensor([[True, False]] * 4)
    turned = told.mirrored(drawings, references)
    assert torch.equal(turned.drawing[:, 0, 1::2, 1::2], turned.parts)
    assert torch.equal(turned.references[:, :, 0, 1::2, 1::2], turned.theirs)
    reverse = columns[0, 0, 0, 1::2].flip(0)
    assert torch.equal(turned.parts[:2, 5], reverse.expand(2, -1))
    assert torch.equal(turned.parts[2:], told.parts[2:])
    assert torch.equal(turned.theirs[:, 0, 5], reverse.expand(4, -1))
    assert torch.equal(turned.theirs[:, 1], told.theirs[:, 1])


@pytest.mark.parametrize("scale", [1.0, LARGER])
def test_enlarged_pictures_are_learned_from_as_they_are_looked_at(scale):
    """The same pixels, and the same places of them, as `timecolor.matching.Look` has."""
    look, batch = Look(mirrored=False, scale=scale), pairs(frames=0.0, labelled=1.0)
    seen = enlarged(batch.drawing, scale)
    for picture, (lines, area) in zip(seen, batch.drawing, strict=True):
        assert np.abs(255 * picture[0].numpy() - look(lines.numpy()).astype(float)).max() < 1.5
        assert np.array_equal(picture[1].numpy() > 0, look(area.numpy() > 0))
    every, area = torch.arange(32 * 48)[None], np.ones((64, 96), bool)
    places = torch.randn(1, 2, 3, *(-(-n // 2) for n in seen.shape[2:]), generator=chance())
    assert torch.equal(described(places, every, (32, 48))[0], look.back(places[0, 0], area))
    assert torch.equal(described(places, every + 32 * 48, (32, 48))[0], look.back(places[0, 1], area))


def test_pairs_come_again_beside_new_ones_the_latest_of_each_size():
    met, every = Met(6), [pairs(first=4 * i) for i in range(3)]
    first = met.beside(every[0], 8, chance())
    assert len(first.drawing) == 12
    assert same(Pairs(*(x[:4] for x in first)), every[0])
    met.beside(every[1], 0, chance())
    last = met.beside(every[2], 200, chance())
    # Of the second batch the last two are left, and the third.
    left = torch.cat([every[1].drawing[2:], every[2].drawing])
    found = [(left == x).flatten(1).all(1).nonzero().flatten().tolist() for x in last.drawing[4:]]
    assert sorted({i for own in found for i in own}) == list(range(6))
    assert all(found)
    other = make_pairs(DEBUG, Views(32, 48, 2, 1.0), 0, range(2), False)
    assert met.beside(other, 3, chance()).drawing.shape == (5, 2, 32, 48)


def test_a_batch_is_learned_from_in_parts_that_fit_a_cpus_memory(monkeypatch):
    monkeypatch.setattr("timecolor.train.matching.AT_ONCE", 3)
    batch = pairs()
    found, shares = zip(*Matching(DEBUG, CPU).parts(batch), strict=True)
    assert [len(part.drawing) for part in found] == [3, 1]
    assert shares == (0.75, 0.25)
    assert same(Pairs(*(torch.cat(x) for x in zip(*found, strict=True))), batch)


class _Knowing(Matcher):
    """Describes each place by a part of its own, told beforehand."""

    def __init__(self, told: torch.Tensor) -> None:
        super().__init__()
        self.told = iter(told)
        parts, tones = (torch.randn(n, 64, generator=chance()) for n in (128, 256))
        self.table = torch.nn.functional.normalize(parts.repeat_interleave(2, 0) + 0.3 * tones, dim=1)

    def of_areas(self, pictures: torch.Tensor, references: Sequence[Sequence[Described]]) -> list[Described]:
        return [Described(self.table[next(self.told).long()].movedim(-1, 0), torch.zeros(0, 0, 1)) for _ in pictures]

    def likeness(self, queries, keys):
        return (40 * (queries @ keys.mT - 1)).exp(), torch.full(queries.shape[:2], np.exp(-25.0))


def test_the_loss_is_small_for_one_who_knows_and_large_for_one_who_errs():
    preset = replace(DEBUG, queries=64, keys=1024)
    batch = pairs(frames=0.0, labelled=1.0)
    told = torch.cat([batch.theirs.flatten(0, 1), batch.parts])
    knows, about = losses(_Knowing(told), batch, preset, chance())
    assert knows.shape == (4,)
    assert knows.max() < 0.3
    assert about["found"] > 0.95
    assert about["tone"] > 0.95
    # Light is taken for shade.
    _, about = losses(_Knowing(torch.cat([batch.theirs.flatten(0, 1), batch.parts ^ 1])), batch, preset, chance())
    assert about["tone"] < 0.1
    # The drawings' parts are taken for their neighbours' in the table.
    wrong = torch.cat([batch.theirs.flatten(0, 1), batch.parts + 2])
    errs, about = losses(_Knowing(wrong), batch, preset, chance())
    assert errs.min() > 1
    assert about["found"] < 0.2


def test_loss_falls_on_one_batch():
    preset = replace(DEBUG, queries=64, keys=512, rate=1e-2, tone=0.0)
    lesson = Matching(preset, CPU)
    batch, optimizers, found = pairs(frames=0.0, labelled=1.0), lesson.optimizers(), []
    for _ in range(60):
        loss = losses(lesson.model, batch, preset, chance())[0].mean()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        found.append(loss.item())
    assert found[-1] < 0.7 * found[0]


def test_attention_is_learned_beside_what_is_known(tmp_path):
    """Weights without attention say the same in a model that has it; then the references reach the drawing."""
    plain = Matching(DEBUG, CPU)
    plain.save(tmp_path / "plain.safetensors", plain.model.state_dict(), 0)
    looking = Matching(replace(DEBUG, model=MatcherConfig((8, 16, 16), 8, attention=1), rate=1e-2), CPU)
    looking.fill_in(tmp_path / "plain.safetensors")
    plain.fill_in(tmp_path / "plain.safetensors")
    batch = pairs(frames=0.0, labelled=1.0)
    before, same_as = (losses(x.model, batch, x.preset, chance())[0] for x in (looking, plain))
    torch.testing.assert_close(before, same_as)

    def described(reference: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return looking.model.of_area(batch.drawing[0] / 255, [looking.model.of_area(reference / 255)]).places

    one, other = batch.references[0, 0], batch.references[1, 0]
    assert torch.equal(described(one), described(other))
    for _ in range(3):
        losses(looking.model, batch, looking.preset, chance())[0].mean().backward()
        for optimizer in looking.optimizers():
            optimizer.step()
    assert not torch.allclose(described(one), described(other))
    with pytest.raises(ValueError, match="start from weights of its sizes"):
        Matching(replace(DEBUG, model=MatcherConfig((8, 16, 16), 16)), CPU).fill_in(tmp_path / "plain.safetensors")


def test_a_refined_matcher_starts_as_what_it_grew_from_and_learns_in_all_it_has_more(tmp_path):
    plain = Matching(DEBUG, CPU)
    plain.save(tmp_path / "plain.safetensors", plain.model.state_dict(), 0)
    deeper = Matching(replace(DEBUG, model=MatcherConfig((8, 16, 16), 8, attention=2, refined=True), rate=1e-2), CPU)
    deeper.fill_in(tmp_path / "plain.safetensors")
    plain.fill_in(tmp_path / "plain.safetensors")
    batch = pairs(frames=0.0, labelled=1.0)
    before, same_as = (losses(x.model, batch, x.preset, chance())[0] for x in (deeper, plain))
    torch.testing.assert_close(before, same_as)

    more = {k: v for k, v in deeper.model.named_parameters() if k.startswith(("refine", "coarse", "attention"))}
    assert {k.split(".")[0] for k in more} == {"refine", "coarse", "attention"}
    optimizers, start = deeper.optimizers(), {k: v.detach().clone() for k, v in more.items()}
    for _ in range(3):
        losses(deeper.model, batch, deeper.preset, chance())[0].mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert not [k for k, v in more.items() if torch.equal(v, start[k])]

    deeper.save(tmp_path / "deeper.safetensors", deeper.model.state_dict(), 3)
    again = weights.load_matcher(tmp_path / "deeper.safetensors")
    assert again.config == deeper.preset.model
    torch.testing.assert_close(again.state_dict(), deeper.model.state_dict(), atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="start from weights of its sizes"):
        Matching(replace(DEBUG, model=MatcherConfig((8, 16, 16), 8, attention=2)), CPU).fill_in(tmp_path / "deeper.safetensors")
