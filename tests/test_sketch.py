"""Line art from colour frames, and the lines of coloured references."""

import inspect
import re
import time
import zlib
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest

from timecolor.media import open_frames, write_clip
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


def drawing(height: int = 240, width: int = 320, line=(0, 0, 0), paper=(255, 255, 255), thickness: int = 2) -> np.ndarray:
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = paper
    scale = height / 240
    for x, y, r in ((100, 90, 40), (200, 150, 60), (60, 190, 30)):
        cv2.circle(frame, (round(x * scale), round(y * scale)), round(r * scale), line, thickness, cv2.LINE_AA)
    cv2.line(frame, (0, round(220 * scale)), (width, round(200 * scale)), line, thickness, cv2.LINE_AA)
    return frame


def noise(frame: np.ndarray, strength: float) -> np.ndarray:
    return np.clip(frame + np.random.default_rng(0).normal(0, strength, frame.shape), 0, 255).astype(np.uint8)


def vignette(frame: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : frame.shape[0] * 1j, -1 : 1 : frame.shape[1] * 1j]
    return (frame * (1 - 0.08 * (x**2 + y**2))[..., None]).astype(np.uint8)


def painted(fill, background=(255, 255, 255)) -> np.ndarray:
    frame = np.empty((240, 320, 3), np.uint8)
    frame[:] = background
    for x, y, r in ((100, 90, 40), (200, 150, 60)):
        cv2.circle(frame, (x, y), r, fill, -1)
        cv2.circle(frame, (x, y), r, (0, 0, 0), 2, cv2.LINE_AA)
    return frame


def refusal(frames) -> str:
    with pytest.raises(ValueError, match=r"^shot 7: ") as caught:
        require_line_art(frames, "shot 7")
    assert "\n" not in str(caught.value)
    return str(caught.value)


LINE_ART = {
    "black on white": drawing(),
    "large": drawing(1080, 1440, thickness=6),
    "small": drawing(60, 80, thickness=1),
    "red trace": drawing(line=(230, 30, 40)),
    "blue trace": drawing(480, 640, line=(60, 90, 240), thickness=4),
    "green trace": drawing(line=(40, 200, 60)),
    "pencil": noise(drawing(line=(130, 130, 130)), 6),
    "cream paper": noise(drawing(paper=(246, 238, 214)), 4),
    "grey paper": noise(drawing(paper=(196, 196, 190), line=(70, 70, 70)), 4),
    "scan in the dark corners": vignette(drawing(paper=(244, 240, 228))),
    "solid black": cv2.rectangle(drawing(), (20, 20), (200, 160), (0, 0, 0), -1),
    "thick": drawing(thickness=7),
    "blank": np.full((48, 64, 3), 255, np.uint8),
    "one pixel": np.full((1, 1, 3), 255, np.uint8),
}
COLOUR = {
    "flats on white": painted((240, 180, 60)),
    "pale skin on white": painted((255, 224, 196)),
    "one small fill": cv2.circle(drawing(), (100, 90), 12, (255, 200, 0), -1),
    "grey fills": painted((140, 140, 140)),
    "plate": painted((240, 180, 60), (120, 180, 220)),
    "dark scene": painted((60, 40, 80), (20, 24, 40)),
    "night with bright fills": painted((220, 180, 90), (20, 24, 40)),
    "noise": np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8),
}


@pytest.mark.parametrize("kind", LINE_ART)
def test_line_art_is_accepted(kind):
    require_line_art(LINE_ART[kind][None], kind)


@pytest.mark.parametrize("style", STYLES)
def test_extracted_lines_are_line_art(cel, style):
    require_line_art(extract_lines(cel, style)[None], style)
    require_line_art(extract_lines(cel, style, binarise=True)[None], style)


@pytest.mark.parametrize("kind", COLOUR)
def test_colour_is_refused_as_line_art(kind):
    text = refusal(COLOUR[kind][None])
    assert text.startswith("shot 7: sketch looks like a colour picture (")
    assert text.endswith("give line art, or add --extract-lines to take the lines from it")


@pytest.mark.parametrize("line", ["black on white", "red trace", "blue trace", "pencil"])
def test_line_art_survives_mp4(tmp_path, line):
    write_clip(tmp_path / "a.mp4", LINE_ART[line][None].repeat(3, 0), 24)
    require_line_art(open_frames(tmp_path / "a.mp4"), line)


def test_light_lines_on_dark_are_to_be_inverted():
    assert "looks inverted (light lines on dark); invert it" in refusal(255 - drawing()[None])


def test_one_coloured_frame_is_enough():
    assert "of frame 8 is painted" in refusal(np.stack([drawing()] * 8 + [painted((240, 180, 60))]))


def test_the_share_named_is_the_painted_area():
    found = re.search(r"\(([0-9.]+)% of the area of frame 0 is painted\)", refusal(painted((240, 180, 60))[None]))
    assert found
    assert float(found[1]) == pytest.approx(100 * np.pi * (40**2 + 60**2) / (240 * 320), rel=0.1)


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
