"""A model's parts on disk: found, checked as far as configs and headers tell, and read."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from safetensors import SafetensorError, safe_open
from torch import nn

from timecolor.cogvideox.network import rope_of
from timecolor.correspondence import CellRule, Regime

Part = Literal["transformer", "vae", "text_encoder"]


_EXPECTED = {
    "transformer": "CogVideoXTransformer3DModel",
    "vae": "AutoencoderKLCogVideoX",
    "scheduler": "CogVideoXDDIMScheduler or CogVideoXDPMScheduler",
    "tokenizer": "T5's tokenizer",
}


@dataclass(frozen=True)
class Source:
    """Where the parts of a model lie, checked as far as configs and the headers of files tell.

    text: the directory that holds `tokenizer/` and `text_encoder/`, None = there is no T5. lora: None = a full fine-tune.
    trained: regime and cell rule of a fine-tune of ours (its timecolor.json), None = it does not say. prompts: embedding files in
    a `prompts/` of the model or the base, for which T5 is not needed.
    """

    transformer: Path
    lora: Path | None
    scheduler: Path
    vae: Path
    text: Path | None
    trained: tuple[Regime, CellRule] | None = None
    prompts: tuple[Path, ...] = ()

    @classmethod
    def of(cls, model: str | Path, base: str | Path | None = None) -> "Source":
        """A fine-tune with `transformer/` (and `scheduler/`), or a peft LoRA, upon the CogVideoX-5b base, from disk or by hub id.

        base: gives what the model's own directory lacks: vae, scheduler, tokenizer, text_encoder and, for a LoRA, the
        transformer; None = the model has all. Raises ValueError, naming folder and remedy, for a part that is missing, broken or
        of another model.
        """
        own = _folder(model)
        lora = (own / "adapter_config.json").is_file()
        # Hub ids bring the base's own transformer only for a LoRA, which lies upon it: it is the largest part.
        parent = own if base is None else _folder(base, None if lora else "transformer/*")
        if not lora and not (own / "transformer").is_dir():
            raise ValueError(f"{own}: has neither transformer/ (a full fine-tune) nor adapter_config.json (a peft LoRA)")
        source = cls(
            _part("transformer", parent if lora else own),
            own if lora else None,
            _part("scheduler", own, parent),
            _part("vae", own, parent),
            next((p for p in (own, parent) if (p / "text_encoder").is_dir()), None),
            _trained(own),
            tuple(file for folder in dict.fromkeys((own, parent)) for file in sorted((folder / "prompts").glob("*.safetensors"))),
        )
        rope_of(source.bare["transformer"].config)
        source._check()
        return source

    @cached_property
    def bare(self) -> dict[Part, Any]:
        """Each model without its weights: config, names and sizes."""
        parts: dict[Part, Any] = {
            "transformer": reading(self.transformer, lambda path: _meta(CogVideoXTransformer3DModel, _config(Path(path)))),
            "vae": reading(self.vae, lambda path: _meta(AutoencoderKLCogVideoX, _config(Path(path)))),
        }
        if self.text is not None:
            from transformers import T5Config, T5EncoderModel

            config = _config(self.text / "text_encoder")
            parts["text_encoder"] = _meta(T5EncoderModel, T5Config(**config))
        return parts

    def _check(self) -> None:
        transformer, vae = self.bare["transformer"].config, self.bare["vae"].config
        for name, at_vae, at_transformer in (
            ("latent channels", vae.latent_channels, transformer.in_channels),
            ("frames a latent", vae.temporal_compression_ratio, transformer.temporal_compression_ratio),
        ):
            if at_vae != at_transformer:
                raise ValueError(
                    f"{self.vae}: has {at_vae} {name} but the transformer {at_transformer}; give the base it was made from"
                )
        if self.text is not None:
            _part("tokenizer", self.text)
            given, width = self.bare["text_encoder"].config.d_model, transformer.text_embed_dim
            if given != width:
                folder = self.text / "text_encoder"
                raise ValueError(f"{folder}: its embeddings have {given} channels but the transformer takes {width}")
        _check_files(self.transformer, self.bare["transformer"])
        _check_files(self.vae, self.bare["vae"])


def loaded(kind: Any, folder: Path, **options: Any) -> Any:
    """A model from its folder. Weights that are missing are an error, where the libraries would draw them at random."""
    model, info = reading(folder, lambda path: kind.from_pretrained(path, output_loading_info=True, **options))
    for what in ("missing", "mismatched"):
        if info[f"{what}_keys"]:
            first = sorted(map(str, info[f"{what}_keys"]))[0]
            count = len(info[f"{what}_keys"])
            raise ValueError(f"{folder}: {count} weights are {what} (such as {first}); it is cut short or of another model")
    return model


def reading(folder: Path, read: Callable[[str], Any]) -> Any:
    """What a library reads there; what it may raise becomes a ValueError that names the folder."""
    try:
        return read(str(folder))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"{folder}: cannot be read ({line_of(error)}); it is incomplete or of another model") from error


def with_lora(transformer: Any, folder: Path) -> Any:
    """The transformer with a LoRA worked into its weights, so that it costs nothing more."""
    from peft import PeftModel

    return reading(folder, lambda path: PeftModel.from_pretrained(transformer, path).merge_and_unload(safe_merge=True))


def identity(*folders: Path) -> str:
    """A hash of what lies in folders; of large files, their sizes and both ends."""
    digest, end = hashlib.sha256(), 1 << 20
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            size = path.stat().st_size
            digest.update(f"{path.relative_to(folder.parent)} {size}\n".encode())
            with path.open("rb") as file:
                digest.update(file.read(end))
                if size > end:
                    file.seek(max(end, size - end))
                    digest.update(file.read())
    return digest.hexdigest()


def line_of(error: Exception) -> str:
    """The first line of what an error says, or its name."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _folder(source: str | Path, without: str | None = None) -> Path:
    """A directory, or where the hub's copy of a repository lies."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) or path.exists():
        raise ValueError(f"{source}: is no directory; give one in diffusers' format, or a hub id such as THUDM/CogVideoX-5b")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), ignore_patterns=without))
    except (OSError, ValueError) as error:
        raise ValueError(f"{source}: is no directory, and the hub gave none ({line_of(error)})") from error


def _part(name: str, *folders: Path) -> Path:
    """The sub-folder of that name in the first directory that has it; its config must be of the right class."""
    found = next((folder / name for folder in folders if (folder / name).is_dir()), None)
    expected = _EXPECTED[name]
    if found is None:
        where = " nor ".join(dict.fromkeys(str(folder) for folder in folders))
        raise ValueError(f"{where}: has no {name}/ ({expected}); give the CogVideoX-5b base that holds it")
    if name != "tokenizer":
        given = _config(found, "scheduler_config.json" if name == "scheduler" else "config.json").get("_class_name")
        if given not in expected.split(" or "):
            raise ValueError(f"{found}: is a {given}; {expected} is needed")
    return found


def _trained(folder: Path) -> tuple[Regime, CellRule] | None:
    """What `timecolor train` wrote beside a model: the rule it was trained under."""
    if not (folder / "timecolor.json").is_file():
        return None
    about = _config(folder, "timecolor.json")
    for name, known in (("regime", get_args(Regime)), ("cells", get_args(CellRule))):
        if about.get(name) not in known:
            raise ValueError(f"{folder / 'timecolor.json'}: {name} is {about.get(name)!r}; {' or '.join(known)} is needed")
    return about["regime"], about["cells"]


def _config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / name}: cannot be read ({line_of(error)})") from error


def _meta(kind: Any, config: Any) -> Any:
    """A model of a config without its weights: names and sizes alone."""
    with torch.device("meta"):
        return kind.from_config(config) if hasattr(kind, "from_config") else kind(config)


def _check_files(folder: Path, expected: nn.Module) -> None:
    """Raise ValueError where the headers of the weights' files tell that they are cut short or of another model."""
    sizes: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(str(file), framework="pt") as opened:
                sizes |= {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file}: cannot be read ({line_of(error)}); it is incomplete or of another model") from error
    if not sizes:
        return  # in another format, which is looked at when it is read
    needed = {name: list(tensor.shape) for name, tensor in expected.state_dict().items()}
    for what, names in (
        ("missing", needed.keys() - sizes.keys()),
        ("mismatched", {name for name, size in needed.items() if sizes.get(name, size) != size}),
    ):
        if names:
            raise ValueError(
                f"{folder}: {len(names)} weights are {what} (such as {min(names)}); it is incomplete or of another model"
            )
