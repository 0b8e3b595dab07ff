"""Shots to latents on tiny real components: what is stored, resuming to the byte, and each documented error."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import painted_image, sketch_clip

pytest.importorskip("diffusers")

from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler
from safetensors.torch import load_file
from test_cogvideox import SCHEDULE, TEXT, VAE, WIDTH, save_t5, save_tokenizer, transformer

from timecolor import cli, codec, cogvideox
from timecolor.correspondence import label_bits
from timecolor.geometry import Clip, Compression
from timecolor.media import write_clip, write_image
from timecolor.train.precompute import Precomputed, encode
from timecolor.train.presets import PrecomputeOptions
from timecolor.world import World

SMALL = PrecomputeOptions(frames=5, size=32, stills=2, shard=2, count=5)


def save_base(folder: Path, seed: int = 2) -> Path:
    """A base as CogVideoX-5b lies on disk."""
    transformer(seed=1).save_pretrained(folder / "transformer")
    torch.manual_seed(seed)
    AutoencoderKLCogVideoX(**VAE).save_pretrained(folder / "vae")
    CogVideoXDPMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    save_t5(folder / "text_encoder")
    save_tokenizer(folder / "tokenizer")
    return folder


def model_of(base: Path, prompts: Path) -> cogvideox.CogVideoXModel:
    return cogvideox.load_model(base, None, "cpu", torch.float32, "resident", prompts)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def model(base, tmp_path_factory):
    return model_of(base, tmp_path_factory.mktemp("prompts"))


@pytest.fixture(scope="module")
def world(model, tmp_path_factory) -> Path:
    """Five shots of the drawn world in three shards."""
    folder = tmp_path_factory.mktemp("world")
    list(encode(["world"], model, folder, SMALL))
    return folder


def shot_folder(folder: Path, frames: int = 6, caption: str = "a girl") -> Path:
    """A shot of 48x64 with two references, labels that change in the third frame, finished frames and a caption."""
    folder.mkdir(parents=True)
    write_clip(folder / "sketch.mkv", sketch_clip(frames), 24)
    write_clip(folder / "colour.mkv", np.stack([painted_image(i, 48, 64) for i in range(frames)]), 24)
    (folder / "references").mkdir()
    write_image(folder / "references" / "0_background.png", painted_image(20, 48, 64))
    write_image(folder / "references" / "1_hero.png", painted_image(21, 60, 40))
    labels = np.zeros((frames, 48, 64), np.uint8)
    labels[:2, :, 32:] = 1
    np.savez(folder / "labels.npz", mask=labels)
    (folder / "shot.toml").write_text(f'[options]\nprompt = "{caption}"\n')
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_shot_of_the_world_is_stored_as_the_model_encodes_it(model, world):
    data = Precomputed(world)
    assert [entry.name for entry in data.samples] == [f"world 0/{i}" for i in range(5)]
    shot, colour = World(0, 32, 48, 5 + 8, shrink=2).shot(3).to_shot("multi-reference")
    entry, sample = data.samples[3], data.read(3)
    assert (entry.references, entry.stills, entry.latent_frames, entry.labelled) == (len(shot.references), 3, 2, True)
    clip = Clip(5, 32, 48)
    torch.testing.assert_close(sample.target, model.encode_sketch(colour[-5:])[0])
    torch.testing.assert_close(sample.sketch, model.encode_sketch(shot.sketch[-5:])[0])
    pictures = [codec.letterbox(reference, clip) for reference in shot.references]
    torch.testing.assert_close(sample.references, model.encode_references(pictures, clip)[0])
    torch.testing.assert_close(sample.stills[0], model.encode_sketch(colour[-5:-4])[0, 0])
    earlier = torch.stack([model.encode_sketch(frame[None])[0, 0] for frame in colour[:-5]])
    for still in sample.stills[1:]:  # of frames before the target
        assert (earlier - still).flatten(1).abs().amax(1).min() < 1e-5
    labels = torch.from_numpy(shot.labels.video[-5:].astype(np.int64))
    for rule in ("coverage", "majority"):
        assert torch.equal(sample.bits(rule), label_bits(labels, lambda k: (k,), Compression(), rule))


def test_a_shot_folder_is_stored_with_its_labels_and_its_caption(model, tmp_path):
    shot_folder(tmp_path / "shots" / "one")
    shot_folder(tmp_path / "shots" / "two", frames=3, caption="")
    list(encode([str(tmp_path / "shots")], model, tmp_path / "out", PrecomputeOptions(frames=5, size=48, stills=4)))
    data = Precomputed(tmp_path / "out")
    one, two = data.samples
    assert (one.caption, one.references, one.labelled, one.latent_frames, one.stills) == ("a girl", 2, True, 2, 2)
    assert (two.caption, two.latent_frames, two.stills) == ("", 1, 3)  # three frames hold no group of four
    assert data.read(0).target.shape == (2, 4, 6, 8)
    # Frame 1, the first of the target, has label 1 on its right half; of the later ones frame 1 to 4 of the target none has.
    first, later = data.read(0).majority.view(2, 3, 4)
    assert first.tolist() == [[1, 1, 2, 2]] * 3
    assert later.tolist() == [[1] * 4] * 3
    assert torch.equal(data.prompt("a girl"), model.prompts(["a girl"])[0])
    assert data.prompt("").shape == (TEXT, WIDTH)


def test_stopped_and_given_again_it_goes_on_and_makes_the_same_bytes(model, world, tmp_path):
    broken = encode(["world"], model, tmp_path, SMALL)
    for _ in range(3):  # the first shard is whole, the second is being made
        next(broken)
    broken.close()
    assert sorted(p.name for p in tmp_path.glob("*")) == ["prompts", "shard-00000.safetensors"]
    with pytest.raises(ValueError, match=r"has no index.json; give a folder that `timecolor precompute` finished"):
        Precomputed(tmp_path)
    events = list(encode(["world"], model, tmp_path, SMALL))
    assert [(e.done, e.again) for e in events] == [(2, True), (3, False), (4, False), (5, False)]
    assert files(tmp_path) == files(world)


def test_a_shard_that_was_cut_short_is_told_and_made_anew(model, world, tmp_path):
    data = Path(shutil.copytree(world, tmp_path / "data"))
    shard = data / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"shard-00001.safetensors: has \d+ bytes but the index says \d+; run the same"):
        Precomputed(data)
    list(encode(["world"], model, data, SMALL))
    assert files(data) == files(world)
    shard.unlink()
    with pytest.raises(ValueError, match=r"shard-00001.safetensors: is missing but the index says"):
        Precomputed(data)


def test_a_shard_or_prompt_with_other_bytes_is_told_when_it_is_read(world, tmp_path):
    data = Path(shutil.copytree(world, tmp_path / "data"))
    shard = data / "shard-00000.safetensors"
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    with pytest.raises(ValueError, match=r"shard-00000.safetensors: cannot be read"):
        Precomputed(data).read(1)
    assert Precomputed(data).read(2).target.shape == (2, 4, 4, 6)
    for file in (data / "prompts").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="no such weights file"):
        Precomputed(data).prompt("")


def test_an_index_of_another_kind_is_told_by_its_field(world, tmp_path):
    data = Path(shutil.copytree(world, tmp_path / "data"))
    index = json.loads((data / "index.json").read_text())
    (data / "index.json").write_text(json.dumps(index | {"format": 2}))
    with pytest.raises(ValueError, match=r"index.json: format: .*; make it again"):
        Precomputed(data)
    (data / "index.json").write_text("{")
    with pytest.raises(ValueError, match=r"index.json: content: .*; make it again"):
        Precomputed(data)


def test_data_of_another_base_is_refused(model, base, world, tmp_path):
    Precomputed(world).check(model.source)
    other = Path(shutil.copytree(base, tmp_path / "other"))
    torch.manual_seed(5)
    AutoencoderKLCogVideoX(**VAE).save_pretrained(other / "vae")
    with pytest.raises(ValueError, match=r"latents were made by another VAE than .*other/vae; give the base they were made with"):
        Precomputed(world).check(cogvideox.Source.of(other))
    longer = Path(shutil.copytree(base, tmp_path / "longer"))
    transformer(max_text_seq_length=12).save_pretrained(longer / "transformer")
    with pytest.raises(ValueError, match=r"prompts are \(9, 12\) \(tokens, channels\) but the transformer takes \(12, 12\)"):
        Precomputed(world).check(cogvideox.Source.of(longer))


def test_a_folder_with_other_shots_is_refused_and_stays_as_it_is(model, world, tmp_path):
    data = Path(shutil.copytree(world, tmp_path / "data"))
    with pytest.raises(ValueError, match=r"shard-00000.safetensors: holds other shots, or was made with other options"):
        list(encode(["world"], model, data, PrecomputeOptions(frames=5, size=48, stills=2, shard=2, count=5)))
    assert files(data) == files(world)


def test_shots_that_cannot_be_used_are_named(model, tmp_path):
    folder = shot_folder(tmp_path / "shots" / "one")
    out = tmp_path / "out"

    def refused(shot: Path, message: str, **changes: int) -> None:
        with pytest.raises(ValueError, match=message):
            list(encode([str(shot)], model, out, PrecomputeOptions(**{"frames": 5, "size": 48, **changes})))
        assert not list(out.glob("*.safetensors"))
        assert not (out / "index.json").exists()

    colour = folder / "colour.mkv"
    kept = colour.read_bytes()
    colour.unlink()
    refused(folder, r"shots/one: has no finished frames; add them once, as colour.mp4 or colour/")
    write_clip(colour, np.stack([painted_image(i, 48, 80) for i in range(6)]), 24)
    refused(folder, r"shots/one: colour is \(6, 48, 80\) but the sketch is \(6, 48, 64\)")
    colour.write_bytes(kept)
    refused(tmp_path / "nowhere", r"nowhere: is no folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"empty: holds no shots")
    refused(folder, r"clip has 6 frames; use 5 or 9 \(4k\+1\)", frames=6)
    (folder / "references" / "1_hero.png").unlink()
    refused(folder, r"shots/one: label 1 .* has no reference")


def test_the_world_that_is_held_out_is_refused():
    with pytest.raises(ValueError, match="is the held-out world's"):
        PrecomputeOptions(seed=1_000_003)


def test_the_command(base, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shot = shot_folder(tmp_path / "one")
    out = tmp_path / "out"
    command = ["precompute", "world", str(shot), "--base", str(base), "--out", str(out), "--frames", "5", "--size", "48"]
    cli.main([*command, "--count", "1", "--dtype", "float32"])
    assert "2 shots" in capsys.readouterr().err
    assert len(Precomputed(out)) == 2
    tensors = load_file(out / "shard-00000.safetensors")
    assert {key.split(".")[1] for key in tensors} == {"target", "sketch", "stills", "references", "coverage", "majority"}
    with pytest.raises(SystemExit) as stopped:
        cli.main([*command, "--count", "2", "--dtype", "float32"])
    assert stopped.value.code == 2
    assert "holds other shots" in " ".join(capsys.readouterr().err.split())
