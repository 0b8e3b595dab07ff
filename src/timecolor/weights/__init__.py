"""Weights files: safetensors with the model's config in the metadata, never pickle. The embedded ones lie here."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from timecolor.matcher import Matcher, MatcherConfig
from timecolor.rope import Rope
from timecolor.toon import Toon, ToonConfig

EMBEDDED = Path(__file__).with_name("toon.safetensors")
EMBEDDED_MATCHER = Path(__file__).with_name("matcher.safetensors")


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and metadata so that the file is either the old one or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        # `save_file` would make it readable by its owner alone, in a wheel too.
        content = serialised({k: v.contiguous() for k, v in tensors.items()}, {k: json.dumps(v) for k, v in metadata.items()})
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata; raises ValueError for a file that is missing, cut short or of another kind."""
    if not path.is_file():
        raise ValueError(f"{path}: no such weights file; give a .safetensors file, or `toon` for the embedded weights")
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = {k: _value(v) for k, v in (file.metadata() or {}).items()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); it may be cut short, copy it anew") from error
    return tensors, metadata


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:  # another program's metadata is plain text
        return text


def digest(paths: Iterable[Path]) -> str:
    """Of the content of files, one after the other: the first 16 hexadecimal digits of its SHA-256."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def config_of(data: dict[str, Any]) -> ToonConfig:
    """The config from its metadata (inverse of dataclasses.asdict through JSON)."""
    rope: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data["rope"].items()}
    return ToonConfig(**{**data, "rope": Rope(**rope)})


def save_toon(path: Path, model: Toon, tensors: dict[str, Tensor], colour_cell: int, **about: Any) -> None:
    """Write weights as float16 with all that is needed to run them. about: facts on the run."""
    half = {k: v.to(torch.float16) for k, v in tensors.items()}
    save(path, half, {"model": "toon", "config": asdict(model.config), "colour_cell": colour_cell, **about})


def load_toon(path: Path = EMBEDDED) -> tuple[Toon, dict[str, Any]]:
    """The model in float32 on the CPU, and what its file says of it; raises ValueError naming what does not fit."""
    tensors, metadata = read(path)
    if metadata.get("model") != "toon":
        raise ValueError(f"{path}: got model {metadata.get('model')!r}; expected weights of a `toon` model (metadata `model`)")
    try:
        model = Toon(config_of(metadata["config"]))
        int(metadata["colour_cell"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: its metadata do not describe a model ({reason}); use weights this version trained") from error
    try:
        model.load_state_dict({k: v.float() for k, v in tensors.items()})
    except RuntimeError as error:
        raise ValueError(f"{path}: tensors do not fit the file's own config ({str(error).splitlines()[-1].strip()})") from error
    return model.eval(), metadata


def save_matcher(path: Path, model: Matcher, tensors: dict[str, Tensor], **about: Any) -> None:
    """Write a matcher's weights as float16. about: facts on the run."""
    half = {k: v.to(torch.float16) for k, v in tensors.items()}
    save(path, half, {"model": "matcher", "config": asdict(model.config), **about})


def load_matcher(path: Path = EMBEDDED_MATCHER) -> Matcher:
    """The matcher in float32 on the CPU; raises ValueError naming what does not fit."""
    tensors, metadata = read(path)
    if metadata.get("model") != "matcher":
        raise ValueError(f"{path}: got model {metadata.get('model')!r}; expected weights of a `matcher` (metadata `model`)")
    try:
        config = metadata["config"]
        model = Matcher(MatcherConfig(**{**config, "widths": tuple(config["widths"])}))
        model.load_state_dict({k: v.float() for k, v in tensors.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[-1].strip()
        raise ValueError(f"{path}: not a matcher's weights ({reason}); use weights this version trained") from error
    return model.eval()
