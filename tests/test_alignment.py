"""Where a frame lies on a drawing by what its places are like: exact where they tell, carried on where they do not."""

import numpy as np
import pytest
import torch

from timecolor.alignment import MOST_PLACES, UNLIKE, Likeness
from timecolor.matcher import STRIDE

HEIGHT, WIDTH = 64, 96
ROWS, COLUMNS = HEIGHT // STRIDE, WIDTH // STRIDE
SHARP = 40.0


def described(seed: int = 0, rows: int = ROWS, columns: int = COLUMNS) -> torch.Tensor:
    """Places unlike one another, (rows, columns, d)."""
    return torch.randn(rows, columns, 32, generator=torch.Generator().manual_seed(seed))


def shifted(places: torch.Tensor, down: int, along: int) -> torch.Tensor:
    return torch.roll(places, (down, along), (0, 1))


def flow(queries: torch.Tensor, keys: torch.Tensor, lines: np.ndarray | None = None, looks: int = 1) -> np.ndarray:
    lines = np.zeros((HEIGHT, WIDTH), np.uint8) if lines is None else lines
    return Likeness([queries.flatten(0, 1)] * looks, [keys.flatten(0, 1)] * looks, SHARP, lines).flow()


@pytest.mark.parametrize("looks", [1, 2])
@pytest.mark.parametrize(("down", "along"), [(0, 0), (2, 3), (-3, 1)])
def test_what_moved_is_followed(down, along, looks):
    keys = described()
    found = flow(shifted(keys, down, along), keys, looks=looks)
    assert found.shape == (HEIGHT, WIDTH, 2)
    inner = found[16:-16, 16:-16]
    assert np.abs(inner - (-along * STRIDE, -down * STRIDE)).max() < 0.5


def test_places_that_are_alike_stay_where_they_are():
    """As a plain sky does: nothing tells, so nothing moves but at the picture's edge, beyond which there is nothing."""
    same = torch.ones(ROWS, COLUMNS, 8)
    found = flow(same, same)
    assert np.abs(found[24:-24, 24:-24]).max() < 1.5


def test_what_tells_nothing_goes_with_what_is_beside_it_unless_a_line_parts_them():
    """Left, places are known and have moved; right, all are alike. A line in the middle keeps them apart."""
    keys = described()
    plain = torch.ones(ROWS, COLUMNS // 2, 32)
    drawn = torch.cat([shifted(keys, 0, 3)[:, : COLUMNS // 2], plain], dim=1)
    frame = torch.cat([keys[:, : COLUMNS // 2], plain], dim=1)
    line = np.zeros((HEIGHT, WIDTH), np.uint8)
    line[:, WIDTH // 2 - 1 : WIDTH // 2 + 1] = 255
    open_, parted = (flow(drawn, frame, lines)[16:-16, WIDTH // 2 + 2 : WIDTH // 2 + 8, 0].mean() for lines in (None, line))
    assert open_ < parted - 1


def test_a_large_picture_is_compared_at_fewer_places(monkeypatch):
    """Four times as many places as there may be: every second of each axis, at the same pixels."""
    monkeypatch.setattr("timecolor.alignment.MOST_PLACES", ROWS * COLUMNS // 4)
    seen = []
    monkeypatch.setattr("timecolor.alignment._alike", lambda flow, known, lines, cell: seen.append((flow, cell)) or flow)
    keys = described()
    flow(shifted(keys, 2, 4), keys)
    at, cell = seen[-1]
    assert cell == 2 * STRIDE
    assert at.shape == (ROWS // 2, COLUMNS // 2, 2)
    assert np.abs(at[6:-6, 6:-6] * HEIGHT - (-4 * STRIDE, -2 * STRIDE)).max() < 0.5
    assert ROWS * COLUMNS < MOST_PLACES


@pytest.mark.parametrize(("height", "width"), [(65, 97), (63, 96), (16, 240), (2, 2)])
def test_any_size(height, width):
    rows, columns = -(-height // STRIDE), -(-width // STRIDE)
    keys = described(rows=rows, columns=columns).flatten(0, 1)
    found = Likeness([keys], [keys], SHARP, np.zeros((height, width), np.uint8)).flow()
    assert found.shape == (height, width, 2)
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 0.6


def test_a_place_whose_like_is_nowhere_near_stays():
    """All that is like it lies at the other end, where its weight is too small to be told from nothing."""
    columns = 3 * COLUMNS
    keys, queries = torch.zeros(ROWS, columns, 2), torch.zeros(ROWS, columns, 2)
    keys[..., 0], keys[:, -2:], queries[..., 0] = -1, torch.tensor([0.0, 1.0]), 1
    lines = np.zeros((HEIGHT, 3 * WIDTH), np.uint8)
    found = Likeness([queries.flatten(0, 1)], [keys.flatten(0, 1)], 400.0, lines).flow()
    assert np.abs(found[:, :WIDTH]).max() < 0.5


def moved(down: int, along: int) -> np.ndarray:
    """The flow of a drawing whose places were rolled so far."""
    return np.tile(np.float32([-along * STRIDE, -down * STRIDE]), (HEIGHT, WIDTH, 1))


@pytest.mark.parametrize("most", [ROWS * COLUMNS, ROWS * COLUMNS // 4])
def test_what_is_there_is_told_from_what_is_not(monkeypatch, most):
    """Along the way that a drawing's places went they are as like as can be, and there alone; also where few are compared."""
    monkeypatch.setattr("timecolor.alignment.MOST_PLACES", most)
    keys = described()
    queries = shifted(keys, 4, 6)
    likeness = Likeness([queries.flatten(0, 1)], [keys.flatten(0, 1)], SHARP, np.zeros((HEIGHT, WIDTH), np.uint8))
    inner = np.s_[8:-8, 10:-10]
    right, still, other = (likeness.along(flow)[inner] for flow in (moved(4, 6), None, moved(-4, 6)))
    assert right.shape == (ROWS - 16, COLUMNS - 20, 4)
    assert right[..., :2].min() > -0.1
    for wrong in (still, other):
        assert np.abs(wrong[..., :2] + UNLIKE / 6).mean() < 0.2
        assert (right[..., 2:] > wrong[..., 2:] + 1).mean() > 0.9


def test_likeness_is_of_both_ways():
    """Half of the drawing is like one place of the frame alone: that place is what they are most like, and they are not it."""
    keys = described()
    queries = keys.clone()
    one = keys[ROWS // 2, COLUMNS // 2]
    half = queries[:, : COLUMNS // 2]
    half.copy_(0.8 * one / one.norm() + 0.6 * half / half.norm(dim=2, keepdim=True))
    likeness = Likeness([queries.flatten(0, 1)], [keys.flatten(0, 1)], SHARP, np.zeros((HEIGHT, WIDTH), np.uint8))
    y, x = np.mgrid[:ROWS, :COLUMNS].astype(np.float32)
    to_it = np.stack([COLUMNS // 2 - x, ROWS // 2 - y], axis=2)
    signs = likeness.along(to_it)[4:-4, 4 : COLUMNS // 2 - 4]
    assert signs[..., 0].min() > -0.1  # nothing of the frame is more like
    assert signs[..., 1].max() < -0.3  # another place of the drawing is


def test_likeness_along_a_flow_of_any_size_that_leads_out_of_the_picture():
    keys = described().flatten(0, 1)
    likeness = Likeness([keys], [keys], SHARP, np.zeros((HEIGHT, WIDTH), np.uint8))
    small = likeness.along(np.full((7, 5, 2), 100, np.float32))
    assert small.shape == (ROWS, COLUMNS, 4)
    assert np.isfinite(small).all()
