import json
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from timecolor.media import InputError, open_frames, read_labels, write_clip, write_image
from timecolor.shot import Reference
from timecolor.shotfiles import load_shot, load_shots, read_reference, role_of
from timecolor.sketch import require_line_art

SHARED = Path(__file__).parents[2] / "shared"
H, W = 48, 64


def drawing(
    height: int = 240, width: int = 320, line=(0, 0, 0), paper=(255, 255, 255), thickness: int = 2, shift: int = 0
) -> np.ndarray:
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = paper
    scale = height / 240
    for x, y, r in ((100, 90, 40), (200, 150, 60), (60, 190, 30)):
        cv2.circle(frame, (round((x + shift) * scale), round(y * scale)), round(r * scale), line, thickness, cv2.LINE_AA)
    cv2.line(frame, (0, round(220 * scale)), (width, round(200 * scale)), line, thickness, cv2.LINE_AA)
    return frame


def drawings(count: int = 4, height: int = H, width: int = W) -> np.ndarray:
    return np.stack([drawing(height, width, thickness=1, shift=3 * i) for i in range(count)])


def colour(seed: int = 0, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def make_shot(
    folder: Path, references=("0_background.png", "1_hero.png"), labels=(0, 1), sketch: str = "sketch", toml: str = ""
) -> Path:
    """A shot folder: four drawings, references, and labels with a column of each value in every frame."""
    write_clip(folder / sketch, drawings(), 24)
    for i, name in enumerate(references):
        write_image(folder / "references" / name, colour(i))
    if labels:
        np.savez(folder / "labels.npz", mask=stripes(labels))
    if toml:
        (folder / "shot.toml").write_text(toml)
    return folder


def stripes(labels, count: int = 4) -> np.ndarray:
    return np.broadcast_to(np.resize(np.array(labels), W), (count, H, W)).copy()


def message(call, *args) -> str:
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------ shot folders


@pytest.mark.parametrize("sketch", ["sketch", "sketch.mkv", "sketch.mov", "sketch.mp4"])
def test_a_folder_is_a_shot(tmp_path, sketch):
    file = load_shot(make_shot(tmp_path / "run", sketch=sketch))
    shot = file.shot
    assert shot.name == "run"
    assert tuple(shot.sketch.shape) == (4, H, W, 3)
    assert np.abs(shot.sketch[1:3].astype(int) - drawings()[1:3]).max() <= (0 if sketch in ("sketch", "sketch.mkv") else 40)
    assert [r.name for r in shot.references] == ["0_background.png", "1_hero.png"]
    assert [r.role for r in shot.references] == ["background", "character"]
    assert np.array_equal(shot.references[1].image, colour(1))
    assert shot.labels is not None
    assert np.array_equal(shot.labels.video[:], stripes((0, 1)))
    assert dict(shot.labels.references) == {0: (0,), 1: (1,)}
    assert shot.frame_rate == 24
    assert file.options == {}


def test_references_go_in_natural_order_and_share_labels_by_their_number(tmp_path):
    names = ("0_background.png", "1_hero.png", "1_hero_sheet.png", "2_dog.png", "10_cat.png")
    shot = load_shot(make_shot(tmp_path, names, (0, 1, 2, 10))).shot
    assert tuple(r.name for r in shot.references) == names
    assert dict(shot.labels.references) == {0: (0,), 1: (1, 2), 2: (3,), 10: (4,)}
    assert [r.role for r in shot.references] == ["background", "character", "sheet", "character", "character"]


def test_references_without_numbers_serve_the_label_of_their_position(tmp_path):
    shot = load_shot(make_shot(tmp_path, ("bg.png", "hero.png"), (0, 1))).shot
    assert dict(shot.labels.references) == {0: (0,), 1: (1,)}


def test_references_may_lie_beside_the_sketch(tmp_path):
    write_clip(tmp_path / "sketch.mkv", drawings(), 15)
    for i in (0, 1, 10, 2):
        write_image(tmp_path / f"reference_{i}.png", colour(i))
    shot = load_shot(tmp_path).shot
    assert [r.name for r in shot.references] == [f"reference_{i}.png" for i in (0, 1, 2, 10)]
    assert shot.labels is None
    assert shot.frame_rate == 15
    write_image(tmp_path / "references" / "x.png", colour(1))
    assert "keep all references in one place" in message(load_shots, tmp_path)


def test_labels_as_images(tmp_path):
    make_shot(tmp_path, labels=())
    for i, frame in enumerate(stripes((0, 1))):
        write_image(tmp_path / "labels" / f"{i:03d}.png", frame.astype(np.uint8))
    assert np.array_equal(load_shot(tmp_path).shot.labels.video[:], stripes((0, 1)))
    np.savez(tmp_path / "labels.npz", mask=stripes((0, 1)))
    assert "has 2 labels, labels.npz and labels; keep one" in message(load_shots, tmp_path)


def test_shot_toml_sets_frame_rate_labels_and_options(tmp_path):
    toml = 'frame_rate = 23.976\n[labels]\n1 = ["1_hero.png", "extra"]\n0 = []\n7 = 2\n[options]\nsteps = 6\npalette = "free"\n'
    make_shot(tmp_path, ("0_background.png", "1_hero.png", "extra.png"), (0, 1, 2, 7), toml=toml)
    file = load_shot(tmp_path)
    assert file.shot.frame_rate == Fraction(24000, 1001)
    assert dict(file.shot.labels.references) == {0: (), 1: (1, 2), 2: (2,), 7: (2,)}
    assert file.options == {"steps": 6, "palette": "free"}


def test_sketches_keep_their_alpha_on_white(tmp_path):
    cel = np.dstack([np.zeros((H, W, 3), np.uint8), 255 - drawings()[0, ..., :1]])
    write_image(tmp_path / "sketch" / "0.png", cel)
    assert np.abs(load_shot(tmp_path).shot.sketch[:][0].astype(int) - drawings()[0]).max() <= 1


@pytest.mark.parametrize("path", ["frames", "frames/*.png", "frames/000002.png", "clip.mkv"])
def test_a_bare_sketch_is_a_shot_without_references(tmp_path, path):
    write_clip(tmp_path / "frames", drawings(), 24)
    write_clip(tmp_path / "clip.mkv", drawings(), 24)
    (file,) = load_shots(tmp_path / path)
    assert tuple(file.shot.sketch.shape) == (1 if "2.png" in path else 4, H, W, 3)
    assert file.shot.references == ()
    assert file.shot.labels is None


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("0_background.png", "background"),
        ("bg.png", "background"),
        ("Plate-2.jpg", "background"),
        ("1_hero.png", "character"),
        ("2_hero_sheet.png", "sheet"),
        ("frame_012.png", "frame"),
        ("hero.png", None),
        ("reference_0.png", None),
        ("big_bgx.png", None),
    ],
)
def test_roles_are_guessed_from_names(name, role):
    assert role_of(name) == role


# ------------------------------------------------------------------------------------------------- shot folders with faults


def test_a_label_without_a_reference_is_named_with_its_frames(tmp_path):
    make_shot(tmp_path / "a", labels=(0, 1))
    labels = stripes((0, 1), 9)
    labels[[3, 4, 5, 7], 2, 2] = 5
    write_clip(tmp_path / "a" / "sketch", drawings(9), 24, overwrite=True)
    np.savez(tmp_path / "a" / "labels.npz", mask=labels)
    text = message(load_shots, tmp_path / "a")
    assert "label 5 (frames 3-5, 7) has no reference (labels with one: 0, 1); add" in text
    assert 'add a file "references/5_name.png", or a line "5 = []" under [labels] in shot.toml' in text
    (tmp_path / "a" / "shot.toml").write_text("labels = {5 = []}")
    assert load_shot(tmp_path / "a").shot.labels.references_of(5) == ()


def test_background_without_a_plate_must_be_said(tmp_path):
    make_shot(tmp_path, ("1_hero.png",), (0, 1))
    assert "label 0 (frames 0-3) has no reference (labels with one: 1); add" in message(load_shots, tmp_path)
    (tmp_path / "shot.toml").write_text("[labels]\n0 = []")
    assert dict(load_shot(tmp_path).shot.labels.references) == {0: (), 1: (0,)}


def test_labels_of_another_length_or_size(tmp_path):
    make_shot(tmp_path)
    np.savez(tmp_path / "labels.npz", mask=stripes((0, 1), 5))
    text = message(load_shots, tmp_path)
    assert f"labels are (5, {H}, {W}) but the sketch is (4, {H}, {W}) (frames, height, width); save them with" in text
    np.savez(tmp_path / "labels.npz", mask=stripes((0, 1))[:, 1:])
    assert f"labels are (4, {H - 1}, {W}) but the sketch is" in message(load_shots, tmp_path)


def test_a_reference_that_is_alpha_only(tmp_path):
    make_shot(tmp_path, ("0_background.png",), ())
    write_image(tmp_path / "references" / "1_hero.png", np.zeros((9, 9, 4), np.uint8))
    assert "1_hero.png: alpha is 0 everywhere" in message(load_shots, tmp_path)
    assert "alpha is 0 everywhere" in message(read_reference, tmp_path / "references" / "1_hero.png")


def test_a_reference_that_cannot_be_read(tmp_path):
    make_shot(tmp_path, ("0_background.png",), ())
    (tmp_path / "references" / "1.png").write_bytes(b"")
    assert "1.png: is empty (0 bytes)" in message(load_shots, tmp_path)
    (tmp_path / "references" / "1.png").write_bytes(b"junk" * 99)
    assert "1.png: cannot be read (not an image)" in message(load_shots, tmp_path)


def test_a_folder_without_or_with_two_sketches(tmp_path):
    write_clip(tmp_path / "clip.mkv", drawings(), 24)
    assert "has no sketch (there is clip.mkv); expected sketch.mp4 or a folder sketch/" in message(load_shots, tmp_path)
    write_clip(tmp_path / "sketch.mkv", drawings(), 24)
    write_clip(tmp_path / "sketch", drawings(), 24)
    assert "has 2 sketches, sketch and sketch.mkv; keep one" in message(load_shots, tmp_path)
    (tmp_path / "empty").mkdir()
    assert "has no sketch; expected" in message(load_shots, tmp_path / "empty")
    assert "no such file; did you mean 'empty'?" in message(load_shots, tmp_path / "emtpy")


def test_a_shot_of_one_pixel_is_read(tmp_path):
    write_image(tmp_path / "sketch.png", np.full((1, 1, 3), 255, np.uint8))
    assert tuple(load_shot(tmp_path).shot.sketch.shape) == (1, 1, 1, 3)


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("frame_rte = 3", "unknown key 'frame_rte'; did you mean 'frame_rate'? (known: frame_rate, labels, options)"),
        ("frame_rate = 'fast'", "frame_rate: frame rate is 'fast'; give frames per second"),
        ("frame_rate = 0", "frame_rate: frame rate is 0; give frames per second"),
        ("frame_rate = ", "cannot be read as TOML ("),
        ("labels = 3", "labels: Input should be a valid dictionary (got 3)"),
        ("[labels]\nhero = 1", "labels.hero.[key]: Input should be a valid integer"),
        ("[labels]\n-1 = 1", "labels.-1.[key]: Input should be greater than or equal to 0"),
        (
            "[labels]\n1 = ['1_heroo.png']",
            "label 1 names reference '1_heroo.png'; the references are 0_background.png, 1_hero.png; did you",
        ),
        ("[labels]\n1 = 2", "label 1 names reference 2; the references are 0_background.png, 1_hero.png"),
    ],
)
def test_faults_in_shot_toml(tmp_path, toml, expected):
    assert expected in message(load_shots, make_shot(tmp_path, toml=toml))


def test_a_label_map_without_labels(tmp_path):
    make_shot(tmp_path, labels=(), toml="[labels]\n1 = 1")
    assert "maps labels but there are none; add labels.npz or labels/" in message(load_shots, tmp_path)


# ------------------------------------------------------------------------------------------------------ the authors' job file


def make_job(folder: Path, **changes) -> Path:
    write_clip(folder / "in" / "sketch.mkv", drawings(9), 24, overwrite=True)
    for name in ("bg", "a"):
        write_image(folder / "in" / f"{name}.png", colour(), overwrite=True)
    np.savez(folder / "in" / "mask.npz", mask=stripes((0, 1), 9).astype(np.int64))
    job = {
        "caption": "a run", "sketch_control_path": "in/sketch.mkv", "reference_paths": ["in/bg.png", "in/a.png"],
        "identity_mask_npz_path": "in/mask.npz", "num_inference_steps": 50, "num_frames": 5, "frame_rate": 15,
        "height": 480, "width": 720, "custom_output_name": "out",
    } | changes  # fmt: skip
    path = folder / "job.json"
    path.write_text(json.dumps({"data": [{key: value for key, value in job.items() if value != "left out"}]}))
    return path


def test_the_authors_job_is_read(tmp_path):
    (file,) = load_shots(make_job(tmp_path))
    shot = file.shot
    assert shot.name == "out"
    assert shot.frame_rate == 15
    assert np.array_equal(shot.sketch[:], drawings(5))
    assert shot.labels is not None
    assert np.array_equal(shot.labels.video[3:9], stripes((0, 1), 2))
    assert dict(shot.labels.references) == {0: (0,), 1: (1,)}
    assert [r.name for r in shot.references] == ["bg.png", "a.png"]
    assert file.options == {"steps": 50, "size": (480, 720), "caption": "a run", "output_name": "out"}


def test_a_job_needs_little(tmp_path):
    left_out = ("caption", "num_inference_steps", "num_frames", "frame_rate", "height", "width", "custom_output_name")
    changes = dict.fromkeys((*left_out, "identity_mask_npz_path"), "left out")
    path = make_job(tmp_path, reference_paths=["in/a.png"], **changes)
    file = load_shot(path)
    assert file.options == {}
    assert (file.shot.name, file.shot.frame_rate, file.shot.labels) == ("sketch", 24, None)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"data": content["data"] * 3}))
    assert len(load_shots(path)) == 3
    assert "holds 3 shots; expected one" in message(load_shot, path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"captoin": "x"}, "unknown key 'data.0.captoin'; did you mean 'caption'? (known: sketch_control_path,"),
        ({"sketch_control_path": "left out"}, "data.0.sketch_control_path: Field required"),
        ({"sketch_control_path": "in/sketsh.mkv"}, "no such file; did you mean 'sketch.mkv'?"),
        ({"reference_paths": ["in/bg.png", "in/b.png"]}, "b.png: no such file"),
        ({"num_frames": 99}, "num_frames is 99 but the sketch has 9; give 9 or less"),
        ({"num_frames": 0}, "data.0.num_frames: Input should be greater than or equal to 1 (got 0)"),
        ({"width": "left out"}, "gives only one of height and width; give both or neither"),
        ({"height": "tall"}, "data.0.height: Input should be a valid integer"),
        (
            {"reference_paths": ["in/bg.png"]},
            "label 1 (frames 0-4) has no reference (labels with one: 0); add a path to reference_paths",
        ),
    ],
)
def test_faults_in_a_job(tmp_path, changes, expected):
    assert expected in message(load_shots, make_job(tmp_path, **changes))


def test_jobs_that_are_no_jobs(tmp_path):
    for content, expected in (
        ("{", "cannot be read as JSON"),
        ("[]", "content: Input should be"),
        ('{"data": []}', "data: List should have"),
    ):
        (tmp_path / "job.json").write_text(content)
        assert expected in message(load_shots, tmp_path / "job.json")


def test_a_job_mask_of_another_length(tmp_path):
    path = make_job(tmp_path, num_frames="left out")
    np.savez(tmp_path / "in" / "mask.npz", mask=stripes((0, 1), 8))
    assert f"labels are (8, {H}, {W}) but the sketch is (9, {H}, {W})" in message(load_shots, path)


# ------------------------------------------------------------------------------------------------------- real data, if there


@pytest.mark.skipif(not (SHARED / "cc0").is_dir(), reason="no ../shared/cc0 here")
def test_cc0_shots_load_as_they_are():
    expected = {
        "cc0_hills_dancer": {0: (0,), 1: (1,)},
        "cc0_room_greeter": {0: (0,), 1: (1,)},
        "cc0_street_pair": {0: (0,), 1: (1,), 2: (2,)},
        "cc0_beach_talk": {0: (0,), 1: (1,), 2: (2, 3)},
    }
    for name, references in expected.items():
        shot = load_shot(SHARED / "cc0" / name).shot
        assert dict(shot.labels.references) == references
        assert tuple(shot.sketch.shape) == (17, 480, 720, 3)
        assert [r.role for r in shot.references[:2]] == ["background", "character"]
        require_line_art(shot.sketch, name)
        with pytest.raises(ValueError, match="looks like a colour picture"):
            require_line_art(open_frames(SHARED / "cc0" / name / "colour"), name)
        assert read_labels(SHARED / "cc0" / name / "labels").shape == (17, 480, 720)


@pytest.mark.skipif(not (SHARED / "real").is_dir(), reason="no ../shared/real here")
def test_real_shots_load_and_are_told_from_colour():
    counts = {"start_1": 1, "start_2": 1, "any_1": 1, "multi_1": 3, "multi_2": 2, "multi_3": 3, "flats_1": 0}
    for name, count in counts.items():
        shot = load_shot(SHARED / "real" / name).shot
        assert len(shot.references) == count
        assert all(isinstance(r, Reference) for r in shot.references)
        require_line_art(shot.sketch, name)
    for name in ("sheet_1/clip.mp4", "sheet_2/clip.mp4", "long_1/colour", "flats_1/colour"):
        with pytest.raises(ValueError, match="looks like a colour picture"):
            require_line_art(load_shot(SHARED / "real" / name).shot.sketch, name)
    assert "has no sketch (there is clip.mp4)" in message(load_shots, SHARED / "real" / "sheet_1")
