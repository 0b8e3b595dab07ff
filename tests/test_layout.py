import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timecolor.geometry import Grid
from timecolor.layout import Kind, TokenLayout

layouts = st.builds(
    TokenLayout,
    st.builds(Grid, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    st.integers(0, 9),
    st.booleans(),
    st.integers(0, 5),
)


@given(layouts)
def test_spans_tile_the_sequence_exactly(layout):
    assert layout.spans[0].start == 0
    for before, after in zip(layout.spans[:-1], layout.spans[1:], strict=True):
        assert before.stop == after.start
    assert layout.tokens == len(layout.kinds()) == len(layout.frames())


@given(layouts)
def test_every_reference_has_one_latent_frame(layout):
    spans = [s for s in layout.spans if s.kind is Kind.REFERENCE]
    assert [s.reference for s in spans] == list(range(layout.references))
    assert all(s.stop - s.start == layout.grid.per_frame for s in spans)


@given(layouts)
def test_only_target_and_sketch_belong_to_a_moment(layout):
    timed = (layout.kinds() == Kind.TARGET) | (layout.kinds() == Kind.SKETCH)
    assert torch.equal(layout.frames() >= 0, timed)


def test_published_order_is_text_target_sketch_references():
    layout = TokenLayout(Grid(5, 30, 45), 3, text=226)
    assert [(s.kind.name, s.start) for s in layout.spans] == [
        ("TEXT", 0),
        ("TARGET", 226),
        ("SKETCH", 6976),
        ("REFERENCE", 13726),
        ("REFERENCE", 15076),
        ("REFERENCE", 16426),
    ]


def test_a_negative_number_of_references_is_refused():
    with pytest.raises(ValueError, match="-1 references"):
        TokenLayout(Grid(1, 1, 1), -1)
