"""Frames finished a few at once, in order."""

import threading
import time

import numpy as np
import pytest
import torch

from timecolor.finishing import AT_ONCE, Finishing, Given

COLOURS = np.zeros((2, 2, 3), np.float32)


def given(at: int, grey: int = 255, label: int | None = None) -> Given:
    sketch = np.full((4, 4, 3), grey, np.uint8)
    return Given(at, COLOURS + at, sketch, None if label is None else np.full((4, 4), label, np.uint8))


class Watched:
    """Tells and finishes, and keeps what it was asked; a frame is its drawing's number over its grey over its label."""

    def __init__(self, before=lambda sketch: None) -> None:
        self.before, self.told, self.finished = before, [], []

    def tell(self, given: Given) -> np.ndarray:
        self.told.append(given.at)
        return given.colours

    def finish(self, given: Given, told: np.ndarray) -> np.ndarray:
        self.before(given.sketch)
        label = None if given.labels is None else int(given.labels[0, 0])
        self.finished.append((int(told[0, 0, 0]), int(given.sketch[0, 0, 0]), label))
        return np.array([told[0, 0, 0], given.sketch[0, 0, 0], label or 0], np.uint8)


def run(watched: Watched, frames: list[Given]) -> list[list[int]]:
    with Finishing(watched.tell, watched.finish) as work:
        return [made.tolist() for frame in frames for made in work.add(frame)] + [made.tolist() for made in work.rest()]


@pytest.fixture(params=[1, AT_ONCE])
def cores(request, monkeypatch) -> int:
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    return request.param


def test_frames_come_in_order_whoever_is_ready_first(cores):
    watched = Watched(lambda sketch: time.sleep(0.001 * int(sketch[0, 0, 0])))  # the earlier, the slower
    assert run(watched, [given(i, 40 - 5 * i) for i in range(8)]) == [[i, 40 - 5 * i, 0] for i in range(8)]


def test_two_drawings_are_finished_at_once(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    both = threading.Barrier(2, timeout=20)  # breaks where one waits for the other
    assert len(run(Watched(lambda _: both.wait()), [given(i) for i in range(6)])) == 6


def test_so_are_frames_of_one_drawing_which_is_told_once(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    both = threading.Barrier(2, timeout=20)
    watched = Watched(lambda _: both.wait())
    assert run(watched, [given(0, grey) for grey in (10, 20, 30, 40)]) == [[0, grey, 0] for grey in (10, 20, 30, 40)]
    assert watched.told == [0]


def test_never_more_than_there_are_cores(cores):
    running, most, lock = [0], [0], threading.Lock()

    def counted(_):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with lock:
            running[0] -= 1

    run(Watched(counted), [given(i) for i in range(8)])
    assert most[0] <= cores


def test_what_is_held_is_finished_once_and_each_frame_is_its_receivers(cores):
    watched, frames = Watched(), [given(0)] * 5 + [given(1)] * 3 + [given(1, 254)] + [given(1, 254, label=2)] * 2
    with Finishing(watched.tell, watched.finish) as work:
        made = []
        for frame in frames:
            for done in work.add(frame):
                made.append(done.tolist())
                done[:] = 7
        made += [done.tolist() for done in work.rest()]
    assert made == [[0, 255, 0]] * 5 + [[1, 255, 0]] * 3 + [[1, 254, 0]] + [[1, 254, 2]] * 2
    assert sorted(watched.finished, key=str) == [(0, 255, None), (1, 254, 2), (1, 254, None), (1, 255, None)]
    assert watched.told == [0, 1]


def test_a_reader_may_fill_its_arrays_again(cores):
    frame, watched = given(0, 0, label=0), Watched(lambda _: time.sleep(0.02))
    made = []
    with Finishing(watched.tell, watched.finish) as work:
        for i in range(4):
            frame.sketch[:], frame.labels[:] = 10 * i, i
            made += [done.tolist() for done in work.add(frame._replace(at=i))]
        made += [done.tolist() for done in work.rest()]
    assert made == [[0, 10 * i, i] for i in range(4)]


def test_an_error_comes_where_its_frame_is_taken_and_ends_the_work(cores):
    def failing(sketch):
        if sketch[0, 0, 0] == 2:
            raise MemoryError("no more")

    watched, made = Watched(failing), []

    def taken():
        with Finishing(watched.tell, watched.finish) as work:
            for i in range(20):
                made.extend(done.tolist() for done in work.add(given(i, i)))

    with pytest.raises(MemoryError, match="no more"):
        taken()
    assert made == [[0, 0, 0], [1, 1, 0]]
    assert len(watched.finished) <= 2 + 2 * AT_ONCE


def test_who_stops_early_waits_for_what_runs_and_nothing_more_begins(cores):
    watched = Watched(lambda _: time.sleep(0.02))
    with Finishing(watched.tell, watched.finish) as work:
        for i in range(4):
            list(work.add(given(i)))
    finished = len(watched.finished)
    assert finished <= 4
    time.sleep(0.1)
    assert len(watched.finished) == finished
    assert not any(thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate() if thread.is_alive())
