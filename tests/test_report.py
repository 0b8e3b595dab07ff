"""The report's tables, data and pictures, read back from the files it writes. What the page does is in test_report_browser.py."""

import base64
import hashlib
import io
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from timecolor.evaluate import plots
from timecolor.evaluate.plots import Point, Series, plot
from timecolor.evaluate.report import WEBP_SIDE, write_report

METRICS = [
    {"name": "psnr", "label": "PSNR", "unit": "dB", "better": "higher", "missing": None},
    {"name": "ciede2000", "label": "mean dE", "unit": "", "better": "lower", "missing": None},
    {"name": "leak_rate", "label": "leak", "unit": "", "better": "lower", "missing": None},
    {"name": "lpips", "label": "LPIPS", "unit": "", "better": "lower", "missing": "give --weights-dir with lpips.pth"},
]
HOSTILE = """</script><script>alert("x")</script><img src=x onerror='alert(2)'> | `a` "b" &amp; $style"""


def colour(player: int, frame: int) -> tuple[int, int, int]:
    """No two players and frames have the same."""
    return (10 + 20 * frame, 30 + 40 * player, 200 - 15 * player)


def flat_frame(player: int, frame: int, height: int, width: int) -> np.ndarray:
    image = np.empty((height, width, 3), np.uint8)
    image[:] = colour(player, frame)
    return image


def add_strip(folder: Path, results: dict[str, Any], case: str, frames: int = 9, size: tuple[int, int] = (24, 36), **also: Any):
    """Players "sketch", the methods and "truth", whose frames are of `colour`; gives the record in results.json.

    paint: another (player, frame, height, width) -> uint8 (h, w, 3). Other arguments replace keys of the record.
    """
    paint = also.pop("paint", flat_frame)
    names = also.pop("names", ["sketch", *results["methods"], "truth"])
    height, width = size
    place = folder / "strips" / str(len(results["strips"]))
    place.mkdir(parents=True)
    players = []
    for i, name in enumerate(names):
        strip = np.concatenate([paint(i, k, height, width) for k in range(frames)], axis=1)
        # WebP has no longer sides, so a long strip comes as PNG.
        kind = "webp" if strip.shape[1] <= WEBP_SIDE else "png"
        Image.fromarray(strip).save(place / f"{i}.{kind}", **({"lossless": True} if kind == "webp" else {}))
        players.append({"name": name, "file": str((place / f"{i}.{kind}").relative_to(folder))})
    Image.fromarray(paint(0, 0, height, width)).save(place / "reference-0.png")
    reference = str((place / "reference-0.png").relative_to(folder))
    record = {"dataset": "world", "protocol": "start frame", "case": case, "frames": frames, "width": width, "height": height}
    record |= {"fps": 10.0, "references": [reference], "players": players} | also
    results["strips"].append(record)
    return record


def add_row(results: dict[str, Any], case: str, method: str, psnr: float | None, frames: int = 9, **also: Any) -> None:
    row = {"dataset": "world", "protocol": "start frame", "case": case, "method": method, "frames": list(range(1, frames))}
    row |= {"values": {"psnr": psnr, "ciede2000": None if psnr is None else 40 - psnr, "leak_rate": None, "lpips": None}}
    row |= {"per_frame": {"psnr": [float(k) for k in range(1, frames)]}, "seconds_per_frame": 0.3, "peak_mib": None, "note": None}
    results["rows"].append(row | also)


def add_summary(results: dict[str, Any], method: str, psnr: float | None, **also: Any) -> None:
    values = {
        "psnr": None if psnr is None else {"mean": psnr, "low": psnr - 1, "high": psnr + 1},
        "ciede2000": None if psnr is None else {"mean": 40 - psnr, "low": 39 - psnr, "high": 41 - psnr},
        "leak_rate": None,
        "lpips": None,
    }
    record = {"dataset": "world", "protocol": "start frame", "method": method, "cases": 2, "values": values}
    results["summary"].append(record | also)


def empty_results() -> dict[str, Any]:
    return {
        "schema": 1,
        "created": "2026-11-22T11:00:00Z",
        "command": "timecolor evaluate --dataset world",
        "commit": "abc1234-dirty",
        "seed": 1000,
        "machine": {"cpu": "AMD EPYC", "cores": 2, "memory_gib": 24.0, "gpu": None},
        "versions": {"timecolor": "0.1.0"},
        "model": {"name": "toon", "steps_trained": 3900},
        "options": {"steps": 2, "size": None},
        "settings": {"shots": 2, "frames": 9},
        "metrics": METRICS,
        "methods": ["timecolor", "copy"],
        "rows": [],
        "strips": [],
        "skipped": [],
        "summary": [],
        "ablations": [],
    }


def small_results(folder: Path) -> dict[str, Any]:
    """Two shots, of which "bad" is the worse one for timecolor."""
    results = empty_results()
    for case, ours, copy in (("good", 25.0, 20.0), ("bad", 15.0, 18.0)):
        add_strip(folder, results, case)
        add_row(results, case, "timecolor", ours)
        add_row(results, case, "copy", copy, seconds_per_frame=0.00001)
    add_summary(results, "timecolor", 20.0)
    add_summary(results, "copy", 19.0)
    return results


def written(folder: Path, results: dict[str, Any], **also: Any) -> tuple[str, str]:
    """report.md and report.html."""
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    report = write_report(folder, **also)
    return report.markdown.read_text(encoding="utf-8"), report.page.read_text(encoding="utf-8")


class Page(HTMLParser):
    """The page as a parser sees it: elements, text, and the text of scripts by their id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._script: str | None = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found))
        if tag in ("script", "style"):
            self._script = found.get("id", tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text += data
        else:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for found, attributes in self.elements if found == tag]

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts["data"])

    def shots(self, group: int = 0) -> list[dict[str, Any]]:
        return self.data["groups"][group]["shots"]

    def pictures(self, number: int) -> dict[str, Any]:
        return json.loads(self.scripts[f"strip-{number}"])


def picture(url: str) -> np.ndarray:
    kind, _, content = url.partition(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert kind == f"data:{Image.MIME[image.format or '']}"
        return np.asarray(image.convert("RGB"))


# ---------------------------------------------------------------- tables


def test_tables_give_mean_and_interval_and_mark_the_best_mean(tmp_path):
    markdown, page = written(tmp_path, small_results(tmp_path))
    assert "| method | shots | PSNR (dB) ↑ | mean dE ↓ | LPIPS ↓ | s / frame |" in markdown
    assert "| timecolor | 2 | **20.0** (19.0–21.0) | **20.0** (19.0–21.0) | – | 0.30 |" in markdown
    assert "| copy | 2 | 19.0 (18.0–20.0) | 21.0 (20.0–22.0) | – | \\< 0.001 |" in markdown
    assert '<th scope="row">timecolor</th><td>2</td><td><b>20.0</b><small>19.0–21.0</small></td>' in page
    assert "<td>19.0<small>18.0–20.0</small></td>" in page
    assert "Bold is the best mean" in markdown
    assert "Bold is the best mean" in page


def test_the_truth_and_a_method_without_rivals_are_not_best(tmp_path):
    results = empty_results()
    add_strip(tmp_path, results, "a")
    add_summary(results, "timecolor", 20.0)
    add_summary(results, "truth", 30.0)
    add_summary(results, "copy", None)
    markdown, page = written(tmp_path, results)
    assert "| truth | 2 | 30.0 (29.0–31.0)" in markdown
    assert "**" not in markdown
    assert "<b>" not in page


def test_a_missing_column_says_why_and_an_undefined_one_is_named(tmp_path):
    markdown, page = written(tmp_path, small_results(tmp_path))
    assert "LPIPS is missing: give --weights-dir with lpips.pth" in markdown
    assert "Not defined here: leak." in markdown
    assert "LPIPS is missing: give --weights-dir with lpips.pth" in Page(page).text
    assert "Not defined here: leak." in Page(page).text
    assert {metric["name"] for metric in Page(page).data["metrics"]} == {"psnr", "ciede2000", "leak_rate"}


def test_skipped_cases_are_counted_and_named(tmp_path):
    results = small_results(tmp_path)
    results["skipped"] = [{"dataset": "clips", "case": f"{i}.mp4", "why": f"line {i}: 3 frames"} for i in (4, 7)]
    for text in (written(tmp_path, results)[0], Page(written(tmp_path, results)[1]).text):
        assert "2 cases" in text
        assert "clips, 4.mp4: line 4: 3 frames" in text
        assert "clips, 7.mp4: line 7: 3 frames" in text


def test_the_header_has_what_is_needed_to_run_it_again(tmp_path):
    markdown, page = written(tmp_path, small_results(tmp_path))
    for text in (markdown.replace("\\", ""), Page(page).text):
        assert "timecolor evaluate --dataset world" in text
        assert "abc1234-dirty" in text
        assert "1000" in text
        assert "AMD EPYC, 2 cores, 24 GiB, no GPU" in text
        assert "steps 2, size unset" in text
        assert "name toon, steps_trained 3900" in text


def test_infinite_and_undefined_figures_are_told_apart(tmp_path):
    results = small_results(tmp_path)
    results["rows"][0]["values"] = {"psnr": math.inf, "ciede2000": math.nan, "leak_rate": None, "lpips": None}
    results["summary"][0]["values"]["psnr"] = {"mean": math.inf, "low": 20.0, "high": math.nan}
    markdown, page = written(tmp_path, results)
    assert "| timecolor | 2 | **∞** |" in markdown
    assert "∞: some result equals the truth exactly." in markdown
    good = next(shot for shot in Page(page).shots() if shot["name"] == "good")
    assert good["values"]["timecolor"]["psnr"] == "Infinity"
    assert good["values"]["timecolor"]["ciede2000"] is None


def test_ablations_have_a_row_for_each_setting(tmp_path):
    results = small_results(tmp_path)
    for setting, psnr in (("coverage", 18.0), ("majority", 17.0)):
        values = {"psnr": {"mean": psnr, "low": psnr - 1, "high": psnr + 1}}
        record = {"name": "cells", "setting": setting, "protocol": "start frame", "dataset": "world", "cases": 16}
        results["ablations"].append(record | {"values": values, "seconds_per_frame": 0.3})
    markdown, page = written(tmp_path, results)
    assert "## Ablation: cells, world" in markdown
    assert "| start frame | majority | 16 | 17.0 (16.0–18.0) | 0.30 |" in markdown
    assert "cells, world" in Page(page).text


def test_shots_without_truth_have_players_and_no_figures(tmp_path):
    results = empty_results()
    note = "peer has 7 of 9 frames; the last is repeated"
    add_strip(tmp_path, results, "real", names=["sketch", "LVCD"])
    add_row(results, "real", "LVCD", None, values={}, per_frame={}, note=note)
    markdown, page = written(tmp_path, results)
    for text in (markdown, Page(page).text):
        assert "No figures: these shots have no truth" in text
        assert f"real, LVCD: {note}" in text
    shot = Page(page).shots()[0]
    assert [player["note"] for player in shot["player"]["players"]] == [None, note]


# ---------------------------------------------------------------- the page's data


def test_the_worst_shot_comes_first_whichever_way_the_metric_goes(tmp_path):
    results = small_results(tmp_path)
    assert [shot["name"] for shot in Page(written(tmp_path, results)[1]).shots()] == ["bad", "good"]
    results["metrics"] = METRICS[1:]
    for row in results["rows"]:
        row["values"]["ciede2000"] = row["values"]["psnr"]  # now a larger figure is worse
    assert [shot["name"] for shot in Page(written(tmp_path, results)[1]).shots()] == ["good", "bad"]


def test_the_players_hold_the_strips_as_they_are(tmp_path):
    results = small_results(tmp_path)
    page = Page(written(tmp_path, results)[1])
    for record in results["strips"]:
        shot = next(shot for shot in page.shots() if shot["name"] == record["case"])
        assert [player["name"] for player in shot["player"]["players"]] == ["sketch", "timecolor", "copy", "truth"]
        pictures = page.pictures(shot["id"])
        for i, (urls, player) in enumerate(zip(pictures["players"], record["players"], strict=True)):
            assert len(urls) == 1
            assert base64.b64decode(urls[0].partition(",")[2]) == (tmp_path / player["file"]).read_bytes()
            strip = picture(urls[0])
            assert [tuple(strip[5, 36 * k + 18]) for k in range(9)] == [colour(i, k) for k in range(9)]
        assert [picture(url).shape for url in pictures["references"]] == [(24, 36, 3)]


def test_figures_of_a_frame_stand_at_that_frame(tmp_path):
    page = Page(written(tmp_path, small_results(tmp_path))[1])
    player = page.shots()[0]["player"]["players"][1]
    assert player["name"] == "timecolor"
    # Frame 0 is the reference and not scored.
    assert player["perFrame"]["psnr"] == [None, 1, 2, 3, 4, 5, 6, 7, 8]


def test_a_strip_too_long_for_one_picture_is_cut_between_frames(tmp_path):
    results = empty_results()
    frames, size = 12, (8, 1600)  # 19,200 px
    add_strip(tmp_path, results, "long", frames, size, names=["sketch", "truth"])
    page = Page(written(tmp_path, results)[1])
    facts, pictures = page.shots()[0]["player"], page.pictures(0)
    assert facts["framesPerPicture"] == 10
    for i, urls in enumerate(pictures["players"]):
        pieces = [picture(url) for url in urls]
        assert [piece.shape[1] for piece in pieces] == [16000, 3200]
        joined = np.concatenate(pieces, axis=1)
        assert [tuple(joined[4, 1600 * k + 3]) for k in range(frames)] == [colour(i, k) for k in range(frames)]


def test_the_page_keeps_to_its_budget_worst_shots_first_in_each_part(tmp_path):
    rng = np.random.default_rng(0)
    results = empty_results()

    def noise(player: int, frame: int, height: int, width: int) -> np.ndarray:
        return rng.integers(0, 256, (height, width, 3), np.uint8)

    for protocol in ("start frame", "arbitrary frame"):
        for i in range(6):
            add_strip(tmp_path, results, f"shot {i}", paint=noise, protocol=protocol)
            add_row(results, f"shot {i}", "timecolor", 10.0 + i, protocol=protocol)
    whole = len(written(tmp_path, results)[1].encode())
    budget = whole * 2 // 3
    text = written(tmp_path, results, page_bytes=budget)[1]
    page = Page(text)
    assert 0.6 * budget < len(text.encode()) <= budget
    for group in (0, 1):
        shots = page.shots(group)
        with_players = [shot["player"] is not None for shot in shots]
        assert 1 <= sum(with_players) < 6
        assert with_players == sorted(with_players, reverse=True)
        assert [shot["name"] for shot in shots] == [f"shot {i}" for i in range(6)]
        assert all(shot["values"]["timecolor"]["psnr"] for shot in shots)
        assert f"{6 - sum(with_players)} shot" in page.text
    assert "have no players here" in page.text
    assert "have no players here" not in Page(written(tmp_path, results)[1]).text
    none = written(tmp_path, results, page_bytes=0)[1]
    assert all(shot["player"] is None for shot in Page(none).shots())


def test_contact_sheets_show_the_middle_frame_of_the_worst_shots(tmp_path):
    results = small_results(tmp_path)
    markdown, text = written(tmp_path, results)
    page = Page(text)
    file = "sheets/1-world-start-frame.webp"
    assert f"]({file})" in markdown
    with Image.open(tmp_path / file) as sheet:
        assert sheet.height > 2 * 160
    images = page.all("img")
    assert [image["alt"] for image in images[:3]] == ["sketch of bad", "reference of bad", "timecolor of bad"]
    shown = picture(images[2]["src"])
    assert np.abs(shown[shown.shape[0] // 2, shown.shape[1] // 2].astype(int) - colour(1, 4)).max() <= 6


# ---------------------------------------------------------------- names are text


def hostile_results(folder: Path) -> dict[str, Any]:
    results = empty_results() | {"methods": ["timecolor", HOSTILE], "command": HOSTILE, "commit": HOSTILE}
    results["metrics"] = [METRICS[0] | {"label": HOSTILE}, METRICS[3] | {"missing": HOSTILE}]
    results["skipped"] = [{"dataset": HOSTILE, "case": HOSTILE, "why": HOSTILE}]
    where = {"dataset": HOSTILE, "protocol": HOSTILE}
    add_strip(folder, results, HOSTILE, **where)
    add_row(results, HOSTILE, "timecolor", 20.0, **where, note=HOSTILE)
    add_row(results, HOSTILE, HOSTILE, 19.0, **where)
    add_summary(results, "timecolor", 20.0, **where)
    add_summary(results, HOSTILE, 19.0, **where)
    for setting in ("1", "2"):
        values = {"psnr": {"mean": 20.0, "low": 19.0, "high": 21.0}}
        record = {"name": "steps", "setting": setting, "protocol": HOSTILE, "dataset": HOSTILE, "cases": 1}
        results["ablations"].append(record | {"values": values, "seconds_per_frame": 0.3})
    return results


def test_names_never_become_markup(tmp_path):
    markdown, text = written(tmp_path, hostile_results(tmp_path))
    page = Page(text)
    assert [script.get("id", "code") for script in page.all("script")] == ["data", "strip-0", "code"]
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on") or a == "style"]
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert all(link["href"].startswith("#") for link in page.all("a"))
    assert page.shots()[0]["name"] == HOSTILE
    assert page.text.count(HOSTILE) >= 6
    assert f"sketch of {HOSTILE}" in [image["alt"] for image in page.all("img")]
    # Markdown: outside the fenced command every special character is escaped.
    body = markdown.replace(f"```\n{HOSTILE}\n```", "")
    assert body != markdown
    assert "\\<script\\>" in body
    assert "<script" not in body.replace("\\<", "")
    assert "\\`a\\`" in body


def test_the_page_is_one_file_that_may_run_only_its_own_script(tmp_path):
    text = written(tmp_path, small_results(tmp_path))[1]
    page = Page(text)
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.scripts[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "http:" not in text
    assert "https:" not in text
    assert not page.all("link")


# ---------------------------------------------------------------- plots


def test_better_figures_stand_higher_and_more_steps_further_right():
    points = tuple(Point(x, y, y - 0.5, y + 0.5, f"{x:g} steps") for x, y in ((1.0, 18.0), (2.0, 19.0), (8.0, 19.5)))
    drawn = plot("PSNR", "steps", "dB", [Series("start frame", points)])
    path = drawn.partition('class="line" points="')[2].partition('"')[0]
    xs, ys = zip(*(map(float, pair.split(",")) for pair in path.split()), strict=True)
    assert xs == tuple(sorted(xs))
    assert ys == tuple(sorted(ys, reverse=True))
    # The scale of x is logarithmic: 1 to 2 is a third of 1 to 8.
    assert (xs[1] - xs[0]) * 3 == pytest.approx(xs[2] - xs[0], abs=0.5)
    assert all(plots.LEFT <= x <= plots.WIDTH - plots.RIGHT for x in xs)
    assert all(plots.TOP <= y <= plots.HEIGHT - plots.BOTTOM for y in ys)
    assert ">8</text>" in drawn


@given(st.floats(-1e4, 1e4), st.floats(0, 1e4))
@example(0.0, 5e-324)
@example(1e4, 1e-12)
def test_ticks_enclose_the_values_and_are_few(low, span):
    ticks = plots._ticks(low, low + span)
    slack = 1e-6 * max(1, abs(low), span)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack
    assert 2 <= len(ticks) <= 8


@given(st.lists(st.floats(1e-4, 1e4), min_size=1, max_size=6))
def test_any_positive_x_can_be_drawn(xs):
    drawn = plot("t", "x", "y", [Series("s", tuple(Point(x, 1.0, None, None, "p") for x in sorted(xs)))])
    path = drawn.partition('class="line" points="')[2].partition('"')[0]
    assert all(plots.LEFT <= float(pair.split(",")[0]) <= plots.WIDTH - plots.RIGHT for pair in path.split())


def test_plots_refuse_what_has_no_logarithm():
    with pytest.raises(ValueError, match="only positive x"):
        plot("t", "x", "y", [Series("s", (Point(0.0, 1.0, None, None, "p"),))])


def test_steps_and_time_are_drawn_for_each_metric_and_one_is_shown(tmp_path):
    results = small_results(tmp_path)
    for steps, psnr in ((1, 18.0), (2, 19.0), (16, 19.5)):
        values = {name: {"mean": psnr, "low": psnr - 1, "high": psnr + 1} for name in ("psnr", "ciede2000")}
        record = {"name": "steps", "setting": str(steps), "protocol": "start frame", "dataset": "world", "cases": 16}
        results["ablations"].append(record | {"values": values, "seconds_per_frame": 0.15 * steps})
    page = Page(written(tmp_path, results)[1])
    figures = [figure for figure in page.all("figure") if figure.get("class") == "plot"]
    assert [(figure["data-metric"], "hidden" in figure) for figure in figures] == [("psnr", False)] * 3 + [
        ("ciede2000", True)
    ] * 3
    for title in ("PSNR against steps, world", "PSNR against time, world, by steps", "mean dE against steps, world"):
        assert title in page.text


# ---------------------------------------------------------------- bad input


def test_results_that_are_missing_broken_or_of_another_schema_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is missing; give a folder that `timecolor evaluate` wrote"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="has schema 2; this version reads 1"):
        written(tmp_path, empty_results() | {"schema": 2})


def test_a_strip_that_is_missing_or_of_another_size_is_named(tmp_path):
    results = small_results(tmp_path)
    results["strips"][0]["frames"] = 8
    with pytest.raises(ValueError, match=r"0\.webp is 324x24, but 8 frames of 36x24 make 288x24"):
        written(tmp_path, results)
    results["strips"][0]["frames"] = 9
    (tmp_path / "strips/0/1.webp").write_text("no picture")
    with pytest.raises(ValueError, match=r"1\.webp cannot be read as a picture"):
        written(tmp_path, results)
    (tmp_path / "strips/0/1.webp").unlink()
    with pytest.raises(ValueError, match=r"1\.webp is missing"):
        written(tmp_path, results)
