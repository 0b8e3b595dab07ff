"""Shots turned into latents once, so that fine-tuning need not run the VAE and T5 at every step.

A folder of safetensors shards with an index. Per sample, f latent frames of c channels:

    N.target (f c y x)       the coloured clip             N.references (r c y x)  the shot's own, one latent frame each
    N.sketch (f c y x)       its sketch                    N.coverage, N.majority (n)  references each token may see, as bits
    N.stills (k c y x)       coloured frames as references: the target's first, then others of the shot

Captions' embeddings lie beside them, a file each. Start frame takes the first still, arbitrary frame one of the others,
multi-reference the references with their bits.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from timecolor import codec, cogvideox, models, weights
from timecolor.cogvideox import CogVideoXModel, Source, files
from timecolor.correspondence import CellRule, label_bits, unlabelled
from timecolor.geometry import Clip
from timecolor.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, InputError, open_frames
from timecolor.shapes import Float, Int
from timecolor.shot import Frames, Reference, Shot
from timecolor.shotfiles import load_shots
from timecolor.train.presets import PrecomputeOptions
from timecolor.world import World

WORLD = "world"
EARLIER = 8  # frames of a world shot before its target, for references
INDEX = "index.json"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A shot that is done. again: it was there already."""

    name: str
    done: int
    total: int
    again: bool


class Entry(BaseModel):
    """What the index says of a sample: its shot's name, caption, length of latents, how many stills and references, labels."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    caption: str
    latent_frames: int
    stills: int
    references: int
    labelled: bool


class _Shard(BaseModel):
    model_config = ConfigDict(extra="forbid")
    file: str
    bytes: int
    samples: list[Entry]


class _Index(BaseModel):
    model_config = ConfigDict(extra="forbid")
    format: Literal[1] = 1
    vae: str
    text: tuple[int, int]
    options: dict[str, Any]
    shards: list[_Shard]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One shot's latents; see the module."""

    target: Float[Tensor, "f c y x"]
    sketch: Float[Tensor, "f c y x"]
    stills: Float[Tensor, "k c y x"]
    references: Float[Tensor, "r c y x"]
    coverage: Int[Tensor, " n"]
    majority: Int[Tensor, " n"]

    def bits(self, cells: CellRule) -> Int[Tensor, " n"]:
        """References that each target token may see."""
        return self.coverage if cells == "coverage" else self.majority


class Precomputed:
    """A folder that `precompute` made, read a sample at a time."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError for a missing index, or shards that are missing or cut short."""
        self.folder = folder
        path = folder / INDEX
        if not path.is_file():
            raise ValueError(f"{folder}: has no {INDEX}; give a folder that `timecolor precompute` finished")
        content = path.read_bytes()
        try:
            index = _Index.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "content"
            raise ValueError(f"{path}: {place}: {first['msg']}; make it again with this version's `precompute`") from error
        self.identity = hashlib.sha256(content).hexdigest()
        self.vae, self.text = index.vae, index.text
        self.samples: list[Entry] = []
        self._shard_of: list[Path] = []
        for shard in index.shards:
            file = folder / shard.file
            if not file.is_file() or file.stat().st_size != shard.bytes:
                got = f"has {file.stat().st_size} bytes" if file.is_file() else "is missing"
                raise ValueError(f"{file}: {got} but the index says {shard.bytes}; run the same `precompute` command again")
            self.samples += shard.samples
            self._shard_of += [file] * len(shard.samples)
        if not self.samples:
            raise ValueError(f"{path}: holds no samples; precompute at least one shot")

    def __len__(self) -> int:
        return len(self.samples)

    def check(self, source: Source) -> None:
        """Raise ValueError unless the latents are of this base's VAE and the prompts of its transformer's sizes."""
        if self.vae != identity(source):
            raise ValueError(
                f"{self.folder}: latents were made by another VAE than {source.vae}; give the base they were made with"
            )
        config = source.bare["transformer"].config
        needed = (config.max_text_seq_length, config.text_embed_dim)
        if self.text != needed:
            raise ValueError(f"{self.folder}: prompts are {self.text} (tokens, channels) but the transformer takes {needed}")

    def read(self, number: int) -> Sample:
        """A sample. Raises ValueError for a shard that is broken."""
        file = self._shard_of[number]
        try:
            with safe_open(file, "pt") as shard:
                return Sample(*(shard.get_tensor(f"{number}.{part}") for part in Sample.__slots__))
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{file}: cannot be read ({error}); delete it, and run the same `precompute` command again"
            ) from error

    def prompt(self, caption: str) -> Float[Tensor, "n d"]:
        """A caption's embedding; "" is always there. Raises ValueError for a file that is missing or broken."""
        file = _prompt_file(self.folder, caption)
        embedding = weights.read(file)[0].get("embedding")
        if embedding is None or tuple(embedding.shape) != self.text:
            raise ValueError(
                f"{file}: is no embedding of {self.text} (tokens, channels); run the same `precompute` command again"
            )
        return embedding


def precompute(
    shots: Sequence[str],
    base: str | Path,
    folder: Path,
    options: PrecomputeOptions = PrecomputeOptions(),
    device: str = "auto",
    dtype: str = "auto",
    memory: str = "auto",
    embeddings: Sequence[Path] = (),
) -> Iterator[Encoded]:
    """Encode shots with a base's VAE and T5, see `encode`; device and dtype as in `models.load`, memory and embeddings as in
    `cogvideox.CogVideoXModel`."""
    where = models.device_of(device)
    model = cogvideox.load_model(base, None, where, models.dtype_of(dtype, where), memory, embeddings=embeddings)
    yield from encode(shots, model, folder, options)


def encode(shots: Sequence[str], model: CogVideoXModel, folder: Path, options: PrecomputeOptions) -> Iterator[Encoded]:
    """Encode shots into a folder, yielding each that is done. Stopped, it goes on when it is given again.

    shots: `world`, shot folders with their finished frames as `colour.mp4` or `colour/`, or folders of such. Shards and index are
    written whole or not at all, and the same command makes the same bytes on the same machine. Raises ValueError, naming the
    shot, for one that cannot be used, and for a folder that holds other shots.
    """
    model.compression.latent_frames(options.frames)
    size = options.size or model.defaults.short_side
    sources = [found for shot in shots for found in _sources(shot, options, size, model.compression.cell)]
    if not sources:
        raise InputError("there are no shots; give shot folders, or world")
    vae, settings = identity(model.source), {**asdict(options), "size": size, "dtype": str(model.dtype)}
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[_Shard] = []
    done, embedded = 0, {""}
    _write_prompt(model, folder, "")
    for start in range(0, len(sources), options.shard):
        group = sources[start : start + options.shard]
        file = folder / f"shard-{start // options.shard:05d}.safetensors"
        key = hashlib.sha256(json.dumps([vae, settings, [source.key for source in group]]).encode()).hexdigest()
        entries = _finished(file, key)
        again = entries is not None
        if entries is None:
            tensors: dict[str, Tensor] = {}
            entries = []
            for source in group:
                entry, sample = _encoded(source, model, options, size)
                tensors |= {f"{done + len(entries)}.{part}": getattr(sample, part) for part in Sample.__slots__}
                entries.append(entry)
                if len(entries) < len(group):
                    yield Encoded(source.name, done + len(entries), len(sources), again)
            # One entry of metadata: safetensors writes several in any order.
            weights.save(file, tensors, {"shard": {"key": key, "samples": [entry.model_dump() for entry in entries]}})
        for caption in {entry.caption for entry in entries} - embedded:
            _write_prompt(model, folder, caption)
            embedded.add(caption)
        shards.append(_Shard(file=file.name, bytes=file.stat().st_size, samples=entries))
        done += len(entries)
        yield Encoded(group[-1].name, done, len(sources), again)
    index = _Index(vae=vae, text=(model.text, model.config.text_embed_dim), options=settings, shards=shards)
    partial = folder / f".{INDEX}.partial"
    partial.write_text(index.model_dump_json(indent=1), encoding="utf-8")
    partial.replace(folder / INDEX)


def identity(source: Source) -> str:
    """Of the VAE that made latents: a hash of its files."""
    return files.identity(source.vae)


@dataclass(frozen=True, slots=True)
class _Source:
    """A shot not yet read. key: of its content. path: None = the world's, which is all in `world`."""

    name: str
    key: str
    path: Path | None = None
    world: tuple[World, int] | None = None

    def read(self) -> tuple[Shot, Frames, str]:
        """The shot, its finished frames and its caption."""
        if self.world is not None:
            world, index = self.world
            shot, clip = world.shot(index).to_shot("multi-reference")
            return shot, clip, ""
        assert self.path is not None
        file = load_shots(self.path)[0]
        colour = open_frames(_colour(self.path))
        if tuple(colour.shape) != tuple(file.shot.sketch.shape):
            got, expected = tuple(colour.shape[:3]), tuple(file.shot.sketch.shape[:3])
            raise InputError(f"colour is {got} but the sketch is {expected} (frames, height, width); save both alike")
        return file.shot, colour, str(file.options.get("caption") or file.options.get("prompt") or "")


def _sources(shot: str, options: PrecomputeOptions, size: int, cell: int) -> list[_Source]:
    """The shots of `world`, of a shot folder or of a folder of such."""
    if shot == WORLD:
        width = round(size * 1.5 / cell) * cell
        world = World(options.seed, size // cell * cell, width, options.frames + EARLIER, shrink=2)
        return [_Source(f"world {world.seed}/{i}", f"{world} {i}", world=(world, i)) for i in range(options.count)]
    path = Path(shot)
    if not path.is_dir():
        raise InputError(f"{shot}: is no folder; give shot folders (sketch, colour, references), folders of them, or world")
    inside = [path] if _is_shot(path) else sorted(p for p in path.iterdir() if p.is_dir() and _is_shot(p))
    if not inside:
        raise InputError(f"{shot}: holds no shots; a shot is a folder with sketch.mp4 or sketch/, and colour.mp4 or colour/")
    return [_Source(str(p), files.identity(p), p) for p in inside]


def _is_shot(folder: Path) -> bool:
    return any(p.stem.lower() == "sketch" for p in folder.iterdir())


def _colour(folder: Path) -> Path:
    found = [p for p in sorted(folder.iterdir()) if p.stem.lower() == "colour"]
    found = [p for p in found if p.is_dir() or p.suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES]
    if len(found) != 1:
        raise InputError(f"has {len(found) or 'no'} finished frames; add them once, as colour.mp4 or colour/ beside the sketch")
    return found[0]


def _finished(file: Path, key: str) -> list[Entry] | None:
    """What a shard of an earlier run holds, None = it is to be made. Raises ValueError where it holds other shots."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as shard:
            said = json.loads((shard.metadata() or {})["shard"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return None  # cut short by somebody else: made anew
    if said["key"] != key:
        raise ValueError(f"{file}: holds other shots, or was made with other options or another VAE; give another --out")
    return [Entry.model_validate(entry) for entry in said["samples"]]


def _encoded(source: _Source, model: CogVideoXModel, options: PrecomputeOptions, size: int) -> tuple[Entry, Sample]:
    try:
        return _sample(source, model, options, size)
    except (ValueError, OSError) as error:
        if source.name in str(error):
            raise
        raise InputError(f"{source.name}: {error}") from error


def _sample(source: _Source, model: CogVideoXModel, options: PrecomputeOptions, size: int) -> tuple[Entry, Sample]:
    shot, colour, caption = source.read()
    total, height, width = shot.sketch.shape[:3]
    time = model.compression.time
    length = (min(options.frames, total) - 1) // time * time + 1
    first = total - length
    native = Clip(length, height, width)
    working = model.compression.nearest(native, size)

    def encoded(frames: Frames) -> Tensor:
        return model.encode_sketch(codec.shrink(frames[first:total], working))[0]

    rng = np.random.default_rng((options.seed, *source.key.encode()))
    others = [t for t in range(total) if t < first] or [t for t in range(total) if t != first]
    chosen = sorted(rng.choice(others, min(options.stills, len(others)), replace=False).tolist()) if others else []
    stills = [Reference(colour[t : t + 1][0], None, "frame") for t in (first, *chosen)]
    pictures = [[codec.letterbox(one, working, native) for one in group] for group in (stills, shot.references)]
    grid = model.compression.grid(working)
    bits = dict.fromkeys(("coverage", "majority"), unlabelled(grid)[0])
    if shot.labels is not None:
        areas = np.stack([_resized(area, working) for area in np.asarray(shot.labels.video[first:total])])
        rules: tuple[CellRule, ...] = ("coverage", "majority")
        bits = {rule: label_bits(torch.from_numpy(areas), shot.labels.references_of, model.compression, rule) for rule in rules}
    sample = Sample(
        encoded(colour),
        encoded(shot.sketch),
        *(model.encode_references(group, working)[0].to(model.dtype) for group in pictures),
        **bits,
    )
    sample = Sample(*(getattr(sample, part).cpu() for part in Sample.__slots__))
    for part in ("target", "sketch", "stills", "references"):
        if not bool(torch.isfinite(getattr(sample, part)).all()):
            raise ValueError(f"latents of its {part} are not finite; give another --dtype")
    labelled = shot.labels is not None
    entry = Entry(
        name=source.name,
        caption=caption,
        latent_frames=grid.frames,
        stills=len(stills),
        references=len(shot.references),
        labelled=labelled,
    )
    return entry, sample


def _resized(area: np.ndarray, working: Clip) -> np.ndarray:
    size = (working.width, working.height)
    return cv2.resize(area.astype(np.int32).astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(np.int64)


def _prompt_file(folder: Path, caption: str) -> Path:
    return folder / "prompts" / f"{hashlib.sha256(caption.encode()).hexdigest()[:32]}.safetensors"


def _write_prompt(model: CogVideoXModel, folder: Path, caption: str) -> None:
    file = _prompt_file(folder, caption)
    if not file.is_file():
        model.prompts.write(caption, file)
