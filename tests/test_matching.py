"""References carried onto drawings by the matcher: what is asked for, what is found, and what is made of it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from timecolor import matching, weights
from timecolor.denoiser import Picture
from timecolor.finish import Vote, lab
from timecolor.finish.lab import alike, to_lab
from timecolor.matcher import STRIDE, Matcher, MatcherConfig
from timecolor.matching import LOOKS, Area, Carrier, figures_whole, on_paper
from timecolor.sketch import lines_in

RED, BLUE, GREEN = (200, 40, 40), (40, 40, 200), (40, 160, 60)
SMALL = MatcherConfig(widths=(8, 16), describe=8)


@pytest.fixture(scope="module")
def embedded() -> Matcher:
    return weights.load_matcher()


@pytest.fixture(scope="module")
def small() -> Matcher:
    torch.manual_seed(0)
    return Matcher(SMALL).eval()


@pytest.fixture(scope="module")
def attending() -> Matcher:
    """A matcher whose attention says something, as after training."""
    torch.manual_seed(0)
    matcher = Matcher(MatcherConfig((8, 16), 8, attention=2)).eval()
    for layer in matcher.attention:
        for part in (layer.out, layer.narrow):
            torch.nn.init.normal_(part.weight, std=0.3)
        torch.nn.init.normal_(layer.theirs, std=0.3)
    return matcher


def figure(scale=1.0, at=(120, 84), mirrored=False, size=(160, 240), colours=(RED, BLUE, GREEN)):
    """A bird of three parts, and where it is."""
    fills, lines = np.full((*size, 3), 255, np.uint8), np.zeros(size, np.uint8)
    shown = np.zeros(size, np.uint8)

    def points(*xy):
        return np.array([(round(at[0] + (-x if mirrored else x) * scale), round(at[1] + y * scale)) for x, y in xy])

    body = cv2.ellipse2Poly((0, 10), (26, 34), 0, 0, 360, 8)
    head = cv2.ellipse2Poly((4, -36), (16, 16), 0, 0, 360, 12)
    wing = cv2.ellipse2Poly((-14, 12), (18, 9), 60, 0, 360, 12)
    for part, colour in ((body, colours[0]), (head, colours[1]), (wing, colours[2])):
        outline = points(*part)
        cv2.fillPoly(fills, [outline], colour)
        cv2.fillPoly(shown, [outline], 1)
        cv2.fillPoly(lines, [outline], 0)
        cv2.polylines(lines, [outline], True, 255, 1)
    return fills, lines, shown > 0


def picture(**how) -> tuple[Picture, np.ndarray]:
    fills, lines, shown = figure(**how)
    drawn = np.where(lines[..., None] > 0, np.uint8(0), fills)
    return Picture(drawn, fills, lines, shown), shown


GREY = np.full((20, 30, 3), 0.5, np.float32)


def recoloured(matcher, references, drawing, areas=None, own=GREY):
    """References on one drawing, all over its area unless areas are given."""
    pictures, shown = zip(*references, strict=True)
    _, lines, there = drawing
    everywhere = [Area(there, tuple(range(len(pictures))))]
    regions = np.zeros(lines.shape, np.int32)
    made = Carrier(matcher, pictures, shown).recoloured(own, lines, everywhere if areas is None else areas, regions).colours
    assert made.min() >= 0
    assert made.max() <= 1
    return made * 255


def right(found, truth) -> float:
    """Share of an area's places, off its lines, whose colour is near the true one."""
    fills, lines, shown = truth
    inside = (shown & (cv2.dilate(lines, np.ones((5, 5), np.uint8)) == 0))[1::STRIDE, 1::STRIDE]
    return float((np.abs(found - fills[1::STRIDE, 1::STRIDE]).max(axis=2)[inside] < 24).mean())


@pytest.mark.parametrize(
    "changed",
    [{}, {"at": (90, 70)}, {"mirrored": True}, {"scale": 1.4}, {"scale": 0.6}],
    ids=["as it is", "moved", "mirrored", "nearer", "farther"],
)
def test_a_figure_finds_its_colours_again(embedded, changed):
    drawing = figure(**changed)
    assert right(recoloured(embedded, [picture()], drawing), drawing) > 0.8


def test_colours_are_the_references_own_whatever_they_are(embedded):
    other = ((240, 200, 40), (60, 60, 60), (150, 60, 170))
    drawing = figure(at=(100, 80), colours=other)
    assert right(recoloured(embedded, [picture(colours=other)], drawing), drawing) > 0.8


def test_an_area_takes_only_from_its_own_references_and_the_rest_stays_as_it_is(embedded):
    first, second = picture(colours=((250, 250, 250),) * 3), picture(colours=((5, 5, 5),) * 3)
    drawing = figure()
    left = drawing[2] & (np.arange(240) < 120)
    halves = [Area(left, (0,)), Area(drawing[2] & ~left, (1,))]
    found = recoloured(embedded, [first, second], drawing, halves)
    bright, dark = (found[half.mask[1::STRIDE, 1::STRIDE]] for half in halves)
    assert bright.min() >= 127
    assert dark.max() <= 128
    assert bright.mean() > 200 > 55 > dark.mean()
    assert np.allclose(found[~drawing[2][1::STRIDE, 1::STRIDE]], 127.5)


def test_without_anything_to_take_from_colours_stay_as_they_are(small):
    shown, there = picture()
    drawing = figure()
    nothing = np.zeros_like(there)
    for known, areas in ((nothing, [Area(drawing[2], (0,))]), (there, [Area(drawing[2], ())]), (there, [Area(nothing, (0,))])):
        assert np.array_equal(recoloured(small, [(shown, known)], drawing, areas), GREY * 255)


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (16, 24)])
def test_a_place_every_stride_at_any_size(small, size):
    drawing = figure(scale=0.2, at=(size[1] // 2, size[0] // 2), size=size)
    places = tuple(-(-n // STRIDE) for n in size)
    assert recoloured(small, [picture(scale=0.2, at=(size[1] // 2, size[0] // 2), size=size)], drawing).shape == (*places, 3)
    assert small(torch.zeros(1, 2, *size))[0].shape == (1, SMALL.describe, *places)


def both(look, ramps):
    return np.stack([look(ramp) for ramp in np.moveaxis(ramps, 2, 0)], axis=2)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 16)])
def test_places_are_found_again_in_a_look(look, size):
    ramps = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=2).astype(np.uint8)
    seen = torch.from_numpy(matching._at_places(both(look, ramps)).astype(np.float32)).permute(2, 0, 1)
    area = np.zeros(size, bool)
    area[3:, 2:-5] = True
    away = look.back(seen, area).numpy() - matching._at_places(ramps)[matching._at_places(area)]
    assert np.abs(away).max() <= 2 * STRIDE
    assert np.abs(away.mean(axis=0)).max() <= 1


def test_what_looks_say_is_averaged(small, monkeypatch):
    shown, _ = picture()
    _, lines, _ = figure(at=(100, 84))

    def shares(*looks):
        monkeypatch.setattr(matching, "LOOKS", looks)
        return Carrier(small, [shown], [np.ones((160, 240), bool)]).followed(lines, (0,)).vote.shares

    plain, mirrored = (shares(look) for look in LOOKS)
    assert np.abs(plain - mirrored).max() > 1e-3
    assert np.allclose(shares(*LOOKS), (plain + mirrored) / 2, atol=1e-6)


def test_what_is_found_does_not_depend_on_what_was_asked_before(small):
    shown, where = picture()
    (_, lines, area), (_, other, there) = figure(), figure(at=(90, 70))
    carrier, regions = Carrier(small, [shown], [where]), np.zeros((160, 240), np.int32)
    first = carrier.recoloured(GREY, lines, [Area(area, (0,))], regions).colours
    carrier.recoloured(GREY, other, [Area(there, (0,))], regions)
    assert np.array_equal(first, carrier.recoloured(GREY, lines, [Area(area, (0,))], regions).colours)


def test_shares_sum_to_one_with_nothing_and_do_not_depend_on_how_densely_a_reference_is_described(small):
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(1, 5, 8, generator=generator), torch.randn(1, 7, 8, generator=generator)
    fits, nothing = small.likeness(queries, keys)
    twice, same = small.likeness(queries, torch.cat([keys, keys], dim=1))
    torch.testing.assert_close(fits.mean(2) / nothing, twice.mean(2) / same)
    longer, _ = small.likeness(3 * queries, 5 * keys)
    torch.testing.assert_close(longer, fits)
    scale = small.scale.exp()
    exact = (scale * (F.normalize(queries, dim=2) @ F.normalize(keys, dim=2).mT)).exp()
    torch.testing.assert_close(fits / fits.amax(2, keepdim=True), exact / exact.amax(2, keepdim=True))
    assert torch.maximum(fits.amax(2), nothing).allclose(torch.ones(1, 5))


@pytest.mark.parametrize("values", [3, 21])
def test_what_places_are_told_is_their_likeness_times_values_with_nothing_among_them(values):
    torch.manual_seed(0)
    small, generator = Matcher(SMALL), torch.Generator().manual_seed(1)
    queries, keys = 3 * torch.randn(5, 8, generator=generator), torch.randn(7, 8, generator=generator)
    said = torch.rand(7, values, generator=generator)
    with torch.no_grad():
        small.nothing_bias.fill_(0.7)
        fits, nothing = small.likeness(queries[None], keys[None])
        told = small.told(queries, keys, said)
        fits = fits[0] / 7
        torch.testing.assert_close(told, fits @ said / (fits.sum(1) + nothing[0])[:, None])
        torch.testing.assert_close(small.told(queries, keys.repeat(3, 1), said.repeat(3, 1)), told)


def test_an_area_is_described_as_the_piece_that_holds_it(small):
    picture = torch.zeros(2, 96, 160)
    picture[0, 20:60:5, 50:101:7], picture[1, 24:60, 52:100] = 1, 1
    with torch.inference_mode():
        found, piece = small.of_area(picture).places, small(picture[None, :, 8:76, 36:116])[0][0]
    assert found.shape == (SMALL.describe, 48, 80)
    torch.testing.assert_close(found[:, 4:38, 18:58], piece)
    assert not found[:, :4].any()
    assert not found[:, :, 58:].any()
    assert not small.of_area(torch.zeros(2, 30, 41)).places.any()


def test_a_drawing_looks_at_its_references_in_any_order_and_they_not_at_it(attending):
    drawing, one, other = torch.zeros(3, 2, 64, 96).unbind(0)
    for picture, step in ((drawing, 5), (one, 7), (other, 9)):
        picture[0, 10:50:step, 20:70] = 1
        picture[1, 8:52, 16:80] = 1
    with torch.inference_mode():
        seen = [attending.of_area(picture) for picture in (one, other)]
        alone, beside = attending.of_area(drawing).places, attending.of_area(drawing, seen).places
        torch.testing.assert_close(attending.of_area(drawing, seen[::-1]).places, beside)
        blank = attending.of_area(torch.zeros(2, 64, 96))
        torch.testing.assert_close(attending.of_area(drawing, [blank]).places, alone)
    assert (beside - alone).abs().max() > 0.01
    assert [len(view.tokens) for view in seen] == [2, 2]


@pytest.mark.parametrize("most", [1, 64])
def test_pictures_described_at_once_are_described_as_alone(attending, monkeypatch, most):
    """Boxes of one size and of others, with as many tokens of references and with fewer, none, and a blank picture."""
    monkeypatch.setattr("timecolor.matcher.AT_ONCE", most)
    generator = torch.Generator().manual_seed(0)
    pictures = (torch.rand(6, 2, 64, 96, generator=generator) > 0.7).float()
    pictures[:, 1] = 0
    for picture, (y, x, height, width) in zip(
        pictures, ((0, 0, 64, 96), (0, 0, 64, 96), (20, 30, 10, 20), (24, 40, 10, 20), (2, 60, 40, 36)), strict=False
    ):
        picture[1, y : y + height, x : x + width] = 1
    with torch.inference_mode():
        seen = [attending.of_area(picture) for picture in pictures]
        references = [seen[1:3], [seen[2]], [], seen[3:6], [seen[5]], seen[:1]]
        alone = [attending.of_area(*each) for each in zip(pictures, references, strict=True)]
        at_once = attending.of_areas(pictures, references)
        for one, other in zip(alone, at_once, strict=True):
            torch.testing.assert_close(one.places, other.places, atol=1e-4, rtol=1e-4)
            assert one.tokens.shape == other.tokens.shape
        assert not at_once[5].places.any()
        # In boxes of whole 16 pixels, where a picture is larger: a little differently.
        wide = Matcher(replace(attending.config, boxes=16)).eval()
        wide.load_state_dict(attending.state_dict())
        wider = wide.of_areas(pictures, references)
    at = pictures[2, 1, 1::2, 1::2] > 0
    assert 1e-3 < (wider[2].places - alone[2].places)[:, at].abs().max() < 1
    torch.testing.assert_close(wider[0].places, alone[0].places, atol=1e-4, rtol=1e-4)


def test_a_figure_so_small_that_few_places_show_it_is_sought_beside_its_paper(embedded):
    shown, _ = picture()
    tiny = np.zeros((160, 240), bool)
    tiny[80:84, 121:125] = True
    everywhere = np.ones((160, 240), bool)
    carrier = Carrier(embedded, [shown], [everywhere], [~tiny])
    vote = carrier.recoloured(GREY, figure()[1], [Area(everywhere, (0,))], np.zeros((160, 240), np.int32)).votes[0]
    assert 1 <= vote.shares.shape[1] <= 4
    assert np.isfinite(vote.shares).all()


def test_paper_is_white_where_a_region_is_nearly_white_for_the_most_part():
    """Left of the line halos are taken off with the paper; right of it most is yellow, so what is pale stays."""
    region, colours = np.zeros((8, 16), np.int32), np.full((8, 16, 3), 0.95, np.float32)
    region[:, 8:] = 1
    behind = np.ones((8, 16), bool)
    behind[0] = False
    colours[:, 6:8] = 0.6
    colours[:, 8:14] = (0.9, 0.8, 0.2)
    made = on_paper(colours, behind, region)
    assert (made[1:, :8] == 1).all()
    assert np.array_equal(made[:, 8:], colours[:, 8:])
    assert np.array_equal(made[0], colours[0])


def test_a_region_of_a_figure_has_no_paper_in_it():
    """Two places of a region that is a figure's, and two of one that is behind; "nothing" stays what it is."""
    shares = np.array([[0.6, 0.2, 0.1], [0.1, 0.1, 0.6], [0.3, 0.0, 0.2], [0.0, 0.1, 0.9]], np.float32)
    made = figures_whole(shares, np.array([4, 4, 0, 0]))
    np.testing.assert_allclose(made[:2], [[0.675, 0.225, 0], [0.4, 0.4, 0]], atol=1e-6)
    assert np.array_equal(made[2:], shares[2:])


@pytest.mark.parametrize(("paper", "part"), [(False, 0.5), (True, 0.9)])
def test_behind_is_left_to_the_model_unless_it_is_paper(embedded, monkeypatch, paper, part):
    """Each place is half of the figure's one colour, and to two fifths behind."""
    shown, where = picture(colours=(RED, RED, RED))
    monkeypatch.setattr(matching._Group, "shares", lambda self, *_: torch.tensor([[0.5, 0.4]]).expand(9600, 2))
    carrier, everywhere = Carrier(embedded, [shown], [where | True], [~where], paper), np.ones((160, 240), bool)
    made = carrier.recoloured(GREY, figure()[1], [Area(everywhere, (0,))], np.zeros((160, 240), np.int32))
    np.testing.assert_allclose(made.colours[0, 0], 0.5 + part * (np.array(RED) / 255 - 0.5), atol=1e-3)


def test_what_is_found_in_a_picture_of_the_place_keeps_the_models_colours(embedded):
    """Beside the same drawing as a place, a cut-out gets half of the belief."""
    shown, where = picture()
    drawing = figure()
    regions, area = np.zeros((160, 240), np.int32), [Area(drawing[2], (0, 1))]
    alone = Carrier(embedded, [shown, shown], [where, where]).recoloured(GREY, drawing[1], area, regions).votes[0]
    beside = (
        Carrier(embedded, [shown, shown], [where, where], [~where, where]).recoloured(GREY, drawing[1], area, regions).votes[0]
    )
    assert np.allclose(2 * beside.shares.sum(axis=1), alone.shares.sum(axis=1), atol=1e-3)
    place = Carrier(embedded, [shown, shown], [where, where], [where, where]).recoloured(GREY, drawing[1], area, regions)
    assert not place.votes
    assert np.allclose(place.colours, 0.5)


def test_whole_frames_are_asked_at_every_place_and_mix_nothing_in(embedded):
    shown, _ = picture()
    fills, lines, there = figure(at=(100, 84))
    carrier = Carrier(embedded, [shown], [np.ones((160, 240), bool)])
    followed = carrier.followed(lines, (0,))
    assert followed is not None
    assert not followed.likeness
    vote = followed.vote
    assert not vote.mixed
    assert vote.at.all()
    found = vote.settled(vote.shares, np.zeros((len(vote.shares), 3), np.float32)).reshape(*vote.at.shape, 3)
    inside = cv2.erode(there.astype(np.uint8), np.ones((9, 9), np.uint8))[1::2, 1::2] > 0
    right = np.abs(found - fills[1::2, 1::2].astype(np.float32) / 255).max(axis=2) < 0.2
    assert right[inside].mean() > 0.6
    assert carrier.followed(lines, ()) is None


def test_a_frame_is_laid_where_its_figure_is(embedded):
    """The figure was 50 pixels further to the right and 12 up."""
    shown, _ = picture()
    _, lines, there = figure(at=(70, 96))
    carrier = Carrier(embedded, [shown, shown], [np.ones((160, 240), bool)] * 2)
    followed = carrier.followed(lines, (0, 1), {1})
    assert followed is not None
    assert list(followed.likeness) == [1]
    moved = followed.likeness[1].flow()
    assert moved.shape == (160, 240, 2)
    assert np.abs(moved[there].mean(axis=0) - (50, -12)).max() < 6
    inside = cv2.erode(there.astype(np.uint8), np.ones((9, 9), np.uint8))[1::2, 1::2] > 0
    led, still = (followed.likeness[1].along(flow)[inside] for flow in (np.tile(np.float32([50, -12]), (160, 240, 1)), None))
    assert (led.mean(axis=0) > still.mean(axis=0) + 0.1).all()


def test_a_region_draws_its_places_together(monkeypatch):
    shares = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.6]])
    region = np.array([7, 7, 7, 9])
    for pooled, expected in ((0.0, shares), (1.0, torch.tensor([[2 / 3, 1 / 3]] * 3 + [[0.0, 0.6]]))):
        monkeypatch.setattr(matching, "POOLED", pooled)
        torch.testing.assert_close(matching._pooled(shares, region), expected)


def settled(shades, shares, own=GREEN):
    known = np.array(shades, np.float32) / 255
    vote = Vote(np.ones((1, 1), bool), np.zeros((1, len(shades)), np.float32), known, alike(to_lab(known), to_lab(known)))
    return vote.settled(np.array([shares], np.float32), np.array([own], np.float32) / 255)[0] * 255


def test_near_shades_count_as_one_another():
    """Two tones of red together outweigh a blue that is likelier than each."""
    assert np.abs(settled([RED, (190, 44, 44), BLUE], [0.45, 0.45, 0.1]) - (195, 42, 42)).max() <= 2


def test_where_no_colour_has_the_most_they_are_mixed_and_for_what_is_in_none_the_models_stays():
    shades = [RED, BLUE, (0, 0, 0), (255, 255, 255)]
    many = [*shades, GREEN, (250, 240, 20), (20, 240, 250), (240, 20, 250)]
    assert np.abs(settled(many, [0.125] * 8) - np.mean(many, axis=0)).max() < 40
    assert np.abs(settled(shades, [0.05, 0.85, 0.05, 0.05]) - BLUE).max() < 5
    assert np.abs(settled(shades, [0.0, 0.5, 0.0, 0.0]) - np.mean([BLUE, GREEN], axis=0)).max() < 5
    assert np.allclose(settled(shades, [0.0] * 4), GREEN, atol=1)


def test_shades_are_the_commonest_colours_that_are_apart(monkeypatch):
    colours = np.array([RED] * 50 + [(202, 41, 41)] * 5 + [BLUE] * 30 + [GREEN] * 2, np.uint8)
    own, shades = lab.shades_of(colours)
    assert len(shades) == 3
    assert (np.abs(255 * shades[own] - colours).max(axis=1) < 3).all()
    monkeypatch.setattr(lab, "SHADES", 2)
    own, shades = lab.shades_of(colours)
    assert len(shades) == 2
    assert len(set(own[:55])) == 1


def test_the_view_of_an_area_keeps_its_lines_and_those_at_its_rim():
    lines = np.full((160, 240), 255, np.uint8)
    area = np.zeros((160, 240), bool)
    area[40:80, 60:100] = True
    seen = lines_in(lines, area) > 0
    assert seen[38:82, 58:102].all()
    assert not seen[:37].any()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"model": "toon"}, "got model 'toon'; expected weights of a `matcher`"),
        ({"model": "matcher"}, "not a matcher's weights .no 'config'"),
        ({"model": "matcher", "config": {"widths": [8, 16], "describe": 16}}, "not a matcher's weights"),
        ({"model": "matcher", "config": {"widths": [8, 16], "describe": 8, "depth": 3}}, "not a matcher's weights"),
    ],
)
def test_a_file_that_is_no_matcher_is_refused(small, tmp_path, metadata, message):
    path = tmp_path / "m.safetensors"
    weights.save(path, dict(small.state_dict()), metadata)
    with pytest.raises(ValueError, match=message):
        weights.load_matcher(path)


def test_weights_come_back_as_they_were(small, tmp_path):
    path = tmp_path / "m.safetensors"
    weights.save_matcher(path, small, small.state_dict(), steps=3)
    again = weights.load_matcher(path)
    assert again.config == SMALL
    for key, value in again.state_dict().items():
        torch.testing.assert_close(value, small.state_dict()[key], atol=1e-3, rtol=1e-3)
