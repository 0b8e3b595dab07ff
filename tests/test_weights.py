import numpy as np

from timecolor.colorize import Colorizer
from timecolor.evaluate import copy_baseline, psnr
from timecolor.weights import EMBEDDED, digest
from timecolor.world import HELD_OUT_SEED, World


def gain(protocol: str) -> float:
    """Mean PSNR (dB) over pasting the reference, on held-out shots that neither training nor any choice has seen."""
    colorizer = Colorizer.load("toon")
    gains = []
    for index in range(2000, 2006):
        shot, truth = World(HELD_OUT_SEED, 256, 384, frames=3).shot(index).to_shot(protocol)
        result = colorizer.colorize(shot)
        gains.append(psnr(result, truth) - psnr(copy_baseline(shot), truth))
    return float(np.mean(gains))


def test_embedded_weights_beat_pasting_the_plate():
    assert gain("multi-reference") > 1


def test_embedded_weights_are_small():
    files = list(EMBEDDED.parent.glob("*.safetensors"))
    assert len(files) == 4
    assert sum(file.stat().st_size for file in files) <= 48 * 2**20


def test_a_digest_is_of_what_files_hold_and_of_their_order(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"a")
    other.write_bytes(b"b")
    assert digest([one, other]) == "fb8e20fc2e4c3f24"  # SHA-256 of "ab"
    assert digest([other, one]) != digest([one, other])
