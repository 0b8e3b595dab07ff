"""What the matcher learns from: drawings of the world beside references of the same characters, with the parts of both."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from timecolor import codec, propagation, weights
from timecolor.geometry import Clip
from timecolor.matcher import STRIDE, Matcher
from timecolor.matching import LOOKS
from timecolor.shapes import Bool, Float, Int, UInt8
from timecolor.shot import Reference
from timecolor.sketch import SketchStyle, extract_lines, lines_in
from timecolor.train.art import Art
from timecolor.train.batches import by_weight, loader
from timecolor.train.presets import MatcherPreset, Views
from timecolor.world import HELD_OUT_SEED, World

PLACES = np.s_[..., STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]  # of a picture, that the matcher describes
LARGER = max(look.scale for look in LOOKS)  # times their size at which pictures are looked at too
PAIR = 0.62 * 2**30  # bytes for a pair of 240x360 on a GPU, enlarged: 104 GiB were in use with 180
AT_ONCE = 16  # pairs that go through the network together on a CPU: 4 GB at 240x360 enlarged
STYLES: tuple[SketchStyle, ...] = ("clean", "drawn", "soft", "thick", "extracted")  # of lines taken from a coloured drawing


class Pairs(NamedTuple):
    """A batch.

    drawing, references: darkness of lines, and the area that they are of and that is asked for or shown (255, else 0). parts,
    theirs: palette indices of `world`, two to a slot, below 2 = the place behind, at the places that the matcher describes.
    """

    drawing: UInt8[Tensor, "b 2 h w"]
    parts: UInt8[Tensor, "b y x"]
    references: UInt8[Tensor, "b r 2 h w"]
    theirs: UInt8[Tensor, "b r y x"]

    @property
    def counted(self) -> Bool[Tensor, "b y x"]:
        """Places of the drawing that are asked for."""
        return self.drawing[:, 1][PLACES] > 0

    @property
    def shown(self) -> Bool[Tensor, "b r y x"]:
        """Places where a reference shows anything."""
        return self.references[:, :, 1][PLACES] > 0

    def mirrored(self, drawings: Bool[Tensor, " b"], references: Bool[Tensor, "b r"]) -> "Pairs":
        """With some of the pictures mirrored."""
        # A column further, so that places, which are odd columns, stay on what they are of.
        flipped = Pairs(*(x.flip(-1).roll(by, -1) for x, by in zip(self, (1, 0, 1, 0), strict=True)))
        which = (
            drawings[:, None, None, None],
            drawings[:, None, None],
            references[..., None, None, None],
            references[..., None, None],
        )
        return Pairs(*(torch.where(w, f, x) for w, f, x in zip(which, flipped, self, strict=True)))


class Met:
    """Pairs that were met before, the latest of each size."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[torch.Size, Pairs] = {}
        self._count: dict[torch.Size, int] = {}

    def beside(self, fresh: Pairs, again: int, generator: torch.Generator) -> Pairs:
        """New pairs, which are kept, and `again` of all that are. generator: on the CPU."""
        size, count = fresh.drawing.shape[2:], len(fresh.drawing)
        if size not in self._kept:
            self._kept[size] = Pairs(*(x.new_empty(self._most, *x.shape[1:]) for x in fresh))
            self._count[size] = 0
        kept = self._kept[size]
        at = (torch.arange(count) + self._count[size]) % self._most
        self._count[size] += count
        known = torch.randint(min(self._count[size], self._most), (again,), generator=generator)
        for old, new in zip(kept, fresh, strict=True):
            old[at.to(old.device)] = new
        return Pairs(*(torch.cat([new, old[known.to(old.device)]]) for old, new in zip(kept, fresh, strict=True)))


class Steps(Dataset):
    """The new pairs of every training step."""

    def __init__(self, preset: MatcherPreset, art: Art | None = None) -> None:
        self.preset, self._art = preset, art

    def __len__(self) -> int:
        return self.preset.steps

    def __getitem__(self, step: int) -> Pairs:
        preset = self.preset
        rng = np.random.default_rng((preset.seed, step, 11))
        views = by_weight(rng, preset.views)
        first = step * max(v.batch for v in preset.views)
        return make_pairs(preset, views, preset.seed, range(first, first + views.batch), True, self._art)


def make_pairs(
    preset: MatcherPreset, views: Views, seed: int, indices: Sequence[int], augment: bool, art: Art | None = None
) -> Pairs:
    """A batch of scenes by number, of the world or of `art`; shots without a character are passed over for later ones."""
    return Pairs(
        *(torch.stack(part) for part in zip(*(_pair(preset, views, seed, i, augment, art) for i in indices), strict=True))
    )


class _Scene(NamedTuple):
    """A drawing (h, w, 3), its parts (h, w), the area that is asked for (h, w), and references with their parts."""

    sketch: np.ndarray
    parts: np.ndarray
    area: np.ndarray
    found: Sequence[tuple[Reference, np.ndarray]]


def _pair(preset: MatcherPreset, views: Views, seed: int, index: int, augment: bool, art: Art | None) -> tuple[Tensor, ...]:
    rng = np.random.default_rng((seed, index, 13))
    clip = Clip(1, views.height, views.width)
    other = art is not None and rng.random() < preset.art
    scene = _of_art(preset, art, clip, rng) if art is not None and other else _of_world(preset, clip, seed, index, rng, augment)
    lines, area, parts = propagation.ink(scene.sketch), scene.area, scene.parts
    if not area.all():
        lines = lines_in(lines, area)
    seen = [_seen(reference, theirs, preset, clip, rng, augment) for reference, theirs in scene.found]
    blank = (np.zeros((2, clip.height, clip.width), np.uint8), np.zeros((clip.height, clip.width), np.uint8))
    seen += [blank] * (preset.references - len(seen))
    pictures, theirs = (np.stack(x) for x in zip(*seen, strict=True))
    found = np.stack([lines, area * np.uint8(255)]), parts[PLACES], pictures, theirs[PLACES]
    return tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in found)


def asked(batch: Pairs, queries: int, generator: torch.Generator) -> Int[Tensor, "b q"]:
    """Numbers of places that count: half as they come, half so that a small part counts nearly as much as a large one.

    An area may be so thin that it lies on none; then any place.
    """
    counted, parts = batch.counted.flatten(1), batch.parts.flatten(1).long()
    counted = (counted | ~counted.any(1, keepdim=True)).float()
    sizes = counted.new_zeros(len(parts), 256).scatter_add_(1, parts, counted).clamp(min=1)
    small = sizes.pow(-0.8).gather(1, parts) * counted
    likely = counted / counted.sum(1, keepdim=True) + small / small.sum(1, keepdim=True)
    return torch.multinomial(likely, queries, replacement=True, generator=generator)


def known(batch: Pairs, keys: int, generator: torch.Generator) -> Int[Tensor, "b k"]:
    """Numbers of places of all references together, those that show something first."""
    shown = batch.shown.flatten(1)
    order = torch.rand(shown.shape, generator=generator, device=shown.device) + shown
    return order.topk(min(keys, shown.shape[1]), dim=1).indices


def _of_world(preset: MatcherPreset, clip: Clip, seed: int, index: int, rng: np.random.Generator, augment: bool) -> _Scene:
    height, width = clip.height, clip.width
    while True:
        # Drawn at twice the size and shrunk by area, as real sketches are; references keep that size, see `batches`.
        shot = World(seed=seed, height=height, width=width, shrink=2).shot(index)
        if shot.characters:
            moment = int(rng.integers(shot.frames))
            frame = shot.render(moment)
            if (frame.labels > 0).mean() > 0.01:
                break
        index += 1_000_000_007
    large = World(seed=seed, height=2 * height, width=2 * width).shot(index)
    sketch = frame.sketch
    if augment and rng.random() < preset.extracted:
        sketch = _extracted(large.render(moment).colour, clip, rng)
    area = np.ones((height, width), bool)
    kind = rng.random()
    if kind < preset.frames:
        other = large.render(int(rng.choice([t for t in range(shot.frames) if t != moment])))
        found = [(Reference(other.colour, role="frame"), other.parts)]
    elif kind < preset.frames + preset.labelled:
        present = [k for k in range(1, shot.characters + 1) if (frame.labels == k).sum() > 24]
        k = int(rng.choice(present)) if present else int(frame.labels[frame.labels > 0][0])
        area = frame.labels == k
        variants = rng.permutation(4)[: int(rng.integers(1, preset.references + 1))]
        found = [large.figure(k, int(v)) for v in variants]
    else:
        plate = rng.random() < preset.plates
        cast = rng.permutation(shot.characters)[: preset.references - plate] + 1
        found = [large.figure(int(k), int(rng.integers(3))) for k in cast]
        if plate:
            behind = large.plate(int(rng.integers(shot.frames)))
            found.append((Reference(behind, role="background"), np.zeros(behind.shape[:2], np.uint8)))
    return _Scene(sketch, frame.parts, area, found)


def _of_art(preset: MatcherPreset, art: Art, clip: Clip, rng: np.random.Generator) -> _Scene:
    height, width = clip.height, clip.width
    while True:
        cast = art.scene(rng, 2 * height, 2 * width, 3)
        frame = cast.drawn(rng)
        if (frame.labels > 0).mean() > 0.03:
            break
    kind = rng.random()
    shown = [k for k in range(1, len(cast) + 1) if (frame.labels == k).sum() > 96]
    small = [cv2.resize(x, (width, height), interpolation=cv2.INTER_NEAREST) for x in (frame.parts, frame.labels)]
    area = np.ones((height, width), bool)
    if kind < preset.frames:
        other = cast.drawn(rng)
        found = [(Reference(other.colour, role="frame"), other.parts)]
    elif kind < preset.frames + preset.labelled:
        k = int(rng.choice(shown)) if shown else int(frame.labels.max())
        area = small[1] == k
        if not area.any():
            return _of_art(preset, art, clip, rng)
        found = [cast.figure(rng, k - 1) for _ in range(int(rng.integers(1, preset.references + 1)))]
    else:
        found = [cast.figure(rng, int(k)) for k in rng.permutation(len(cast))[: preset.references]]
    return _Scene(_extracted(frame.colour, clip, rng), small[0], area, found)


def _extracted(colour: np.ndarray, clip: Clip, rng: np.random.Generator) -> np.ndarray:
    """Lines of a coloured drawing, shrunk to a size."""
    style = STYLES[int(rng.integers(len(STYLES)))]
    lines = extract_lines(colour, style, binarise=bool(rng.random() < 0.7))
    return cv2.resize(lines, (clip.width, clip.height), interpolation=cv2.INTER_AREA)


def _seen(
    reference: Reference, parts: np.ndarray, preset: MatcherPreset, clip: Clip, rng: np.random.Generator, augment: bool
) -> tuple[np.ndarray, np.ndarray]:
    """A reference as the matcher sees it at the working size, and its parts."""
    image, alpha = reference.image, reference.alpha
    if augment and alpha is not None and rng.random() < 0.5:
        h, w = parts.shape
        scale = float(rng.uniform(*preset.zoom))
        x, y = ((1 - scale) * np.array([w, h]) / 2 * (1 + rng.uniform(-0.5, 0.5, 2))).tolist()
        move = np.array([[scale, 0, x], [0, scale, y]], np.float32)
        moved = cv2.warpAffine(alpha, move, (w, h), flags=cv2.INTER_LINEAR)
        if moved.any():
            image = cv2.warpAffine(image, move, (w, h), flags=cv2.INTER_AREA)
            parts = cv2.warpAffine(parts, move, (w, h), flags=cv2.INTER_NEAREST)
            alpha = moved
    picture = codec.letterbox(Reference(image, alpha, reference.role), clip)
    parts = cv2.resize(parts, (clip.width, clip.height), interpolation=cv2.INTER_NEAREST)
    return np.stack([picture.lines, picture.shown * np.uint8(255)]), parts


class Matching:
    """Implements `loop.Lesson`."""

    name = "matcher"

    def __init__(self, preset: MatcherPreset, device: torch.device, art: Path | None = None) -> None:
        self.preset, self.device = preset, device
        if preset.art and art is None:
            raise ValueError(
                "a share of the scenes is of drawings by others; give --data, made by `python -m timecolor.train.art`"
            )
        self._art = Art(art) if preset.art and art is not None else None
        torch.manual_seed(preset.seed)
        self.model = Matcher(preset.model).to(device)
        self._validation: list[Pairs] | None = None

    def fill_in(self, path: Path) -> None:
        """Take over the weights in a file; what the preset's network has beyond its own stays as it is, and adds nothing yet."""
        known, model = weights.load_matcher(path), self.preset.model
        grown = replace(
            known.config,
            attention=max(known.config.attention, model.attention),
            boxes=model.boxes,
            refined=known.config.refined or model.refined,
        )
        if grown != model:
            raise ValueError(f"{path}: holds {known.config}, the preset has {model}; start from weights of its sizes")
        self.model.load_state_dict(known.state_dict(), strict=False)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for matrices (Jordan et al. 2024), AdamW for all else."""
        matrices = [p for p in self.model.parameters() if p.ndim == 2]
        others = [p for p in self.model.parameters() if p.ndim != 2]
        rate = self.preset.rate
        muon = torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        adamw = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
        for optimizer in (muon, adamw):
            optimizer.param_groups[0]["factor"] = 1.0
        return [muon, adamw]

    def batches(self, start: int) -> Iterable[Pairs]:
        """See `batches.loader`. A resumed run has met no pair before."""
        preset, met = self.preset, Met(self.preset.kept)
        for step, fresh in enumerate(loader(Steps(preset, self._art), preset, start), start):
            batch = Pairs(*(x.to(self.device, non_blocking=True) for x in fresh))
            again = preset.again * len(batch.drawing)
            yield met.beside(batch, again, torch.Generator().manual_seed(preset.seed * 1_000_003 + step)) if again else batch

    def parts(self, batch: Pairs) -> Iterable[tuple[Pairs, float]]:
        """As many at once as a GPU's memory holds; on a CPU few, which gains nothing by more."""
        at_once = AT_ONCE
        if self.device.type == "cuda":
            at_once = max(1, int(torch.cuda.get_device_properties(self.device).total_memory / PAIR))
        parts = (Pairs(*some) for some in zip(*(x.split(at_once) for x in batch), strict=True))
        return ((part, len(part.drawing) / len(batch.drawing)) for part in parts)

    def losses(self, part: Pairs, generator: torch.Generator) -> Tensor:
        """See `losses`, of pictures mirrored at random, and now and then enlarged."""
        count, of_each = part.references.shape[:2]
        draw = torch.rand(count, of_each + 2, generator=generator).to(self.device)
        mirrored = draw[:, 1:] < 0.5
        mirrored = torch.where(draw[:, :1] < self.preset.alike, mirrored[:, :1], mirrored)
        part = part.mirrored(mirrored[:, 0], mirrored[:, 1:])
        larger = float(torch.rand((), generator=generator)) < self.preset.larger
        return losses(self.model, part, self.preset, generator, LARGER if larger else 1.0)[0]

    def measured(self) -> dict[str, float]:
        """The loss; of places whose part, or "nothing", is likelier than all else together, and whose tone is than the other."""
        preset = self.preset
        if self._validation is None:
            each = min(preset.views[0].batch, preset.validation_shots)
            edges = pairwise(range(0, preset.validation_shots + 1, each))
            self._validation = [make_pairs(preset, preset.views[0], HELD_OUT_SEED, range(a, b), False) for a, b in edges]
        found: dict[str, list[float]] = {}
        for number, batch in enumerate(self._validation):
            each_loss, shares = losses(self.model, batch, preset, torch.Generator().manual_seed(HELD_OUT_SEED + number))
            for name, value in (("loss", each_loss.mean()), *shares.items()):
                found.setdefault(name, []).append(float(value))
        return {name: round(float(np.nanmean(values)), 4) for name, values in found.items()}

    def save(self, path: Path, average: dict[str, Tensor], steps: int) -> None:
        """See `weights.save_matcher`."""
        weights.save_matcher(path, self.model, average, steps=steps, seed=self.preset.seed)


def losses(
    matcher: Matcher, batch: Pairs, preset: MatcherPreset, generator: torch.Generator, scale: float = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """For each sample minus the log-probability of the part, over the places asked for; shares of those that are right.

    generator: on the CPU; draws the places that are compared. scale: times their size, at which pictures are looked at.
    found, nothing: the part has over half, of places that a reference shows, or "nothing", of the others. tone: of those of which
    references show both tones, the right one is likelier.
    """
    device = matcher.scale.device
    chance = torch.Generator(device).manual_seed(int(torch.randint(1 << 62, (), generator=generator)))
    batch = Pairs(*(x.to(device) for x in batch))
    count, of_each = batch.references.shape[:2]
    of_own, of_theirs = asked(batch, preset.queries, chance), known(batch, preset.keys, chance)
    pictures = matcher.of_areas(enlarged(batch.references.flatten(0, 1), scale), [()] * (count * of_each))
    seen = [pictures[i : i + of_each] for i in range(0, len(pictures), of_each)]
    drawn = matcher.of_areas(enlarged(batch.drawing, scale), seen)

    queries = described(torch.stack([x.places for x in drawn])[:, None], of_own, batch.parts.shape[1:])
    shown = torch.stack([x.places for x in pictures]).unflatten(0, (count, of_each))
    keys = described(shown, of_theirs, batch.parts.shape[1:])
    parts, theirs = (
        batch.parts.flatten(1).gather(1, of_own).long()[..., None],
        batch.theirs.flatten(1).gather(1, of_theirs).long(),
    )
    there = batch.shown.flatten(1).gather(1, of_theirs)
    fits, nothing = matcher.likeness(queries, keys)
    # Parts by number, so that one product sums over the places of each.
    share = there / there.sum(1, keepdim=True).clamp(min=1)
    of_part = F.one_hot(theirs, 256).float() * share[..., None]
    by_part = fits @ of_part
    same, other = by_part.gather(2, parts)[..., 0], by_part.gather(2, parts ^ 1)[..., 0]
    held = of_part.amax(1) > 0
    toned = held.gather(1, parts[..., 0])
    found = toned | held.gather(1, parts[..., 0] ^ 1)
    part = (torch.where(found, same + other, nothing) / (by_part.sum(2) + nothing)).clamp(min=1e-9).log()
    tone = torch.where(toned, (same / (same + other).clamp(min=1e-30)).clamp(min=1e-6).log(), 0.0)
    right = part.detach() > float(np.log(0.5))
    both = toned & held.gather(1, parts[..., 0] ^ 1)
    about = {"found": right[found], "nothing": right[~found], "tone": (same > other)[both]}
    return -(part + preset.tone * tone).mean(1), {name: each.float().mean() for name, each in about.items()}


def enlarged(pictures: UInt8[Tensor, "b 2 h w"], scale: float) -> Float[Tensor, "b 2 y x"]:
    """Lines and areas in [0, 1], at `scale` times their size, as `timecolor.matching.Look` has them."""
    pictures = pictures / 255
    if scale == 1:
        return pictures
    size = [round(n * scale) for n in pictures.shape[2:]]
    lines = F.interpolate(pictures[:, :1], size=size, mode="bicubic").clamp(0, 1)
    return torch.cat([lines, F.interpolate(pictures[:, 1:], size=size, mode="nearest")], dim=1)


def described(
    places: Float[Tensor, "b r d rows columns"], numbers: Int[Tensor, "b n"], size: Sequence[int]
) -> Float[Tensor, "b n d"]:
    """What is described at places by number. size: rows and columns that they are numbered by; descriptions may be denser."""
    of, row, column = numbers // (size[0] * size[1]), numbers // size[1] % size[0], numbers % size[1]
    row, column = (
        ((n + 0.5) * (now / of_all)).long() for n, now, of_all in zip((row, column), places.shape[3:], size, strict=True)
    )
    return places[torch.arange(len(numbers), device=numbers.device)[:, None], of, :, row, column]
