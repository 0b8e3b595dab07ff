import numpy as np
import pytest
import torch

from timecolor import codec
from timecolor.denoiser import Picture
from timecolor.geometry import Clip
from timecolor.shot import Reference


def test_a_latent_is_the_mean_colour_of_its_cell_and_comes_back():
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    frames[:, :4, :4] = (255, 0, 51)
    pixel_codec = codec.PixelCodec(4)
    latents = pixel_codec.encode(frames)
    assert latents.shape == (1, 2, 3, 2, 2)
    torch.testing.assert_close(latents[0, 0, :, 0, 0], torch.tensor([1.0, -1.0, -0.6]))
    np.testing.assert_allclose(pixel_codec.decode(latents)[0, 0, 0], [1.0, 0.0, 0.2], atol=1e-6)


def test_paper_is_no_ink_and_a_red_line_stays_red():
    frame = np.full((1, 2, 2, 3), 255, np.uint8)
    frame[0, 0, 0] = (255, 0, 0)
    ink = codec.encode_sketch(frame)
    assert ink[0, 0, :, 1, 1].tolist() == [0, 0, 0]
    assert ink[0, 0, :, 0, 0].tolist() == [0, 1, 1]


def test_line_art_is_shrunk_by_area():
    frame = np.full((1, 480, 720, 3), 255, np.uint8)
    frame[:, :, 360] = 0
    small = codec.shrink(frame, Clip(1, 160, 240))
    assert small.shape == (1, 160, 240, 3)
    assert small[0, 80].min() == 170


def test_a_reference_keeps_its_aspect_ratio():
    image = np.full((100, 50, 3), 200, np.uint8)
    seen = codec.letterbox(Reference(image), Clip(1, 64, 96))
    for canvas in (seen.image, seen.fills):
        columns = np.flatnonzero(canvas[32, :, 0])
        assert (columns.min(), columns.max()) == (32, 63)
    assert seen.lines.shape == (64, 96)


def test_a_reference_of_the_frames_shape_fills_it():
    image = np.full((807, 1237, 3), 200, np.uint8)
    assert (codec.letterbox(Reference(image), Clip(1, 128, 200), Clip(1, 807, 1237)).image == 200).all()


def test_a_cut_out_lies_on_the_ground_it_is_given():
    image, alpha = np.full((64, 96, 3), 90, np.uint8), np.zeros((64, 96), np.uint8)
    alpha[20:40, 30:60] = 255
    for ground in (0, 255):
        seen = codec.letterbox(Reference(image, alpha), Clip(1, 64, 96), ground=ground)
        for canvas in (seen.image, seen.fills):
            assert canvas[0, 0].tolist() == [ground] * 3
            assert canvas[30, 45].tolist() == [90] * 3


@pytest.mark.parametrize("ground", [0, 255])
def test_what_stands_on_black_or_white_is_cut_out_but_for_what_it_encloses(ground):
    image = np.full((60, 60, 3), ground, np.uint8)
    image[10:60, 15:45] = (200, 120, 40)
    image[20:30, 20:30] = ground
    image[4, 4] = abs(ground - 5)  # what compression leaves
    cut = Reference(image).cut_out(40, 90)
    assert cut.alpha is not None
    expected = np.zeros((60, 60), np.uint8)
    expected[10:60, 15:45] = 255
    assert np.array_equal(cut.alpha, expected)
    assert cut.cut_out(40, 90) is cut
    for role in ("frame", "background"):
        place = Reference(image, role=role)
        assert place.cut_out(40, 90) is place
    frame = Reference(np.full((60, 60, 3), 255, np.uint8))
    assert frame.cut_out(60, 60) is frame
    painted = Reference(np.full((60, 60, 3), 128, np.uint8))
    assert painted.cut_out(40, 90) is painted
    blank = Reference(np.full((60, 60, 3), ground, np.uint8))
    assert blank.cut_out(40, 90) is blank


def test_the_lines_of_a_reference_are_taken_out_of_its_colours():
    image = np.full((256, 384, 3), (220, 120, 40), np.uint8)
    image[:, 190:] = (40, 80, 200)
    image[:, 188:193] = 10
    seen = codec.letterbox(Reference(image), Clip(1, 64, 96))
    canvas = seen.fills
    assert seen.lines[32].max() > 128
    assert seen.image[32].min() < 40
    assert set(map(tuple, canvas[32, :46].tolist())) == {(220, 120, 40)}
    assert set(map(tuple, canvas[32, 50:].tolist())) == {(40, 80, 200)}
    assert canvas[:, :, 2].min() >= 40 - 1  # no dark of the line is left


def test_hints_are_encoded_as_references_are():
    picture = np.random.default_rng(0).integers(0, 255, (2, 3, 8, 8, 4)).astype(np.uint8)
    hints = codec.encode_hints(picture)
    assert hints.shape == (1, 2, 3, 4, 8, 8)
    one = Picture(picture[1, 2, ..., :3], picture[1, 2, ..., :3], picture[1, 2, ..., 3], np.ones(picture.shape[2:4], bool))
    torch.testing.assert_close(hints[:, 1, 2:3], codec.encode_reference(one))
