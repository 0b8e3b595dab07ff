"""What the embedded denoiser learns: clean latents from noisy ones, on shots of the world."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from timecolor import diffusion, weights
from timecolor.correspondence import Rule, shot_tokens
from timecolor.denoiser import Conditions
from timecolor.geometry import Grid
from timecolor.layout import TokenLayout
from timecolor.toon import Toon
from timecolor.train.batches import Batch, Protocol, Steps, loader, make_batch
from timecolor.train.presets import Preset
from timecolor.world import HELD_OUT_SEED

RULE = Rule(regime="cached")


class Denoising:
    """Implements `loop.Lesson`."""

    name = "toon"

    def __init__(self, preset: Preset, device: torch.device) -> None:
        self.preset, self.device = preset, device
        torch.manual_seed(preset.seed)
        self.model = Toon(preset.model).to(device)
        self._validation: list[tuple[Protocol, Batch]] | None = None

    def fill_in(self, path: Path) -> None:
        """Take over all that the weights in a file have; the rest starts at random."""
        known, own = weights.load_toon(path)[0].state_dict(), self.model.state_dict()
        for key, value in known.items():
            if key not in own or own[key].shape != value.shape:
                wanted = "no such part" if key not in own else f"{tuple(own[key].shape)}"
                raise ValueError(
                    f"{path}: {key} is {tuple(value.shape)}, the preset has {wanted}; start from weights of its sizes"
                )
        self.model.load_state_dict({**own, **known})

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the blocks' matrices (Jordan et al. 2024), AdamW for all else; gains of queries and keys at a higher rate."""
        matrices, gains, others = [], [], []
        for name, parameter in self.model.named_parameters():
            kind = matrices if parameter.ndim == 2 and name.startswith("blocks.") else gains if ".norm_" in name else others
            kind.append(parameter)
        muon = torch.optim.Muon(matrices, lr=self.preset.rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        groups = [{"params": others, "factor": 1.0}, {"params": gains, "factor": 3.0}]
        adamw = torch.optim.AdamW(groups, lr=self.preset.rate, betas=(0.9, 0.98), weight_decay=0.0)
        muon.param_groups[0]["factor"] = 1.0
        return [muon, adamw]

    def batches(self, start: int) -> Iterable[Batch]:
        """See `batches.loader`."""
        return loader(Steps(self.preset), self.preset, start)

    def parts(self, batch: Batch) -> Iterable[tuple[Batch, float]]:
        """All of it."""
        return [(batch, 1.0)]

    def losses(self, part: Batch, generator: torch.Generator) -> Tensor:
        """Squared errors of the clean latents."""
        prediction, clean = predict(self.model, part, self.preset, generator, self.device)
        return diffusion.loss(prediction, clean)

    def measured(self) -> dict[str, float]:
        """PSNR in dB of one-step colours, over all pixels and over the characters' alone."""
        if self._validation is None:
            self._validation = _validation(self.preset)
        model, preset = self.model, self.preset
        errors: dict[str, list[float]] = {}
        for protocol, batch in self._validation:
            prediction, clean = predict(model, batch, preset, torch.Generator().manual_seed(0), self.device, pure=True)
            # Two by two colours a token, whatever the codec, so that runs of unlike presets can be compared.
            size = (2 * clean.shape[3] // preset.model.patch, 2 * clean.shape[4] // preset.model.patch)
            error = ((prediction.float().clamp(-1, 1) - clean) / 2).flatten(0, 1).cpu()
            square = nn.functional.adaptive_avg_pool2d(error, size).square().mean(1, keepdim=True)
            inside = nn.functional.adaptive_avg_pool2d(batch.character.flatten(0, 1), size)
            for name, weight in ((protocol, torch.ones_like(inside)), (f"{protocol}, characters", inside)):
                total = weight.flatten(1).sum(1)
                each = (square * weight).flatten(1).sum(1) / total.clamp(min=1e-6)
                errors.setdefault(name, []).extend(each[total > 4].tolist())
        return {k: round(-10 * float(torch.tensor(v).clamp(min=1e-9).log10().mean()), 2) for k, v in errors.items() if v}

    def save(self, path: Path, average: dict[str, Tensor], steps: int) -> None:
        """See `weights.save_toon`."""
        weights.save_toon(path, self.model, average, self.preset.colour_cell, steps=steps, seed=self.preset.seed)


def predict(
    model: Toon, batch: Batch, preset: Preset, generator: torch.Generator, device: torch.device, pure: bool = False
) -> tuple[Tensor, Tensor]:
    """Predicted and true clean latents of a batch; pure: from pure noise, as the first step of sampling."""
    clean = batch.clean.to(device)
    noise = torch.randn(batch.clean.shape, generator=generator).to(device)
    times = torch.ones(len(clean)) if pure else diffusion.training_times(len(clean), generator, preset.shift)
    # Any start is as likely as any other, so that shots of every length stay within angles of time met here.
    start = int(torch.randint(64, (1,), generator=generator)) if preset.model.rope.scheme == "disjoint" else 0
    frames, height, width = clean.shape[1], clean.shape[3] // preset.model.patch, clean.shape[4] // preset.model.patch
    layout = TokenLayout(Grid(frames, height, width), batch.references.shape[1])
    tokens = shot_tokens(layout, batch.bits).to(device)
    sketch, references, hints, of = (x.to(device) for x in (batch.sketch, batch.references, batch.hints, batch.hint_of))
    conditions = Conditions(layout, tokens, sketch, references, RULE, start=start, hints=hints, hint_of=of)
    times = times.to(device)
    return model(diffusion.noised(clean, noise, times), times, conditions), clean


def _validation(preset: Preset) -> list[tuple[Protocol, Batch]]:
    """Held-out shots of every protocol at the first bucket's size."""
    bucket = preset.buckets[0]
    edges = range(0, preset.validation_shots + 1, min(bucket.batch, preset.validation_shots))
    protocols: tuple[tuple[Protocol, int], ...] = (("start frame", 1), ("arbitrary frame", 1), ("multi-reference", 3))
    return [
        (protocol, make_batch(preset, bucket, protocol, references, HELD_OUT_SEED, range(a, b), augment=False))
        for protocol, references in protocols
        for a, b in pairwise(edges)
    ]
