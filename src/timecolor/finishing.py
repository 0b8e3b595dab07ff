"""Frames finished in order, a few at once: most of the work keeps one core busy."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch

Told = TypeVar("Told")

AT_ONCE = 2  # frames; each more takes memory for its own


class Given(NamedTuple):
    """A frame of drawing number `at`, its labels, and the model's colours of that drawing, float (y, x, 3)."""

    at: int
    colours: np.ndarray
    sketch: np.ndarray
    labels: np.ndarray | None

    def alike(self, other: "Given") -> bool:
        """Whether the other becomes the same frame."""
        if self.at != other.at or not np.array_equal(self.sketch, other.sketch):
            return False
        return self.labels is other.labels or np.array_equal(np.asarray(self.labels), np.asarray(other.labels))

    def copy(self) -> "Given":
        """The same, for when a reader fills its array again."""
        return self._replace(sketch=self.sketch.copy(), labels=None if self.labels is None else self.labels.copy())


class Finishing(Generic[Told]):
    """Frames come out in the order in which they were given; what is held is finished once.

    told: what is told of a drawing, by its first frame. finish: makes a frame of it. Their errors come where frames are taken.
    """

    def __init__(self, told: Callable[[Given], Told], finish: Callable[[Given, Told], np.ndarray]) -> None:
        self._told, self._finish = told, finish
        self._last: Given | None = None
        self._begun: deque[Future[np.ndarray]] = deque()  # a held frame is there as often as it is shown
        self._workers = min(AT_ONCE, torch.get_num_threads())
        self._pool = ThreadPoolExecutor(self._workers)

    def __enter__(self) -> "Finishing":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, given: Given) -> Iterator[np.ndarray]:
        """Begin with a further frame; those that are ready, and those that must be before more is begun."""
        if self._last is None or not given.alike(self._last):
            given = given.copy()
            if self._last is None or given.at != self._last.at:
                self._drawing = _Drawing(self._told, given)
            self._last, self._frame = given, self._pool.submit(self._finished, given, self._drawing)
        self._begun.append(self._frame)
        while self._begun[0].done() or len(set(self._begun)) > self._workers:
            yield self._begun.popleft().result().copy()
            if not self._begun:
                return

    def rest(self) -> Iterator[np.ndarray]:
        """All that was begun."""
        while self._begun:
            yield self._begun.popleft().result().copy()

    def _finished(self, given: Given, drawing: "_Drawing[Told]") -> np.ndarray:
        return self._finish(given, drawing.told())


class _Drawing(Generic[Told]):
    """What the finish is told of one, made once by whoever comes first."""

    def __init__(self, told: Callable[[Given], Told], first: Given) -> None:
        self._tell, self._first = told, first
        self._told: Told | None = None
        self._lock = Lock()

    def told(self) -> Told:
        with self._lock:
            if self._told is None:
                self._told = self._tell(self._first)
            return self._told
