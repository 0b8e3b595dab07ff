"""The command line: parse, call, print."""

import json
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from timecolor import __version__
from timecolor.colorize import ColorizeOptions, Colorizer, Coloured
from timecolor.evaluate.protocols import PROTOCOLS, Selection
from timecolor.geometry import Clip
from timecolor.media import ClipWriter, InputError, did_you_mean, open_frames
from timecolor.shot import Frames, Reference, Shot
from timecolor.shotfiles import ShotFile, load_shots, read_reference
from timecolor.sketch import SketchStyle, extract_clip
from timecolor.train.presets import PrecomputeOptions

app = App(
    name="timecolor",
    help="Colour a line-art animation shot from coloured references. With --debug, an error shows its traceback.",
    version=__version__,
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
Device = Annotated[str, Parameter(help="auto, cpu, cuda, mps, ...")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"], Parameter(help="Of the numbers; auto = bfloat16 where it is fast.")
]
say = Console(stderr=True)


@app.command
def colorize(
    shot: list[Path],
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    reference: Annotated[list[Path] | None, Parameter(name=["--reference", "-r"], consume_multiple=True)] = None,
    format: Literal["mp4", "mkv", "mov", "png"] = "mp4",
    model: str = "toon",
    base: str | None = None,
    memory: str = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    options: Annotated[ColorizeOptions, Parameter(name="*")] = ColorizeOptions(),
    overwrite: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Colour shots. A shot is a folder, a job .json, or a sketch (video or images) with --reference.

    Parameters
    ----------
    shot
        Shot folders, job files or sketches.
    out
        The output: a file (.mp4, .mkv lossless, .mov) or a folder, where each shot gets a file of its name.
    reference
        Coloured images for a bare sketch, or further ones for a shot folder without labels.
    format
        Of the outputs in a folder; png = a folder of them for each shot.
    model
        toon (embedded), a .safetensors file, or a CogVideoX directory (a full fine-tune or a LoRA).
    base
        Directory of the CogVideoX base that such a model was made from.
    memory
        Rung of the memory ladder of a CogVideoX model: resident, tiled, offload, groups, low, int8; auto = the fastest that fits.
    overwrite
        Replace existing outputs.
    as_json
        One JSON line per shot on standard output.
    """
    jobs = [job for path in shot for job in load_shots(path)]
    extra = tuple(read_reference(path) for path in reference or ())
    jobs = [replace(job, shot=_with_references(job.shot, extra)) for job in jobs]
    plans = [(job, _options(job, options), _target(out, job, format, len(jobs))) for job in jobs]
    _refuse_doubles([target for _, _, target in plans])
    # Every writer checks its path before any work is done.
    writers = [_writer(target, job.shot.sketch, job.shot.frame_rate, overwrite) for job, _, target in plans]
    colorizer = Colorizer.load(model, device, dtype, base, memory)
    if colorizer.model.text:
        plans = [(job, _with_caption(job, chosen), target) for job, chosen, target in plans]
    for job, chosen, _ in plans:
        colorizer.check(job.shot, chosen)
    for (job, chosen, target), writer in zip(plans, writers, strict=True):
        with _bars(job.shot.name) as show, writer:
            for event in colorizer.stream(job.shot, chosen):
                if isinstance(event, Coloured):
                    writer.write(event.frame)
                else:
                    show(event.stage, event.done, event.total)
        if as_json:
            _json({"shot": job.shot.name, "out": str(target), "frames": writer.frames, "options": asdict(chosen)})
        else:
            say.print(f"{escape(job.shot.name)}: {writer.frames} frames -> {escape(str(target))}")


@app.command
def demo(
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("out/demo"),
    shot: int = 1012,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Draw a shot, colour it with the embedded weights, and measure the result against the truth.

    Leaves the shot's files, the video, a contact sheet and the figures in the folder.

    Parameters
    ----------
    out
        The folder.
    shot
        Which shot of the held-out world.
    as_json
        Figures as JSON on standard output.
    """
    from timecolor.demo import run

    with _bars("demo") as show:
        figures = run(out, shot, show)
    if as_json:
        _json(figures)
        return
    for name, row in figures["figures"].items():
        say.print(f"{name:>8}: " + "  ".join(f"{k} {v}" for k, v in row.items()))
    say.print(f"video, contact sheet and figures are in {escape(str(out))}")


@app.command
def sketch(
    clip: Path,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    style: SketchStyle = "clean",
    binarise: bool = False,
    overwrite: bool = False,
) -> None:
    """Take the lines from a coloured clip.

    Parameters
    ----------
    clip
        A video or a folder of images.
    out
        A video or, ending in /, a folder of PNGs.
    style
        How the lines look.
    binarise
        Black and white only.
    overwrite
        Replace an existing output.
    """
    frames = open_frames(clip)
    total = frames.shape[0]
    with _bars(clip.name) as show, _writer(out, frames, frames.frame_rate or Fraction(24), overwrite) as writer:
        for i in range(total):
            writer.write(extract_clip(frames[i : i + 1], style, binarise)[0])
            show("sketching", i + 1, total)
    say.print(f"{total} frames -> {escape(str(out))}")


@app.command
def info(
    *,
    model: str = "toon",
    base: str | None = None,
    memory: str = "auto",
    frames: int = 17,
    height: int = 480,
    width: int = 720,
    references: int = 3,
    device: Device = "auto",
    dtype: Dtype = "auto",
    options: Annotated[ColorizeOptions, Parameter(name="*")] = ColorizeOptions(),
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """What a model needs for a shot of a size: tokens, memory, and time on this machine (a short measurement).

    Parameters
    ----------
    model
        toon (embedded), a .safetensors file, or a CogVideoX directory.
    base
        Directory of the CogVideoX base.
    memory
        Rung of the memory ladder of a CogVideoX model.
    frames
        Length of the shot.
    height
        Of the sketch, in pixels.
    width
        Of the sketch, in pixels.
    references
        How many.
    as_json
        As JSON on standard output.
    """
    colorizer = Colorizer.load(model, device, dtype, base, memory)
    need = colorizer.need(Clip(frames, height, width), references, options)
    seconds = colorizer.measured_seconds(need, references, options) if colorizer.fits(need) else None
    facts: dict[str, Any] = {
        "model": model,
        "parameters": colorizer.model.parameters,
        "working size": f"{need.working.width}x{need.working.height}",
        "token grid": f"{need.grid.frames} x {need.grid.height} x {need.grid.width}",
        "tokens": need.tokens,
        "drawings at once": need.piece,
        "memory (MiB)": round(need.memory_bytes / 2**20),
        "memory rung": need.rung,
        "rungs (MiB)": {rung: round(peak / 2**20) for rung, peak in need.rungs.items()},
        "network (GFLOP)": round(need.operations / 1e9),
        "network time (s)": None if seconds is None else round(seconds, 1),
    }
    if as_json:
        _json(facts)
        return
    facts["rungs (MiB)"] = ", ".join(f"{rung} {peak}" for rung, peak in facts["rungs (MiB)"].items())
    facts["network time (s)"] = "not measured: it does not fit" if seconds is None else facts["network time (s)"]
    for name, value in facts.items():
        say.print(f"{name:>18}: {value}")


@app.command
def evaluate(
    dataset: list[str] | None = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    methods: str = "timecolor,copy,flow,analogy,segments",
    protocols: str = ",".join(PROTOCOLS),
    peers: Path | None = None,
    weights_dir: Path | None = None,
    skip_broken: bool = False,
    ablations: bool = False,
    ablation_shots: int = 16,
    train_ablations: int = 0,
    model: str = "toon",
    device: Device = "auto",
    dtype: Dtype = "auto",
    base: str | None = None,
    memory: str = "auto",
    selection: Annotated[Selection, Parameter(name="*")] = Selection(),
    options: Annotated[ColorizeOptions, Parameter(name="*")] = ColorizeOptions(),
    overwrite: bool = False,
    part: str | None = None,
    compare: tuple[Path, Path] | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Measure a model against baselines and the truth, and write a report. Stopped, it goes on when given again.

    Parameters
    ----------
    dataset
        world (held-out drawn shots), folders of shots or colour clips, or manifests of scenes (.csv, .jsonl).
    out
        The report's folder.
    methods
        Of timecolor, copy, flow, analogy, segments, paste; with commas between.
    protocols
        With commas between; a shot is measured under those it has the references for.
    peers
        Videos that other systems made of the shots: SHOT/METHOD.mp4.
    weights_dir
        Standard weights of LPIPS, FID and FVD; nothing is downloaded.
    skip_broken
        Leave broken cases out, and count them in the report.
    ablations
        Also measure every switch of the model, one at a time.
    ablation_shots
        Cases of each dataset and protocol that ablations take.
    train_ablations
        Also train variants of the preset for so many steps each; 0 = none.
    model
        toon (embedded), a .safetensors file, or a CogVideoX directory (a full fine-tune or a LoRA).
    base
        Directory of the CogVideoX base that such a model was made from.
    memory
        Rung of the memory ladder of a CogVideoX model; auto = the fastest that fits.
    overwrite
        Replace other results in the folder.
    part
        1/2 = only every second case, from the first on, for processes that share the folder; then give the command without it.
    compare
        Folders of two evaluations: print paired differences instead.
    as_json
        Results, or differences, as JSON on standard output.
    """
    if compare is not None:
        if dataset or out is not None:
            raise InputError("--compare reads two finished evaluations; leave out datasets and --out")
        _compare(compare, as_json)
        return
    if not dataset or out is None:
        raise InputError("give at least one dataset (world, or a path) and --out, or --compare with two folders")
    from timecolor.evaluate import report, run

    plan = run.Plan(
        tuple(dataset),
        run.names_of("method", methods),
        run.names_of("protocol", protocols),
        selection,
        options,
        model,
        device,
        dtype,
        base,
        memory,
        peers,
        weights_dir,
        skip_broken,
        ablation_shots if ablations else 0,
        train_ablations,
    )
    for event in run.evaluate(plan, out, shlex.join(["timecolor", *sys.argv[1:]]), overwrite, run.part_of(part)):
        if isinstance(event, run.Skipped):
            say.print(f"skipped {event.dataset}, {event.case}: {event.why}", markup=False, highlight=False)
            continue
        figures = [f"{name} {v['psnr']:.1f} dB" for name, v in event.values.items() if v.get("psnr") is not None]
        again = " (from before)" if event.again else ""
        line = f"{event.number}: {event.case}, {event.protocol}{again}: {', '.join(figures) or 'no truth'}"
        say.print(line, markup=False, highlight=False)
    if part is not None:
        return
    written = report.write_report(out)
    if as_json:
        sys.stdout.write((out / "results.json").read_text(encoding="utf-8"))
    say.print(f"report of {written.shots} cases: {escape(str(written.page))}")


@app.command
def train(
    *,
    preset: str = "toon",
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    device: Device = "auto",
    minutes: float | None = None,
    timed: bool | None = None,
    steps: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    init: Path | None = None,
    data: Path | None = None,
    base: str | None = None,
    model: str | None = None,
    regime: Literal["cached", "joint"] | None = None,
    batch: int | None = None,
) -> None:
    """Train the embedded model on the procedural world, or CogVideoX on precomputed shots. To resume, run the same command again.

    On several GPUs: torchrun --nproc-per-node N -m timecolor.train, with the same options.

    Parameters
    ----------
    preset
        A name from timecolor.train.presets, such as toon, cogvideox-lora, cogvideox-full.
    out
        The run's folder; runs/PRESET unless given.
    minutes
        Stop with a checkpoint after this long.
    timed
        Let the learning rate fall to 0 as the minutes end, in however many steps there are, not by the preset's.
    steps
        Length of the run, instead of the preset's.
    seed
        Of weights, data and order, instead of the preset's.
    workers
        Processes that draw the shots, instead of the preset's; 0 = none but this one.
    init
        Weights (.safetensors) to start a new run from.
    data
        CogVideoX: a folder that `precompute` made.
    base
        CogVideoX: the directory that it was made with.
    model
        CogVideoX: a full fine-tune to start from, instead of the base's own weights.
    regime
        CogVideoX: cached = conditions are computed once a shot; joint = as published. Instead of the preset's.
    batch
        CogVideoX: samples a step over all processes, instead of the preset's.
    """
    from timecolor.train.__main__ import run

    def tell(line: str) -> None:
        say.print(line, highlight=False)

    run(preset, out, device, minutes, steps, seed, workers, init, tell, data, base, model, regime, batch, timed)


@app.command
def precompute(
    shots: list[str],
    /,
    *,
    base: str,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    embedding: Annotated[list[Path] | None, Parameter(consume_multiple=True)] = None,
    memory: str = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    options: Annotated[PrecomputeOptions, Parameter(name="*")] = PrecomputeOptions(),
) -> None:
    """Turn shots into latents for fine-tuning CogVideoX. Stopped, it goes on when given again.

    Parameters
    ----------
    shots
        world (drawn shots), shot folders with their finished frames as colour.mp4 or colour/, or folders of such.
    base
        The CogVideoX directory, whose VAE and T5 are used.
    out
        The folder for shards and index.
    embedding
        Embeddings of prompts, where there is no T5.
    memory
        Rung of the memory ladder.
    """
    try:
        from timecolor.train import precompute as made
    except ModuleNotFoundError as error:
        extra = "pip install 'timecolor[cogvideox]'"
        raise ModuleNotFoundError(f"precompute needs {error.name}; install it with: {extra}", name=error.name) from error
    count = 0
    with _bars(out.name) as show:
        for one in made.precompute(shots, base, out, options, device, dtype, memory, embedding or ()):
            show("encoding", one.done, one.total)
            count = one.total
    say.print(f"{count} shots -> {escape(str(out))}")


def main(arguments: list[str] | None = None) -> None:
    """Entry point: one line and exit code 2 for what the user can mend, 130 for Ctrl-C; `--debug` shows the traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that half-written files are dropped
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except KeyboardInterrupt:
        say.print("stopped; nothing was left half-written")
        sys.exit(130)
    except (ValueError, MemoryError, FloatingPointError, CycloptsError, OSError, ModuleNotFoundError) as error:
        if debug:
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, CycloptsError):
            text = f"{text.rstrip('.')} (see --help)"
        say.print(f"timecolor: {text}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


def _compare(folders: tuple[Path, Path], as_json: bool) -> None:
    """Paired differences of two evaluations, as a table or JSON."""
    from timecolor.evaluate.run import read_results
    from timecolor.evaluate.statistics import paired_differences

    differences = paired_differences(read_results(folders[0]), read_results(folders[1]))
    if not differences:
        raise InputError(f"{folders[0]} and {folders[1]}: have no case, method and measure in common")
    if as_json:
        _json([asdict(one) for one in differences])
        return
    table = Table("dataset", "protocol", "method", "measure", "cases", "A", "B", "B - A, 95 %", "better", box=None)
    for one in differences:
        change = one.difference
        interval = "" if change.low is None or change.high is None else f" ({change.low:+.4g} to {change.high:+.4g})"
        figures = (f"{one.mean_a:.4g}", f"{one.mean_b:.4g}", f"{change.mean:+.4g}{interval}", (one.better or "-").upper())
        table.add_row(*map(escape, (one.dataset, one.protocol, one.method, one.metric, str(one.cases), *figures)))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _with_references(shot: Shot, extra: tuple[Reference, ...]) -> Shot:
    if not extra:
        return shot
    if shot.labels is not None:
        raise InputError(f"{shot.name}: has labels, so --reference cannot tell which area it is for; name it in shot.toml")
    return replace(shot, references=(*shot.references, *extra))


def _options(job: ShotFile, options: ColorizeOptions) -> ColorizeOptions:
    """The command's options over the file's: what the command leaves at its default, the file may set."""
    known = {f.name: f.default for f in fields(ColorizeOptions)}
    given = {}
    for name, value in job.options.items():
        if name in ("caption", "output_name"):
            continue
        if name == "size" and isinstance(value, list | tuple):
            continue  # a job's height and width are those of its model; here the output has the sketch's own size
        if name not in known:
            raise InputError(f"{job.shot.name}: unknown option {name!r}{did_you_mean(name, known)}")
        if getattr(options, name) == known[name]:
            given[name] = value
    try:
        return replace(options, **given)
    except ValueError as error:
        raise InputError(f"{job.shot.name}: options in its file: {error}") from error


def _with_caption(job: ShotFile, options: ColorizeOptions) -> ColorizeOptions:
    """The file's caption as the prompt, where the command gives none."""
    caption = job.options.get("caption") or ""
    if not isinstance(caption, str):
        raise InputError(f"{job.shot.name}: caption is {caption!r}; give a text")
    return options if options.prompt else replace(options, prompt=caption)


def _target(out: Path, job: ShotFile, suffix: str, jobs: int) -> Path:
    """Where a shot goes: `out` itself for one shot and a file name, else a file or folder in `out`."""
    if jobs == 1 and out.suffix and not out.is_dir():
        return out
    if out.suffix and not out.is_dir():
        raise InputError(f"{out}: is one file but there are {jobs} shots; give a folder")
    name = str(job.options.get("output_name") or job.shot.name)
    if Path(name).name != name:
        raise InputError(f"{name}: an output's name must not lead out of {out}; give a plain name")
    return out / (name if suffix == "png" else f"{name}.{suffix}")


def _writer(target: Path, frames: Frames, frame_rate: Fraction, overwrite: bool) -> ClipWriter:
    """A writer of clips like `frames`, which refuses at once what it could not write."""
    count, height, width, _ = frames.shape
    if target.suffix.lower() == ".png" and count > 1 and not target.is_dir():
        raise InputError(f"{target}: a .png holds one frame but there are {count}; give a folder (ending in /) or a video")
    return ClipWriter(target, height, width, frame_rate, overwrite=overwrite)


def _refuse_doubles(targets: list[Path]) -> None:
    for target in targets:
        if targets.count(target) > 1:
            raise InputError(f"{target}: two shots would be written there; give them unlike names or unlike --out folders")


@contextmanager
def _bars(name: str) -> Iterator[Any]:
    """A bar per stage, drawn where a person looks."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=say, transient=True, disable=not say.is_terminal) as progress:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(f"{escape(name)} {stage}", total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield show


def _json(data: Any) -> None:
    sys.stdout.write(json.dumps(data, default=str) + "\n")
