import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from timecolor import attention
from timecolor.correspondence import Rule, Tokens, shot_tokens
from timecolor.geometry import Grid
from timecolor.layout import TokenLayout


def shot(references, seed, batch=1, text=0, grid=Grid(3, 3, 4)):
    layout = TokenLayout(grid, references, text=text)
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(0, 1 << references, (batch, grid.tokens), generator=generator)
    q, k, v = (torch.randn(batch, 2, layout.tokens, 8, generator=generator) for _ in range(3))
    return layout, shot_tokens(layout, bits), q, k, v


def oracle(q, k, v, tokens_q, tokens_k, rule):
    """Masked softmax, written plainly."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return scores.masked_fill(~attention.dense_mask(tokens_q, tokens_k, rule)[:, None], -torch.inf).softmax(-1) @ v


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 4),
    st.sampled_from(["joint", "cached"]),
    st.sampled_from([None, 0, 1]),
    st.sampled_from([0, 3]),
    st.integers(0, 999),
)
def test_dense_and_grouped_agree_with_plain_masked_softmax(references, regime, window, text, seed):
    _, tokens, q, k, v = shot(references, seed, text=text)
    rule = Rule(regime, window)
    expected = oracle(q, k, v, tokens, tokens, rule)
    for execution in ("dense", "grouped"):
        got = attention.prepare(tokens, tokens, rule, execution)(q, k, v)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def check_block_sparse():
    """Run by a process of its own: PyTorch traces the predicate and cannot trace the shape checks of the test run."""
    _, tokens, q, k, v = shot(3, 5)
    for rule in (Rule("joint", 1), Rule("cached", 1), Rule("cached", None)):
        got = attention.prepare(tokens, tokens, rule, "sparse")(q, k, v)
        torch.testing.assert_close(got, oracle(q, k, v, tokens, tokens, rule), atol=1e-5, rtol=1e-5)


def test_block_sparse_agrees():
    code = "import test_attention; test_attention.check_block_sparse()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=Path(__file__).parent, timeout=120)


def test_a_batch_of_unlike_labels_runs_dense():
    _, tokens, q, k, v = shot(2, 0, batch=3)
    got = attention.prepare(tokens, tokens, Rule())(q, k, v)
    torch.testing.assert_close(got, oracle(q, k, v, tokens, tokens, Rule()), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="use dense"):
        attention.prepare(tokens, tokens, Rule(), "grouped")


def test_sorting_moves_tokens_within_their_frame_only_and_makes_runs():
    layout, tokens, *_ = shot(3, 1)
    order = attention.sort_order(tokens)
    assert sorted(order.tolist()) == list(range(layout.tokens))
    assert torch.equal(tokens.kind[order], tokens.kind)
    assert torch.equal(tokens.frame[order], tokens.frame)
    frame = tokens.bits[0][order][: layout.grid.per_frame]
    assert torch.equal(frame, frame.sort().values)


def test_sorted_tokens_need_few_rectangles_and_common_keys_are_slices():
    layout, tokens, q, k, v = shot(3, 2, grid=Grid(4, 6, 6))
    exclusive = Tokens(tokens.kind, tokens.frame, torch.where(tokens.kind == 1, tokens.bits, 1 << (tokens.bits % 3)))
    order = attention.sort_order(exclusive)
    rule = Rule("cached", 1)
    queries, keys = exclusive[order][layout.target.slice], exclusive[order]
    grouped = attention.Grouped.of(queries, keys, rule)
    common = [b for b in grouped.blocks if b[1].start < layout.conditions.stop - 3 * 36]
    assert len(common) <= 2 * 4  # one stretch of target and one of sketch for each frame, whatever the labels
    assert len(grouped.blocks) <= 2 * 4 + 3 * 4
    q, k, v = (x[:, :, order] for x in (q, k, v))
    expected = oracle(q[:, :, layout.target.slice], k, v, queries, keys, rule)
    torch.testing.assert_close(grouped(q[:, :, layout.target.slice], k, v), expected, atol=1e-5, rtol=1e-5)


def test_training_carries_gradients():
    _, tokens, q, k, v = shot(2, 3)
    q.requires_grad_()
    attention.prepare(tokens, tokens, Rule("cached"), training=True)(q, k, v).square().sum().backward()
    assert q.grad is not None
    assert q.grad.abs().sum() > 0
