"""The finish: flat regions, shaded regions, palettes and the artist's lines, on drawings made here."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

from timecolor.choice import Offers, judge
from timecolor.finish import (
    Finisher,
    FinishOptions,
    Palette,
    Place,
    Placed,
    Plate,
    Vote,
    finish,
    ink,
    palette_of,
    palettes_of,
    plate_of,
    regions,
)
from timecolor.finish.ink import nearest
from timecolor.finish.offers import commonest
from timecolor.finish.plates import OTHER, SAME, take_detail
from timecolor.propagation import Way
from timecolor.shot import Labels, Reference, Shot
from timecolor.world import World

SHARED = Path(__file__).parents[2] / "shared"
RED, GREEN, BLUE, SKIN = (200, 60, 50), (70, 150, 60), (50, 80, 170), (240, 200, 170)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
NO_LINES = FinishOptions(lines="none")


def paper(h: int, w: int, colour: tuple[int, int, int] = WHITE) -> np.ndarray:
    return np.full((h, w, 3), colour, np.uint8)


def box(
    image: np.ndarray, top: int, left: int, bottom: int, right: int, colour: tuple[int, int, int], width: int = -1
) -> np.ndarray:
    return cv2.rectangle(image, (left, top), (right, bottom), colour, width)


def cells(image: np.ndarray, size: int, noise: float = 0.0) -> np.ndarray:
    """What a model would give: the image in cells of `size` pixels, float32 in [0, 1]."""
    h, w = image.shape[:2]
    small = cv2.resize(image.astype(np.float32) / 255, (w // size, h // size), interpolation=cv2.INTER_AREA)
    return np.clip(small + np.random.default_rng(0).normal(0, noise, small.shape), 0, 1).astype(np.float32)


def drawing(line: tuple[int, int, int] = BLACK, width: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A sketch of a box with a small box inside, and its fills; (240, 320, 3) both."""
    fills = box(box(paper(240, 320), 40, 60, 200, 260, GREEN), 100, 120, 140, 180, RED)
    sketch = box(box(paper(240, 320), 40, 60, 200, 260, line, width), 100, 120, 140, 180, line, width)
    return sketch, fills


def share_right(found: np.ndarray, wanted: np.ndarray) -> float:
    return float((found == wanted).all(axis=-1).mean())


# Regions


@pytest.mark.parametrize("size", [(240, 320), (241, 319), (37, 53), (5, 300), (1, 7), (1, 1)])
def test_regions_cover_every_pixel_with_consecutive_numbers(size):
    sketch = np.random.default_rng(1).choice(np.array([0, 255], np.uint8), (*size, 1), p=[0.2, 0.8]).repeat(3, axis=2)
    found = regions(sketch)
    assert found.shape == size
    assert found.dtype == np.int32
    assert set(np.unique(found)) == set(range(found.max() + 1))


@pytest.mark.parametrize("at", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_at_4k_areas_keep_to_their_side_of_thin_lines_as_well(at, width):
    """There, areas are grown on blocks of pixels; what lies beside a line is told pixel by pixel."""
    y, x = 701 + at[0], 901 + at[1]
    sketch = np.full((1923, 2561, 3), 255, np.uint8)
    sketch[y : y + width] = sketch[:, x : x + width] = 0
    found = regions(sketch)
    quarters = [found[:y, :x], found[:y, x + width :], found[y + width :, :x], found[y + width :, x + width :]]
    assert [len(np.unique(quarter)) for quarter in quarters] == [1] * 4
    assert len({int(quarter[0, 0]) for quarter in quarters}) == 4


def test_closed_lines_make_three_regions():
    found = regions(drawing()[0])
    assert found.max() == 2
    assert len({found[0, 0], found[60, 80], found[120, 150]}) == 3


@pytest.mark.parametrize("light", [215, 190])
def test_light_lines_of_a_place_part_it_beside_black_ones(light):
    """A figure in black before bars in grey, as layers are drawn."""
    sketch = np.full((160, 240, 3), 255, np.uint8)
    for x in range(20, 120, 20):
        cv2.rectangle(sketch, (x, 30), (x + 10, 130), (light,) * 3, 2, cv2.LINE_AA)
    cv2.circle(sketch, (180, 80), 40, (0, 0, 0), 3, cv2.LINE_AA)
    found = regions(sketch)
    assert found.max() + 1 == 7
    assert len({int(found[80, x + 5]) for x in range(20, 120, 20)}) == 5


def test_a_light_pixel_far_off_changes_no_thin_lines():
    sketch = paper(160, 240)
    for x in range(20, 60, 6):
        cv2.line(sketch, (x, 20), (x, 80), BLACK, 1)
    cv2.line(sketch, (20, 20), (56, 20), BLACK, 1)
    cv2.line(sketch, (20, 80), (56, 80), BLACK, 1)
    before = regions(sketch)
    assert before.max() == 6
    sketch[150, 230] = 200
    assert np.array_equal(regions(sketch), before)


def test_a_grey_tone_and_grain_part_nothing():
    sketch = np.full((160, 240, 3), 255, np.uint8)
    cv2.circle(sketch, (180, 80), 40, (0, 0, 0), 3)
    sketch[40:120, 20:100] = 215  # a tone, no line
    grain = np.random.default_rng(0).normal(0, 6, (160, 240, 1))
    assert regions(np.clip(sketch + grain, 0, 255).astype(np.uint8)).max() + 1 == 2


@pytest.mark.parametrize(("width", "gap"), [(1, 2), (2, 3), (3, 3)])
def test_gap_in_a_line_does_not_join_regions(width, gap):
    sketch, _ = drawing(width=width)
    sketch[36:44, 150 : 150 + gap] = 255
    found = regions(sketch)
    assert found[0, 0] != found[60, 80]
    assert (found[45:60, 65:255] == found[60, 80]).all()


def test_gap_that_stays_closed_grows_with_the_picture():
    sketch = box(paper(1080, 1440), 200, 300, 900, 1200, BLACK, 4)
    sketch[195:206, 700:706] = 255
    found = regions(sketch)
    assert found[0, 0] != found[500, 600]


def test_open_stroke_parts_nothing():
    sketch, _ = drawing()
    cv2.line(sketch, (80, 80), (80, 160), BLACK, 2)
    assert regions(sketch).max() == 2


def test_narrow_region_survives_and_specks_do_not():
    sketch = paper(240, 320)
    box(sketch, 100, 100, 105, 106, BLACK, 1)
    speckled = sketch.copy()
    speckled[np.random.default_rng(0).random((240, 320)) < 0.02] = 0
    assert regions(sketch).max() == 1
    assert regions(sketch)[103, 103] != regions(sketch)[0, 0]
    assert regions(speckled).max() < 60


def test_sharp_corner_belongs_to_its_own_region():
    sketch = paper(240, 320)
    cv2.polylines(sketch, [np.array([[20, 120], [300, 105], [300, 135]])], True, BLACK, 1, cv2.LINE_AA)
    found = regions(sketch)
    assert (found[120, 60:295] == found[120, 250]).all()
    assert (found[125:, :60] == found[0, 0]).all()


@pytest.mark.parametrize("share", [0.0, 0.002, 0.1, 0.9, 1.0])
def test_every_pixel_takes_a_label_as_near_as_any_and_labels_stay(share):
    rng = np.random.default_rng(1)
    labels = np.where(rng.random((40, 61)) < share, rng.integers(1, 9, (40, 61)), 0).astype(np.int32)
    found = nearest(labels)
    assert np.array_equal(found[labels > 0], labels[labels > 0])
    if not labels.any():
        assert not found.any()
        return
    at = np.argwhere(labels)
    yx = np.argwhere(np.ones(labels.shape, bool))
    away = np.linalg.norm(yx[:, None] - at[None], axis=2)
    taken = np.where(labels[tuple(at.T)] == found.reshape(-1, 1), away, np.inf).min(axis=1)
    # OpenCV's distances are sums of steps of a 5 by 5 mask, which are off by 2 % at most.
    assert (taken <= away.min(axis=1) * 1.025 + 1e-6).all()


def test_a_label_does_not_grow_across_a_line():
    free = np.ones((1, 21), bool)
    free[0, 5] = False
    labels = np.zeros((1, 21), np.int32)
    labels[0, [0, 1, 6, 20]] = 1, 2, 3, 4
    grown = ink._grow(labels, free, 0.0)
    # The fifth pixel is nearer to 3, which lies beyond the line, so it stays open; so does the line.
    assert grown[0, :7].tolist() == [1, 2, 2, 2, 0, 0, 3]
    assert (grown[0, 7:] > 2).all()


# Lines


@pytest.mark.parametrize("line", [BLACK, (220, 30, 30), (40, 60, 230)])
@pytest.mark.parametrize("fill", ["flat", "smooth", "auto"])
def test_lines_are_the_sketch_itself_and_bare_paper_the_fill(line, fill):
    sketch, fills = drawing(line)
    found = finish(cells(fills, 8), sketch, FinishOptions(fill=fill))
    inked = (sketch == line).all(axis=2)
    assert (found[inked] == sketch[inked]).all()
    assert np.abs(found[~inked].astype(int) - finish(cells(fills, 8), sketch, FinishOptions("none", fill))[~inked]).max() == 0


def test_grey_side_of_a_line_is_a_blend():
    sketch, fills = drawing()
    sketch[60:180, 62] = 128
    found = finish(cells(fills, 8), sketch)
    assert np.abs(found[100, 62] - np.array(GREEN) * 128 / 255).max() < 8


def test_pencil_and_cream_paper_keep_their_own_look():
    sketch, fills = drawing((90, 85, 80))
    sketch = np.minimum(sketch, np.array([250, 244, 230], np.uint8))
    found = finish(cells(fills, 8), sketch, palette=Palette(np.array([GREEN, RED, WHITE], np.uint8)))
    inked = (sketch == (90, 85, 80)).all(axis=2)
    assert (found[inked] == sketch[inked]).all()
    assert found[60, 80].tolist() == list(GREEN)
    assert found[5, 5].tolist() == list(WHITE)


def test_no_lines_leaves_no_trace_of_them():
    sketch, fills = drawing()
    found = finish(cells(fills, 8), sketch, FinishOptions("none", "flat"), Palette(np.array([WHITE, RED, GREEN], np.uint8)))
    assert {tuple(c) for c in np.unique(found.reshape(-1, 3), axis=0).tolist()} == {WHITE, RED, GREEN}


def test_model_lines_are_the_models_picture_resized():
    colours = np.full((30, 40, 3), 0.5, np.float32)
    assert (finish(colours, drawing()[0], FinishOptions("model")) == 128).all()


# Fills


@pytest.mark.parametrize("size", [5, 8, 16])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_flat_regions_are_one_exact_colour(size, noise):
    sketch, fills = drawing()
    palette = Palette(np.array([RED, GREEN, SKIN, WHITE], np.uint8))
    found = finish(cells(fills, size, noise), sketch, NO_LINES, palette)
    assert share_right(found, fills) > 0.97
    for area in range(3):
        assert len(np.unique(found[regions(sketch) == area], axis=0)) == 1


@pytest.mark.parametrize("noise", [0.03, 0.08])
def test_noise_around_one_colour_is_flat_without_a_palette(noise):
    sketch, fills = drawing()
    found = finish(cells(fills, 8, noise), sketch, NO_LINES)
    for area in range(3):
        assert len(np.unique(found[regions(sketch) == area], axis=0)) == 1
    assert np.abs(found[60, 80].astype(int) - GREEN).max() < 12


def test_region_smaller_than_a_cell_gets_its_own_colour():
    fills = box(paper(240, 320, SKIN), 100, 100, 112, 112, BLUE)
    sketch = box(paper(240, 320), 100, 100, 112, 112, BLACK, 1)
    found = finish(cells(fills, 16), sketch, NO_LINES, Palette(np.array([SKIN, BLUE], np.uint8)))
    assert found[106, 106].tolist() == list(BLUE)
    assert found[130, 130].tolist() == list(SKIN)


def test_gradient_stays_smooth_and_does_not_cross_a_line():
    ramp = np.linspace(60, 240, 320)[None, :, None].repeat(240, axis=0)
    fills = np.concatenate([ramp, ramp * 0.5 + 60, np.full_like(ramp, 220)], axis=2).astype(np.uint8)
    box(fills, 80, 100, 180, 220, RED)
    sketch = box(paper(240, 320), 80, 100, 180, 220, BLACK, 2)
    found = finish(cells(fills, 8), sketch, NO_LINES, Palette(np.array([RED], np.uint8)))
    outside = regions(sketch) == regions(sketch)[0, 0]
    assert np.abs(found[outside].astype(int) - fills[outside]).mean() < 4
    assert np.abs(np.diff(found[20].astype(int), axis=0)).max() <= 3
    assert (found[90:170, 110:210] == RED).all()
    assert np.abs(found[120, 90].astype(int) - fills[120, 90]).max() < 12
    assert len(np.unique(finish(cells(fills, 8), sketch, FinishOptions("none", "flat"))[outside], axis=0)) == 1


def test_two_tones_without_a_line_between_stay_two_tones():
    fills = paper(240, 320, SKIN)
    fills[:, 160:] = (150, 110, 100)
    sketch = box(paper(240, 320), 2, 2, 237, 317, BLACK, 2)
    found = finish(cells(fills, 8), sketch, NO_LINES)
    assert np.abs(found[120, 60].astype(int) - SKIN).max() < 10
    assert np.abs(found[120, 260].astype(int) - (150, 110, 100)).max() < 10


def test_a_place_is_not_flat_because_a_small_patch_is_rough():
    place = np.linspace(60, 240, 320)[None, :, None].repeat(240, axis=0).repeat(3, axis=2).astype(np.uint8)
    sketch = box(paper(240, 320), 100, 120, 150, 170, BLACK, 2)
    seen = cells(place, 8)
    chequered = np.indices((5, 5)).sum(axis=0)[..., None] % 2  # what the model is unsure of
    seen[13:18, 16:21] = chequered
    found = finish(seen, sketch, NO_LINES)
    outside = regions(sketch) == regions(sketch)[0, 0]
    assert np.abs(found[outside].astype(int) - place[outside]).mean() < 4


def test_white_ground_stays_white_beside_noise():
    sketch, fills = drawing()
    found = finish(cells(fills, 8, 0.02), sketch, palette=Palette(np.array([RED, GREEN], np.uint8)))
    assert (found[:30] == 255).all()


# Palettes


def test_snap_takes_the_exact_near_colour_and_leaves_a_far_one():
    sketch, fills = drawing()
    near, far = (205, 66, 47), (120, 120, 220)
    found = finish(cells(fills, 8), sketch, FinishOptions("none", "flat"), Palette(np.array([near, far], np.uint8)))
    free = finish(cells(fills, 8), sketch, FinishOptions("none", "flat", "free"), Palette(np.array([near, far], np.uint8)))
    assert found[120, 150].tolist() == list(near)
    assert (found[60, 80] == free[60, 80]).all()
    assert np.abs(free[60, 80].astype(int) - GREEN).max() <= 3
    assert np.abs(free[120, 150].astype(int) - RED).max() <= 6


def test_region_snaps_only_to_the_palette_of_its_label():
    sketch, fills = drawing()
    labels = np.zeros((240, 320), np.uint8)
    labels[100:141, 120:181] = 2
    a, b = (206, 64, 54), (196, 56, 46)
    palettes = {1: Palette(np.array([b], np.uint8)), 2: Palette(np.array([a], np.uint8))}
    common = Palette(np.array([b, GREEN], np.uint8))
    found = finish(cells(fills, 8), sketch, NO_LINES, common, labels, palettes)
    assert found[120, 150].tolist() == list(a)
    assert found[60, 80].tolist() == list(GREEN)
    swapped = finish(cells(fills, 8), sketch, NO_LINES, common, np.where(labels == 2, 1, 0), palettes)
    assert swapped[120, 150].tolist() == list(b)


def test_palettes_follow_the_labels_binding():
    references = [Reference(paper(60, 60, colour)) for colour in (RED, GREEN, BLUE)]
    labels = Labels(np.zeros((1, 4, 4), np.uint8), {1: (0, 2)})
    found = palettes_of(references, labels, [0, 1, 7])
    assert set(found) == {0, 1}
    assert found[0].colours.tolist() == [list(RED)]
    assert sorted(found[1].colours.tolist()) == sorted([list(RED), list(BLUE)])


def test_palette_is_the_flat_colours_without_lines_and_matte():
    image = box(box(paper(200, 200, BLACK), 40, 40, 160, 160, GREEN), 80, 80, 120, 120, RED)
    box(image, 40, 40, 160, 160, (30, 20, 10), 2)
    assert palette_of([Reference(image)]).colours.tolist() == [list(GREEN), list(RED)]
    alpha = (image.any(axis=2) * 255).astype(np.uint8)
    assert palette_of([Reference(image, alpha)]).colours.tolist() == [list(GREEN), list(RED)]


def test_palette_survives_compression_and_a_painting_has_none():
    _, fills = drawing()
    noise = np.random.default_rng(0).normal(0, 0.7, fills.shape)
    found = palette_of([Reference(np.clip(np.round(fills + noise), 0, 255).astype(np.uint8))]).colours
    assert len(found) == 3
    assert all(np.abs(found.astype(int) - colour).max(axis=1).min() <= 2 for colour in (WHITE, GREEN, RED))
    ramp = np.linspace(40, 220, 240)[:, None, None].repeat(320, axis=1) * np.array([0.6, 0.8, 1.0])
    assert palette_of([Reference(ramp.astype(np.uint8))]).colours.shape == (0, 3)
    assert palette_of([]).colours.shape == (0, 3)


def test_references_that_are_flat_all_over_make_small_closed_regions_flat():
    small = (100, 120, 140, 180)
    sketch, fills = box(paper(240, 320), *small, BLACK, 2), box(paper(240, 320), *small, GREEN)
    flat = palette_of([Reference(fills)])
    assert flat.complete
    doubtful = cells(fills, 8)
    doubtful[15:17] = 0.85 * doubtful[15:17] + 0.15  # the model pales towards the end
    found, spread = (finish(doubtful, sketch, NO_LINES, palette) for palette in (flat, Palette(flat.colours)))
    inside = np.s_[104:137, 124:177]
    assert len(np.unique(found[inside].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(spread[inside].reshape(-1, 3), axis=0)) > 4


def test_what_nobody_drew_is_no_flat_region():
    fills = box(paper(240, 320), 0, 0, 240, 160, RED)
    fills = box(fills, 60, 200, 120, 280, BLUE)
    flat = palette_of([Reference(fills)])
    assert flat.complete
    found = finish(cells(fills, 8), paper(240, 320), NO_LINES, flat)
    assert np.abs(found[120, 40].astype(int) - RED).max() < 12
    assert np.abs(found[90, 240].astype(int) - BLUE).max() < 12


def test_a_reference_with_a_gradient_is_not_flat_all_over():
    _, fills = drawing()
    shaded = fills.astype(float)
    shaded[120:] -= np.linspace(0, 60, 120)[:, None, None]
    assert not palette_of([Reference(np.clip(shaded, 0, 255).astype(np.uint8))]).complete
    assert not palette_of([]).complete


# Odd input


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (3, 5), (97, 131)])
@pytest.mark.parametrize("tone", [0, 128, 255])
def test_blank_and_black_and_tiny_sketches_work(size, tone):
    colours = np.full((12, 20, 3), np.array(SKIN) / 255, np.float32)
    for lines, fill in product(("keep", "none", "model"), ("flat", "smooth", "auto")):
        found = finish(
            colours, np.full((*size, 3), tone, np.uint8), FinishOptions(lines, fill), Palette(np.array([SKIN], np.uint8))
        )
        assert found.shape == (*size, 3)
        assert found.dtype == np.uint8
        black = tone == 0 and lines == "keep"
        assert (found == 0).all() if black else tone == 128 or (found == SKIN).all()


def test_cells_at_native_size_work():
    sketch, fills = drawing()
    found = finish(fills.astype(np.float32) / 255, sketch, NO_LINES, palette_of([Reference(fills)]))
    assert share_right(found, fills) > 0.98


def test_same_input_same_output_and_input_untouched():
    sketch, fills = drawing()
    colours, before = cells(fills, 8, 0.05), sketch.copy()
    kept = colours.copy()
    first = finish(colours, sketch)
    assert (first == finish(colours, sketch)).all()
    assert (sketch == before).all()
    assert (colours == kept).all()


# A real drawing


@pytest.mark.skipif(not (SHARED / "real/flats_1").is_dir(), reason="../shared/real/flats_1 is not here")
def test_real_flats_come_back_from_coarse_cells():
    folder = SHARED / "real/flats_1"
    sketch, colour = (
        cv2.cvtColor(cv2.imread(str(folder / part / "003.png")), cv2.COLOR_BGR2RGB) for part in ("sketch", "colour")
    )
    first = cv2.cvtColor(cv2.imread(str(folder / "colour/000.png")), cv2.COLOR_BGR2RGB)
    line = cv2.dilate((sketch.min(axis=2) < 250).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    # Colours as if under the lines: each line pixel takes the nearest fill's.
    _, index = cv2.distanceTransformWithLabels(line.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    lookup = np.zeros((int(index.max()) + 1, 3), np.uint8)
    lookup[index[~line]] = colour[~line]
    found = finish(cells(lookup[index], 12), sketch, NO_LINES, palette_of([Reference(first)]))
    painted = ~line & (colour.min(axis=2) < 250)
    assert share_right(found[painted], colour[painted]) > 0.97


def test_a_plate_gives_its_detail_where_the_model_agrees_and_nowhere_else():
    rng = np.random.default_rng(0)
    picture = np.clip(rng.normal(120, 6, (64, 96, 3)), 0, 255).astype(np.uint8)
    picture[:, 48:] = (20, 200, 40)
    fills, colours = np.full((64, 96, 3), 110, np.uint8), np.full((8, 12, 3), 120 / 255)
    everywhere = np.ones((64, 96), bool)
    take_detail(fills, colours, [Plate(picture)], everywhere, None)
    assert np.array_equal(fills[:, :24], picture[:, :24])
    assert (fills[:, 60:] == 110).all()


def test_what_is_known_to_be_seen_is_the_picture_itself_but_its_lines_near_drawn_ones_and_with_flat_fills():
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    sketch, colours, at = paper(64, 96), np.full((16, 24, 3), 151 / 255), np.zeros((64, 96), bool)
    sketch[30:32] = BLACK
    at[:, :48] = True
    lined = np.tile(np.arange(96) < 24, (64, 1))
    plain, known, flat = (
        finish(colours, sketch, replace(FinishOptions(), fill=fill), placed=placed)
        for fill, placed in (("auto", ()), ("auto", [Placed(noise, at, lined)]), ("flat", [Placed(noise, at, lined)]))
    )
    assert np.array_equal(known[:29, :48], noise[:29, :48])
    assert not known[30:32].any()
    assert np.array_equal(known[:, 48:], plain[:, 48:])
    assert np.array_equal(flat, plain)
    larger, far, large, its = (np.repeat(np.repeat(x, 8, axis=0), 8, axis=1) for x in (sketch, at, noise, lined))
    made = finish(colours, larger, placed=[Placed(large, far, its)])
    assert np.array_equal(made[:236, :384], large[:236, :384])
    assert (made[237:240, :192] == made[238, 500]).all()  # "near" grows with the picture
    assert np.array_equal(made[237:240, 192:384], large[237:240, 192:384])


def test_a_flat_region_in_a_pictures_place_has_its_colour_up_to_the_line():
    sketch, colours, red = paper(480, 640), np.full((120, 160, 3), 0.5), paper(480, 640, RED)
    box(sketch, 100, 100, 220, 260, BLACK, 2)
    at = np.zeros((480, 640), bool)
    at[90:230, 90:270] = True
    made, bare = (
        finish(
            colours,
            sketch,
            NO_LINES,
            placed=[Placed(red, place, np.ones_like(place))],
            palette=Palette(np.array([[128] * 3, RED], np.uint8)),
        )
        for place in (at, np.zeros_like(at))
    )
    inside = np.s_[103:218, 103:258]
    assert (bare[inside] != RED).any(axis=2).all()
    assert (made[inside] == RED).all()
    assert (made[300:, 300:] != RED).any(axis=2).all()


def test_a_finisher_sets_a_plate_as_the_camera_sees_it():
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    finisher = Finisher.of(Shot(paper(64, 96)[None], [Reference(image, role="background")]))
    pan, at = np.zeros((32, 48, 2), np.float32), np.zeros((64, 96), bool)
    pan[..., 0] = 2  # at half the size: 4 pixels
    at[8:56, 8:80] = True
    made = finisher(np.full((16, 24, 3), 0.5), paper(64, 96), places=[Place(at, pan)])
    assert np.array_equal(made[8:56, 8:80], image[8:56, 12:84])


def test_a_background_plate_keeps_its_own_lines_from_drawn_ones_where_the_camera_sees_them():
    """A black line in a green plate, panned by 10 pixels, crosses a drawn one: not doubled, while the paint goes up to it."""
    image, sketch = paper(480, 640, (60, 160, 80)), paper(480, 640)
    image[:, 300:303], sketch[200:203] = BLACK, BLACK
    finisher = Finisher.of(Shot(sketch[None], [Reference(image, role="background")]))
    assert finisher.plates[0].lined is not None
    assert finisher.plates[0].lined[:, 300:303].all()
    assert finisher.plates[0].lined.mean() < 0.02
    pan, at = np.zeros((480, 640, 2), np.float32), np.ones((480, 640), bool)
    pan[..., 0] = 10
    made = finisher(np.full((60, 80, 3), 0.5), sketch, places=[Place(at, pan)])
    assert (made[205, 100:200] == (60, 160, 80)).all()
    assert (made[100, 290:293] == 0).all()
    assert (made[205, 290:293] > 0).all()


def test_the_same_lines_of_a_plate_are_found_at_any_size():
    """Of a drawn room, whose soft lines a search at 4K's own size would miss a third of."""
    image = World(seed=3, height=240, width=360).shot(0).plate(0)
    image = cv2.resize(image, (720, 480), interpolation=cv2.INTER_CUBIC)
    large = cv2.resize(image, (2880, 1920), interpolation=cv2.INTER_CUBIC)
    few, many = (plate_of(Reference(x, role="background"), *x.shape[:2]).lined.astype(np.uint8) for x in (image, large))
    few = cv2.resize(few, (2880, 1920), interpolation=cv2.INTER_NEAREST)
    assert few.mean() > 0.01
    assert (few & many).sum() > 0.9 * (few | many).sum()


def test_of_several_plates_the_one_that_agrees_is_taken():
    rng = np.random.default_rng(0)
    dark, light = (np.clip(rng.normal(level, 6, (64, 96, 3)), 0, 255).astype(np.uint8) for level in (90, 160))
    colours = np.full((8, 12, 3), 90 / 255)
    colours[:, 6:] = 160 / 255
    fills = np.full((64, 96, 3), 120, np.uint8)
    plates = [Plate(dark), Plate(light)]
    take_detail(fills, colours, plates, np.ones((64, 96), bool), None)
    assert np.array_equal(fills[:, :28], dark[:, :28])
    assert np.array_equal(fills[:, 68:], light[:, 68:])


def test_a_plate_is_carried_along_a_flow_of_any_size():
    rng = np.random.default_rng(0)
    place = cv2.resize(
        np.clip(rng.normal(120, 40, (16, 24, 3)), 0, 255).astype(np.uint8), (96, 64), interpolation=cv2.INTER_CUBIC
    )
    moved = np.roll(place, 8, axis=1)
    sketch = np.full((1, 64, 96, 3), 255, np.uint8)
    finisher = Finisher.of(Shot(sketch, [Reference(place, role="background")]))
    flow = np.zeros((32, 48, 2), np.float32)
    flow[..., 0] = -4  # at half the size: 8 pixels to the left in the plate
    colours = cv2.resize(moved, (24, 16), interpolation=cv2.INTER_AREA) / 255
    ways = [Way(None, np.zeros((32, 48), np.float32)), Way(flow, np.zeros((32, 48), np.float32))]
    still, carried = (finisher(colours, sketch[0], ways=[some])[8:-8, 16:-8].astype(int) for some in (ways[:1], ways))
    truth = moved[8:-8, 16:-8].astype(int)
    assert np.abs(carried - truth).mean() < 0.5 * np.abs(still - truth).mean()


def test_where_plates_meet_their_shares_sum_to_one():
    """The fills and what each plate adds to them, in float and in any order."""
    rng = np.random.default_rng(0)
    fills = np.full((64, 96, 3), 120, np.uint8)
    # Near the model's colours in cells of 8, some within what agrees, some in between, some beyond.
    pictures = [
        np.kron(120 + rng.integers(0, 24, (8, 12, 1)), np.ones((8, 8, 3))).astype(np.uint8)
        + np.uint8(40 * i) * (rng.random((64, 96, 1)) < 0.02)
        for i in range(3)
    ]
    cells = np.full((16, 24, 3), 120 / 255, np.float32)
    shares, best = [], []
    ours = cells * 255
    for picture in pictures:
        small = cv2.resize(picture, (24, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
        best.append(np.abs(ours - cv2.GaussianBlur(small, (0, 0), 0.7)).max(axis=2))
    nearest = np.argmin(best, axis=0)
    expected = fills.astype(np.float64)
    for i, (away, picture) in enumerate(zip(best, pictures, strict=True)):
        agree = np.clip((OTHER - away) / (OTHER - SAME), 0, 1) * (nearest == i)
        shares.append(cv2.resize(agree, (96, 64), interpolation=cv2.INTER_LINEAR))
        expected += shares[-1][..., None] * (picture.astype(np.float64) - fills)
    found = fills.copy()
    take_detail(found, cells, [Plate(p) for p in pictures], np.ones((64, 96), bool), None)
    assert min(share.max() for share in shares) == 1
    assert (sum(share > 0.1 for share in shares) > 1).any()
    assert np.abs(found - expected).max() <= 1.6  # each of three plates is rounded


def test_a_frame_gives_its_detail_without_its_lines():
    image = np.full((120, 180, 3), 200, np.uint8)
    image[:, 90:92] = 0
    frame = plate_of(Reference(image, role="frame"), 120, 180)
    assert frame is not None
    assert (frame.picture == 200).all()


def test_only_a_whole_picture_of_the_frames_shape_is_a_plate():
    image, alpha = np.full((40, 60, 3), 90, np.uint8), np.full((40, 60), 255, np.uint8)
    assert plate_of(Reference(image, alpha), 40, 60) is None
    assert plate_of(Reference(image), 60, 60) is None
    assert plate_of(Reference(image), 80, 120) is not None
    assert plate_of(Reference(image, role="sheet"), 80, 120) is None
    cut_out = np.zeros((40, 60, 3), np.uint8)
    cut_out[10:30, 20:40] = 90
    assert plate_of(Reference(cut_out), 80, 120) is None
    assert plate_of(Reference(cut_out, role="frame"), 80, 120) is not None


def test_a_finisher_knows_what_finish_is_told():
    rng = np.random.default_rng(0)
    sketch, place = np.full((1, 48, 64, 3), 255, np.uint8), rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
    sketch[:, :, 30] = 0
    areas = np.zeros((1, 48, 64), np.uint8)
    areas[:, :, 31:] = 1
    references = [Reference(place, role="background"), Reference(np.full((20, 20, 3), (200, 30, 30), np.uint8), role="character")]
    colours = rng.random((12, 16, 3))
    for labels in (None, Labels(areas)):
        shot = Shot(sketch, references, labels)
        area = None if labels is None else areas[0]
        got = Finisher.of(shot, {0, 1})(colours, sketch[0], area)
        palette = palette_of(references) if labels is None else None
        palettes = None if labels is None else palettes_of(references, labels, {0, 1})
        plate = plate_of(references[0], 48, 64, None if labels is None else frozenset({0}))
        expected = finish(colours, sketch[0], palette=palette, labels=area, palettes=palettes, plates=[plate])
        assert np.array_equal(got, expected)


def last(offers: Offers) -> np.ndarray:
    """The last offer that there is, whatever it is worth."""
    k = offers.there.shape[1]
    return k - 1 - offers.there[:, ::-1].argmax(axis=1)


def voted(red: float) -> np.ndarray:
    """A small and a large circle where the model sees grey everywhere, and all places around say red to this degree."""
    sketch = np.full((120, 160, 3), 255, np.uint8)
    for centre, radius in (((40, 60), 6), ((100, 60), 36)):
        cv2.circle(sketch, centre, radius, (0, 0, 0), 1)
    at = np.zeros((60, 80), bool)
    at[10:50, 10:75] = True
    shades = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], np.float32)
    shares = np.tile(np.array([[red, 0.0]], np.float32), (at.sum(), 1))
    vote = Vote(at, shares, shades, np.eye(2, dtype=np.float32))
    grey = np.full((30, 40, 3), 0.5, np.float32)
    return finish(grey, sketch, NO_LINES, votes=[vote], choose=last)


def test_a_small_region_takes_what_its_places_say_together():
    made = voted(1.0)
    assert np.abs(made[60, 40].astype(int) - (204, 26, 26)).max() <= 2
    assert np.abs(made[60, 100].astype(int) - 128).max() <= 2
    assert np.abs(made[5, 5].astype(int) - 128).max() <= 2


def test_a_vote_that_knows_little_changes_nothing_and_half_a_vote_half():
    assert np.array_equal(voted(0.2), voted(0.0))
    half = voted(0.5)[60, 40].astype(int)
    assert np.abs(half - (166, 77, 77)).max() <= 3


def circled(colour, ground) -> np.ndarray:
    """A small circle of a colour on a ground."""
    return cv2.circle(np.full((120, 160, 3), ground, np.uint8), (40, 60), 6, colour, -1)


def offered(plates, labels=None, own=128, choose=last) -> tuple[np.ndarray, Offers]:
    """A small circle that the model does not see, finished, and what it was offered."""
    sketch = cv2.circle(np.full((120, 160, 3), 255, np.uint8), (40, 60), 6, (0, 0, 0), 1)
    seen: list[Offers] = []

    def kept(offers: Offers) -> np.ndarray:
        seen.append(offers)
        return choose(offers)

    grey = np.full((30, 40, 3), own / 255, np.float32)
    made = finish(grey, sketch, replace(NO_LINES, fill="flat"), labels=labels, plates=plates, choose=kept)
    assert np.abs(made[20, 100].astype(int) - own).max() <= 2  # the place itself is large, and the model's
    return made, seen[0]


def test_a_small_region_is_offered_what_most_of_it_has_in_a_plate_and_how_the_plate_stands_around_it():
    red = np.array((204, 26, 26), np.uint8)
    misfit = np.zeros((60, 80), np.float32)
    misfit[:, :40] = 0.75
    made, offers = offered([Plate(circled(red.tolist(), 138), way=3, misfit=misfit)])
    assert np.abs(made[60, 40].astype(int) - red).max() <= 1
    assert offers.there.tolist() == [[True, False, True]]
    assert offers.source.tolist() == [0, 1, 3]
    assert offers.size[0] == pytest.approx(np.pi * 5.5**2 / (120 * 160), rel=0.2)
    np.testing.assert_allclose(offers.colours[0, 0], 128 / 255, atol=0.01)
    assert offers.apart[0, 2] > offers.around[0, 2] > 10
    assert offers.misfit[0, 2] == pytest.approx(0.75, abs=0.01)
    assert offers.most[0, 2] == 1
    assert not offers.named.any()
    kept, _ = offered([Plate(circled(red.tolist(), 138))], choose=lambda offers: np.zeros(1, int))
    assert np.abs(kept[60, 40].astype(int) - 128).max() <= 2


def test_a_plate_offers_where_labels_name_it_and_nowhere_else():
    labels = np.ones((120, 160), np.uint8)
    plate = circled((204, 26, 26), 200)
    made, offers = offered([Plate(plate, frozenset({2}))], labels)
    assert np.abs(made[60, 40].astype(int) - 128).max() <= 2
    assert not offers.there[0, 2]
    assert not offers.named.any()
    made, offers = offered([Plate(plate, frozenset({1}))], labels)
    assert np.abs(made[60, 40].astype(int) - (204, 26, 26)).max() <= 1
    assert offers.named.tolist() == [[False, False, True]]


@pytest.mark.parametrize(("around", "misfit", "taken"), [(4, 0.0, True), (90, 0.7, False)])
def test_the_embedded_judge_believes_a_plate_whose_colours_and_lines_fit_around(around, misfit, taken):
    plate = Plate(circled((204, 26, 26), 128 + around), misfit=np.full((30, 40), misfit))
    made, _ = offered([plate], choose=judge())
    assert np.abs(made[60, 40].astype(int) - ((204, 26, 26) if taken else (128, 128, 128))).max() <= 4


def test_the_commonest_colour_of_each_group():
    colours = np.array([[200, 10, 10], [202, 10, 10], [10, 200, 10], [7, 7, 7], [90, 90, 90], [91, 91, 91]], np.uint8)
    found, share = commonest(colours, np.array([0, 0, 0, 2, 2, 2]), 4)
    np.testing.assert_allclose(found * 255, [[201, 10, 10], [0, 0, 0], [90.5, 90.5, 90.5], [0, 0, 0]])
    np.testing.assert_allclose(share, [2 / 3, 0, 2 / 3, 0])
    rng = np.random.default_rng(0)
    many = np.sort(rng.integers(0, 2500, 20_000))
    one = rng.integers(0, 255, (2500, 3)).astype(np.uint8)
    found, share = commonest(one[many], many, 2500)
    there = np.bincount(many, minlength=2500) > 0
    np.testing.assert_allclose(found[there] * 255, one[there], atol=1e-9)
    assert (share[there] == 1).all()


def test_a_region_that_is_patterned_in_a_plate_takes_its_detail_unless_references_are_flat_all_over():
    sketch = np.full((120, 160, 3), 255, np.uint8)
    cv2.rectangle(sketch, (40, 40), (69, 69), (0, 0, 0), 1)
    striped = np.full((120, 160, 3), 128, np.uint8)
    for row in range(0, 120, 8):
        striped[row : row + 4] = (80, 120, 200)
        striped[row + 4 : row + 6] = (90, 160, 200)
    seen = cv2.resize(striped, (40, 30), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    flat = Palette(np.array([[80, 120, 200]], np.uint8), complete=True)
    made, kept = (
        finish(seen, sketch, NO_LINES, palette=palette, plates=[Plate(striped)], choose=last) for palette in (None, flat)
    )
    inside = np.s_[46:64, 46:64]
    assert np.abs(made[inside].astype(int) - striped[inside]).mean() < 4
    assert (kept[inside] == (80, 120, 200)).all()


def two_tones(sure: float, other: tuple[int, int, int] = (150, 110, 100), **options) -> np.ndarray:
    """A closed box whose right half has another colour, which its places vote for so surely; no line is drawn between."""
    sketch = box(paper(240, 320), 40, 60, 90, 120, BLACK, 2)
    shades = np.array([SKIN, other], np.float32) / 255
    at = np.zeros((120, 160), bool)
    at[18:47, 28:62] = True
    right = np.nonzero(at)[1] >= 45
    shares = np.where(right[:, None], [1 - sure, sure], [1.0, 0.0]).astype(np.float32)
    colours = np.full((120, 160, 3), shades[0])
    vote = Vote(at, shares, shades, np.eye(2, dtype=np.float32))
    return finish(colours, sketch, FinishOptions("none", **options), votes=[vote], choose=judge())


def test_a_part_that_no_line_closes_has_its_own_colour():
    found = two_tones(0.9)
    assert (np.abs(found[46:84, 66:86].astype(int) - SKIN) <= 1).all()
    assert (np.abs(found[46:84, 94:114].astype(int) - (150, 110, 100)) <= 1).all()


def test_where_votes_hardly_differ_a_region_stays_whole_and_flat_is_one_colour():
    for found in (two_tones(0.51), two_tones(0.9, fill="flat")):
        assert len(np.unique(found[46:84, 66:114].reshape(-1, 3), axis=0)) == 1


def test_a_mouth_that_the_model_sees_in_two_colours_keeps_both():
    """A small closed region, which takes one colour as a whole where nothing in it stands apart."""
    sketch = box(paper(240, 320, WHITE), 100, 100, 140, 160, BLACK, 2)
    fills = box(box(paper(240, 320, SKIN), 100, 100, 140, 160, RED), 102, 102, 116, 158, WHITE)
    palette = Palette(np.array([SKIN, RED, WHITE], np.uint8), complete=True)
    found = finish(cells(fills, 2), sketch, NO_LINES, palette)
    assert (found[104:114, 106:154] == WHITE).all()
    assert (found[120:136, 106:154] == RED).all()
    flat = finish(cells(fills, 2), sketch, FinishOptions("none", "flat"))
    assert len(np.unique(flat[104:136, 106:154].reshape(-1, 3), axis=0)) == 1


def test_the_less_alike_the_colours_the_surer_a_part_must_be():
    assert np.abs(two_tones(0.65)[60, 110].astype(int) - SKIN).max() > 50
    assert np.abs(two_tones(0.65, (20, 20, 120))[60, 110].astype(int) - SKIN).max() <= 1


def test_colours_without_votes_are_not_nothing_but_votes():
    """Else they would not be kept where another is as good as the same."""
    sketch = np.full((96, 144, 3), 255, np.uint8)
    cv2.rectangle(sketch, (40, 30), (60, 50), (0, 0, 0), 2)
    picture, seen = np.full_like(sketch, 90), []

    def choose(offers: Offers) -> np.ndarray:
        seen.append(offers)
        return np.zeros(len(offers.regions), int)

    finish(picture / np.float32(255), sketch, FinishOptions(), None, plates=[Plate(picture)], choose=choose)
    assert len(seen[0].regions)
    assert not seen[0].mixed
