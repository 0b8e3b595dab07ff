"""How references show lines: told by a coloured frame beside its drawing, or by sheets and plates as a colour alone."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from timecolor import ColorizeOptions, Colorizer
from timecolor.evaluate import baselines
from timecolor.finish import FinishOptions, Strokes
from timecolor.finish.between import Between, Sides
from timecolor.finish.ink import Ink
from timecolor.finish.strokes import AS_IS
from timecolor.shot import Labels, Reference, Shot
from timecolor.sketch import reference_lines

HEIGHT, WIDTH = 240, 320
PAPER, BLACK, RED, BROWN, BLUE = (255, 255, 255), (0, 0, 0), (255, 0, 0), (110, 60, 30), (40, 50, 130)
GROUND, SKIN = (130, 190, 225), (240, 205, 175)
AT, THEN = 40, 110  # where the face is on the first drawing, and on the second


def fills(at: int) -> np.ndarray:
    picture = np.full((HEIGHT, WIDTH, 3), GROUND, np.uint8)
    return cv2.circle(picture, (at + 70, 130), 70, SKIN, -1)


def lined(picture: np.ndarray, at: int, width: int, colour: tuple[int, int, int] = BLACK) -> np.ndarray:
    """A face, a mouth, a hat and a feather."""
    picture = cv2.circle(picture.copy(), (at + 70, 130), 70, colour, width, cv2.LINE_AA)
    for start, stop in (((40, 160), (100, 160)), ((0, 80), (140, 80)), ((70, 20), (70, 60))):
        cv2.line(picture, (at + start[0], start[1]), (at + stop[0], stop[1]), colour, width, cv2.LINE_AA)
    return picture


def sketch(at: int, width: int, colour: tuple[int, int, int] = BLACK) -> np.ndarray:
    return lined(np.full((HEIGHT, WIDTH, 3), PAPER, np.uint8), at, width, colour)


def told(shot: Shot, present: tuple[int, ...] = ()) -> Strokes | None:
    """`Strokes.of`, of drawings half as large, each frame a new one."""
    size = WIDTH // 2, HEIGHT // 2
    drawings = [cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in shot.sketch[0 : shot.sketch.shape[0]]]
    whole = {r: x for r, x in enumerate(shot.references) if x.shows_frame(HEIGHT, WIDTH)}
    lines = {r: reference_lines(cv2.resize(x.image, size, interpolation=cv2.INTER_AREA)) for r, x in whole.items()}
    return Strokes.of(shot, lines, drawings, range(len(drawings)), present)


def as_it_is(strokes: Strokes, way: int | None = None) -> bool:
    """Whether all ink shows as it is, in whatever colour, of one way or all."""
    ways = np.s_[:] if way is None else np.s_[way : way + 1]
    return bool((strokes.weights[ways] == AS_IS).all()) and all(between is None for between in strokes.between[ways])


def off(made: np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(made.astype(float) - truth).mean())


def two_drawings(width: int, reference: np.ndarray) -> Shot:
    """The face and, the reference's, the face elsewhere."""
    return Shot(np.stack([sketch(THEN, width), sketch(AT, width)]), [Reference(reference, None, "frame")])


def test_lines_take_colour_and_width_of_a_coloured_frame_wherever_its_drawing_is():
    strokes = told(two_drawings(5, lined(fills(AT), AT, 2, BROWN)))
    assert strokes is not None
    ink, truth = Ink.of(sketch(THEN, 5)), lined(fills(THEN), THEN, 2, BROWN)
    made = strokes.over(ink, fills(THEN))
    assert off(made, truth) < 0.35 * off(ink.over(fills(THEN)), truth)
    middle = made[80:82, THEN + 5 : THEN + 60].reshape(-1, 3)  # of the hat's brim
    np.testing.assert_allclose(np.median(middle, axis=0), BROWN, atol=45)
    rim = np.s_[78, THEN + 10 : THEN + 60]  # the sketch has ink there, the coloured frame next to none
    assert sketch(THEN, 5)[rim].max() < 60
    assert off(made[rim], truth[rim]) < 0.5 * off(ink.over(fills(THEN))[rim], truth[rim])


def test_lines_that_a_coloured_frame_has_as_they_are_stay_to_the_byte():
    assert told(two_drawings(3, lined(fills(AT), AT, 3))) is None


def test_pencil_grows_as_dark_as_a_coloured_frame_has_it():
    grain = np.random.default_rng(0).uniform(0.25, 0.8, (HEIGHT, WIDTH, 1))
    drawings = [(255 - (255 - sketch(at, 3)) * grain).astype(np.uint8) for at in (THEN, AT)]
    strokes = told(Shot(np.stack(drawings), [Reference(lined(fills(AT), AT, 3), None, "frame")]))
    assert strokes is not None
    ink, truth = Ink.of(drawings[0]), lined(fills(THEN), THEN, 3)
    assert off(strokes.over(ink, fills(THEN)), truth) < 0.7 * off(ink.over(fills(THEN)), truth)


def test_lines_beside_those_of_a_coloured_frame_are_as_strong_as_they_are():
    strokes = told(two_drawings(1, np.roll(lined(fills(AT), AT, 1, BROWN), 2, axis=0)))
    assert strokes is not None
    made, truth = strokes.over(Ink.of(sketch(THEN, 1)), fills(THEN)), lined(fills(THEN), THEN, 1, BROWN)
    assert off(made, fills(THEN)) > 0.8 * off(truth, fills(THEN))


def test_trace_lines_go_where_a_coloured_frame_does_not_have_them():
    shots = two_drawings(3, lined(fills(AT), AT, 3, BROWN))
    drawings = np.asarray(shots.sketch[0:2]).copy()
    for at, drawing in zip((THEN, AT), drawings, strict=True):
        cv2.line(drawing, (at + 50, 90), (at + 60, 190), RED, 3, cv2.LINE_AA)
    strokes = told(replace(shots, sketch=drawings))
    assert strokes is not None
    made, plain = strokes.over(Ink.of(drawings[0]), fills(THEN)), Ink.of(drawings[0]).over(fills(THEN))
    traced = drawings[0][..., 0].astype(int) - drawings[0][..., 1] > 200  # red
    assert traced.sum() > 150
    assert off(made[traced], fills(THEN)[traced]) < 20 < 60 < off(plain[traced], fills(THEN)[traced])


def test_black_areas_stay_where_lines_grow_thin():
    shots = two_drawings(4, lined(fills(AT), AT, 1))
    drawings, picture = np.asarray(shots.sketch[0:2]).copy(), shots.references[0].image.copy()
    for at, drawing in ((THEN, drawings[0]), (AT, drawings[1]), (AT, picture)):
        cv2.circle(drawing, (at + 45, 120), 14, BLACK, -1)
    strokes = told(Shot(drawings, [Reference(picture, None, "frame")]))
    assert strokes is not None
    made = strokes.over(Ink.of(drawings[0]), fills(THEN))
    assert made[120, THEN + 45].max() < 60
    rim = np.s_[82, THEN + 10 : THEN + 60]  # of a thick line
    assert drawings[0][rim].max() < 60 < made[rim].mean() - 40


@pytest.mark.parametrize("frame", [fills(AT), lined(np.full((HEIGHT, WIDTH, 3), GROUND, np.uint8), 170, 3, BLACK)])
def test_a_frame_without_lines_or_of_another_moment_does_not_make_them_pale(frame):
    strokes = told(two_drawings(7, frame))
    assert strokes is None or as_it_is(strokes)


def test_a_frame_of_another_moment_tells_the_colour_alone():
    strokes = told(two_drawings(7, lined(np.full((HEIGHT, WIDTH, 3), GROUND, np.uint8), 170, 2, BROWN)))
    assert strokes is not None
    assert as_it_is(strokes)
    np.testing.assert_allclose(strokes.colours[0, 0], BROWN, atol=12)


def test_a_small_frame_is_too_soft_to_tell_widths():
    large = lined(fills(AT), AT, 3, BROWN)
    small = cv2.resize(large, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
    strokes = told(two_drawings(7, small))
    assert strokes is None or as_it_is(strokes)


def cut_out(colour: tuple[int, int, int]) -> Reference:
    alpha = cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), (160, 130), 73, 255, -1)
    return Reference(lined(fills(90), 90, 2, colour), alpha, "character")


def test_each_label_has_the_ink_of_its_sheets():
    drawing = np.minimum(sketch(AT - 40, 3), sketch(THEN + 60, 3))
    labels = np.where(np.arange(WIDTH) < WIDTH // 2, 1, 2) * np.ones((1, HEIGHT, 1), int)
    shot = Shot(drawing[None], [cut_out(BROWN), cut_out(BLUE)], Labels(labels, {1: (0,), 2: (1,)}))
    strokes = told(shot, (1, 2))
    assert strokes is not None
    assert as_it_is(strokes)
    made = strokes.over(Ink.of(drawing), np.full((HEIGHT, WIDTH, 3), GROUND, np.uint8), labels[0])
    dark = drawing.max(axis=2) == 0
    for label, colour in ((1, BROWN), (2, BLUE)):
        np.testing.assert_allclose(np.median(made[dark & (labels[0] == label)], axis=0), colour, atol=12)


def test_black_areas_stay_black_where_a_sheet_has_brown_lines():
    drawing = cv2.circle(sketch(AT, 3), (AT + 70, 130), 25, BLACK, -1)
    strokes = told(Shot(drawing[None], [cut_out(BROWN)]))
    assert strokes is not None
    made = strokes.over(Ink.of(drawing), fills(AT))
    assert made[125:135, AT + 65 : AT + 75].max() == 0
    np.testing.assert_allclose(np.median(made[79:82, AT + 5 : AT + 60].reshape(-1, 3), axis=0), BROWN, atol=12)


def test_outlines_of_a_figure_are_its_own_where_they_lie_on_the_place():
    drawing = sketch(AT, 3)
    mask = cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), (AT + 70, 130), 67, 1, -1)  # within the outline
    place = np.full((HEIGHT, WIDTH, 3), GROUND, np.uint8)
    for y in range(10, HEIGHT, 20):
        cv2.line(place, (230, y), (310, y), BROWN, 2, cv2.LINE_AA)
        cv2.line(drawing, (230, y), (310, y), BLACK, 4, cv2.LINE_AA)
    shot = Shot(drawing[None], [Reference(place, None, "background"), cut_out(BLUE)], Labels(mask[None], {0: (0,), 1: (1,)}))
    strokes = told(shot, (0, 1))
    assert strokes is not None
    made = strokes.over(Ink.of(drawing), place, mask)
    ring = (cv2.circle(np.zeros_like(mask), (AT + 70, 130), 70, 1, 1) > 0) & (drawing.max(axis=2) == 0)
    np.testing.assert_allclose(np.median(made[ring], axis=0), BLUE, atol=12)


def test_hundreds_of_labels_may_share_a_sheet():
    numbers = np.arange(1, 301)
    labels = np.resize(numbers, WIDTH) * np.ones((1, HEIGHT, 1), int)
    shot = Shot(sketch(AT, 3)[None], [cut_out(BROWN)], Labels(labels, {int(n): (0,) for n in numbers}))
    strokes = told(shot, tuple(numbers.tolist()))
    assert strokes is not None
    made = strokes.over(Ink.of(sketch(AT, 3)), fills(AT), labels[0])
    np.testing.assert_allclose(np.median(made[sketch(AT, 3).max(axis=2) == 0], axis=0), BROWN, atol=12)


def test_a_picture_that_may_be_a_plate_does_not_tell_of_figures():
    shot = Shot(sketch(AT, 5)[None], [Reference(lined(fills(AT), AT, 2, BROWN)), cut_out(BLUE)])
    strokes = told(shot)
    assert strokes is not None
    assert as_it_is(strokes)
    named = told(replace(shot, references=[replace(shot.references[0], role="frame"), shot.references[1]]))
    assert named is not None
    assert not as_it_is(named)


def test_a_frame_without_lines_leaves_it_to_a_sheet():
    shot = Shot(sketch(AT, 3)[None], [Reference(fills(AT), None, "frame"), cut_out(BROWN)])
    strokes = told(shot)
    assert strokes is not None
    np.testing.assert_allclose(strokes.colours[0, 0], BROWN, atol=12)


def test_without_labels_figures_tell_the_ink_before_the_place():
    place = Reference(lined(fills(AT), AT, 3, BLUE), None, "background")
    strokes = told(Shot(sketch(AT, 3)[None], [place, cut_out(BROWN)]))
    assert strokes is not None
    np.testing.assert_allclose(strokes.colours[0, 0], BROWN, atol=12)


def test_ink_of_a_sheet_that_is_nearly_the_sketchs_own_leaves_it_to_the_byte():
    assert told(Shot(sketch(AT, 3)[None], [cut_out((12, 8, 10))])) is None


@pytest.mark.parametrize(("colour", "same"), [(BROWN, True), (BLUE, False)])
def test_a_plate_tells_how_strong_lines_are_where_it_is_seen_and_of_figures_in_the_same_ink(colour, same):
    """The place is left, where thick lines of the sketch are thin ones of the plate; a figure is right."""
    place, figure = (np.full((HEIGHT, WIDTH, 3), x, np.uint8) for x in (GROUND, PAPER))
    drawing = figure.copy()
    for x in range(20, 150, 30):
        cv2.line(place, (x, 0), (x, HEIGHT), BROWN, 2, cv2.LINE_AA)
        cv2.line(drawing, (x, 0), (x, HEIGHT), BLACK, 4, cv2.LINE_AA)
    for y in range(20, HEIGHT, 30):
        cv2.line(drawing, (180, y), (300, y), BLACK, 4, cv2.LINE_AA)
    labels = (np.arange(WIDTH) > 165).astype(int) * np.ones((1, HEIGHT, 1), int)
    shot = Shot(drawing[None], [Reference(place, None, "background"), cut_out(colour)], Labels(labels, {0: (0,), 1: (1,)}))
    strokes = told(shot, (0, 1))
    assert strokes is not None
    way = strokes.ways[0], strokes.ways[1]
    assert not as_it_is(strokes, way[0])
    assert as_it_is(strokes, way[1]) != same
    np.testing.assert_allclose(strokes.colours[way[1], 0], colour, atol=12)


def coloured_shot() -> Shot:
    return two_drawings(5, lined(fills(AT), AT, 2, BROWN))


def test_the_colorizer_matches_lines_unless_told_to_keep_them():
    colorizer, truth = Colorizer.load(), lined(fills(THEN), THEN, 3, BROWN)
    made, kept, bare = (colorizer.colorize(coloured_shot(), ColorizeOptions(lines=x))[0] for x in ("match", "keep", "none"))
    np.testing.assert_array_equal(kept, Ink.of(sketch(THEN, 5)).over(bare))
    assert off(made, truth) < 0.6 * off(kept, truth)
    clear = cv2.dilate(Ink.of(sketch(THEN, 5)).opacity, np.ones((5, 5), np.uint8)) == 0  # lines grow soft beside the ink
    np.testing.assert_array_equal(made[clear], kept[clear])
    np.testing.assert_array_equal(colorizer.colorize(coloured_shot())[0], made)


def test_baselines_have_their_lines_the_same_way():
    truth = lined(fills(THEN), THEN, 3, BROWN)
    made, kept = (baselines.baseline("flow", coloured_shot(), FinishOptions(lines=x)).frames[0] for x in ("match", "keep"))
    assert off(made, truth) < off(kept, truth)


def test_a_drawing_without_ink_tells_nothing():
    blank = np.full((2, HEIGHT, WIDTH, 3), 255, np.uint8)
    assert told(Shot(blank, [Reference(fills(AT), None, "frame")])) is None


SHADE = (190, 150, 120)  # of skin


def shaded(at: int) -> np.ndarray:
    """A face with a shade on its right half, whose border is drawn in the sketch alone."""
    picture = fills(at)
    dark = cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), (at + 70, 130), 70, 1, -1)
    dark[:, : at + 70] = 0
    picture[dark > 0] = SHADE
    return picture


def bordered(at: int) -> np.ndarray:
    return cv2.line(sketch(at, 3), (at + 70, 62), (at + 70, 198), BLACK, 3, cv2.LINE_AA)


def test_a_border_of_shade_goes_where_a_coloured_frame_has_no_line_and_outlines_stay():
    shot = Shot(np.stack([bordered(THEN), bordered(AT)]), [Reference(lined(shaded(AT), AT, 3), None, "frame")])
    strokes = told(shot)
    assert strokes is not None
    made, truth = strokes.over(Ink.of(bordered(THEN)), shaded(THEN)), lined(shaded(THEN), THEN, 3)
    border = np.s_[100:150, THEN + 69 : THEN + 72]  # clear of mouth and hat
    assert off(Ink.of(bordered(THEN)).over(shaded(THEN))[border], truth[border]) > 100
    assert off(made[border], truth[border]) < 45
    outline = (cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), (THEN + 70, 130), 70, 1, 1) > 0) & (truth.max(axis=2) < 30)
    outline[55:90] = outline[190:] = False  # where the border begins and ends
    assert outline.sum() > 100
    assert off(made[outline], truth[outline]) < 12


def test_ink_within_one_fill_keeps_half_its_strength_whatever_a_frame_shows():
    """Scars that the frame does not have: on another drawing the same ink may bound a fill that was not found."""
    drawings = np.stack([sketch(THEN, 3), sketch(AT, 3)])
    for at, drawing in zip((THEN, AT), drawings, strict=True):
        for y in range(95, 156, 12):
            cv2.line(drawing, (at + 30, y), (at + 110, y), BLACK, 2, cv2.LINE_AA)
    strokes = told(Shot(drawings, [Reference(lined(fills(AT), AT, 3), None, "frame")]))
    assert strokes is not None
    made, kept = strokes.over(Ink.of(drawings[0]), fills(THEN)), Ink.of(drawings[0]).over(fills(THEN))
    scars = np.s_[95:150, THEN + 40 : THEN + 100]
    assert (
        0.3 * off(kept[scars], fills(THEN)[scars])
        < off(made[scars], fills(THEN)[scars])
        < 0.7 * off(kept[scars], fills(THEN)[scars])
    )


def test_hard_lines_grow_soft_where_a_coloured_frame_has_them_soft():
    drawings = np.where(np.stack([sketch(THEN, 3), sketch(AT, 3)]) < 128, np.uint8(0), np.uint8(255))
    soft = cv2.GaussianBlur(lined(fills(AT), AT, 3), (0, 0), 1.0)
    strokes = told(Shot(drawings, [Reference(soft, None, "frame")]))
    assert strokes is not None
    truth, ink = cv2.GaussianBlur(lined(fills(THEN), THEN, 3), (0, 0), 1.0), Ink.of(drawings[0])
    near = cv2.dilate(ink.opacity, np.ones((5, 5), np.uint8)) > 0
    assert off(strokes.over(ink, fills(THEN))[near], truth[near]) < 0.5 * off(ink.over(fills(THEN))[near], truth[near])


@pytest.mark.parametrize("line", [None, BROWN])
def test_a_sheet_tells_between_which_fills_it_has_no_line(line):
    """The border of shade is drawn, and the sheet has a line there or has none; trace lines are in colour."""
    alpha = cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), (160, 130), 73, 255, -1)
    picture = lined(shaded(90), 90, 2, BROWN)
    if line is not None:
        cv2.line(picture, (160, 62), (160, 198), line, 2, cv2.LINE_AA)
    drawing = cv2.line(sketch(AT, 3), (AT + 70, 90), (AT + 70, 150), RED, 3, cv2.LINE_AA)
    strokes = told(Shot(drawing[None], [Reference(picture, alpha, "character")]))
    assert strokes is not None
    made = strokes.over(Ink.of(drawing), shaded(AT))
    border = np.s_[95:145, AT + 69 : AT + 72]
    red = (made[border][..., 0].astype(int) - made[border][..., 1] > 120).mean()
    assert red > 0.9 if line is not None else red < 0.1
    np.testing.assert_allclose(np.median(made[80, AT + 15 : AT + 60], axis=0), BROWN, atol=25)


@pytest.mark.parametrize("height", [480, 1920])
def test_at_4k_a_line_between_two_fills_is_told_as_at_any_size(height):
    """Of two fills, a line within the first shows, and none where they meet; at 4K every other pixel is looked at."""
    scale = height // 480
    fills, opacity = np.full((height, 640 * scale, 3), 200, np.uint8), np.zeros((height, 640 * scale), np.float32)
    fills[:, 320 * scale :] = (30, 90, 160)
    for x in (160, 320):
        opacity[:, (x - 1) * scale : (x + 1) * scale] = 1
    sides = Sides.of(fills, opacity)
    shares = np.ones((int(sides.known.max()) + 1,) * 2, np.float32)
    one, other = (int(sides.known[(r >> 2 << 12) + (g >> 2 << 6) + (b >> 2)]) for r, g, b in ((200, 200, 200), (30, 90, 160)))
    shares[one, other] = shares[other, one] = 0
    shown = Between(sides.known, shares).shown(fills, opacity)
    assert shown.shape == opacity.shape
    assert (shown[:, 159 * scale : 161 * scale] == 1).all()
    assert (shown[:, 319 * scale : 321 * scale] == 0).all()
