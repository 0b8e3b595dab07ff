"""Batches from the procedural world, a pure function of (preset, step), so that a run resumes exactly."""

import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from timecolor import codec, propagation
from timecolor.correspondence import ALL, label_bits
from timecolor.denoiser import Picture
from timecolor.geometry import Clip, Compression
from timecolor.shapes import Float, Int
from timecolor.shot import Reference
from timecolor.sketch import extract_lines
from timecolor.train.presets import Bucket, Preset, Run, Views
from timecolor.world import World, WorldShot

WHOLE_FRAMES = 1  # references of a sample that hints are made of

Sized = TypeVar("Sized", Bucket, Views)
Protocol = Literal["start frame", "arbitrary frame", "multi-reference"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one size and one number of references.

    clean: target latents in [-1, 1]. sketch, references, hints: as the codec gives them.
    hint_of: the reference of each hint, -1 = none. bits: references each target token may see.
    character: share of each frame pixel that belongs to a character, for validation.
    """

    clean: Float[Tensor, "b f c y x"]
    sketch: Float[Tensor, "b f 3 h w"]
    references: Float[Tensor, "b r 4 h w"]
    bits: Int[Tensor, "b n"]
    hints: Float[Tensor, "b f k 4 h w"]
    hint_of: Int[Tensor, "b k"]
    character: Float[Tensor, "b f 1 h w"]


class Steps(Dataset):
    """The batch of every training step."""

    def __init__(self, preset: Preset) -> None:
        self.preset = preset

    def __len__(self) -> int:
        return self.preset.steps

    def __getitem__(self, step: int) -> Batch:
        preset = self.preset
        rng = np.random.default_rng((preset.seed, step))
        bucket = by_weight(rng, preset.buckets)
        stage = next(s for s in preset.stages if step < s.until * preset.steps or s is preset.stages[-1])
        shares = np.array([stage.start_frame, stage.arbitrary_frame, stage.multi_reference])
        protocol: Protocol = ("start frame", "arbitrary frame", "multi-reference")[rng.choice(3, p=shares / shares.sum())]
        # Now and then there is no reference at all.
        references = 1 if protocol != "multi-reference" else int(rng.choice([0, 2, 3, 4], p=[0.04, 0.32, 0.32, 0.32]))
        first = step * max(b.batch for b in preset.buckets)
        return make_batch(preset, bucket, protocol, references, preset.seed, range(first, first + bucket.batch), augment=True)


def by_weight(rng: np.random.Generator, kinds: Sequence[Sized]) -> Sized:
    """One of them, each as often as its weight says."""
    weights = np.array([kind.weight for kind in kinds])
    return kinds[rng.choice(len(weights), p=weights / weights.sum())]


def loader(steps: Dataset, preset: Run, start: int) -> DataLoader:
    """Batches from step `start` on, in order, made ahead by worker processes. steps: the batch of each."""
    ahead: dict[str, Any] = {}
    if preset.workers:
        # Not forked: a child of a process whose thread pools run may wait for ever. On Linux a server that has none forks them,
        # so that all is imported once; elsewhere a process that has imported much may not be forked at all.
        context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        if sys.platform == "linux":
            context.set_forkserver_preload([__name__])
        ahead = {"prefetch_factor": 4, "worker_init_fn": _alone, "multiprocessing_context": context}
    return DataLoader(steps, batch_size=None, sampler=range(start, preset.steps), num_workers=preset.workers, **ahead)


def make_batch(
    preset: Preset, bucket: Bucket, protocol: Protocol, references: int, seed: int, indices: range, augment: bool
) -> Batch:
    """One batch of the world's shots `indices`; multi-reference is the plate, the characters, then further views of them."""
    samples = [_sample(preset, bucket, protocol, references, seed, index, augment) for index in indices]
    return Batch(*(torch.stack(part) for part in zip(*samples, strict=True)))


def _sample(
    preset: Preset, bucket: Bucket, protocol: Protocol, references: int, seed: int, index: int, augment: bool
) -> tuple[Tensor, ...]:
    rng = np.random.default_rng((seed, index, 7))
    # Drawn at twice the size and shrunk by area, as real sketches are when they come to the model.
    shot = World(seed=seed, height=bucket.height, width=bucket.width, shrink=2).shot(index)
    # References keep that size, so that their lines can be taken out as finely as real ones' are.
    large = World(seed=seed, height=2 * bucket.height, width=2 * bucket.width).shot(index)
    clip = Clip(bucket.frames, bucket.height, bucket.width)
    gap = int(rng.integers(1, 4))
    first = int(rng.integers(0, shot.frames - (bucket.frames - 1) * gap))
    moments = [first + gap * i for i in range(bucket.frames)]
    frames = [shot.render(t) for t in moments]
    labels = np.stack([f.labels for f in frames])
    mirrored = augment and rng.random() < 0.5

    allowed: dict[int, list[int]] = {}
    # No background: the paper stays white, as in `Colorizer.stream`, and mostly no line of the place is drawn.
    bare = augment and rng.random() < 0.12 and shot.characters > 0
    empty = bare and rng.random() < 0.7
    if protocol == "multi-reference":
        pictures, allowed = _cast(large, references, rng, plate=not bare)
    else:
        moment = 0 if protocol == "start frame" else int(rng.choice([t for t in range(shot.frames) if t not in moments]))
        whole = large.render(moment)
        shown = np.where((whole.labels > 0)[..., None], whole.colour, np.uint8(255)) if bare else whole.colour
        pictures = [Reference(shown, role="frame")]
    bound = protocol == "multi-reference" and (not augment or rng.random() < preset.keep_labels)
    if augment:
        pictures = [_varied(p, rng) for p in pictures]
        order = rng.permutation(len(pictures)).tolist()
        pictures = [pictures[i] for i in order]
        allowed = {label: [order.index(r) for r in own] for label, own in allowed.items()}
        lost = {r for r in range(len(pictures)) if rng.random() < preset.drop_reference}
        for r in lost:  # a reference that turns out empty: the model must do without
            pictures[r] = Reference(np.zeros_like(pictures[r].image))

    if augment and rng.random() < 0.12:
        style = ("clean", "drawn", "soft", "thick", "extracted")[int(rng.integers(5))]
        binarise = bool(rng.random() < 0.7)
        sketch = np.stack([extract_lines(f.colour, style, binarise) for f in frames])
    else:
        sketch = np.stack([f.sketch for f in frames])
    fills = np.stack([f.fills for f in frames])
    if bare:
        fills[labels == 0] = 255
    if empty:
        near = np.stack([cv2.dilate((area > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) for area in labels])
        sketch = np.where(near[..., None] > 0, sketch, np.uint8(255))
    if mirrored:
        pictures = [_mirror(p) for p in pictures]
        sketch, fills, labels = (np.ascontiguousarray(x[:, :, ::-1]) for x in (sketch, fills, labels))

    compression = Compression(time=1, space=preset.colour_cell, patch=preset.model.patch)
    grid = compression.grid(clip)
    if bound:
        rule = "majority" if augment and rng.random() < 0.2 else "coverage"
        bits = label_bits(torch.from_numpy(labels.astype(np.int64)), lambda k: tuple(allowed.get(k, ())), compression, rule)
    else:
        bits = torch.full((grid.tokens,), ALL)
    seen = [codec.letterbox(p, clip, ground=255 if bare else 0) for p in pictures]
    encoded = [codec.encode_reference(picture)[0] for picture in seen]
    hints, hint_of = _hints(pictures, seen, sketch, [] if augment and rng.random() < preset.drop_hints else range(len(seen)))
    return (
        codec.PixelCodec(preset.colour_cell).encode(fills)[0],
        codec.encode_sketch(sketch)[0],
        torch.cat(encoded) if encoded else torch.zeros(0, 4, clip.height, clip.width),
        bits,
        codec.encode_hints(hints)[0],
        hint_of,
        torch.from_numpy(labels > 0).float()[:, None],
    )


def _hints(pictures: list[Reference], seen: list[Picture], sketch: np.ndarray, used: Sequence[int]) -> tuple[np.ndarray, Tensor]:
    """Candidates of the whole-frame references, as `Colorizer` makes them: (t, k, h, w, 4) and (k), filled up with empty ones."""
    whole = [r for r in used if pictures[r].shows_frame(*sketch.shape[1:3])][:WHOLE_FRAMES]
    made = [np.stack([_candidates(seen[r], drawing) for drawing in sketch]) for r in whole]
    missing = WHOLE_FRAMES - len(whole)
    count = propagation.CANDIDATES
    made += [np.zeros((len(sketch), count, *sketch.shape[1:3], 4), np.uint8)] * missing
    return np.concatenate(made, axis=1), torch.tensor(whole + [-1] * missing).repeat_interleave(count)


def _candidates(picture: Picture, drawing: np.ndarray) -> np.ndarray:
    return propagation.candidates(picture.fills, picture.lines, propagation.flows(picture.lines, drawing))


def _cast(
    shot: WorldShot, references: int, rng: np.random.Generator, plate: bool
) -> tuple[list[Reference], dict[int, list[int]]]:
    """Plate (if wanted) and characters, filled up with further views; and label -> indices."""
    pictures: list[Reference] = []
    allowed: dict[int, list[int]] = {}
    if plate and references:
        pictures, allowed = [Reference(shot.plate(0), role="background")], {0: [0]}
    for k in range(1, shot.characters + 1):
        if len(pictures) < references:
            allowed[k] = [len(pictures)]
            pictures.append(shot.character(k, int(rng.integers(0, 3))))
    variant = 3
    while len(pictures) < references:
        k = int(rng.integers(0 if plate else 1, shot.characters + 1))
        allowed.setdefault(k, []).append(len(pictures))
        pictures.append(shot.character(k, variant) if k else Reference(shot.plate(shot.frames - 1), role="background"))
        variant += 1
    return pictures, allowed


def _varied(picture: Reference, rng: np.random.Generator) -> Reference:
    """The same picture mirrored, smaller or nearer, or without its alpha. Plates and frames mostly stay in their place."""
    image, alpha = picture.image, picture.alpha
    in_place = picture.role in ("background", "frame")
    if not in_place and rng.random() < 0.5:
        mirrored = _mirror(picture)
        image, alpha = mirrored.image, mirrored.alpha
    if rng.random() < (0.1 if in_place else 0.4):
        h, w = image.shape[:2]
        scale = float(rng.uniform(0.6, 1.5))
        x, y = ((1 - scale) * np.array([w, h]) / 2 * (1 + rng.uniform(-0.3, 0.3, 2))).tolist()
        move = np.array([[scale, 0, x], [0, scale, y]], np.float32)
        edge = cv2.BORDER_REPLICATE if alpha is None else cv2.BORDER_CONSTANT
        image = cv2.warpAffine(image, move, (w, h), flags=cv2.INTER_AREA, borderMode=edge)
        if alpha is not None:
            moved = cv2.warpAffine(alpha, move, (w, h), flags=cv2.INTER_LINEAR)
            image, alpha = (image, moved) if moved.any() else (picture.image, picture.alpha)
    if alpha is not None and rng.random() < 0.3:  # cut-outs often come as a picture on black or on white paper
        image, alpha = Reference(image, alpha).over(255 if rng.random() < 0.5 else 0), None
    return Reference(image, alpha, picture.role, picture.name)


def _mirror(picture: Reference) -> Reference:
    alpha = None if picture.alpha is None else np.ascontiguousarray(picture.alpha[:, ::-1])
    return Reference(np.ascontiguousarray(picture.image[:, ::-1]), alpha, picture.role, picture.name)


def _alone(_worker: int) -> None:
    """A worker uses one thread; the model has the others."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
