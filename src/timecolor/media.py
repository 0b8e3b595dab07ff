"""Clips to and from files: PyAV for video, Pillow for stills. One file frame is one drawing; times between frames are not kept.

Reading gives 8-bit RGB whatever the file holds; writing is atomic (a partial sibling is renamed when it is complete).
"""

import contextlib
import difflib
import errno
import glob
import itertools
import os
import re
import shutil
import struct
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import av
import av.error
import cv2
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from PIL import Image, ImageCms

from .shot import Frames

StrPath = str | os.PathLike[str]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".gif", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".ogv", ".mxf", ".y4m"
)  # fmt: skip
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")  # the lossless ones

# swscale's default path rounds down and comes out 1 to 3 levels too dark.
_ACCURATE = (
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
)
_KEPT_BYTES = 64 << 20  # decoded frames a video keeps, so that overlapping windows need no restart
_READ_ERRORS = (OSError, av.error.FFmpegError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_UNTAGGED = (0, 2, 3)  # AVCOL_SPC: RGB (wrong on YUV), unspecified, reserved
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class InputError(ValueError):
    """What the user gave cannot be used: one line with got, expected and remedy."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of `known`, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def parse_frame_rate(value: object) -> Fraction:
    """Frames per second from 24, 23.976, "24000/1001" or a Fraction; the NTSC rates come out exact. Raises InputError."""
    try:
        rate = Fraction(value)  # pyright: ignore[reportArgumentType, reportCallIssue]
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        raise InputError(f"frame rate is {value!r}; give frames per second, such as 24 or 24000/1001") from None
    if not 0 < rate <= 1000:
        raise InputError(f"frame rate is {value}; give frames per second between 0 and 1000")
    ntsc = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return ntsc if rate.denominator > 1 and abs(rate - ntsc) < Fraction(1, 1000) else rate.limit_denominator(100_000)


# ---------------------------------------------------------------------------------------------------------------- reading


class FileFrames(ABC):
    """Frames that stay in their files: a slice reads what it names. Has `shape`, `frame_rate` and `name`."""

    shape: tuple[int, ...]
    frame_rate: Fraction | None = None
    name: str
    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, frames: slice, /) -> np.ndarray:
        """The frames of a slice as one array; raises InputError where a file cannot be read."""
        if not isinstance(frames, slice):
            raise TypeError(f"{self.name}: frames are read by slices, such as [3:4]; got {frames!r}")
        wanted = range(*frames.indices(self.shape[0]))
        out = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        for place, index in enumerate(wanted):
            out[place] = self._frame(index)
        return out

    @abstractmethod
    def _frame(self, index: int) -> np.ndarray: ...


class ImageFrames(FileFrames):
    """An image sequence, read on demand: uint8 (t h w 3). The sizes of all files are checked at once."""

    def __init__(self, paths: list[Path], paper: int = 255, name: str = "") -> None:
        self.paths, self.paper = paths, paper
        self.name = name or str(paths[0])
        self.shape = (len(paths), *_common_size(paths), 3)

    def _frame(self, index: int) -> np.ndarray:
        rgb, alpha = read_image(self.paths[index])
        if rgb.shape != self.shape[1:]:
            raise InputError(f"{self.paths[index]}: changed its size while it was being read")
        return rgb if alpha is None else _on_paper(rgb, alpha, self.paper)


class VideoFrames(FileFrames):
    """A video file as uint8 (t h w 3), decoded as it is read: forwards is O(n), going back starts over.

    Opening decodes it once, so that the number of frames is exact and a cut-off file is found before any work is done.
    Frames are taken as they are: with a variable frame rate, `frame_rate` (None = not told) is the average. Rotation flags and
    pixel aspect are ignored; both fields of an interlaced frame are one drawing. Colours follow the file's matrix and range;
    untagged files are BT.709 from 1280x720 up and BT.601 below, as players take them. Raises InputError.
    """

    def __init__(self, path: StrPath, paper: int = 255) -> None:
        self.path, self.paper = Path(path), paper
        self.name = str(path)
        self._reformatter = VideoReformatter()
        self._decoder: Iterator[VideoFrame] | None = None
        self._next = 0
        self._recent: dict[int, np.ndarray] = {}
        self.shape, self.frame_rate = self._survey()

    def _open(self) -> InputContainer:
        # The prefix keeps a name such as "a:b.mp4" from being read as a protocol.
        return av.open(f"file:{self.path}")

    def _video(self, container: InputContainer) -> VideoStream:
        if not container.streams.video:
            raise InputError(f"{self.path}: has no picture; expected a video file")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        return stream

    def _survey(self) -> tuple[tuple[int, ...], Fraction | None]:
        """Shape and frame rate, by decoding everything once."""
        sizes: dict[tuple[int, int], int] = {}
        packets, end_s, last_s, damage = 0, 0.0, 0.0, ""
        with _reading(self.path), self._open() as container:
            stream = self._video(container)
            rate = next((r for r in (stream.average_rate, stream.guessed_rate) if r and 0 < r <= 1000), None)
            try:
                for packet in container.demux():
                    if packet.is_corrupt:  # shorter than announced
                        damage = "the file ends in the middle of a frame"
                        break
                    if packet.pts is not None and packet.time_base is not None:
                        last_s = float((packet.duration or 0) * packet.time_base)
                        end_s = max(end_s, float(packet.pts * packet.time_base) + last_s)
                    if packet.stream_index != stream.index:
                        continue
                    packets += packet.size > 0
                    for frame in stream.decode(packet):
                        sizes[frame.height, frame.width] = sizes.get((frame.height, frame.width), 0) + 1
            except av.error.FFmpegError as error:
                damage = error.strerror or str(error)
            if damage:
                with contextlib.suppress(av.error.FFmpegError):  # what the decoder still holds is whole
                    for frame in stream.codec_context.decode(None):
                        sizes[frame.height, frame.width] = sizes.get((frame.height, frame.width), 0) + 1
            count, announced = sum(sizes.values()), stream.frames
            # An MP4 index says where the last frame should lie; Matroska only says how long the file should be.
            last_byte = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
            if not damage and packets < announced and last_byte > self.path.stat().st_size:
                damage = "the file is shorter than its index says"
            if "matroska" in container.format.name and container.duration:
                whole_s = container.duration / av.time_base
                announced = round(whole_s * rate) if rate else 0
                if not damage and count and end_s < whole_s - 0.75 * (last_s or (1.5 / rate if rate else 0.1)):
                    damage = f"it ends at {end_s:.2f} s of {whole_s:.2f} s"
        if damage:
            of = f" of {announced}" if announced >= count and announced else ""
            raise InputError(
                f"{self.path}: cut off or damaged, {count}{of} frames could be read ({damage}); export or copy it again"
            )
        if not count:
            raise InputError(f"{self.path}: an empty video, 0 frames could be read; expected at least one")
        if len(sizes) > 1:
            found = " and ".join(f"{w}x{h}" for h, w in sizes)
            raise InputError(f"{self.path}: its frames are {found}; save them at one size")
        return (count, *next(iter(sizes)), 3), rate

    def _decode(self) -> Iterator[VideoFrame]:
        with _reading(self.path), self._open() as container:
            yield from container.decode(self._video(container))

    def _frame(self, index: int) -> np.ndarray:
        if index in self._recent:
            return self._recent[index]
        if self._decoder is None or index < self._next:
            self._decoder, self._next = self._decode(), 0
        frame = None
        while self._next <= index:
            frame = next(self._decoder, None)
            self._next += 1
            if frame is None or (frame.height, frame.width) != self.shape[1:3]:
                raise InputError(f"{self.path}: changed while it was being read, at frame {self._next - 1}; start again")
        assert frame is not None
        image = _video_rgb(self._reformatter, frame, self.paper)
        self._recent[index] = image
        while len(self._recent) > max(1, _KEPT_BYTES // image.nbytes):
            del self._recent[next(iter(self._recent))]
        return image


class LabelImages(FileFrames):
    """A label video from grey or palette images, read on demand: integers (t h w)."""

    def __init__(self, paths: list[Path], name: str = "") -> None:
        self.paths = paths
        self.name = name or str(paths[0])
        self.shape = (len(paths), *_common_size(paths))
        if any(_is_16_bit(path) for path in paths):
            self.dtype = np.dtype(np.uint16)

    def _frame(self, index: int) -> np.ndarray:
        path = self.paths[index]
        with _reading(path), Image.open(path) as image:
            raw = str(image.tile[0].args if image.tile else "")
            values = np.asarray(image).astype(np.int64)
            if image.mode == "RGB" and (values == values[..., :1]).all():
                values = values[..., 0]
            elif image.mode not in ("1", "L", "P", "I;16", "I;16B"):
                raise InputError(f"{path}: labels are {image.mode}; save 8 or 16 bit grey, or a palette whose index is the label")
            # Pillow stretches 2 and 4 bit grey to 0..255.
            return values // {"L;2": 85, "L;4": 17}.get(raw, 1)


class _Head(FileFrames):
    def __init__(self, frames: Frames, count: int) -> None:
        self._frames = frames
        self.shape = (count, *frames.shape[1:])
        self.name = getattr(frames, "name", "frames")
        self.frame_rate = getattr(frames, "frame_rate", None)

    def __getitem__(self, frames: slice, /) -> np.ndarray:
        start, stop, step = frames.indices(self.shape[0])
        return self._frames[start:stop:step]

    def _frame(self, index: int) -> np.ndarray:
        return self._frames[index : index + 1][0]


def first_frames(frames: Frames, count: int) -> Frames:
    """The first `count` frames, without reading them."""
    if not 0 < count <= frames.shape[0]:
        raise InputError(f"{count} frames are asked for but there are {frames.shape[0]}")
    return frames if count == frames.shape[0] else _Head(frames, count)


def open_frames(path: StrPath, paper: int = 255) -> FileFrames:
    """A clip, read in slices as uint8 (t h w 3), from a video file, a folder of images, a glob of images, or one image.

    Images go in natural order (2 before 10). Transparency is laid on `paper` (255 = white), since line art often comes on
    transparent cels. Image sequences have no frame rate (None). Raises InputError.
    """
    target = Path(path)
    if target.is_file() and target.suffix.lower() in VIDEO_SUFFIXES:
        _refuse_empty(target)
        return VideoFrames(target, paper)
    return ImageFrames(_image_paths(target, IMAGE_SUFFIXES, "a video file or images"), paper, name=str(path))


def read_image(path: StrPath) -> tuple[np.ndarray, np.ndarray | None]:
    """One image as uint8 RGB (h w 3) and its alpha (h w), None = opaque. Raises InputError.

    16 bits are scaled (divided by 257), EXIF orientation is applied, palettes are looked up, CMYK and embedded colour profiles
    are turned into sRGB. The colours below transparent pixels are kept.
    """
    path = _existing(Path(path))
    with _reading(path), Image.open(path) as image:
        profile = image.info.get("icc_profile")
        turn = _ORIENTATIONS.get(_orientation(image))
        flat = _from_16_bit(path) if "16" in str(image.tile[0].args if image.tile else "") else image
        if flat.mode in ("I", "F", "LAB", "HSV"):
            raise InputError(f"{path}: is saved as {flat.mode} pixels; save it as 8 or 16 bit RGB or grey")
        alpha = None
        if flat.has_transparency_data:
            flat = flat.convert("RGBA")
            alpha = flat.getchannel("A")
        rgb = _to_srgb(flat, profile)
        if turn is not None:
            rgb = rgb.transpose(turn)
            alpha = alpha.transpose(turn) if alpha else None
        opaque = alpha is None or alpha.getextrema()[0] == 255
        return np.array(rgb), None if opaque else np.array(alpha)


def read_labels(path: StrPath) -> Frames:
    """A label video, integers (t h w): `.npz` with the key `mask` (the authors' format), or a folder or glob of label images.

    Grey values, or palette indices (not their colours), are the labels. Raises InputError.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        if path.suffix.lower() in VIDEO_SUFFIXES or path.suffix.lower() in (".jpg", ".jpeg", ".webp"):
            raise InputError(f"{path}: labels must be exact; save an .npz with the key 'mask', or grey PNGs")
        return LabelImages(_image_paths(path, LABEL_SUFFIXES, ".npz or label images"), name=str(path))
    _refuse_empty(_existing(path))
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "mask" not in archive.files:
                raise InputError(f"{path}: holds {', '.join(map(repr, archive.files)) or 'nothing'}; expected the key 'mask'")
            mask = archive["mask"]
    except InputError:
        raise
    except (*_READ_ERRORS, zipfile.BadZipFile, KeyError) as error:
        raise InputError(
            f"{path}: cannot be read as .npz ({_reason(error)}); save it again with numpy.savez(path, mask=labels)"
        ) from error
    if mask.ndim != 3 or mask.dtype.kind not in "iub" or mask.size == 0:
        raise InputError(f"{path}: 'mask' is {mask.dtype} {mask.shape}; expected integers (frames, height, width)")
    for extreme in (int(mask.min()), int(mask.max())):
        if not 0 <= extreme <= 65535:
            raise InputError(f"{path}: 'mask' holds {extreme}; labels are 0 to 65535")
    return mask.astype(np.min_scalar_type(int(mask.max())))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts names as people count: frame2 before frame10."""
    return [(0, int(part), part) if part.isdigit() else (1, 0, part.lower()) for part in re.split(r"([0-9]+)", name) if part]


def _image_paths(path: Path, suffixes: tuple[str, ...], expected: str) -> list[Path]:
    """The images of a folder, a glob or one file, in natural order."""
    if path.is_dir():
        paths = [p for p in path.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith(".") and p.is_file()]
        if not paths:
            raise InputError(f"{path}: the folder holds no images; expected {', '.join(suffixes)}")
    elif path.is_file():
        if path.suffix.lower() not in suffixes:
            raise InputError(
                f"{path}: {path.suffix or 'no suffix'} is not known here; expected {expected} ({', '.join(suffixes)})"
            )
        paths = [path]
    elif glob.has_magic(str(path)):
        paths = [Path(p) for p in glob.glob(str(path)) if Path(p).suffix.lower() in suffixes]
        if not paths:
            raise InputError(f"{path}: matches no images; expected {', '.join(suffixes)}")
    else:
        paths = [_existing(path)]
    paths.sort(key=lambda p: natural_key(p.name))
    for first, second in itertools.pairwise(paths):
        if first.parent == second.parent and first.stem == second.stem:
            raise InputError(f"{path}: holds both {first.name} and {second.name}; keep one of each frame")
    return paths


def _existing(path: Path) -> Path:
    if path.exists():
        return path
    siblings = os.listdir(path.parent) if path.parent.is_dir() else []
    raise InputError(f"{path}: no such file{did_you_mean(path.name, siblings)}")


def _refuse_empty(path: Path) -> None:
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes); export or copy it again")


def _reason(error: BaseException) -> str:
    text = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"cannot identify image file.*", "not an image", text)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what Pillow, PyAV and the system raise into one line."""
    try:
        _refuse_empty(path)
        yield
    except InputError:
        raise
    except _READ_ERRORS as error:
        raise InputError(
            f"{path}: cannot be read ({_reason(error)}); expected a whole image or video; export it again"
        ) from error


def _common_size(paths: list[Path]) -> tuple[int, int]:
    """(height, width) of all images, from their headers."""
    first: tuple[int, int] | None = None
    for path in paths:
        with _reading(path), Image.open(path) as image:
            width, height = image.size
            if _orientation(image) >= 5:
                width, height = height, width
        if first is not None and (height, width) != first:
            raise InputError(
                f"{path}: is {width}x{height} but {paths[0].name} is {first[1]}x{first[0]}; save all frames at one size"
            )
        first = (height, width)
    assert first is not None
    return first


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 = upright, from the header alone; Pillow would decode a whole PNG to look behind its pixels."""
    return 1 if image.format == "PNG" and "exif" not in image.info else image.getexif().get(0x0112, 1)


def _is_16_bit(path: Path) -> bool:
    with _reading(path), Image.open(path) as image:
        return image.mode.startswith("I;16")


def _from_16_bit(path: Path) -> Image.Image:
    """The image with 16 bits scaled to 8; Pillow would cut the lower ones off, or clip."""
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise InputError(f"{path}: its 16 bit pixels cannot be read; save it as 8 bit, or as 16 bit PNG")
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return Image.fromarray(pixels)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB, through the embedded colour profile where it fits the image and is not sRGB already."""
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):  # a broken profile is no reason to lose the image
            embedded = ImageCms.ImageCmsProfile(BytesIO(profile))
            space = cast(Any, embedded.profile).xcolor_space.strip()
            source = image if image.mode == "CMYK" else image.convert("RGB")
            if space == source.mode and "sRGB" not in ImageCms.getProfileDescription(embedded):
                converted = ImageCms.profileToProfile(source, embedded, ImageCms.createProfile("sRGB"), outputMode="RGB")
                return converted if converted is not None else source.convert("RGB")
    return image.convert("RGB")


def _on_paper(rgb: np.ndarray, alpha: np.ndarray, paper: int) -> np.ndarray:
    opacity = alpha[..., None].astype(np.uint32)
    return ((rgb * opacity + paper * (255 - opacity) + 127) // 255).astype(np.uint8)


def _video_rgb(reformatter: VideoReformatter, frame: VideoFrame, paper: int) -> np.ndarray:
    """One decoded frame as uint8 RGB (h w 3)."""
    matrix = None
    if not frame.format.is_rgb and frame.colorspace in _UNTAGGED:
        matrix = Colorspace.ITU709 if frame.height >= 720 or frame.width >= 1280 else Colorspace.ITU601
    has_alpha = any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8"
    converted = reformatter.reformat(
        frame,
        format="rgba" if has_alpha else "rgb24",
        src_colorspace=matrix,
        dst_color_range=ColorRange.JPEG,
        interpolation=_ACCURATE,
    ).to_ndarray()
    return _on_paper(converted[..., :3], converted[..., 3], paper) if has_alpha else converted


# ---------------------------------------------------------------------------------------------------------------- writing


class _VideoSink:
    """Encodes frames into one file: .mp4 H.264, .mkv FFV1 (exact), .mov ProRes 4444."""

    def __init__(self, partial: Path, suffix: str, height: int, width: int, rate: Fraction, alpha: bool) -> None:
        container, codec, options = _VIDEO_CODECS[suffix]
        odd = height % 2 or width % 2
        self._format = {
            ".mp4": "yuv444p" if odd else "yuv420p",
            ".mkv": "bgra" if alpha else "bgr0",
            ".mov": "yuva444p10le" if alpha else "yuv444p10le",
        }[suffix]
        self._time_base = 1 / rate
        self._reformatter = VideoReformatter()
        muxing = {"fflags": "+bitexact"}  # no random ids: the same frames give the same bytes
        if suffix == ".mp4":
            muxing["movflags"] = "+faststart"
        self._container = av.open(f"file:{partial}", "w", format=container, options=muxing)
        self._stream = cast(VideoStream, self._container.add_stream(codec, rate=rate, options=options))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, self._format
        context = self._stream.codec_context
        context.color_primaries = 1  # BT.709, the same as sRGB's
        if suffix == ".mkv":
            context.color_range, context.colorspace, context.color_trc = 2, 0, 13  # full range, RGB, sRGB
        else:
            context.color_range, context.colorspace, context.color_trc = 1, 1, 1  # limited range, BT.709

    def write(self, frame: np.ndarray, index: int) -> None:
        if self._format in ("yuv420p", "yuv444p"):
            picture = VideoFrame.from_ndarray(_to_bt709(frame, subsampled=self._format == "yuv420p"), format=self._format)
        else:
            source = VideoFrame.from_ndarray(frame, format="rgba" if frame.shape[2] == 4 else "rgb24")
            yuv = self._format.startswith("yuv")
            picture = self._reformatter.reformat(
                source,
                format=self._format,
                dst_colorspace=Colorspace.ITU709 if yuv else None,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG if yuv else ColorRange.JPEG,
                interpolation=_ACCURATE,
            )
        picture.pts, picture.time_base = index, self._time_base
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def drop(self) -> None:
        # Not flushed: muxing again after a header that could not be written crashes inside FFmpeg.
        self._container.close()


class _PngSink:
    """Writes frames exactly: one as one PNG, or any number as 000000.png, 000001.png ... in a folder."""

    def __init__(self, partial: Path, folder: bool) -> None:
        self._partial, self._folder = partial, folder
        if folder:
            partial.mkdir()

    def write(self, frame: np.ndarray, index: int) -> None:
        if index and not self._folder:
            raise InputError("a .png holds one frame; for a clip name a folder (ending in /), .mkv, .mov or .mp4")
        target = self._partial / f"{index:06d}.png" if self._folder else self._partial
        Image.fromarray(frame).save(target, format="PNG", compress_level=3)

    def close(self) -> None:
        pass

    def drop(self) -> None:
        pass


# container, codec, codec options. At crf 6 and "slow", 99.9 % of the flat area of a drawn shot is within 2 even through a decoder
# that rounds down. With x264's mbtree, the same frames gave other bytes from run to run. The chroma of `_to_bt709` sits in the
# middle of its four pixels, so that is what mp4 says.
_X264 = {"crf": "6", "preset": "slow", "tune": "animation", "mbtree": "0", "chroma_sample_location": "center"}
_VIDEO_CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    ".mp4": ("mp4", "libx264", _X264),
    ".mkv": ("matroska", "ffv1", {"level": "3", "g": "1", "slicecrc": "1"}),
    ".mov": ("mov", "prores_ks", {"profile": "4", "vendor": "apl0", "qscale": "4"}),
}


class ClipWriter:
    """Writes a clip frame by frame, so that a long one need not lie in memory: `with ClipWriter(...) as out: out.write(frame)`.

    The format follows the name: `.mp4` (H.264, plays everywhere, flat colours within 2/255), `.mkv` (FFV1, exact), `.mov`
    (ProRes 4444), `.png` (one frame, exact), or a folder of PNGs (no suffix, or ending in "/"; exact). `.mp4` is 4:2:0; with an
    odd height or width it is 4:4:4, so that the file has exactly that size (fewer players show it).

    Everything that can be refused is refused here, before any work; an existing output stays untouched until the new one is
    complete, and nothing half-written is ever left under the final name. Raises InputError.
    """

    def __init__(
        self,
        path: StrPath,
        height: int,
        width: int,
        frame_rate: Fraction | float | int,
        overwrite: bool = False,
        alpha: bool = False,
    ) -> None:
        self.path = Path(path)
        self.frames = 0
        self._shape = (height, width, 4 if alpha else 3)
        self._rate = parse_frame_rate(frame_rate)
        self._alpha = alpha
        self._suffix = self.path.suffix.lower()
        if os.fspath(path).endswith(("/", os.sep)) or self.path.is_dir():
            self._suffix = ""
        self._sink: _VideoSink | _PngSink | None = None
        known = ("", ".png", *_VIDEO_CODECS)
        if self._suffix not in known:
            raise InputError(
                f"{path}: cannot write {self._suffix}; use {', '.join(known[1:])}, or a folder of PNGs (end it in /)"
            )
        if alpha and self._suffix == ".mp4":
            raise InputError(f"{path}: .mp4 has no transparency; use .mkv, .mov or a folder of PNGs (end it in /)")
        if height < 1 or width < 1:
            raise InputError(f"{path}: frames are {width}x{height}; they need at least one pixel")
        _check_output(self.path, overwrite, folder=self._suffix == "")
        self._partial = _partial_of(self.path)

    def __enter__(self) -> "ClipWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, frame: np.ndarray) -> None:
        """Append one frame, uint8 (h w 3), or (h w 4) with alpha."""
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise InputError(f"{self.path}: frame {self.frames} is {frame.dtype} {frame.shape}; expected uint8 {self._shape}")
        if self._sink is None and self.frames:
            raise InputError(f"{self.path}: is closed after {self.frames} frames; open another writer")
        with self._writing():
            if self._sink is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._sink = self._open()
            self._sink.write(np.ascontiguousarray(frame), self.frames)
        self.frames += 1

    def close(self) -> None:
        """Complete the file and give it its name; without effect the second time."""
        if self._sink is None and self.frames:
            return
        if self._sink is None:
            raise InputError(f"{self.path}: no frames were written, so there is nothing to save")
        with self._writing():
            self._sink.close()
            if self._suffix:
                _flush_to_disk(self._partial)
            _replace(self._partial, self.path)
            self._sink = None

    def abort(self) -> None:
        """Drop what was written; what lay under the final name stays."""
        sink, self._sink = self._sink, None
        if sink is not None:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                sink.drop()
        _remove(self._partial)

    def _open(self) -> _VideoSink | _PngSink:
        _remove(self._partial)
        if self._suffix not in _VIDEO_CODECS:
            return _PngSink(self._partial, folder=self._suffix == "")
        height, width = self._shape[:2]
        return _VideoSink(self._partial, self._suffix, height, width, self._rate, self._alpha)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with _writing(self.path, f" after {self.frames} frames"):
                yield
        except BaseException:
            self.abort()
            raise


def write_clip(path: StrPath, frames: Frames, frame_rate: Fraction | float | int, overwrite: bool = False) -> None:
    """Write uint8 frames (t h w 3) or (t h w 4) as `ClipWriter` does, a few at a time."""
    count, height, width, channels = frames.shape
    with ClipWriter(path, height, width, frame_rate, overwrite, alpha=channels == 4) as writer:
        for start in range(0, count, 8):
            for frame in frames[start : start + 8]:
                writer.write(frame)


def write_image(path: StrPath, image: np.ndarray, overwrite: bool = False) -> None:
    """Write uint8 (h w 3), (h w 4) or grey (h w) as .png (exact), .webp (exact) or .jpg, atomically. Raises InputError."""
    target = Path(path)
    formats = {".png": ("PNG", {}), ".webp": ("WEBP", {"lossless": True, "exact": True})}
    formats |= dict.fromkeys((".jpg", ".jpeg"), ("JPEG", {"quality": 95, "subsampling": 0}))
    if target.suffix.lower() not in formats:
        raise InputError(f"{path}: cannot write {target.suffix or 'a name without a suffix'}; use {', '.join(formats)}")
    kind, options = formats[target.suffix.lower()]
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise InputError(f"{path}: the image is {image.dtype} {image.shape}; expected uint8 (h, w, 3)")
    if kind == "JPEG" and image.ndim == 3 and image.shape[2] == 4:
        raise InputError(f"{path}: JPEG has no transparency; use .png or .webp")
    _check_output(target, overwrite, folder=False)
    partial = _partial_of(target)
    try:
        with _writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(image)).save(partial, format=kind, **options)
            _flush_to_disk(partial)
            _replace(partial, target)
    finally:
        _remove(partial)


def _to_bt709(rgb: np.ndarray, subsampled: bool) -> np.ndarray:
    """uint8 RGB (h w 3) as limited-range BT.709 planes, laid out as PyAV wants yuv420p (3h/2 w) or yuv444p (3 h w).

    Chroma is rounded first, then luma is moved to share the rounding error evenly among R, G and B: a flat colour comes back
    within 1 from an exact decoder (2 with plain rounding). swscale's default 4:2:0 path, which OpenCV and most tools read with,
    rounds every product down; where that would cost more than 2, luma goes one step up.
    """
    height, width = rgb.shape[:2]
    pixels = rgb.astype(np.float32)
    luma = cv2.transform(pixels, _TO_YCC[:1]).reshape(height, width)
    if subsampled:
        pixels = cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    exact = cv2.transform(pixels, _TO_YCC[1:]).reshape(*pixels.shape[:2], 2) / _CHROMA_STEP
    chroma = np.rint(exact)
    error = cv2.transform((chroma - exact) * _CHROMA_STEP, _CHROMA_TO_RGB)  # of R, G and B
    middle = (error.max(-1) + error.min(-1)) / 2
    target = luma - _spread(middle, subsampled)
    code = np.rint(target / _LUMA_STEP + 16)
    if subsampled:
        products = chroma[..., [1, 0, 1, 0]] * _PRODUCTS
        lost = products - np.floor(products)
        error -= np.stack([lost[..., 0], lost[..., 1] + lost[..., 2], lost[..., 3]], axis=-1)
        worst = _spread(error.min(-1) - middle, subsampled) + np.floor((code - 16) * _LUMA_STEP) - target
        code += worst < -2.4
    planes = np.clip(code, 16, 235).astype(np.uint8), np.clip(chroma + 128, 16, 240).astype(np.uint8)
    if subsampled:
        flat = np.concatenate([planes[0].ravel(), planes[1][..., 0].ravel(), planes[1][..., 1].ravel()])
        return flat.reshape(height * 3 // 2, width)
    return np.stack([planes[0], planes[1][..., 0], planes[1][..., 1]])


def _spread(blocks: np.ndarray, subsampled: bool) -> np.ndarray:
    return blocks.repeat(2, axis=0).repeat(2, axis=1) if subsampled else blocks


_KR, _KB = 0.2126, 0.0722  # BT.709
_KG = 1 - _KR - _KB
_TO_YCC = np.array(
    [
        [_KR, _KG, _KB],
        [-_KR / (2 - 2 * _KB), -_KG / (2 - 2 * _KB), 0.5],
        [0.5, -_KG / (2 - 2 * _KR), -_KB / (2 - 2 * _KR)],
    ],
    np.float32,
)
_CHROMA_TO_RGB = np.linalg.inv(_TO_YCC.astype(np.float64))[:, 1:].astype(np.float32)
_LUMA_STEP, _CHROMA_STEP = np.float32(255 / 219), np.float32(255 / 224)  # levels of RGB for one step of the code
# The products a decoder adds to luma: Cr in R, Cb in G, Cr in G, Cb in B.
_PRODUCTS = _CHROMA_TO_RGB[[0, 1, 1, 2], [1, 0, 1, 0]] * _CHROMA_STEP


def _check_output(path: Path, overwrite: bool, folder: bool) -> None:
    """Refuses, before any work, an output that exists or cannot be written."""
    if path.name in ("", ".."):
        raise InputError(f"{path}: is no name for an output; name a file or a new folder")
    if path.is_dir() and path.is_symlink():
        raise InputError(f"{path}: is a link to a folder; name the folder itself")
    if path.is_dir():
        if not folder:
            raise InputError(f"{path}: is a folder; name a file")
        others = [p.name for p in path.iterdir() if not re.fullmatch(r"[0-9]+\.png", p.name)]
        if others:
            raise InputError(f"{path}: the folder holds {others[0]!r} and would be replaced; name a new folder")
        if not overwrite and any(path.iterdir()):
            raise InputError(f"{path}: exists; add --overwrite to replace it, or name another output")
    elif path.exists() or path.is_symlink():
        if folder:
            raise InputError(f"{path}: is a file, so it cannot be a folder of PNGs; name another output")
        if not overwrite:
            raise InputError(f"{path}: exists; add --overwrite to replace it, or name another output")
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    with _writing(path):
        if not parent.is_dir():
            raise InputError(f"{path}: cannot be written, since {parent} is a file; name another output")
        tempfile.TemporaryFile(dir=parent).close()


@contextlib.contextmanager
def _writing(path: Path, when: str = "") -> Iterator[None]:
    """Turns what Pillow, PyAV and the system raise into one line."""
    try:
        yield
    except InputError:
        raise
    except (OSError, av.error.FFmpegError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "free some space or name an output elsewhere; nothing was changed"
            raise InputError(f"{path}: the disk is full{when} ({_reason(error)}); {remedy}") from error
        raise InputError(
            f"{path}: cannot be written{when} ({_reason(error)}); name an output elsewhere; nothing was changed"
        ) from error


def _partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial-{os.getpid()}")


def _flush_to_disk(path: Path) -> None:
    # Some file systems tell only here that they are full.
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _replace(partial: Path, path: Path) -> None:
    if not path.is_dir():
        os.replace(partial, path)
        return
    old = path.with_name(f".{path.name}.old-{os.getpid()}")
    os.rename(path, old)
    try:
        os.rename(partial, path)
    except BaseException:
        os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
