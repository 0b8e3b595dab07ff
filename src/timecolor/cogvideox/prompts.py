"""T5's embeddings of prompts."""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from timecolor.cogvideox.files import identity, line_of, loaded, reading
from timecolor.cogvideox.memory import LADDER, Rung, eight_bits, placed
from timecolor.shapes import Float


class Prompts:
    """T5's embeddings of prompts, each computed once and kept on disk; T5 is loaded only for a prompt not met before."""

    def __init__(
        self,
        base: Path | None,
        tokens: int,
        width: int,
        folder: Path | None = None,
        files: Sequence[Path] = (),
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        rung: Rung = LADDER[0],
    ) -> None:
        """base: holds `tokenizer/` and `text_encoder/`; None = there is no T5. tokens, width: of an embedding, (tokens, width).
        folder: where embeddings are kept; None = the user's cache. files: embeddings that need no T5, such as that of the empty
        prompt, as `write` makes them. rung: where T5 lies and how; it stays loaded on those that keep all weights at hand."""
        self.base, self.tokens, self.width = base, tokens, width
        self.folder = folder or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "timecolor" / "prompts"
        self.device, self.dtype, self.rung = torch.device(device), dtype, rung
        self._known: dict[str, Tensor] = {}
        self._t5: tuple[Any, Any] | None = None
        self._identity: str | None = None
        for file in files:
            prompt, embedding = self._read(Path(file))
            self._known[prompt] = embedding

    def branches(self, prompt: str, guidance: float = 1.0) -> Float[Tensor, "s n d"]:
        """What `Prompted.text` takes: the empty prompt and the prompt, or one alone where guidance can do nothing."""
        return self(texts(prompt, guidance))

    def __call__(self, prompts: Sequence[str]) -> Float[Tensor, "s n d"]:
        """Embeddings of prompts. Raises ValueError for an unknown one without T5."""
        found = torch.stack([self._embedding(prompt).to(self.device, self.dtype) for prompt in prompts])
        if self.rung.weights != "all":
            self.release()
        return found

    def knows(self, prompt: str) -> bool:
        """Whether its embedding is at hand, so that T5 is not needed."""
        return prompt in self._known or (self._has_t5 and self._file(prompt).exists())

    @property
    def loaded(self) -> bool:
        """Whether T5 is."""
        return self._t5 is not None

    def write(self, prompt: str, file: Path) -> None:
        """An embedding file, for machines without T5."""
        _write_embedding(file, self._embedding(prompt), prompt)

    def release(self) -> None:
        """Let T5 go, and its memory."""
        self._t5 = None

    def _embedding(self, prompt: str) -> Tensor:
        if prompt not in self._known:
            if not self._has_t5:
                where = f"{self.base} has no text_encoder/ and tokenizer/" if self.base else "there is no T5"
                raise ValueError(f"prompt {prompt!r} has no embedding yet and {where}; add T5, or give an embedding file")
            file = self._file(prompt)
            if file.exists():
                self._known[prompt] = self._read(file)[1]
            else:
                self._known[prompt] = self._encode(prompt)
                _write_embedding(file, self._known[prompt], prompt)
        return self._known[prompt]

    @property
    def _has_t5(self) -> bool:
        return self.base is not None and all((self.base / part).is_dir() for part in ("tokenizer", "text_encoder"))

    def _file(self, prompt: str) -> Path:
        assert self.base is not None
        if self._identity is None:
            self._identity = identity(self.base / "tokenizer", self.base / "text_encoder")
        kind = "int8" if self.rung.eight_bits else str(self.dtype)
        key = hashlib.sha256(json.dumps([self._identity, self.tokens, kind, prompt]).encode()).hexdigest()
        return self.folder / f"{key}.safetensors"

    @torch.inference_mode(False)  # or the weights would be bound to the mode in which they were first needed
    @torch.no_grad()
    def _encode(self, prompt: str) -> Tensor:
        assert self.base is not None
        if self._t5 is None:
            from transformers import T5EncoderModel, T5Tokenizer

            tokenizer = reading(self.base / "tokenizer", T5Tokenizer.from_pretrained)
            quantized = {"quantization_config": eight_bits("transformers")} if self.rung.eight_bits else {}
            encoder = loaded(T5EncoderModel, self.base / "text_encoder", dtype=self.dtype, **quantized).eval()
            self._t5 = tokenizer, placed(encoder, self.device, self.rung, "leaf_level")
        tokenizer, encoder = self._t5
        given = tokenizer(prompt).input_ids
        if len(given) > self.tokens:
            lost = tokenizer.decode(given[self.tokens - 1 :], skip_special_tokens=True)
            warnings.warn(f"prompt has {len(given)} tokens and the model reads {self.tokens}; lost: {lost!r}", stacklevel=2)
        ids = tokenizer(prompt, padding="max_length", max_length=self.tokens, truncation=True, return_tensors="pt").input_ids
        return encoder(ids.to(self.device))[0][0].cpu()

    def _read(self, file: Path) -> tuple[str, Tensor]:
        try:
            with safe_open(str(file), framework="pt") as opened:
                prompt, embedding = (opened.metadata() or {}).get("prompt"), opened.get_tensor("embedding")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file}: is no embedding of a prompt ({line_of(error)}); delete it, or make it again") from error
        if prompt is None or embedding.shape != (self.tokens, self.width):
            expected = f"({self.tokens}, {self.width}) and the prompt in its metadata"
            raise ValueError(f"{file}: holds {tuple(embedding.shape)}; this model needs {expected}")
        return prompt, embedding


def guided(prompt: str, guidance: float) -> bool:
    """Whether guidance takes two branches: the empty prompt and the prompt."""
    return guidance != 1 and bool(prompt)


def texts(prompt: str, guidance: float) -> list[str]:
    """The texts of a guidance's branches."""
    return ["", prompt] if guided(prompt, guidance) else [prompt]


def _write_embedding(file: Path, embedding: Tensor, prompt: str) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
        pass
    try:
        save_file({"embedding": embedding.contiguous()}, part.name, {"prompt": prompt})
        os.replace(part.name, file)
    finally:
        Path(part.name).unlink(missing_ok=True)
