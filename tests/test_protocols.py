"""Datasets and protocols: what becomes a case, and what is refused by file and line."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import painted_image, sketch_clip

from timecolor.evaluate.protocols import (
    PROTOCOLS,
    Broken,
    Case,
    Selection,
    Source,
    peer_videos,
    sources,
)
from timecolor.media import InputError, write_clip, write_image

SMALL = Selection(shots=1, frames=3, height=64, width=96)


def clip(frames: int = 5, height: int = 48, width: int = 64) -> np.ndarray:
    """Colour frames that all differ, with a dark line each."""
    made = np.stack([painted_image(t, height, width) for t in range(frames)])
    made[sketch_clip(frames, height, width) < 128] = 0
    return made


def shot_folder(folder: Path, frames: int = 5, labels: bool = True) -> Path:
    """A shot with truth, a plate, a character, and its labels."""
    write_clip(f"{folder}/sketch/", sketch_clip(frames), 24)
    write_clip(f"{folder}/colour/", clip(frames), 24)
    for name in ("0_background.png", "1_hero.png"):
        write_image(folder / "references" / name, painted_image(len(name)))
    if labels:
        video = np.zeros((frames, 48, 64), np.uint8)
        video[:, :, 32:] = 1
        np.savez(folder / "labels.npz", mask=video)
    return folder


def only(dataset: object, selection: Selection = Selection()) -> Source:
    found = list(sources(str(dataset), selection))
    assert len(found) == 1
    assert isinstance(found[0], Source), found[0].why
    return found[0]


def why(dataset: object, selection: Selection = Selection()) -> str:
    """Of the one broken shot of a dataset."""
    broken = [s for s in sources(str(dataset), selection) if isinstance(s, Broken)]
    assert len(broken) == 1
    return str(broken[0].why)


# ------------------------------------------------------------------------------------------------------------- the world


@pytest.fixture(scope="module")
def drawn() -> dict[str, Case]:
    """World shot 1000 under every protocol."""
    source = only("world", SMALL)
    return {protocol: source.case(protocol) for protocol in source.protocols}


def test_the_world_has_every_protocol(drawn):
    assert tuple(drawn) == PROTOCOLS
    for protocol, case in drawn.items():
        assert (case.dataset, case.protocol, case.name) == ("world", protocol, "world/1000")
        assert case.truth is not None
        assert case.painted is not None
        assert case.truth.shape == case.shot.sketch.shape == (3, 64, 96, 3)
        assert case.painted.shape == (3, 64, 96)
        assert case.scored


def test_the_reference_frame_and_its_copies_are_never_scored(drawn):
    for protocol in ("start frame", "arbitrary frame"):
        case = drawn[protocol]
        at = int(case.shot.references[0].name.removeprefix("frame "))
        assert (at == 0) == (protocol == "start frame")
        assert np.array_equal(case.shot.references[0].image, case.truth[at])
        assert at not in case.scored
        if any(not np.array_equal(frame, case.truth[at]) for frame in case.truth):
            assert not any(np.array_equal(case.truth[t], case.truth[at]) for t in case.scored)


def test_without_labels_the_shot_tells_none_but_the_measures_know_them(drawn):
    told, untold = drawn["multi-reference with labels"], drawn["multi-reference without labels"]
    assert told.shot.labels is told.areas is not None
    assert untold.shot.labels is None
    assert np.array_equal(untold.areas.video, told.areas.video)
    assert [r.role for r in untold.shot.references] == [r.role for r in told.shot.references] == ["background", "character"]


def test_a_sheet_shows_views_of_a_character_and_no_place(drawn):
    case = drawn["character sheet"]
    assert [r.role for r in case.shot.references] == ["sheet"]
    assert case.shot.references[0].alpha is not None
    labels = drawn["multi-reference with labels"].areas.video
    assert not case.painted[labels == 0].any()
    far = case.shot.sketch.min(axis=-1) == 255
    assert (case.truth[far & (labels == 0)] == 255).all()


def test_cases_are_the_same_again(drawn):
    again = only("world", SMALL).case("arbitrary frame")
    assert np.array_equal(again.truth, drawn["arbitrary frame"].truth)
    assert again.shot.references[0].name == drawn["arbitrary frame"].shot.references[0].name


# ---------------------------------------------------------------------------------------------------------- shots, clips


def test_a_labelled_shot_has_four_protocols(tmp_path):
    source = only(shot_folder(tmp_path / "run"), Selection(frames=4))
    assert source.protocols == PROTOCOLS[:4]
    case = source.case("start frame")
    assert case.shot.sketch.shape == (4, 48, 64, 3)
    assert case.scored == (1, 2, 3)
    bound = source.case("multi-reference with labels")
    assert bound.shot.labels.video.shape == (4, 48, 64)
    assert bound.scored == (0, 1, 2, 3)


def test_an_arbitrary_frame_may_lie_beyond_the_frames_taken(tmp_path):
    shot_folder(tmp_path / "run", frames=12)
    picked = set()
    for seed in range(8):
        found = next(iter(sources(str(tmp_path / "run"), Selection(frames=3), seed)))
        case = found.case("arbitrary frame")
        at = int(case.shot.references[0].name.removeprefix("frame "))
        assert np.array_equal(case.shot.references[0].image, clip(12)[at])
        assert case.scored == tuple(t for t in range(3) if t != at)
        picked.add(at)
    assert len(picked) > 2
    assert max(picked) > 2


def test_held_copies_of_the_reference_are_not_scored(tmp_path):
    held = clip(4)[[0, 0, 1, 1]]
    write_clip(tmp_path / "a.mkv", held, 12)
    assert only(tmp_path / "a.mkv").case("start frame").scored == (2, 3)
    write_clip(tmp_path / "b.mkv", held[[0, 0, 0]], 12)
    assert only(tmp_path / "b.mkv").case("start frame").scored == (1, 2)  # all copies: better these than none


def test_a_colour_clip_gets_its_lines_binarised_and_is_shrunk(tmp_path):
    write_clip(f"{tmp_path}/film/colour/", clip(3, 96, 128), 24)
    write_image(tmp_path / "film" / "sheet.png", painted_image(7))
    source = only(tmp_path / "film", Selection(long_side=64))
    assert source.protocols == ("start frame", "arbitrary frame", "character sheet")
    case = source.case("character sheet")
    assert set(np.unique(case.shot.sketch)) == {0, 255}
    assert case.truth.shape == (3, 48, 64, 3)
    assert [r.role for r in case.shot.references] == ["sheet"]


def test_a_folder_holds_shots_clips_and_videos(tmp_path):
    shot_folder(tmp_path / "b10")
    shot_folder(tmp_path / "b9", labels=False)
    write_clip(f"{tmp_path}/images/", clip(2), 24)
    write_clip(tmp_path / "video.mkv", clip(2), 24)
    (tmp_path / "README.md").write_text("of the data")
    found = list(sources(str(tmp_path), Selection()))
    assert [s.name for s in found] == ["b9", "b10", "images", "video"]
    assert [s.name for s in sources(str(tmp_path), Selection(shots=2))] == ["b9", "b10"]


def test_a_shot_without_truth_is_only_looked_at(tmp_path):
    for name in ("start_1", "any_1"):
        write_clip(f"{tmp_path}/{name}/sketch/", sketch_clip(2), 24)
        write_image(tmp_path / name / "reference_0.png", painted_image(1))
    write_clip(tmp_path / "any_1" / "peers" / "lvcd.mp4", clip(2), 24)
    found = {s.name: s for s in sources(str(tmp_path), Selection())}
    assert found["start_1"].protocols == ("start frame",)
    assert found["any_1"].protocols == ("arbitrary frame",)
    assert list(found["any_1"].peers) == ["lvcd"]
    case = found["any_1"].case("arbitrary frame")
    assert case.truth is None
    assert case.scored == ()


def test_sheets_must_cover_every_labelled_character(tmp_path):
    folder = shot_folder(tmp_path / "run")
    assert "character sheet" not in only(folder).protocols
    write_image(folder / "references" / "1_hero_sheet.png", painted_image(3))
    case = only(folder).case("character sheet")
    assert [r.name for r in case.shot.references] == ["1_hero_sheet.png"]


def test_peer_videos_go_by_their_names(tmp_path):
    for name in ("b.mp4", "a.mp4"):
        write_clip(tmp_path / name, clip(2), 24)
    assert list(peer_videos(tmp_path)) == ["a", "b"]
    assert peer_videos(tmp_path / "nowhere") == {}


# ------------------------------------------------------------------------------------------------------------- bad input


def test_a_missing_true_frame_is_named(tmp_path):
    folder = shot_folder(tmp_path / "run")
    gone = sorted((folder / "colour").iterdir())[2]
    drawing = sorted((folder / "sketch").iterdir())[2]
    gone.unlink()
    assert str(gone) in why(folder)
    assert drawing.name in why(folder)


def test_sizes_that_differ_are_named(tmp_path):
    folder = shot_folder(tmp_path / "run")
    for path in (folder / "colour").iterdir():
        write_image(path, painted_image(1, 40, 60), overwrite=True)
    assert "is 60x40 but the sketch is 64x48" in why(folder)
    first = sorted((folder / "colour").iterdir())[1]
    write_image(first, painted_image(1, 20, 20), overwrite=True)
    assert first.name in why(folder)


def test_a_truth_of_another_length_is_named(tmp_path):
    write_clip(f"{tmp_path}/run/sketch/", sketch_clip(3), 24)
    write_clip(tmp_path / "run" / "colour.mkv", clip(2), 24)
    assert "has 2 frames but the sketch has 3" in why(tmp_path / "run")


def test_a_clip_too_short_for_a_protocol_is_named(tmp_path):
    write_clip(f"{tmp_path}/still/colour/", clip(1), 24)
    source = only(tmp_path / "still")
    with pytest.raises(InputError, match=r"still: 1 frame is too few for 'arbitrary frame'; give at least 2"):
        source.case("arbitrary frame")


def test_a_dataset_that_is_not_there_or_empty_is_an_error(tmp_path):
    with pytest.raises(InputError, match="did you mean 'world'"):
        list(sources("worlds", Selection()))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no shots"):
        list(sources(str(tmp_path / "none"), Selection()))


def test_a_folder_of_neither_sketch_nor_colour_is_broken(tmp_path):
    (tmp_path / "notes" / "deep").mkdir(parents=True)
    assert "holds neither a sketch nor colour frames" in why(tmp_path)


@pytest.mark.parametrize("wrong", [{"shots": 0}, {"frames": 0}, {"height": 8}])
def test_impossible_selections_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Selection(**wrong)


# ------------------------------------------------------------------------------------------------------------- manifests


@pytest.fixture
def videos(tmp_path) -> Path:
    """Two videos of 10 frames at 10 a second, as Sakuga-42M's downloader names them."""
    for name in ("7.mkv", "8.mkv"):
        write_clip(tmp_path / name, clip(10), 10)
    return tmp_path


HEAD = "identifier,url_link,scene_start_time,scene_end_time,fps,text_description\n"


def manifest(folder: Path, *lines: str, head: str = HEAD) -> Path:
    path = folder / "test.csv"
    path.write_text(head + "".join(line + "\n" for line in lines))
    return path


def test_scenes_of_a_csv_are_cut_by_their_times(videos):
    path = manifest(
        videos,
        '7:0,https://x.y/7.mkv,00:00:00.000,00:00:00.400,10.0,"a boy, running"',
        "7:1,https://x.y/7.mkv,00:00:00.400,00:00:01.000,10.0,",
        "8:0,https://x.y/8.mkv?a=b,,nan,10.0,",
    )
    found = list(sources(str(path), Selection()))
    assert [s.name for s in found] == ["7:0", "7:1", "8:0"]
    assert {s.dataset for s in found} == {"test"}
    first, second, whole = (s.case("start frame") for s in found)
    assert np.array_equal(first.truth, clip(10)[0:4])
    assert np.array_equal(second.truth, clip(10)[4:10])
    assert np.array_equal(second.shot.references[0].image, clip(10)[4])
    assert second.scored == (1, 2, 3, 4, 5)
    assert whole.truth.shape[0] == 10
    far = int(found[1].case("arbitrary frame").shot.references[0].name.removeprefix("frame "))
    assert 1 <= far < 6


def test_scenes_of_jsonl_may_name_their_file(videos):
    rows = [{"path": "7.mkv", "scene_start_time": 0.2, "scene_end_time": 0.5}, {"path": "7.mkv"}, {"identifier": "8:3"}]
    path = videos / "clips.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in rows))
    found = list(sources(str(path), Selection()))
    assert [s.name for s in found] == ["7", "7:3", "8:3"]
    assert np.array_equal(found[0].case("start frame").truth, clip(10)[2:5])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("7:0,https://x.y/7.mkv,0:00:00", "has another number of cells than the header's 6"),
        ("7,https://x.y/7.mkv,,,,", "identifier is '7'; expected VIDEO:CLIP"),
        (",,,,,", "has neither identifier nor path"),
        ("9:0,https://x.y/9.mkv,,,,", "9.mkv is not there"),
        ("7:0,https://x.y/7.mkv,soon,00:00:01,10,", "scene_start_time is 'soon'"),
        ("7:0,https://x.y/7.mkv,0.1,,10,", "scene_end_time is ''"),
        ("7:0,https://x.y/7.mkv,0.5,0.5,10,", "the scene is 0.5 to 0.5"),
        ("7:0,https://x.y/7.mkv,0.5,1.5,10,", "7.mkv has 10 frames"),
    ],
)
def test_a_broken_line_is_named_by_its_number_and_the_others_stand(videos, line, told):
    path = manifest(videos, "8:0,https://x.y/8.mkv,,,,", line)
    good, bad = sources(str(path), Selection())
    assert isinstance(good, Source)
    assert isinstance(bad, Broken)
    assert f"{path}:3: " in str(bad.why)
    assert told in str(bad.why)


def test_the_same_scene_twice_is_broken(videos):
    path = manifest(videos, "7:0,,,,,", "7:0,,,,,")
    assert f"{path}:3: 7:0 stands in line 2 already" in why(path)


def test_a_broken_json_line_is_named(videos):
    path = videos / "clips.jsonl"
    path.write_text('{"path": "7.mkv"}\n{"path": \n')
    assert f"{path}:2: is not JSON" in why(path)


def test_a_manifest_without_the_columns_is_an_error(videos):
    with pytest.raises(InputError, match=r"test.csv:1: the header has identifer, url; expected identifier or path.*identifer"):
        list(sources(str(manifest(videos, head="identifer,url\n")), Selection()))
