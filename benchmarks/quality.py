"""Quality against the truth, beside pasting the reference: held-out world shots, ../shared/cc0 and ../shared/real.

A frame that a method was given as its reference is left out of the figures. Clips whose lines have to be extracted are first made
smaller (--long-side); drawn sketches keep their own size. `--vary steps=1,2,4` runs every case once for each value; several
--vary are combined, and one value sets an option.
"""

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import record

from timecolor.colorize import ColorizeOptions, Colorizer
from timecolor.evaluate import contact_sheet, copy_baseline, leak_rate, painted_mask, psnr, share_within, ssim
from timecolor.evaluate.metrics import ciede2000
from timecolor.finish import FinishOptions, finish, palette_of, palettes_of
from timecolor.geometry import Clip
from timecolor.media import open_frames, write_image
from timecolor.shot import Labels, Reference, Shot
from timecolor.shotfiles import load_shot, read_reference
from timecolor.sketch import SketchStyle, extract_clip
from timecolor.world import HELD_OUT_SEED, World
from timecolor.world.scene import PROTOCOLS, ReferenceForm

SHARED = record.ROOT.parent / "shared"
PAPER = 250  # from this level on, white is paper
PLAIN = 3  # levels by which a frame of the world may differ from its fills where there is no line


@dataclass(frozen=True, eq=False)
class Case:
    """A shot to colour.

    truth: None = only looked at. painted: where colours are compared. given: the frame that is the reference, None = none.
    """

    group: str
    name: str
    shot: Shot
    truth: np.ndarray | None = None
    painted: np.ndarray | None = None
    given: int | None = None
    peers: dict[str, np.ndarray] = field(default_factory=dict)
    sheet: bool = True


def world_cases(options) -> Iterator[Case]:
    """Shots of the world that training never draws from, in the three published forms."""
    height, width = (64, 96) if options.quick else (256, 384)
    world = World(HELD_OUT_SEED, height, width, options.frames)
    protocols: tuple[ReferenceForm, ...] = PROTOCOLS
    for index in range(options.seed, options.seed + options.shots):
        drawn = world.shot(index)
        fills = np.stack([drawn.render(t).fills for t in range(options.frames)])
        for protocol in protocols:
            shot, truth = drawn.to_shot(protocol)
            painted = (cv2.absdiff(fills, truth).max(axis=-1) <= PLAIN) & (truth.min(axis=-1) < PAPER)
            given = None if protocol == "multi-reference" else int(shot.references[0].name.removeprefix("frame "))
            sheet = index - options.seed < options.world_sheets
            yield Case(f"world, {protocol}", f"world_{index}", shot, truth, painted, given, sheet=sheet)


def cc0_cases(options) -> Iterator[Case]:
    """Rendered shots with labels."""
    for folder in _folders("cc0", "*/labels", options):
        shot = _head(load_shot(folder).shot, options.real_frames)
        truth = open_frames(folder / "colour")[0 : shot.sketch.shape[0]]
        yield Case("cc0, labels", folder.name, shot, truth, painted_mask(truth, np.asarray(shot.sketch)))


def real_cases(options) -> Iterator[Case]:
    """Real animation: first what has a truth, then what can only be looked at."""
    for folder in _folders("real", "flats_*/sketch", options):
        sketch, truth = (_read(folder / part, options.real_frames) for part in ("sketch", "colour"))
        painted = painted_mask(truth, sketch)
        for protocol, reference, given in (
            ("start frame", _frame(truth, 0), 0),
            ("sheet", read_reference(folder / "sheet.png"), None),
        ):
            yield Case(f"real, {protocol}", folder.name, Shot(sketch, [reference], name=folder.name), truth, painted, given)
    for folder in [*_folders("real", "sheet_*/clip.mp4", options), *_folders("real", "long_*/colour", options)]:
        clip = folder / "clip.mp4"
        truth = _shrunk(_read(clip if clip.exists() else folder / "colour", options.real_frames), options.long_side)
        sketch = extract_clip(truth, options.line_style, binarise=True)
        painted = painted_mask(truth, sketch)
        references: list[tuple[str, Reference, int | None]] = [("start frame", _frame(truth, 0), 0)]
        if (folder / "sheet.png").exists():
            references.append(("sheet", read_reference(folder / "sheet.png", "sheet"), None))
        else:
            references.append(("middle frame", _frame(truth, len(truth) // 2), len(truth) // 2))
        for protocol, reference, given in references:
            yield Case(f"real, {protocol}", folder.name, Shot(sketch, [reference], name=folder.name), truth, painted, given)
    for folder in _folders("real", "*/reference_0.png", options):
        whole = load_shot(folder).shot
        shot = _head(whole, options.real_frames)
        seen = {}
        published = folder / "peers" / "timecolor.mp4"
        if published.exists():
            frames = _read(published, None)
            share = shot.sketch.shape[0] / whole.sketch.shape[0]
            seen["TimeColor (published)"] = frames[: max(1, round(len(frames) * share))]
        yield Case("real, no truth", folder.name, shot, peers=seen)


def all_cases(options) -> Iterator[Case]:
    """The cases that --only names, or all."""
    if _meant("world", "world", options):
        yield from world_cases(options)
    if SHARED.is_dir():
        yield from cc0_cases(options)
        yield from real_cases(options)
    else:
        print(f"no {SHARED} here: the world only", file=sys.stderr)


def _meant(source: str, name: str, options) -> bool:
    return not options.only or any(source == only or name.startswith(only) for only in options.only)


def _folders(source: str, holding: str, options) -> list[Path]:
    """Shared folders with a certain file, of those that --only names."""
    return sorted(p.parent for p in (SHARED / source).glob(holding) if _meant(source, p.parent.name, options))


def _read(path: Path, most: int | None) -> np.ndarray:
    frames = open_frames(path)
    count = frames.shape[0] if most is None else min(most, frames.shape[0])
    return frames[0:count]


def _head(shot: Shot, most: int | None) -> Shot:
    """The shot in memory, and at most its first frames."""
    count = shot.sketch.shape[0] if most is None else min(most, shot.sketch.shape[0])
    labels = None if shot.labels is None else Labels(np.asarray(shot.labels.video[0:count]), shot.labels.references)
    return replace(shot, sketch=shot.sketch[0:count], labels=labels)


def _frame(truth: np.ndarray, index: int) -> Reference:
    return Reference(truth[index], None, "frame", f"frame {index}")


def _shrunk(frames: np.ndarray, long_side: int) -> np.ndarray:
    """Frames whose long side is at most `long_side`."""
    height, width = frames.shape[1:3]
    scale = long_side / max(height, width)
    if scale >= 1:
        return frames
    size = (round(width * scale), round(height * scale))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def variants(varied: Sequence[str], seed: int, quick: bool) -> dict[str, ColorizeOptions]:
    """Every combination of the values named, by its name."""
    known = {f.name: f for f in fields(ColorizeOptions)}
    axes = []
    for words in varied:
        name, _, values = words.partition("=")
        if name not in known or not values:
            raise SystemExit(f"--vary got {words!r}; expected NAME=VALUE,VALUE with a name of {', '.join(known)}")
        axes.append([(name, _value(word)) for word in values.split(",")])
    base = ColorizeOptions(seed=seed, size=32 if quick else None)
    found = {}
    for combination in itertools.product(*axes):
        shown = [f"{name}={value}" for (name, value), axis in zip(combination, axes, strict=True) if len(axis) > 1]
        found[" ".join(shown) or "timecolor"] = replace(base, **dict(combination))
    return found


def _value(word: str) -> Any:
    if word.lower() == "none":
        return None
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    return int(word) if word.lstrip("-").isdigit() else word


def figures(case: Case, result: np.ndarray) -> dict[str, float | None]:
    """All measures of one result; frames that were given are left out."""
    assert case.truth is not None
    assert case.painted is not None
    keep = np.arange(len(case.truth)) != (-1 if case.given is None else case.given)
    if not keep.any():
        keep[:] = True
    result, truth, painted = result[keep], case.truth[keep], case.painted[keep]
    difference = ciede2000(result[painted], truth[painted])
    return {
        "psnr_db": psnr(result, truth),
        "painted_psnr_db": psnr(result[painted], truth[painted]) if painted.any() else float("nan"),
        "ssim": ssim(result, truth),
        "within_10": share_within(result, truth, 10, painted),
        "mean_de": float(difference.mean()) if difference.size else float("nan"),
        "leak": leak(case, result, keep),
    }


def leak(case: Case, result: np.ndarray, keep: np.ndarray) -> float | None:
    """Leak rate on the painted area of labels whose references have a palette."""
    if case.shot.labels is None:
        return None
    video = np.asarray(case.shot.labels.video[0 : len(keep)])[keep].astype(np.int32)
    palettes = palettes_of(case.shot.references, case.shot.labels, np.unique(video).tolist())
    palettes = {label: palette for label, palette in palettes.items() if len(palette)}
    if len(palettes) < 2 or case.painted is None:
        return None
    return leak_rate(result, np.where(case.painted[keep], video, -1), palettes)


def ceiling(case: Case, colorizer: Colorizer, how: ColorizeOptions) -> np.ndarray:
    """What the finish makes of the true colours at the model's resolution: about the best that a model of that size can do."""
    assert case.truth is not None
    assert case.painted is not None
    shot = case.shot
    working = colorizer.need(Clip(*case.truth.shape[:3]), len(shot.references), how).working
    size = (working.width // colorizer.codec.space, working.height // colorizer.codec.space)
    last = FinishOptions(how.lines, how.finish, how.palette)
    labels = None if shot.labels is None else np.asarray(shot.labels.video[0 : len(case.truth)])
    palettes = None
    if shot.labels is not None and labels is not None:
        palettes = palettes_of(shot.references, shot.labels, np.unique(labels).tolist())
    palette = palette_of(shot.references) if labels is None else None
    frames = []
    for i, (truth, painted) in enumerate(zip(case.truth, case.painted, strict=True)):
        # Without lines, and bare paper as it is: mean over what is not a line, or over all where nothing else is.
        fills = painted | (truth.min(axis=-1) >= PAPER)
        share = cv2.resize(fills.astype(np.float32), size, interpolation=cv2.INTER_AREA)[..., None]
        colours = cv2.resize(truth * (fills[..., None] / np.float32(255)), size, interpolation=cv2.INTER_AREA)
        plain = cv2.resize(truth / np.float32(255), size, interpolation=cv2.INTER_AREA)
        cells = np.where(share > 0.02, colours / np.maximum(share, 0.02), plain)
        sketch = shot.sketch[i : i + 1][0]
        frames.append(finish(cells, sketch, last, palette, None if labels is None else labels[i], palettes))
    return np.stack(frames)


def draw_sheet(case: Case, results: dict[str, np.ndarray], path: Path, columns: int) -> None:
    """References, sketch, results, pasted reference, truth and peers, a few frames of each."""
    sketch = np.asarray(case.shot.sketch[0 : case.shot.sketch.shape[0]])
    height, width = sketch.shape[1:3]
    # The known first frame tells nothing.
    moments = np.linspace(1 if case.given == 0 and len(sketch) > columns else 0, len(sketch) - 1, min(columns, len(sketch)))
    picked = moments.round().astype(int)

    def few(frames: np.ndarray) -> list[np.ndarray]:
        # Peers return other numbers of frames for the same stretch of time.
        return list(frames[(picked * (len(frames) - 1) / max(1, len(sketch) - 1)).round().astype(int)])

    rows = [
        ("references", [r.on_black for r in case.shot.references]),
        (f"sketch, frames {', '.join(map(str, picked))}", few(sketch)),
    ]
    rows += [(name, few(frames)) for name, frames in results.items()]
    rows += [] if case.truth is None else [("truth", few(case.truth))]
    rows += [(name, few(frames)) for name, frames in case.peers.items()]
    cell = (round(320 * height / width), 320)
    write_image(path, contact_sheet(rows, cell), overwrite=True)


def run(options) -> list[dict[str, Any]]:
    """Colour, measure and draw every case; a row for each case and method."""
    colorizer = Colorizer.load(options.model, "cpu", options.dtype)
    ways = variants(options.vary, options.seed, options.quick)
    rows = []
    for case in all_cases(options):
        results, seconds = {}, {}
        for name, how in ways.items():
            started = time.perf_counter()
            results[name] = colorizer.colorize(case.shot, how)
            seconds[name] = time.perf_counter() - started
            if options.ceiling and case.truth is not None:
                results[f"ceiling {name}".removesuffix(" timecolor")] = ceiling(case, colorizer, how)
        results["copy"] = copy_baseline(case.shot)
        if case.truth is not None:
            measured = {**results, "truth": case.truth} if case.shot.labels is not None else results
            for name, result in measured.items():
                known = {"leak": leak(case, result, np.ones(len(result), bool))} if name == "truth" else figures(case, result)
                rows.append({"group": case.group, "case": case.name, "method": name, **known, "seconds": seconds.get(name)})
        if options.sheets and case.sheet:
            label = case.group.split(", ")[1].replace(" ", "_")
            draw_sheet(case, results, options.sheets / f"{case.name}_{label}.png", options.columns)
        print(f"{case.group}: {case.name}, {', '.join(f'{n} {s:.1f} s' for n, s in seconds.items())}", file=sys.stderr)
    return rows


MEASURES = {
    "PSNR (dB)": "psnr_db",
    "painted PSNR": "painted_psnr_db",
    "SSIM": "ssim",
    "within dE 10 (%)": "within_10",
    "mean dE": "mean_de",
    "leak (%)": "leak",
    "s": "seconds",
}


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means of the cases of each group and method; measures that a case lacks are left out."""
    found = []
    for group, method in dict.fromkeys((r["group"], r["method"]) for r in rows):
        mine = [r for r in rows if (r["group"], r["method"]) == (group, method)]
        mean: dict[str, Any] = {"group": group, "case": f"mean of {len(mine)}", "method": method}
        for measure in MEASURES.values():
            values = [r[measure] for r in mine if r.get(measure) is not None and np.isfinite(r[measure])]
            mean[measure] = float(np.mean(values)) if values else None
        found.append(mean)
    return found


def shown(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    cells = []
    for row in rows:
        values = [row.get(measure) for measure in MEASURES.values()]
        percent = [100 * v if v is not None and "%" in head else v for head, v in zip(MEASURES, values, strict=True)]
        # Fixed decimals, so that columns can be compared by eye.
        digits = [None if v is None else f"{v:.{3 if head == 'SSIM' else 1}f}" for head, v in zip(MEASURES, percent, strict=True)]
        cells.append([row["group"], row["case"], row["method"], *digits])
    return record.table(["group", "case", "method", *MEASURES], cells)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = record.parser("quality", (__doc__ or "").splitlines()[0])
    parser.add_argument("--shots", type=int, default=64, help="held-out world shots, each in three forms; they start at --seed")
    parser.add_argument("--frames", type=int, default=17, help="of a world shot")
    parser.add_argument("--real-frames", type=int, help="at most so many of a shared shot; None = all")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="world, cc0, real, or how case names start (flats_1, multi)"
    )
    parser.add_argument(
        "--vary", action="append", default=[], metavar="OPTION=VALUE,...", help="values of an option of ColorizeOptions"
    )
    parser.add_argument(
        "--ceiling", action="store_true", help="also measure the finish fed with the truth at the model's resolution"
    )
    parser.add_argument("--long-side", type=int, default=720, help="of clips whose lines are extracted, in px")
    parser.add_argument("--line-style", choices=get_args(SketchStyle), default="clean", help="of extracted lines")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets; None = none are drawn")
    parser.add_argument("--world-sheets", type=int, default=4, help="world shots that get sheets")
    parser.add_argument("--columns", type=int, default=5, help="frames on a sheet")
    parser.add_argument("--all-rows", action="store_true", help="print every world shot too, not only their means")
    options = parser.parse_args(argv)
    if options.quick:
        options.shots, options.frames, options.real_frames = 1, 3, 2
        options.only = options.only or ["world"]
    rows = run(options)
    single = [r for r in rows if options.all_rows or not r["group"].startswith("world")]
    averages = means(rows)
    if single:
        print(shown(single) + "\n")
    print(shown(averages) if averages else "no case with a truth: nothing to measure")
    ways = variants(options.vary, options.seed, options.quick)
    settings = {name: {f.name: getattr(how, f.name) for f in fields(how)} for name, how in ways.items()}
    record.write(options.out, options, argv, {"settings": settings, "means": averages, "cases": rows})


if __name__ == "__main__":
    main()
