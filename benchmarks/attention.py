"""Grouped attention against masked attention at 480x720, 17 frames, three references: time of a call and memory.

masked: one call of `scaled_dot_product_attention` with one mask over the whole sequence, as the published code does.
dense: the same query kind by query kind, without a mask where all is visible; our reference.
grouped: no mask at all; rectangles that are wholly visible, merged by their log-sum-exp.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import record
import torch
from torch import Tensor
from torch.nn import functional as F

from timecolor import weights
from timecolor.attention import Attention, dense_mask, prepare, sort_order
from timecolor.correspondence import CellRule, Regime, Rule, Tokens, label_bits, shot_tokens
from timecolor.geometry import Clip, Compression
from timecolor.layout import TokenLayout

SHOT = Clip(17, 480, 720)
REFERENCES = 3
TEXT = 226  # text tokens of CogVideoX
EXECUTIONS = ("grouped", "dense", "masked")


@dataclass(frozen=True, slots=True)
class Case:
    """One attention problem. cached: the queries are the target's, as in a step of that regime."""

    name: str
    compression: Compression
    clip: Clip
    heads: int
    head: int
    cells: CellRule
    regime: Regime
    window: int | None
    text: int = 0


def cases(options) -> list[Case]:
    """The embedded model's own grid under every rule, and the published grid under the published rule."""
    toon, about = weights.load_toon(weights.EMBEDDED if options.model == "toon" else Path(options.model))
    config = toon.config
    shot = Clip(3, 96, 144) if options.quick else SHOT
    own = Compression(1, about["colour_cell"], config.patch)
    working = own.nearest(shot, 32 if options.quick else about.get("short_side", 160))
    rules: list[tuple[Regime, int | None]] = (
        [("cached", 1)] if options.quick else [(r, w) for r in ("cached", "joint") for w in (1, None)]
    )
    found = [
        Case("toon", own, working, config.heads, config.width // config.heads, "coverage", regime, window)
        for regime, window in rules
    ]
    published = Clip(5, 96, 144) if options.quick else SHOT
    return [*found, Case("published", Compression(), published, options.published_heads, 64, "majority", "joint", None, TEXT)]


def blobs(clip: Clip, seed: int) -> Tensor:
    """A label video (t h w) of two ragged shapes that drift over the background and each other."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : clip.height, 0 : clip.width] / clip.height
    labels = np.zeros((clip.frames, clip.height, clip.width), np.int64)
    for label in (1, 2):
        waves = np.arange(2, 9)
        sizes, phases = rng.normal(0, 0.05, len(waves)), rng.uniform(0, 2 * np.pi, len(waves))
        for t in range(clip.frames):
            middle = clip.width / clip.height * (label / 3 + 0.01 * t * (3 - 2 * label))
            angle = np.arctan2(y - 0.55, x - middle)[..., None] * waves
            radius = 0.3 * (1 + (sizes * np.cos(angle + phases + 0.1 * t)).sum(-1))
            labels[t][np.hypot(y - 0.55, x - middle) < radius] = label
    return torch.from_numpy(labels)


def problem(case: Case, seed: int) -> tuple[Tokens, Tokens, Rule, TokenLayout]:
    """Queries and keys, sorted as the model sorts them once per shot."""
    layout = TokenLayout(case.compression.grid(case.clip), REFERENCES, text=case.text)
    bits = label_bits(blobs(case.clip, seed), lambda label: (label,), case.compression, case.cells)
    tokens = shot_tokens(layout, bits[None])
    tokens = tokens[sort_order(tokens)]
    return tokens[layout.target.slice] if case.regime == "cached" else tokens, tokens, Rule(case.regime, case.window), layout


def qkv(case: Case, queries: Tokens, keys: Tokens, dtype: torch.dtype, seed: int) -> list[Tensor]:
    """Random queries, keys and values."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (len(queries.kind), len(keys.kind), len(keys.kind))
    return [torch.randn(1, case.heads, n, case.head, generator=generator).to(dtype) for n in sizes]


def masked(queries: Tokens, keys: Tokens, rule: Rule) -> Attention:
    """One call with one mask over everything."""
    rows = range(0, len(queries.kind), 512)  # so that making the mask takes no more than the mask
    mask = torch.empty(1, 1, len(queries.kind), len(keys.kind), dtype=torch.bool)
    for start in rows:
        some = slice(start, start + 512)
        mask[0, :, some] = dense_mask(queries[some], keys, rule)
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def prepared(execution: str, queries: Tokens, keys: Tokens, rule: Rule) -> Attention:
    """The execution of that name."""
    return masked(queries, keys, rule) if execution == "masked" else prepare(queries, keys, rule, execution)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


@torch.inference_mode()
def measure(case: Case, options) -> dict:
    """Times of all executions, taken in turns, and how far they are from the mask's result."""
    queries, keys, rule, layout = problem(case, options.seed)
    given = qkv(case, queries, keys, getattr(torch, options.dtype), options.seed)
    seconds: dict[str, list[float]] = {name: [] for name in options.executions}
    setting, attends, results = {}, {}, {}
    for name in options.executions:
        setting[name], attends[name] = timed(lambda name=name: prepared(name, queries, keys, rule))
    for _ in range(options.repeat):
        for name in options.executions:
            took, results[name] = timed(lambda name=name: attends[name](*given))
            seconds[name].append(took)
    truth = results[options.executions[-1]].float()
    return {
        "case": asdict(case),
        "tokens": layout.tokens,
        "queries": len(queries.kind),
        "rectangles": len(getattr(prepare(queries, keys, rule, "grouped"), "blocks", ())),
        "visible": visible_share(queries, keys, rule),
        "prepare_s": setting,
        "seconds": {name: median(all_) for name, all_ in seconds.items()},
        "all_seconds": seconds,
        "difference": {name: float((results[name].float() - truth).abs().max()) for name in options.executions},
    }


def visible_share(queries: Tokens, keys: Tokens, rule: Rule) -> float:
    """Share of pairs that may attend: the least work there is."""
    some = torch.arange(0, len(queries.kind), max(1, len(queries.kind) // 1000))
    return float(dense_mask(queries[some], keys, rule).float().mean())


@torch.inference_mode()
def probe(case: Case, execution: str, options) -> dict:
    """Memory of one execution beyond its inputs, in this process: while it is made ready and while it runs."""
    small = Case(**{**asdict(case), "compression": Compression(1, 1, 1), "clip": Clip(2, 4, 6)})
    for wanted in (small, case):  # the small one loads kernels and starts threads
        queries, keys, rule, _ = problem(wanted, options.seed)
        given = qkv(wanted, queries, keys, getattr(torch, options.dtype), options.seed)
        record.forget_peak()
        before = record.held_bytes()
        attend = prepared(execution, queries, keys, rule)
        ready = record.peak_bytes()
        record.forget_peak()
        attend(*given)
        running = record.peak_bytes()
    return {"prepare_mib": (ready - before) / record.MIB, "call_mib": (running - before) / record.MIB}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = record.parser("attention", (__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3, help="calls; the median is given")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--executions", nargs="+", choices=EXECUTIONS, default=["grouped", "masked"], help="the last is compared with"
    )
    parser.add_argument(
        "--published-heads", type=int, default=2, help="CogVideoX-5B has 48; time grows with them, the ratio does not"
    )
    options = parser.parse_args(argv)
    options.repeat = 1 if options.quick else options.repeat
    if options.probe:
        number, execution = options.probe.split(":")
        print(json.dumps(probe(cases(options)[int(number)], execution, options)))
        return

    measured = []
    for number, case in enumerate(cases(options)):
        figures = measure(case, options)
        more = ("--dtype", options.dtype, "--published-heads", str(options.published_heads))
        probed = () if options.quick and number else options.executions
        figures["memory"] = {name: record.fresh(__file__, f"{number}:{name}", options, *more) for name in probed}
        measured.append(figures)
        print(f"{case.name} {case.regime} window {case.window}: done", file=sys.stderr)
    against = options.executions[-1]
    heads = ["grid, rule", "tokens", "visible", "execution", "s", f"{against} / this", "peak MiB", "making ready MiB", "max diff"]
    rows = [
        [
            f"{m['case']['name']}, {m['case']['regime']}, window {m['case']['window'] or 'all'}",
            m["tokens"],
            f"{m['visible']:.0%}",
            name,
            m["seconds"][name],
            m["seconds"][against] / m["seconds"][name],
            *(round(m["memory"][name][key]) if m["memory"] else None for key in ("call_mib", "prepare_mib")),
            m["difference"][name],
        ]
        for m in measured
        for name in options.executions
    ]
    print(record.table(heads, rows))
    record.write(options.out, options, argv, {"dtype": options.dtype, "repeat": options.repeat, "cases": measured})


if __name__ == "__main__":
    main()
