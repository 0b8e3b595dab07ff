import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timecolor.attention import dense_mask
from timecolor.correspondence import ALL, Rule, label_bits, shot_tokens, unlabelled
from timecolor.geometry import Compression, Grid
from timecolor.layout import Kind, TokenLayout

GRID = Grid(3, 2, 2)


def own(label):
    return (label,)


def published(kind_q, ref_q, see_q, kind_k, ref_k):
    """The table of the published rules, written out."""
    if kind_q == "text" or kind_k == "text":
        return True
    if kind_q in ("target", "sketch"):
        return kind_k != "reference" or ref_k in see_q
    return kind_k != "reference" or ref_k == ref_q


@given(st.integers(0, 4), st.integers(0, 2**31 - 1))
def test_joint_rule_is_the_published_table(references, seed):
    layout = TokenLayout(GRID, references, text=2)
    bits = torch.randint(0, 1 << max(references, 1), (1, GRID.tokens), generator=torch.Generator().manual_seed(seed))
    tokens = shot_tokens(layout, bits)
    facts = []
    for span in layout.spans:
        for i in range(span.stop - span.start):
            see = {r for r in range(references) if int(bits[0, i]) >> r & 1} if span.kind >= Kind.SKETCH else set()
            facts.append((span.kind.name.lower(), span.reference, see))
    expected = [[published(q[0], q[1], q[2], k[0], k[1]) for k in facts] for q in facts]
    assert dense_mask(tokens, tokens, Rule("joint"))[0].tolist() == expected


def test_cached_regime_hides_later_kinds_and_nothing_else():
    layout = TokenLayout(GRID, 2, text=1)
    tokens = shot_tokens(layout, unlabelled(GRID))
    joint, cached = (dense_mask(tokens, tokens, Rule(r))[0] for r in ("joint", "cached"))
    kinds = layout.kinds()
    later = kinds[None] > kinds[:, None]
    assert not cached[later].any()
    assert torch.equal(cached[~later], joint[~later])


def test_window_bounds_frames_but_not_references():
    layout = TokenLayout(Grid(5, 1, 1), 1)
    tokens = shot_tokens(layout, unlabelled(layout.grid))
    visible = dense_mask(tokens, tokens, Rule("joint", window=1))[0]
    assert visible[0, :5].tolist() == [True, True, False, False, False]
    assert visible[0, 5:10].tolist() == [True, True, False, False, False]
    assert visible[:, 10].all()
    assert visible[10].all()


def test_majority_votes_over_cells_then_patches_with_ties_to_the_lowest():
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, :2, :] = 1  # half and half: a tie
    compression = Compression(time=1, space=2, patch=2)
    assert label_bits(labels, own, compression, "majority").tolist() == [1]
    labels[0, 2, :] = 1
    # The lower cells hold 2 of 4 pixels each, a tie for 0; the two upper ones are 1; the patch is a tie again.
    assert label_bits(labels, own, compression, "majority").tolist() == [1]
    labels[0, 3, 0] = 1
    assert label_bits(labels, own, compression, "majority").tolist() == [2]


def test_majority_counts_the_frames_of_a_time_group():
    labels = torch.zeros(5, 2, 2, dtype=torch.long)
    labels[2:] = 3  # frames 2, 3, 4 of group [1-4]
    bits = label_bits(labels, own, Compression(time=4, space=2, patch=1), "majority")
    assert bits.tolist() == [1, 8]


def test_coverage_keeps_a_thin_limb_that_majority_loses():
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, :, 3] = 2
    compression = Compression(time=1, space=4, patch=2)
    assert label_bits(labels, own, compression, "majority").tolist() == [1]
    assert label_bits(labels, own, compression, "coverage").tolist() == [1 | 4]


def test_two_sheets_of_one_character_share_a_label():
    labels = torch.ones(1, 2, 2, dtype=torch.long)
    bits = label_bits(labels, lambda _label: (1, 4), Compression(1, 2, 1))
    assert bits.tolist() == [1 << 1 | 1 << 4]


def test_without_labels_every_reference_is_in_sight():
    layout = TokenLayout(GRID, 9)
    tokens = shot_tokens(layout, unlabelled(GRID))
    assert tokens.bits[0, 0] == ALL
    assert dense_mask(tokens, tokens, Rule())[0, : GRID.tokens].all()


def test_too_many_references_and_a_negative_window_are_refused():
    with pytest.raises(ValueError, match="at most 62"):
        shot_tokens(TokenLayout(Grid(1, 1, 1), 63), unlabelled(Grid(1, 1, 1)))
    with pytest.raises(ValueError, match="window is -1"):
        Rule(window=-1)
