from dataclasses import replace

import cv2
import numpy as np
import pytest

from timecolor.evaluate import analogy
from timecolor.evaluate.analogy import STRIDE, Patches, Source

RED, BLUE, GREEN = (200, 40, 40), (40, 40, 200), (40, 160, 60)


def figure(scale=1.0, at=(72, 48), mirrored=False, size=(96, 144)):
    """A body with a head to one side and a flag on the other: fills, lines and where they are."""
    fills, lines = np.full((*size, 3), 255, np.uint8), np.zeros(size, np.uint8)
    shown = np.zeros(size, np.uint8)

    def point(x, y):
        return round(at[0] + (-x if mirrored else x) * scale), round(at[1] + y * scale)

    body = np.array([point(-14, -6), point(14, -10), point(16, 30), point(-16, 30)])
    flag = np.array([point(14, -10), point(34, -22), point(30, -2)])
    for polygon, colour in ((body, RED), (flag, GREEN)):
        cv2.fillPoly(fills, [polygon], colour)
        cv2.fillPoly(shown, [polygon], 1)
        cv2.polylines(lines, [polygon], True, 255, 1)
    cv2.circle(fills, point(-4, -20), round(12 * scale), BLUE, -1)
    cv2.circle(shown, point(-4, -20), round(12 * scale), 1, -1)
    cv2.circle(lines, point(-4, -20), round(12 * scale), 255, 1)
    return fills, lines, shown > 0


def source(**kwargs):
    fills, lines, known = figure(**kwargs)
    return Source(fills, lines, known, whole=False)


def right(found, error, truth):
    """Share of the matched places, off the lines, whose colour is the true one."""
    fills, lines, known = truth
    inside = (known & (cv2.dilate(lines, np.ones((5, 5), np.uint8)) == 0))[1::STRIDE, 1::STRIDE]
    h, w = inside.shape  # of an odd size the last place lies at the rim
    places = inside & np.isfinite(error[:h, :w])
    assert places.sum() > 100
    return (np.abs(found[:h, :w] - fills[1::STRIDE, 1::STRIDE]).max(axis=2)[places] < 8).mean()


@pytest.mark.parametrize(
    ("changed", "least"),
    [({}, 0.99), ({"at": (60, 44)}, 0.97), ({"mirrored": True}, 0.97), ({"scale": 1.4}, 0.9), ({"scale": 0.7}, 0.9)],
    ids=["as it is", "moved", "mirrored", "nearer", "farther"],
)
def test_a_figure_finds_its_colours_again(changed, least):
    truth = figure(**changed)
    found, error = Patches.of(source()).carried(truth[1], truth[2])
    assert right(found, error, truth) > least


def test_a_whole_frame_is_told_by_its_places_too():
    """Two boxes alike in all but their place."""
    fills, lines = np.full((96, 144, 3), 230, np.uint8), np.zeros((96, 144), np.uint8)
    for x, colour in ((20, RED), (90, BLUE)):
        cv2.rectangle(fills, (x, 30), (x + 30, 70), colour, -1)
        cv2.rectangle(lines, (x, 30), (x + 30, 70), 255, 1)
    known = np.ones((96, 144), bool)
    found, error = Patches.of(Source(fills, lines, known, whole=True)).carried(lines, known)
    assert right(found, error, (fills, lines, known)) > 0.97


def test_nothing_is_found_outside_the_area_and_nothing_in_none():
    fills, lines, known = figure()
    patches = Patches.of(Source(fills, lines, known, whole=False))
    area = np.zeros_like(known)
    area[:, :72] = known[:, :72]
    found, error = patches.carried(lines, area)
    outside = ~area[1::STRIDE, 1::STRIDE]
    assert np.isinf(error[outside]).all()
    assert not found[outside].any()
    found, error = patches.carried(lines, np.zeros_like(area))
    assert np.isinf(error).all()
    assert not found.any()


def test_a_match_does_not_depend_on_what_was_matched_before():
    fills, lines, known = figure()
    patches = Patches.of(Source(fills, lines, known, whole=False))
    first = patches.carried(lines, known)
    patches.carried(figure(scale=1.2)[1], known)
    again = patches.carried(lines, known)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_reference_without_anything_in_it_gives_nothing():
    blank = np.zeros((96, 144), np.uint8)
    patches = Patches.of(Source(np.zeros((96, 144, 3), np.uint8), blank, blank > 0, whole=False))
    found, error = patches.carried(figure()[1], np.ones((96, 144), bool))
    assert not np.isfinite(error).any()
    assert not found.any()


@pytest.mark.parametrize("size", [(96, 144), (97, 143)])
def test_a_place_every_stride_at_any_size(size):
    fills, lines, known = figure(size=size)
    found, error = Patches.of(Source(fills, lines, known, whole=False)).carried(lines, known)
    places = -(-size[0] // STRIDE), -(-size[1] // STRIDE)
    assert found.shape == (*places, 3)
    assert error.shape == places
    assert right(found.astype(int), error, (fills, lines, known)) > 0.95


def test_labels_tell_the_scale():
    assert analogy.expected_scale(4 * 100, 100) == 2
    assert analogy.expected_scale(0, 100) == 1
    large = figure(scale=1.4)
    small = Source(*figure(scale=0.5, at=(40, 40)), whole=False)
    scale = analogy.expected_scale(int(large[2].sum()), int(small.known.sum()))
    found, error = Patches.of(replace(small, scale=scale)).carried(large[1], large[2])
    assert right(found.astype(int), error, large) > 0.8
