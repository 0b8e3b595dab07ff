"""Metrics on closed forms, and against scikit-image."""

from pathlib import Path

import numpy as np
import pytest
from skimage import color, metrics

from timecolor.evaluate import (
    ciede2000,
    contact_sheet,
    copy_baseline,
    delta_e,
    leak_rate,
    painted_mask,
    psnr,
    share_within,
    ssim,
    to_lab,
)
from timecolor.evaluate.metrics import (
    colours_of,
    edmd,
    flat_segments,
    leak_judged,
    segment_accuracy,
    segment_differences,
    temporal_consistency,
)
from timecolor.shot import Reference, Shot
from timecolor.sketch import extract_clip
from timecolor.world import HELD_OUT_SEED, World

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def test_identity_is_perfect(rng):
    clip = noise(rng, 3, 24, 32, 3)
    assert psnr(clip, clip) == float("inf")
    assert ssim(clip, clip) == pytest.approx(1)
    assert not ciede2000(clip, clip).any()
    assert share_within(clip, clip, 0) == 1


def test_psnr_of_a_known_error(rng):
    frame = noise(rng, 20, 30, 3) // 2
    assert psnr(frame, frame + 10) == pytest.approx(20 * np.log10(255 / 10))
    black = np.zeros_like(frame)
    assert psnr(black, black + 255) == 0


def test_psnr_of_a_clip_is_of_its_mean_squared_error():
    truth = np.zeros((2, 8, 8, 3), np.uint8)
    output = truth.copy()
    output[1] = 20  # errors 0 and 400: mean 200, where the mean of the frames' PSNRs would be infinite
    assert psnr(output, truth) == pytest.approx(10 * np.log10(255**2 / 200))


def test_psnr_and_ssim_agree_with_scikit_image(rng):
    a = noise(rng, 40, 60, 3)
    b = np.clip(a + rng.normal(0, 30, a.shape), 0, 255).astype(np.uint8)
    assert psnr(a, b) == pytest.approx(metrics.peak_signal_noise_ratio(a, b))
    theirs = metrics.structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1, data_range=255
    )
    assert ssim(a, b) == pytest.approx(theirs, abs=1e-6)
    assert ssim(np.stack([a, a]), np.stack([a, b])) == pytest.approx((1 + theirs) / 2, abs=1e-6)


def test_ssim_of_two_flats_is_the_luminance_term():
    a, b = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 120, np.uint8)
    c1 = 2.55**2
    assert ssim(a, b) == pytest.approx((2 * 100 * 120 + c1) / (100**2 + 120**2 + c1), abs=1e-9)


def test_ciede2000_agrees_with_scikit_image(rng):
    a, b = noise(rng, 64, 64, 3), noise(rng, 64, 64, 3)
    b[:8] = a[:8] ^ 3
    a[8:16, :, 1:] = a[8:16, :, :1]  # greys
    assert to_lab(a) == pytest.approx(color.rgb2lab(a), abs=2e-2)
    theirs = color.deltaE_ciede2000(color.rgb2lab(a), color.rgb2lab(b))
    ours = ciede2000(a, b)
    assert ours.dtype == np.float32
    assert ours == pytest.approx(theirs, abs=2e-2)
    assert np.array_equal(ours, ciede2000(np.stack([b, a]), np.stack([a, b]))[1])


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 3.1571, -77.2803), (50, 0, -82.7485), 2.8615),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, 2.5, 0), (58, 24, 15), 19.4535),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_delta_e_of_published_pairs(a, b, expected):
    """Sharma, Wu and Dalal 2005, table 1."""
    a, b = np.array(a, np.float64), np.array(b, np.float64)
    assert float(delta_e(a, b)) == pytest.approx(expected, abs=5e-5)
    assert float(delta_e(b, a)) == pytest.approx(expected, abs=5e-5)


def test_share_within_counts_pixels():
    truth = np.full((10, 10, 3), 128, np.uint8)
    output = truth.copy()
    output[:3] = (255, 0, 0)
    assert share_within(output, truth) == pytest.approx(0.7)
    mask = np.zeros((10, 10), bool)
    mask[2:4] = True
    assert share_within(output, truth, mask=mask) == pytest.approx(0.5)
    assert np.isnan(share_within(output, truth, mask=np.zeros((10, 10), bool)))
    difference = ciede2000(output, truth)[0, 0]
    assert share_within(output, truth, within=float(difference)) == 1
    assert share_within(output, truth, within=float(difference) - 0.01) == pytest.approx(0.7)


def studio_frame() -> tuple[np.ndarray, np.ndarray]:
    """Two paints in one outline on paper, colour and sketch; 36 and 60 pixels of paint lie a pixel clear of lines."""
    sketch = np.full((40, 60, 3), 255, np.uint8)
    sketch[10:30, 10:50] = 0
    sketch[12:28, 12:30] = 255
    sketch[12:28, 32:48] = 255
    colour = sketch.copy()
    colour[12:28, 12:30] = (200, 90, 60)
    colour[12:28, 32:48] = (60, 90, 200)
    return colour, sketch


def test_painted_mask_is_neither_paper_nor_line():
    colour, sketch = studio_frame()
    painted = painted_mask(colour, sketch)
    assert painted.sum() == 16 * 18 + 16 * 16
    assert not painted[:10].any()
    assert not painted[20, 30:32].any()
    blind = painted_mask(np.stack([colour, colour]))
    assert blind.shape == (2, 40, 60)
    assert blind[0].sum() == 14 * 16 + 14 * 14  # the rim beside a line is not flat
    assert not (blind[0] & ~painted).any()


PALETTES = {1: np.array([[200, 40, 40], [90, 20, 20]], np.uint8), 2: np.array([[40, 40, 200]], np.uint8)}


def two_regions() -> tuple[np.ndarray, np.ndarray]:
    """Truth and labels, half and half."""
    labels = np.zeros((20, 20), np.int64)
    labels[:, :10], labels[:, 10:] = 1, 2
    truth = np.empty((20, 20, 3), np.uint8)
    truth[:, :10], truth[:, 10:] = PALETTES[1][0], PALETTES[2][0]
    return truth, labels


def test_leak_rate_of_a_known_leak():
    truth, labels = two_regions()
    assert leak_rate(truth, truth, labels, PALETTES) == 0
    output = truth.copy()
    output[:5, :10] = PALETTES[2][0]  # a quarter of label 1, an eighth of all
    assert leak_rate(output, truth, labels, PALETTES) == pytest.approx(1 / 8)
    twice = leak_rate(np.stack([output, truth]), np.stack([truth, truth]), np.stack([labels, labels]), PALETTES)
    assert twice == pytest.approx(1 / 16)


def test_leak_needs_the_margin():
    paints = {1: np.array([[100, 100, 100]], np.uint8), 2: np.array([[130, 130, 130]], np.uint8)}
    labels = np.ones((4, 4), np.int64)
    truth, output = np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 3), 118, np.uint8)  # a little nearer to label 2
    assert leak_rate(output, truth, labels, paints, margin=0) == 1
    assert leak_rate(output, truth, labels, paints, margin=5) == 0


def test_leak_is_judged_only_where_the_truth_is_its_own_palettes():
    truth, labels = two_regions()
    truth[:10, :10] = PALETTES[2][0]  # the references of label 1 do not show this colour, another's do
    judged = leak_judged(truth, labels, PALETTES)
    assert judged.sum() == 300
    assert not judged[:10, :10].any()
    assert leak_rate(truth, truth, labels, PALETTES) == 0
    output = truth.copy()
    output[10:13, :10] = PALETTES[2][0]
    assert leak_rate(output, truth, labels, PALETTES) == pytest.approx(30 / 300)


def test_leak_rate_of_any_truth_is_0_whatever_the_palettes(rng):
    truth, labels = noise(rng, 3, 20, 30, 3), rng.integers(0, 4, (3, 20, 30))
    palettes = {label: noise(rng, 3, 3) for label in range(3)}
    assert leak_rate(truth, truth, labels, palettes, margin=0) == 0
    assert leak_rate(noise(rng, 3, 20, 30, 3), truth, labels, palettes, margin=0) > 0.2


def test_leak_rate_needs_two_palettes():
    truth, labels = two_regions()
    assert np.isnan(leak_rate(truth, truth, labels, {1: PALETTES[1]}))  # nothing to leak from
    assert np.isnan(leak_rate(truth, truth, np.full_like(labels, 7), PALETTES))
    with pytest.raises(ValueError, match="label 3 has an empty palette"):
        leak_rate(truth, truth, labels, {3: np.empty((0, 3), np.uint8)})


def test_leak_can_be_judged_nearly_everywhere_in_the_world():
    """Palettes of all colours that a reference shows, painted plates too, leave little out, and the truth leaks nowhere."""
    shot, truth = World(HELD_OUT_SEED, 128, 192, 3).shot(1002).to_shot("multi-reference")
    assert shot.labels is not None
    labels = np.asarray(shot.labels.video[0:3]).astype(np.int64)
    bound = {label: shot.labels.references_of(label) for label in np.unique(labels).tolist()}
    palettes = {n: colours_of((shot.references[r].image, shot.references[r].alpha) for r in bound[n]) for n in bound}
    assert len(palettes) > 1
    assert leak_judged(truth, labels, palettes).mean() > 0.9
    assert leak_rate(truth, truth, labels, palettes) == 0
    pasted = np.ascontiguousarray(copy_baseline(shot))  # the plate: characters are coloured as what is behind them
    assert leak_rate(pasted, truth, labels, palettes) > 0.05


def test_colours_of_a_picture_are_those_that_fill_enough_of_it():
    image = np.full((40, 50, 3), (200, 90, 60), np.uint8)
    image[:20] = (10, 20, 30)
    image[0, 0] = (255, 0, 255)  # 1 of the 1000 that are opaque
    alpha = np.full((40, 50), 255, np.uint8)
    alpha[:, 25:] = 0
    image[:, 25:] = (1, 255, 1)
    assert colours_of([(image, alpha)], least=2e-3).tolist() == [[10, 20, 30], [200, 90, 60]]
    assert colours_of([(image, alpha)]).tolist() == [[10, 20, 30], [200, 90, 60], [255, 0, 255]]
    assert colours_of([(image[1:20, :25], None), (image[20:, 25:], None)]).tolist() == [[1, 255, 1], [10, 20, 30]]
    assert colours_of([]).shape == (0, 3)


def test_flat_segments_are_connected_areas_of_one_colour():
    colour, sketch = studio_frame()
    segments = flat_segments(colour, painted_mask(colour, sketch))
    assert segments.dtype == np.int32
    assert segments.max() == 2
    assert np.array_equal(segments > 0, painted_mask(colour, sketch))
    assert len(np.unique(segments[12:28, 12:30])) == 1
    twice = flat_segments(np.stack([colour, colour]))  # without a mask: lines and paper are left out all the same
    assert np.array_equal(twice[0], segments)
    assert np.array_equal(twice[1] > 0, segments > 0)
    assert sorted(np.unique(twice[1])) == [0, 3, 4]


def test_a_segment_has_at_least_16_pixels():
    truth = np.full((30, 30, 3), (90, 120, 40), np.uint8)
    truth[5:9, 5:9] = (240, 200, 40)  # 16
    truth[20:23, 20:25] = (240, 200, 40)  # 15
    segments = flat_segments(truth, np.ones((30, 30), bool))
    assert sorted(np.bincount(segments.reshape(-1)).tolist()) == [15, 16, 900 - 31]
    assert (segments[20:23, 20:25] == 0).all()
    assert flat_segments(truth, np.ones((30, 30), bool), smallest=1).max() == 3


def test_segments_survive_film_noise_but_shading_is_none(rng):
    truth = np.full((60, 90, 3), (90, 120, 40), np.uint8)
    truth[:, 30:60] = (150, 120, 80)
    truth[:, 60:] = np.linspace(40, 220, 60).astype(np.uint8)[:, None, None]  # 3 levels a row
    noisy = truth + rng.integers(0, 4, truth.shape, dtype=np.uint8)
    segments = flat_segments(noisy, np.ones((60, 90), bool))
    assert segments.max() == 2
    assert (segments[:, :30] == segments[0, 0]).all()
    assert (segments[:, 30:60] == segments[0, 30]).all()
    assert (segments[:, 60:] == 0).all()
    assert flat_segments(noisy, np.ones((60, 90), bool), tolerance=0).max() != 2


def test_segment_accuracy_counts_segments_and_weighs_areas():
    colour, sketch = studio_frame()
    truth = np.stack([colour, colour])
    segments = flat_segments(truth, painted_mask(truth, np.stack([sketch, sketch])))
    output = truth.copy()
    output[1, 12:28, 12:30] = (60, 90, 200)  # one of four segments: 288 of 1088 px
    output[0, 12:19, 12:30] = (0, 0, 0)  # 7 of 16 rows: the median holds
    differences, areas = segment_differences(output, truth, segments)
    assert areas.tolist() == [288, 256, 288, 256]
    assert differences[[0, 1, 3]].tolist() == [0, 0, 0]
    assert differences[2] == pytest.approx(
        color.deltaE_ciede2000(*color.rgb2lab(np.uint8([[[60, 90, 200], [200, 90, 60]]]))[0]), abs=0.05
    )
    assert segment_accuracy(differences) == 0.75
    assert segment_accuracy(differences, areas) == pytest.approx(1 - 288 / 1088)
    assert segment_accuracy(segment_differences(truth, truth, segments)[0], within=0) == 1
    assert np.isnan(segment_accuracy(*segment_differences(truth, truth, np.zeros_like(segments))))


def test_segments_of_some_frames_keep_their_numbers():
    """The frame that was given as a reference is left out of the score, but not of the segmentation."""
    colour, sketch = studio_frame()
    truth = np.stack([colour, colour, colour])
    segments = flat_segments(truth, painted_mask(truth, np.stack([sketch] * 3)))
    differences, areas = segment_differences(truth[1:], truth[1:], segments[1:])
    assert areas.tolist() == [288, 256, 288, 256]
    assert not differences.any()


def test_segment_thresholds_are_ciede2000():
    truth = np.full((10, 10, 3), 100, np.uint8)
    output = np.full((10, 10, 3), 108, np.uint8)
    segments = flat_segments(truth, np.ones((10, 10), bool))
    differences, _ = segment_differences(output, truth, segments)
    assert differences == pytest.approx(ciede2000(output, truth)[0, :1])
    assert segment_accuracy(differences, within=5) == (differences[0] <= 5)
    assert segment_accuracy(differences, within=float(differences[0])) == 1
    assert segment_accuracy(differences, within=float(differences[0]) - 0.01) == 0


def test_segments_of_another_shape_are_refused():
    truth = np.zeros((10, 10, 3), np.uint8)
    with pytest.raises(ValueError, match="one value to each pixel"):
        flat_segments(truth, np.ones((10, 11), bool))
    with pytest.raises(ValueError, match="one number to each"):
        segment_differences(truth, truth, np.zeros((10, 11), np.int32))
    with pytest.raises(ValueError, match="tolerance is -1"):
        flat_segments(truth, tolerance=-1)


def column(at: int) -> np.ndarray:
    """A line drawing of one upright line, 30x40."""
    lines = np.full((30, 40, 3), 255, np.uint8)
    lines[:, at] = 0
    return lines


def test_edmd_of_a_known_shift():
    """Distances to a line at x = 20 are |x - 20|; 3 px further they differ by 3 but between the lines, over a diagonal of 50."""
    x = np.arange(40)
    expected = np.sqrt(np.mean((np.abs(x - 20) - np.abs(x - 23)) ** 2)) / 50
    assert edmd(column(20), column(20)) == 0
    assert edmd(column(20), column(23)) == pytest.approx(expected, abs=1e-6)
    pair = edmd(np.stack([column(20), column(20)]), np.stack([column(23), column(20)]))
    assert pair == pytest.approx(expected / 2, abs=1e-6)


def test_edmd_of_no_lines_at_all():
    blank = np.full((30, 40, 3), 255, np.uint8)
    assert edmd(blank, blank) == 0
    expected = np.sqrt(np.mean((1 - np.abs(np.arange(40) - 20) / 50) ** 2))
    assert edmd(blank, column(20)) == pytest.approx(expected, abs=1e-6)


def test_edmd_of_extracted_lines_sees_lines_that_a_painter_lost():
    colour, _ = studio_frame()
    truth = np.kron(colour, np.ones((4, 4, 1), np.uint8))
    lost = truth.copy()
    lost[:, 120:128] = lost[:, 128:129]  # the line between the two paints
    lines, drawn = (extract_clip(frame[None], binarise=True) for frame in (truth, lost))
    assert edmd(lines, lines) == 0
    assert edmd(drawn, lines) > 0.002


def flicker(levels: list[int]) -> np.ndarray:
    return np.stack([np.full((24, 32, 3), level, np.uint8) for level in levels])


def test_temporal_consistency_of_a_known_flicker():
    """Flat frames do not move, so the warp error is the step in level: 10 against 2."""
    assert temporal_consistency(flicker([100, 110, 100]), flicker([60, 62, 60])) == pytest.approx(5)
    assert temporal_consistency(flicker([60, 62, 60]), flicker([60, 62, 60])) == 1
    assert temporal_consistency(flicker([80, 80, 80]), flicker([60, 62, 60])) == 0
    assert temporal_consistency(flicker([80, 80]), flicker([60, 60])) == 1
    assert temporal_consistency(flicker([80, 81]), flicker([60, 60])) == float("inf")
    with pytest.raises(ValueError, match="flicker needs at least 2"):
        temporal_consistency(flicker([80]), flicker([80]))


def test_temporal_consistency_follows_the_motion(rng):
    """What moves with the truth is steady, however much changes in place; what stays behind, or flickers on its way, is not."""
    import cv2

    wide = cv2.GaussianBlur(noise(rng, 96, 160, 3), (0, 0), 3)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)
    truth = np.stack([wide[:, 3 * t : 3 * t + 128] for t in range(4)])
    inverse = 255 - truth
    assert temporal_consistency(truth, truth) == 1
    assert temporal_consistency(inverse, truth) == pytest.approx(1, abs=0.1)
    assert temporal_consistency(np.stack([truth[0]] * 4), truth) > 3
    unsteady = (truth * np.array([0.9, 1, 0.9, 1])[:, None, None, None]).astype(np.uint8)
    assert temporal_consistency(unsteady, truth) > 3


@pytest.mark.parametrize("metric", [psnr, ssim, ciede2000, share_within, edmd])
def test_frames_of_two_sizes_are_refused(metric):
    with pytest.raises(ValueError, match="measure frames of one number and size"):
        metric(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 18, 3), np.uint8))


def shot(*references: Reference) -> Shot:
    return Shot(np.full((5, 40, 60, 3), 255, np.uint8), references)


def test_copy_pastes_the_plate_before_a_cut_out():
    red, blue = np.full((80, 120, 3), (200, 0, 0), np.uint8), np.full((80, 120, 3), (0, 0, 200), np.uint8)
    alpha = np.zeros((80, 120), np.uint8)
    alpha[20:60, 20:60] = 255
    clip = copy_baseline(shot(Reference(red, alpha), Reference(blue)))
    assert clip.shape == (5, 40, 60, 3)
    assert (clip == (0, 0, 200)).all()
    alone = copy_baseline(shot(Reference(red, alpha)))[0]
    assert tuple(alone[20, 20]) == (200, 0, 0)
    assert tuple(alone[2, 2]) == (255, 255, 255)


def test_copy_letterboxes_another_aspect_and_stretches_a_rounded_one():
    red = np.full((40, 40, 3), (200, 0, 0), np.uint8)
    clip = copy_baseline(shot(Reference(red)))
    assert (clip[0, :, 10:50] == (200, 0, 0)).all()
    assert (clip[0, :, :10] == 255).all()
    assert (copy_baseline(shot(Reference(np.full((41, 61, 3), 7, np.uint8)))) == 7).all()
    with pytest.raises(ValueError, match="no reference to copy"):
        copy_baseline(shot())


def test_contact_sheet_fits_whole_pictures_into_cells():
    red = np.full((50, 100, 3), (200, 0, 0), np.uint8)
    grey = np.full((100, 50), 90, np.uint8)
    clear = np.zeros((10, 10, 4), np.uint8)
    sheet = contact_sheet(
        [("one", [red, grey]), ("a longer caption\nof two lines", [clear])], cell=(60, 80), columns=["left", "right"]
    )
    assert sheet.dtype == np.uint8
    assert (sheet == (200, 0, 0)).all(axis=2).sum() == 40 * 80
    assert (sheet == 90).all(axis=2).sum() >= 60 * 30
    assert not (sheet == 0).all(axis=2).any()  # what is transparent shows the sheet
    assert (sheet.max(axis=2) < 60).any()  # captions
    assert sheet.shape[0] > 2 * 60
    assert sheet.shape[1] > 2 * 80


def test_contact_sheet_without_captions_is_pictures_only():
    red = np.full((20, 20, 3), (200, 0, 0), np.uint8)
    assert contact_sheet([("", [red, red])], cell=(20, 20)).shape == (36, 64, 3)
    with pytest.raises(ValueError, match="no rows"):
        contact_sheet([], cell=(20, 20))
    with pytest.raises(ValueError, match=r"picture is float32"):
        contact_sheet([("", [red.astype(np.float32)])], cell=(20, 20))


@pytest.mark.skipif(not (SHARED / "real/flats_1").exists(), reason="../shared with the real cases is not here")
def test_pasting_the_first_frame_of_flats_scores_as_planned():
    """The issue's own figure for frame 0 pasted: 51 % of the painted area within CIEDE2000 10."""
    import cv2

    def read(kind: str, frame: int) -> np.ndarray:
        picture = cv2.imread(str(SHARED / f"real/flats_1/{kind}/{frame:03d}.png"))
        assert picture is not None
        return np.ascontiguousarray(picture[..., ::-1])

    truth, sketch = (np.stack([read(kind, frame) for frame in range(1, 6)]) for kind in ("colour", "sketch"))
    pasted = np.broadcast_to(read("colour", 0), truth.shape)
    assert share_within(pasted, truth, 10, painted_mask(truth, sketch)) == pytest.approx(0.51, abs=0.02)
