"""Line art from colour frames, and the lines of coloured references."""

import inspect
import time
import zlib
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest

from timecolor.sketch import SketchStyle, extract_clip, extract_lines, reference_lines, require_line_art

SHARED = Path(__file__).parents[2] / "shared"
STYLES = get_args(SketchStyle)


@pytest.fixture
def cel() -> np.ndarray:
    """A lined disc in two flats on a blue ground, and a line-less yellow bar."""
    frame = np.full((240, 360, 3), (120, 170, 220), np.uint8)
    frame[40:60, 20:340] = (250, 220, 90)
    cv2.circle(frame, (180, 150), 70, (230, 120, 60), -1)
    cv2.ellipse(frame, (180, 150), (70, 70), 0, 0, 180, (190, 80, 40), -1)
    cv2.circle(frame, (180, 150), 70, (20, 10, 10), 2, cv2.LINE_AA)
    return frame


@pytest.mark.parametrize("style", STYLES)
def test_lines_have_no_colour(cel, style):
    lines = extract_lines(cel, style)
    assert lines.shape == cel.shape
    assert lines.dtype == np.uint8
    assert np.ptp(lines, axis=2).max() == 0
    assert lines.min() < 128
    assert lines[5, 5].min() == 255


@pytest.mark.parametrize("style", STYLES)
def test_binarised_is_black_and_white(cel, style):
    assert set(np.unique(extract_lines(cel, style, binarise=True))) == {0, 255}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (30, 90, 200)])
def test_flat_picture_has_no_line(style, colour):
    assert extract_lines(np.full((64, 96, 3), colour, np.uint8), style).min() == 255


@pytest.mark.parametrize("style", STYLES)
def test_smooth_gradient_has_no_line(style):
    sky = np.repeat(np.linspace(90, 230, 240).astype(np.uint8)[:, None, None], 320, axis=1).repeat(3, axis=2)
    assert extract_lines(sky, style).min() == 255


@pytest.mark.parametrize("style", STYLES)
def test_border_between_hues_of_one_luminance_is_found(style):
    frame = np.full((120, 180, 3), (200, 60, 60), np.uint8)
    frame[:, 90:] = (30, 134, 126)
    luminance = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    assert np.ptp(luminance) <= 1
    dark = extract_lines(frame, style, binarise=True)[..., 0] == 0
    assert dark[:, 87:94].any(axis=1).all()
    assert not dark[:, :80].any()
    assert not dark[:, 100:].any()


@pytest.mark.parametrize("style", STYLES)
def test_ink_does_not_tell_the_fill(style):
    """Lines around pale, dark and saturated paints are equally dark."""

    def ink(fill: tuple[int, int, int]) -> int:
        frame = np.full((240, 320, 3), 255, np.uint8)
        frame[60:180, 80:240] = (10, 10, 10)
        frame[63:177, 83:237] = fill
        lines = extract_lines(frame, style)[..., 0]
        assert lines[80:160, 100:220].min() == 255
        return int(lines[120].min())

    assert len({ink(fill) for fill in [(250, 200, 40), (90, 200, 250), (255, 255, 255), (120, 60, 60)]}) == 1


def test_drawn_line_is_one_line_where_it_was_drawn(cel):
    lines = extract_lines(cel, "clean", binarise=True)[..., 0]
    runs = np.flatnonzero(np.diff(np.r_[255, lines[120]].astype(int)) < 0)
    assert runs == pytest.approx([117, 243], abs=2)  # the disc's two sides, once each
    top = np.flatnonzero(lines[:90, 180] == 0)
    assert np.abs(top - 80).min() <= 1


def test_styles_differ_in_weight(cel):
    black = {style: (extract_lines(cel, style, binarise=True)[..., 0] == 0).mean() for style in STYLES}
    assert black["clean"] < black["thick"]
    assert black["drawn"] < black["extracted"]


def test_width_follows_the_size(cel):
    large = cv2.resize(cel, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    small_share = (extract_lines(cel, "thick", True) == 0).mean()
    large_share = (extract_lines(large, "thick", True) == 0).mean()
    assert large_share == pytest.approx(small_share, rel=0.35)


@pytest.mark.parametrize("style", STYLES)
def test_clip_is_its_frames_and_still_parts_stay_still(cel, style):
    clip = np.stack([cel, cel, cel])
    clip[1, :70, 300:] = 0  # something happens in a corner
    lines = extract_clip(clip, style)
    assert np.array_equal(lines[0], extract_lines(cel, style))
    assert np.array_equal(lines[0], lines[2])
    assert np.array_equal(lines[0, 100:], lines[1, 100:])


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (3, 2, 3), (11, 300, 3)])
def test_tiny_and_odd_sizes(shape):
    frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for style in STYLES:
        assert extract_lines(frame, style).shape == shape
    assert reference_lines(frame).shape == shape[:2]
    assert reference_lines(frame, np.full(shape[:2], 255, np.uint8)).shape == shape[:2]


def test_bad_frames_and_styles_are_refused(cel):
    with pytest.raises(ValueError, match=r"give uint8 \(h, w, 3\)"):
        extract_lines(cel[..., 0])
    with pytest.raises(ValueError, match="unknown sketch style 'neon'; use one of clean"):
        inspect.unwrap(extract_lines)(cel, "neon")  # the tests' type checker would speak first


def test_extraction_is_quick():
    frame = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (480, 720, 3), dtype=np.uint8), (0, 0), 6)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        extract_lines(frame)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.25  # 0.02 on a free core


@pytest.fixture
def cut_out() -> tuple[np.ndarray, np.ndarray]:
    """A white disc without an outline, on a black matte."""
    alpha = np.zeros((192, 288), np.uint8)
    cv2.circle(alpha, (144, 96), 60, 255, -1)
    return alpha[..., None].repeat(3, axis=2), alpha


def test_silhouette_of_a_cut_out_is_a_thin_line(cut_out):
    image, alpha = cut_out
    lines = reference_lines(image, alpha)
    assert not lines[alpha == 0].any()
    assert 3 <= (lines[96] > 127).sum() + 1 <= 5  # two crossings, no wider than two pixels each
    assert lines[96, 84:87].max() == 255


def test_matte_colour_is_invisible(cut_out):
    image, alpha = cut_out
    other = image.copy()
    other[alpha == 0] = (255, 0, 255)
    assert np.array_equal(reference_lines(image, alpha), reference_lines(other, alpha))


def test_letterbox_bars_draw_no_frame():
    image, alpha = np.zeros((192, 288, 3), np.uint8), np.zeros((192, 288), np.uint8)
    image[40:150], alpha[40:150] = (90, 160, 90), 255
    assert not reference_lines(image, alpha).any()


def test_reference_of_alpha_zero_has_no_lines(cel):
    assert not reference_lines(cel, np.zeros(cel.shape[:2], np.uint8)).any()


def test_reference_lines_find_drawn_lines_and_borders(cel):
    lines = reference_lines(cel)
    assert lines[150, 108:113].max() > 200  # the outline
    assert lines[58:62, 30].max() > 100  # a border without a line
    assert lines[148:152, 180].max() > 20  # the shadow's edge, fainter
    assert not lines[5, 5]


def test_reference_lines_never_change():
    """The shipped weights were trained on exactly these."""
    y, x = np.mgrid[:192, :288]
    image = np.stack([x * 7 // 16 * 16 % 256, (x + y) // 12 * 40 % 256, (y * y // 300) * 37 % 256], axis=2).astype(np.uint8)
    alpha = np.where((x - 140) ** 2 + (y - 90) ** 2 < 8000, 255, 0).astype(np.uint8)
    assert zlib.crc32(reference_lines(image).tobytes()) == 545205959
    assert zlib.crc32(reference_lines(image, alpha).tobytes()) == 1920226492


def test_reference_lines_are_quick(cut_out):
    image, alpha = cut_out
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        reference_lines(image, alpha)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.02  # 0.0005 on a free core


def test_line_art_of_every_kind_is_accepted(cel):
    white = np.full((1, 240, 360, 3), 255, np.uint8)
    require_line_art(white, "blank")
    traces = white.copy()
    cv2.circle(traces[0], (180, 120), 80, (220, 30, 30), 2)
    cv2.line(traces[0], (10, 10), (350, 230), (40, 60, 220), 2)
    cv2.ellipse(traces[0], (180, 120), (30, 12), 0, 0, 360, (0, 0, 0), -1)
    require_line_art(traces, "red and blue trace lines, a solid black")
    require_line_art((traces * np.array([1.0, 0.95, 0.85])).astype(np.uint8), "the same on yellowed paper")
    for style in STYLES:
        require_line_art(extract_lines(cel, style)[None], style)


def test_colour_or_tone_is_refused_as_line_art(cel):
    with pytest.raises(ValueError, match=r"shot 7: 1?\d\d% of sketch frame 0 is coloured; give line art, or .* --extract-lines"):
        require_line_art(cel[None], "shot 7")
    small = np.full((3, 240, 360, 3), 255, np.uint8)
    small[2, 100:130, 100:130] = (250, 180, 90)
    with pytest.raises(ValueError, match="1% of sketch frame 2 is coloured"):
        require_line_art(small, "a small figure, last frame")
    grey = cv2.cvtColor(cv2.cvtColor(cel, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    with pytest.raises(ValueError, match="of sketch frame 0 is filled with grey"):
        require_line_art(grey[None], "a grey film frame")


@pytest.mark.skipif(not (SHARED / "real").exists(), reason="../shared with the real cases is not here")
@pytest.mark.parametrize("case", ["real/flats_1", "cc0/cc0_hills_dancer", "cc0/cc0_street_pair"])
def test_lines_lie_where_the_artist_drew_them(case):
    def read(kind: str) -> np.ndarray:
        picture = cv2.imread(str(SHARED / case / kind / "000.png"))
        assert picture is not None
        return picture

    def near(mask: np.ndarray) -> np.ndarray:
        return cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))) > 0

    found, true = extract_lines(read("colour"), "drawn", binarise=True)[..., 0] == 0, read("sketch")[..., 0] < 128
    assert near(true)[found].mean() > 0.95
    assert near(found)[true].mean() > 0.95
