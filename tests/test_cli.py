"""The command line, through its real entry point, on real files."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import painted_image, sketch_clip

import timecolor
from timecolor import cli
from timecolor.media import open_frames, write_clip, write_image
from timecolor.toon import Toon

SOURCE = Path(__file__).parents[1] / "src"


@pytest.fixture
def run(capsys, tiny_weights, monkeypatch, tmp_path):
    """`timecolor ARGUMENTS` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object, model: bool = True) -> tuple[int, str, str]:
        words = [str(a) for a in arguments]
        code: object = 0
        try:
            cli.main([*words, "--model", str(tiny_weights)] if model and words[0] in ("colorize", "info") else words)
        except SystemExit as exited:
            code = exited.code or 0
        told = capsys.readouterr()
        assert isinstance(code, int)
        return code, told.out, told.err

    return command


@pytest.fixture
def refused(run, tmp_path):
    """A command that must fail: exit 2, one line, no file added, changed or left half-written. Gives the line."""

    def command(*arguments: object, model: bool = True) -> str:
        def files() -> dict[Path, bytes]:
            return {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

        before = files()
        code, out, err = run(*arguments, model=model)
        assert (code, out) == (2, "")
        assert err.startswith("timecolor: ")
        assert err.count("\n") == 1
        assert files() == before
        return err

    return command


def make_shot(folder: Path, labels: bool = True, frames: int = 3) -> Path:
    write_clip(folder / "sketch", sketch_clip(frames), 24)
    for i, name in enumerate(("0_background.png", "1_hero.png")):
        write_image(folder / "references" / name, painted_image(i))
    if labels:
        video = np.zeros((frames, 48, 64), np.uint8)
        video[:, :, 32:] = 1
        np.savez(folder / "labels.npz", mask=video)
    return folder


@pytest.fixture
def sketch(tmp_path) -> Path:
    write_clip(tmp_path / "line.mkv", sketch_clip(), 12)
    return tmp_path / "line.mkv"


@pytest.fixture
def reference(tmp_path) -> Path:
    write_image(tmp_path / "hero.png", painted_image(1))
    return tmp_path / "hero.png"


# ------------------------------------------------------------------------------------------------------------------ what it does


def test_a_shot_folder_becomes_a_video(run, tmp_path):
    code, out, err = run("colorize", make_shot(tmp_path / "run"), "-o", "out.mp4")
    assert (code, out) == (0, "")
    assert "run: 3 frames -> out.mp4" in err
    clip = open_frames("out.mp4")
    assert tuple(clip.shape) == (3, 48, 64, 3)
    assert clip.frame_rate == 24
    assert np.ptp(clip[0:1]) > 100


def test_a_bare_sketch_takes_its_references_from_the_command(run, sketch, reference):
    assert run("colorize", sketch, "--reference", reference, reference, "-o", "a.mkv", "--lines", "model")[0] == 0
    assert run("colorize", sketch, "-r", reference, "-o", "b.mkv", "--lines", "model")[0] == 0
    assert run("colorize", sketch, "-o", "c.mkv", "--lines", "model")[0] == 0
    one, none = open_frames("b.mkv"), open_frames("c.mkv")
    assert one.frame_rate == 12
    assert not np.array_equal(one[:], none[:])


def test_several_shots_go_into_a_folder(run, tmp_path, sketch):
    make_shot(tmp_path / "a")
    make_shot(tmp_path / "b", labels=False)
    code, out, _ = run("colorize", tmp_path / "a", tmp_path / "b", sketch, "-o", "done/", "--format", "mkv", "--json")
    assert code == 0
    assert sorted(p.name for p in Path("done").iterdir()) == ["a.mkv", "b.mkv", "line.mkv"]
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["shot"] for line in lines] == ["a", "b", "line"]
    assert [line["frames"] for line in lines] == [3, 3, 3]
    assert lines[0]["options"]["finish"] == "auto"
    assert Path(lines[0]["out"]) == Path("done/a.mkv")


def test_a_folder_of_pngs_is_exact(run, tmp_path):
    shot = make_shot(tmp_path / "run")
    assert run("colorize", shot, "-o", "frames/")[0] == 0
    assert run("colorize", shot, "-o", "frames", "--format", "png")[0] == 0
    assert [p.name for p in sorted(Path("frames/run").iterdir())] == ["000000.png", "000001.png", "000002.png"]
    assert run("colorize", shot, "-o", "run.mkv")[0] == 0
    assert np.array_equal(open_frames("frames/run")[:], open_frames("run.mkv")[:])


def test_the_authors_job_runs(run, tmp_path):
    folder = make_shot(tmp_path / "run")
    job = {
        "sketch_control_path": "run/sketch", "reference_paths": ["run/references/0_background.png", "run/references/1_hero.png"],
        "identity_mask_npz_path": "run/labels.npz", "num_inference_steps": 3, "num_frames": 2, "frame_rate": 15,
        "height": 480, "width": 720, "caption": "a circle", "custom_output_name": "named",
    }  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps({"data": [job]}))
    code, out, _ = run("colorize", "job.json", "-o", "done", "--json")
    assert code == 0
    assert json.loads(out)["options"]["steps"] == 3
    clip = open_frames("done/named.mp4")
    assert tuple(clip.shape) == (2, 48, 64, 3)
    assert clip.frame_rate == 15
    assert folder.exists()


def test_options_of_the_command_go_before_those_of_the_file(run, tmp_path):
    shot = make_shot(tmp_path / "run")
    (shot / "shot.toml").write_text('[options]\nsteps = 3\nwindow = "all"\nfinish = "flat"')
    code, out, _ = run("colorize", shot, "-o", "out.mkv", "--json", "--steps", 1, "--size", 40, "--seed", 5)
    assert code == 0
    options = json.loads(out)["options"]
    assert {k: options[k] for k in ("steps", "window", "finish", "size", "seed")} == {
        "steps": 1, "window": "all", "finish": "flat", "size": 40, "seed": 5
    }  # fmt: skip


@pytest.mark.parametrize(("window", "kept"), [("all", "all"), ("0", 0), ("5", 5)])
def test_the_window_is_a_number_or_all(run, sketch, window, kept):
    code, out, _ = run("colorize", sketch, "-o", "out.mkv", "--window", window, "--json")
    assert code == 0
    assert json.loads(out)["options"]["window"] == kept


def test_every_option_of_the_issue_is_taken(run, sketch, reference):
    words = "--device cpu --dtype bfloat16 --steps 1 --seed 3 --size 24 --window 2 --lines none --finish smooth --palette free"
    assert run("colorize", sketch, "-r", reference, "-o", "out.mkv", *words.split())[0] == 0
    assert run("colorize", sketch, "-r", reference, "-o", "out.mkv", "--overwrite", "--debug", *words.split())[0] == 0


def test_lines_of_a_colour_clip_are_taken_on_demand(run, tmp_path, reference):
    write_clip(tmp_path / "film.mkv", painted_image(4, 96, 128)[None].repeat(2, 0), 24)
    assert run("colorize", "film.mkv", "-r", reference, "-o", "a.mkv", "--extract-lines")[0] == 0
    assert run("colorize", "film.mkv", "-r", reference, "-o", "b.mkv", "--extract-lines", "--sketch-style", "thick")[0] == 0
    assert not np.array_equal(open_frames("a.mkv")[:], open_frames("b.mkv")[:])


def test_sketch_takes_the_lines(run, tmp_path):
    write_clip(tmp_path / "film.mkv", painted_image(4, 96, 128)[None].repeat(2, 0), 12)
    code, _, err = run("sketch", "film.mkv", "-o", "lines.mkv", "--style", "thick", "--binarise")
    assert code == 0
    assert "2 frames -> lines.mkv" in err
    lines = open_frames("lines.mkv")
    assert lines.frame_rate == 12
    assert set(np.unique(lines[:])) == {0, 255}
    assert run("sketch", "film.mkv", "-o", "lines/")[0] == 0
    assert len(list(Path("lines").iterdir())) == 2


def test_info_tells_what_a_job_needs(run):
    code, out, _ = run("info", "--frames", 4, "--height", 48, "--width", 64, "--references", 2, "--json", "--device", "cpu")
    assert code == 0
    facts = json.loads(out)
    assert facts["tokens"] == 4 * 2 * 20 + 2 * 20
    assert facts["network time (s)"] >= 0
    assert "tokens: 200" in run("info", "--frames", 4, "--height", 48, "--width", 64, "--references", 2)[2]


def test_demo_leaves_video_contact_sheet_and_figures(run, tiny_weights, monkeypatch):
    monkeypatch.setattr("timecolor.weights.EMBEDDED", tiny_weights)
    monkeypatch.setattr("timecolor.demo.SIZE", (96, 144))
    code, out, _ = run("demo", "-o", "demo", "--shot", 1, "--json")
    assert code == 0
    figures = json.loads(out)
    assert figures == json.loads(Path("demo/figures.json").read_text())
    assert {"timecolor", "copy"} == figures["figures"].keys()
    assert {"coloured.mp4", "truth.mp4", "sheet.png", "shot"} <= {p.name for p in Path("demo").iterdir()}
    assert open_frames("demo/coloured.mp4").shape == open_frames("demo/shot/sketch").shape


def test_training_runs_and_resumes(run):
    code, _, err = run("train", "--preset", "debug", "--steps", 2, "-o", "run", "--device", "cpu")
    assert code == 0
    assert "step 2/2  loss " in err
    code, _, err = run("train", "--preset", "debug", "--steps", 4, "-o", "run", "--device", "cpu")
    assert code == 0
    assert "step 4/4" in err
    assert "step 2/4" not in err
    assert {p.name for p in Path("run").iterdir()} == {"config.json", "metrics.jsonl", "checkpoints", "toon.safetensors"}
    code, _, err = run("train", "--preset", "debug", "--seed", 1, "-o", "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "run holds a run with another seed; give another --out" in err


@pytest.mark.parametrize("command", ["", "colorize", "demo", "sketch", "train", "info"])
def test_help_says_what_every_option_is(run, command):
    code, out, _ = run(*command.split(), "--help", model=False)
    assert code == 0
    assert "Usage: timecolor" in out
    rows = [row.strip(" │*") for row in out.splitlines() if row.startswith("│")]
    bare = [row for row in rows if re.match(r"--\S+(?: -\w)?(?: [A-Z|.]+)?\s*(?:\[|$)", row)]
    assert not bare, f"options without a word of help: {bare}"


def test_version_is_told(run):
    code, out, _ = run("--version", model=False)
    assert code == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", out)


def test_the_module_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["timecolor", "--version"])
    runpy.run_module("timecolor", run_name="__main__")
    assert timecolor.__version__ in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------------- what it refuses


def test_a_missing_sketch(refused, sketch):
    assert "lime.mkv: no such file; did you mean 'line.mkv'?" in refused("colorize", "lime.mkv", "-o", "out.mp4")


def test_a_missing_reference(refused, sketch, reference):
    assert "herp.png: no such file; did you mean 'hero.png'?" in refused("colorize", sketch, "-r", "herp.png", "-o", "out.mp4")


def test_a_file_that_is_no_video(refused, tmp_path):
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 999)
    assert "junk.mp4: cannot be read (" in refused("colorize", "junk.mp4", "-o", "out.mp4")


def test_an_empty_video(refused, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert "empty.mp4: is empty (0 bytes); export or copy it again" in refused("colorize", "empty.mp4", "-o", "out.mp4")


def test_a_truncated_mp4(refused, tmp_path):
    write_clip(tmp_path / "cut.mp4", sketch_clip(12), 24)
    whole = (tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    line = refused("colorize", "cut.mp4", "-o", "out.mp4")
    assert "cut.mp4: cut off or damaged, " in line
    assert "export or copy it again" in line


def test_a_zero_byte_png(refused, tmp_path):
    (make_shot(tmp_path / "run") / "sketch" / "000001.png").write_bytes(b"")
    assert "000001.png: is empty (0 bytes)" in refused("colorize", "run", "-o", "out.mp4")


def test_a_reference_that_is_alpha_only(refused, sketch, tmp_path):
    write_image(tmp_path / "ghost.png", np.zeros((8, 8, 4), np.uint8))
    assert "ghost.png: alpha is 0 everywhere" in refused("colorize", sketch, "-r", "ghost.png", "-o", "out.mp4")


def test_a_label_without_a_reference(refused, tmp_path):
    (make_shot(tmp_path / "run") / "references" / "1_hero.png").unlink()
    assert "label 1 (frames 0-2) has no reference" in refused("colorize", "run", "-o", "out.mp4")


@pytest.mark.parametrize("shape", [(2, 48, 64), (3, 48, 60)])
def test_labels_of_another_length_or_size(refused, tmp_path, shape):
    np.savez(make_shot(tmp_path / "run") / "labels.npz", mask=np.zeros(shape, np.uint8))
    assert f"labels are {shape} but the sketch is (3, 48, 64)" in refused("colorize", "run", "-o", "out.mp4")


def test_references_that_labels_do_not_know(refused, tmp_path, reference):
    line = refused("colorize", make_shot(tmp_path / "run"), "-r", reference, "-o", "out.mp4")
    assert "has labels, so --reference cannot tell which area it is for" in line


def test_a_colour_clip_stops_all_shots_before_the_first_is_coloured(refused, tmp_path):
    make_shot(tmp_path / "good")
    write_clip(tmp_path / "film.mkv", painted_image(4, 96, 128)[None], 24)
    line = refused("colorize", "good", "film.mkv", "-o", "done")
    assert "film: sketch looks like a colour picture (" in line
    assert "add --extract-lines" in line


def test_frames_of_one_pixel(refused, tmp_path):
    write_image(tmp_path / "dot.png", np.full((1, 1, 3), 255, np.uint8))
    assert "dot: sketch is 1x1 pixels; give at least 8x8" in refused("colorize", "dot.png", "-o", "out.mp4")


def test_a_path_that_cannot_be_written(refused, sketch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "since file is a file; name another output" in refused("colorize", sketch, "-o", "file/out.mp4")
    assert "cannot write .txt; use .png, .mp4, .mkv, .mov, or a folder" in refused("colorize", sketch, "-o", "out.txt")


def test_a_clip_does_not_go_into_one_png(refused, sketch):
    assert "out.png: a .png holds one frame but there are 3; give a folder" in refused("colorize", sketch, "-o", "out.png")
    assert "out.png: a .png holds one frame" in refused("sketch", sketch, "-o", "out.png")


def test_an_existing_output_is_kept(refused, run, sketch, tmp_path):
    (tmp_path / "out.mkv").write_bytes(b"precious")
    assert "out.mkv: exists; add --overwrite to replace it" in refused("colorize", sketch, "-o", "out.mkv")
    assert "out.mkv: exists" in refused("sketch", sketch, "-o", "out.mkv")
    assert run("colorize", sketch, "-o", "out.mkv", "--overwrite")[0] == 0
    assert tuple(open_frames("out.mkv").shape) == (3, 48, 64, 3)


def test_two_shots_of_one_name(refused, tmp_path):
    for place in ("a", "b"):
        make_shot(tmp_path / place / "run")
    assert "two shots would be written there" in refused("colorize", "a/run", "b/run", "-o", "done")
    assert "out.mp4: is one file but there are 2 shots; give a folder" in refused("colorize", "a/run", "b/run", "-o", "out.mp4")


def test_an_unknown_model(refused, sketch):
    assert "unknown model 'tune'; use toon" in refused("colorize", sketch, "-o", "a.mp4", "--model", "tune", model=False)
    line = refused("colorize", sketch, "-o", "a.mp4", "--model", "x.safetensors", model=False)
    assert "x.safetensors: no such weights file" in line


def test_corrupt_weights(refused, sketch, tmp_path, tiny_weights):
    (tmp_path / "cut.safetensors").write_bytes(tiny_weights.read_bytes()[:9000])
    line = refused("colorize", sketch, "-o", "a.mp4", "--model", "cut.safetensors", model=False)
    assert "cut.safetensors: not a readable safetensors file" in line


def test_values_that_are_not_finite(refused, sketch, monkeypatch):
    monkeypatch.setattr(Toon, "predict", lambda self, latents, timestep, cache: latents * float("nan"))
    assert "not finite at step 1 of 2; try --dtype float32" in refused("colorize", sketch, "-o", "a.mp4")


def test_too_little_memory(refused, sketch, monkeypatch):
    monkeypatch.setattr("timecolor.colorize._free_bytes", lambda device: 1000)
    assert "the job needs 0.0 GiB but 0.0 GiB are free" in refused("colorize", sketch, "-o", "a.mp4")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--stepz 3", "Unknown option: --stepz. Did you mean --steps?"),
        ("--steps three", 'Invalid value for --steps: unable to convert "three" into int (see --help)'),
        ("--steps 0", "steps is 0; give a whole number of at least 1"),
        ("--window -1", "window is -1; give a whole number of at least 0"),
        ("--window few", "Invalid value for --window"),
        ("--finish flatt", 'Invalid value "flatt" for --finish. Choose from: "flat", "smooth", "auto".'),
        ("--size 4", "working size is 4; use at least 8"),
        ("--sketch-style thick", "sketch_style is thick but no lines are taken; add extract_lines"),
        ("--device abacus", "device 'abacus' is not usable here"),
    ],
)
def test_options_that_cannot_be(refused, sketch, words, expected):
    assert expected in refused("colorize", sketch, "-o", "out.mp4", *words.split())


def test_faults_of_the_command_itself(refused, sketch):
    assert "--out requires an argument (see --help)" in refused("colorize", sketch)
    assert 'Unknown command "colourize". Did you mean "colorize"?' in refused("colourize", sketch)
    assert "unknown preset 'toom'; use toon" in refused("train", "--preset", "toom")
    assert "device 'abacus' is not usable here" in refused("train", "--preset", "debug", "--device", "abacus")


@pytest.mark.parametrize(
    ("options", "expected"),
    [("stepz = 3", "unknown option 'stepz'; did you mean 'steps'?"), ("steps = 0", "run: options in its file: steps is 0; give")],
)
def test_faults_in_a_files_options(refused, tmp_path, options, expected):
    (make_shot(tmp_path / "run") / "shot.toml").write_text(f"[options]\n{options}")
    assert expected in refused("colorize", "run", "-o", "out.mp4")


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no such file"):
        cli.main(["colorize", "none.mkv", "-o", "out.mp4", "--debug"])


# ------------------------------------------------------------------------------------------------------------------------ Ctrl-C

SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background passes on that it ignores Ctrl-C
from timecolor import cli
from timecolor.colorize import Coloured, Colorizer

stream = Colorizer.stream

def slow(self, shot, options):
    for event in stream(self, shot, options):
        yield event
        if isinstance(event, Coloured) or event.stage == "sampling":
            print(getattr(event, "stage", "frame"), flush=True)
            time.sleep(0.2)

Colorizer.stream = slow
cli.main(sys.argv[1:])
"""


@pytest.mark.parametrize(("moment", "name"), [("sampling", "out.mp4"), ("frame", "out.mp4"), ("frame", "frames")])
def test_ctrl_c_leaves_nothing(tmp_path, tiny_weights, moment, name):
    write_clip(tmp_path / "line.mkv", sketch_clip(40, step=1), 12)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    words = ["colorize", "line.mkv", "-o", name, "--format", "png", "--model", str(tiny_weights)]
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SLOW, *words], cwd=tmp_path, env=environment, **pipes) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == moment:
                break
        patience_s = time.monotonic() + 20
        while moment == "frame" and not list(tmp_path.rglob("*partial*")):
            assert time.monotonic() < patience_s, "no partial file was ever there"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "stopped; nothing was left half-written\n"
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["line.mkv"]
