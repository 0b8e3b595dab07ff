"""What is given up for memory: where weights lie, and in how many bits."""

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers.hooks import apply_group_offloading
from torch import nn

Branches = Literal["together", "apart"]


@dataclass(frozen=True, slots=True)
class Rung:
    """A rung of the memory ladder: what is given up for memory.

    tiles: the VAE works tile by tile, which shows a little at their seams. weights: all = they stay on the device; parts = T5,
    VAE and transformer take turns there, and T5 is read again for a new prompt; groups = those of T5 and the transformer come a
    block at a time (on a CPU the same as parts: there is nowhere to wait, so what makes room is let go and read again).
    branches: of the guidance, see `CogVideoX`. eight_bits: of the weights of T5 and the transformer, which changes results by
    about their rounding; the other rungs differ from one another by no more than that of the arithmetic, and the seams.
    """

    name: str
    tiles: bool = True
    weights: Literal["all", "parts", "groups"] = "all"
    branches: Branches = "together"
    eight_bits: bool = False


LADDER = (  # fastest first
    Rung("resident", tiles=False),
    Rung("tiled"),
    Rung("offload", weights="parts"),
    Rung("groups", weights="groups"),
    Rung("low", weights="groups", branches="apart"),
    Rung("int8", weights="groups", branches="apart", eight_bits=True),
)


_WHOLE = ["patch_embed", "time_embedding", "norm_out", "proj_out"]  # few weights on which everything hangs


def take_turns(rung: Rung, device: torch.device) -> bool:
    """Whether T5, VAE and transformer are on the device one after the other."""
    return rung.weights == "parts" or (rung.weights == "groups" and device.type == "cpu")


def has_torchao() -> bool:
    """Whether 8 bits are to be had."""
    return importlib.util.find_spec("torchao") is not None


def placed(model: Any, device: torch.device, rung: Rung, groups: Literal["block_level", "leaf_level"]) -> Any:
    """A model on the device, or in the host's memory with hooks that bring it there group by group."""
    if rung.weights != "groups" or device.type == "cpu":
        return model.to(device)
    streams = device.type == "cuda"
    apply_group_offloading(model, device, offload_type=groups, num_blocks_per_group=1, use_stream=streams)
    return model


def eight_bits(library: Literal["diffusers", "transformers"]) -> Any:
    """What makes a library read the weights of linear layers as integers of 8 bits, each row with its scale."""
    from torchao.quantization import Int8WeightOnlyConfig  # pyright: ignore[reportMissingImports]

    config = Int8WeightOnlyConfig(version=2)
    if library == "diffusers":
        from diffusers import TorchAoConfig

        return TorchAoConfig(config, modules_to_not_convert=_WHOLE)
    from transformers import TorchAoConfig as OfTransformers

    return OfTransformers(config)


def quantize(transformer: Any) -> None:
    """What `eight_bits` does on reading, to a transformer that is there."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_  # pyright: ignore[reportMissingImports]

    quantize_(transformer.transformer_blocks, Int8WeightOnlyConfig(version=2))


def weight_bytes(model: nn.Module, item: int, eight_bits: bool) -> int:
    """What a model's weights take, `item` bytes each, those of linear layers one where there are eight bits."""
    total = sum(p.numel() for p in model.parameters()) * item
    if eight_bits:
        linear = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.split(".")[0] not in _WHOLE]
        total -= sum(m.weight.numel() * (item - 1) - m.weight.shape[0] * 4 for m in linear)
    return total
