"""The report of an evaluation: results.json and its strips become `report.md` and one self-contained page, `report.html`.

The page needs no network and no server. It holds one JSON block of figures for all shots, and one block for each shot that has
players, read only when that shot comes into view. Names come from users' folders, so each is escaped where it enters a format.
"""

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from timecolor.evaluate.plots import Point, Series, plot
from timecolor.evaluate.sheet import contact_sheet

SCHEMA = 1  # of results.json
PAGE_BYTES = 40_000_000
SHEET_SHOTS = 8  # shots on a contact sheet, worst first
SHEET_WIDTH = 240  # px of a picture on it
WEBP_SIDE = 16_383  # px, the format's own bound; a longer strip is cut into several pictures
OURS = "timecolor"  # the method that is ours
TRUTH = "truth"
NONE = "–"  # what a table shows where there is no value


@dataclass(frozen=True, slots=True)
class Report:
    """What was written. players: shots that have players on the page; shots: shots measured or shown."""

    markdown: Path
    page: Path
    players: int
    shots: int


def write_report(folder: Path, page_bytes: int = PAGE_BYTES) -> Report:
    """Write `report.md`, `report.html` and `sheets/*.webp` beside folder/results.json, replacing older ones.

    page_bytes: bound on the page's size. Players go in worst shots first, in turn for each dataset and protocol, until the next
    would not fit; the shots after it keep their figures, and the page says so. Raises ValueError for results of another schema,
    and for a strip that is missing, no picture, or not frames * width by height.
    """
    results = _read(folder)
    groups = _groups(results)
    metric = _leading_metric(results, groups)
    for group in groups:
        group.shots = _worst_first(group.shots, metric, _ours(results))
    sheets = [_sheet(folder, group, metric) for group in groups]
    (folder / "sheets").mkdir(exist_ok=True)
    for sheet in sheets:
        if sheet.pictures:
            Image.fromarray(sheet.drawn()).save(folder / sheet.file, "WEBP", quality=85)

    markdown = folder / "report.md"
    markdown.write_text(_markdown(results, groups, sheets), encoding="utf-8")
    page, players = _page(folder, results, groups, sheets, metric, page_bytes)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return Report(markdown, folder / "report.html", players, sum(len(group.shots) for group in groups))


# ---------------------------------------------------------------- what was measured


@dataclass(frozen=True, slots=True, eq=False)
class _Shot:
    """One case under one protocol.

    number: its place in the report. rows: method -> its row of results.json. strip: None = there are no pictures of it.
    """

    number: int
    case: str
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    strip: dict[str, Any] | None = None

    def value(self, method: str, metric: str) -> float | None:
        """A figure that can be compared, else None."""
        return _number_or_none(self.rows.get(method, {}).get("values", {}).get(metric))


@dataclass(slots=True, eq=False)
class _Group:
    """All shots of one dataset under one protocol."""

    number: int
    dataset: str
    protocol: str
    shots: list[_Shot]

    @property
    def title(self) -> str:
        return f"{self.dataset}, {self.protocol}"

    def owns(self, record: Mapping[str, Any]) -> bool:
        return (record["dataset"], record["protocol"]) == (self.dataset, self.protocol)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; give a folder that `timecolor evaluate` wrote") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); run `timecolor evaluate` again") from error
    found = results.get("schema") if isinstance(results, dict) else None
    if found != SCHEMA:
        raise ValueError(f"{path} has schema {found}; this version reads {SCHEMA}: run `timecolor evaluate` again")
    return results


def _groups(results: dict[str, Any]) -> list[_Group]:
    """Datasets and protocols in the order of results.json, with their shots."""
    shots: dict[tuple[str, str], dict[str, _Shot]] = {}
    for record in (*results["rows"], *results["strips"]):
        of_group = shots.setdefault((record["dataset"], record["protocol"]), {})
        of_group.setdefault(record["case"], _Shot(0, record["case"]))
        if "method" in record:
            of_group[record["case"]].rows[record["method"]] = record
    strips = {(strip["dataset"], strip["protocol"], strip["case"]): strip for strip in results["strips"]}
    groups, number = [], 0
    for (dataset, protocol), of_group in shots.items():
        group = _Group(len(groups), dataset, protocol, [])
        for shot in of_group.values():
            group.shots.append(_Shot(number, shot.case, shot.rows, strips.get((dataset, protocol, shot.case))))
            number += 1
        groups.append(group)
    return groups


def _ours(results: dict[str, Any]) -> str:
    methods = results["methods"]
    return OURS if OURS in methods or not methods else methods[0]


def _leading_metric(results: dict[str, Any], groups: Sequence[_Group]) -> dict[str, Any] | None:
    """The first metric that our method has a value of; it decides which shots are worst. None = nothing was measured."""
    ours = _ours(results)
    for metric in results["metrics"]:
        if any(shot.value(ours, metric["name"]) is not None for group in groups for shot in group.shots):
            return metric
    return None


def _worst_first(shots: Sequence[_Shot], metric: Mapping[str, Any] | None, method: str) -> list[_Shot]:
    """Shots without a value come last, in their own order."""
    if metric is None:
        return list(shots)
    sign = 1 if metric["better"] == "higher" else -1

    def badness(shot: _Shot) -> tuple[bool, float]:
        value = shot.value(method, metric["name"])
        return value is None, 0.0 if value is None else sign * value

    return sorted(shots, key=badness)


def _number_or_none(value: float | int | None) -> float | None:
    """None for a missing value and for nan."""
    return None if value is None or math.isnan(value) else float(value)


# ---------------------------------------------------------------- tables


@dataclass(frozen=True, slots=True)
class _Cell:
    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class _Table:
    head: list[str]
    rows: list[list[_Cell]]
    notes: list[str] = field(default_factory=list)


def _digits(results: dict[str, Any], metric: Mapping[str, Any]) -> int:
    """Decimals of a metric, the same all over the report: three for shares, one for decibels, none for hundreds."""
    name = metric["name"]
    summaries = [*results["summary"], *results["ablations"]]
    values = [(record["values"].get(name) or {}).get("mean") for record in summaries]
    values += [row["values"].get(name) for row in results["rows"]]
    largest = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)
    return 3 if largest <= 1 else 2 if largest < 10 else 1 if largest < 100 else 0


def _number(value: float | int | None, digits: int) -> str:
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.{digits}f}".replace("-", "−")


def _seconds(value: float | int | None) -> str:
    """Two significant digits, without an exponent."""
    if value is None:
        return NONE
    if value < 0.001:
        return "< 0.001"
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}"


def _label(metric: Mapping[str, Any]) -> str:
    unit = f" ({metric['unit']})" if metric["unit"] else ""
    return f"{metric['label']}{unit} {'↑' if metric['better'] == 'higher' else '↓'}"


def _figures(results: dict[str, Any], records: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Metrics that get a column for these records of `summary` or `ablations`, and what to say about the others."""
    shown, undefined = [], []
    for metric in results["metrics"]:
        measured = any((record["values"].get(metric["name"]) or {}).get("mean") is not None for record in records)
        if measured or metric["missing"]:
            shown.append(metric)
        else:
            undefined.append(metric["label"])
    return shown, [f"Not defined here: {', '.join(undefined)}."] if undefined else []


def _means(
    results: dict[str, Any], metrics: Sequence[Mapping[str, Any]], record: Mapping[str, Any], best: Mapping[str, float]
) -> list[_Cell]:
    cells = []
    for metric in metrics:
        value, digits = record["values"].get(metric["name"]) or {}, _digits(results, metric)
        mean, low, high = (_number_or_none(value.get(part)) for part in ("mean", "low", "high"))
        interval = "" if low is None or high is None else f"{_number(low, digits)}–{_number(high, digits)}"
        cells.append(_Cell(_number(mean, digits), interval, mean is not None and mean == best.get(metric["name"])))
    return cells


def _best(metrics: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metric -> best mean, where at least two methods have one. The truth does not compete."""
    best = {}
    for metric in metrics:
        means = [(record["values"].get(metric["name"]) or {}).get("mean") for record in records if record["method"] != TRUTH]
        means = [mean for mean in map(_number_or_none, means) if mean is not None]
        if len(means) > 1:
            best[metric["name"]] = max(means) if metric["better"] == "higher" else min(means)
    return best


def _summary(results: dict[str, Any], group: _Group) -> _Table | None:
    """Methods as rows, metrics as columns, then what a method costs. None = nothing was measured here."""
    records = [record for record in results["summary"] if group.owns(record)]
    if not records:
        return None
    metrics, notes = _figures(results, records)
    best = _best(metrics, records)
    cost = {record["method"]: _cost(group, record["method"]) for record in records}
    seconds, memory = (any(pair[i] is not None for pair in cost.values()) for i in (0, 1))
    rows = []
    for record in records:
        row = [_Cell(record["method"]), _Cell(str(record["cases"])), *_means(results, metrics, record, best)]
        row += [_Cell(_seconds(cost[record["method"]][0]))] if seconds else []
        row += [_Cell(_number(cost[record["method"]][1], 0))] if memory else []
        rows.append(row)
    head = ["method", "shots", *map(_label, metrics)]
    head += ["s / frame"] if seconds else []
    head += ["peak MiB"] if memory else []
    if any(cell.text == "∞" for row in rows for cell in row):
        notes.append("∞: some result equals the truth exactly.")
    return _Table(head, rows, notes)


def _cost(group: _Group, method: str) -> tuple[float | int | None, float | int | None]:
    """Mean seconds a frame and largest peak memory over a group's shots."""
    rows = [shot.rows[method] for shot in group.shots if method in shot.rows]
    seconds = [row["seconds_per_frame"] for row in rows if row["seconds_per_frame"] is not None]
    memory = [row["peak_mib"] for row in rows if row["peak_mib"] is not None]
    return (sum(seconds) / len(seconds) if seconds else None, max(memory) if memory else None)


def _remarks(group: _Group) -> list[str]:
    """The rows' own notes."""
    return [f"{shot.case}, {method}: {row['note']}" for shot in group.shots for method, row in shot.rows.items() if row["note"]]


def _ablations(results: dict[str, Any]) -> list[tuple[str, _Table]]:
    """(name and dataset, table) of each ablation; settings as rows."""
    tables = []
    for name, dataset in dict.fromkeys((record["name"], record["dataset"]) for record in results["ablations"]):
        records = [r for r in results["ablations"] if (r["name"], r["dataset"]) == (name, dataset)]
        metrics, notes = _figures(results, records)
        metrics = [metric for metric in metrics if not metric["missing"]]
        rows = [
            [
                _Cell(record["protocol"]),
                _Cell(str(record["setting"])),
                _Cell(str(record["cases"])),
                *_means(results, metrics, record, {}),
                _Cell(_seconds(record["seconds_per_frame"])),
            ]
            for record in records
        ]
        head = ["protocol", name, "shots", *map(_label, metrics), "s / frame"]
        tables.append((f"{name}, {dataset}", _Table(head, rows, notes)))
    return tables


def _missing(results: dict[str, Any]) -> list[str]:
    """Why columns are empty, said once."""
    return [f"{metric['label']} is missing: {metric['missing']}" for metric in results["metrics"] if metric["missing"]]


_NO_TRUTH = "No figures: these shots have no truth to measure against."
_HOW_TO_READ = (
    "Means over shots, with 95 % bootstrap intervals. ↑ higher is better, ↓ lower is better. Bold is the best mean of its "
    "column, whatever the intervals say: for differences with confidence, run timecolor evaluate --compare."
)


def _facts(results: dict[str, Any]) -> list[tuple[str, str]]:
    """What is needed to repeat the run. The command comes apart from these."""
    machine = results["machine"]
    hardware = [machine["cpu"], f"{machine['cores']} cores", f"{machine['memory_gib']:g} GiB", machine["gpu"] or "no GPU"]
    return [
        ("Commit", results["commit"] or "unknown: not run from a checkout"),
        ("Seed", str(results["seed"])),
        ("Created", results["created"]),
        ("Hardware", ", ".join(hardware)),
        ("Model", _words(results["model"])),
        ("Options", _words(results["options"])),
        ("Settings", _words(results["settings"])),
        ("Versions", _words(results["versions"])),
    ]


def _words(settings: Mapping[str, Any]) -> str:
    parts = [f"{name} {value if isinstance(value, str) else json.dumps(value)}" for name, value in settings.items()]
    return ", ".join(part.replace(" null", " unset") for part in parts) or NONE


# ---------------------------------------------------------------- contact sheets


@dataclass(frozen=True, slots=True, eq=False)
class _Sheet:
    """The middle frame of a group's worst shots, as each player has it. pictures: (shot, {column: uint8 (h, w, 3)})."""

    file: str
    title: str
    columns: list[str]
    pictures: list[tuple[_Shot, dict[str, np.ndarray]]]

    def drawn(self) -> np.ndarray:
        """One picture of all, uint8 (h, w, 3)."""
        blank = np.full((1, 1, 4), 0, np.uint8)
        rows = [(shot.case, [found.get(column, blank) for column in self.columns]) for shot, found in self.pictures]
        first = next(picture for _, found in self.pictures for picture in found.values())
        return contact_sheet(rows, cell=first.shape[:2], columns=self.columns)


def _sheet(folder: Path, group: _Group, metric: Mapping[str, Any] | None) -> _Sheet:
    shown = [shot for shot in group.shots if shot.strip is not None]
    pictures = []
    for shot in shown[:SHEET_SHOTS]:
        strip, found = shot.strip, {}
        assert strip is not None
        for player in strip["players"]:
            found[player["name"]] = _frame(folder, strip, player, strip["frames"] // 2)
            if len(found) == 1 and strip["references"]:
                found["reference"] = _thumbnail(_opened(folder / strip["references"][0]))
        pictures.append((shot, found))
    # A shot may lack a method that others have: columns in the order of the fullest.
    columns = list(dict.fromkeys(name for _, found in sorted(pictures, key=lambda p: -len(p[1])) for name in found))
    if TRUTH in columns:
        columns.append(columns.pop(columns.index(TRUTH)))
    which = f"{len(pictures)} of {_count(len(shown), 'shot')}" if len(shown) > len(pictures) else "All shots"
    measured = metric is not None and any(shot.rows for shot in shown)
    by = f", worst {metric['label']} first" if metric is not None and measured else ""
    slug = re.sub(r"[^a-z0-9]+", "-", group.title.lower()).strip("-")[:80]
    return _Sheet(f"sheets/{group.number + 1}-{slug}.webp", f"{which}{by}; the middle frame of each", columns, pictures)


def _frame(folder: Path, strip: Mapping[str, Any], player: Mapping[str, Any], frame: int) -> np.ndarray:
    left = frame * strip["width"]
    with _strip(folder, strip, player) as picture:
        return _thumbnail(picture.crop((left, 0, left + strip["width"], strip["height"])))


def _thumbnail(picture: Image.Image) -> np.ndarray:
    picture = picture.convert("RGBA" if "A" in picture.getbands() or "transparency" in picture.info else "RGB")
    height = max(1, round(picture.height * SHEET_WIDTH / picture.width))
    return np.asarray(picture.resize((SHEET_WIDTH, height), Image.Resampling.LANCZOS))


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; run `timecolor evaluate` again") from None
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error}); run `timecolor evaluate` again") from error


def _strip(folder: Path, strip: Mapping[str, Any], player: Mapping[str, Any]) -> Image.Image:
    """A player's strip, its size checked."""
    picture = _opened(folder / player["file"])
    expected = (strip["frames"] * strip["width"], strip["height"])
    if picture.size != expected:
        raise ValueError(
            f"{folder / player['file']} is {picture.width}x{picture.height}, but {strip['frames']} frames of "
            f"{strip['width']}x{strip['height']} make {expected[0]}x{expected[1]}; run `timecolor evaluate` again"
        )
    return picture


# ---------------------------------------------------------------- Markdown


def _markdown(results: dict[str, Any], groups: Sequence[_Group], sheets: Sequence[_Sheet]) -> str:
    lines = ["# timecolor report", "", *_fenced(results["command"]), ""]
    lines += [f"- {name}: {_plain(value)}" for name, value in _facts(results)]
    for note in (_HOW_TO_READ, *_missing(results)):
        lines += ["", _plain(note)]
    for group, sheet in zip(groups, sheets, strict=True):
        lines += ["", f"## {_plain(group.title)}", ""]
        table = _summary(results, group)
        lines += [_NO_TRUTH] if table is None else _markdown_table(table)
        for note in _remarks(group):
            lines += ["", _plain(note)]
        if sheet.pictures:
            lines += ["", f"{_plain(sheet.title)}.", "", f"![{_plain(group.title)}]({sheet.file})"]
    for title, table in _ablations(results):
        lines += ["", f"## Ablation: {_plain(title)}", "", *_markdown_table(table)]
    if results["skipped"]:
        lines += ["", f"## Skipped: {_count(len(results['skipped']), 'case')}", ""]
        lines += [f"- {_plain(_skipped(case))}" for case in results["skipped"]]
    return "\n".join([*lines, ""])


def _markdown_table(table: _Table) -> list[str]:
    def cell(cell: _Cell) -> str:
        text = f"**{_plain(cell.text)}**" if cell.best else _plain(cell.text)
        return f"{text} ({_plain(cell.interval)})" if cell.interval else text

    lines = [table.head, ["---"] * len(table.head)]
    lines = ["| " + " | ".join(map(_plain, line)) + " |" for line in lines[:1]] + ["|" + "---|" * len(table.head)]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in table.rows]
    return [*lines, *(line for note in table.notes for line in ("", _plain(note)))]


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", " ".join(text.split()))


def _fenced(text: str) -> list[str]:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return [fence, " ".join(text.split()), fence]


def _skipped(case: Mapping[str, Any]) -> str:
    return f"{case['dataset']}, {case['case']}: {case['why']}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# ---------------------------------------------------------------- the page


def _page(
    folder: Path,
    results: dict[str, Any],
    groups: Sequence[_Group],
    sheets: Sequence[_Sheet],
    metric: Mapping[str, Any] | None,
    page_bytes: int,
) -> tuple[str, int]:
    """The page's text, and how many shots have players on it."""
    source = resources.files("timecolor.evaluate") / "page"
    template, style, script = ((source / name).read_text(encoding="utf-8") for name in ("report.html", "report.css", "report.js"))
    parts = {
        # Only these two texts may run or style: a name that slips through the escaping still does nothing.
        "policy": f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}",
        "style": style,
        "script": script,
        "command": escape(results["command"]),
        "facts": "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in _facts(results)),
        "skipped": _skipped_html(results["skipped"]),
        "summary": _summary_html(results, groups),
        "plots": _plots(results, groups, metric),
        "ablations": _ablations_html(results),
    }
    # The rest of the page first: what is left of the budget goes to players.
    used = len(_filled(template, parts, results, groups, sheets, {}).encode())
    players = _players(folder, groups, page_bytes - used - 4096)
    return _filled(template, parts, results, groups, sheets, players), len(players)


def _filled(
    template: str,
    parts: Mapping[str, str],
    results: dict[str, Any],
    groups: Sequence[_Group],
    sheets: Sequence[_Sheet],
    players: Mapping[int, "_Player"],
) -> str:
    sections = [_section(group, sheet, players) for group, sheet in zip(groups, sheets, strict=True)]
    strips = [
        f'<script type="application/json" id="strip-{number}">{player.pictures}</script>'
        for number, player in sorted(players.items())
    ]
    data = _json(_page_data(results, groups, players))
    return Template(template).substitute(parts, sections="".join(sections), data=data, strips="\n".join(strips))


def _page_data(results: dict[str, Any], groups: Sequence[_Group], players: Mapping[int, "_Player"]) -> dict[str, Any]:
    """Figures of every shot, in the order the page shows them at first."""
    with_values = {m for group in groups for shot in group.shots for row in shot.rows.values() for m in row["values"]}
    return {
        "ours": _ours(results),
        "methods": list(results["methods"]),
        "metrics": [
            {
                "name": metric["name"],
                "label": metric["label"],
                "unit": metric["unit"],
                "better": metric["better"],
                "digits": _digits(results, metric),
            }
            for metric in results["metrics"]
            if metric["name"] in with_values and not metric["missing"]
        ],
        "groups": [
            {
                "id": group.number,
                "title": group.title,
                "shots": [
                    {
                        "id": shot.number,
                        "name": shot.case,
                        "player": players[shot.number].facts if shot.number in players else None,
                        "values": {
                            method: {name: _number_or_none(value) for name, value in row["values"].items()}
                            for method, row in shot.rows.items()
                        },
                    }
                    for shot in group.shots
                ],
            }
            for group in groups
        ],
    }


@dataclass(frozen=True, slots=True)
class _Player:
    """What the page knows of a shot's players from the start, and the JSON of their pictures, read when they come into view."""

    facts: dict[str, Any]
    pictures: str

    @property
    def size(self) -> int:
        """Bytes on the page, and some for the element around them."""
        return len(_json(self.facts)) + len(self.pictures) + 80


def _players(folder: Path, groups: Sequence[_Group], room: int) -> dict[int, _Player]:
    """Number of a shot -> its players, in `room` bytes; worst first in each group, the groups in turn."""
    chosen: dict[int, _Player] = {}
    full = set()
    for rank in zip_longest(*([shot for shot in group.shots if shot.strip is not None] for group in groups)):
        for group, shot in zip(groups, rank, strict=True):
            if shot is None or group.number in full:
                continue
            player = _player(folder, shot)
            if player.size > room:
                full.add(group.number)  # and no better shot of this group instead
                continue
            chosen[shot.number] = player
            room -= player.size
    return chosen


def _player(folder: Path, shot: _Shot) -> _Player:
    strip = shot.strip
    assert strip is not None
    at_once = max(1, WEBP_SIDE // strip["width"])
    facts = {name: strip[name] for name in ("frames", "width", "height", "fps")}
    facts |= {"framesPerPicture": at_once, "references": len(strip["references"]), "players": []}
    for player in strip["players"]:
        row = shot.rows.get(player["name"], {})
        per_frame = {}
        for name, values in row.get("per_frame", {}).items():
            at = dict(zip(row["frames"], values, strict=True))
            per_frame[name] = [_number_or_none(at.get(frame)) for frame in range(strip["frames"])]  # None = not scored
        known = {"name": player["name"], "perFrame": per_frame, "shown": player.get("shown"), "note": row.get("note")}
        facts["players"].append(known)
    pictures = {
        "references": [_inline(folder / reference) for reference in strip["references"]],
        "players": [_pictures(folder, strip, player, at_once) for player in strip["players"]],
    }
    return _Player(facts, _json(pictures))


def _pictures(folder: Path, strip: Mapping[str, Any], player: Mapping[str, Any], at_once: int) -> list[str]:
    """A strip as data URLs of `at_once` frames each: one, unless it is longer than pictures may be."""
    with _strip(folder, strip, player) as picture:
        if strip["frames"] <= at_once:
            return [_inline(folder / player["file"])]
        pieces = []
        for start in range(0, strip["frames"], at_once):
            stop = min(start + at_once, strip["frames"])
            piece = io.BytesIO()
            picture.crop((start * strip["width"], 0, stop * strip["width"], strip["height"])).save(piece, "WEBP", lossless=True)
            pieces.append(_data_url("image/webp", piece.getvalue()))
        return pieces


def _inline(path: Path) -> str:
    """The file as it is where a browser can show it, else as WebP without loss."""
    with _opened(path) as picture:
        if picture.format in ("PNG", "JPEG", "WEBP", "GIF"):
            return _data_url(Image.MIME[picture.format], path.read_bytes())
        encoded = io.BytesIO()
        picture.save(encoded, "WEBP", lossless=True)
        return _data_url("image/webp", encoded.getvalue())


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _json(value: Any) -> str:
    """JSON that may stand in a script element. Infinities become strings that JavaScript's Number reads."""

    def clean(value: Any) -> Any:
        if isinstance(value, float):
            if math.isinf(value):
                return "Infinity" if value > 0 else "-Infinity"
            return float(f"{value:.6g}")
        if isinstance(value, Mapping):
            return {key: clean(item) for key, item in value.items()}
        return [clean(item) for item in value] if isinstance(value, list | tuple) else value

    # "<" could end the element or open a comment.
    return json.dumps(clean(value), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _summary_html(results: dict[str, Any], groups: Sequence[_Group]) -> str:
    parts = []
    for group in groups:
        table = _summary(results, group)
        parts.append(f'<h3><a href="#group-{group.number}">{escape(group.title)}</a></h3>')
        parts.append(f"<p>{_NO_TRUTH}</p>" if table is None else _html_table(table))
        parts.append(_notes(_remarks(group)))
    reading = f"<p>{escape(_HOW_TO_READ)}</p>{_notes(_missing(results))}"
    return f'<section id="summary"><h2>Summary</h2>{reading}{"".join(parts)}</section>'


def _section(group: _Group, sheet: _Sheet, players: Mapping[int, "_Player"]) -> str:
    without = sum(shot.number not in players and shot.strip is not None for shot in group.shots)
    note = (
        f'<p class="note">To keep this page small, {_count(without, "shot")} of {len(group.shots)}, those with the best '
        "figures, have no players here; their strips lie in the report's folder.</p>"
        if without
        else ""
    )
    return (
        f'<section class="group" id="group-{group.number}"><h2>{escape(group.title)}</h2>{_sheet_html(sheet, players)}'
        f'<h3>Figures by shot</h3><div class="by-shot" data-group="{group.number}"></div>'
        f'<h3>Side by side</h3>{note}<div class="shots" data-group="{group.number}"></div></section>'
    )


def _html_table(table: _Table) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in table.head)
    lines = []
    for row in table.rows:
        cells = [f'<th scope="row">{escape(row[0].text)}</th>']
        for cell in row[1:]:
            text = f"<b>{escape(cell.text)}</b>" if cell.best else escape(cell.text)
            interval = f"<small>{escape(cell.interval)}</small>" if cell.interval else ""
            cells.append(f"<td>{text}{interval}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table class="figures">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>{_notes(table.notes)}"
    )


def _notes(notes: Iterable[str]) -> str:
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def _sheet_html(sheet: _Sheet, players: Mapping[int, "_Player"]) -> str:
    if not sheet.pictures:
        return ""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in sheet.columns)
    lines = []
    for shot, found in sheet.pictures:
        name = escape(shot.case)
        link = f'<a href="#shot-{shot.number}">{name}</a>' if shot.number in players else name
        cells = [
            f"<td>{_image(found[column], f'{column} of {shot.case}') if column in found else ''}</td>" for column in sheet.columns
        ]
        lines.append(f'<tr><th scope="row">{link}</th>{"".join(cells)}</tr>')
    return (
        f"<h3>Contact sheet</h3><p>{escape(sheet.title)}.</p>"
        '<div class="scroll" tabindex="0" role="group" aria-label="Contact sheet, scrolls sideways"><table class="sheet">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _image(picture: np.ndarray, name: str) -> str:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "WEBP", quality=85)
    height, width = picture.shape[:2]
    url = _data_url("image/webp", encoded.getvalue())
    return f'<img src="{url}" width="{width}" height="{height}" loading="lazy" alt="{escape(name)}">'


def _skipped_html(skipped: Sequence[Mapping[str, Any]]) -> str:
    if not skipped:
        return ""
    items = "".join(f"<li>{escape(_skipped(case))}</li>" for case in skipped)
    return f'<details class="skipped" open><summary>{_count(len(skipped), "case")} skipped</summary><ul>{items}</ul></details>'


def _ablations_html(results: dict[str, Any]) -> str:
    tables = _ablations(results)
    if not tables:
        return ""
    parts = [f"<h3>{escape(title)}</h3>{_html_table(table)}" for title, table in tables]
    return f'<section id="ablations"><h2>Ablations</h2>{"".join(parts)}</section>'


# ---------------------------------------------------------------- plots


def _plots(results: dict[str, Any], groups: Sequence[_Group], metric: Mapping[str, Any] | None) -> str:
    """Quality against steps and against time, one plot for each metric; the page shows those of one metric at a time."""
    figures = []
    for each in results["metrics"]:
        hidden = "" if metric is not None and each["name"] == metric["name"] else " hidden"
        for title, x_label, series in (*_step_plots(results, each), *_method_plots(results, groups, each)):
            drawing = plot(title, x_label, _label(each)[:-2], series)
            figures.append(f'<figure class="plot" data-metric="{escape(each["name"])}"{hidden}>{drawing}</figure>')
    if not figures:
        return ""
    return f'<section id="plots"><h2>Quality against steps and time</h2><div class="plots">{"".join(figures)}</div></section>'


def _step_plots(results: dict[str, Any], metric: Mapping[str, Any]) -> Iterator[tuple[str, str, list[Series]]]:
    """From the ablation "steps": against steps, and against seconds a frame; a line for each protocol."""
    records = [r for r in results["ablations"] if r["name"] == "steps"]
    for dataset in dict.fromkeys(record["dataset"] for record in records):
        against_steps, against_time = {}, {}
        for record in (r for r in records if r["dataset"] == dataset):
            value, steps, seconds = record["values"].get(metric["name"]), float(record["setting"]), record["seconds_per_frame"]
            if not value or not _plottable(value["mean"]):
                continue
            words = _count(int(steps), "step")
            against_steps.setdefault(record["protocol"], []).append(_point(steps, value, words))
            if seconds:
                against_time.setdefault(record["protocol"], []).append(_point(seconds, value, words))
        if against_steps:
            yield f"{metric['label']} against steps, {dataset}", "sampling steps", _sorted(against_steps)
        if against_time:
            yield f"{metric['label']} against time, {dataset}, by steps", "seconds a frame", _sorted(against_time)


def _method_plots(
    results: dict[str, Any], groups: Sequence[_Group], metric: Mapping[str, Any]
) -> Iterator[tuple[str, str, list[Series]]]:
    """One point for each method that has a time."""
    for group in groups:
        series = []
        for record in filter(group.owns, results["summary"]):
            value, seconds = record["values"].get(metric["name"]), _cost(group, record["method"])[0]
            if value and _plottable(value["mean"]) and seconds:
                series.append(Series(record["method"], (_point(seconds, value, record["method"]),)))
        if len(series) > 1:
            yield f"{metric['label']} against time, {group.title}: methods", "seconds a frame", series


def _plottable(value: float | int | None) -> bool:
    return value is not None and math.isfinite(value)


def _point(x: float | int, value: Mapping[str, Any], words: str) -> Point:
    low, high = (float(value[end]) if _plottable(value.get(end)) else None for end in ("low", "high"))
    return Point(float(x), float(value["mean"]), low, high, words)


def _sorted(lines: Mapping[str, Iterable[Point]]) -> list[Series]:
    return [Series(name, tuple(sorted(points, key=lambda point: point.x))) for name, points in lines.items()]
