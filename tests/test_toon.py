from dataclasses import replace

import pytest
import torch

from timecolor.correspondence import Rule, shot_tokens, unlabelled
from timecolor.denoiser import Conditions
from timecolor.geometry import Grid
from timecolor.layout import TokenLayout
from timecolor.rope import Rope
from timecolor.toon import Toon, ToonConfig, patchify, unpatchify

SMALL = ToonConfig(
    width=32, layers=2, heads=2, rope=Rope(base=(8, 8), ranked=False, dims=(4, 6, 6), theta=100.0, periods=(4, 8)), hints=True
)


def model(config=SMALL, seed=0):
    """A tiny model with every weight away from its zero start."""
    torch.manual_seed(seed)
    toon = Toon(config)
    for parameter in toon.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return toon.eval()


def conditions(references, bits=None, grid=Grid(3, 2, 3), rule=Rule("cached", 1), execution="auto", seed=1, start=0, hint_of=()):
    layout = TokenLayout(grid, references)
    generator = torch.Generator().manual_seed(seed)
    bits = unlabelled(grid) if bits is None else bits
    sketch = torch.rand(1, grid.frames, 3, grid.height * 8, grid.width * 8, generator=generator)
    pictures = torch.rand(1, references, 4, grid.height * 8, grid.width * 8, generator=generator) * 2 - 1
    size = (1, grid.frames, len(hint_of), 4, grid.height * 8, grid.width * 8)
    hints = torch.rand(size, generator=torch.Generator().manual_seed(seed + 1)) * 2 - 1 if hint_of else None
    of = torch.tensor([hint_of]) if hint_of else None
    return Conditions(layout, shot_tokens(layout, bits), sketch, pictures, rule, execution, start, hints, of)


def noise(grid=Grid(3, 2, 3), seed=2):
    return torch.randn(1, grid.frames, 3, grid.height * 2, grid.width * 2, generator=torch.Generator().manual_seed(seed))


def colours(toon, given, latents=None, t=0.7):
    with torch.inference_mode():
        return toon.predict(noise(given.layout.grid) if latents is None else latents, torch.tensor([t]), toon.prepare(given))


@pytest.mark.parametrize("references", [0, 1, 3, 9])
@pytest.mark.parametrize("window", [None, 1])
@pytest.mark.parametrize("regime", ["cached", "joint"])
@pytest.mark.parametrize("pointer", [True, False])
def test_cached_equals_uncached_evaluation_of_the_same_rule(references, window, regime, pointer):
    toon = model(replace(SMALL, pointer=pointer))
    bits = torch.randint(0, 1 << references, (1, 18), generator=torch.Generator().manual_seed(references))
    given = conditions(references, bits, rule=Rule(regime, window), hint_of=(0, -1, references - 1) if references else ())
    with torch.no_grad():
        uncached = toon(noise(), torch.tensor([0.7]), given)
    torch.testing.assert_close(colours(toon, given), uncached, atol=1e-4, rtol=1e-4)


def test_a_cache_serves_many_steps():
    toon, given = model(), conditions(2)
    with torch.inference_mode():
        cache = toon.prepare(given)
        first = toon.predict(noise(), torch.tensor([1.0]), cache)
        toon.predict(noise(seed=9), torch.tensor([0.5]), cache)
        again = toon.predict(noise(), torch.tensor([1.0]), cache)
    assert torch.equal(first, again)


def test_order_of_references_is_invisible():
    toon, bits = model(), torch.full((1, 18), 0b111)
    bits[0, :6] = 0b001
    given = conditions(3, bits, hint_of=(0, 2))
    order = [2, 0, 1]
    moved = torch.full((1, 18), 0b111)
    moved[0, :6] = 0b010  # reference 0 is now number 1
    assert given.hints is not None
    hints = {"hints": given.hints.flip(2), "hint_of": torch.tensor([[0, 1]])}  # 2 is now number 0
    shuffled = replace(conditions(3, moved), references=given.references[:, order], **hints)
    torch.testing.assert_close(colours(toon, shuffled), colours(toon, given), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("execution", ["dense", "grouped"])
def test_reference_of_another_label_is_invisible_through_one_layer(execution):
    """One layer, labels exclusive: changing reference B leaves region A bit-identical (more layers leak, as published)."""
    toon = model(replace(SMALL, layers=1))
    bits = torch.full((1, 18), 0b01)
    bits[0, 9:] = 0b10
    given = conditions(2, bits, rule=Rule("cached", None), execution=execution, hint_of=(0, 1))
    references, hints = given.references.clone(), given.hints.clone()
    references[:, 1], hints[:, :, 1] = torch.rand_like(references[:, 1]), torch.rand_like(hints[:, :, 1])
    other = replace(given, references=references, hints=hints)
    before, after = (patchify(colours(toon, x), 2) for x in (given, other))
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.equal(before[:, 9:], after[:, 9:])


def test_without_references_all_colour_is_generated():
    toon, given = model(), conditions(0)
    assert torch.isfinite(colours(toon, given)).all()


def test_a_piece_with_its_surroundings_equals_the_whole():
    """Window 1 and 2 layers: a frame depends on 2 frames to either side, so a cut with that much around it cannot be seen."""
    toon, whole = model(), conditions(1, grid=Grid(9, 2, 3))
    latents = noise(Grid(9, 2, 3))
    expected = colours(toon, whole, latents)[:, 4]
    layout = TokenLayout(Grid(5, 2, 3), 1)
    piece = Conditions(
        layout, shot_tokens(layout, unlabelled(layout.grid)), whole.sketch[:, 2:7], whole.references, whole.rule, start=2
    )
    torch.testing.assert_close(colours(toon, piece, latents[:, 2:7])[:, 2], expected, atol=1e-4, rtol=1e-4)


def test_conditions_do_not_depend_on_the_noise_nor_references_on_the_sketch():
    toon, given = model(), conditions(2)
    with torch.inference_mode():
        keys = toon.prepare(given).keys
        other = toon.prepare(replace(given, sketch=torch.rand_like(given.sketch))).keys
    references = slice(given.layout.target.stop + 18, None)
    for a, b in zip(keys, other, strict=True):
        assert torch.equal(a[:, :, references], b[:, :, references])


def test_pointer_gives_real_colours():
    """With the generated part and "none" off, every colour is a mixture of the references' colours."""
    toon = model()
    with torch.no_grad():
        toon.pointer.none.fill_(0)
        toon.final.weight.zero_()
        toon.final.bias.zero_()
    given = conditions(1)
    one = replace(given, references=torch.full_like(given.references, 0.5))
    got = colours(toon, one)
    assert (got >= 0).all()
    assert (got <= 0.5 + 1e-4).all()
    assert got.max() > 0.4


def test_a_hint_is_taken_where_it_is_trusted_and_where_its_reference_may_be_seen():
    toon = model()
    bits = torch.full((1, 18), 0b01)
    bits[0, 9:] = 0b10
    given = conditions(2, bits, hint_of=(0, -1))
    plain = colours(toon, replace(given, hints=None, hint_of=None))
    with torch.no_grad():
        for layer in (toon.chooser.to_q, toon.chooser.to_k):  # all trust in hints: queries and keys agree, and "own" is 0
            layer.weight.zero_()
            layer.bias.fill_(1)
        for norm in (toon.chooser.norm_q, toon.chooser.norm_k):
            norm.weight.fill_(5)
        toon.chooser.own.zero_()
    got = patchify(colours(toon, given), 2)
    hinted = patchify(torch.nn.functional.avg_pool2d(given.hints[0, :, 0, :3], 4)[None], 2)
    torch.testing.assert_close(got[:, :9], hinted[:, :9], atol=1e-4, rtol=1e-4)
    assert torch.equal(got[:, 9:], patchify(plain, 2)[:, 9:])  # hint 0 is of a reference not seen here, and hint 1 is of none


def test_patchify_and_unpatchify_are_inverses():
    latents = torch.randn(2, 3, 5, 4, 6)
    assert torch.equal(unpatchify(patchify(latents, 2), TokenLayout(Grid(3, 2, 3), 0), 2), latents)


def test_no_parameter_counts_references():
    assert not any("reference" in name and p.shape[0] in (2, 3, 9) for name, p in model().named_parameters() if p.ndim == 1)
    assert colours(model(), conditions(9)).shape == colours(model(), conditions(1)).shape


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="2 heads of 32 need 64"):
        ToonConfig(width=100, heads=2)
    with pytest.raises(ValueError, match="power of 2"):
        Toon(replace(SMALL, cell=12))
