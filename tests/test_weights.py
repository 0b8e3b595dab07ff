import numpy as np

from timecolor.colorize import Colorizer
from timecolor.evaluate import copy_baseline, psnr
from timecolor.weights import EMBEDDED
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
    assert EMBEDDED.stat().st_size <= 32 * 2**20
