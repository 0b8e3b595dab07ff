"""The report's page in a real browser: every picture of a shot shows the same frame, whatever moves it.

Needs Chromium (Debian: apt-get install chromium) and playwright, which drives it.
"""

import io
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_report import HOSTILE, add_row, add_strip, add_summary, colour, empty_results, hostile_results, small_results, written

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")

FRAMES, METHODS = 9, 2
PLAYERS = ["sketch", "timecolor", "copy", "truth"]
# The colour at a share (x, y) of each player's picture.
READ = """(shot, [x, y]) => Object.fromEntries([...shot.querySelectorAll("canvas")].map((canvas) => {
    const at = [Math.floor(x * canvas.width), Math.floor(y * canvas.height)];
    return [canvas.dataset.player, [...canvas.getContext("2d").getImageData(...at, 1, 1).data].slice(0, 3)];
}))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


@pytest.fixture
def open_page(browser, tmp_path) -> Iterator[Callable[..., Any]]:
    """Opens the report of `results`. At the end: no error was logged, and nothing but the file was asked for."""
    opened, faults, asked = [], [], []

    def go(results: dict[str, Any], width: int = 1400, **context: Any) -> Any:
        written(tmp_path, results)
        page = browser.new_context(viewport={"width": width, "height": 900}, **context).new_page()
        opened.append(page)
        page.set_default_timeout(60_000)  # the machine may be busy
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "report.html").as_uri())
        return page

    yield go
    for page in opened:
        page.context.close()
    assert not faults
    assert all(url == (tmp_path / "report.html").as_uri() or url.startswith("data:") for url in asked)


def ready(page: Any, name: str) -> Any:
    """The shot of that name, in view, its pictures drawn."""
    shot = page.locator(".shot", has=page.locator("h4", has_text=name)).first
    shot.evaluate("shot => shot.scrollIntoView()")
    shot.locator("canvas[width]").first.wait_for()
    page.wait_for_function("shot => shot.querySelector('canvas').width > 0", arg=shot.element_handle())
    return shot


def assert_all_show(shot: Any, frame: int, players: list[str] = PLAYERS) -> None:
    expected = {name: list(colour(i, frame)) for i, name in enumerate(players)}
    for at in ((0.02, 0.02), (0.5, 0.5), (0.98, 0.98)):
        assert shot.evaluate(READ, at) == expected
    assert shot.locator("output").inner_text() == f"frame {frame} / {int(shot.locator('input').get_attribute('max'))}"


def test_the_slider_moves_all_pictures_together(open_page, tmp_path):
    page = open_page(small_results(tmp_path))
    shot = ready(page, "bad")
    assert_all_show(shot, 0)
    for frame in (1, 2, 8, 5, 0, 3):
        shot.locator("input").fill(str(frame))
        assert_all_show(shot, frame)
    # And what is on the screen is what the canvases hold.
    for i, canvas in enumerate(shot.locator("canvas").all()):
        with Image.open(io.BytesIO(canvas.screenshot())) as seen:
            middle = np.asarray(seen.convert("RGB"))[seen.height // 2, seen.width // 2]
        assert np.abs(middle.astype(int) - colour(i, 3)).max() <= 2
    # The other shot has stayed where it was.
    assert_all_show(ready(page, "good"), 0)


def test_keys_move_all_pictures_together(open_page, tmp_path):
    page = open_page(small_results(tmp_path))
    shot = ready(page, "bad")
    shot.locator("canvas").first.click()
    for key, frame in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 8), ("ArrowRight", 8), ("Home", 0)):
        page.keyboard.press(key)
        assert_all_show(shot, frame)
    shot.locator("input").focus()
    page.keyboard.press("ArrowRight")  # the slider's own
    assert_all_show(shot, 1)
    assert shot.locator("input").get_attribute("aria-valuetext") == "frame 1 of 0 to 8"
    page.keyboard.press("j")
    page.keyboard.press("End")
    assert_all_show(ready(page, "good"), 8)


def test_dragging_over_any_picture_moves_all_together(open_page, tmp_path):
    page = open_page(small_results(tmp_path))
    shot = ready(page, "bad")
    for name in ("truth", "sketch"):
        shot.locator("input").fill("2")
        box = shot.locator(f"canvas[data-player={name}]").bounding_box()
        x, y = box["x"] + box["width"] / 10, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        # A picture's width is the whole shot.
        for frame in (3, 6, 4):
            page.mouse.move(x + (frame - 2) * box["width"] / FRAMES, y)
            assert_all_show(shot, frame)
        page.mouse.up()
        page.mouse.move(x, y)
        assert_all_show(shot, 4)


def test_all_shots_scrub_together_when_asked(open_page, tmp_path):
    results = small_results(tmp_path)
    add_strip(tmp_path, results, "short", frames=4)
    page = open_page(results)
    page.locator("#together").check()
    ready(page, "bad").locator("input").fill("6")
    for name, frame in (("bad", 6), ("good", 6), ("short", 3)):  # a shorter shot stays at its last
        assert_all_show(ready(page, name), frame)
    page.locator("#together").uncheck()
    ready(page, "good").locator("input").fill("1")
    assert_all_show(ready(page, "bad"), 6)


def test_playing_keeps_the_shots_rate_and_all_pictures_in_step(open_page, browser, tmp_path):
    page = open_page(small_results(tmp_path))
    shot = ready(page, "bad")
    page.clock.install()
    page.clock.pause_at(page.evaluate("Date.now()") + 1000)
    button = shot.locator("button")
    button.click()
    assert button.inner_text() == "Pause"
    page.clock.run_for(450)  # 10 frames a second
    at = int(shot.locator("input").input_value())
    assert at in (3, 4)
    assert_all_show(shot, at)
    page.clock.run_for(200)
    assert_all_show(shot, at + 2)
    page.clock.run_for(900)  # once round
    assert_all_show(shot, at + 2)
    button.click()
    page.clock.run_for(500)
    assert_all_show(shot, at + 2)
    assert button.inner_text() == "Play"


def test_a_strip_in_several_pictures_plays_through(open_page, tmp_path):
    results = empty_results()
    add_strip(tmp_path, results, "long", frames=12, size=(8, 1600), names=["sketch", "truth"])
    shot = ready(open_page(results), "long")
    for frame in (9, 10, 11, 0):
        shot.locator("input").fill(str(frame))
        assert_all_show(shot, frame, ["sketch", "truth"])


def test_zoom_shows_the_same_part_of_every_picture(open_page, tmp_path):
    def quarters(player: int, frame: int, height: int, width: int) -> np.ndarray:
        image = np.zeros((height, width, 3), np.uint8)
        image[: height // 2, width // 2 :] = (250, 0, 10 * player)
        image[height // 2 :, : width // 2] = (0, 250, 10 * player)
        return image

    results = empty_results()
    add_strip(tmp_path, results, "quarters", paint=quarters)
    page = open_page(results)
    shot = ready(page, "quarters")
    page.locator("#zoom").select_option("4")
    for share, expected in (((0.9, 0.1), (250, 0)), ((0.1, 0.9), (0, 250)), ((0.1, 0.1), (0, 0))):
        box = shot.locator("canvas[data-player=copy]").bounding_box()
        page.mouse.move(box["x"] + share[0] * box["width"], box["y"] + share[1] * box["height"])
        for corner in ((0.02, 0.02), (0.98, 0.98)):
            assert {tuple(rgb[:2]) for rgb in shot.evaluate(READ, corner).values()} == {expected}
    page.locator("#zoom").select_option("1")
    assert shot.evaluate(READ, (0.9, 0.1))["truth"] == [250, 0, 30]


def test_the_difference_view_is_black_where_a_result_equals_the_truth(open_page, tmp_path):
    def paint(player: int, frame: int, height: int, width: int) -> np.ndarray:
        level = {1: 100, 2: 130, 3: 100}.get(player, 200) + frame
        return np.full((height, width, 3), level, np.uint8)

    results = empty_results()
    add_strip(tmp_path, results, "levels", paint=paint)
    page = open_page(results)
    shot = ready(page, "levels")
    page.locator("#difference").check()
    shot.locator("input").fill("5")
    seen = {name: rgb[0] for name, rgb in shot.evaluate(READ, (0.5, 0.5)).items()}
    assert seen == {"sketch": 205, "timecolor": 0, "copy": 60, "truth": 105}  # 30, doubled
    page.locator("#difference").uncheck()
    assert {name: rgb[0] for name, rgb in shot.evaluate(READ, (0.5, 0.5)).items()}["copy"] == 135


def test_a_frame_that_a_peer_lacks_is_said(open_page, tmp_path):
    results = small_results(tmp_path)
    results["strips"][0]["players"][2]["shown"] = list(range(7))
    shot = ready(open_page(results), "good")
    tile = shot.locator("figure", has=shot.page.locator("canvas[data-player=copy]"))
    shot.locator("input").fill("6")
    assert tile.locator(".now").inner_text() == "this frame 6.0"
    shot.locator("input").fill("7")
    assert tile.locator(".now").inner_text() == "has no such frame"
    assert shot.locator("canvas.held").count() == 1


def test_figures_sort_and_the_players_follow(open_page, tmp_path):
    results = empty_results()
    for case, ours, copy in (("a", 20.0, 10.0), ("b", 15.0, 18.0), ("c", 25.0, 19.0), ("d", None, 12.0)):
        add_strip(tmp_path, results, case)
        add_row(results, case, "timecolor", ours)
        add_row(results, case, "copy", copy)
    add_summary(results, "timecolor", 20.0)
    page = open_page(results)

    def order() -> list[str]:
        names = page.locator(".by-shot tbody th").all_inner_texts()
        assert page.locator(".shot h4").all_inner_texts() == names
        return names

    assert order() == ["b", "a", "c", "d"]  # worst first, and last what has no figure
    page.get_by_role("button", name="timecolor", exact=True).click()
    assert order() == ["c", "a", "b", "d"]
    page.get_by_role("button", name="copy", exact=True).click()
    assert order() == ["a", "d", "b", "c"]
    page.get_by_role("button", name="timecolor ahead of the best other").click()
    assert order() == ["b", "c", "a", "d"]  # -3, +6, +10
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("timecolor ahead")
    page.locator("#metric").select_option("ciede2000")  # lower is better; here the same order
    assert order() == ["b", "a", "c", "d"]
    assert page.locator(".by-shot tbody td").first.inner_text() == "25.0"


def test_names_are_shown_and_never_run(open_page, tmp_path):
    page = open_page(hostile_results(tmp_path))
    shot = page.locator(".shot").first
    shot.evaluate("shot => shot.scrollIntoView()")
    assert shot.locator("h4").inner_text() == HOSTILE
    assert page.locator(".by-shot th button").nth(2).inner_text() == HOSTILE
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("width", [360, 3000])
def test_the_page_fits_its_window(open_page, tmp_path, width):
    page = open_page(small_results(tmp_path), width)
    shot = ready(page, "bad")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tops = [canvas.bounding_box()["y"] for canvas in shot.locator("canvas").all()]
    assert (len(set(tops)) == 1) == (width == 3000)


def test_light_and_dark_follow_the_reader(open_page, tmp_path):
    results = small_results(tmp_path)
    grounds = []
    for scheme in ("light", "dark"):
        page = open_page(results, color_scheme=scheme)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        grounds.append(int(ground.removeprefix("rgb(").split(",")[0]))
    assert grounds[0] > 200
    assert grounds[1] < 60


def test_every_control_has_a_name(open_page, tmp_path):
    page = open_page(small_results(tmp_path))
    ready(page, "bad")
    for role in ("slider", "button", "combobox", "checkbox", "link"):
        for element in page.get_by_role(role).all():
            assert element.evaluate("e => e.ariaLabel || e.innerText || e.labels?.[0]?.innerText"), element
    assert page.get_by_role("slider", name="Frame of bad").count() == 1
    assert page.get_by_role("img", name="timecolor of bad").count() >= 1
