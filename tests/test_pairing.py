"""Which drawing a coloured frame was made on, and what follows from it."""

import cv2
import numpy as np
import pytest

from timecolor import codec
from timecolor.finish import Finisher, FinishOptions, plate_of
from timecolor.finish.held import Held, over, over_place
from timecolor.finish.ink import Ink
from timecolor.geometry import Clip
from timecolor.pairing import ANOTHER, Drawn, compare, frames_of, paired
from timecolor.shot import Reference, Shot
from timecolor.sketch import reference_lines

HEIGHT, WIDTH = 160, 240
SKIN, COAT, WALL, BAR = (230, 190, 160), (60, 90, 200), (200, 210, 190), (200, 40, 40)


def figure(
    x: int, paper=(255, 255, 255), skin=(255, 255, 255), coat=(255, 255, 255), ink: tuple[int, ...] | None = (20, 20, 20)
) -> np.ndarray:
    """A head on a coat, drawn or coloured, uint8 (h, w, 3). ink: None = fills alone."""
    image = np.full((HEIGHT, WIDTH, 3), paper, np.uint8)
    cv2.rectangle(image, (x - 25, 85), (x + 25, 150), coat, -1)
    cv2.rectangle(image, (x - 25, 85), (x + 25, 150), ink or coat, 2)
    cv2.circle(image, (x, 60), 24, skin, -1)
    cv2.circle(image, (x, 60), 24, ink or skin, 2)
    return image


def coloured(x: int, ink: tuple[int, ...] | None = (20, 20, 20)) -> np.ndarray:
    """The same before a wall with bars that no drawing has."""
    image = figure(x, WALL, SKIN, COAT, ink)
    wall = (image == WALL).all(axis=2)
    for left in (20, 200, 225):
        bar = np.zeros((HEIGHT, WIDTH), bool)
        bar[:, left : left + 3] = True
        image[bar & wall] = BAR
    return image


def pairs(shot: Shot) -> dict[int, Drawn]:
    drawings = list(shot.sketch[0 : shot.sketch.shape[0]])
    whole = {r: one for r, one in enumerate(shot.references) if one.shows_frame(HEIGHT, WIDTH)}
    pictures = {r: cv2.resize(one.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for r, one in whole.items()}
    return paired(shot, {r: reference_lines(image) for r, image in pictures.items()}, drawings, range(len(drawings)))


def test_a_frame_is_paired_with_its_own_drawing():
    sketch = np.stack([figure(x) for x in (80, 100, 120)])
    found = pairs(Shot(sketch, [Reference(coloured(x), role="frame") for x in (100, 80)]))
    assert sorted(found) == [0, 1]
    assert np.array_equal(found[0].drawing, sketch[1])
    assert np.array_equal(found[1].drawing, sketch[0])


def test_a_frame_of_another_moment_is_paired_with_none():
    assert not pairs(Shot(np.stack([figure(x) for x in (80, 120)]), [Reference(coloured(100), role="frame")]))


def test_a_plate_a_sheet_and_a_frame_of_unknown_role_beside_a_cut_out_are_no_frames():
    image, alpha = coloured(100), np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[40:90, 80:120] = 255
    references = [Reference(image), Reference(image, role="background"), Reference(image, role="frame"), Reference(image, alpha)]
    shot = Shot(figure(100)[None], references)
    assert frames_of(shot, [0, 1, 2]) == [2]
    assert frames_of(Shot(figure(100)[None], references[:1]), [0]) == [0]
    assert sorted(pairs(shot)) == [2]


def test_a_blank_drawing_and_a_frame_too_dark_to_tell_are_paired_with_nothing():
    blank = np.full((1, HEIGHT, WIDTH, 3), 255, np.uint8)
    assert not pairs(Shot(blank, [Reference(coloured(100), role="frame")]))
    night = (coloured(100).astype(int) // 6).astype(np.uint8)
    assert compare(night, figure(100)).another == 1
    assert not pairs(Shot(figure(100)[None], [Reference(night, role="frame")]))


@pytest.mark.parametrize("scale", [0.5, 3])
def test_drawing_and_frame_may_be_of_other_sizes(scale):
    size = round(WIDTH * scale), round(HEIGHT * scale)
    large = cv2.resize(coloured(100), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    assert compare(large, figure(100)).another <= ANOTHER < compare(large, figure(112)).another


def test_what_moved_since_is_doubted_and_its_lines_are_sought():
    drawing, frame = figure(70), coloured(70)
    drawing[:, 120:], frame[:, 120:] = figure(180)[:, 120:], coloured(185)[:, 120:]
    seen = compare(frame, drawing)
    doubted = seen.drawn.doubted(HEIGHT, WIDTH)
    assert doubted[60, 204]  # the rim of the head on the right
    assert not doubted[50:70, 90:98].any()
    assert doubted[80, 21]  # so what is bare may hide something, too
    lines = seen.drawn.lines(frame)
    assert lines[60, 209] > 100  # as the frame has it, where it is doubted
    assert lines[60, 94] > 100


def test_what_was_painted_without_lines_stays_in_the_fills():
    reference = Reference(coloured(100), role="frame")
    clip = Clip(1, HEIGHT, WIDTH)
    known = codec.letterbox(reference, clip, drawn=compare(reference.image, figure(100)).drawn)
    sought = codec.letterbox(reference, clip)
    assert np.abs(known.fills[80, 21].astype(int) - BAR).max() <= 10
    assert np.abs(sought.fills[80, 21].astype(int) - BAR).max() > 60
    assert np.abs(known.fills[60, 124].astype(int) - 20).max() > 60  # the head's outline is gone
    assert not known.lines[80, 15:30].any()
    assert known.lines[60, 124] > 200
    assert np.array_equal(known.image, sought.image)


@pytest.mark.parametrize("cell", [1, 4, 6, 8])
def test_what_a_drawing_holds_is_the_frame_and_what_moved_is_not(cell):
    frame = coloured(60, ink=(120, 60, 30))
    sketch, now = figure(60), figure(60)
    sketch[:, 130:], now[:, 130:] = figure(170)[:, 130:], figure(182)[:, 130:]
    frame[:, 130:] = coloured(170, ink=(120, 60, 30))[:, 130:]
    shot = Shot(np.stack([sketch, now]), [Reference(frame, role="frame")])
    fills = coloured(60, ink=None)
    fills[:, 130:] = coloured(182, ink=None)[:, 130:]
    colours = cv2.resize(fills, (fills.shape[1] // cell, fills.shape[0] // cell), interpolation=cv2.INTER_AREA) / np.float32(255)
    finisher = Finisher.of(shot, paired=pairs(shot))
    assert finisher.held
    made = finisher(colours, now)
    same = (made == frame).all(axis=2)
    assert same[30:78, 25:95].all()
    assert same[30:150, 25:95].mean() > 0.9  # some of the body's outline, where cells reach over it
    assert not same[30:78, 150:215].all()
    assert (made[60, 205:207] == (20, 20, 20)).all()  # the head on the right, where it is now, in the sketch's own ink
    assert np.abs(made[60, 145:148].astype(int) - WALL).max() < 30  # not where it was
    kept = Finisher.of(shot, options=FinishOptions("keep"), paired=pairs(shot))(colours, now)
    ink = now.max(axis=2) < 60
    assert np.array_equal(kept[ink], now[ink])
    flat = Finisher.of(shot, options=FinishOptions(fill="flat"), paired=pairs(shot))(colours, now)
    assert np.array_equal(flat[ink], now[ink])


def cells_of(fills: np.ndarray) -> np.ndarray:
    return cv2.resize(fills, (WIDTH // 4, HEIGHT // 4), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def held_of(frame: np.ndarray, sketch: np.ndarray, fills: np.ndarray | None = None) -> Held:
    found = Held.of(Reference(frame, role="frame"), frame if fills is None else fills, compare(frame, sketch).drawn)
    assert found is not None
    return found


def test_lines_held_over_fills_of_another_colour_keep_these():
    frame, sketch = coloured(100), figure(100)
    ink, fills = Ink.of(sketch), np.full_like(frame, 90)
    picture = ink.over(fills)
    held = held_of(frame, sketch, coloured(100, ink=None))
    assert np.array_equal(over(picture, [held], ink, fills, cells_of(fills)), picture)


def test_a_mouth_that_opens_is_drawn():
    """Little of a face's ink is its mouth."""
    fills, closed = coloured(100, ink=None), figure(100)
    opened = closed.copy()
    cv2.line(closed, (94, 70), (106, 70), (20, 20, 20), 2)
    cv2.ellipse(opened, (100, 71), (6, 4), 0, 0, 360, (20, 20, 20), 2)
    frame = Ink.of(closed).over(fills)
    ink = Ink.of(opened)
    made = over(ink.over(fills), [held_of(frame, closed, fills)], ink, fills, cells_of(fills))
    assert np.array_equal(made[62:80, 90:110], ink.over(fills)[62:80, 90:110])
    assert np.array_equal(
        over(np.zeros_like(frame), [held_of(frame, closed, fills)], Ink.of(closed), fills, cells_of(fills))[20:140], frame[20:140]
    )


def test_cells_may_know_what_fills_do_not():
    """Where broken lines close no region the fills are wrong, but the cells are not."""
    frame, sketch, fills = coloured(100), figure(100), coloured(100, ink=None)
    ink, wrong = Ink.of(sketch), np.full_like(fills, WALL)
    held, picture = held_of(frame, sketch, fills), ink.over(wrong)
    made = over(picture, [held], ink, wrong, cells_of(fills))
    assert np.array_equal(made[38:148, 70:130], frame[38:148, 70:130])
    made = over(picture, [held], ink, wrong, cells_of(wrong))
    assert np.array_equal(made[92:145, 82:118], picture[92:145, 82:118])


def test_finer_cells_are_compared_as_coarsely():
    """What differs within coarse cells alone is an edge that lies a pixel off."""
    frame, sketch, fills = coloured(100), figure(100), coloured(100, ink=None)
    ink, wrong = Ink.of(sketch), np.full_like(fills, WALL)
    coarse = cv2.resize(fills, (60, 40), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    fine = coarse.repeat(2, axis=0).repeat(2, axis=1) + np.where(np.indices((80, 120)).sum(axis=0) % 2, 0.1, -0.1)[..., None]
    held, picture = held_of(frame, sketch, fills), ink.over(wrong)
    made = [over(picture, [held], ink, wrong, cells) for cells in (coarse, fine.astype(np.float32))]
    assert np.array_equal(*made)
    assert np.array_equal(made[0][38:148, 70:130], frame[38:148, 70:130])
    unlike = over(picture, [held], ink, wrong, fine.astype(np.float32) * 0.5)
    assert not np.array_equal(unlike, made[0])


def place(by: tuple[float, float] = (0, 0), scale: int = 1, lines: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A drawing of a place and what it looks like coloured, moved by so much (x, y), with a speckled sky that no line shows."""
    grain = np.random.default_rng(3).random((HEIGHT, WIDTH)) < 0.02
    drawing, frame = np.full((HEIGHT, WIDTH, 3), 255, np.uint8), np.full((HEIGHT, WIDTH, 3), WALL, np.uint8)
    frame[grain] = BAR
    for image, ink in ((drawing, (20, 20, 20)), (frame, (120, 60, 30))):
        if lines:
            cv2.line(image, (0, 120), (WIDTH, 112), ink, 2)
            cv2.line(image, (90, 0), (96, HEIGHT), ink, 2)
        cv2.rectangle(image, (150, 40), (190, 90), ink, 2)
    by_scale = np.array([[1, 0, by[0] * scale], [0, 1, by[1] * scale]], np.float32)
    size = WIDTH * scale, HEIGHT * scale
    large = (cv2.resize(x, size, interpolation=cv2.INTER_CUBIC) for x in (drawing, frame))
    moved = [cv2.warpAffine(x, by_scale, size, borderMode=cv2.BORDER_REPLICATE) for x in large]
    return moved[0], moved[1]


@pytest.mark.parametrize("scale", [1, 4])
def test_what_the_camera_moves_is_held_to_the_pixel(scale):
    """Its move is known at 160 lines only, a pixel there is several of the drawing's."""
    (was, frame), (now, truth) = place(scale=scale), place((11.5, 2), scale)
    rough = np.tile(np.array([-10.8, -2.3], np.float32), (HEIGHT, WIDTH, 1))
    held = held_of(frame, was)
    there = held.along(rough, now)
    assert there is not None
    inside = np.s_[6 * scale : -6 * scale, 16 * scale : -6 * scale]
    assert there.known[inside].mean() > 0.98
    assert not there.known[:, : 10 * scale].any()  # what it did not show
    assert np.abs(there.frame[inside].astype(int) - truth[inside]).mean() < 2.5
    assert held.along(rough, was) is None  # it stands still
    ink, fills = Ink.of(now), np.full_like(frame, WALL)
    made = over(ink.over(fills), [held, there], ink, fills, cells_of(fills))
    near = np.s_[106 * scale : 124 * scale, 20 * scale : 80 * scale]
    off, without = (np.abs(x[near].astype(int) - truth[near]).mean() for x in (made, ink.over(fills)))
    assert off < without / 2


def test_a_figure_that_moves_does_not_drag_the_place():
    """All lines are its own, so all that is drawn moves as a camera would move it."""
    (was, frame), (now, _) = place(lines=False), place((7, 0), lines=False)
    held = held_of(frame, was)
    assert held.along(np.tile(np.array([-7, 0], np.float32), (HEIGHT, WIDTH, 1)), now) is None


def test_a_zoom_that_would_blur_lines_is_not_shown():
    was, frame = place()
    by = np.array([[1.7, 0, -60], [0, 1.7, -50]], np.float32)
    now = cv2.warpAffine(was, by, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    y, x = np.indices((HEIGHT, WIDTH)).astype(np.float32)
    flow = np.stack([(x + 60) / 1.7 - x, (y + 50) / 1.7 - y], axis=2)
    assert held_of(frame, was).along(flow, now) is None


@pytest.mark.parametrize(("inside", "first"), [(6, True), (6, False), (8, True)])
def test_an_iris_in_a_small_eye_is_no_gap_in_a_line(inside, first):
    fills, was = coloured(100, ink=None), figure(100)
    cv2.ellipse(was, (100, 60), (inside, inside - 2), 0, 0, 360, (20, 20, 20), 1)
    now = was.copy()
    cv2.circle(now, (100, 60), 1, (20, 20, 20), -1)
    if not first:
        was, now = now, was
    frame, ink = Ink.of(was).over(fills), Ink.of(now)
    made = over(ink.over(fills), [held_of(frame, was, fills)], ink, fills, cells_of(fills))
    assert np.array_equal(made[58:63, 98:103], ink.over(fills)[58:63, 98:103])


def test_of_several_frames_that_hold_the_nearest_to_the_fills_is_shown():
    frame, sketch, fills = coloured(100), figure(100), coloured(100, ink=None)
    darker = frame - np.minimum(frame, 12)
    near, far = held_of(frame, sketch, fills), held_of(darker, sketch, fills - np.minimum(fills, 12))
    for frames in ([near, far], [far, near]):
        made = over(np.zeros_like(frame), frames, Ink.of(sketch), fills, cells_of(fills))
        assert np.array_equal(made[20:80, 60:140], frame[20:80, 60:140])


def test_a_frame_or_plate_much_smaller_than_the_sketch_does_not_blur_its_lines():
    small = cv2.resize(coloured(100), (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
    shot = Shot(figure(100)[None], [Reference(small, role="frame")])
    found = pairs(shot)
    assert found
    assert not Finisher.of(shot, paired=found).held
    sharp = [plate_of(Reference(image, role="background"), HEIGHT, WIDTH) for image in (small, coloured(100))]
    assert [plate is not None and plate.sharp for plate in sharp] == [False, True]


def test_of_two_drawings_that_a_frame_shows_the_fuller_is_its_own():
    frame = coloured(100)
    cv2.line(frame, (10, 155), (230, 155), (20, 20, 20), 2)
    place = np.full_like(frame, 255)
    cv2.line(place, (10, 155), (230, 155), (20, 20, 20), 2)
    full = np.minimum(place, figure(100))
    found = pairs(Shot(np.stack([place, full]), [Reference(frame, role="frame")]))
    assert np.array_equal(found[0].drawing, full)


def test_a_place_shows_its_plates_lines_where_the_sketch_draws_them():
    plate = figure(60, WALL, SKIN, COAT, ink=(90, 70, 60))
    sketch, at = figure(60), np.ones((HEIGHT, WIDTH), bool)
    cv2.circle(sketch, (180, 80), 20, (20, 20, 20), 2)  # a figure
    at[50:110, 150:210] = False
    picture = Ink.of(sketch).over(np.full_like(plate, 200))
    made = over_place(picture, sketch, plate, at)
    assert np.array_equal(made[:, :130], plate[:, :130])
    assert np.array_equal(made[50:110, 150:210], picture[50:110, 150:210])
    other = np.roll(plate, 9, axis=1)
    assert np.array_equal(over_place(picture, sketch, other, at), picture)


def test_ink_before_a_dark_place_is_no_line_of_it():
    plate = figure(60, WALL, SKIN, COAT)
    plate[:, 140:] = 25
    sketch, at = figure(60), np.ones((HEIGHT, WIDTH), bool)
    cv2.circle(sketch, (180, 80), 20, (20, 20, 20), 2)
    picture = Ink.of(sketch).over(np.full_like(plate, 200))
    made = over_place(picture, sketch, plate, at)
    assert np.array_equal(made[:, :125], plate[:, :125])
    assert np.array_equal(made[80, 158:163], picture[80, 158:163])


def test_what_crosses_the_lines_of_a_plate_is_drawn():
    plate = np.full((HEIGHT, WIDTH, 3), WALL, np.uint8)
    sketch = np.full_like(plate, 255)
    for image, ink in ((plate, (90, 70, 60)), (sketch, (20, 20, 20))):
        for y in range(8, HEIGHT, 16):
            cv2.line(image, (0, y), (WIDTH, y), ink, 2)
    cv2.line(sketch, (60, 0), (170, HEIGHT), (20, 20, 20), 3)
    picture = Ink.of(sketch).over(np.full_like(plate, 200))
    made = over_place(picture, sketch, plate, np.ones((HEIGHT, WIDTH), bool))
    rope = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.line(rope, (60, 0), (170, HEIGHT), 1, 1)
    assert (made[rope > 0] == picture[rope > 0]).all(axis=1).mean() > 0.95
    lined = (sketch[:, 5] < 128).all(axis=1)
    assert np.array_equal(made[lined, :30], plate[lined, :30])
