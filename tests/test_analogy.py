import cv2
import numpy as np
import pytest

from timecolor import analogy
from timecolor.analogy import STRIDE, Carried, Patches, Source, carried, taken

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
def test_what_is_carried_has_a_place_every_stride_and_ends_with_its_area(size):
    fills, lines, known = figure(size=size)
    there, nowhere = carried(fills, lines, known, False, [lines, lines], [known, np.zeros_like(known)])
    places = -(-size[0] // STRIDE), -(-size[1] // STRIDE)
    assert there.colours.shape == (*places, 3)
    assert there.error.shape == places
    assert there.colours.dtype == np.uint8
    assert np.isinf(nowhere.error).all()
    assert right(there.colours.astype(int), there.error, (fills, lines, known)) > 0.95


def test_colours_go_on_beyond_the_area_so_that_no_cell_at_its_rim_is_darkened():
    fills, lines, known = figure()
    one = next(carried(fills, lines, known, False, [lines], [known]))
    assert one.colours.max(axis=2).min() > 100


def test_labels_tell_the_scale():
    assert analogy.expected_scale(4 * 100, 100) == 2
    assert analogy.expected_scale(0, 100) == 1
    large = figure(scale=1.4)
    one = next(carried(*figure(scale=0.5, at=(40, 40)), False, [large[1]], [large[2]]))
    assert right(one.colours.astype(int), one.error, large) > 0.85


def field(colour, error, size=(4, 6)):
    return Carried(np.full((*size, 3), colour, np.uint8), np.full(size, error, np.float16))


def test_without_references_colours_stay_as_they_are():
    colours = np.random.default_rng(0).random((2, 3, 3)).astype(np.float32)
    assert taken(colours, []) is colours


def test_a_sure_match_is_taken_an_unsure_one_is_not_and_in_between_it_is_mixed():
    colours = np.full((2, 3, 3), 0.5, np.float32)
    assert np.allclose(taken(colours, [(field(255, 0.0), 1.5)]), 1, atol=1e-3)
    assert np.allclose(taken(colours, [(field(255, 5.0), 1.5)]), 0.5, atol=1e-3)
    assert np.allclose(taken(colours, [(field(255, 1.5), 1.5)]), 0.75, atol=1e-3)
    assert np.array_equal(taken(colours, [(field(255, np.inf), 1.5)]), np.full((4, 6, 3), 0.5, np.float32))


def test_the_likest_counts_and_a_frame_that_is_likelier_keeps_a_cut_out_off():
    colours = np.full((2, 3, 3), 0.5, np.float32)
    assert np.allclose(taken(colours, [(field(255, 0.5), 9.0), (field(0, 0.1), 9.0)]), 0, atol=1e-3)
    assert np.allclose(taken(colours, [(field(255, 0.5), 9.0), (field(0, 0.1), analogy.NEVER)]), 0.5, atol=1e-3)
