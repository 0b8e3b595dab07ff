import cv2
import numpy as np
import pytest

from timecolor import propagation


def drawing(shift=0, size=(96, 144)):
    """A circle and a box, uint8 (h, w, 3), the circle `shift` pixels to the right."""
    frame = np.full((*size, 3), 255, np.uint8)
    cv2.circle(frame, (50 + shift, 48), 20, (0, 0, 0), 2)
    cv2.rectangle(frame, (110, 20), (130, 70), (0, 0, 0), 2)
    return frame


def coloured(shift=0):
    picture = np.full((96, 144, 3), 230, np.uint8)
    cv2.circle(picture, (50 + shift, 48), 20, (200, 40, 40), -1)
    cv2.rectangle(picture, (110, 20), (130, 70), (40, 40, 200), -1)
    return picture


def test_a_drawing_that_stands_still_has_no_flow():
    lines = propagation.darkness(drawing())
    assert np.abs(propagation.line_flow(lines, lines)).max() < 0.05


def test_warping_along_no_flow_changes_nothing_and_a_whole_pixel_shifts():
    picture = coloured()
    flow = np.zeros((96, 144, 2), np.float32)
    assert np.array_equal(propagation.warp(picture, flow), picture)
    flow[..., 0] = 3
    assert np.array_equal(propagation.warp(picture, flow)[:, :-3], picture[:, 3:])


@pytest.mark.parametrize("shift", [2, 5])
def test_colours_follow_their_lines(shift):
    lines = propagation.darkness(drawing())
    made = propagation.candidates(coloured(), lines, propagation.flows(lines, drawing(shift)))
    assert made.shape == (propagation.CANDIDATES, 96, 144, 4)
    assert np.array_equal(made[0], np.dstack([coloured(), lines]))
    inside = np.zeros((96, 144), bool)
    inside[30:67, 50 + shift - 15 : 50 + shift + 16] = True
    truth = coloured(shift).astype(int)
    stays, follows = (np.abs(m[..., :3].astype(int) - truth)[inside].mean() for m in made[:2])
    assert follows < 0.5 * stays


def test_a_coloured_trace_line_is_ink():
    frame = np.full((4, 4, 3), 255, np.uint8)
    frame[1, 1] = (255, 0, 0)
    assert propagation.darkness(frame)[1, 1] == 255
    assert propagation.darkness(frame)[0, 0] == 0


def test_a_picture_is_followed_farther_than_flow_reaches_at_once():
    shifts = list(range(0, 61, 6))
    views = [propagation.ink(drawing(shift)) for shift in shifts]
    found = propagation.follow(views[0], views)
    direct = propagation.line_flow(views[0], views[-1])
    truth = coloured(shifts[-1]).astype(int)
    inside = np.zeros((96, 144), bool)
    inside[40:57, 50 + shifts[-1] - 8 : 50 + shifts[-1] + 9] = True
    followed, at_once = (
        np.abs(propagation.warp(coloured(), flow).astype(int) - truth)[inside].mean() for flow in (found[-1][0], direct)
    )
    assert followed < 0.5 * at_once
    assert found[0][1].mean() < found[-1][1].mean() + 1e-6


def test_the_fittest_flow_lays_lines_on_lines():
    lines, view = propagation.ink(drawing()), propagation.ink(drawing(5))
    still = np.zeros((96, 144, 2), np.float32)
    moved = still.copy()
    moved[:, :100, 0] = -5
    best, misfit = propagation.fittest(lines, view, [still, moved])
    assert best is moved
    assert misfit.mean() < propagation.fittest(lines, view, [still])[1].mean()


def test_ways_tell_how_badly_a_pictures_lines_fit_as_it_stands_and_carried():
    lines = propagation.darkness(drawing(0))
    moved = np.zeros((*lines.shape, 2), np.float32)
    moved[:, :92, 0] = -6  # the circle alone moves
    still, carried = propagation.ways(lines, drawing(6), [moved])
    assert still.flow is None
    assert carried.flow is moved
    assert still.misfit.shape == lines.shape
    around = np.s_[20:76, 30:80]
    assert carried.misfit[around].mean() < 0.05 < 0.2 < still.misfit[around].mean()
    assert np.abs(propagation.ways(lines, drawing(0), [])[0].misfit).max() < 0.01


def moved(move: np.ndarray) -> np.ndarray:
    """A street of windows as a camera sees it, uint8 (160, 240, 3). move: (2, 3), from the picture to the drawing."""
    frame = np.full((160, 240, 3), 255, np.uint8)
    for x in range(20, 220, 45):
        for y, h in ((20, 25), (75, 18), (115, 30)):
            corners = np.array([[x, y], [x + 18, y], [x + 18, y + h], [x + 4, y + h]], np.float32) @ move[:, :2].T + move[:, 2]
            cv2.polylines(frame, [np.round(corners).astype(np.int32)], True, (0, 0, 0), 2)
    return frame


@pytest.mark.parametrize(("zoom", "x", "y"), [(1.0, 7.0, -4.0), (1.08, -12.0, -5.0), (0.94, 6.0, 5.0)])
def test_a_camera_move_is_found_behind_a_figure_that_moves_otherwise(zoom, x, y):
    still = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    lines = propagation.ink(moved(still))
    drawing, within = moved(np.array([[zoom, 0, x], [0, zoom, y]], np.float32)), np.ones((160, 240), np.uint8)
    cv2.circle(drawing, (120, 90), 45, (255, 255, 255), -1)
    cv2.circle(drawing, (120, 90), 45, (0, 0, 0), 2)
    cv2.circle(within, (120, 90), 45, 0, -1)
    found = propagation.camera(lines, drawing, propagation.flows(lines, drawing), within > 0)
    rows, columns = np.mgrid[:160, :240].astype(np.float32)
    true = np.dstack([(columns - x) / zoom - columns, (rows - y) / zoom - rows])
    assert np.abs(found - true).max() < 1.5
    assert np.abs(found - true).mean() < 0.5


def test_a_camera_stands_still_where_lines_lie_on_one_another_or_hardly_any_tell():
    drawing = moved(np.array([[1, 0, 0], [0, 1, 0]], np.float32))
    lines, everywhere = propagation.ink(drawing), np.ones((160, 240), bool)
    flows = [np.full((160, 240, 2), 9, np.float32)]
    assert propagation.camera(lines, drawing, flows, everywhere) is None
    assert propagation.camera(np.zeros_like(lines), drawing, flows, everywhere) is None
    assert propagation.camera(lines, np.full_like(drawing, 255), flows, everywhere) is None
    assert propagation.camera(lines, drawing, flows, ~everywhere) is None
    # What no move can bring near stands still too.
    other = np.full_like(drawing, 255)
    cv2.circle(other, (120, 80), 70, (0, 0, 0), 2)
    assert propagation.camera(lines, other, propagation.flows(lines, other), everywhere) is None


def test_what_a_pan_brings_in_is_not_covered():
    pan = np.zeros((20, 30, 2), np.float32)
    assert propagation.covered(pan).all()
    pan[..., 0] = -4
    assert not propagation.covered(pan)[:, :4].any()
    assert propagation.covered(pan)[:, 4:].all()


def test_a_flow_of_another_size_leads_to_the_same_places():
    flow = np.dstack([np.full((40, 60), 3, np.float32), np.full((40, 60), -2, np.float32)])
    larger = propagation.resized(flow, 120, 120)
    assert larger.shape == (120, 120, 2)
    assert np.allclose(larger, (6, -6))
