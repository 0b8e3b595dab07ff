"""Whole shots through CogVideoX: tiny real components on disk, in, and frames at the sketch's own size, out."""

import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import painted_image, sketch_clip
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

pytest.importorskip("diffusers")

from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from diffusers.hooks import apply_group_offloading
from diffusers.utils.torch_utils import randn_tensor
from test_cogvideox import (
    BASE,
    CHANNELS,
    SCHEDULE,
    SIZES,
    TEXT,
    VAE,
    conditions,
    noise,
    predicted,
    ragged,
    save_t5,
    save_tokenizer,
    scheduler,
    transformer,
)
from transformers import T5Config

from timecolor import cli, codec, cogvideox, colorize
from timecolor.cogvideox import LADDER, CogVideoX, CogVideoXCodec, CogVideoXModel, files
from timecolor.cogvideox import model as of_model
from timecolor.cogvideox import prompts as of_prompts
from timecolor.cogvideox.memory import weight_bytes
from timecolor.colorize import ColorizeOptions, Colorizer
from timecolor.correspondence import Rule, label_bits
from timecolor.denoiser import Model, Work
from timecolor.geometry import Clip, Grid
from timecolor.media import open_frames, write_clip, write_image
from timecolor.shot import Labels, Reference, Shot

QUICK = ColorizeOptions(steps=2, size=48, lines="model")
RUNGS = [rung.name for rung in LADDER if rung.name != "int8"]  # which has a test of its own
SIZES_OF_5B = {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True}
TILED_VAE = VAE | {"sample_height": 96, "sample_width": 96}  # so small that a shot of 48 pixels has several tiles


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A base as CogVideoX-5b lies on disk, whose VAE does something."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(2)
    AutoencoderKLCogVideoX(**TILED_VAE).save_pretrained(folder / "vae")
    CogVideoXDPMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    save_t5(folder / "text_encoder")
    save_tokenizer(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Path:
    """A full fine-tune as released."""
    folder = tmp_path_factory.mktemp("tuned")
    transformer().save_pretrained(folder / "transformer")
    CogVideoXDDIMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The user's cache, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def colorizer(tuned, base) -> Colorizer:
    return Colorizer.load(tuned, "cpu", "float32", base)


def shot(frames=6, height=70, width=100, references=2) -> Shot:
    """Sizes that fit nothing, and areas with borders within tokens."""
    pictures = [Reference(painted_image(i), name=f"{i}.png") for i in range(references)]
    if references < 2:
        return Shot(sketch_clip(frames, height, width), pictures)
    video = np.zeros((frames, height, width), np.uint8)
    video[:, 10:53, 40:] = 1
    return Shot(sketch_clip(frames, height, width), pictures, Labels(video))


@pytest.fixture
def told(monkeypatch) -> list:
    """The conditions of every job."""
    given, tell = [], CogVideoXModel.told

    def keep(self, *arguments):
        given.append(tell(self, *arguments))
        return given[-1]

    monkeypatch.setattr(CogVideoXModel, "told", keep)
    return given


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Folders of weights, as they are read."""
    folders, loaded = [], files.loaded

    def note(kind, folder, **options):
        folders.append(folder.name)
        return loaded(kind, folder, **options)

    for reader in (of_model, of_prompts):
        monkeypatch.setattr(reader, "loaded", note)
    return folders


# Shots


def test_it_is_a_model_with_the_published_defaults(colorizer):
    model = colorizer.model
    assert isinstance(model, Model)
    own = model.defaults
    assert (own.steps, own.guidance, own.window, own.cells, own.regime) == (50, 3.0, None, "majority", "joint")
    assert own.short_side == min(BASE) * 16
    assert (model.text, model.layers, model.parameters) == (TEXT, 3, sum(p.numel() for p in transformer().parameters()))


@pytest.mark.parametrize(("frames", "references"), [(1, 0), (6, 2), (9, 1)])
def test_any_length_size_and_number_of_references(colorizer, frames, references):
    given = shot(frames, references=references)
    got = colorizer.colorize(given, QUICK)
    assert got.shape == given.sketch.shape
    assert np.array_equal(got, colorizer.colorize(given, QUICK))
    assert not np.array_equal(got, colorizer.colorize(given, replace(QUICK, seed=1)))


def test_the_network_is_told_what_is_published(colorizer, told):
    """Sketch and references with their lines, letterboxed; labels by majority; everyone sees all frames at one time."""
    given = shot()
    colorizer.colorize(given, replace(QUICK, prompt="a girl"))
    (got,) = told
    model, working = colorizer.model, Clip(9, 48, 64)
    native = Clip(6, 70, 100)
    frames = codec.shrink(given.sketch, working)
    frames = np.concatenate([frames, frames[-1:].repeat(3, 0)])
    assert got.rule == Rule("joint", None)
    assert got.layout.grid == Grid(3, 3, 4)
    assert torch.equal(got.sketch, model.codec.encode(frames))
    images = [codec.letterbox(r, working, native, 0).image for r in given.references]
    assert torch.equal(got.references, torch.cat([model.codec.encode(image[None]) for image in images], dim=1))
    rows, columns = (np.arange(n) * size // n for n, size in ((48, 70), (64, 100)))
    labels = np.asarray(given.labels.video)[:, rows][:, :, columns]
    labels = torch.from_numpy(np.concatenate([labels, labels[-1:].repeat(3, 0)]).astype(np.int64))
    bits = label_bits(labels, lambda label: (label,), model.compression, "majority")
    assert torch.equal(got.tokens.bits[0, got.layout.target.slice], bits)
    assert set(bits.tolist()) == {1, 2}
    assert torch.equal(got.text, model.prompts(["", "a girl"]))
    assert got.guidance == 3


@pytest.mark.parametrize(
    "change",
    [{"prompt": "a dog"}, {"guidance": 6.0}, {"solver": "unipc"}, {"steps": 3}, {"regime": "cached"}, {"cells": "coverage"}],
)
def test_options_reach_the_network(colorizer, change):
    options = replace(QUICK, prompt="a girl")
    before, after = colorizer.colorize(shot(), options), colorizer.colorize(shot(), replace(options, **change))
    assert not np.array_equal(before, after)


def test_several_jobs_read_the_weights_once_and_embed_a_prompt_once(tuned, base, read):
    colorizer = Colorizer.load(tuned, "cpu", "float32", base)
    assert read == []
    for prompt in ("a girl", "a girl", "a dog", ""):
        colorizer.colorize(shot(), replace(QUICK, prompt=prompt))
    assert sorted(read) == ["text_encoder", "transformer", "vae"]
    Colorizer.load(tuned, "cpu", "float32", base).colorize(shot(), replace(QUICK, prompt="a girl"))
    assert read.count("text_encoder") == 1  # the second program has it from the first


def test_keep_lays_the_artists_lines_over_what_the_network_drew(colorizer):
    given = shot(1, references=1)
    network, kept, bare = (colorizer.colorize(given, replace(QUICK, lines=lines))[0] for lines in ("model", "keep", "none"))
    ink = given.sketch[0].max(2) == 0
    assert 0 < ink.sum() < ink.size
    assert kept[ink].max() == 0
    assert bare[ink].max() > 0
    assert not np.array_equal(kept, network)


def test_lines_drawn_by_the_network_are_taken_out_before_colours_are_read():
    drawing = np.full((48, 64, 3), 255, np.uint8)
    drawing[20:22, 5:60] = 0
    picture = np.full((48, 64, 3), (0.2, 0.5, 0.8), np.float32)
    picture[20:22, 5:60] = 0
    assert np.abs(colorize._fills(picture, drawing) - (0.2, 0.5, 0.8)).max() < 0.01


def test_noise_is_that_of_diffusers_for_the_seed_however_the_shot_is_cut(colorizer):
    whole = colorizer.model.noise(Grid(5, 4, 6), 7, 0)
    size = (1, 5, CHANNELS, 8, 12)
    torch.testing.assert_close(whole, randn_tensor(size, torch.Generator().manual_seed(7), torch.device("cpu"), torch.float32))
    assert torch.equal(colorizer.model.noise(Grid(2, 4, 6), 7, 3), whole[:, 3:])


def test_solvers_that_there_are_not_are_refused_before_any_weights_are_read(colorizer, read):
    with pytest.raises(ValueError, match="solver is 'euler'; CogVideoX models have ddim, dpm, unipc"):
        colorizer.colorize(shot(), replace(QUICK, solver="euler"))
    assert read == []


# The command line


def command(capsys, *words) -> tuple[int, str, str]:
    code = 0
    try:
        cli.main([str(word) for word in words])
    except SystemExit as exited:
        code = int(exited.code or 0)
    return code, *capsys.readouterr()


def test_the_authors_job_file_goes_through_the_command(tuned, base, tmp_path, capsys, told):
    write_clip(tmp_path / "sketch.mkv", sketch_clip(6, 70, 100), 12)
    for i in range(2):
        write_image(tmp_path / f"{i}.png", painted_image(i))
    np.savez(tmp_path / "mask.npz", mask=np.asarray(shot().labels.video))
    job = {
        "caption": "a girl in a red coat",
        "sketch_control_path": "sketch.mkv",
        "reference_paths": ["0.png", "1.png"],
        "identity_mask_npz_path": "mask.npz",
        "num_inference_steps": 2,
        "num_frames": 6,
        "frame_rate": 12,
        "height": 48,
        "width": 64,
        "custom_output_name": "out",
    }
    (tmp_path / "job.json").write_text(json.dumps({"data": [job]}))
    words = ("--model", tuned, "--base", base, "--size", 48, "--dtype", "float32", "--device", "cpu", "--json")
    code, out, err = command(capsys, "colorize", tmp_path / "job.json", "-o", tmp_path / "done.mkv", *words)
    assert code == 0, err
    assert json.loads(out)["options"]["prompt"] == "a girl in a red coat"
    assert len(told[0].text) == 2
    done = open_frames(tmp_path / "done.mkv")
    assert tuple(done.shape) == (6, 70, 100, 3)


def test_info_tells_memory_by_rung_and_time(tuned, base, capsys):
    words = ("--model", tuned, "--base", base, "--dtype", "float32", "--device", "cpu", "--size", 48, "--steps", 2)
    code, out, err = command(capsys, "info", *words, "--frames", 6, "--height", 70, "--width", 100, "--references", 2, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert set(RUNGS) <= set(facts["rungs (MiB)"])
    assert facts["memory rung"] == "resident"
    assert facts["token grid"] == "3 x 3 x 4"
    assert facts["tokens"] == (2 * 3 + 2) * 12
    assert facts["network time (s)"] >= 0


def test_info_tells_memory_also_where_nothing_fits(tuned, base, capsys, monkeypatch, read):
    monkeypatch.setattr(colorize, "_free_bytes", lambda device: 1)
    code, out, _ = command(capsys, "info", "--model", tuned, "--base", base, "--json", "--device", "cpu", "--dtype", "float32")
    assert code == 0
    assert json.loads(out)["network time (s)"] is None
    assert read == []


def test_unknown_rungs_and_missing_packages_are_one_line(tuned, base, tmp_path, capsys, monkeypatch):
    write_clip(tmp_path / "sketch.mkv", sketch_clip(1, 70, 100), 12)
    words = ("colorize", tmp_path / "sketch.mkv", "-o", tmp_path / "done.mkv", "--model", tuned, "--base", base)
    code, _, err = command(capsys, *words, "--memory", "tiny")
    assert (code, "memory is 'tiny'; use auto, resident, tiled, offload, groups, low, int8" in err) == (2, True)
    monkeypatch.setattr(of_model, "has_torchao", lambda: False)
    code, _, err = command(capsys, *words, "--memory", "int8")
    assert (code, "memory int8 needs torchao; install it with" in err, err.count("\n")) == (2, True, 1)
    assert not (tmp_path / "done.mkv").exists()


def without_vae(base: Path) -> None:
    shutil.rmtree(base / "vae")


def of_other_channels(base: Path) -> None:
    shutil.rmtree(base / "vae")
    AutoencoderKLCogVideoX(**(TILED_VAE | {"latent_channels": 6})).save_pretrained(base / "vae")


def of_another_kind(tuned: Path) -> None:
    config = tuned / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"patch_size_t": 2}))


def cut_short(folder: Path) -> None:
    [file] = folder.glob("*/diffusion_pytorch_model.safetensors")
    file.write_bytes(file.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("part", "harm", "message"),
    [
        ("tuned", shutil.rmtree, "is no directory"),
        ("tuned", of_another_kind, "transformer: patch_size_t is 2; None is needed"),
        ("tuned", cut_short, "transformer/diffusion_pytorch_model.safetensors: cannot be read"),
        ("base", without_vae, "has no vae/"),
        ("base", of_other_channels, "vae: has 6 latent channels but the transformer 4"),
        ("base", cut_short, "vae/diffusion_pytorch_model.safetensors: cannot be read"),
    ],
)
def test_models_that_are_broken_are_one_line_and_nothing_is_written(part, harm, message, tuned, base, tmp_path, capsys):
    folders = {"tuned": tuned, "base": base}
    folders[part] = Path(shutil.copytree(folders[part], tmp_path / part))
    harm(folders[part])
    write_clip(tmp_path / "sketch.mkv", sketch_clip(1, 70, 100), 12)
    out = tmp_path / "out"
    words = ("colorize", tmp_path / "sketch.mkv", "-o", out / "done.mkv", "--model", folders["tuned"], "--base", folders["base"])
    code, _, err = command(capsys, *words)
    assert (code, message in err, err.count("\n")) == (2, True, 1), err
    assert not out.exists()


# The memory ladder


def test_every_rung_gives_the_same_within_its_tolerance(tuned, base):
    """Placing weights changes nothing; tiles show at their seams; branches apart round otherwise."""
    options = replace(QUICK, prompt="a girl")
    got = {rung: Colorizer.load(tuned, "cpu", "float32", base, rung).colorize(shot(), options) for rung in RUNGS}
    assert np.array_equal(got["offload"], got["tiled"])
    assert np.array_equal(got["groups"], got["tiled"])
    apart = np.abs(got["low"].astype(int) - got["tiled"])
    assert apart.max() <= 1
    seams = np.abs(got["tiled"].astype(int) - got["resident"])
    assert seams.max() > 0  # there were tiles
    assert seams.mean() < 40  # levels of 255: the group norms of a VAE of random weights see other means in every tile


def test_parts_take_turns_where_memory_is_short(tuned, base, read):
    colorizer = Colorizer.load(tuned, "cpu", "float32", base, "offload")
    model = colorizer.model
    events = colorizer.stream(shot(), replace(QUICK, prompt="a girl"))
    held = [(getattr(event, "stage", "done"), set(model._parts), model.prompts.loaded) for event in events]
    assert {(*parts, t5) for _, parts, t5 in held} <= {(False,), ("vae", False), ("transformer", False)}
    assert ("sampling", {"transformer"}, False) in held
    assert read == ["vae", "text_encoder", "transformer", "vae"]


def test_a_rung_settled_anew_keeps_what_it_can(colorizer, read):
    colorizer.colorize(shot(), QUICK)
    colorizer.model.settle("tiled")
    assert set(colorizer.model._parts) == {"vae", "transformer"}
    colorizer.model.settle("low")
    assert not colorizer.model._parts


def test_weights_that_come_group_by_group_fit_our_processors(tmp_path):
    """diffusers' group offloading, from a disk instead of a CPU to a GPU: every block's weights really come and go."""
    given = {regime: conditions(SIZES[1], 2, ragged(SIZES[1], 2), regime) for regime in ("joint", "cached")}
    model = transformer()
    apply_group_offloading(
        model, torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1, offload_to_disk_path=str(tmp_path)
    )
    for regime in given:
        expected = predicted(CogVideoX(transformer(), scheduler()), given[regime], noise(SIZES[1]))
        denoiser = CogVideoX(model, scheduler())
        with torch.inference_mode():
            cache = denoiser.prepare(given[regime])
            for _ in range(2):
                got = denoiser.predict(noise(SIZES[1]), torch.tensor([0.6]), cache)
                torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4  # three blocks and the rest


class Held(TorchDispatchMode):
    """Bytes of tensors alive that were made under it, and their peak."""

    def __init__(self, module: torch.nn.Module) -> None:
        """module: whose weights do not count."""
        super().__init__()
        self.weights = {p.untyped_storage()._cdata for p in (*module.parameters(), *module.buffers())}
        self.alive: set[int] = set()
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.weights and storage._cdata not in self.alive:
                    self.alive.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
        return out

    def gone(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.now -= size


def work(grid: Grid, references: int, regime="joint") -> Work:
    working = Clip(grid.frames * 4 - 3, grid.height * 16, grid.width * 16)
    return Work(working, grid, grid.frames, references, 50, Rule(regime), 3.0, "a girl")


@pytest.mark.parametrize(("regime", "branches"), [("joint", "together"), ("joint", "apart"), ("cached", "apart")])
@pytest.mark.parametrize(("references", "dtype"), [(1, torch.float32), (3, torch.bfloat16)])
def test_the_predicted_peak_of_the_network_is_the_real_one(tuned, base, regime, references, branches, dtype):
    grid = Grid(3, *BASE)
    wide = transformer(num_attention_heads=4, attention_head_dim=64, num_layers=2, dtype=dtype)
    given = conditions(grid, references, ragged(grid, references) if references > 1 else None, regime)
    denoiser, noisy = CogVideoX(wide, scheduler(), branches), noise(grid, dtype=dtype)
    with torch.no_grad(), Held(wide) as held:
        cache = denoiser.prepare(given)
        for _ in range(2):
            denoiser.predict(noisy, torch.tensor([0.6]), cache)
    model = cogvideox.load_model(tuned, base, dtype=dtype)
    model.config = wide.config
    predicted_bytes = model._network_bytes(work(grid, references, regime), replace(LADDER[0], branches=branches))
    assert 0.5 * predicted_bytes < held.peak < predicted_bytes, held.peak / predicted_bytes


def test_the_predicted_peak_of_the_vae_is_the_real_one(tuned, base):
    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(**(VAE | {"block_out_channels": (32, 64, 64, 128), "layers_per_block": 3})).eval()  # as 5b's are
    runner, model = CogVideoXCodec(vae), cogvideox.load_model(tuned, base, dtype=torch.float32)
    model._vae_config = vae.config
    for frames in (1, 17):
        with Held(vae) as held:
            runner.decode(runner.encode(np.zeros((frames, 32, 32, 3), np.uint8)))
        predicted_bytes = model._codec_bytes(work(Grid((frames + 3) // 4, 2, 2), 0), LADDER[0])
        assert 0.6 * predicted_bytes < held.peak < predicted_bytes, (held.peak / predicted_bytes, frames)


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> CogVideoXModel:
    """CogVideoX-5b's sizes, without weights."""
    folder = tmp_path_factory.mktemp("full")
    configs = {
        "transformer": (CogVideoXTransformer3DModel, SIZES_OF_5B),
        "vae": (AutoencoderKLCogVideoX, {"scaling_factor": 0.7}),
    }
    for name, (kind, changes) in configs.items():
        with torch.device("meta"):
            kind(**changes).save_config(folder / name)
    CogVideoXDDIMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    xxl = T5Config(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
    xxl.save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    return cogvideox.load_model(folder, device="cpu", dtype=torch.bfloat16)


def test_rungs_of_the_released_model_need_less_and_less(full, monkeypatch):
    assert full.defaults.short_side == 480
    assert 5.5e9 < full.parameters < 5.7e9
    monkeypatch.setattr(full.prompts, "knows", lambda prompt: False)
    job = work(Grid(13, 30, 45), 3)
    on_cpu = full.memory_bytes(job)
    assert list(on_cpu.values()) == sorted(on_cpu.values(), reverse=True)
    monkeypatch.setattr(full, "device", torch.device("cuda"))
    on_gpu = full.memory_bytes(job)
    assert [*on_gpu.values()] == sorted(on_gpu.values(), reverse=True)
    gib = {rung: peak / 2**30 for rung, peak in on_gpu.items()}
    # Weights alone: 10.4 of the transformer, 8.9 of T5, 0.4 of the VAE.
    assert gib["tiled"] > 19.7 > gib["offload"] > 10.4 > gib["groups"] > gib["low"]


def test_a_known_prompt_needs_no_room_for_t5(colorizer):
    job = work(Grid(1, 3, 4), 0)
    before = colorizer.model.memory_bytes(job)["resident"]
    colorizer.model.prompts(["", "a girl"])
    colorizer.model.prompts.release()
    t5 = sum(p.numel() for p in colorizer.model.source.bare["text_encoder"].parameters()) * 4
    assert before - colorizer.model.memory_bytes(job)["resident"] == t5


def test_what_is_loaded_is_not_needed_twice(colorizer):
    job = work(Grid(1, 3, 4), 0)
    before = colorizer.model.memory_bytes(job)["resident"]
    held = sum(p.numel() * 4 for p in colorizer.model.network.parameters())
    assert before - colorizer.model.memory_bytes(job)["resident"] == held


def test_auto_takes_the_fastest_rung_that_fits_each_job(colorizer, monkeypatch):
    clip, options = Clip(6, 70, 100), replace(QUICK, prompt="a girl")
    rungs = dict(colorizer.need(clip, 2, options).rungs)
    for rung in ("resident", "tiled", "offload"):
        monkeypatch.setattr(colorize, "_free_bytes", lambda device, rung=rung: rungs[rung])
        assert colorizer.need(clip, 2, options).rung == rung
    monkeypatch.setattr(colorize, "_free_bytes", lambda device: rungs["offload"])
    colorizer.colorize(shot(), options)
    assert colorizer.model._rung.name == "offload"


def test_a_rung_that_does_not_fit_is_refused_with_one_that_would_before_weights_are_read(tuned, base, monkeypatch, read):
    colorizer = Colorizer.load(tuned, "cpu", "float32", base, "resident")
    free = colorizer.need(Clip(6, 70, 100), 2, QUICK).rungs["offload"]
    monkeypatch.setattr(colorize, "_free_bytes", lambda device: free)
    with pytest.raises(MemoryError, match=r"the job needs .* GiB but .* GiB are free; --memory offload would fit"):
        colorizer.colorize(shot(), QUICK)
    monkeypatch.setattr(colorize, "_free_bytes", lambda device: 1)
    with pytest.raises(MemoryError, match="free some, or cut the shot"):
        colorizer.check(shot(), QUICK)
    assert read == []


def test_where_no_rung_fits_a_smaller_size_is_named(tuned, base, monkeypatch):
    colorizer, large = Colorizer.load(tuned, "cpu", "float32", base), replace(QUICK, size=160)
    least = min(colorizer.need(Clip(6, 70, 100), 2, replace(QUICK, size=64)).rungs.values())
    monkeypatch.setattr(colorize, "_free_bytes", lambda device: least)
    with pytest.raises(MemoryError, match=r"GiB are free; size 64 would fit"):
        colorizer.check(shot(), large)


def test_weights_of_eight_bits_are_half_the_size_and_give_nearly_the_same(tuned, base):
    pytest.importorskip("torchao")
    options = replace(QUICK, prompt="a girl")
    whole, small = (Colorizer.load(tuned, "cpu", "bfloat16", base, rung) for rung in ("low", "int8"))
    difference = np.abs(whole.colorize(shot(), options).astype(int) - small.colorize(shot(), options))
    assert 0 < difference.mean() < 6  # levels of 255
    sizes = [c.model.source.bare["transformer"] for c in (whole, small)]
    full, half = (weight_bytes(m, 2, eight) for m, eight in zip(sizes, (False, True), strict=True))
    blocks = small.model.network.transformer
    kept = sum(
        p.qdata.numel() + p.scale.numel() * p.scale.element_size() if hasattr(p, "qdata") else p.numel() * p.element_size()
        for p in blocks.parameters()
    )
    assert kept <= half < 0.7 * full
