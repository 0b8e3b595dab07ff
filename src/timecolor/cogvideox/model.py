"""A model from disk, for any number of jobs."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from torch import Tensor

from timecolor.cogvideox.codec import CogVideoXCodec, compression_of
from timecolor.cogvideox.files import Part, Source, loaded, reading, with_lora
from timecolor.cogvideox.memory import LADDER, Rung, eight_bits, has_torchao, placed, quantize, take_turns, weight_bytes
from timecolor.cogvideox.network import CogVideoX, CogVideoXCache, Prompted
from timecolor.cogvideox.prompts import Prompts, guided, texts
from timecolor.cogvideox.solver import Solver, SolverName
from timecolor.denoiser import Conditions, Defaults, Picture, Work
from timecolor.geometry import Clip, Grid
from timecolor.shapes import Float, UInt8

# Tensors of a token's width, or of the VAE's first width and a pixel, that are held at the widest moment: measured.
WIDEST = 16
CODEC_WIDEST = 22


class CogVideoXModel:
    """A model from disk, for any number of jobs (implements `denoiser.Model`); every part is read when it is first needed."""

    hints = False
    matcher = None
    judge = None
    trust = None
    draws_lines = True

    def __init__(
        self,
        source: Source,
        device: torch.device,
        dtype: torch.dtype,
        memory: str = "auto",
        prompt_folder: Path | None = None,
        embeddings: Sequence[Path] = (),
    ) -> None:
        """memory: a rung of `LADDER`; auto = whoever asks settles one for each job. prompt_folder, embeddings: see `Prompts`.

        Raises ValueError for an unknown rung, and ModuleNotFoundError where int8 is asked for without torchao.
        """
        names = [rung.name for rung in LADDER]
        if memory not in ("auto", *names):
            raise ValueError(f"memory is {memory!r}; use auto, {', '.join(names)}")
        if memory == "int8" and not has_torchao():
            raise ModuleNotFoundError("memory int8 needs torchao; install it with: pip install 'timecolor[int8]'", name="torchao")
        self.source, self.device, self.dtype, self.memory = source, device, dtype, memory
        self.config: Any = source.bare["transformer"].config
        self._vae_config: Any = source.bare["vae"].config
        self.compression = compression_of(self._vae_config, self.config.patch_size)
        self.text: int = self.config.max_text_seq_length
        self.layers: int = self.config.num_layers
        self.scheduler = reading(source.scheduler, CogVideoXDDIMScheduler.from_pretrained)
        side = min(self.config.sample_height, self.config.sample_width) * self.compression.space
        # As published (TimeColor §3 and the release); a fine-tune of ours says under which rule it was trained.
        regime, cells = source.trained or ("joint", "majority")
        self.defaults = Defaults(steps=50, short_side=side, window=None, cells=cells, regime=regime, guidance=3.0)
        self._parts: dict[Part, Any] = {}
        self._prompts_at = (prompt_folder, (*source.prompts, *embeddings))
        self._rung = LADDER[0]
        self.prompts = self._prompts()
        self.settle("resident" if memory == "auto" else memory)

    @property
    def parameters(self) -> int:
        """How many numbers the transformer learned."""
        return sum(p.numel() for p in self.source.bare["transformer"].parameters())

    @property
    def denoiser(self) -> "CogVideoXModel":
        """Itself, since the network comes to the device only when it is used."""
        return self

    def prepare(self, conditions: Conditions) -> CogVideoXCache:
        """See `CogVideoX.prepare`."""
        return self.network.prepare(conditions)

    def predict(self, latents: Float[Tensor, "b f c h w"], timestep: Float[Tensor, " b"], cache: CogVideoXCache) -> Tensor:
        """See `CogVideoX.predict`."""
        return self.network.predict(latents, timestep, cache)

    @property
    def network(self) -> CogVideoX:
        """The transformer, brought to the device."""
        denoiser = self._part("transformer")
        denoiser.branches = self._rung.branches
        return denoiser

    @property
    def codec(self) -> CogVideoXCodec:
        """The VAE, brought to the device."""
        codec = CogVideoXCodec(self._part("vae"), self.config.patch_size)
        codec.lean(self._rung.tiles)
        return codec

    def encode_sketch(self, frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "1 f c y x"]:
        """See `CogVideoXCodec.encode`: the sketch as a whole video."""
        return self.codec.encode(frames)

    def encode_references(self, pictures: Sequence[Picture], size: Clip) -> Float[Tensor, "1 r c y x"]:
        """Each alone, as a video of one frame, with its own lines."""
        y, x = size.height // self.compression.space, size.width // self.compression.space
        codec = self.codec if pictures else None
        encoded = [codec.encode(picture.image[None]) for picture in pictures] if codec else []
        return torch.cat(encoded, dim=1) if encoded else torch.zeros(1, 0, self.config.in_channels, y, x)

    def decode(self, latents: Float[Tensor, "1 f c y x"]) -> Float[np.ndarray, "t h w 3"]:
        """See `CogVideoXCodec.decode`."""
        return self.codec.decode(latents)

    def noise(self, grid: Grid, seed: int, first: int) -> Float[Tensor, "1 f c y x"]:
        """That of diffusers' pipeline for the seed, in float32 whatever the model computes in."""
        patch, generator = self.config.patch_size, torch.Generator().manual_seed(seed)
        size = (self.config.in_channels, grid.height * patch, grid.width * patch)
        return torch.stack([torch.randn(size, generator=generator) for _ in range(first + grid.frames)][first:])[None]

    def told(self, conditions: Conditions, prompt: str, guidance: float) -> Prompted:
        """Conditions with the prompt's embedding. Raises ValueError for an unknown prompt where there is no T5."""
        if self._taking_turns and not all(map(self.prompts.knows, texts(prompt, guidance))):
            self._send_away()
        given = {field.name: getattr(conditions, field.name) for field in fields(Conditions)}
        return Prompted(**given, text=self.prompts.branches(prompt, guidance), guidance=guidance)

    def solver(self, name: str | None, steps: int, seed: int) -> Solver:
        """DDIM, or another that needs fewer steps. Raises ValueError for one that there is not."""
        if name not in (None, *get_args(SolverName)):
            raise ValueError(f"solver is {name!r}; CogVideoX models have {', '.join(get_args(SolverName))}")
        return Solver(self.scheduler, steps, cast(SolverName, name or "ddim"), seed)

    def settle(self, rung: str) -> None:
        """Run what follows on this rung of `LADDER`. Parts that lie otherwise than it has them are read again."""
        new, old = next(r for r in LADDER if r.name == rung), self._rung
        if (new.weights, new.eight_bits) != (old.weights, old.eight_bits):
            self._parts.clear()
            self._rung = new
            self.prompts = self._prompts()
        self._rung = new

    def memory_bytes(self, work: Work) -> dict[str, int]:
        """Peak of a job by rung, without what the parts that are already there take; the rung of 8 bits only with torchao."""
        held = sum(
            tensor.numel() * tensor.element_size()
            for part in self._parts.values()
            for tensor in (*part.parameters(), *part.buffers())
            if tensor.device.type == self.device.type
        )
        rungs = (rung for rung in LADDER if not rung.eight_bits or has_torchao())
        return {rung.name: max(0, self._peak(work, rung) - held) for rung in rungs}

    def operations(self, work: Work) -> float:
        """Each token against all; of the labels' rule, which leaves out a little, nothing is known yet."""
        width = self.config.num_attention_heads * self.config.attention_head_dim
        kept = (work.grid.frames + work.references) * work.grid.per_frame
        live = self.text + work.grid.tokens
        branches = 2 if guided(work.prompt, work.guidance) else 1

        def run(tokens: int, seen: int) -> float:
            return float(self.config.num_layers * tokens * (24 * width**2 + 4 * seen * width))

        if work.rule.regime == "cached":
            return run(kept, kept) + work.steps * branches * run(live, live + kept)
        return work.steps * branches * run(live + kept, live + kept)

    def _prompts(self) -> Prompts:
        folder, files = self._prompts_at
        return Prompts(
            self.source.text, self.text, self.config.text_embed_dim, folder, files, self.device, self.dtype, self._rung
        )

    @property
    def _taking_turns(self) -> bool:
        return take_turns(self._rung, self.device)

    def _part(self, name: Part) -> Any:
        if self._taking_turns:
            self._send_away(name)
        # Not in inference mode, or the weights would be bound to it.
        with torch.inference_mode(False), torch.no_grad():
            if name not in self._parts:
                self._parts[name] = self._read(name)
            elif self._taking_turns:
                self._parts[name].to(self.device)
        return self._parts[name]

    def _send_away(self, but: Part | None = None) -> None:
        """Make room: on a GPU the others wait in the host's memory, on a CPU they are read again when they are needed."""
        others: list[Part] = [name for name in self._parts if name != but]
        for name in others:
            if self.device.type == "cpu":
                del self._parts[name]
            else:
                with torch.inference_mode(False), torch.no_grad():
                    self._parts[name].to("cpu")

    def _read(self, name: Part) -> Any:
        if name == "vae":
            vae = loaded(AutoencoderKLCogVideoX, self.source.vae, torch_dtype=self.dtype)
            return vae.to(self.device).eval().requires_grad_(False)
        eight = self._rung.eight_bits
        quantized = {"quantization_config": eight_bits("diffusers")} if eight and self.source.lora is None else {}
        transformer = loaded(CogVideoXTransformer3DModel, self.source.transformer, torch_dtype=self.dtype, **quantized)
        if self.source.lora is not None:
            transformer = with_lora(transformer, self.source.lora)
            if eight:
                quantize(transformer)
        denoiser = CogVideoX(transformer, self.scheduler, self._rung.branches).eval().requires_grad_(False)
        denoiser.transformer = placed(denoiser.transformer, self.device, self._rung, "block_level")
        return denoiser

    def _peak(self, work: Work, rung: Rung) -> int:
        """Bytes on the device at the worst moment of a job: weights and what is computed with them."""
        item = self.dtype.itemsize
        bare = self.source.bare
        weights = {name: weight_bytes(model, item, rung.eight_bits and name != "vae") for name, model in bare.items()}
        network, pictures = self._network_bytes(work, rung), self._codec_bytes(work, rung)
        known = all(map(self.prompts.knows, texts(work.prompt, work.guidance)))
        text = 0 if known and not self.prompts.loaded else weights.get("text_encoder", 0)
        if rung.weights == "all":
            return weights["transformer"] + weights["vae"] + text + max(network, pictures)
        if take_turns(rung, self.device):
            transformer = weights["transformer"]
            if rung.eight_bits and self.source.lora is not None:  # worked in at full width, then made smaller
                transformer = max(transformer, weight_bytes(bare["transformer"], item, False) - network)
            return max(text, weights["vae"] + pictures, transformer + network)
        # The next group comes while one is at work.
        blocks = bare["transformer"].transformer_blocks
        block = weight_bytes(blocks[0], item, rung.eight_bits)
        rest = weights["transformer"] - len(blocks) * block
        leaf = max((m.weight.numel() for m in bare["text_encoder"].modules() if hasattr(m, "weight")), default=0) if text else 0
        return weights["vae"] + max(2 * leaf * item, pictures, rest + 2 * block + network)

    def _network_bytes(self, work: Work, rung: Rung) -> int:
        """Activations of a block at its widest, which is the MLP or the attention's rotated keys, and keys that are kept."""
        width = self.config.num_attention_heads * self.config.attention_head_dim
        kept = (work.grid.frames + work.references) * work.grid.per_frame
        live, item = self.text + work.grid.tokens, self.dtype.itemsize
        if work.rule.regime == "cached":
            # Each layer sees a copy of the kept keys beside its own.
            held = 2 * self.config.num_layers * kept * width * item
            return held + max(WIDEST * kept, WIDEST * live + 2 * (live + kept)) * width * item
        both = 2 if guided(work.prompt, work.guidance) and rung.branches == "together" else 1
        return both * WIDEST * (live + kept) * width * item

    def _codec_bytes(self, work: Work, rung: Rung) -> int:
        """Activations of the VAE's decoder at its widest, for the frames that it takes at once, and the whole clip twice."""
        clip = work.working
        area = clip.height * clip.width
        at_once = 3 if clip.frames == 1 else 2 * self.compression.time + 1  # a causal convolution has two more before the first
        tile = min(area, self._vae_config.sample_height * self._vae_config.sample_width // 4) if rung.tiles else area
        colours = clip.frames * area * 3 * (2 * self.dtype.itemsize + 8)
        return colours + CODEC_WIDEST * at_once * tile * self._vae_config.block_out_channels[0] * self.dtype.itemsize


def load_model(
    model: str | Path,
    base: str | Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    memory: str = "auto",
    prompt_folder: Path | None = None,
    embeddings: Sequence[Path] = (),
) -> CogVideoXModel:
    """See `Source.of` and `CogVideoXModel`. Reads configs and headers; the weights follow when they are needed."""
    return CogVideoXModel(Source.of(model, base), torch.device(device), dtype, memory, prompt_folder, embeddings)
