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
from timecolor.shot import Reference, Shot

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


def test_leak_rate_of_a_known_leak():
    labels = np.zeros((20, 20), np.int64)
    labels[:, :10], labels[:, 10:] = 1, 2
    palettes = {1: np.array([[200, 40, 40], [90, 20, 20]], np.uint8), 2: np.array([[40, 40, 200]], np.uint8)}
    output = np.empty((20, 20, 3), np.uint8)
    output[:, :10], output[:, 10:] = palettes[1][0], palettes[2][0]
    assert leak_rate(output, labels, palettes) == 0
    output[:5, :10] = palettes[2][0]  # a quarter of label 1, an eighth of all
    assert leak_rate(output, labels, palettes) == pytest.approx(1 / 8)
    assert leak_rate(output, labels, {1: palettes[1]}) == 0  # no other palette to leak from
    assert leak_rate(np.stack([output, output]), np.stack([labels, labels]), palettes) == pytest.approx(1 / 8)


def test_leak_needs_the_margin():
    paints = {1: np.array([[100, 100, 100]], np.uint8), 2: np.array([[130, 130, 130]], np.uint8)}
    labels = np.ones((4, 4), np.int64)
    output = np.full((4, 4, 3), 118, np.uint8)  # a little nearer to label 2
    assert leak_rate(output, labels, paints, margin=0) == 1
    assert leak_rate(output, labels, paints, margin=5) == 0


def test_leak_rate_leaves_unknown_labels_out():
    palettes = {1: np.array([[9, 9, 9]], np.uint8)}
    assert np.isnan(leak_rate(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.int64), palettes))
    with pytest.raises(ValueError, match="label 3 has an empty palette"):
        leak_rate(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.int64), {3: np.empty((0, 3), np.uint8)})


@pytest.mark.parametrize("metric", [psnr, ssim, ciede2000, share_within])
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
