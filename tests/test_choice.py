"""Which of the offered colours a region takes: what is known of each offer, and what the embedded network makes of it."""

from dataclasses import replace

import numpy as np
import pytest

from timecolor.choice import FEATURES, NAMES, OWN, PLATE, SOURCES, VOTED, Judge, Network, Offers, features, judge
from timecolor.finish.lab import alike, to_lab

SIGNS = ("apart", "around", "misfit", "most")


def offers(own, plates=(), voted=None, named=False, unexplained=0.3, mixed=True, **signs) -> Offers:
    """Of one region: its own colour, a voted one, and plates'. signs: of each plate. mixed: its own is nothing but votes."""
    colours = np.array([[own, voted or own, *plates]], float) / 255
    k = colours.shape[1]
    values = {name: np.zeros((1, k)) for name in SIGNS}
    for name, of in {"apart": 10, "around": 10, "misfit": 0.1, "most": 1.0, **signs}.items():
        values[name][0, PLATE:] = of
    lab = to_lab(colours)
    return Offers(
        regions=np.zeros(1, int),
        size=np.array([0.001]),
        pixels=np.zeros(1, int),
        of=np.zeros(1, int),
        colours=colours,
        lab=lab,
        there=np.array([[True, voted is not None, *[True] * len(plates)]]),
        source=np.array([0, 1, *(min(PLATE + i, SOURCES - 1) for i in range(len(plates)))]),
        unexplained=np.array([unexplained]),
        inside=np.array([0.2]),
        known=np.array([0.95 if voted else 0.0]),
        likeliest=np.array([0.9 if voted else 0.0]),
        believed=0.9 * alike(lab[0], lab[0, 1:2]).T if voted else np.zeros((1, k)),
        mixed=mixed,
        named=np.array([[False, False, *[named] * len(plates)]]),
        **values,
    )


GREY, RED, BLUE = (128, 128, 128), (204, 26, 26), (26, 26, 204)


def test_features_name_the_source_and_compare_the_offers():
    what = features(offers(GREY, [RED, RED, BLUE], around=[30, 10, 50]))
    assert what.shape == (1, 5, FEATURES)
    assert np.isfinite(what).all()
    assert what[0, :, -SOURCES:].argmax(axis=1).tolist() == [OWN, VOTED, PLATE, PLATE + 1, PLATE + 2]
    agreeing, behind = what[0, :, NAMES.index("agreeing")], what[0, 2:, NAMES.index("more_around")]
    assert agreeing[2] == agreeing[3] > agreeing[4]
    assert behind[1] == 0 < behind[0] < behind[2]


def test_features_say_what_part_of_the_votes_is_for_each_offer():
    what = features(offers(GREY, [RED, BLUE], voted=BLUE))[0]
    votes = what[:, NAMES.index("votes")]
    assert votes[VOTED] == votes[PLATE + 1] > 0.8 > 0.1 > votes[PLATE]
    assert what[PLATE, NAMES.index("less_votes")] < -0.7
    assert not features(offers(GREY, [RED, BLUE]))[0, :, NAMES.index("votes")].any()


def test_a_network_takes_the_offer_with_the_highest_score_that_is_there():
    weight = np.zeros((1, 1, FEATURES), np.float32)
    weight[0, 0, -SOURCES + VOTED] = 2
    weight[0, 0, -SOURCES + PLATE] = 1
    by_source = Judge(Network(((weight, np.zeros((1, 1), np.float32)),)))
    assert by_source(offers(GREY, [RED], voted=BLUE)).tolist() == [VOTED]
    assert by_source(offers(GREY, [RED])).tolist() == [PLATE]
    assert by_source(offers(GREY)).tolist() == [OWN]
    shy = Judge(Network(((-weight, np.zeros((1, 1), np.float32)),)))
    assert shy(offers(GREY, [RED])).tolist() == [OWN]
    assert shy(offers(GREY, [RED], voted=BLUE)).tolist() == [VOTED]  # which stands in for the own
    assert shy(offers(GREY, [RED], voted=BLUE, mixed=False)).tolist() == [OWN]


def test_an_own_colour_stays_where_the_best_offer_is_as_good_as_the_same():
    """What is chosen makes a region flat, which its own cells need not be."""
    weight = np.zeros((1, 1, FEATURES), np.float32)
    weight[0, 0, -SOURCES + PLATE] = 1
    by_source = Judge(Network(((weight, np.zeros((1, 1), np.float32)),)))
    nearly = (GREY[0] + 9, *GREY[1:])
    assert by_source(offers(GREY, [nearly], mixed=False)).tolist() == [OWN]
    assert by_source(offers(GREY, [nearly])).tolist() == [PLATE]
    assert by_source(offers(GREY, [RED], mixed=False)).tolist() == [PLATE]


def test_members_of_a_network_speak_with_one_voice():
    rng = np.random.default_rng(0)
    shapes = ((3, 5, FEATURES), (3, 4, 5), (3, 1, 4))
    layers = tuple((rng.normal(size=s).astype(np.float32), rng.normal(size=s[:2]).astype(np.float32)) for s in shapes)
    what = rng.normal(size=(10, 700, FEATURES))
    alone = [Network(tuple((weight[i : i + 1], bias[i : i + 1]) for weight, bias in layers))(what) for i in range(3)]
    assert np.ptp(alone, axis=0).mean() > 0.1
    assert np.allclose(Network(layers)(what), np.mean(alone, axis=0), atol=1e-4)
    assert Network(layers)(what[:0]).shape == (0, 700)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        # A plate that is as the model has it around the region knows the region better.
        (offers(GREY, [RED], apart=20, around=4, misfit=0.05), PLATE),
        # One that shows something else is of another moment.
        (offers(GREY, [RED], apart=60, around=60, misfit=0.7, most=0.4, unexplained=0.02), OWN),
        # Of two the likelier.
        (offers(GREY, [RED, BLUE], apart=[60, 15], around=[50, 4], misfit=[0.6, 0.05]), PLATE + 1),
        # Places that agree.
        (offers(GREY, voted=RED), VOTED),
    ],
)
def test_the_embedded_network_has_learned_what_one_would_expect(given, taken):
    assert judge()(given).tolist() == [taken]


def test_nothing_to_choose_from_is_no_error():
    none = offers(GREY, [RED])
    empty = {name: getattr(none, name)[:0] for name in Offers.__dataclass_fields__ if name not in ("source", "mixed")}
    assert judge()(replace(none, **empty)).shape == (0,)
