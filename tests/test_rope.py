from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timecolor.geometry import Grid
from timecolor.layout import Kind, TokenLayout
from timecolor.rope import Rope, apply_rope, positions, rotary
from timecolor.toon import TOON_ROPE

grids = st.builds(Grid, st.integers(1, 3), st.integers(1, 70), st.integers(1, 70))


def ranges(layout, ids, axis):
    """Lowest and highest position of each kind."""
    kinds = layout.kinds()
    return {k: (int(ids[kinds == k, axis].min()), int(ids[kinds == k, axis].max())) for k in set(kinds.tolist())}


def test_positions_at_480x720_are_the_published_ones():
    layout = TokenLayout(Grid(5, 30, 45), 3)
    ids = positions(layout, Rope())
    assert ranges(layout, ids, 1) == {Kind.TARGET: (0, 29), Kind.SKETCH: (30, 59), Kind.REFERENCE: (90, 119)}
    assert ranges(layout, ids, 2) == {Kind.TARGET: (0, 44), Kind.SKETCH: (45, 89), Kind.REFERENCE: (135, 179)}
    assert ranges(layout, ids, 0) == {Kind.TARGET: (0, 4), Kind.SKETCH: (0, 4), Kind.REFERENCE: (-3, -1)}
    first = [int(ids[s.start, 0]) for s in layout.spans if s.kind is Kind.REFERENCE]
    assert first == [-1, -2, -3]


@given(grids, st.integers(1, 3), st.sampled_from([Rope(), TOON_ROPE]))
def test_kinds_are_disjoint_in_space_at_every_size(grid, references, rope):
    layout = TokenLayout(grid, references)
    ids = positions(layout, rope)
    for axis in (1, 2):
        target, sketch, reference = (ranges(layout, ids, axis)[k] for k in (Kind.TARGET, Kind.SKETCH, Kind.REFERENCE))
        assert target[1] < sketch[0] <= sketch[1] < reference[0]


@given(grids)
def test_a_sketch_token_has_the_time_of_its_target(grid):
    ids = positions(TokenLayout(grid, 0), Rope())
    assert torch.equal(ids[: grid.tokens, 0], ids[grid.tokens :, 0])


def test_normal_positions_run_on_in_time_without_offsets():
    layout = TokenLayout(Grid(5, 30, 45), 2)
    ids = positions(layout, Rope(scheme="normal"))
    assert ids[:, 0].unique().tolist() == list(range(12))
    assert int(ids[:, 1].max()) == 29
    assert int(ids[:, 2].max()) == 44


def test_a_piece_of_a_shot_has_the_positions_of_the_whole():
    whole = positions(TokenLayout(Grid(6, 2, 3), 1), TOON_ROPE)
    piece = positions(TokenLayout(Grid(2, 2, 3), 1), TOON_ROPE, start=3)
    assert torch.equal(piece[:12], whole[18:30])
    assert torch.equal(piece[-6:], whole[-6:])


def test_normal_positions_cannot_be_cut():
    with pytest.raises(ValueError, match="cannot be run in pieces"):
        positions(TokenLayout(Grid(2, 2, 2), 1), Rope(scheme="normal"), start=2)


def test_unranked_references_share_their_positions():
    layout = TokenLayout(Grid(1, 2, 2), 3)
    a, b, c = (positions(layout, TOON_ROPE)[s.slice] for s in layout.spans[-3:])
    assert torch.equal(a, b)
    assert torch.equal(b, c)


def test_rotation_keeps_length_and_depends_on_the_difference_only():
    rope = Rope(dims=(4, 4, 8))
    x = torch.randn(1, 1, 1, 16).expand(1, 1, 8, 16)
    ids = torch.tensor([[t, 2 * t, 3 * t] for t in range(8)])
    turned = apply_rope(x, *rotary(ids, rope))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    products = (turned @ turned.transpose(-1, -2))[0, 0]
    for shift in range(4):
        torch.testing.assert_close(products.diagonal(shift), products[0, shift].expand(8 - shift), rtol=1e-4, atol=1e-4)


def test_one_pair_turns_by_its_angle():
    rope = Rope(dims=(2, 0, 0))
    cos, sin = rotary(torch.tensor([[1, 0, 0]]), rope)
    got = apply_rope(torch.tensor([[[[1.0, 0.0]]]]), cos, sin)
    torch.testing.assert_close(got.flatten(), torch.tensor([torch.tensor(1.0).cos(), torch.tensor(1.0).sin()]))


def test_text_is_not_rotated():
    cos, sin = rotary(torch.zeros(3, 3, dtype=torch.long) + 5, Rope(), text=2)
    assert cos[:2].eq(1).all()
    assert sin[:2].eq(0).all()
    assert not cos[2].eq(1).all()


def test_periods_repeat():
    rope = replace(TOON_ROPE, dims=(16, 12, 12), periods=(2, 3, 4, 6, 8, 16, 32, 96))
    a, _ = rotary(torch.tensor([[5, 0, 0]]), rope)
    b, _ = rotary(torch.tensor([[5 + 96, 0, 0]]), rope)
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_odd_channels_and_wrong_periods_are_refused():
    with pytest.raises(ValueError, match="even"):
        Rope(dims=(3, 2, 2))
    with pytest.raises(ValueError, match="give 8"):
        Rope(periods=(2, 4))
