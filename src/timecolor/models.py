"""The models there are, by name or path: the embedded one, weights of its kind, and CogVideoX directories."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from timecolor import choice, codec, weights
from timecolor.denoiser import Conditions, Defaults, Model, Picture, Work
from timecolor.diffusion import Euler
from timecolor.geometry import Clip, Compression, Grid
from timecolor.matcher import Matcher
from timecolor.propagation import CANDIDATES
from timecolor.shapes import Float, UInt8
from timecolor.toon import Toon


@dataclass(eq=False)
class ToonModel:
    """The embedded denoiser with its pixel codec, the matcher, and what chooses between colours (implements `denoiser.Model`)."""

    toon: Toon
    pixels: codec.PixelCodec
    short_side: int = 160
    matcher: Matcher | None = None
    judge: choice.Choose | None = None
    trust: choice.Trust | None = None

    text = 0
    draws_lines = False
    memory = "auto"

    def __post_init__(self) -> None:
        config = self.toon.config
        self.compression = Compression(time=1, space=self.pixels.space, patch=config.patch)
        if self.compression.cell != config.cell:
            got = f"{self.pixels.space} pixels a latent and {config.patch} latents a token"
            raise ValueError(f"codec and model do not fit: {got}, but the model's tokens are {config.cell} pixels wide")
        self.defaults = Defaults(steps=2, short_side=self.short_side, window=1, cells="coverage", regime="cached")
        self.layers, self.hints = config.layers, config.hints

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.toon.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """In which precision."""
        return next(self.toon.parameters()).dtype

    @property
    def parameters(self) -> int:
        """How many numbers it learned."""
        networks = [self.toon] if self.matcher is None else [self.toon, self.matcher]
        return sum(p.numel() for network in networks for p in network.parameters())

    @property
    def denoiser(self) -> Toon:
        """The network."""
        return self.toon

    def encode_sketch(self, frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "1 t 3 h w"]:
        """See `codec.encode_sketch`."""
        return codec.encode_sketch(frames)

    def encode_references(self, pictures: Sequence[Picture], size: Clip) -> Float[Tensor, "1 r 4 h w"]:
        """See `codec.encode_reference`."""
        encoded = [codec.encode_reference(picture) for picture in pictures]
        return torch.cat(encoded, dim=1) if encoded else torch.zeros(1, 0, 4, size.height, size.width)

    def decode(self, latents: Float[Tensor, "1 t 3 y x"]) -> Float[np.ndarray, "t y x 3"]:
        """Fills, one colour a latent."""
        return self.pixels.decode(latents)

    def noise(self, grid: Grid, seed: int, first: int) -> Float[Tensor, "1 t 3 y x"]:
        """Every drawing has noise of its own."""
        config = self.toon.config
        size = (config.channels, grid.height * config.patch, grid.width * config.patch)
        seeds = [(seed * 1_000_003 + drawing) % 2**63 for drawing in range(first, first + grid.frames)]
        return torch.stack([torch.randn(size, generator=torch.Generator().manual_seed(s)) for s in seeds])[None]

    def told(self, conditions: Conditions, prompt: str, guidance: float) -> Conditions:
        """It reads no text. Raises ValueError for a prompt."""
        if prompt or guidance != 1:
            raise ValueError("toon reads no prompt and has no guidance; leave them out, or give a CogVideoX model with --model")
        return conditions

    def solver(self, name: str | None, steps: int, seed: int) -> Euler:
        """Euler steps. Raises ValueError for another."""
        if name not in (None, "euler"):
            raise ValueError(f"solver is {name!r}; toon has euler alone")
        return Euler(steps)

    def memory_bytes(self, work: Work) -> dict[str, int]:
        """Keys and values of all layers, activations at the widest moment (the MLP's hidden layer and its input), and hints.

        Every reference counts as one that hints are made of.
        """
        config, item = self.toon.config, self.dtype.itemsize
        tokens, references = work.piece * work.grid.per_frame, work.references * work.grid.per_frame
        kept = 2 * config.layers * (2 * tokens + references) * config.width * item
        offered = work.references * (CANDIDATES + 1) * tokens * (4 * config.cell**2 + config.width) if config.hints else 0
        return {"resident": kept + (12 * (tokens + references) * config.width + 2 * offered) * item}

    def settle(self, rung: str) -> None:
        """It has one rung."""

    def operations(self, work: Work) -> float:
        """Target and sketch tokens, each against what it sees."""
        config, rule = self.toon.config, work.rule
        span = work.grid.frames if rule.window is None else min(work.grid.frames, 2 * rule.window + 1)
        seen = (2 * span + work.references) * work.grid.per_frame
        per_token = config.layers * (24 * config.width**2 + 4 * seen * config.width)
        halo = (rule.window or 0) * config.layers * work.steps
        again = 1.0 if work.piece == work.grid.frames else work.piece / (work.piece - 2 * halo)  # halos are run twice
        return again * work.grid.tokens * (1 + work.steps if rule.regime == "cached" else 2 * work.steps) * per_token


def load(
    model: str | Path = "toon", device: str = "auto", dtype: str = "auto", base: str | Path | None = None, memory: str = "auto"
) -> Model:
    """A model by name (`toon`, embedded), by its .safetensors file, or by a CogVideoX directory (or hub id) upon its `base`.

    device: auto, cpu, cuda, mps ... dtype: auto (bfloat16 where it is fast), float32, bfloat16, float16. memory: rung of the
    ladder of CogVideoX models, see `cogvideox`. Raises ValueError for an unknown model, weights that do not fit, a device that is
    not there, and ModuleNotFoundError naming the extra where it is not installed.
    """
    where = device_of(device)
    path = weights.EMBEDDED if str(model) == "toon" else Path(model)
    if path.suffix == ".safetensors":
        if base is not None or memory != "auto":
            raise ValueError(f"{model}: base and memory are for CogVideoX directories; leave them out")
        toon, about = weights.load_toon(path)
        precision = dtype_of(dtype, where)
        matcher = weights.load_matcher().to(where, precision)
        pixels = codec.PixelCodec(about["colour_cell"])
        choices = choice.judge(), choice.truster()
        return ToonModel(toon.to(where, precision), pixels, about.get("short_side", 160), matcher, *choices)
    if not path.is_dir() and (base is None and "/" not in str(model)):
        raise ValueError(f"unknown model {str(model)!r}; use toon, a .safetensors file, or a CogVideoX directory with its base")
    try:
        from timecolor import cogvideox
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{model}: CogVideoX models need {error.name}; install them with: pip install 'timecolor[cogvideox]'"
        ) from error
    return cogvideox.load_model(model, base, where, dtype_of(dtype, where), memory)


def device_of(name: str) -> torch.device:
    """A device by name; auto = the first GPU, else the CPU. Raises ValueError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not usable here ({str(error).splitlines()[0]}); use auto or cpu") from error
    return device


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """A precision by name; auto = bfloat16 where it is fast. Raises ValueError for an unknown one."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        fast = device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported())
        return torch.bfloat16 if fast else torch.float32
    if name not in known:
        raise ValueError(f"unknown dtype {name!r}; use auto, {', '.join(known)}")
    return known[name]
