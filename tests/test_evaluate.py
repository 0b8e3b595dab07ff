"""Evaluation from datasets to results.json, and through the command line to the report."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import painted_image, sketch_clip
from test_protocols import clip, shot_folder

from timecolor import choice, cli, weights
from timecolor.colorize import ColorizeOptions, Colorizer
from timecolor.evaluate import ablations, run
from timecolor.evaluate.learned import LearnedMetric, frechet_distance
from timecolor.evaluate.metrics import psnr
from timecolor.evaluate.protocols import Selection
from timecolor.evaluate.statistics import paired_differences
from timecolor.media import InputError, open_frames, write_clip, write_image
from timecolor.shot import Labels, Reference, Shot
from timecolor.world import World

START: Any = ("start frame",)
LABELLED: Any = ("multi-reference with labels",)


def means(frames: np.ndarray) -> np.ndarray:
    """A feature for each channel of each frame."""
    return frames.mean(axis=(1, 2), dtype=np.float64)


FAKES = [
    LearnedMetric("far", "Far", distance=lambda a, b: np.abs(means(a) - means(b)).mean(axis=1)),
    LearnedMetric("set", "Set", features=means),
    LearnedMetric("film", "Film", features=lambda frames: means(frames)[:1], frames=3),
    LearnedMetric("gone", "Gone", "no weights"),
]


@pytest.fixture(autouse=True)
def learned(monkeypatch):
    """Networks that cost nothing."""
    monkeypatch.setattr(run, "learned_metrics", lambda weights_dir, device: FAKES)


@pytest.fixture(autouse=True)
def code(monkeypatch, tmp_path_factory):
    """A package that nobody edits while the tests run."""
    monkeypatch.setattr(run, "_PACKAGE", tmp_path_factory.mktemp("package"))


@pytest.fixture
def plan(tmp_path, tiny_weights) -> run.Plan:
    """One labelled shot of 5 frames, of which 4 are taken."""
    shot_folder(tmp_path / "shots" / "run")
    selection = Selection(frames=4)
    return run.Plan((str(tmp_path / "shots"),), ("timecolor", "copy"), START, selection, model=str(tiny_weights), dtype="float32")


def evaluated(plan: run.Plan, out: Path, **more) -> dict[str, Any]:
    """All events looked at, and results.json."""
    list(run.evaluate(plan, out, "the command", **more))
    return run.read_results(out)


def untimed(results: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from run to run."""
    kept = {key: value for key, value in results.items() if key != "created"}
    parts = ("rows", "ablations")
    return kept | {p: [r | {"seconds_per_frame": 0, "peak_mib": 0} for r in results[p]] for p in parts}


def test_results_say_all_that_is_needed_to_repeat_them(plan, tmp_path):
    found = evaluated(plan, tmp_path / "out")
    assert found["schema"] == 1
    assert found["command"] == "the command"
    assert found["options"]["steps"] == 2
    assert found["settings"]["frames"] == 4
    assert found["model"]["sha256"]
    assert found["methods"] == ["timecolor", "copy"]
    assert {"cpu", "cores", "memory_gib", "gpu"} <= found["machine"].keys()
    assert [m["missing"] for m in found["metrics"] if m["name"] == "gone"] == ["no weights"]
    row = found["rows"][0]
    assert (row["dataset"], row["protocol"], row["case"], row["method"]) == ("shots", "start frame", "run", "timecolor")
    assert row["frames"] == [1, 2, 3]
    assert row["seconds_per_frame"] > 0
    assert all(len(values) == 3 for values in row["per_frame"].values())
    assert not list((tmp_path / "out").glob("**/*partial*"))
    assert not (tmp_path / "out" / "cases").exists()


def test_the_reference_frame_is_not_measured(plan, tmp_path):
    found = evaluated(plan, tmp_path / "out")
    copied = next(r for r in found["rows"] if r["method"] == "copy")
    strip = found["strips"][0]
    assert strip["frames"] == 4
    truth = clip(5)
    made = run.baseline("copy", Shot(sketch_clip(5)[:4], [Reference(truth[0], None, "frame", "frame 0")], None)).frames
    assert copied["values"]["psnr"] == pytest.approx(psnr(made[1:4], truth[1:4]), rel=1e-5)
    assert copied["per_frame"]["psnr"] == pytest.approx([psnr(made[t], truth[t]) for t in (1, 2, 3)], rel=1e-5)
    assert copied["values"]["far"] == pytest.approx(float(np.abs(means(made[1:4]) - means(truth[1:4])).mean()), rel=1e-5)


def test_strips_hold_all_frames_side_by_side(plan, tmp_path):
    strip = evaluated(plan, tmp_path / "out")["strips"][0]
    assert [p["name"] for p in strip["players"]] == ["sketch", "timecolor", "copy", "truth"]
    for player in strip["players"]:
        assert open_frames(tmp_path / "out" / player["file"]).shape[1:3] == (strip["height"], 4 * strip["width"])
    assert open_frames(tmp_path / "out" / strip["references"][0]).shape[1:3] == (48, 64)


def test_one_seed_gives_one_result(plan, tmp_path):
    plan = replace(plan, protocols=("arbitrary frame", *LABELLED))
    first, again = (evaluated(plan, tmp_path / name) for name in ("a", "b"))
    assert untimed(first) == untimed(again)
    labelled = next(s for s in first["summary"] if s["protocol"] == LABELLED[0])
    assert labelled["values"]["leak_rate"] is not None


def test_a_stopped_evaluation_goes_on_with_the_same_result(plan, tmp_path):
    plan = replace(plan, protocols=(*START, *LABELLED))
    whole = evaluated(plan, tmp_path / "whole")
    events = run.evaluate(plan, tmp_path / "out", "the command")
    assert not next(events).again
    events.close()
    with pytest.raises(InputError, match="is not finished"):
        run.read_results(tmp_path / "out")
    done = list(run.evaluate(plan, tmp_path / "out", "the command"))
    assert [event.again for event in done] == [True, False]
    assert untimed(run.read_results(tmp_path / "out")) == untimed(whole)


def test_parts_make_the_whole(plan, tmp_path):
    plan = replace(plan, protocols=(*START, *LABELLED))
    whole = evaluated(plan, tmp_path / "whole")
    done = [list(run.evaluate(plan, tmp_path / "out", "the command", part=run.part_of(f"{i}/2"))) for i in (1, 2)]
    assert all(done)
    assert not (tmp_path / "out" / "results.json").exists()
    assert all(event.again for event in run.evaluate(plan, tmp_path / "out", "the command"))
    assert untimed(run.read_results(tmp_path / "out")) == untimed(whole)
    with pytest.raises(ValueError, match="give i/n"):
        run.part_of("3/2")


def test_other_results_are_not_touched(plan, tmp_path):
    out = tmp_path / "out"
    next(run.evaluate(plan, out))
    with pytest.raises(InputError, match=r"unfinished evaluation whose methods is"):
        evaluated(replace(plan, methods=("copy",)), out)
    evaluated(plan, out)
    with pytest.raises(InputError, match=r"holds results already; give another --out, or --overwrite"):
        evaluated(plan, out)
    assert evaluated(replace(plan, methods=("copy",)), out, overwrite=True)["methods"] == ["copy"]


@pytest.mark.parametrize(("where", "name"), [(weights, "EMBEDDED_MATCHER"), (choice, "EMBEDDED"), (choice, "TRUST")])
def test_other_weights_beside_the_model_do_not_go_on_with_an_evaluation(where, name, plan, tmp_path, monkeypatch):
    next(run.evaluate(plan, tmp_path / "out"))
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other")
    monkeypatch.setattr(where, name, other)
    with pytest.raises(InputError, match=r"unfinished evaluation whose weights is"):
        evaluated(plan, tmp_path / "out")


def test_broken_shots_stop_it_unless_they_are_skipped_and_counted(plan, tmp_path):
    broken = shot_folder(tmp_path / "shots" / "short")
    gone = sorted((broken / "colour").iterdir())[0]
    gone.unlink()
    write_clip(f"{tmp_path}/shots/still/colour/", clip(1), 24)
    with pytest.raises(InputError, match=rf"{gone}.*--skip-broken"):
        evaluated(plan, tmp_path / "out")
    found = evaluated(replace(plan, skip_broken=True), tmp_path / "other")
    assert [s["case"] for s in found["skipped"]] == ["short", "still, start frame"]
    assert str(gone) in found["skipped"][0]["why"]
    assert "too few" in found["skipped"][1]["why"]
    assert {r["case"] for r in found["rows"]} == {"run"}
    (tmp_path / "shots" / "run").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="nothing to measure"):
        evaluated(replace(plan, skip_broken=True), tmp_path / "third")


def test_a_sketch_that_is_no_line_art_is_broken(plan, tmp_path):
    write_clip(f"{tmp_path}/shots/run/sketch/", clip(5), 24, overwrite=True)
    with pytest.raises(InputError, match=r"run.*line art"):
        evaluated(plan, tmp_path / "out")


def test_the_truth_itself_has_every_perfect_figure(plan, tmp_path):
    write_clip(tmp_path / "shots" / "run" / "peers" / "perfect.mkv", clip(5)[:4], 24)
    found = evaluated(replace(plan, protocols=LABELLED), tmp_path / "out")
    perfect = next(r for r in found["rows"] if r["method"] == "perfect")
    values = perfect["values"]
    assert perfect["frames"] == [0, 1, 2, 3]
    assert (values["psnr"], values["painted_psnr"], values["ssim"]) == (60, 60, 1)
    assert [values[f"segment_{kind}_{within}"] for kind in ("accuracy", "area") for within in (5, 10)] == [1] * 4
    assert (values["mean_ciede2000"], values["edmd"], values["temporal_consistency"], values["far"]) == (0, 0, 1, 0)
    assert values["leak_rate"] in (0, None)
    mean = next(s["values"] for s in found["summary"] if s["method"] == "perfect")
    assert mean["set"]["mean"] == pytest.approx(0, abs=1e-3)


def test_measures_of_sets_compare_all_outputs_with_all_truths(plan, tmp_path):
    shot_folder(tmp_path / "shots" / "second", frames=4)
    found = evaluated(plan, tmp_path / "out")
    truth = clip(5)
    made = run.baseline("copy", Shot(sketch_clip(5)[:4], [Reference(truth[0], None, "frame", "frame 0")], None)).frames
    expected = frechet_distance(*(np.concatenate([means(x[1:4])] * 2).astype(np.float32) for x in (made, truth)))
    summary = next(s for s in found["summary"] if s["method"] == "copy")
    assert summary["cases"] == 2
    assert summary["values"]["set"] == {"mean": pytest.approx(expected, rel=1e-4), "low": None, "high": None}
    assert summary["values"]["film"] is not None  # of clips: one feature a shot, two shots
    assert all(row["values"]["set"] is None for row in found["rows"])


def test_a_shorter_peer_is_measured_where_it_has_frames(plan, tmp_path):
    write_clip(tmp_path / "theirs" / "run" / "lvcd.mkv", clip(5)[:3], 24)
    write_clip(tmp_path / "theirs" / "run" / "timecolor.mkv", np.stack([painted_image(9, 24, 32)] * 8), 48)
    found = evaluated(replace(plan, peers=tmp_path / "theirs"), tmp_path / "out")
    rows = {r["method"]: r for r in found["rows"]}
    assert found["methods"] == ["timecolor", "copy", "lvcd", "timecolor (peer)"]
    assert rows["lvcd"]["frames"] == [1, 2]
    assert rows["lvcd"]["values"]["psnr"] == 60
    assert rows["lvcd"]["values"]["temporal_consistency"] is None
    assert rows["lvcd"]["seconds_per_frame"] is None
    assert rows["lvcd"]["note"] == "lvcd has 3 frames, 3 of the 4 here"
    note = rows["timecolor (peer)"]["note"]
    assert "48 frames a second, the shot at 24" in note
    assert "is 32x24: resized to 64x48" in note
    shown = {p["name"]: p.get("shown") for p in found["strips"][0]["players"]}
    assert shown["lvcd"] == [0, 1, 2]
    assert shown["timecolor"] is shown["timecolor (peer)"] is None


def test_without_a_truth_nothing_is_measured(plan, tmp_path):
    folder = tmp_path / "real" / "start_1"
    write_clip(f"{folder}/sketch/", sketch_clip(2), 24)
    write_image(folder / "reference_0.png", painted_image(1))
    write_clip(folder / "peers" / "lvcd.mkv", clip(2), 24)
    found = evaluated(replace(plan, datasets=(str(folder.parent),)), tmp_path / "out")
    assert [(r["method"], r["values"], r["frames"]) for r in found["rows"]] == [
        ("timecolor", {}, []),
        ("copy", {}, []),
        ("lvcd", {}, []),
    ]
    assert found["summary"] == []
    assert [p["name"] for p in found["strips"][0]["players"]] == ["sketch", "timecolor", "copy", "lvcd"]


def test_peers_of_several_protocols_must_say_which(plan, tmp_path):
    plan = replace(plan, protocols=(*START, *LABELLED), peers=tmp_path / "theirs")
    write_clip(tmp_path / "theirs" / "run" / "lvcd.mkv", clip(5)[:4], 24)
    with pytest.raises(InputError, match=r"lvcd.mkv and 2 protocols; put it into a folder start-frame"):
        evaluated(plan, tmp_path / "out")
    (tmp_path / "theirs" / "run" / "start-frame").mkdir()
    (tmp_path / "theirs" / "run" / "lvcd.mkv").rename(tmp_path / "theirs" / "run" / "start-frame" / "lvcd.mkv")
    found = evaluated(plan, tmp_path / "other")
    assert [r["protocol"] for r in found["rows"] if r["method"] == "lvcd"] == ["start frame"]


def test_protocols_that_no_shot_has_are_told(plan, tmp_path):
    found = evaluated(replace(plan, protocols=(*START, "character sheet")), tmp_path / "out")
    assert found["settings"]["protocols_without_shots"] == {"shots": ["character sheet"]}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"methods": ("flaw",)}, "unknown method 'flaw'.*did you mean 'flow'"),
        ({"methods": ("copy", "copy")}, "each once"),
        ({"datasets": ()}, "datasets are none"),
        ({"datasets": ("world", "world")}, "a name of its own"),
        ({"options": ColorizeOptions(extract_lines=True)}, "extract_lines"),
        ({"ablation_shots": -1}, "-1 ablation shots"),
    ],
)
def test_impossible_plans_are_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        run.Plan(**{"datasets": ("world",)} | wrong)


# ------------------------------------------------------------------------------------------------------------- comparing


def test_two_evaluations_are_compared_in_pairs(plan, tmp_path):
    a = evaluated(plan, tmp_path / "a")
    b = evaluated(replace(plan, options=ColorizeOptions(lines="none")), tmp_path / "b")
    found = {(d.method, d.metric): d for d in paired_differences(a, b)}
    one = found["timecolor", "psnr"]
    values = [next(r["values"]["psnr"] for r in x["rows"] if r["method"] == "timecolor") for x in (a, b)]
    assert one.difference.mean == pytest.approx(values[1] - values[0])
    assert one.cases == 1
    assert one.better is None  # one case says nothing


# ------------------------------------------------------------------------------------------------------------- ablations


@pytest.fixture(scope="module")
def colorizer(tiny_weights) -> Colorizer:
    return Colorizer.load(tiny_weights, "cpu", "float32")


@pytest.fixture(scope="module")
def labelled() -> Shot:
    video = np.zeros((2, 48, 64), np.uint8)
    video[:, :, 32:] = 1
    references = [Reference(painted_image(i), None, role) for i, role in enumerate(("background", "character"))]
    return Shot(sketch_clip(2), references, Labels(video))


RAW = ColorizeOptions(lines="model")


def made(ways: list[ablations.Ablation], name: str, shot: Shot) -> dict[str, np.ndarray]:
    return {way.setting: way.colorizer.colorize(shot, way.options) for way in ways if way.name == name}


def test_switches_change_what_they_name(colorizer, labelled):
    # The matcher goes by labels whatever attention is told.
    colorizer = Colorizer(replace(colorizer.model, matcher=None))
    ways = ablations.ablations(colorizer, RAW)
    plain = colorizer.colorize(labelled, RAW)
    seen = made(ways, "correspondence", labelled)
    assert np.array_equal(seen["bound"], plain)
    assert not np.array_equal(seen["blind"], plain)
    assert np.array_equal(seen["blind"], colorizer.colorize(replace(labelled, labels=None), RAW))
    assert not np.array_equal(seen["full"], seen["blind"])
    placed = made(ways, "positions", labelled)
    assert np.array_equal(placed["disjoint"], plain)
    assert not np.array_equal(placed["normal"], plain)


@pytest.mark.parametrize("switch", ["judge", "trust"])
def test_what_chooses_between_colours_can_be_switched_off(colorizer, switch):
    shot, _ = World(1, 96, 144, 2).shot(2).to_shot("start frame")
    kept = replace(RAW, lines="keep")
    seen = made(ablations.ablations(colorizer, kept), switch, shot)
    assert np.array_equal(seen["on"], colorizer.colorize(shot, kept))
    assert not np.array_equal(seen["on"], seen["off"])


def test_the_matcher_can_be_switched_off(colorizer, labelled):
    seen = made(ablations.ablations(colorizer, RAW), "matcher", labelled)
    assert np.array_equal(seen["on"], colorizer.colorize(labelled, RAW))
    assert np.array_equal(seen["off"], Colorizer(replace(colorizer.model, matcher=None)).colorize(labelled, RAW))
    assert not np.array_equal(seen["on"], seen["off"])


def test_one_reference_has_no_other_to_be_blind_to(colorizer, labelled):
    ways = ablations.ablations(colorizer, RAW)
    alone = replace(labelled, references=labelled.references[:1], labels=None)
    seen = made(ways, "correspondence", alone)
    assert np.array_equal(seen["bound"], seen["blind"])
    assert np.array_equal(seen["bound"], seen["full"])


def test_settings_that_come_to_the_same_are_run_once(colorizer, labelled):
    outputs = []

    def measure(output: np.ndarray) -> dict[str, float | None]:
        outputs.append(output)
        return {"mean": float(output.mean())}

    ways = [way for way in ablations.ablations(colorizer, RAW) if way.name in ("references", "cells", "steps")]
    found = ablations.ablate("multi-reference with labels", labelled, ways, measure)
    assert [(one.name, one.setting) for one in found] == [(way.name, way.setting) for way in ways]
    # 2 steps, coverage and all references are what there is; 2 and 3 references are all. Else: majority, 4 steps, 0 and 1.
    assert len(outputs) == 1 + 1 + 4 + 2
    values = {(one.name, one.setting): one.values["mean"] for one in found}
    assert values["references", "3"] == values["references", "all"] == values["steps", "2"] != values["references", "0"]
    assert {one.name for one in ablations.ablate("start frame", labelled, ways, measure)} == {"steps"}


def test_ablations_are_summed_up_over_cases(plan, tmp_path, monkeypatch):
    few = ("references", "cells")
    everything = ablations.ablations
    monkeypatch.setattr(run, "ablations", lambda c, o: [way for way in everything(c, o) if way.name in few])
    found = evaluated(replace(plan, protocols=LABELLED, methods=("timecolor",), ablation_shots=1), tmp_path / "out")
    assert [a["name"] for a in found["ablations"]] == ["cells"] * 2 + ["references"] * 5
    row = found["rows"][0]
    for one in found["ablations"]:
        assert (one["dataset"], one["protocol"], one["cases"]) == ("shots", LABELLED[0], 1)
        if one["setting"] in ("coverage", "all"):
            assert one["values"]["psnr"]["mean"] == row["values"]["psnr"]


@pytest.fixture
def tiny_preset(monkeypatch):
    """A preset whose runs take a second."""
    preset = replace(ablations.PRESETS["debug"], validation_shots=1)
    monkeypatch.setitem(ablations.PRESETS, "tiny", preset)
    return preset


def keep_variants(monkeypatch, *kept: tuple[str, str]) -> None:
    everything = ablations.trained_variants
    monkeypatch.setattr(ablations, "trained_variants", lambda *given: {k: v for k, v in everything(*given).items() if k in kept})


def test_variants_are_trained_on_one_budget(tmp_path, tiny_preset, monkeypatch):
    every = ablations.trained_variants(tiny_preset, 1)
    assert {variant.steps for variant in every.values()} == {1}
    assert len({repr(variant) for variant in every.values()}) == 6  # five changes and one base
    keep_variants(monkeypatch, ("trained hints", "on"), ("trained hints", "off"))
    found = ablations.train_ablations("tiny", 1, tmp_path)
    assert {(one.setting, one.protocol) for one in found} == {
        (setting, protocol) for setting in ("on", "off") for protocol in (*START, "arbitrary frame", *LABELLED)
    }
    assert all(np.isfinite(one.values["one_step_psnr"]) for one in found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "hints"]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert ablations.train_ablations("tiny", 1, tmp_path) == found  # trained already
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == written
    with pytest.raises(ValueError, match=r"unknown preset 'debugg'.*did you mean 'debug'"):
        ablations.train_ablations("debugg", 1, tmp_path)


def test_normal_positions_can_be_trained(tmp_path, tiny_preset, monkeypatch):
    keep_variants(monkeypatch, ("trained positions", "normal"))
    assert {one.setting for one in ablations.train_ablations("tiny", 1, tmp_path)} == {"normal"}


# ------------------------------------------------------------------------------------------------------------ the command


def command(capsys, *words: object) -> tuple[int, str, str]:
    """`timecolor evaluate ...`: exit code, standard output, standard error."""
    code: object = 0
    try:
        cli.main(["evaluate", *map(str, words)])
    except SystemExit as exited:
        code = exited.code
    told = capsys.readouterr()
    assert isinstance(code, int)
    return code, told.out, told.err


def test_the_command_writes_a_report_and_compares_two(capsys, tmp_path, tiny_weights):
    few = (
        "--shots",
        1,
        "--frames",
        3,
        "--height",
        64,
        "--width",
        96,
        "--methods",
        "timecolor,copy",
        "--protocols",
        "start frame",
    )
    for name, steps in (("a", 1), ("b", 2)):
        code, out, err = command(capsys, "world", "-o", tmp_path / name, "--model", tiny_weights, "--steps", steps, *few)
        assert (code, out) == (0, ""), err
        assert "1: world/1000, start frame: timecolor" in err
        assert (tmp_path / name / "report.html").is_file()
    results = json.loads((tmp_path / "b" / "results.json").read_text())
    assert results["options"]["steps"] == 2
    code, out, _ = command(capsys, "--compare", tmp_path / "a", tmp_path / "b")
    assert code == 0
    assert "start frame" in out
    code, out, _ = command(capsys, "--compare", tmp_path / "a", tmp_path / "b", "--json")
    assert {"psnr", "ssim", "seconds_per_frame"} <= {one["metric"] for one in json.loads(out)}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("world",), "give at least one dataset"),
        (("worlds", "-o", "out"), "did you mean 'world'"),
        (("world", "-o", "out", "--methods", "flaw"), "unknown method 'flaw'"),
        (("--compare", "a", "b"), "a: holds no results.json"),
        (("world", "--compare", "a", "b"), "leave out datasets"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(capsys, monkeypatch, tmp_path, words, told):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(capsys, *words)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
