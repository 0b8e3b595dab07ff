import errno
import os
import re
import resource
import signal
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from timecolor import media
from timecolor.media import (
    ClipWriter,
    InputError,
    first_frames,
    natural_key,
    open_frames,
    parse_frame_rate,
    read_image,
    read_labels,
    write_clip,
    write_image,
)

SHARED = Path(__file__).parents[2] / "shared"


def clip(frames: int = 5, height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def flats(count: int = 200, height: int = 32, width: int = 32) -> np.ndarray:
    """One flat colour a frame: the corners of the cube, then random ones."""
    corners = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)])
    colours = np.concatenate([corners, np.random.default_rng(3).integers(0, 256, (count - 8, 3))]).astype(np.uint8)
    return np.broadcast_to(colours[:, None, None], (count, height, width, 3)).copy()


def encode(
    path: Path,
    frames: np.ndarray,
    codec: str,
    pixels: str,
    *,
    matrix: int = 1,
    full: bool = False,
    tagged: bool = True,
    times=None,
    **options,
) -> Path:
    """A video made without our writer."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(24), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        if tagged:
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgba" if frame.shape[2] == 4 else "rgb24")
            picture = picture.reformat(
                format=pixels, dst_colorspace=matrix, dst_color_range=2 if full else 1, interpolation=media._ACCURATE
            )
            picture.pts, picture.time_base = times[i] if times else i, Fraction(1, 24)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def off_by(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def message(call, *args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize("name", ["a.mkv", "folder", "folder.v2/"])
@pytest.mark.parametrize("size", [(24, 32), (7, 5), (1, 1)])
def test_lossless_outputs_come_back_exactly(tmp_path, name, size):
    frames = clip(3, *size)
    write_clip(f"{tmp_path}/{name}", frames, 24)
    assert np.array_equal(open_frames(tmp_path / name)[:], frames)


@pytest.mark.parametrize("name", ["a.mkv", "a.mov", "folder/"])
def test_alpha_comes_back(tmp_path, name):
    frames = flats(12)
    alpha = np.full((*frames.shape[:3], 1), 128, np.uint8)
    write_clip(f"{tmp_path}/{name}", np.concatenate([frames, alpha], -1), 24)
    expected = (frames.astype(int) * 128 + 255 * 127 + 127) // 255
    assert off_by(open_frames(tmp_path / name)[:], expected) <= 1
    assert off_by(open_frames(tmp_path / name, paper=0)[:], (frames.astype(int) * 128 + 127) // 255) <= 1


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1)])
def test_flat_colours_come_back_within_2_from_lossy_outputs(tmp_path, name, size):
    frames = flats(200, *size)
    path = tmp_path / name
    write_clip(path, frames, 24)
    ours = open_frames(path)
    assert ours.shape == frames.shape
    with av.open(str(path)) as container:  # swscale's default path, which rounds down
        standard = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    capture = cv2.VideoCapture(str(path))
    opencv = np.stack([capture.read()[1][..., ::-1] for _ in frames])
    assert (off_by(ours[:], frames), off_by(standard, frames), off_by(opencv, frames)) <= (2, 2, 2)


def test_flat_areas_of_a_drawing_come_back_within_2_from_mp4(tmp_path):
    colours = flats(20)[:, 0, 0].reshape(4, 5, 3)
    frames = np.stack([np.roll(np.kron(colours, np.ones((48, 48, 1), np.uint8)), i, axis=1) for i in range(8)])
    frames = np.where((np.arange(240) % 48 < 3)[:, None] & True, np.uint8(0), frames)  # lines
    write_clip(tmp_path / "a.mp4", frames, 24)
    kernel = np.ones((9, 9), np.uint8)
    flat = np.stack([(cv2.dilate(f, kernel) == cv2.erode(f, kernel)).all(-1) for f in frames])
    assert flat.mean() > 0.3
    error = np.abs(open_frames(tmp_path / "a.mp4")[:][flat].astype(int) - frames[flat])
    assert (error <= 2).mean() > 0.999
    assert error.max() <= 5


def test_mp4_says_bt709_limited_range_and_starts_with_its_index(tmp_path):
    write_clip(tmp_path / "a.mp4", clip(), 24)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)
    assert frame.format.name == "yuv420p"
    data = (tmp_path / "a.mp4").read_bytes()
    assert b"colrnclx\x00\x01\x00\x01\x00\x01\x00" in data
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("rate", [24, 15, 12.5, 23.976, 29.97, "24000/1001"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_frame_rate_is_kept(tmp_path, rate, suffix):
    write_clip(tmp_path / f"a{suffix}", clip(), parse_frame_rate(rate))
    assert open_frames(tmp_path / f"a{suffix}").frame_rate == parse_frame_rate(rate)


def test_frame_rates_are_parsed():
    assert parse_frame_rate(23.976) == parse_frame_rate("24000/1001") == Fraction(24000, 1001)
    assert parse_frame_rate(12.5) == Fraction(25, 2)
    for wrong in (0, -1, "fast", None, float("nan"), float("inf"), 1e9, "1/0"):
        assert "frame rate is" in message(parse_frame_rate, wrong)


def test_one_frame_is_a_clip(tmp_path):
    for name in ("a.mp4", "a.mkv", "a.mov", "a.png", "a/"):
        write_clip(f"{tmp_path}/{name}", flats(8)[5:6], 24)
        assert off_by(open_frames(tmp_path / name)[:], flats(8)[5:6]) <= 2


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_the_same_frames_give_the_same_bytes(tmp_path, name):
    written = set()
    for _ in range(5):
        write_clip(tmp_path / name, clip(8, 64, 64), 24, overwrite=True)
        written.add((tmp_path / name).read_bytes())
    assert len(written) == 1


def test_png_holds_one_frame_only(tmp_path):
    assert "holds one frame" in message(write_clip, tmp_path / "a.png", clip(2), 24)
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------------------------------------------------- reading video


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (1, True), (5, False), (5, True), (9, False)])
def test_matrix_and_range_tags_are_obeyed(tmp_path, matrix, full):
    path = encode(tmp_path / "a.mp4", flats(24), "libx264", "yuv444p", matrix=matrix, full=full, crf="1")
    assert off_by(open_frames(path)[:], flats(24)) <= 2


@pytest.mark.parametrize(("size", "matrix"), [((480, 64), 5), ((720, 64), 1), ((64, 1280), 1)])
def test_untagged_video_is_bt601_when_small_and_bt709_when_large(tmp_path, size, matrix):
    frames = flats(12, *size)
    path = encode(tmp_path / "a.mp4", frames, "libx264", "yuv420p", matrix=matrix, tagged=False, crf="1", preset="ultrafast")
    assert off_by(open_frames(path)[:], frames) <= 2


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("a.mp4", "libx264", "yuv420p10le"), ("a.mov", "prores_ks", "yuv422p10le"), ("a.mkv", "ffv1", "gbrp16le"),
     ("a.webm", "libvpx-vp9", "yuv420p")],
)  # fmt: skip
def test_other_depths_and_codecs(tmp_path, name, codec, pixels):
    options = (
        {"level": "3"} if codec == "ffv1" else {"crf": "1"} if codec == "libx264" else {"lossless": "1"} if "vp9" in codec else {}
    )
    path = encode(tmp_path / name, flats(12), codec, pixels, **options)
    assert off_by(open_frames(path)[:], flats(12)) <= 2


def test_grey_video(tmp_path):
    grey = np.repeat(flats(12)[..., :1], 3, -1)
    path = encode(tmp_path / "a.mkv", grey, "ffv1", "gray", full=True)
    assert np.array_equal(open_frames(path)[:], grey)


def test_gif(tmp_path):
    frames = [Image.fromarray(f) for f in flats(8)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    assert off_by(open_frames(tmp_path / "a.gif")[:], flats(8)) == 0


def test_variable_frame_rate_gives_every_drawing_once(tmp_path):
    path = encode(tmp_path / "a.mp4", flats(12), "libx264", "yuv444p", times=[0, 1, 3, 4, 7, 8, 9, 20, 21, 22, 23, 40], crf="1")
    frames = open_frames(path)
    assert off_by(frames[:], flats(12)) <= 2
    assert 5 < (frames.frame_rate or 0) < 12


@pytest.mark.parametrize("name", ["a.mkv", "a/"])
def test_slices_read_in_any_order(tmp_path, name, monkeypatch):
    monkeypatch.setattr(media, "_KEPT_BYTES", 3 * 24 * 32 * 3)
    source = clip(13)
    write_clip(f"{tmp_path}/{name}", source, 24)
    frames = open_frames(tmp_path / name)
    assert len(frames) == 13
    for part in (
        slice(0, 4),
        slice(4, 8),
        slice(6, 10),
        slice(12, 99),
        slice(0, 2),
        slice(None, None, 5),
        slice(3, 3),
        slice(-2, None),
    ):
        assert np.array_equal(frames[part], source[part])


def test_reading_forwards_decodes_each_frame_once(tmp_path, monkeypatch):
    write_clip(tmp_path / "a.mkv", clip(12), 24)
    frames = open_frames(tmp_path / "a.mkv")
    starts, decode = [], media.VideoFrames._decode
    monkeypatch.setattr(media.VideoFrames, "_decode", lambda self: starts.append(1) or decode(self))
    for start in range(0, 12, 3):
        frames[start : start + 5]  # overlapping by two
    assert len(starts) == 1


def test_the_first_frames_are_a_view(tmp_path):
    source = clip(6)
    write_clip(tmp_path / "a.mkv", source, 24)
    head = first_frames(open_frames(tmp_path / "a.mkv"), 4)
    assert head.shape == (4, 24, 32, 3)
    assert np.array_equal(head[2:9], source[2:4])
    assert "7 frames are asked for but there are 6" in message(first_frames, open_frames(tmp_path / "a.mkv"), 7)


# --------------------------------------------------------------------------------------------------------- reading images


def raw_png(rows: list[bytes], width: int, depth: int, kind: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + len(rows).to_bytes(4, "big") + bytes([depth, kind, 0, 0, 0])
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_16_bit_images_are_scaled_not_clipped(tmp_path, kind, channels):
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, channels))
    (tmp_path / "a.png").write_bytes(raw_png([row.astype(">u2").tobytes() for row in values], 5, 16, kind))
    rgb, alpha = read_image(tmp_path / "a.png")
    expected = np.rint(values / 257).astype(np.uint8)
    colours = channels - 1 if channels in (2, 4) else channels
    assert np.array_equal(rgb, np.broadcast_to(expected[..., :colours], rgb.shape))
    assert alpha is None if channels == colours else np.array_equal(alpha, expected[..., -1])


def test_image_kinds_become_rgb(tmp_path):
    colour = clip(1)[0]
    image = Image.fromarray(colour)
    grey = np.asarray(image.convert("L"))
    image.convert("L").save(tmp_path / "grey.png")
    image.convert("1").save(tmp_path / "one.png")
    image.quantize(16).save(tmp_path / "palette.png")
    image.save(tmp_path / "rgb.bmp")
    image.convert("CMYK").save(tmp_path / "cmyk.tif")
    Image.new("CMYK", (32, 24), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    assert np.array_equal(read_image(tmp_path / "grey.png")[0], np.repeat(grey[..., None], 3, -1))
    assert set(np.unique(read_image(tmp_path / "one.png")[0])) == {0, 255}
    assert np.array_equal(read_image(tmp_path / "palette.png")[0], np.asarray(image.quantize(16).convert("RGB")))
    assert np.array_equal(read_image(tmp_path / "rgb.bmp")[0], colour)
    assert off_by(read_image(tmp_path / "cmyk.tif")[0], colour) <= 1
    assert off_by(read_image(tmp_path / "cmyk.jpg")[0], np.full_like(colour, 0) + np.array([255, 0, 0])) <= 2


def test_alpha_is_kept_beside_the_image_and_laid_on_paper_in_clips(tmp_path):
    pixels = np.array([[[200, 10, 20, 255], [200, 10, 20, 0], [200, 10, 20, 128]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    rgb, alpha = read_image(tmp_path / "a.png")
    assert np.array_equal(np.dstack([rgb, alpha]), pixels)
    assert open_frames(tmp_path / "a.png")[:].tolist() == [[[[200, 10, 20], [255, 255, 255], [227, 132, 137]]]]
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "opaque.png")
    assert read_image(tmp_path / "opaque.png")[1] is None
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, 250, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    assert open_frames(tmp_path / "p.png")[:].tolist() == [[[[255, 255, 255], [250, 0, 0]]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = clip(1, 6, 10)[0]
    turned = np.rot90(upright, {3: 2, 4: 2, 6: 1, 7: 1, 8: -1, 5: -1}.get(orientation, 0))
    stored = turned[:, ::-1] if orientation in (2, 4, 5, 7) else turned
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png")[0], upright)
    assert open_frames(tmp_path / "a.png").shape == (1, 6, 10, 3)


def test_embedded_profiles_lead_to_srgb(tmp_path):
    colour = flats(8)[3]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(colour).save(tmp_path / "srgb.png", icc_profile=srgb)
    Image.fromarray(colour).save(tmp_path / "broken.png", icc_profile=b"no profile")
    assert np.array_equal(read_image(tmp_path / "srgb.png")[0], colour)
    assert np.array_equal(read_image(tmp_path / "broken.png")[0], colour)


def test_image_sequences_go_in_natural_order(tmp_path):
    frames = clip(12)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"frame {i}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / ".hidden.png").write_bytes(b"")
    assert np.array_equal(open_frames(tmp_path)[:], frames)
    assert np.array_equal(open_frames(f"{tmp_path}/frame *.png")[:], frames)
    assert open_frames(tmp_path / "frame 3.png").shape == (1, 24, 32, 3)
    assert open_frames(tmp_path).frame_rate is None


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_natural_order_is_the_order_of_numbers(numbers):
    assert sorted((f"a{n}b" for n in numbers), key=natural_key) == [f"a{n}b" for n in sorted(numbers)]


# --------------------------------------------------------------------------------------------------------- reading labels


def test_labels_from_npz_and_images(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, (3, 6, 8))
    np.savez(tmp_path / "labels.npz", mask=labels)
    for folder, kind in (("grey", "L"), ("palette", "P"), ("deep", "I;16"), ("rgb", "RGB")):
        (tmp_path / folder).mkdir()
        for i, frame in enumerate(labels):
            array = frame.astype(np.uint16 if kind == "I;16" else np.uint8)
            image = Image.fromarray(np.stack([array] * 3, -1) if kind == "RGB" else array)
            if kind == "P":
                image = image.convert("P")
                image.putdata(frame.ravel().tolist())
                image.putpalette(np.random.default_rng(1).integers(0, 256, 768).tolist())
            image.save(tmp_path / folder / f"{i}.png")
    for name in ("labels.npz", "grey", "palette", "deep", "rgb"):
        video = read_labels(tmp_path / name)
        assert video.shape == labels.shape
        assert video[0:1].dtype.kind == "u"
        assert np.array_equal(video[:], labels), name


def test_labels_of_few_bits_are_not_stretched(tmp_path):
    for depth in (1, 2, 4):
        values = [0, 1, 0, 1, 1, 0, 0, 1] if depth == 1 else [0, 1, 2, 3, 3, 2, 1, 0]
        row = int("".join(format(v, f"0{depth}b") for v in values), 2).to_bytes(depth, "big")
        (tmp_path / f"{depth}.png").write_bytes(raw_png([row], 8, depth, 0))
        assert read_labels(tmp_path / f"{depth}.png")[:].tolist() == [[values]]


def test_labels_above_255(tmp_path):
    np.savez(tmp_path / "a.npz", mask=np.full((1, 2, 2), 300))
    Image.fromarray(np.full((2, 2), 300, np.uint16)).save(tmp_path / "a.png")
    assert read_labels(tmp_path / "a.npz")[:].max() == read_labels(tmp_path / "a.png")[:].max() == 300


def test_label_files_that_cannot_be_used(tmp_path):
    cases = {
        "key": ({"labels": np.zeros((1, 2, 2), int)}, "holds 'labels'; expected the key 'mask'"),
        "float": ({"mask": np.zeros((1, 2, 2))}, "'mask' is float64 (1, 2, 2); expected integers"),
        "flat": ({"mask": np.zeros((2, 2), int)}, "'mask' is int64 (2, 2); expected integers (frames, height, width)"),
        "minus": ({"mask": np.full((1, 2, 2), -1)}, "holds -1"),
        "huge": ({"mask": np.full((1, 2, 2), 1 << 40)}, "labels are 0 to 65535"),
    }
    for name, (arrays, expected) in cases.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        assert expected in message(read_labels, tmp_path / f"{name}.npz")
    (tmp_path / "junk.npz").write_bytes(b"junk" * 9)
    assert "cannot be read as .npz" in message(read_labels, tmp_path / "junk.npz")
    (tmp_path / "none.npz").write_bytes(b"")
    assert "is empty (0 bytes)" in message(read_labels, tmp_path / "none.npz")
    assert "labels must be exact" in message(read_labels, tmp_path / "a.mp4")
    Image.fromarray(clip(1)[0]).save(tmp_path / "colour.png")
    assert "labels are RGB; save 8 or 16 bit grey" in message(read_labels(tmp_path / "colour.png").__getitem__, slice(0, 1))


# ----------------------------------------------------------------------------------------------------- input that is broken


def test_missing_files_get_a_near_match(tmp_path):
    write_image(tmp_path / "sketch.png", clip(1)[0])
    assert "no such file; did you mean 'sketch.png'?" in message(open_frames, tmp_path / "skech.png")
    assert "no such file" in message(read_image, tmp_path / "nowhere" / "x.png")
    assert "matches no images" in message(open_frames, tmp_path / "*.jpg")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.png", "a.gif", "a.jpg"])
def test_garbage_and_empty_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"this is no picture " * 50)
    assert f"{name}: cannot be read (" in message(open_frames, tmp_path / name)
    (tmp_path / name).write_bytes(b"")
    assert f"{name}: is empty (0 bytes)" in message(open_frames, tmp_path / name)


def test_a_folder_without_images_and_an_unknown_suffix(tmp_path):
    assert "the folder holds no images; expected .png" in message(open_frames, tmp_path)
    (tmp_path / "a.psd").write_bytes(b"8BPS")
    assert ".psd is not known here; expected a video file or images" in message(open_frames, tmp_path / "a.psd")


def test_a_video_without_frames_or_without_picture(tmp_path):
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuvj420p"
        container.start_encoding()
    assert "an empty video, 0 frames" in message(open_frames, tmp_path / "a.avi")
    with av.open(str(tmp_path / "b.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
    assert "has no picture" in message(open_frames, tmp_path / "b.mkv")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.avi", "a.webm"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_cut_off_video_is_an_error(tmp_path, name, share):
    if name in ("a.avi", "a.webm"):
        codec, pixels = ("mjpeg", "yuvj420p") if name == "a.avi" else ("libvpx-vp9", "yuv420p")
        encode(tmp_path / name, clip(20), codec, pixels, full=name == "a.avi")
    else:
        write_clip(tmp_path / name, clip(20), 24)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    text = message(open_frames, tmp_path / name)
    assert "frames could be read" in text or "cannot be read" in text


def test_a_cut_off_mp4_says_how_many_frames_could_be_read(tmp_path):
    write_clip(tmp_path / "a.mp4", clip(20, 48, 64), 24)
    data = (tmp_path / "a.mp4").read_bytes()
    with av.open(str(tmp_path / "a.mp4")) as container:
        entries = container.streams.video[0].index_entries
        ends = sorted(entry.pos + entry.size for entry in entries)
    for end in (ends[-1] - 1, ends[-1] - 50, ends[9] + 20, ends[-2]):
        (tmp_path / "b.mp4").write_bytes(data[:end])
        text = message(open_frames, tmp_path / "b.mp4")
        count = int(text.split(" of 20 frames could be read")[0].rsplit(" ", 1)[1])
        assert 5 <= count < 20


def test_a_video_that_changes_while_it_is_read(tmp_path):
    write_clip(tmp_path / "a.mkv", clip(20), 24)
    frames = open_frames(tmp_path / "a.mkv")
    write_clip(tmp_path / "a.mkv", clip(3), 24, overwrite=True)
    assert "changed while it was being read, at frame 3" in message(frames.__getitem__, slice(0, 9))


def test_frames_of_different_sizes(tmp_path):
    write_image(tmp_path / "0.png", clip(1, 8, 8)[0])
    write_image(tmp_path / "1.png", clip(1, 8, 9)[0])
    assert "1.png: is 9x8 but 0.png is 8x8; save all frames at one size" in message(open_frames, tmp_path)


def test_one_frame_in_two_formats(tmp_path):
    for name in ("0.png", "0.jpg"):
        write_image(tmp_path / name, clip(1)[0])
    assert "holds both 0." in message(open_frames, tmp_path)


def test_a_broken_frame_in_a_folder_is_named(tmp_path):
    write_clip(tmp_path / "a", clip(3), 24)
    whole = (tmp_path / "a" / "000001.png").read_bytes()
    (tmp_path / "a" / "000001.png").write_bytes(b"")
    assert "000001.png: is empty (0 bytes)" in message(open_frames, tmp_path / "a")
    (tmp_path / "a" / "000001.png").write_bytes(whole[:-200])
    assert "000001.png: cannot be read (" in message(open_frames(tmp_path / "a").__getitem__, slice(0, 3))


def test_float_images_are_refused(tmp_path):
    Image.new("F", (3, 3)).save(tmp_path / "a.tif")
    assert "is saved as F pixels; save it as 8 or 16 bit" in message(read_image, tmp_path / "a.tif")


# ----------------------------------------------------------------------------------------------------- output that is refused

OUTPUTS = ["a.mp4", "a.mkv", "a.mov", "a.png", "folder/"]


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_existing_output_is_refused_before_any_work_and_replaced_with_overwrite(tmp_path, name):
    path = f"{tmp_path}/{name}"
    write_clip(path, flats(8)[:1], 24)
    assert "exists; add --overwrite" in message(ClipWriter, path, 32, 32, 24)
    write_clip(path, flats(8)[3:4], 24, overwrite=True)
    assert off_by(open_frames(path)[:], flats(8)[3:4]) <= 2
    assert os.listdir(tmp_path) == [name.rstrip("/")]


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_an_interrupted_output_leaves_what_was_there(tmp_path, name, error):
    path = f"{tmp_path}/{name}"
    write_clip(path, flats(8)[:1], 24)

    def work():
        with ClipWriter(path, 32, 32, 24, overwrite=True) as out:
            out.write(flats(8)[3])
            raise error

    with pytest.raises(error):
        work()
    assert os.listdir(tmp_path) == [name.rstrip("/")]
    assert off_by(open_frames(path)[:], flats(8)[:1]) <= 2


def test_ctrl_c_in_a_real_process_leaves_nothing(tmp_path):
    program = (
        "import signal, sys, time, numpy as np; from timecolor.media import ClipWriter\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"with ClipWriter({str(tmp_path / 'a.mp4')!r}, 32, 32, 24) as out:\n"
        "    out.write(np.zeros((32, 32, 3), np.uint8)); sys.stdout.write('x'); sys.stdout.flush(); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_full_disk_is_told_and_nothing_is_left(tmp_path, name):
    """The system refuses to write beyond a file size, wherever in the file that comes."""
    frames = clip(1 if name == "a.png" else 8, 64, 64)
    write_clip(f"{tmp_path}/whole-{name}", frames, 24)
    written = tmp_path / f"whole-{name}"
    whole = (written / "000003.png" if name == "folder/" else written).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 100, whole // 2, whole - 300, whole - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            text = message(write_clip, f"{tmp_path}/{name}", frames, 24)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "the disk is full after" in text, (limit, text)
        assert os.listdir(tmp_path) == [written.name]


def test_no_space_is_told_as_a_full_disk(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(media.os, "fsync", full)
    for write in (lambda: write_clip(tmp_path / "a.mkv", clip(2), 24), lambda: write_image(tmp_path / "a.png", clip(1)[0])):
        assert re.search("the disk is full.*No space left on device.*nothing was changed", message(write))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", OUTPUTS)
def test_places_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    assert "cannot be written" in message(ClipWriter, f"{tmp_path}/file/sub/{name}", 8, 8, 24)
    assert "cannot be written (" in message(ClipWriter, f"/proc/{name}", 8, 8, 24)
    assert (tmp_path / "file").read_text() == "mine"


def test_names_that_say_no_format(tmp_path):
    assert "cannot write .gif; use .png, .mp4, .mkv, .mov, or a folder" in message(ClipWriter, tmp_path / "a.gif", 8, 8, 24)
    assert ".mp4 has no transparency; use .mkv" in message(ClipWriter, tmp_path / "a.mp4", 8, 8, 24, alpha=True)
    assert "use .png, .webp, .jpg" in message(write_image, tmp_path / "a.gif", clip(1)[0])
    assert "JPEG has no transparency" in message(write_image, tmp_path / "a.jpg", np.zeros((2, 2, 4), np.uint8))


def test_a_folder_of_other_things_is_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    text = message(ClipWriter, tmp_path / "home", 8, 8, 24, overwrite=True)
    assert "holds 'thesis.txt' and would be replaced" in text
    (tmp_path / "file").write_text("mine")
    assert "is a file" in message(ClipWriter, tmp_path / "file", 8, 8, 24, overwrite=True)
    (tmp_path / "a.png").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert "is a link to a folder; name the folder itself" in message(ClipWriter, tmp_path / "link", 8, 8, 24, True)
    assert "is no name for an output" in message(ClipWriter, "/", 8, 8, 24)
    assert "is a folder; name a file" in message(write_image, tmp_path / "a.png", clip(1)[0], overwrite=True)


def test_frames_of_the_wrong_shape_are_refused(tmp_path):
    with ClipWriter(tmp_path / "a.mp4", 24, 32, 24) as out:
        out.write(clip()[0])
        assert "frame 1 is uint8 (24, 31, 3); expected uint8 (24, 32, 3)" in message(out.write, clip()[0, :, 1:])
    (tmp_path / "a.mp4").unlink()
    assert "frame 0 is float64" in message(write_clip, tmp_path / "a.mkv", clip() / 255, 24)
    assert os.listdir(tmp_path) == []


def test_a_writer_without_frames_saves_nothing(tmp_path):
    assert "no frames were written" in message(ClipWriter(tmp_path / "a.mkv", 8, 8, 24).close)
    assert os.listdir(tmp_path) == []


def test_a_closed_writer_stays_closed(tmp_path):
    out = ClipWriter(tmp_path / "a.mkv", 24, 32, 24)
    out.write(clip()[0])
    out.close()
    out.close()
    assert "is closed after 1 frames" in message(out.write, clip()[0])


def test_missing_folders_of_an_output_are_made(tmp_path):
    write_clip(tmp_path / "new" / "deep" / "a.mkv", clip(), 24)
    write_image(tmp_path / "other" / "a.png", clip(1)[0])
    assert (tmp_path / "new" / "deep" / "a.mkv").is_file()


def test_images_come_back_exactly(tmp_path):
    image = np.dstack([clip(1)[0], clip(1)[0, ..., :1]])
    for name in ("a.png", "a.webp"):
        write_image(tmp_path / name, image)
        rgb, alpha = read_image(tmp_path / name)
        assert np.array_equal(np.dstack([rgb, alpha]), image)
        assert "exists; add --overwrite" in message(write_image, tmp_path / name, image)
    write_image(tmp_path / "a.jpg", flats(8)[5])
    assert off_by(read_image(tmp_path / "a.jpg")[0], flats(8)[5]) <= 2


def test_odd_names_are_only_names(tmp_path):
    for name in ("a:b %d.mkv", "ünï çödé.mp4", "-dash.mov"):
        write_clip(tmp_path / name, flats(8), 24)
        assert open_frames(tmp_path / name).shape == (8, 32, 32, 3)


@pytest.mark.skipif(not (SHARED / "real").is_dir(), reason="no ../shared/real here")
def test_real_clips_are_read():
    for path in sorted((SHARED / "real").glob("*/sketch.mp4")):
        frames = open_frames(path)
        assert frames.shape in ((21, 480, 720, 3), (41, 480, 720, 3))
        assert frames.frame_rate == 15
        assert frames[5:6].max() >= 250
