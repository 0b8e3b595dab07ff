"""One step of the published algorithm against our `joint` and our `cached`: 17 and 49 frames of 480x720, 1, 2 and 4 references.

published: written plainly from what is known of it (TimeColor §3 and the release). Sketch and references run through every layer
in every step and in both branches of the guidance, what is common is copied once per label and once per reference, and the
prediction of all 2F + R latent frames is made and mostly thrown away. joint: the same rules as `cogvideox` runs them. cached:
its other regime, in which the conditions run once per shot. All three run the same diffusers model with random weights: of the
size of CogVideoX-5B on a GPU; on a CPU of an eighth of its width, of its tokens a frame and of its text, so that attention has
the same share of the work, and of few layers, so that what is saved in the last one weighs more than it does in 5B's 42.
"""

import ctypes
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import record
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from diffusers.models.embeddings import apply_rotary_emb
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from timecolor.cogvideox import CogVideoX, CogVideoXCache, Prompted
from timecolor.correspondence import Regime, Rule, shot_tokens, unlabelled
from timecolor.geometry import Grid
from timecolor.layout import TokenLayout

FRAMES = (17, 49)
REFERENCES = (1, 2, 4)
METHODS = ("published", "joint", "cached")
GUIDANCE = 3.0
STEP = 599  # of 1000; nothing depends on it
CHANNELS, HEAD, PATCH = 16, 64, 2


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of a model. rows, columns: tokens of a frame; text: tokens of a prompt; time: width of the timestep's embedding."""

    layers: int
    heads: int
    rows: int
    columns: int
    text: int
    text_width: int
    time: int

    @property
    def width(self) -> int:
        return self.heads * HEAD


FULL = Scale(42, 48, 30, 45, 226, 4096, 512)
EIGHTH = Scale(4, 6, 12, 14, 28, 512, 64)
TINY = Scale(2, 2, 4, 6, 8, 32, 16)


def built(scale: Scale, device: torch.device, dtype: torch.dtype, seed: int) -> CogVideoXTransformer3DModel:
    """diffusers' model with random weights, none of them zero, made on the device in their own dtype."""
    with torch.device("meta"):
        model = CogVideoXTransformer3DModel(
            num_layers=scale.layers,
            num_attention_heads=scale.heads,
            attention_head_dim=HEAD,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            patch_size=PATCH,
            sample_height=scale.rows * PATCH,
            sample_width=scale.columns * PATCH,
            max_text_seq_length=scale.text,
            text_embed_dim=scale.text_width,
            time_embed_dim=scale.time,
            use_rotary_positional_embeddings=True,
        )
    model = nn.Module.to(model, dtype).to_empty(device=device).eval().requires_grad_(False)
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            nn.init.normal_(weight, mean=float("norm" in name and name.endswith("weight")), std=0.1)
        else:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return model


def areas(grid: Grid, references: int, seed: int) -> Tensor:
    """Label of every token of the target (n): what lies nearest to each of as many points that move."""
    generator = torch.Generator().manual_seed(seed)
    first, last = torch.rand(2, references, 2, generator=generator)
    moments = torch.linspace(0, 1, grid.frames)[:, None, None]
    points = (first + (last - first) * moments) * torch.tensor([grid.height, grid.width])
    places = torch.cartesian_prod(torch.arange(grid.height), torch.arange(grid.width)).float()
    return torch.cdist(places.expand(grid.frames, -1, -1), points).argmin(2).flatten()


# The published algorithm


class Published:
    """Attention by the published rule: a label's queries are gathered, see what is common and their reference, are put back."""

    def __init__(self, layout: TokenLayout, labels: Tensor, device: torch.device) -> None:
        """labels: of the target's tokens (n); a sketch token has that of the target there."""
        self.text, self.common = layout.text, layout.text + 2 * layout.grid.tokens
        both = labels.repeat(2)
        self.order = (torch.argsort(both, stable=True) + layout.text).to(device)
        ends = torch.bincount(both, minlength=layout.references).cumsum(0)
        starts = self.common + layout.grid.per_frame * torch.arange(layout.references)
        # Where a label's queries and its reference lie: on the device, as published, so each costs a wait in every layer.
        columns = (F.pad(ends[:-1], (1, 0)), ends, starts, starts + layout.grid.per_frame)
        self.pointers = torch.stack(columns, dim=1).to(device)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Results for the frames' tokens and for the text's, as a diffusers block takes them."""
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        projected = (linear(tokens) for linear in (attn.to_q, attn.to_k, attn.to_v))
        q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=attn.heads) for x in projected)
        q, k = attn.norm_q(q), attn.norm_k(k)
        for x in (q, k):
            x[:, :, self.text :] = apply_rotary_emb(x[:, :, self.text :], image_rotary_emb)
        out = rearrange(self.attended(q, k, v), "b h n d -> b n (h d)")
        out = attn.to_out[1](attn.to_out[0](out))
        return out[:, self.text :], out[:, : self.text]

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if len(self.pointers) == 1:
            return F.scaled_dot_product_attention(q, k, v)  # level 3 with one reference hides nothing
        out = torch.empty_like(q)
        out[:, :, : self.text] = F.scaled_dot_product_attention(q[:, :, : self.text], k, v)
        for row in self.pointers:
            first, last, start, stop = (int(pointer.item()) for pointer in row)
            for queries in (self.order[first:last], slice(start, stop)):
                own = (torch.cat([x[:, :, : self.common], x[:, :, start:stop]], dim=2) for x in (k, v))
                out[:, :, queries] = F.scaled_dot_product_attention(q[:, :, queries], *own)
        return out


def published_tables(layout: TokenLayout) -> tuple[Tensor, Tensor]:
    """cos and sin (n 64) of the tokens after the text: published positions at the model's own size, which are whole numbers."""
    grid = layout.grid
    t, y, x = torch.cartesian_prod(*(torch.arange(size) for size in (grid.frames, grid.height, grid.width))).T
    places = [torch.stack([t, y, x]), torch.stack([t, y + grid.height, x + grid.width])]
    y, x = y[: grid.per_frame], x[: grid.per_frame]
    places += [
        torch.stack([torch.full_like(y, -k - 1), y + 3 * grid.height, x + 3 * grid.width]) for k in range(layout.references)
    ]
    angles = [
        place[:, None] * 10000 ** -(torch.arange(0, d, 2) / d)
        for place, d in zip(torch.cat(places, dim=1).double(), (16, 24, 24), strict=True)
    ]
    turned = torch.cat(angles, dim=1).repeat_interleave(2, dim=1)
    return turned.cos().float(), turned.sin().float()


def published_step(model: Any, given: Prompted, tables: tuple[Tensor, Tensor], noisy: Tensor, alpha: Tensor) -> Tensor:
    """Guided clean latents: everything runs, in both branches, and the target's part is kept."""
    frames = torch.cat([noisy, given.sketch, given.references], dim=1).repeat(2, 1, 1, 1, 1)
    times = torch.full((2,), STEP, device=noisy.device)
    speed = model(frames, given.text, times, image_rotary_emb=tables, return_dict=False)[0][:, : noisy.shape[1]].float()
    empty, prompt = speed.chunk(2)
    return alpha**0.5 * noisy - (1 - alpha) ** 0.5 * (empty + given.guidance * (prompt - empty))


# What it costs


def operations(scale: Scale, grid: Grid, references: int, method: str) -> dict[str, float]:
    """Multiply-adds x 2 of matrix products in a step and, once per shot, before the first; of visible pairs only.

    Every token of the target and of the sketch has one label, so how the areas lie does not matter.
    """
    w, frame, text = scale.width, grid.per_frame, scale.text
    target, kept = grid.tokens, grid.tokens + references * frame
    live, hidden = text + target, (references - 1) * frame  # hidden: from each token of target, sketch or a reference

    def blocks(tokens: int, pairs: int, asked: int, pairs_of_asked: int) -> float:
        """asked: tokens whose queries count in the last layer."""
        last = (20 * tokens + 4 * asked) * w**2 + 4 * w * pairs_of_asked
        return (scale.layers - 1) * (24 * tokens * w**2 + 4 * w * pairs) + last

    def ends(texts: int, frames: int) -> float:
        return 2 * w * (scale.text_width * texts + 2 * CHANNELS * PATCH**2 * frames)

    n = live + kept
    pairs = n * n - (target + kept) * hidden
    of_live = live * n - target * hidden
    if method == "published":
        return {"once": 0.0, "step": 2 * (blocks(n, pairs, n, pairs) + ends(text, target + kept))}
    if method == "joint":
        return {"once": 0.0, "step": 2 * (blocks(n, pairs, live, of_live) + ends(text, target + kept))}
    of_kept = target * (target + frame) + references * frame**2
    once = blocks(kept, of_kept, 0, 0) + ends(0, kept)
    return {"once": once, "step": 2 * (blocks(live, of_live, live, of_live) + ends(text, target))}


def start_memory(device: torch.device) -> int:
    """Bytes held now; the peak starts anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # or what was let go before would be taken again unseen
    record.forget_peak()
    return record.held_bytes()


def peak_memory(device: torch.device) -> int:
    """Most bytes held since `start_memory`."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else record.peak_bytes()


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds and result. On a CPU, seconds of the one core that works, so that what runs beside it hardly counts."""
    if device.type == "cpu":
        started = time.process_time()
        result = work()
        return time.process_time() - started, result
    torch.cuda.synchronize()
    started = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return time.perf_counter() - started, result


@torch.inference_mode()
def measure(denoiser: CogVideoX, scale: Scale, frames: int, references: int, options) -> dict[str, Any]:
    """One shot's figures by method; calls are timed in turns."""
    model: Any = denoiser.transformer
    device, dtype, grid = model.device, model.dtype, Grid((frames - 1) // 4 + 1, scale.rows, scale.columns)
    layout = TokenLayout(grid, references, text=scale.text)
    labels = areas(grid, references, options.seed)
    generator = torch.Generator().manual_seed(options.seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    size = (CHANNELS, scale.rows * PATCH, scale.columns * PATCH)
    tokens = shot_tokens(layout, unlabelled(grid) if references == 1 else (1 << labels)[None])
    noisy, sketch, pictures = (drawn(1, count, *size) for count in (grid.frames, grid.frames, references))
    text = drawn(2, scale.text, scale.text_width)

    def conditions(regime: Regime) -> Prompted:
        return Prompted(layout, tokens, sketch, pictures, Rule(regime), text=text, guidance=GUIDANCE)

    given = conditions("joint")
    tables = tuple(table.to(device) for table in published_tables(layout))
    alpha = denoiser.scheduler.alphas_cumprod[STEP]
    ours = dict(model.attn_processors)
    rule = Published(layout, labels, device)
    caches: dict[str, CogVideoXCache] = {}
    now = torch.tensor([(STEP + 1) / 1000])

    def seated(method: str) -> None:
        model.set_attn_processor(dict.fromkeys(ours, rule) if method == "published" else dict(ours))

    def step(method: str) -> Tensor:
        if method == "published":
            return published_step(model, given, tables, noisy, alpha)
        return denoiser.predict(noisy, now, caches[method])

    figures: dict[str, dict[str, Any]] = {method: {"prepare_s": 0.0, "kept_mib": 0.0, "all_s": []} for method in METHODS}
    results: dict[str, Tensor] = {}
    for method in METHODS:
        seated(method)
        mine = figures[method]
        if method != "published":
            mine["prepare_s"], caches[method] = timed(lambda m=method: denoiser.prepare(conditions(m)), device)
            kept = caches[method].plan.kept or []
            mine["kept_mib"] = sum(x.numel() * x.element_size() for pair in kept for x in pair) / record.MIB
        mine["operations"] = operations(scale, grid, references, method)
        mine["operations_5b"] = operations(FULL, Grid(grid.frames, FULL.rows, FULL.columns), references, method)
        if device.type == "cuda":
            step(method)  # compiles
    for turn in range(options.repeat):
        for method in METHODS:
            seated(method)
            before = start_memory(device) if turn == options.repeat - 1 else 0
            took, results[method] = timed(lambda m=method: step(m), device)
            figures[method]["all_s"].append(took)
            figures[method]["peak_mib"] = (peak_memory(device) - before) / record.MIB  # that of the last turn stays
    seated("joint")
    for mine in figures.values():
        mine["step_s"] = min(mine["all_s"])
    return {
        "frames": frames,
        "references": references,
        "tokens": layout.tokens,
        "methods": figures,
        "difference": float((results["published"] - results["joint"]).abs().max()),
        "largest_value": float(results["published"].abs().max()),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = record.parser("cogvideox", (__doc__ or "").splitlines()[0], model=False)
    parser.add_argument("--repeat", type=int, default=3, help="steps of each method; the fastest is given")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto = cuda where there is one")
    options = parser.parse_args(argv)
    if options.repeat < 1:
        parser.error(f"--repeat is {options.repeat}; give at least 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda but PyTorch finds no GPU; use --device cpu")
    device = torch.device("cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    options.repeat = 1 if options.quick else options.repeat
    scale = TINY if options.quick else FULL if device.type == "cuda" else EIGHTH
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    denoiser = CogVideoX(built(scale, device, dtype, options.seed), scheduler)

    cases = []
    for frames in (5,) if options.quick else FRAMES:
        for references in REFERENCES:
            cases.append(measure(denoiser, scale, frames, references, options))
            print(f"{frames} frames, {references} references: done", file=sys.stderr)
    times, counts = [], []
    for case in cases:
        first = case["methods"]["published"]
        for method, mine in case["methods"].items():
            shot, own, large = (case["frames"], case["references"]), mine["operations"], mine["operations_5b"]
            memory = (round(mine["peak_mib"]), round(mine["kept_mib"]))
            times.append(
                [*shot, case["tokens"], method, mine["step_s"], first["step_s"] / mine["step_s"], mine["prepare_s"], *memory]
            )
            ratios = [first[name]["step"] / mine[name]["step"] for name in ("operations", "operations_5b")]
            counts.append([*shot, method, own["step"] / 1e9, ratios[0], large["step"] / 1e12, ratios[1], large["once"] / 1e12])
    ratio = "published / this"
    print(record.table(["frames", "R", "tokens", "step", "s", ratio, "once (s)", "peak MiB", "kept MiB"], times), end="\n\n")
    heads = ["frames", "R", "step", "GFLOP here", ratio, "TFLOP of 5B at 480x720", ratio, "once (TFLOP)"]
    print(record.table(heads, counts))
    most, value = (max(case[name] for case in cases) for name in ("difference", "largest_value"))
    kind = str(dtype).removeprefix("torch.")
    print(f"\npublished and joint differ by at most {most:.1e} in values of up to {value:.1f} ({kind})")
    card = torch.cuda.get_device_name() if device.type == "cuda" else None
    about = {"device": device.type, "card": card, "dtype": kind, "repeat": options.repeat, "scale": asdict(scale)}
    record.write(options.out, options, argv, {**about, "cases": cases})


if __name__ == "__main__":
    main()
