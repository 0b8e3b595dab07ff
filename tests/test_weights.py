import numpy as np
import pytest

from timecolor.colorize import Colorizer
from timecolor.evaluate import copy_baseline, psnr
from timecolor.weights import EMBEDDED
from timecolor.world import HELD_OUT_SEED, World


@pytest.mark.parametrize("protocol", ["start frame", "arbitrary frame", "multi-reference"])
def test_embedded_weights_beat_pasting_the_reference(protocol):
    """On held-out shots that neither training nor the choice of settings has seen."""
    colorizer = Colorizer.load("toon")
    gains = []
    for index in range(2000, 2004):
        shot, truth = World(HELD_OUT_SEED, 256, 384, frames=3).shot(index).to_shot(protocol)
        pasted = copy_baseline(shot)
        shown = [t for t in range(3) if not np.array_equal(pasted[t], truth[t])]  # not the reference itself
        result = colorizer.colorize(shot)
        gains.append(psnr(result[shown], truth[shown]) - psnr(pasted[shown], truth[shown]))
    assert np.mean(gains) > 0


def test_embedded_weights_are_small():
    assert EMBEDDED.stat().st_size <= 32 * 2**20
