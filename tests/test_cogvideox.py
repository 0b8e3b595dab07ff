"""The published system on tiny real components: built from configs, saved and loaded in the released format."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

pytest.importorskip("diffusers")

import sentencepiece
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from diffusers.utils import logging
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from timecolor import cogvideox
from timecolor.attention import Grouped, dense_mask
from timecolor.cogvideox import CogVideoX, CogVideoXCodec, Prompted, Prompts, Solver, Source, fitted_positions, load_model
from timecolor.correspondence import Rule, label_bits, shot_tokens, unlabelled
from timecolor.denoiser import Conditions, Denoiser
from timecolor.geometry import Compression, Grid
from timecolor.layout import Kind, TokenLayout
from timecolor.rope import Rope
from timecolor.sampling import sample

logging.disable_progress_bar()

BASE = (6, 8)  # tokens of a frame of the base model's own size
TEXT, WIDTH, CHANNELS = 9, 12, 4
TRANSFORMER = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "time_embed_dim": 8,
    "text_embed_dim": WIDTH,
    "num_layers": 3,
    "sample_height": 2 * BASE[0],
    "sample_width": 2 * BASE[1],
    "max_text_seq_length": TEXT,
    "use_rotary_positional_embeddings": True,
}
VAE = {
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": ("CogVideoXDownBlock3D",) * 4,
    "up_block_types": ("CogVideoXUpBlock3D",) * 4,
    "latent_channels": CHANNELS,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "scaling_factor": 0.7,
}
SCHEDULE = {  # CogVideoX-5b's
    "beta_end": 0.012,
    "beta_start": 0.00085,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "snr_shift_scale": 1.0,
    "timestep_spacing": "trailing",
}
SIZES = [Grid(2, *BASE), Grid(3, 5, 7)]


def transformer(seed=0, dtype=torch.float32, **changes):
    """Every weight away from its start, so that all paths carry something."""
    torch.manual_seed(seed)
    model = CogVideoXTransformer3DModel(**(TRANSFORMER | changes))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.3)
        else:
            torch.nn.init.normal_(parameter, std=0.8 * prod(parameter.shape[1:]) ** -0.5)
    return model.to(dtype).eval()


def scheduler():
    return CogVideoXDDIMScheduler(**SCHEDULE)


def latents(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def ragged(grid, references, seed=0):
    """A label video whose areas have borders anywhere, also within tokens: int (t, h, w)."""
    rng = np.random.default_rng(seed)
    t, h, w = (grid.frames - 1) * 4 + 1, grid.height * 16, grid.width * 16
    labels = np.zeros((t, h, w), np.int64)
    for r in range(1, references):
        for frame in labels:
            y, x = rng.integers(0, h - 8), rng.integers(0, w - 8)
            frame[y : y + rng.integers(8, h), x : x + rng.integers(8, w)] = r
    return labels


def conditions(grid, references, labels=None, regime="joint", branches=2, guidance=3.0, sketch=True, execution="auto", seed=1):
    layout = TokenLayout(grid, references, sketch, TEXT)
    if labels is None:
        bits = unlabelled(grid)
    else:
        bits = label_bits(torch.from_numpy(labels), lambda label: (label,), Compression(), "majority")[None]
    size = (CHANNELS, grid.height * 2, grid.width * 2)
    return Prompted(
        layout,
        shot_tokens(layout, bits),
        latents(1, grid.frames * sketch, *size, seed=seed),
        latents(1, references, *size, seed=seed + 1),
        Rule(regime),
        execution,
        text=latents(branches, TEXT, WIDTH, seed=seed + 2),
        guidance=guidance,
    )


def noise(grid, seed=9, dtype=torch.float32):
    return latents(1, grid.frames, CHANNELS, grid.height * 2, grid.width * 2, seed=seed, dtype=dtype)


def coloured(denoiser, given, noisy, steps):
    """Latents at the end of the published walk."""
    with torch.no_grad():
        *_, last = sample(denoiser, noisy, denoiser.prepare(given), Solver(scheduler(), steps))
    return last.latents


def predicted(denoiser, given, noisy, t=0.6):
    with torch.no_grad():
        return denoiser.predict(noisy, torch.tensor([t]), denoiser.prepare(given))


# The published rules (spec §3-§5) as plainly as they can be written, as the oracle. Nothing of ours is used from here ...


def sequence(grid, references, sketch=True):
    """(kind, reference, latent frame, row, column) of every token, in the published order."""
    frames = [(t, y, x) for t in range(grid.frames) for y in range(grid.height) for x in range(grid.width)]
    tokens = [("text", -1, 0, 0, 0)] * TEXT
    tokens += [("target", -1, *place) for place in frames]
    tokens += [("sketch", -1, *place) for place in frames] if sketch else []
    return tokens + [("reference", r, *place) for r in range(references) for place in frames if place[0] == 0]


def majority(labels, grid):
    """Label of every latent frame, row and column by two votes: 8x8 pixels x the group's frames, then 2x2."""

    def vote(values):
        ids, counts = np.unique(values, return_counts=True)
        return ids[np.argmax(counts)]  # the lowest of equals

    groups = [labels[:1]] + [labels[i : i + 4] for i in range(1, len(labels), 4)]
    assert len(groups) == grid.frames
    winners = np.zeros((grid.frames, grid.height, grid.width), int)
    for t, group in enumerate(groups):
        cells = np.array(
            [[vote(group[:, y : y + 8, x : x + 8]) for x in range(0, group.shape[2], 8)] for y in range(0, group.shape[1], 8)]
        )
        for y in range(grid.height):
            for x in range(grid.width):
                winners[t, y, x] = vote(cells[2 * y : 2 * y + 2, 2 * x : 2 * x + 2])
    return winners


def published_mask(grid, references, labels):
    """Level 4 with labels, level 3 without: bool (n, n)."""
    tokens = sequence(grid, references)
    label = None if labels is None else majority(labels, grid)

    def sees(q, k):
        if q[0] == "text" or k[0] != "reference":
            return True
        if q[0] == "reference":
            return q[1] == k[1]
        return label is None or label[q[2:]] == k[1]

    return torch.tensor([[sees(q, k) for k in tokens] for q in tokens])


def conditions_see_only_conditions(grid, references, labels):
    """The `cached` rule: the published one, but references see only themselves, and sketch only sketch and references."""
    tokens = sequence(grid, references)
    rank = {"reference": 0, "sketch": 1, "target": 2, "text": 2}
    allowed = torch.tensor([[rank[k[0]] <= rank[q[0]] for k in tokens] for q in tokens])
    return published_mask(grid, references, labels) & allowed


def published_angles(grid, references, head=16, sketch=True):
    """Angle of every token and pair of channels. Rows and columns lie in the base grid, offsets are in its units."""
    scale = min(BASE[0] / grid.height, BASE[1] / grid.width)
    angles = []
    for kind, reference, t, y, x in sequence(grid, references, sketch):
        if kind == "text":
            angles.append([0.0] * (head // 2))
            continue
        place = [float(t) if kind != "reference" else -(reference + 1.0)]
        for i, (index, size) in enumerate(((y, grid.height), (x, grid.width))):
            fitted = round(size * scale)
            first = round((BASE[i] - fitted) / 2)
            last = (first + fitted) * (size - 1) / size
            offset = {"target": 0, "sketch": 1, "reference": 3}[kind]
            place.append(first + (last - first) * index / max(size - 1, 1) + offset * BASE[i])
        dims = (head // 4, head // 8 * 3, head // 8 * 3)
        angles.append([p / 10000 ** (2 * i / d) for p, d in zip(place, dims, strict=True) for i in range(d // 2)])
    return torch.tensor(angles, dtype=torch.float64)


def plainly(attn, x, mask, angles):
    """Attention of tokens (b n d) with a mask tensor, turned as complex numbers."""

    def split(y):
        return y.unflatten(2, (attn.heads, -1)).transpose(1, 2)

    def turned(y):
        pairs = torch.view_as_complex(y.double().unflatten(3, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(3).float()

    q, k, v = turned(attn.norm_q(split(attn.to_q(x)))), turned(attn.norm_k(split(attn.to_k(x)))), split(attn.to_v(x))
    scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf)
    return attn.to_out[0]((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def uncached(model, frames, text, times, mask, angles, targets):
    """v of the target, all tokens run at once, each modulated by its own time (n)."""

    n = len(times)
    emb = model.time_embedding(model.time_proj(times))
    # A block's norm makes six parts: shift, scale and gate for frames, then for text.
    which = torch.tensor([[3, 4, 5]] * TEXT + [[0, 1, 2]] * (n - TEXT))
    rows = torch.arange(n)[:, None]

    def norm_of(x, norm):
        parts = norm.linear(norm.silu(emb)).unflatten(1, (6, -1))[rows, which]
        return norm.norm(x) * (1 + parts[:, 1]) + parts[:, 0], parts[:, 2]

    x = model.patch_embed(text, frames)
    for block in model.transformer_blocks:
        normed, gate = norm_of(x, block.norm1)
        x = x + gate * plainly(block.attn1, normed, mask, angles)
        normed, gate = norm_of(x, block.norm2)
        x = x + gate * block.ff(normed)
    x = model.norm_final(x)
    shift, scale = model.norm_out.linear(F.silu(emb)).chunk(2, dim=1)
    x = model.proj_out(model.norm_out.norm(x) * (1 + scale) + shift)[:, TEXT:]
    b, f, c, h, w = frames.shape
    pictures = x.reshape(b, f, h // 2, w // 2, c, 2, 2).permute(0, 1, 4, 2, 5, 3, 6).reshape(b, f, c, h, w)
    return pictures[:, :targets]


def oracle(model, given, noisy, labels, t=0.6):
    """Guided clean latents by the plain rules."""
    grid, references = given.layout.grid, given.layout.references
    joint = given.rule.regime == "joint"
    step = round(t * 1000) - 1
    rule = published_mask if joint else conditions_see_only_conditions
    mask, angles = rule(grid, references, labels), published_angles(grid, references)
    live = torch.tensor([k[0] in ("text", "target") for k in sequence(grid, references)])
    times = torch.where(live | joint, step, 0)
    frames = torch.cat([noisy, given.sketch, given.references], dim=1)
    with torch.no_grad():
        speeds = [uncached(model, frames, text[None], times, mask, angles, grid.frames) for text in given.text]
    speed = speeds[0] if len(speeds) == 1 else speeds[0] + given.guidance * (speeds[1] - speeds[0])
    alpha = scheduler().alphas_cumprod[step]
    return (alpha**0.5 * noisy.double() - (1 - alpha) ** 0.5 * speed.double()).float()


# ... to here.


def test_it_is_a_denoiser():
    assert isinstance(CogVideoX(transformer(), scheduler()), Denoiser)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("grid", [Grid(3, *BASE), Grid(2, 5, 7), Grid(1, 9, 4)], ids=str)
def test_without_conditions_every_step_is_diffusers_own_bit_for_bit(grid, guidance, dtype):
    pipeline = CogVideoXPipeline(None, None, None, transformer(dtype=dtype), scheduler())
    pipeline.set_progress_bar_config(disable=True)
    given = conditions(grid, 0, branches=2 if guidance > 1 else 1, guidance=guidance, sketch=False)
    text = given.text.to(dtype)
    steps = []
    pipeline(
        height=grid.height * 16,
        width=grid.width * 16,
        num_frames=(grid.frames - 1) * 4 + 1,
        num_inference_steps=7,  # not a divisor of 1000
        guidance_scale=guidance,
        latents=noise(grid, dtype=dtype),
        prompt_embeds=text[-1:],
        negative_prompt_embeds=text[:1],
        output_type="latent",
        callback_on_step_end=lambda _, i, t, state: steps.append(state["latents"]) or state,
    )
    denoiser = CogVideoX(transformer(dtype=dtype), scheduler())
    solver = Solver(denoiser.scheduler, 7)
    with torch.no_grad():
        cache = denoiser.prepare(given)
        now = noise(grid, dtype=dtype)
        for i, time in enumerate(solver.times):
            now = solver.step(i, denoiser.predict(now, time[None], cache), now)
            assert torch.equal(now, steps[i])
    assert torch.equal(coloured(denoiser, given, noise(grid, dtype=dtype), 7), steps[-1])


@pytest.mark.parametrize("branches", ["together", "apart"])
@pytest.mark.parametrize("references", [1, 2, 4])
@pytest.mark.parametrize("grid", SIZES, ids=str)
def test_joint_is_the_published_rule(grid, references, branches):
    """Level 4 with labels (level 3 with the one reference that shots without labels mostly have)."""
    labels = ragged(grid, references) if references > 1 else None
    given, model = conditions(grid, references, labels), transformer()
    got = predicted(CogVideoX(transformer(), scheduler(), branches), given, noise(grid))
    torch.testing.assert_close(got, oracle(model, given, noise(grid), labels), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("references", [1, 2, 4])
@pytest.mark.parametrize("grid", SIZES, ids=str)
def test_without_labels_it_is_level_3(grid, references):
    given = conditions(grid, references)
    got = predicted(CogVideoX(transformer(), scheduler()), given, noise(grid))
    torch.testing.assert_close(got, oracle(transformer(), given, noise(grid), None), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("references", [0, 1, 2, 4])
@pytest.mark.parametrize("grid", SIZES, ids=str)
def test_cached_equals_uncached_evaluation_of_the_same_rule(grid, references):
    labels = ragged(grid, references) if references > 1 else None
    given, model = conditions(grid, references, labels, "cached"), transformer()
    denoiser = CogVideoX(transformer(), scheduler())
    with torch.no_grad():
        cache = denoiser.prepare(given)
        for seed, t in ((9, 1.0), (10, 0.5), (9, 0.02)):  # one cache serves all steps
            noisy = noise(grid, seed)
            got = denoiser.predict(noisy, torch.tensor([t]), cache)
            torch.testing.assert_close(got, oracle(model, given, noisy, labels, t), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("regime", ["joint", "cached"])
def test_every_execution_gives_the_same(regime):
    grid = SIZES[1]
    given = conditions(grid, 3, ragged(grid, 3), regime)
    denoiser = CogVideoX(transformer(), scheduler())
    dense, grouped = (predicted(denoiser, replace(given, execution=e), noise(grid)) for e in ("dense", "grouped"))
    torch.testing.assert_close(grouped, dense, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("regime", ["joint", "cached"])
def test_a_batch_of_two_shots_is_two_batches_of_one(regime):
    grid = SIZES[1]
    given = conditions(grid, 2, ragged(grid, 2), regime)
    other = replace(given, sketch=latents(*given.sketch.shape, seed=20), references=latents(*given.references.shape, seed=21))
    both = replace(
        given, sketch=torch.cat([given.sketch, other.sketch]), references=torch.cat([given.references, other.references])
    )
    denoiser, noisy = CogVideoX(transformer(), scheduler()), torch.cat([noise(grid), noise(grid, 10)])
    with torch.no_grad():
        got = denoiser.predict(noisy, torch.tensor([0.3, 0.9]), denoiser.prepare(both))
    for i, one in enumerate((given, other)):
        torch.testing.assert_close(
            got[i : i + 1], predicted(denoiser, one, noisy[i : i + 1], (0.3, 0.9)[i]), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("regime", ["joint", "cached"])
def test_guidance_walks_from_the_empty_prompt_to_the_prompt_and_on(regime):
    grid = SIZES[1]
    given = conditions(grid, 2, ragged(grid, 2), regime)
    denoiser = CogVideoX(transformer(), scheduler())
    empty, prompt = (predicted(denoiser, replace(given, text=text[None]), noise(grid)) for text in given.text)
    assert (prompt - empty).abs().max() > 0.01
    for guidance in (0.0, 1.0, 3.0, 6.0):
        got = predicted(denoiser, replace(given, guidance=guidance), noise(grid))
        torch.testing.assert_close(got, empty + guidance * (prompt - empty), atol=1e-4, rtol=1e-4)


def test_both_branches_of_guidance_share_one_cache_of_conditions():
    given = conditions(SIZES[0], 2, regime="cached")
    denoiser = CogVideoX(transformer(), scheduler())
    with torch.no_grad():
        two, one = (denoiser.prepare(replace(given, text=text)).plan.kept for text in (given.text, latents(1, TEXT, WIDTH)))
    for (k, v), (k1, v1) in zip(two, one, strict=True):
        assert k.shape == v.shape == (1, 2, given.layout.tokens - given.layout.target.stop, 16)
        assert torch.equal(k, k1)
        assert torch.equal(v, v1)


def test_grouped_work_is_that_of_the_visible_pairs_in_few_rectangles_whatever_the_length():
    counts = []
    for frames in (2, 6):
        grid = Grid(frames, *BASE)
        given = conditions(grid, 3, ragged(grid, 3))
        with torch.no_grad():
            plan = CogVideoX(transformer(), scheduler()).prepare(given).plan
        assert isinstance(plan.attend, Grouped)
        size = [(q.stop - q.start) * (k.stop - k.start) for q, k in plan.attend.blocks]
        assert sum(size) == int(dense_mask(given.tokens, given.tokens, given.rule).sum())
        assert plan.asked == given.layout.target.stop  # of the last layer
        counts.append(len(size))
    # All look at what is common; text at all references; target, sketch and reference r at reference r.
    assert counts == [1 + 1 + 3 * 3] * 2


def test_one_reference_without_labels_is_full_attention_as_diffusers_runs_it():
    with torch.no_grad():
        plan = CogVideoX(transformer(), scheduler()).prepare(conditions(SIZES[1], 1)).plan
    assert plan.attend is plan.last is F.scaled_dot_product_attention
    assert plan.order is None


@pytest.mark.parametrize("regime", ["joint", "cached"])
def test_training_sees_the_same_and_carries_gradients(regime):
    grid = SIZES[1]
    given = conditions(grid, 2, ragged(grid, 2), regime)
    denoiser = CogVideoX(transformer(), scheduler())
    expected = predicted(denoiser, given, noise(grid))
    got = denoiser.predict(noise(grid), torch.tensor([0.6]), denoiser.prepare(given))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    got.square().mean().backward()
    unused = {n for n, p in denoiser.named_parameters() if p.grad is None or not bool((p.grad != 0).any())}
    assert unused == set()


@pytest.mark.parametrize("regime", ["joint", "cached"])
def test_gradients_are_the_same_under_checkpointing(regime):
    grid = SIZES[1]
    given = conditions(grid, 2, ragged(grid, 2), regime)
    grads = []
    for checkpointing in (False, True):
        model = transformer().train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        denoiser = CogVideoX(model, scheduler())
        denoiser.predict(noise(grid), torch.tensor([0.6]), denoiser.prepare(given)).square().mean().backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def check_compiled():
    """Run by a process of its own: PyTorch traces the attention and cannot trace the shape checks of the test run."""
    grid, graphs = SIZES[0], []

    def counted(graph, _):
        graphs.append(graph)
        return graph.forward

    for regime, layers in (("cached", 2), ("joint", 5)):
        given = conditions(grid, 2, ragged(grid, 2), regime)
        denoiser = CogVideoX(transformer(num_layers=layers), scheduler())
        expected = predicted(denoiser, given, noise(grid))
        with torch.no_grad():
            cache = denoiser.prepare(given)
            if regime == "cached":
                denoiser.transformer.compile(backend=counted, fullgraph=True)
            else:
                for block in denoiser.transformer.transformer_blocks:
                    block.compile(backend=counted, fullgraph=True)
            got = denoiser.predict(noise(grid), torch.tensor([0.6]), cache)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert len(graphs) <= 1 + 3, len(graphs)  # the whole; then the first block, one for all that follow, and the last


def test_the_transformer_compiles_whole_and_block_by_block_without_a_break():
    code = "import test_cogvideox; test_cogvideox.check_compiled()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=Path(__file__).parent, timeout=900)


# Positions


def spans(layout, places, axis):
    kinds = layout.kinds()
    return {k: (float(places[kinds == k, axis].min()), float(places[kinds == k, axis].max())) for k in set(kinds.tolist())}


def test_positions_at_480x720_are_the_published_ones():
    layout = TokenLayout(Grid(5, 30, 45), 3, text=226)
    places = fitted_positions(layout, Rope())
    video = places[226:]
    assert torch.equal(video, video.round())
    assert spans(layout, places, 1)[Kind.TARGET] == (0, 29)
    assert spans(layout, places, 1)[Kind.SKETCH] == (30, 59)
    assert spans(layout, places, 1)[Kind.REFERENCE] == (90, 119)
    assert spans(layout, places, 2)[Kind.TARGET] == (0, 44)
    assert spans(layout, places, 2)[Kind.SKETCH] == (45, 89)
    assert spans(layout, places, 2)[Kind.REFERENCE] == (135, 179)
    assert spans(layout, places, 0)[Kind.REFERENCE] == (-3, -1)
    sketch = places[layout.conditions][: layout.grid.tokens]
    assert torch.equal(sketch[:, 0], places[layout.target.slice][:, 0])


def test_rows_at_320x512_are_those_of_the_published_target_without_its_overlap():
    layout = TokenLayout(Grid(2, 20, 32), 1)
    rows = spans(layout, fitted_positions(layout, Rope()), 1)
    assert rows[Kind.TARGET] == pytest.approx((1, 27.55))
    assert rows[Kind.SKETCH] == pytest.approx((31, 57.55))


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 100), st.integers(1, 100), st.integers(1, 3))
def test_kinds_are_disjoint_at_every_size(frames, height, width, references):
    layout = TokenLayout(Grid(frames, height, width), references)
    places = fitted_positions(layout, Rope())
    for axis in (1, 2):
        of = spans(layout, places, axis)
        assert of[Kind.TARGET][1] < of[Kind.SKETCH][0] <= of[Kind.SKETCH][1] < of[Kind.REFERENCE][0]


# Solvers


@pytest.mark.parametrize("name", ["ddim", "dpm", "unipc"])
@pytest.mark.parametrize("steps", [1, 4, 10])
def test_solvers_arrive_at_colours_that_are_known(name, steps):
    solver, clean, now = Solver(scheduler(), steps, name), latents(1, 2, 4, 4, 4), latents(1, 2, 4, 4, 4, seed=5)
    assert solver.times[0] == 1
    assert (solver.times.diff() < 0).all()
    for i in range(steps):
        now = solver.step(i, clean, now)
    torch.testing.assert_close(now, clean, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("name", "error"), [("ddim", 0.04), ("unipc", 0.02)])
def test_solvers_follow_a_linear_field_to_its_closed_form(name, error):
    """Colours ~ N(0, s^2) have the ideal prediction x_0 = a s^2 / (a^2 s^2 + b^2) x, and the flow ends at s times the noise."""
    s, alphas = 0.5, scheduler().alphas_cumprod
    solver, start = Solver(scheduler(), 100, name), latents(1, 2, 4, 4, 4).double()
    now = start
    for i, time in enumerate(solver.times):
        alpha = alphas[round(float(time) * 1000) - 1]
        now = solver.step(i, alpha.sqrt() * s**2 / (alpha * s**2 + 1 - alpha) * now, now)
    torch.testing.assert_close(now, s * start, rtol=error, atol=0)


def test_dpm_repeats_with_its_seed():
    def walk(seed):
        solver, now = Solver(scheduler(), 5, "dpm", seed), latents(1, 1, 4, 4, 4)
        for i in range(3):
            now = solver.step(i, 0.5 * now, now)
        return now

    assert torch.equal(walk(1), walk(1))
    assert not torch.equal(walk(1), walk(2))


def test_impossible_solvers_are_refused():
    with pytest.raises(ValueError, match="got 0 steps; give 1 to 1000"):
        Solver(scheduler(), 0)
    with pytest.raises(ValueError, match="got 1001 steps; give 1 to 1000"):
        Solver(scheduler(), 1001)


# Files


def save_tokenizer(folder: Path) -> None:
    """T5's format: a SentencePiece model and its settings, as the base has it."""
    folder.mkdir(parents=True)
    sentences = ["a girl in a red coat walks past the river", "the boy runs home with a small dog", "evening sky, old houses"]
    with (folder / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences * 9),
            model_writer=file,
            vocab_size=50,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 100}))


def save_t5(folder: Path, seed=0) -> None:
    torch.manual_seed(seed)
    sizes = {"vocab_size": 200, "d_model": WIDTH, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2}
    T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu")).save_pretrained(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A base as CogVideoX-5b lies on disk (its scheduler is a DPM one)."""
    folder = tmp_path_factory.mktemp("base")
    transformer(seed=1).save_pretrained(folder / "transformer")
    torch.manual_seed(2)
    AutoencoderKLCogVideoX(**VAE).save_pretrained(folder / "vae")
    CogVideoXDPMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    save_t5(folder / "text_encoder")
    save_tokenizer(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def finetune(tmp_path_factory) -> Path:
    """A full fine-tune as released: transformer and scheduler alone."""
    folder = tmp_path_factory.mktemp("finetune")
    transformer().save_pretrained(folder / "transformer", max_shard_size="20KB")  # in shards, as 5B is
    scheduler().save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture
def loaded(base, finetune, tmp_path):
    return load_model(finetune, base, dtype=torch.float32, prompt_folder=tmp_path / "prompts")


def broken(folder: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    return Path(shutil.copytree(folder, tmp_path / "broken"))


def test_saved_and_loaded_gives_the_same_output(loaded):
    given = conditions(SIZES[1], 2, ragged(SIZES[1], 2))
    expected = predicted(CogVideoX(transformer(), scheduler()), given, noise(SIZES[1]))
    assert torch.equal(predicted(loaded.network, given, noise(SIZES[1])), expected)
    assert not any(p.requires_grad for p in loaded.network.parameters())


def test_a_lora_is_worked_into_the_base(base, tmp_path):
    torch.manual_seed(3)
    tuned = get_peft_model(transformer(seed=1), LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    tuned.save_pretrained(tmp_path / "lora")
    given = conditions(SIZES[0], 2, ragged(SIZES[0], 2))
    plain = predicted(CogVideoX(transformer(seed=1), scheduler()), given, noise(SIZES[0]))
    beside = PeftModel.from_pretrained(transformer(seed=1), str(tmp_path / "lora"))
    expected = predicted(CogVideoX(beside.get_base_model(), scheduler()), given, noise(SIZES[0]))
    got = predicted(load_model(tmp_path / "lora", base, dtype=torch.float32).network, given, noise(SIZES[0]))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert (got - plain).abs().max() > 0.01


@pytest.mark.parametrize("regime", ["joint", "cached"])
def test_from_frames_to_frames(loaded, regime):
    """The whole way, at an odd size, twice with the same result."""
    grid, frames = Grid(2, 3, 5), np.random.default_rng(0).integers(0, 256, (5, 48, 80, 3), np.uint8)
    layout = TokenLayout(grid, 2, text=loaded.text)
    given = Prompted(
        layout,
        shot_tokens(layout, unlabelled(grid)),
        loaded.codec.encode(frames),
        torch.cat([loaded.codec.encode(frames[i : i + 1]) for i in (1, 3)], dim=1),
        Rule(regime),
        text=loaded.prompts.branches("a girl", 3.0),
        guidance=3.0,
    )
    results = [loaded.codec.decode(coloured(loaded.network, given, noise(grid), 3)) for _ in range(2)]
    assert results[0].shape == (5, 48, 80, 3)
    assert np.array_equal(*results)
    other = replace(given, references=given.references.flip(1))
    ours = coloured(loaded.network, other, noise(grid), 3)
    assert not np.array_equal(loaded.codec.decode(ours), results[0])


def test_values_that_are_not_finite_are_told_with_their_step(loaded):
    given = replace(conditions(SIZES[0], 1), guidance=float("inf"))
    with pytest.raises(FloatingPointError, match="step 1 of 2"):
        coloured(loaded.network, given, noise(SIZES[0]), 2)


# Codec


@pytest.mark.parametrize("frames", [1, 5, 9, 13])
def test_codec_is_diffusers_vae_with_the_mode_scaled(base, frames):
    vae = AutoencoderKLCogVideoX.from_pretrained(base / "vae")
    codec, clip = CogVideoXCodec(vae), np.random.default_rng(1).integers(0, 256, (frames, 32, 48, 3), np.uint8)
    got = codec.encode(clip)
    assert got.shape == (1, 1 + (frames - 1) // 4, CHANNELS, 4, 6)
    pixels = torch.from_numpy(clip).permute(3, 0, 1, 2)[None] / 127.5 - 1
    with torch.no_grad():
        expected = vae.encode(pixels).latent_dist.mode() * 0.7
        torch.testing.assert_close(got, expected.transpose(1, 2))
        pipeline = CogVideoXPipeline(None, None, vae, transformer(), scheduler())
        decoded = pipeline.video_processor.postprocess_video(pipeline.decode_latents(got), output_type="np")[0]
    assert len(decoded) - frames == (0 if frames % 8 == 1 else 3)  # of which diffusers makes four from the first
    assert codec.decode(got).shape == (frames, 32, 48, 3)
    np.testing.assert_allclose(codec.decode(got), decoded[-frames:], atol=1e-5)


def test_codec_works_in_tiles(base):
    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(**VAE, sample_height=192, sample_width=160).eval()
    codec, clip = CogVideoXCodec(vae), np.random.default_rng(1).integers(0, 256, (5, 144, 128, 3), np.uint8)
    whole = codec.encode(clip)
    codec.lean()
    tiled = codec.encode(clip)
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)
    assert codec.decode(tiled).shape == clip.shape
    codec.lean(False)
    assert torch.equal(codec.encode(clip), whole)


def test_codec_names_sizes_that_fit(base):
    codec = CogVideoXCodec(AutoencoderKLCogVideoX.from_pretrained(base / "vae"))
    with pytest.raises(ValueError, match=r"clip has 4 frames; use 1 or 5 \(4k\+1\)"):
        codec.encode(np.zeros((4, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match=r"clip has width 50; use 48 or 56"):
        codec.encode(np.zeros((1, 32, 50, 3), np.uint8))


# Prompts


def no_t5(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("T5 was loaded")

    monkeypatch.setattr(T5EncoderModel, "from_pretrained", refuse)


def prompts_of(base, tmp_path, **options):
    return Prompts(base, TEXT, WIDTH, tmp_path / "prompts", dtype=torch.float32, **options)


def test_embeddings_are_those_of_diffusers_pipeline(base, tmp_path):
    pipeline = CogVideoXPipeline(
        T5Tokenizer.from_pretrained(base / "tokenizer"),
        T5EncoderModel.from_pretrained(base / "text_encoder").eval(),
        None,
        transformer(),
        scheduler(),
    )
    with torch.no_grad():
        prompt, empty = pipeline.encode_prompt("a dog", max_sequence_length=TEXT)
    got = prompts_of(base, tmp_path).branches("a dog", 3.0)
    assert torch.equal(got, torch.cat([empty, prompt]))


def test_a_prompt_is_computed_once_and_kept_on_disk(base, tmp_path, monkeypatch):
    first = prompts_of(base, tmp_path)(["a girl", ""])
    no_t5(monkeypatch)
    assert torch.equal(prompts_of(base, tmp_path)(["a girl", ""]), first)
    with pytest.raises(AssertionError, match="T5 was loaded"):
        prompts_of(base, tmp_path)(["a boy"])
    assert not list((tmp_path / "prompts").glob("*.part"))


def test_another_t5_makes_its_own_embeddings(base, tmp_path):
    other = broken(base, tmp_path)
    save_t5(other / "text_encoder", seed=1)
    assert not torch.equal(prompts_of(base, tmp_path)(["a girl"]), prompts_of(other, tmp_path)(["a girl"]))


def test_the_empty_prompt_works_without_t5_from_a_file(base, finetune, tmp_path, monkeypatch):
    file = tmp_path / "empty.safetensors"
    expected = prompts_of(base, tmp_path)([""])
    prompts_of(base, tmp_path).write("", file)
    bare = broken(base, tmp_path)
    shutil.rmtree(bare / "text_encoder")
    shutil.rmtree(bare / "tokenizer")
    no_t5(monkeypatch)
    prompts = load_model(finetune, bare, dtype=torch.float32, prompt_folder=tmp_path / "none", embeddings=[file]).prompts
    assert torch.equal(prompts.branches("", 3.0), expected)
    with pytest.raises(ValueError, match="prompt 'a girl' has no embedding yet and there is no T5; add T5, or give"):
        prompts.branches("a girl")


def test_the_empty_prompt_needs_one_branch_only(base, tmp_path):
    prompts = prompts_of(base, tmp_path)
    assert [len(prompts.branches(p, g)) for p, g in (("", 3.0), ("a dog", 1.0), ("a dog", 3.0))] == [1, 1, 2]


def test_a_prompt_that_is_too_long_says_what_is_lost(base, tmp_path):
    with pytest.warns(UserWarning, match=r"the model reads 9; lost: '.*river'"):
        prompts_of(base, tmp_path)(["a girl in a red coat walks past the river"])


def test_an_embedding_file_of_another_kind_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"embedding": torch.zeros(3, 4)}, tmp_path / "a.safetensors", {"prompt": ""})
    with pytest.raises(ValueError, match=r"holds \(3, 4\); this model needs \(9, 12\)"):
        prompts_of(None, tmp_path, files=[tmp_path / "a.safetensors"])
    (tmp_path / "b.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match="is no embedding of a prompt"):
        prompts_of(None, tmp_path, files=[tmp_path / "b.safetensors"])


# Bad input


def test_missing_parts_are_named(base, finetune, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere: is no directory; give one in diffusers' format, or a hub id"):
        load_model(tmp_path / "nowhere", base)
    with pytest.raises(ValueError, match=r"has neither transformer/ \(a full fine-tune\) nor adapter_config.json"):
        load_model(tmp_path, base)
    with pytest.raises(ValueError, match=r"has no vae/ \(AutoencoderKLCogVideoX\); give the CogVideoX-5b base"):
        load_model(finetune)
    bare = broken(base, tmp_path)
    shutil.rmtree(bare / "tokenizer")
    with pytest.raises(ValueError, match=r"has no tokenizer/ \(T5's tokenizer\)"):
        load_model(finetune, bare)


def test_a_component_of_another_class_is_refused(base, finetune, tmp_path):
    bad = broken(base, tmp_path)
    config = bad / "vae" / "config.json"
    config.write_text(config.read_text().replace("AutoencoderKLCogVideoX", "AutoencoderKL"))
    with pytest.raises(ValueError, match="vae: is a AutoencoderKL; AutoencoderKLCogVideoX is needed"):
        load_model(finetune, bad)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("patch_size_t", 2, "patch_size_t is 2; None is needed"),
        ("use_rotary_positional_embeddings", False, "use_rotary_positional_embeddings is False; True is needed"),
        ("in_channels", 8, "out_channels is 4; 8 is needed"),
        ("ofs_embed_dim", 8, "ofs_embed_dim is 8; None is needed"),
        ("attention_head_dim", 8, "attention_head_dim is 8; a multiple of 16"),
    ],
)
def test_a_transformer_that_does_not_fit_is_told_by_its_field(field, value, message):
    with pytest.raises(ValueError, match=message):
        CogVideoX(CogVideoXTransformer3DModel(**(TRANSFORMER | {field: value})), scheduler())


def test_a_scheduler_of_another_prediction_is_refused():
    with pytest.raises(ValueError, match="prediction_type is epsilon; v_prediction is needed"):
        CogVideoX(transformer(), CogVideoXDDIMScheduler(**(SCHEDULE | {"prediction_type": "epsilon"})))


def test_a_vae_or_t5_of_another_model_is_refused(base, finetune, tmp_path):
    bad = broken(base, tmp_path)
    AutoencoderKLCogVideoX(**(VAE | {"latent_channels": 6})).save_pretrained(bad / "vae")
    with pytest.raises(ValueError, match=r"vae: has 6 latent channels but the transformer 4"):
        load_model(finetune, bad)
    shutil.rmtree(bad / "vae")
    shutil.copytree(base / "vae", bad / "vae")
    config = bad / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"d_model": 4096}))
    with pytest.raises(ValueError, match="its embeddings have 4096 channels but the transformer takes 12"):
        load_model(finetune, bad)


def test_a_checkpoint_cut_short_is_refused(base, finetune, tmp_path):
    bad = broken(finetune, tmp_path)
    shards = sorted((bad / "transformer").glob("*.safetensors"))
    assert len(shards) > 1
    whole = shards[-1].read_bytes()
    shards[-1].write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"transformer/.*: cannot be read .* it is incomplete"):
        load_model(bad, base)
    shards[-1].unlink()
    with pytest.raises(ValueError, match=r"transformer: .* weights are missing .* it is incomplete"):
        load_model(bad, base)


def test_weights_that_are_missing_are_not_drawn_at_random(base, finetune, tmp_path):
    bad = broken(finetune, tmp_path)
    config = bad / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 4}))
    with pytest.raises(ValueError, match=r"weights are missing \(such as transformer_blocks.3"):
        load_model(bad, base)


def test_an_unknown_hub_id_is_one_line(base, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="nobody/nothing: is no directory, and the hub gave none") as error:
        load_model("nobody/nothing", base)
    assert "\n" not in str(error.value)


def test_a_fine_tune_runs_under_the_rule_it_was_trained_under(base, finetune, tmp_path):
    assert (load_model(finetune, base).defaults.regime, load_model(finetune, base).defaults.cells) == ("joint", "majority")
    ours = broken(finetune, tmp_path)
    (ours / "timecolor.json").write_text(json.dumps({"regime": "cached", "cells": "coverage", "steps": 4, "seed": 0}))
    own = load_model(ours, base).defaults
    assert (own.regime, own.cells) == ("cached", "coverage")
    (ours / "timecolor.json").write_text(json.dumps({"regime": "quick", "cells": "coverage"}))
    with pytest.raises(ValueError, match=r"timecolor.json: regime is 'quick'; joint or cached is needed"):
        load_model(ours, base)


def test_embedding_files_beside_a_model_are_found(base, finetune, tmp_path, monkeypatch):
    bare = broken(base, tmp_path)
    expected = prompts_of(base, tmp_path)([""])
    prompts_of(base, tmp_path).write("", bare / "prompts" / "empty.safetensors")
    shutil.rmtree(bare / "text_encoder")
    shutil.rmtree(bare / "tokenizer")
    no_t5(monkeypatch)
    prompts = load_model(finetune, bare, dtype=torch.float32, prompt_folder=tmp_path / "none").prompts
    assert torch.equal(prompts.branches("", 3.0), expected)


def test_hub_ids_bring_what_is_needed_and_a_bases_transformer_only_for_a_lora(base, finetune, tmp_path, monkeypatch):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    copies, asked = {"authors/TimeColor": finetune, "authors/lora": tmp_path / "lora", "THUDM/CogVideoX-5b": base}, []

    def snapshot_download(name, ignore_patterns=None):
        asked.append((name, ignore_patterns))
        return str(copies[name])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    source = Source.of("authors/TimeColor", "THUDM/CogVideoX-5b")
    assert (source.transformer, source.vae) == (finetune / "transformer", base / "vae")
    assert Source.of("authors/lora", "THUDM/CogVideoX-5b").transformer == base / "transformer"
    (own, without), (_, all_of_it) = asked[:2], asked[2:]
    assert own == ("authors/TimeColor", None)
    assert without == ("THUDM/CogVideoX-5b", "transformer/*")
    assert all_of_it == ("THUDM/CogVideoX-5b", None)


def test_conditions_that_do_not_fit_are_told(loaded):
    denoiser, given = loaded.network, conditions(SIZES[0], 2)
    bare = Conditions(given.layout, given.tokens, given.sketch, given.references)
    with pytest.raises(ValueError, match="conditions without a text"):
        denoiser.prepare(bare)
    with pytest.raises(ValueError, match=r"sketch: latents are \(1, 4, 12, 16\); the layout needs 2 frames of 4x12x16"):
        denoiser.prepare(replace(given, sketch=given.sketch[:, :1]))
    with pytest.raises(ValueError, match="references: latents are"):
        denoiser.prepare(replace(given, references=given.references[:, :1]))
    with pytest.raises(ValueError, match=r"text: embeddings are \(2, 3, 12\); .* 1 or 2 branches of 9 tokens of 12"):
        denoiser.prepare(replace(given, text=given.text[:, :3]))


def test_a_diffusers_pipeline_is_told_that_the_transformer_is_taken(loaded):
    with pytest.raises(ValueError, match="belongs to a timecolor denoiser"):
        loaded.network.transformer(noise(SIZES[0]), latents(1, TEXT, WIDTH), torch.tensor([5]))


def test_only_cogvideox_imports_diffusers():
    source = Path(cogvideox.__file__).parent
    users = {
        path.parent.name
        for path in source.rglob("*.py")
        if "diffusers import" in path.read_text() or "import diffusers" in path.read_text()
    }
    assert users == {"cogvideox"}
