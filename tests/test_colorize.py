"""The whole way from a shot to coloured frames, on a tiny model with random weights."""

import inspect
import os
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY, painted_image, sketch_clip, tiny_toon
from safetensors.torch import load_file, save_file

import timecolor
from timecolor import codec, colorize, matching, weights
from timecolor.colorize import READ_AT_ONCE, Cancelled, ColorizeOptions, Colorizer, Coloured, Progress
from timecolor.finish import Finisher
from timecolor.geometry import Clip
from timecolor.matching import Area, Carrier, Recoloured
from timecolor.models import ToonModel
from timecolor.shot import Labels, Reference, Shot
from timecolor.toon import Toon

RAW = ColorizeOptions(lines="model")


@pytest.fixture
def colorizer(tiny_weights) -> Colorizer:
    return Colorizer.load(tiny_weights, "cpu", "float32")


def references(count: int) -> list[Reference]:
    return [Reference(painted_image(i), name=f"{i}.png") for i in range(count)]


def halves(frames: int = 3, height: int = 48, width: int = 64) -> np.ndarray:
    """Label 0 on the left, 1 on the right."""
    video = np.zeros((frames, height, width), np.uint8)
    video[:, :, width // 2 :] = 1
    return video


def furthest(a: np.ndarray, b: np.ndarray) -> int:
    """Largest difference of two clips, in levels of 255."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def events(colorizer: Colorizer, shot: Shot, options: ColorizeOptions = RAW) -> list[Progress | Coloured]:
    return list(colorizer.stream(shot, options))


@pytest.fixture
def drawings_run(monkeypatch) -> list[int]:
    """Number of drawings of every call of the network's `prepare`."""
    counts: list[int] = []
    prepare = Toon.prepare

    def counted(self, conditions):
        counts.append(conditions.layout.grid.frames)
        return prepare(self, conditions)

    monkeypatch.setattr(Toon, "prepare", counted)
    return counts


# ----------------------------------------------------------------------------------------------------------------- what comes out


@pytest.mark.parametrize(("frames", "height", "width"), [(3, 48, 64), (1, 37, 53), (2, 101, 33), (1, 8, 8), (4, 9, 120)])
def test_output_has_the_sketchs_frames_and_size(colorizer, frames, height, width):
    shot = Shot(sketch_clip(frames, height, width), references(1))
    for options in (ColorizeOptions(), RAW):
        coloured = colorizer.colorize(shot, options)
        assert coloured.shape == (frames, height, width, 3)
        assert coloured.dtype == np.uint8


@pytest.mark.parametrize("count", [0, 1, 9])
def test_any_number_of_references_takes_the_same_path(colorizer, count):
    coloured = colorizer.colorize(Shot(sketch_clip(), references(count)))
    assert coloured.shape == (3, 48, 64, 3)


def test_references_of_any_size_and_shape_are_taken(colorizer):
    cut_out = np.zeros((70, 20), np.uint8)
    cut_out[10:60, 5:15] = 255
    odd = [Reference(painted_image(1, 3, 300)), Reference(painted_image(2, 1, 1)), Reference(painted_image(3, 70, 20), cut_out)]
    assert colorizer.colorize(Shot(sketch_clip(), odd)).shape == (3, 48, 64, 3)


def test_the_artists_lines_stay_untouched(colorizer):
    sketch = sketch_clip()
    black = (sketch == 0).all(axis=3)
    assert black.sum() > 100
    assert not colorizer.colorize(Shot(sketch, references(1)))[black].any()
    assert colorizer.colorize(Shot(sketch, references(1)), replace(RAW, lines="none"))[black].any()


def test_order_of_references_is_invisible(colorizer):
    given = references(3)
    for options in (RAW, ColorizeOptions()):
        first = colorizer.colorize(Shot(sketch_clip(), given), options)
        assert furthest(first, colorizer.colorize(Shot(sketch_clip(), [given[2], given[0], given[1]]), options)) <= 1
    assert furthest(first, colorizer.colorize(Shot(sketch_clip(), given[:1]), ColorizeOptions())) > 1


def test_one_seed_gives_one_result_and_another_seed_another(colorizer):
    shot = Shot(sketch_clip(), references(2))
    first = colorizer.colorize(shot, RAW)
    assert np.array_equal(first, colorizer.colorize(shot, RAW))
    assert not np.array_equal(first, colorizer.colorize(shot, replace(RAW, seed=1)))


def test_labels_bind_areas_to_references(colorizer):
    a, b = references(2)
    bound, crossed = {0: (0,), 1: (1,)}, {0: (1,), 1: (0,)}
    first = colorizer.colorize(Shot(sketch_clip(), [a, b], Labels(halves(), bound)), RAW)
    renamed = colorizer.colorize(Shot(sketch_clip(), [b, a], Labels(halves(), crossed)), RAW)
    swapped = colorizer.colorize(Shot(sketch_clip(), [b, a], Labels(halves(), bound)), RAW)
    assert furthest(first, renamed) <= 1
    assert furthest(first, swapped) > 8
    published = colorizer.colorize(Shot(sketch_clip(), [a, b], Labels(halves())), RAW)
    assert np.array_equal(first, published)


def test_a_thin_label_counts_by_coverage_and_not_by_majority(colorizer):
    thin = np.zeros((1, 32, 48), np.uint8)
    thin[:, :, 16:19] = 1  # 3 of a token's 8 pixels
    sketch = sketch_clip(1, 32, 48)

    def coloured(video: np.ndarray, cells: str) -> np.ndarray:
        labels = Labels(video, {0: (0,), 1: (1,)})
        return colorizer.colorize(Shot(sketch, references(2), labels), replace(RAW, cells=cells, size=32))

    assert np.array_equal(coloured(thin, "majority"), coloured(0 * thin, "majority"))
    assert not np.array_equal(coloured(thin, "coverage"), coloured(0 * thin, "coverage"))


def test_both_regimes_and_every_execution_give_a_picture(colorizer):
    shot = Shot(sketch_clip(), references(2), Labels(halves()))
    dense = colorizer.colorize(shot, replace(RAW, execution="dense"))
    assert furthest(dense, colorizer.colorize(shot, replace(RAW, execution="grouped"))) <= 1
    assert colorizer.colorize(shot, replace(RAW, regime="joint")).shape == dense.shape


def test_all_drawings_may_see_one_another(colorizer):
    shot = Shot(sketch_clip(6, step=6), references(1))
    everything = colorizer.colorize(shot, replace(RAW, window="all"))
    assert furthest(everything, colorizer.colorize(shot, replace(RAW, window=6))) <= 1
    assert not np.array_equal(everything, colorizer.colorize(shot, replace(RAW, window=0)))


def test_bfloat16_is_close_to_float32(tiny_weights):
    shot = Shot(sketch_clip(), references(2))
    exact, rough = (Colorizer.load(tiny_weights, "cpu", dtype).colorize(shot, RAW) for dtype in ("float32", "bfloat16"))
    assert np.abs(exact.astype(int) - rough.astype(int)).mean() < 4


# -------------------------------------------------------------------------------------------------------------- lines and colour


def test_a_colour_clip_is_refused_and_its_lines_taken_on_demand(colorizer):
    clip = painted_image(1, 120, 160)[None].repeat(2, 0)
    shot = Shot(clip, references(1), name="run")
    with pytest.raises(ValueError, match=r"run: sketch looks like a colour picture .* --extract-lines"):
        colorizer.colorize(shot)
    clean, thick = (colorizer.colorize(shot, ColorizeOptions(extract_lines=True, sketch_style=s)) for s in ("clean", "thick"))
    assert clean.shape == clip.shape
    assert (clean == 0).all(axis=3).any()
    assert not np.array_equal(clean, thick)


# ------------------------------------------------------------------------------------------------------------------- long shots


class Watched:
    """A clip that records the longest slice that was read."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames, self.longest = frames, 0
        self.shape = frames.shape

    def __getitem__(self, frames: slice) -> np.ndarray:
        self.longest = max(self.longest, len(range(*frames.indices(self.shape[0]))))
        return self.frames[frames]


@pytest.mark.parametrize("count", [0, 2])
def test_a_long_shot_in_pieces_equals_the_whole(colorizer, monkeypatch, drawings_run, count):
    """Without references every colour is generated, and a drawing's neighbours change it by tens of levels."""
    shot = Shot(sketch_clip(30), references(count))
    whole = colorizer.colorize(shot, RAW)
    assert drawings_run == [30]
    drawings_run.clear()
    monkeypatch.setattr(colorize, "PIECE_TOKENS", 1)
    assert furthest(whole, colorizer.colorize(shot, RAW)) <= 1
    assert len(drawings_run) > 3
    assert max(drawings_run) <= 12  # 4 with what 2 layers in 2 steps reach to either side


def test_joint_is_not_cut(colorizer, monkeypatch, drawings_run):
    """There, references carry news from any frame to any other, however narrow the window."""
    monkeypatch.setattr(colorize, "PIECE_TOKENS", 1)
    colorizer.colorize(Shot(sketch_clip(20), references(2)), replace(RAW, regime="joint"))
    assert drawings_run == [20]


def test_frames_and_labels_are_read_a_few_at_a_time(colorizer, monkeypatch):
    monkeypatch.setattr(colorize, "PIECE_TOKENS", 1)
    sketch, labels = Watched(sketch_clip(40, step=1)), Watched(halves(40))
    frames = [e for e in events(colorizer, Shot(sketch, references(2), Labels(labels))) if isinstance(e, Coloured)]
    assert [f.index for f in frames] == list(range(40))
    assert 0 < sketch.longest <= READ_AT_ONCE
    assert 0 < labels.longest <= READ_AT_ONCE


def test_held_drawings_are_coloured_once(colorizer, drawings_run):
    on_threes = sketch_clip(3, step=6).repeat(3, axis=0)
    coloured = colorizer.colorize(Shot(on_threes, references(1)))
    assert drawings_run == [3]
    assert np.array_equal(coloured[::3].repeat(3, axis=0), coloured)


def test_held_frames_are_finished_once(colorizer, monkeypatch):
    finished: list[np.ndarray] = []
    finish = Finisher.__call__

    def counted(self, colours, sketch, *rest):
        finished.append(sketch)
        return finish(self, colours, sketch, *rest)

    monkeypatch.setattr(Finisher, "__call__", counted)
    frames, labels = sketch_clip(1).repeat(5, axis=0), halves(5)
    frames[2:][frames[2:] < 100] += 10  # a coder's noise: the same drawing, but lines stay as they are to the byte
    labels[4, 5, 5] = 1
    made = colorizer.colorize(Shot(frames, references(2), Labels(labels)), ColorizeOptions(lines="keep"))
    assert sorted(np.array_equal(sketch, frames[0]) for sketch in finished) == [False, False, True]  # 0, 2 and 4
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[2], made[3])
    assert not np.array_equal(made[1], made[2])


@pytest.mark.parametrize("lines", ["keep", "match"])
def test_frames_finished_at_once_are_those_finished_one_by_one(hinted, monkeypatch, lines):
    """On twos and threes, over what is read at once and over pieces, with labels and sheets."""
    monkeypatch.setattr(colorize, "PIECE_TOKENS", 1)
    sketch = sketch_clip(7, 96, 128).repeat([2, 3, 1, 3, 2, 3, 2], axis=0)
    shot = Shot(sketch, references(2), Labels(halves(len(sketch), 96, 128)))
    made = []
    for cores in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda cores=cores: cores)
        made.append(hinted.colorize(shot, ColorizeOptions(lines=lines)))
    assert np.array_equal(*made)
    assert len(np.unique(made[0].reshape(len(sketch), -1), axis=0)) == 7


def test_a_held_drawing_whose_labels_change_is_coloured_anew(colorizer, drawings_run):
    video = halves(2)
    video[1] = 1 - video[1]
    colorizer.colorize(Shot(sketch_clip(1).repeat(2, axis=0), references(2), Labels(video)))
    assert drawings_run == [2]


def test_progress_tells_every_stage_in_order_to_its_end(colorizer, monkeypatch):
    monkeypatch.setattr(colorize, "PIECE_TOKENS", 1)
    told = []
    colorizer.colorize(Shot(sketch_clip(20, step=1), references(1)), progress=told.append)
    assert list(dict.fromkeys(e.stage for e in told)) == ["reading", "matching", "preparing", "sampling", "finishing"]
    for stage in ("reading", "matching", "preparing", "sampling", "finishing"):
        of_stage = [e for e in told if e.stage == stage]
        done = [e.done for e in of_stage]
        assert done == sorted(done)
        assert done[-1] == of_stage[-1].total
        assert len({e.total for e in of_stage}) == 1


def test_whoever_reads_the_stream_keeps_its_own_gradients(colorizer):
    for _ in colorizer.stream(Shot(sketch_clip(1), references(1))):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_cancelling_stops_at_the_next_event(colorizer):
    told = []
    with pytest.raises(Cancelled):
        colorizer.colorize(Shot(sketch_clip(20), references(1)), RAW, told.append, lambda: len(told) == 4)
    assert len(told) == 4


# ----------------------------------------------------------------------------------------------------------------- what cannot be


def test_a_sketch_smaller_than_a_token_is_refused(colorizer):
    for height, width in ((1, 1), (1, 300), (7, 64)):
        blank = np.full((1, height, width, 3), 255, np.uint8)
        with pytest.raises(ValueError, match=f"dot: sketch is {width}x{height} pixels; give at least 8x8"):
            colorizer.colorize(Shot(blank, references(1), name="dot"))


def test_values_that_are_not_finite_stop_the_work(colorizer):
    with torch.no_grad():
        colorizer.model.denoiser.final.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite at step 1 of 2; try --dtype float32"):
        colorizer.colorize(Shot(sketch_clip(), references(1)))


def test_too_little_memory_names_what_would_fit(colorizer, monkeypatch):
    shot, wanted = Shot(sketch_clip(40, step=1), references(1)), ColorizeOptions(size=256, window="all")
    small = colorizer.need(Clip(40, 48, 64), 1, ColorizeOptions(size=128, window=1)).memory_bytes
    monkeypatch.setattr(colorize, "_free_bytes", lambda device: small)
    with pytest.raises(MemoryError, match=r"the job needs .* GiB but .* GiB are free; size 128 with window 1 would fit"):
        colorizer.colorize(shot, wanted)
    assert colorizer.colorize(shot, ColorizeOptions(size=128)).shape == shot.sketch.shape
    narrower = colorizer.need(Clip(40, 48, 64), 1, replace(wanted, window=1)).memory_bytes
    monkeypatch.setattr(colorize, "_free_bytes", lambda device: narrower)
    with pytest.raises(MemoryError, match="size 256 with window 1 would fit"):
        colorizer.check(shot, wanted)
    monkeypatch.setattr(colorize, "_free_bytes", lambda device: 1)
    with pytest.raises(MemoryError, match="free some, or cut the shot"):
        colorizer.check(shot)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_memory_that_runs_out_after_all_is_told_as_such(colorizer, monkeypatch, error):
    def full(self, latents, timestep, cache):
        raise error

    monkeypatch.setattr(Toon, "predict", full)
    with pytest.raises(MemoryError, match=r"memory ran out .* give a smaller size or window"):
        colorizer.colorize(Shot(sketch_clip(), references(1)))


def test_a_label_without_a_reference_is_refused_and_an_explicit_none_is_not(colorizer):
    video = halves()
    video[1, 0, 0] = 200
    with pytest.raises(ValueError, match=r"shot: label 200 \(frame 1\) would take reference 200 but there are 2"):
        colorizer.colorize(Shot(sketch_clip(), references(2), Labels(video)))
    labels = Labels(video, {0: (0,), 1: (1,), 200: ()})
    assert colorizer.colorize(Shot(sketch_clip(), references(2), labels)).shape == (3, 48, 64, 3)


def test_too_many_references_are_refused(colorizer):
    with pytest.raises(ValueError, match="has 63 references; give at most 62"):
        colorizer.check(Shot(sketch_clip(), references(1) * 63))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"steps": 0}, "steps is 0; give a whole number of at least 1"),
        ({"steps": 2.5}, "steps is 2.5; give a whole number"),
        ({"seed": -1}, "seed is -1; give a whole number of at least 0"),
        ({"size": 0}, "size is 0; give a whole number of at least 1, or None"),
        ({"window": -1}, "window is -1; give a whole number of at least 0, or None, or all"),
        ({"window": "few"}, "window is 'few'; give"),
        ({"finish": "flatt"}, "finish is 'flatt'; use one of flat, smooth, auto"),
        ({"cells": "vote"}, "cells is 'vote'; use one of coverage, majority"),
        ({"extract_lines": "thick"}, "extract_lines is 'thick'; give true or false"),
        ({"sketch_style": "thick"}, "sketch_style is thick but no lines are taken; add extract_lines"),
    ],
)
def test_options_that_cannot_be_are_refused(options, expected):
    made = object.__new__(ColorizeOptions)  # past the tests' type checker, as values from files come
    for field in fields(ColorizeOptions):
        object.__setattr__(made, field.name, options.get(field.name, field.default))
    with pytest.raises(ValueError, match=expected):
        made.__post_init__()


def test_a_working_size_below_one_token_is_refused(colorizer):
    with pytest.raises(ValueError, match="working size is 7; use at least 8"):
        colorizer.colorize(Shot(sketch_clip(), references(1)), ColorizeOptions(size=7))


def test_sketches_and_labels_of_another_type_are_refused():
    with pytest.raises(ValueError, match="sketch is float32; give uint8"):
        Shot(np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="labels are float64; give integers"):
        Shot(sketch_clip(), references(1), Labels(halves().astype(float)))


# ----------------------------------------------------------------------------------------------------------------------- weights


def test_unknown_models_devices_and_types_are_refused(tmp_path, tiny_weights):
    with pytest.raises(ValueError, match=r"unknown model 'tune'; use toon, a .safetensors file, or a CogVideoX"):
        Colorizer.load("tune")
    with pytest.raises(ValueError, match=r"none\.safetensors: no such weights file"):
        Colorizer.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="device 'abacus' is not usable here"):
        Colorizer.load(tiny_weights, "abacus")
    with pytest.raises(ValueError, match="unknown dtype 'float8'; use auto, float32"):
        Colorizer.load(tiny_weights, "cpu", "float8")


def test_weights_that_are_cut_short_are_refused(tmp_path, tiny_weights):
    path = tmp_path / "cut.safetensors"
    for size in (0, 5, 3000, tiny_weights.stat().st_size - 1):
        path.write_bytes(tiny_weights.read_bytes()[:size])
        with pytest.raises(ValueError, match=r"cut\.safetensors: not a readable safetensors file .* copy it anew"):
            Colorizer.load(path)


def test_weights_of_another_kind_are_refused(tmp_path, tiny_weights):
    tensors, path = load_file(tiny_weights), tmp_path / "other.safetensors"
    _, metadata = weights.read(tiny_weights)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ValueError, match="got model None; expected weights of a `toon` model"):
        Colorizer.load(path)
    weights.save(path, tensors, {"model": "toon"})
    with pytest.raises(ValueError, match=r"metadata do not describe a model .*'config'"):
        Colorizer.load(path)
    for config in ({**metadata["config"], "depth": 3}, {**metadata["config"], "heads": 3}, "small"):
        weights.save(path, tensors, metadata | {"config": config})
        with pytest.raises(ValueError, match="metadata do not describe a model"):
            Colorizer.load(path)
    weights.save(path, tensors, metadata | {"config": {**metadata["config"], "layers": 3}})
    with pytest.raises(ValueError, match="tensors do not fit the file's own config"):
        Colorizer.load(path)
    weights.save(path, tensors, metadata | {"colour_cell": 8})
    with pytest.raises(ValueError, match="codec and model do not fit: 8 pixels a latent and 2 latents a token"):
        Colorizer.load(path)


def test_weights_come_back_as_they_were(tmp_path, tiny_weights):
    toon, about = weights.load_toon(tiny_weights)
    assert (about["colour_cell"], about["short_side"], toon.config) == (4, 32, tiny_toon().config)
    assert tiny_weights.stat().st_mode & 0o044 == 0o044  # others may read it
    for name, value in tiny_toon().state_dict().items():
        torch.testing.assert_close(toon.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    shutil.copy(tiny_weights, tmp_path / "moved.safetensors")
    assert inspect.isclass(timecolor.Colorizer)
    assert timecolor.load(tmp_path / "moved.safetensors").model.defaults.short_side == 32


def test_the_embedded_weights_load_and_colour():
    """The one test that needs weights/toon.safetensors, which the wheel carries."""
    colorizer = Colorizer.load(device="cpu")
    coloured = colorizer.colorize(Shot(sketch_clip(1), references(1)), ColorizeOptions(size=64))
    assert coloured.shape == (1, 48, 64, 3)
    assert weights.EMBEDDED.stat().st_size < 32 * 2**20


def test_need_grows_with_the_shot_and_a_measurement_is_positive(colorizer):
    short, long = (colorizer.need(Clip(frames, 48, 64), 2) for frames in (4, 400))
    assert long.operations == pytest.approx(100 * short.operations, rel=0.05)
    assert long.memory_bytes > short.memory_bytes
    assert long.piece <= 400
    assert short.tokens == 2 * short.grid.tokens + 2 * short.grid.per_frame
    assert colorizer.measured_seconds(short, 2, ColorizeOptions()) > 0


PEAK = """
import sys
from pathlib import Path

import timecolor
from timecolor.geometry import Clip
from timecolor.world import World


def kilobytes(of: str) -> int:
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(of))


shot, _ = World(7, 480, 720, 3).shot(0).to_shot(sys.argv[1])
colorizer = timecolor.load("toon", "cpu")
need = colorizer.need(Clip(3, 480, 720), len(shot.references)).memory_bytes
Path("/proc/self/clear_refs").write_text("5")  # the peak is that of what follows
before = kilobytes("VmRSS")
colorizer.colorize(shot)
print((kilobytes("VmHWM") - before) * 1024 / need)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak from a moment on")
@pytest.mark.parametrize(("protocol", "least"), [("start frame", 0.5), ("multi-reference", 0.1)])
def test_what_a_job_takes_is_no_more_than_it_is_said_to_need(protocol, least):
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", PEAK, protocol], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert least < float(done.stdout) < 1.1


def test_a_codec_that_does_not_fit_the_model_is_refused():
    with pytest.raises(ValueError, match="codec and model do not fit"):
        ToonModel(tiny_toon(), codec.PixelCodec(2))


def test_what_is_left_open_is_the_models_own_choice(colorizer):
    settled = ColorizeOptions(steps=5).settled(colorizer.model)
    assert (settled.steps, settled.size, settled.window, settled.cells, settled.regime) == (5, 32, 1, "coverage", "cached")
    shot = Shot(sketch_clip(), references(1))
    assert np.array_equal(colorizer.colorize(shot), colorizer.colorize(shot, ColorizeOptions().settled(colorizer.model)))


def test_a_prompt_for_a_model_that_reads_none_is_refused(colorizer):
    with pytest.raises(ValueError, match="toon reads no prompt"):
        colorizer.colorize(Shot(sketch_clip(), references(1)), ColorizeOptions(prompt="a red coat"))
    with pytest.raises(ValueError, match="toon has euler alone"):
        colorizer.colorize(Shot(sketch_clip(), references(1)), ColorizeOptions(solver="ddim"))


@pytest.fixture(scope="module")
def hinted(tmp_path_factory) -> Colorizer:
    """A tiny model that takes hints."""
    torch.manual_seed(0)
    toon = Toon(replace(TINY, hints=True))
    for parameter in toon.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path = tmp_path_factory.mktemp("hinted") / "hinted.safetensors"
    weights.save_toon(path, toon, toon.state_dict(), colour_cell=4, short_side=64)
    return Colorizer.load(path, "cpu", "float32")


@pytest.fixture
def asked(monkeypatch) -> list[list[Area]]:
    """The areas that references are sought in, drawing by drawing."""
    seen, true = [], Carrier.recoloured

    def recoloured(self, colours, lines, areas, regions):
        seen.append(areas)
        return true(self, colours, lines, areas, regions)

    monkeypatch.setattr(Carrier, "recoloured", recoloured)
    return seen


def test_references_are_sought_only_in_the_areas_that_they_may_colour(hinted, asked):
    cut_outs = [replace(r, role="character") for r in references(2)]
    hinted.colorize(Shot(sketch_clip(2, 96, 128), cut_outs, Labels(halves(2, 96, 128))))
    left, right = asked[0]
    assert (left.references, right.references) == ((0,), (1,))
    middle = left.mask.shape[1] // 2
    assert left.mask[:, :middle].all()
    assert not left.mask[:, middle:].any()
    assert np.array_equal(right.mask, ~left.mask)


def test_frames_are_trusted_or_not_with_sheets_or_without_and_beside_other_pictures_cut_outs_are_sought(
    hinted, asked, monkeypatch
):
    voted, laid, shades, true = [], [], [], Carrier.followed

    def followed(self, lines, references, frames):
        found = true(self, lines, references, frames)
        voted.append(references)
        laid.append(list(found.likeness))
        shades.append((found.vote.shades * 255).round())
        return found

    monkeypatch.setattr(Carrier, "followed", followed)
    green = (10, 250, 20)
    frame = Reference(np.full((96, 128, 3), green, np.uint8), role="frame")
    sheet = replace(references(1)[0], role="character")
    hinted.colorize(Shot(sketch_clip(1, 96, 128), [frame]))
    assert not asked
    assert voted == [(0,)]
    hinted.colorize(Shot(sketch_clip(1, 96, 128), [sheet]))
    assert [area.references for area in asked[0]] == [(0,)]
    assert asked[0][0].mask.all()
    hinted.colorize(Shot(sketch_clip(1, 96, 128), [frame, sheet], Labels(halves(1, 96, 128))))
    assert [area.references for area in asked[1]] == [(1,)]
    hinted.colorize(Shot(sketch_clip(1, 96, 128), [frame, sheet]))
    assert len(asked) == 2
    assert voted == [(0,), (0, 1)]
    assert shades[0].tolist() == [list(green)]
    assert list(green) in shades[1].tolist()  # beside the sheet's
    assert len(shades[1]) > 1
    plate = replace(frame, role="background")
    hinted.colorize(Shot(sketch_clip(1, 96, 128), [plate, sheet, frame]))
    assert voted[2:] == [(0, 1, 2)]
    assert laid == [[0], [0], [0, 2]]
    hinted.colorize(Shot(sketch_clip(1, 96, 128), [replace(frame, role=None), sheet]))
    assert [area.references for area in asked[2]] == [(0, 1)]
    hinted.colorize(Shot(sketch_clip(1, 96, 128), [frame, frame], Labels(halves(1, 96, 128))))
    assert len(asked) == 3
    assert len(voted) == 3


@pytest.mark.parametrize("ground", [0, 255])
def test_a_sheet_on_plain_ground_is_taken_as_one_that_is_cut_out_and_its_paper_as_the_place_behind(hinted, monkeypatch, ground):
    given, true = [], Carrier.__init__
    monkeypatch.setattr(Carrier, "__init__", lambda self, *its: given.append(its[2:]) or true(self, *its))
    figure = np.zeros((90, 60), np.uint8)
    figure[15:80, 12:48] = 255
    painted = np.where(figure[..., None] > 0, painted_image(4, 90, 60).clip(20, 235), np.uint8(ground))
    shot = Shot(sketch_clip(2, 96, 128), [Reference(painted, role="sheet")])
    with_alpha = replace(shot, references=[Reference(painted, figure, role="sheet")])
    assert np.array_equal(hinted.colorize(shot), hinted.colorize(with_alpha))
    labelled = replace(shot, labels=Labels(np.zeros((2, 96, 128), np.uint8)))
    hinted.colorize(labelled)
    shown, behind, paper = zip(*given, strict=True)
    assert shown[0][0].all()
    assert abs(behind[0][0].mean() - (1 - 65 * 36 * (96 / 90) ** 2 / (96 * 128))) < 0.01  # all but the figure
    assert not (shown[2][0] & behind[2][0]).any()
    assert paper == (True, True, False)
    monkeypatch.setattr(matching, "on_paper", lambda colours, behind, region: np.ones_like(colours))
    assert (hinted.colorize(shot, RAW) == 255).all()
    assert not (hinted.colorize(labelled, RAW) == 255).all()


def test_a_held_drawing_is_sought_once(hinted, asked):
    frames = np.repeat(sketch_clip(2, 96, 128), 3, axis=0)
    hinted.colorize(Shot(frames, [replace(references(1)[0], role="character")]))
    assert len(asked) == 2


def test_a_reference_that_is_found_surely_gives_its_very_colours(hinted):
    """The sketch is the reference's own line art, so every place of it finds itself."""
    image, lines = np.full((96, 128, 3), 255, np.uint8), np.full((96, 128, 3), 255, np.uint8)
    for centre, radius, colour in (((40, 50), 26, (200, 40, 40)), ((90, 40), 14, (40, 60, 200))):
        cv2.circle(image, centre, radius, colour, -1)
        for picture in (image, lines):
            cv2.circle(picture, centre, radius, (0, 0, 0), 1)
    sheet = Reference(image, role="sheet")
    made = hinted.colorize(Shot(lines[None], [sheet]), ColorizeOptions(lines="none"))[0]
    assert made[50, 40].tolist() == [200, 40, 40]
    assert made[40, 90].tolist() == [40, 60, 200]


def painted_place() -> tuple[np.ndarray, np.ndarray]:
    """A painted plate with textured walls and drawn windows, and its lines on white; uint8 (96, 128, 3)."""
    wall = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    image = cv2.resize(wall, (128, 96), interpolation=cv2.INTER_CUBIC) // 3 + 120
    lines = np.full((96, 128, 3), 255, np.uint8)
    for x, y, w, h in ((8, 10, 16, 30), (34, 52, 14, 20), (40, 8, 22, 18), (10, 62, 12, 24)):
        for picture in (image, lines):
            cv2.rectangle(picture, (x, y), (x + w, y + h), (0, 0, 0), 1)
    return image, lines


def beside(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray, Reference]:
    """A drawing with a figure at the right before the place, its labels (1, h, w), and the figure's sheet."""
    drawing, labels, sheet = lines.copy(), np.zeros((1, 96, 128), np.uint8), np.zeros((96, 128, 3), np.uint8)
    cv2.circle(drawing, (100, 50), 20, (255, 255, 255), -1)
    cv2.circle(drawing, (100, 50), 20, (0, 0, 0), 1)
    cv2.circle(labels[0], (100, 50), 20, 1, -1)
    cv2.circle(sheet, (60, 50), 25, (200, 40, 40), -1)
    return drawing, labels, Reference(sheet, sheet.max(axis=2), role="character")


@pytest.mark.parametrize("pan", [0, 9])
def test_a_plate_that_a_label_names_is_set_as_the_camera_sees_it(hinted, pan):
    image, lines = painted_place()
    seen, drawn = (np.roll(picture, pan, axis=1) for picture in (image, lines))
    drawn[:, :pan] = 255
    drawing, labels, sheet = beside(drawn)
    where = np.zeros((96, 128), bool)
    where[4:-4, pan + 6 : 74] = True  # away from the figure and from what the pan brings in
    where &= cv2.dilate(255 - drawn.min(axis=2), np.ones((11, 11), np.uint8)) == 0  # and from lines
    apart = {}
    for role in ("background", "frame"):
        shot = Shot(drawing[None], [Reference(image, role=role), sheet], Labels(labels))
        made = hinted.colorize(shot, ColorizeOptions(lines="none"))[0]
        apart[role] = np.abs(made.astype(int) - seen)[where]
    assert apart["background"].mean() < (3 if pan else 0.01)  # a pan is known to parts of a pixel
    assert apart["frame"].mean() > 5  # a frame may show figures too, so it is left to the model


def test_without_labels_a_plate_is_set_where_the_matcher_sees_what_is_behind(hinted, monkeypatch):
    image, lines = painted_place()
    drawing, _, sheet = beside(lines)
    left = np.zeros((48, 64), bool)
    left[:, :36] = True

    def recoloured(self, colours, lines, areas, regions):
        return Recoloured(np.full((48, 64, 3), 0.5, np.float32), (), left)

    monkeypatch.setattr(Carrier, "recoloured", recoloured)
    made = hinted.colorize(
        Shot(drawing[None], [Reference(image, role="background"), sheet]), ColorizeOptions(lines="none", palette="free")
    )[0]
    behind = np.abs(made[:, :64].astype(int) - image[:, :64])[lines[:, :64].min(axis=2) > 0]
    assert np.median(behind) == 0
    assert np.abs(made[40:60, 90:110].astype(int) - 128).max() <= 10
    # Of two plates neither is known to be the right one, and what is seen of a frame may be a figure.
    for role in ("background", "frame"):
        twice = [Reference(image, role="background"), Reference(image[::-1].copy(), role=role), sheet]
        made = hinted.colorize(Shot(drawing[None], twice), ColorizeOptions(lines="none", palette="free"))[0]
        assert np.abs(made[:, :64].astype(int) - image[:, :64]).mean() > 5


def test_a_hinted_shot_does_not_depend_on_how_it_is_cut(hinted, monkeypatch):
    shot = Shot(sketch_clip(20, 96, 128, step=1), references(2))
    whole = hinted.colorize(shot, ColorizeOptions(lines="model"))
    monkeypatch.setattr(colorize, "PIECE_TOKENS", 1)
    pieces = hinted.colorize(shot, ColorizeOptions(lines="model"))
    assert furthest(whole, pieces) <= 1
