"""Which picture a cell is taken from: what frames are offered, what tells, and what the embedded network makes of it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from timecolor import ColorizeOptions, Colorizer, models, trust
from timecolor.choice import CellOffers, agreed, truster
from timecolor.finish import Vote, regions
from timecolor.finish.lab import alike, to_lab
from timecolor.propagation import darkness, fetched, ways
from timecolor.shot import Reference, Shot
from timecolor.train.judging import JudgingPreset, shots
from timecolor.trust import BEHIND, FEATURES, FRAME, NAMES, OWN, VOTED
from timecolor.world import World

SKY, COAT = (90, 150, 210), (200, 60, 50)


def picture(x: int) -> tuple[np.ndarray, np.ndarray]:
    """A square figure before a plain sky, 96x144: drawing and fills. x: where it stands."""
    drawing, fills = np.full((96, 144, 3), 255, np.uint8), np.full((96, 144, 3), SKY, np.uint8)
    cv2.rectangle(fills, (x, 30), (x + 35, 70), COAT, -1)
    cv2.rectangle(drawing, (x, 30), (x + 35, 70), (0, 0, 0), 2)
    return drawing, fills


def votes(at: int) -> Vote:
    """As the matcher would vote: nearly sure of the figure, less so of the sky."""
    fills = picture(at)[1][1::2, 1::2]
    shades = np.array([SKY, COAT], np.float32) / 255
    shares = np.where((fills == COAT).all(axis=2)[..., None], (0.1, 0.8), (0.6, 0.2)).astype(np.float32)
    lab = to_lab(shades)
    return Vote(np.ones(fills.shape[:2], bool), shares.reshape(-1, 2), shades, alike(lab, lab), mixed=False)


def offered(
    at: int, *frames_at: int, cells: np.ndarray | None = None, vote: Vote | None = None, paired: bool = False
) -> CellOffers:
    drawing, _ = picture(at)
    cells = cv2.resize(picture(at)[1], (36, 24), interpolation=cv2.INTER_AREA) / np.float32(255) if cells is None else cells
    seen = []
    for frame_at in frames_at:
        theirs, fills = picture(frame_at)
        lines = darkness(theirs)
        seen += trust.views(fills, trust.frame_areas(lines), ways(lines, drawing, []), paired)
    seen = [replace(view, source=FRAME + i) for i, view in enumerate(seen)]
    return trust.offers(cells, drawing, regions(drawing), seen, vote or votes(at))


def sign(offers: CellOffers, name: str, source: int = FRAME) -> np.ndarray:
    return offers.features[:, :, source, NAMES.index(name)]


def test_every_offer_is_described():
    offers = offered(20, 20)
    assert offers.colours.shape == (24, 36, 3, 3)
    assert offers.features.shape == (24, 36, 3, FEATURES)
    assert np.isfinite(offers.features).all()
    assert offers.there[:, :, OWN].all()
    assert offers.there[:, :, FRAME].all()
    assert offers.there[:, :, VOTED].all()
    assert (offers.features[..., len(NAMES) :].sum(axis=3) == 1).all()


def test_a_region_that_lies_on_the_drawings_is_told_from_what_a_figure_left_behind():
    right, left = offered(20, 20), offered(90, 20)
    assert sign(right, "same").min() > 0.6
    ghost = slice(10, 16), slice(7, 12)  # where the frame shows the figure, and the drawing the sky
    assert sign(left, "fills")[ghost].max() < 0.3
    assert sign(left, "filled")[ghost].min() > 0.9
    assert sign(left, "typical")[ghost].max() < 0.3


def test_the_place_meets_the_pictures_edge_and_a_figure_does_not():
    left = offered(90, 20)
    ghost, figure = (slice(10, 16), slice(7, 12)), (slice(10, 16), slice(25, 29))
    assert sign(left, "edge")[ghost].min() == sign(left, "edge").max() > 0.9
    assert sign(left, "edge")[figure].max() == 0
    assert sign(left, "edge_there")[ghost].max() == 0
    assert sign(left, "edge_there")[figure].min() > 0.9


def test_a_frame_drawn_around_the_picture_is_not_its_edge():
    areas = np.zeros((96, 144), np.int64)
    areas[1:-1, 1:-1] = 1
    areas[40:60, 1:50] = 2
    met = trust._edge(areas)
    assert met[0, 0] == 0
    assert met[50, 20] ** 2 == pytest.approx(20 / (2 * (94 + 142)))
    assert met[10, 100] ** 2 == pytest.approx(1 - 20 / (2 * (94 + 142)))
    assert trust._edge(areas[:1, :1]).tolist() == [[1.0]]


def test_a_region_is_told_as_one():
    """Of half of the sky the matcher knows nothing; as a region it knows half as much everywhere."""
    vote = votes(90)
    vote.shares[: len(vote.shares) // 2, 0] = 0
    offers = offered(90, 20, vote=vote)
    upper, lower = sign(offers, "votes")[:8, 2:6], sign(offers, "votes")[19:23, 2:6]
    whole = sign(offers, "votes_region")
    assert whole[:8, 2:6] == pytest.approx(whole[20, 3])
    assert upper.max() < whole[20, 3] < lower.min()
    assert sign(offers, "less_votes_region", VOTED)[20, 3] == 0
    sky = offers.region == offers.region[2, 2]
    for name in ("apart", "misfit"):
        parts = sign(offers, name)[sky]
        assert parts.std() > 0.05
        assert sign(offers, f"{name}_region")[sky] == pytest.approx(parts.mean(), rel=1e-5)
    assert sign(offers, "more_misfit_region")[sky].max() == 0  # of one frame
    pair = offered(90, 20, 90)
    assert sign(pair, "more_misfit_region")[sky].min() > 0.01
    assert sign(pair, "more_misfit_region", FRAME + 1)[sky].max() == 0


def test_frames_whose_drawing_is_known_are_told_from_others():
    paired, sought = (offered(90, 20, paired=known) for known in (True, False))
    assert sign(paired, "paired").min() == 1
    assert sign(paired, "paired", OWN).max() == sign(paired, "paired", VOTED).max() == 0
    assert sign(sought, "paired").max() == 0


def test_how_like_a_place_is_is_told_of_each_frame():
    """A frame's left half is as the drawing, its right half is not; another is half as unlike everywhere."""
    drawing, fills = picture(20)
    lines = darkness(drawing)
    parted, even = np.zeros((24, 36, 4), np.float32), np.full((24, 36, 4), -0.5, np.float32)
    parted[:, 18:] = (-1, -0.8, -0.6, -0.4)
    seen = [
        replace(trust.views(fills, trust.frame_areas(lines), ways(lines, drawing, []), True, lambda _, x=x: x)[0], source=i)
        for i, x in enumerate((parted, even), FRAME)
    ]
    offers = trust.offers(fills[::4, ::4].astype(np.float32) / 255, drawing, regions(drawing), seen, votes(20))
    rows, columns = offers.there.shape[:2]
    left, right = np.s_[:, : columns // 3], np.s_[:, -columns // 3 :]
    for name, least in zip(trust.LIKE, (-1, -0.8, -0.6, -0.4), strict=True):
        assert sign(offers, name)[left].min() == sign(offers, name, OWN).min() == sign(offers, name, VOTED).min() == 0
        assert sign(offers, name)[right] == pytest.approx(least)
        assert sign(offers, f"less_{name}")[left].min() == 0
        assert sign(offers, f"less_{name}", FRAME + 1)[left] == pytest.approx(-0.5)
        assert sign(offers, f"less_{name}")[right] == pytest.approx(min(0, least + 0.5), abs=1e-6)
        near = sign(offers, f"{name}_near")[rows // 2]
        assert (np.diff(near) <= 1e-6).all()
        assert near[0] == pytest.approx(0, abs=1e-3)
        region = offers.region == offers.region[0, 0]
        assert sign(offers, f"{name}_region")[region] == pytest.approx(sign(offers, name)[region].mean(), rel=1e-4)
    untold = offered(20, 20)
    assert all(np.abs(sign(untold, name)).max() == 0 for name in trust.LIKE_NAMES)


def test_votes_say_which_offer_they_are_for():
    left = offered(90, 20)
    ghost, figure = (slice(10, 16), slice(7, 12)), (slice(10, 16), slice(25, 29))
    assert np.allclose(left.colours[figure][:, :, VOTED], np.array(COAT) / 255, atol=0.1)
    assert sign(left, "votes")[ghost].max() < 0.3
    assert sign(left, "votes", OWN)[ghost].min() > 0.5
    assert sign(left, "own_votes")[figure].min() > 0.7


def test_what_is_taken_are_the_offers_own_colours():
    offers = offered(20, 20)
    which = np.full((24, 36), FRAME)
    which[:3] = OWN
    made = trust.taken(offers, which)
    assert np.array_equal(made[3:], offers.colours[3:, :, FRAME])
    assert np.array_equal(made[:3], offers.colours[:3, :, OWN])


def test_frames_whose_drawing_is_known_are_chosen_in_finer_cells():
    """An edge that halves cells, and no line along it, comes out as an edge."""
    drawing = np.full((96, 144, 3), 255, np.uint8)
    fills = np.full_like(drawing, SKY)
    fills[:, 74:] = COAT
    areas = trust.frame_areas(darkness(drawing))
    shown = {known: trust.views(fills, areas, ways(darkness(drawing), drawing, []), known) for known in (True, False)}
    cells = np.random.default_rng(0).random((12, 18, 3), np.float32)
    fine, coarse, both = (
        trust.offers(cells, drawing, regions(drawing), views, votes(20))
        for views in (shown[True], shown[False], [*shown[True], *shown[False]])
    )
    assert trust.FINER == 3
    assert coarse.region.shape == both.region.shape == (12, 18)
    assert fine.region.shape == (36, 54)
    assert np.array_equal(fine.colours[1::3, 1::3, OWN], cells)
    assert np.array_equal(fine.colours[::3, 2::3, OWN], cells)
    theirs = [x.colours[:, :, FRAME] * 255 for x in (coarse, fine)]
    assert np.allclose(theirs[0][:, 9], (np.array(SKY) * 0.25 + np.array(COAT) * 0.75), atol=1)
    assert np.allclose(theirs[1][:, 27], (np.array(SKY) * 0.75 + np.array(COAT) * 0.25), atol=1)
    assert np.allclose(theirs[1][:, 28:], COAT, atol=0.01)


def test_many_frames_or_large_pictures_are_chosen_in_coarser_cells(monkeypatch):
    def times(frames: int) -> int:
        return len(offered(20, *[20] * frames, paired=True).region) // 24

    one = 24 * 36 * 3  # a frame beside the model's own and what is voted for
    for limit, found in ((9 * one, 3), (9 * one - 1, 2), (4 * one, 2), (4 * one - 1, 1), (1, 1), (100 * one, 3)):
        monkeypatch.setattr(trust, "OFFERED", limit)
        assert times(1) == found
    monkeypatch.setattr(trust, "OFFERED", 9 * one)
    assert times(2) == times(4) == 2
    monkeypatch.setattr(trust, "OFFERED", 4 * one)
    assert times(4) == 1


def test_frames_are_compared_with_the_model_by_whole_cells():
    """Its cells know no more; finer ones would tell of its blocks."""
    drawing = np.full((96, 144, 3), 255, np.uint8)
    fills = np.full_like(drawing, SKY)
    fills[:, 74:] = COAT
    cells = cv2.resize(fills, (18, 12), interpolation=cv2.INTER_AREA) / np.float32(255)
    seen = trust.views(fills, trust.frame_areas(darkness(drawing)), ways(darkness(drawing), drawing, []), paired=True)
    offers = trust.offers(cells, drawing, regions(drawing), seen, votes(20))
    assert np.linalg.norm(offers.lab[:, :, FRAME] - offers.lab[:, :, OWN], axis=2).max() > 10
    for name in ("apart", "apart_near", "apart_far", "apart_region", "from_own"):
        assert sign(offers, name).max() < 0.02
    texture = sign(offers, "texture")
    assert texture[:, 27:30].min() == texture[:, 27:30].max() == texture.max() > 0.1
    assert max(texture[:, :27].max(), texture[:, 30:].max()) < 0.01


def offered_brute(lab: np.ndarray, region: np.ndarray) -> np.ndarray:
    """What is typical, cell by cell."""
    found = np.ones(lab.shape[:3])
    for y, x, i in np.ndindex(*lab.shape[:3]):
        same = region == region[y, x]
        near = alike(lab[y, x, i][None], lab[:, :, i][same])
        found[y, x, i] = (near.sum() + 1) / (same.sum() + 1)
    return found


def test_what_is_typical_is_told_within_the_region():
    rng = np.random.default_rng(1)
    lab = rng.uniform(0, 60, (9, 11, 3, 3)).astype(np.float32)
    region = rng.integers(0, 3, (9, 11)) * 7
    assert np.allclose(trust._typical(lab, region), offered_brute(lab, region), atol=1e-5)
    # Of many cells some tell; of a region that none of these is in, a colour is as typical as any.
    lab, region = np.repeat(np.repeat(lab, 20, axis=0), 20, axis=1), np.repeat(np.repeat(region, 20, axis=0), 20, axis=1)
    region[0, 1] = 99
    found = trust._typical(lab, region)
    assert (found[0, 1] == 1).all()
    assert np.abs(found[::20, ::20][1:] - offered_brute(lab[::20, ::20], region[::20, ::20])[1:]).mean() < 0.05


def test_numbers_are_fetched_whole():
    areas = np.arange(96 * 144).reshape(96, 144).astype(np.int32)
    flow = np.zeros((96, 144, 2), np.float32)
    flow[..., 0] = 2.4
    moved = fetched(areas, flow)
    assert moved.dtype == areas.dtype
    assert np.array_equal(moved[:, :-3], areas[:, 2:-1])


def test_the_embedded_network_mends_what_the_model_lost_and_takes_no_ghost():
    lost = np.full((24, 36, 3), np.array(SKY) / 255 + 0.06, np.float32)
    offers = offered(20, 20, cells=lost)
    found = truster()(offers)
    assert (found[12:16, 7:12] != OWN).all()
    assert np.allclose(trust.taken(offers, found)[12:16, 7:12], np.array(COAT) / 255, atol=0.05)
    ghost = truster()(offered(90, 20))
    assert (ghost[11:16, 7:12] != FRAME).all()


def test_what_a_figure_left_is_offered_without_it():
    now, _ = picture(90)
    theirs, fills = picture(20)
    fills[60:] //= 2  # the ground, painted without a line
    fills[60:71, 20:56] = COAT
    lines = darkness(theirs)
    seen = trust.behind(fills, lines, trust.frame_areas(lines), now)
    assert seen is not None
    assert np.abs(seen.fills[32:50, 22:54].astype(int) - SKY).max() <= 6
    assert np.abs(seen.fills[66:70, 24:52].astype(int) - np.array(SKY) // 2).max() <= 30
    assert len(np.unique(seen.areas)) == 1
    assert np.array_equal(seen.fills[:, 80:], fills[:, 80:])
    assert trust.behind(fills, lines, trust.frame_areas(lines), theirs) is None


@pytest.mark.parametrize("paper", [(255, 255, 255), (250, 240, 220), (200, 200, 200)])
def test_lines_that_are_thin_and_pale_are_drawn_and_paper_is_not(paper):
    now, _ = picture(90)
    theirs, fills = picture(20)
    areas = trust.frame_areas(darkness(theirs))
    for tone in (0.15, 1.0):
        there, gone = (np.where(drawing < 128, np.array(paper) * (1 - tone), paper).astype(np.uint8) for drawing in (theirs, now))
        assert trust.behind(fills, darkness(theirs), areas, there) is None
        assert trust.behind(fills, darkness(theirs), areas, gone) is not None


def test_many_figures_leave_and_the_sky_stays():
    theirs, fills = np.full((96, 144, 3), 255, np.uint8), np.full((96, 144, 3), SKY, np.uint8)
    cv2.line(theirs, (0, 84), (143, 84), (0, 0, 0), 2)
    now = theirs.copy()
    fills[84:] = (46, 126, 46)
    for x in range(4, 140, 20):
        cv2.rectangle(theirs, (x, 20), (x + 13, 70), (0, 0, 0), 2)
        cv2.rectangle(fills, (x, 20), (x + 13, 70), COAT, -1)
    lines = darkness(theirs)
    seen = trust.behind(fills, lines, trust.frame_areas(lines), now)
    assert seen is not None
    assert np.abs(seen.fills[:82].astype(int) - SKY).max() <= 4
    assert np.array_equal(seen.fills[88:], fills[88:])


def fields(region: np.ndarray, idle: int = 0) -> tuple[np.ndarray, CellOffers]:
    """Cells that doubt between their own colours and two pictures, one that is sure of its own, and their scores.

    idle: further offers that hardly any would take.
    """
    rng = np.random.default_rng(0)
    rows, columns = region.shape
    scores = rng.normal(0, 0.3, (rows, columns, 4))
    scores[..., FRAME] += 0.8
    scores[2, 3, OWN] = 1.6
    lab = rng.uniform(0, 100, (rows, columns, 4, 3))
    scores[:, :, VOTED] = -np.inf
    scores = np.pad(scores, ((0, 0), (0, 0), (0, idle)), constant_values=-30.0)
    lab = np.pad(lab, ((0, 0), (0, 0), (0, idle), (0, 0)), constant_values=50.0)
    return scores, CellOffers(lab / 100, lab, np.isfinite(scores), np.zeros((*scores.shape, FEATURES)), region)


@pytest.mark.parametrize("role", ["frame", "background"])
def test_what_a_figure_left_is_offered_where_the_place_stands_still(role):
    """The figure alone has lines, so its move is taken for the camera's; a plate is on no drawing."""
    drawings, fills = zip(*(picture(x) for x in (20, 60)), strict=True)
    frame = np.minimum(fills[0], drawings[0])
    seen: list[CellOffers] = []

    def trusted(offers: CellOffers) -> np.ndarray:
        seen.append(offers)
        return np.full(offers.region.shape, OWN)

    model = models.load("toon", "cpu")
    assert isinstance(model, models.ToonModel)
    shot = Shot(np.stack(drawings), [Reference(frame, role=role)])
    Colorizer(replace(model, trust=trusted)).colorize(shot, ColorizeOptions(lines="model"))
    left = [offers.features[..., len(NAMES) + BEHIND].any(axis=(0, 1)) for offers in seen]
    if role == "background":
        assert not any(one.any() for one in left)
        return
    assert [int(one.sum()) for one in left] == [0, 1]
    there = seen[1].colours[:, :, left[1].argmax()]
    rows, columns = there.shape[:2]
    assert np.abs(there[rows // 2, columns * 30 // 144] * 255 - SKY).max() < 12


def test_a_cell_follows_its_neighbours_of_one_region():
    one = np.zeros((6, 8), int)
    scores, offers = fields(one)
    assert scores[2, 3].argmax() == OWN
    found = agreed(scores, offers)
    assert (found == FRAME).all()
    assert np.array_equal(agreed(*fields(one, idle=30)), found)
    # What is of another region is not followed.
    one[2, 3] = 1
    scores, offers = fields(one)
    assert agreed(scores, offers)[2, 3] == OWN
    # Two pictures by turns, row by row: of one colour they are of one mind, of two each cell keeps its own.
    scores = np.full((6, 8, 4), -9.0)
    scores[..., OWN] = 0.8
    scores[::2, :, FRAME] = scores[1::2, :, FRAME + 1] = 0.0
    lab = np.zeros((6, 8, 4, 3))
    lab[:, :, OWN, 0] = 50 * np.arange(1, 49).reshape(6, 8)
    offers = replace(offers, lab=lab, region=np.zeros((6, 8), int))
    assert (agreed(scores, offers)[1:-1, 1:-1] >= FRAME).all()
    lab[:, :, FRAME + 1, 0] = -50
    assert (agreed(scores, offers) == OWN).all()


@pytest.mark.parametrize("away", [0.0, 1.0])
def test_what_is_trusted_is_nearer_to_the_truth(away):
    """On average over shots that no network here was trained or judged by, a frame's own drawing being given or not."""
    preset = JudgingPreset(height=160, width=240, frames=3, worn=0.0, away=away, seed=99)
    world, options = World(preset.seed, preset.height, preset.width), ColorizeOptions(lines="none")
    model = models.load("toon", "cpu")
    gained = []
    for index in range(12):
        shot, truth, shown = next(shots(world.shot(index), preset))
        others = [t for t in range(len(truth)) if t not in shown]
        if not others:  # one drawing, held
            continue
        made = [Colorizer(m).colorize(shot, options) for m in (model, replace(model, trust=None))]
        on, off = (((m[others].astype(float) - truth[others]) ** 2).mean() for m in made)
        gained.append(np.log10(off / on))
    assert np.mean(gained) > 0
