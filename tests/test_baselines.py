"""The training-free baselines on shots whose answer is known."""

import cv2
import numpy as np
import pytest

from timecolor.evaluate.baselines import BASELINES, baseline, copy_baseline
from timecolor.finish import FinishOptions
from timecolor.shot import Labels, Reference, Shot

HEIGHT, WIDTH = 96, 144
GROUND, RED, GREEN, BLUE = (235, 220, 160), (200, 40, 40), (40, 160, 60), (40, 60, 200)
BARE = FinishOptions(lines="none")

FINISHED = [name for name in BASELINES if name != "paste"]  # those that go through the finish


def circle(canvas, x, y, colour, thickness):
    cv2.circle(canvas, (x, y), 15, colour, thickness)


def box(canvas, x, y, colour, thickness):
    cv2.rectangle(canvas, (x - 22, y - 9), (x + 22, y + 9), colour, thickness)


def arrow(canvas, x, y, colour, thickness):
    points = np.array([[x - 16, y + 16], [x, y - 20], [x + 16, y + 16], [x, y + 5]], np.int32)
    if thickness < 0:
        cv2.fillPoly(canvas, [points], colour)
    else:
        cv2.polylines(canvas, [points], True, colour, thickness)


def drawn(*shapes):
    """Shapes (outline, x, y) as a sketch, uint8 (h, w, 3)."""
    sketch = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for shape, x, y in shapes:
        shape(sketch, x, y, (0, 0, 0), 2)
    return sketch


def painted(*shapes, ground=GROUND):
    """Shapes (outline, x, y, colour), filled and outlined."""
    picture = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
    for shape, x, y, colour in shapes:
        shape(picture, x, y, colour, -1)
        shape(picture, x, y, (0, 0, 0), 2)
    return picture


def cut_out(shape, x, y, colour):
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    shape(alpha, x, y, 255, -1)
    shape(alpha, x, y, 255, 2)
    return Reference(painted((shape, x, y, colour)), alpha, "character")


def near(pixel, colour):
    return np.abs(pixel.astype(int) - colour).max() <= 6


def moving_disc(step, frames, given=0):
    places = [30 + step * t for t in range(frames)]
    sketch = np.stack([drawn((circle, x, 48), (box, 110, 80)) for x in places])
    reference = Reference(painted((circle, places[given], 48, RED), (box, 110, 80, BLUE)), None, "frame")
    return Shot(sketch, [reference]), places


@pytest.mark.parametrize("name", FINISHED)
def test_frames_come_at_the_sketchs_size(name):
    shot, _ = moving_disc(step=2, frames=3)
    made = baseline(name, shot)
    assert made.frames.shape == shot.sketch.shape
    assert made.frames.dtype == np.uint8
    assert made.seconds > 0


@pytest.mark.parametrize("name", FINISHED)
def test_the_given_frame_is_reproduced(name):
    shot, _ = moving_disc(step=0, frames=1)
    frame = baseline(name, shot, BARE).frames[0]
    assert near(frame[48, 30], RED)
    assert near(frame[80, 110], BLUE)
    assert near(frame[10, 80], GROUND)


@pytest.mark.parametrize("given", [0, 3])
def test_flow_follows_a_disc_from_whichever_frame_is_given(given):
    shot, places = moving_disc(step=6, frames=7, given=given)
    for frame, x in zip(baseline("flow", shot, BARE).frames, places, strict=True):
        assert near(frame[48, x], RED)
        assert near(frame[48, x + 10], RED)
        assert near(frame[48, x - 22], GROUND)
        assert near(frame[80, 110], BLUE)


def test_copy_stays_where_the_reference_was():
    shot, places = moving_disc(step=12, frames=6)
    frame = baseline("copy", shot, BARE).frames[-1]
    assert near(frame[48, places[-1]], GROUND)
    assert near(frame[80, 110], BLUE)


@pytest.mark.parametrize("name", ["analogy", "segments"])
def test_shapes_are_found_where_they_have_changed_places(name):
    reference = Reference(painted((circle, 25, 30, RED), (box, 70, 70, GREEN), (arrow, 115, 35, BLUE)), None, "sheet")
    sketch = drawn((arrow, 28, 60), (circle, 75, 30), (box, 110, 70))[None]
    frame = baseline(name, Shot(sketch, [reference]), BARE).frames[0]
    assert near(frame[52, 28], BLUE)
    assert near(frame[30, 75], RED)
    assert near(frame[70, 110], GREEN)
    assert near(frame[8, 8], GROUND)


def test_segments_hand_a_colour_on_from_drawing_to_drawing():
    """The disc turns into a box step by step; only through the drawings between can it be known."""
    sizes = [(15, 15), (17, 13), (19, 11), (21, 9)]
    sketch = np.full((len(sizes), HEIGHT, WIDTH, 3), 255, np.uint8)
    for t, (frame, (a, b)) in enumerate(zip(sketch, sizes, strict=True)):
        cv2.ellipse(frame, (40 + 20 * t, 48), (a, b), 0, 0, 360, (0, 0, 0), 2)
        cv2.ellipse(frame, (110 - 20 * t, 80), (15, 9), 0, 0, 360, (0, 0, 0), 2)
    picture = np.full((HEIGHT, WIDTH, 3), GROUND, np.uint8)
    for centre, axes, colour in (((40, 48), (15, 15), RED), ((110, 80), (15, 9), BLUE)):
        cv2.ellipse(picture, centre, axes, 0, 0, 360, colour, -1)
        cv2.ellipse(picture, centre, axes, 0, 0, 360, (0, 0, 0), 2)
    frames = baseline("segments", Shot(sketch, [Reference(picture, None, "frame")]), BARE).frames
    for t, frame in enumerate(frames):
        assert near(frame[48, 40 + 20 * t], RED)
        assert near(frame[80, 110 - 20 * t], BLUE)


def two_discs(references, bound):
    """Two like discs, labels 1 and 2."""
    sketch = drawn((circle, 40, 48), (circle, 104, 48))[None]
    labels = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    circle(labels[0], 40, 48, 1, -1)
    circle(labels[0], 104, 48, 2, -1)
    return Shot(sketch, references, Labels(labels, bound))


@pytest.mark.parametrize("name", ["flow", "analogy", "segments"])
@pytest.mark.parametrize("swapped", [False, True])
def test_labels_say_whose_colours_an_area_takes(name, swapped):
    references = [Reference(np.full((HEIGHT, WIDTH, 3), GROUND, np.uint8), None, "background")]
    references += [cut_out(circle, 72, 48, RED), cut_out(circle, 60, 40, BLUE)]
    shot = two_discs(references, {0: (0,), 1: (1 + swapped,), 2: (2 - swapped,)})
    frame = baseline(name, shot, BARE).frames[0]
    first, second = (BLUE, RED) if swapped else (RED, BLUE)
    assert near(frame[48, 40], first)
    assert near(frame[48, 104], second)
    assert near(frame[10, 72], GROUND)


def test_copy_takes_each_areas_own_reference():
    plain = [Reference(np.full((HEIGHT, WIDTH, 3), colour, np.uint8), None, "frame") for colour in (GROUND, RED, BLUE)]
    frame = baseline("copy", two_discs(plain, {0: (0,), 1: (2,), 2: (1,)}), BARE).frames[0]
    assert near(frame[48, 40], BLUE)
    assert near(frame[48, 104], RED)
    assert near(frame[10, 72], GROUND)


@pytest.mark.parametrize("name", FINISHED)
def test_a_label_without_references_stays_paper(name):
    shot = two_discs([cut_out(circle, 40, 48, RED)], {0: (), 1: (0,), 2: ()})
    frame = baseline(name, shot, BARE).frames[0]
    assert near(frame[48, 40], RED)
    assert near(frame[48, 104], (255, 255, 255))
    assert near(frame[10, 72], (255, 255, 255))


@pytest.mark.parametrize("name", FINISHED)
@pytest.mark.parametrize("on_black", [False, True])
def test_paper_around_a_lone_cut_out_stays_paper(name, on_black):
    reference = cut_out(circle, 40, 48, RED)
    if on_black:
        reference = Reference(reference.on_black)
    frame = baseline(name, Shot(drawn((circle, 40, 48))[None], [reference]), BARE).frames[0]
    assert near(frame[48, 40], RED)
    assert near(frame[10, 120], (255, 255, 255))


@pytest.mark.parametrize("name", ["flow", "analogy", "segments"])
def test_a_cut_out_of_another_size_is_brought_to_its_area(name):
    big = np.full((HEIGHT, WIDTH, 3), GROUND, np.uint8)
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    for radius, colour in ((40, RED), (14, BLUE)):
        cv2.circle(big, (72, 48), radius, colour, -1)
        cv2.circle(big, (72, 48), radius, (0, 0, 0), 2)
    cv2.circle(alpha, (72, 48), 41, 255, -1)
    sketch = np.full((1, HEIGHT, WIDTH, 3), 255, np.uint8)
    cv2.circle(sketch[0], (100, 40), 28, (0, 0, 0), 2)
    cv2.circle(sketch[0], (100, 40), 10, (0, 0, 0), 2)
    labels = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    cv2.circle(labels[0], (100, 40), 28, 1, -1)
    shot = Shot(sketch, [Reference(big, alpha, "character")], Labels(labels, {0: (), 1: (0,)}))
    frame = baseline(name, shot, BARE).frames[0]
    assert near(frame[40, 100], BLUE)
    assert near(frame[40, 119], RED)


@pytest.mark.parametrize("name", FINISHED)
def test_a_held_drawing_is_coloured_once(name):
    shot, _ = moving_disc(step=4, frames=2)
    held = Shot(np.repeat(shot.sketch, 2, axis=0), shot.references)
    frames = baseline(name, held).frames
    assert np.array_equal(frames[0], frames[1])
    assert np.array_equal(frames[2], frames[3])
    assert np.array_equal(frames[::2], baseline(name, shot).frames)


@pytest.mark.parametrize("name", FINISHED)
def test_a_blank_drawing_is_coloured(name):
    shot, _ = moving_disc(step=4, frames=2)
    blank = Shot(np.full_like(shot.sketch, 255), shot.references)
    assert baseline(name, blank).frames.shape == shot.sketch.shape


@pytest.mark.parametrize("name", FINISHED)
def test_no_references_are_refused(name):
    shot = Shot(drawn((circle, 40, 48))[None])
    with pytest.raises(ValueError, match="no reference to take colours from; give at least one"):
        baseline(name, shot)


def test_unknown_names_and_references_are_refused():
    shot, _ = moving_disc(step=0, frames=1)
    with pytest.raises(ValueError, match="unknown baseline 'magic'; use one of copy, flow, analogy, segments"):
        baseline("magic", shot)
    labels = Labels(np.full(shot.sketch.shape[:3], 3, np.uint8))
    with pytest.raises(ValueError, match="label 3 would take reference 3 but there are 1"):
        baseline("flow", Shot(shot.sketch, shot.references, labels))


def test_the_raw_paste_has_no_finish():
    shot, _ = moving_disc(step=4, frames=2)
    assert np.array_equal(copy_baseline(shot)[1], shot.references[0].image)


def test_paste_is_the_reference_as_it_is():
    sketch = np.full((3, 48, 64, 3), 255, np.uint8)
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    made = baseline("paste", Shot(sketch, [Reference(picture, role="frame")]))
    assert (made.frames == picture).all()
