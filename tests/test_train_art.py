"""Drawings by others: only free ones are taken, parts keep their numbers when bent, scenes are a function of the step."""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from timecolor.train import art
from timecolor.train.__main__ import run
from timecolor.train.art import Art, Piece, collect
from timecolor.train.matching import Matching, Steps, make_pairs
from timecolor.train.presets import PRESETS, Views

DEBUG = replace(PRESETS["debug-matcher"], art=1.0)
CPU = torch.device("cpu")
SVG = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" width="100" height="80">
<metadata><rdf:RDF><license rdf:resource="{licence}"/></rdf:RDF></metadata>
<rect x="5" y="5" width="90" height="70" fill="#c04030" stroke="black" stroke-width="0.5"/>
<rect x="20" y="20" width="20" height="40" fill="#30a060"/><circle cx="70" cy="40" r="15" fill="#3050c0"/></svg>"""
FREE = "http://web.resource.org/cc/PublicDomain"


def picture(seed: int = 0) -> np.ndarray:
    """Three parts and a black outline, on nothing; uint8 (200, 160, 4)."""
    image = np.zeros((200, 160, 4), np.uint8)
    red, green, blue = np.random.default_rng(seed).integers(60, 250, (3, 3)).tolist()
    cv2.rectangle(image, (20, 20), (140, 180), (*red, 255), -1)
    cv2.rectangle(image, (20, 20), (140, 180), (0, 0, 0, 255), 2)
    cv2.circle(image, (60, 70), 20, (*green, 255), -1)
    cv2.rectangle(image, (90, 100), (130, 160), (*blue, 255), -1)
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(4):
        piece = Piece.of(picture(seed))
        assert piece is not None
        for variant in range(1 + seed % 2):
            piece.save(tmp_path / f"figure-{seed}.{variant}.png")
    return tmp_path


def test_a_picture_is_told_apart_by_its_flat_colours_and_its_lines_are_no_part():
    piece = Piece.of(picture())
    assert piece is not None
    assert piece.parts == 3
    assert piece.index.shape == (163, 123)  # cut to what is there, the line's outer half with it
    assert (piece.colours[4:] == 0).all()  # the outline comes after the parts
    sizes = np.bincount(piece.index.reshape(-1))
    assert sizes[0] <= 4  # the rounded corners
    assert sizes[1] > sizes[2] > sizes[3] > 1000


@pytest.mark.parametrize("what", ["empty", "painted", "plain"])
def test_what_is_no_flat_drawing_is_left_out(what):
    image = picture()
    if what == "empty":
        image[:] = 0
    elif what == "painted":
        image[..., :3] = np.random.default_rng(0).integers(0, 255, (200, 160, 3))
    else:
        image[20:181, 20:141, :3] = 90
    assert Piece.of(image) is None


def test_a_stored_piece_is_what_it_was(tmp_path):
    piece = Piece.of(picture())
    assert piece is not None
    piece.save(tmp_path / "one.0.png")
    again = Piece.load(tmp_path / "one.0.png")
    assert again.parts == piece.parts
    assert np.array_equal(again.index, piece.index)
    assert np.array_equal(again.colours, piece.colours[: piece.index.max() + 1])
    cv2.imwrite(str(tmp_path / "two.0.png"), picture())
    with pytest.raises(ValueError, match="make the folder anew"):
        Piece.load(tmp_path / "two.0.png")


def test_parts_keep_their_numbers_however_they_are_bent(folder):
    rng = np.random.default_rng(3)
    scene = Art(folder).scene(rng, 160, 240, 3)
    known: dict[int, tuple[int, ...]] = {}
    for _ in range(4):
        drawn = scene.drawn(rng)
        lone, parts = scene.figure(rng, 0)
        for colour, own in ((drawn.colour, drawn.parts), (lone.image, parts)):
            for part in set(np.unique(own).tolist()) - {0}:
                inside = cv2.erode((own == part).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
                if inside.sum() < 20:
                    continue
                flat, counts = np.unique(colour[inside], axis=0, return_counts=True)
                assert known.setdefault(part, tuple(flat[counts.argmax()].tolist())) == tuple(flat[counts.argmax()].tolist())
                assert part % 2 == 0
        assert set(np.unique(drawn.labels).tolist()) <= set(range(len(scene) + 1))
        assert ((drawn.parts == 0) == (drawn.labels == 0)).all()
    assert len(known) >= 3


def test_batches_of_art_are_a_function_of_preset_and_step(folder):
    one, two = (Steps(DEBUG, Art(folder)) for _ in range(2))
    for step in range(3):
        assert all(torch.equal(a, b) for a, b in zip(one[step], two[step], strict=True))
    batch = make_pairs(DEBUG, Views(64, 96, 8, 1.0), 0, range(8), True, Art(folder))
    assert (batch.drawing[:, 0] > 0.3).flatten(1).any(dim=1).all()
    asked = [set(p[c].tolist()) - {0} for p, c in zip(batch.parts, batch.counted, strict=True)]
    shown = [set(p[s].tolist()) - {0} for p, s in zip(batch.theirs, batch.shown, strict=True)]
    assert all(asked)
    assert sum(bool(a & s) for a, s in zip(asked, shown, strict=True)) >= 7


def test_a_preset_with_art_needs_it_and_others_do_without(folder, tmp_path):
    with pytest.raises(ValueError, match=r"give --data, made by `python -m timecolor\.train\.art`"):
        Matching(DEBUG, CPU)
    assert Matching(PRESETS["debug-matcher"], CPU) is not None
    with pytest.raises(ValueError, match="leave it out"):
        run("debug", tmp_path / "run", "cpu", None, None, None, None, None, print, data=folder)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="holds 0 drawings"):
        Art(tmp_path / "none")


def test_only_clip_art_that_says_it_is_free_is_taken(tmp_path):
    pytest.importorskip("resvg_py")
    for folder, name, licence in (
        ("animals", "cat", FREE),
        ("animals", "dog", "http://creativecommons.org/licenses/by-sa/4.0"),
        ("signs_and_symbols", "stop", FREE),
    ):
        (tmp_path / "in" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / folder / f"{name}.svg").write_text(SVG.format(licence=licence))
    (tmp_path / "in" / "animals" / "broken.svg").write_text(f'<svg><license rdf:resource="{FREE}"')
    said: list[str] = []
    assert collect(tmp_path / "out", tmp_path / "in", 0, said.append) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip-animals-cat.0.png"]
    assert Piece.load(tmp_path / "out" / "clip-animals-cat.0.png").parts == 3
    with pytest.raises(FileNotFoundError, match="openclipart-svg"):
        collect(tmp_path / "out", tmp_path / "nowhere", 0, said.append)


def test_heads_come_in_several_expressions_and_their_licences_are_checked(tmp_path, monkeypatch):
    pytest.importorskip("dicebear")
    pytest.importorskip("resvg_py")
    monkeypatch.setattr(art, "STYLES", ("micah",))
    assert collect(tmp_path, None, 2, print) == 2
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"micah-{head}.{variant}.png" for head in range(2) for variant in range(art.VARIANTS)]
    first, second = (Piece.load(tmp_path / f"micah-0.{variant}.png").index for variant in (0, 1))
    assert first.shape != second.shape or not np.array_equal(first, second)
    monkeypatch.setattr(art, "STYLES", ("avataaars",))
    with pytest.raises(ValueError, match="Free for personal and commercial use"):
        collect(tmp_path, None, 1, print)


def test_the_command_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["art", "--out", str(tmp_path), "--heads", "1"])
    monkeypatch.setitem(sys.modules, "dicebear_styles", None)
    with pytest.raises(SystemExit, match=r"timecolor\[art\]"):
        art.main()
