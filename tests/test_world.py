"""The procedural world: what training and the held-out figures stand on."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from timecolor.world import LINE_STYLES, World, WorldShot
from timecolor.world.draw import Canvas, Drawing
from timecolor.world.ink import Style
from timecolor.world.motion import Pose, blend
from timecolor.world.palette import FIRST_INDEX, SLOTS_PER_CHARACTER, Slot

SMALL = World(seed=5, height=96, width=144, frames=9)


def first(world: World, wanted) -> WorldShot:
    """The first shot of a world for which `wanted(shot)` holds."""
    return next(shot for shot in map(world.shot, range(500)) if wanted(shot))


def planes(rendered) -> tuple[np.ndarray, ...]:
    return rendered.colour, rendered.fills, rendered.sketch, rendered.labels


@pytest.mark.parametrize("index", range(4))
def test_same_seed_and_index_give_the_same_frames_in_any_order(index):
    forward, backward = SMALL.shot(index), SMALL.shot(index)
    one = [planes(forward.render(i)) for i in range(3)]
    two = [planes(backward.render(i)) for i in reversed(range(3))][::-1]
    for a, b in zip(one, two, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_another_index_or_seed_is_another_shot():
    frames = [SMALL.shot(0), SMALL.shot(1), World(seed=6, height=96, width=144).shot(0)]
    pictures = [shot.render(0).colour for shot in frames]
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_a_rendered_frame_may_be_written_to():
    shot = first(SMALL, lambda s: s.camera.still)
    before = shot.render(0)
    kept = before.colour.copy()
    before.colour[:] = 7
    assert np.array_equal(shot.render(0).colour, kept)


@pytest.mark.parametrize("index", range(6))
def test_same_scene_at_two_sizes(index):
    small, large = (World(seed=2, height=h, width=w, line_style="clean").shot(index) for h, w in ((128, 192), (256, 384)))
    a, b = small.render(5), large.render(5)
    shrunk = cv2.resize(b.fills, (192, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(a.fills.astype(int) - shrunk).mean() < 6
    assert (a.labels == b.labels[::2, ::2]).mean() > 0.96
    assert small.characters == large.characters
    assert small.frame_rate == large.frame_rate


def test_a_shrunk_world_is_the_larger_one_shrunk():
    large = World(seed=2, height=128, width=192, line_style="thick").shot(1)
    small = World(seed=2, height=64, width=96, line_style="thick", shrink=2).shot(1)
    a, b = small.render(0), large.render(0)
    for shrunk, whole in ((a.colour, b.colour), (a.fills, b.fills), (a.sketch, b.sketch), (small.plate(), large.plate())):
        assert np.array_equal(shrunk, cv2.resize(whole, (96, 64), interpolation=cv2.INTER_AREA))
    assert (a.labels == b.labels[1::2, 1::2]).mean() > 0.98
    assert [r.image.shape for r in small.references()] == [(64, 96, 3)] * (small.characters + 1)


def test_another_aspect_ratio_works():
    frame = World(height=100, width=100).shot(3).render(0)
    assert frame.colour.shape == (100, 100, 3)
    assert frame.labels.shape == (100, 100)


@pytest.mark.parametrize("style", LINE_STYLES)
def test_every_line_style_draws_lines_on_white(style):
    world = World(seed=1, height=128, width=192, line_style=style)
    shot = first(world, lambda s: s.characters and s._framing in ("bust", "medium"))
    sketch = shot.render(0).sketch
    assert sketch.dtype == np.uint8
    dark = (sketch.min(axis=2) < 128).mean()
    assert 0.002 < dark < 0.5
    assert (sketch == 255).all(axis=2).mean() > 0.4
    if style in ("binarised", "thick", "speckled"):
        assert set(np.unique(sketch)) <= {0, 255}


def test_only_trace_lines_are_coloured():
    coloured = {style: False for style in LINE_STYLES}
    for style in LINE_STYLES:
        world = World(seed=1, height=96, width=144, line_style=style)
        for index in range(6):
            sketch = world.shot(index).render(0).sketch.astype(int)
            coloured[style] |= bool((sketch.max(axis=2) - sketch.min(axis=2)).max() > 40)
    assert {style for style, is_coloured in coloured.items() if is_coloured} == {"trace"}


def test_the_sketch_is_white_where_there_is_nothing():
    shot = first(World(seed=0, height=64, width=96, line_style="clean"), lambda s: s.characters and (s.plate() == 255).all())
    frame = shot.render(0)
    beside = cv2.dilate((frame.labels > 0).astype(np.uint8), np.ones((7, 7), np.uint8)) == 0
    assert beside.any()
    assert (frame.sketch[beside] == 255).all()


@pytest.mark.parametrize("index", range(8))
def test_fills_are_the_colours_away_from_lines(index):
    shot = World(seed=4, height=128, width=192, line_style="clean").shot(index)
    frame = shot.render(2)
    away = cv2.erode((frame.sketch.min(axis=2) == 255).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert away.any()
    assert np.abs(frame.fills.astype(int) - frame.colour)[away].max() <= 1


def test_labels_are_in_range_and_every_character_shows_somewhere():
    hidden = 0
    for index in range(12):
        shot = SMALL.shot(index)
        seen = set()
        for i in range(0, shot.frames, 2):
            seen |= set(np.unique(shot.render(i).labels).tolist())
        assert seen <= set(range(shot.characters + 1))
        hidden += len(set(range(1, shot.characters + 1)) - seen)
    assert hidden <= 2  # now and then one walks behind another or out of sight


def test_a_held_drawing_is_the_same_to_the_last_bit():
    world = World(seed=3, height=96, width=144, line_style="speckled")
    shot = first(world, lambda s: s.hold == 2 and s.camera.still and s.characters)
    held = planes(shot.render(2))
    fresh = planes(world.shot(shot.index).render(3))
    assert all(np.array_equal(a, b) for a, b in zip(held, fresh, strict=True))
    assert not np.array_equal(held[2], shot.render(4).sketch)


def test_something_moves_in_most_shots():
    moving = 0
    for index in range(10):
        shot = SMALL.shot(index)
        moving += not np.array_equal(shot.render(0).fills, shot.render(8).fills)
    assert moving >= 6


def test_references_show_the_plate_without_characters_and_each_character_in_another_pose():
    shot = first(SMALL, lambda s: s.characters == 2 and s.camera.still and s._glow is None)
    frame = shot.render(0)
    plate, *cast = shot.references()
    assert [r.role for r in (plate, *cast)] == ["background", "character", "character"]
    inside = frame.labels > 0
    outside = cv2.dilate(inside.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    assert np.abs(plate.image.astype(int) - frame.colour)[outside].max() <= 2
    assert np.abs(plate.image.astype(int) - frame.colour)[inside].mean() > 10
    for k, reference in enumerate(cast, start=1):
        assert reference.image.shape == (96, 144, 3)
        assert reference.alpha is not None
        assert 0.02 < (reference.alpha > 127).mean() < 0.98
        rows = np.flatnonzero((reference.alpha > 127).any(axis=1))
        assert rows[-1] - rows[0] > 0.4 * 96
        assert not np.array_equal(reference.image, shot.character(k, variant=1).image)
        assert ((reference.alpha > 127) != (frame.labels == k)).mean() > 0.02


def test_a_reference_has_the_colours_of_its_character():
    shot = first(SMALL, lambda s: s.characters == 1 and s._framing == "full" and s._glow is None)
    frame, reference = shot.render(0), shot.character(1)
    assert reference.alpha is not None

    def colours(picture, where):
        found, count = np.unique(picture[where].reshape(-1, 3), axis=0, return_counts=True)
        return {tuple(c) for c, n in zip(found.tolist(), count.tolist(), strict=True) if n >= 8}

    shared = colours(frame.fills, frame.labels == 1) & colours(reference.image, reference.alpha == 255)
    assert len(shared) >= 3


def test_colours_cannot_be_told_from_the_shape():
    tables = [shot._tables[0][0] for shot in map(SMALL.shot, range(60)) if shot.characters]
    hair = np.array([t[FIRST_INDEX + 2 * Slot.HAIR] for t in tables], float)
    top = np.array([t[FIRST_INDEX + 2 * Slot.TOP] for t in tables], float)
    assert hair.std(axis=0).min() > 35
    assert top.std(axis=0).min() > 45


@pytest.mark.parametrize("protocol", ["start frame", "arbitrary frame", "multi-reference"])
def test_to_shot_gives_a_shot_and_its_truth(protocol):
    world = first(SMALL, lambda s: s.characters == 2)
    shot, truth = world.to_shot(protocol)
    assert shot.sketch.shape == truth.shape == (9, 96, 144, 3)
    assert shot.frame_rate == world.frame_rate
    if protocol == "multi-reference":
        assert shot.labels is not None
        assert len(shot.references) == 3
        assert shot.labels.references_of(2) == (2,)
    else:
        assert shot.labels is None
        (reference,) = shot.references
        at = 0 if protocol == "start frame" else int(reference.name.split()[-1])
        assert np.array_equal(reference.image, truth[at])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: World(line_style="wavy"), "unknown line style 'wavy'; use one of clean"),
        (lambda: World(height=8), "give at least 16x16"),
        (lambda: World(frames=0), "give at least 1"),
        (lambda: World(shrink=0), "shrink is 0; give 1 or more"),
        (lambda: World(seed=-1), "seed is -1; give 0 or more"),
        (lambda: SMALL.shot(-1), "shot index is -1"),
        (lambda: SMALL.shot(0).render(9), "give 0 to 8"),
        (lambda: SMALL.shot(0).plate(-1), "give 0 to 8"),
        (lambda: SMALL.shot(0).character(4), "character 4 of a shot with"),
    ],
)
def test_impossible_requests_say_what_would_do(make, message):
    with pytest.raises((ValueError, IndexError), match=message):
        make()


def test_what_is_in_front_hides_fill_and_line_behind():
    drawing = Drawing()
    drawing.fill(np.array([[-10.0, -10.0], [10.0, -10.0], [10.0, 10.0], [-10.0, 10.0]]), Slot.TOP)
    drawing.fill(np.array([[0.0, -20.0], [20.0, -20.0], [20.0, 20.0], [0.0, 20.0]]), Slot.HAIR, 0.0)
    canvas = Canvas(64, 64)
    canvas.paint(drawing, 1.0, (32.0, 32.0), FIRST_INDEX)
    assert canvas.index[64, 60] == FIRST_INDEX + 2 * Slot.TOP
    assert canvas.index[64, 70] == FIRST_INDEX + 2 * Slot.HAIR
    assert canvas.ink[64, 44] > 0
    assert canvas.ink[64, 84] == 0


def test_a_shadow_stays_within_its_shape():
    drawing = Drawing()
    drawing.fill(np.array([[-10.0, -10.0], [10.0, -10.0], [10.0, 10.0], [-10.0, 10.0]]), Slot.TOP)
    drawing.shade(5.0)
    canvas = Canvas(64, 64, light=(1.0, 0.0))
    canvas.paint(drawing, 1.0, (32.0, 32.0), FIRST_INDEX)
    lit = FIRST_INDEX + 2 * Slot.TOP
    assert set(np.unique(canvas.index)) == {0, lit, lit + 1}
    assert canvas.index[64, 50] == lit
    assert canvas.index[64, 80] == lit + 1


def test_blending_poses_meets_both_ends():
    a, b = Pose(yaw=1.0, gaze=(0.5, 0.0)), Pose(yaw=-1.0, gaze=(0.0, 0.5))
    assert blend(a, b, 0.0) == a
    assert blend(a, b, 1.0) == b
    assert blend(a, b, 0.5).yaw == 0.0


def test_every_palette_slot_fits_its_share_of_the_index():
    assert max(Slot) < SLOTS_PER_CHARACTER
    assert FIRST_INDEX + 3 * 2 * SLOTS_PER_CHARACTER <= 256


def test_styles_that_are_binary_say_so():
    style = World(line_style="thick").shot(0).style
    assert isinstance(style, Style)
    assert style.binary


def test_renders_fast_enough_for_training():
    # In its own process, without the type checks that the test run adds to every call.
    code = """
import time, cv2
from timecolor.world import World
cv2.setNumThreads(1)
world = World(seed=8, height=256, width=384)
world.shot(0).render(0)
start, frames = time.process_time(), 0
for index in range(1, 9):
    shot = world.shot(index)
    for i in range(shot.frames):
        shot.render(i)
        frames += 1
print(frames / (time.process_time() - start))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 30
