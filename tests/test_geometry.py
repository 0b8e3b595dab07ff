import pytest
from hypothesis import given
from hypothesis import strategies as st

from timecolor.geometry import Clip, Compression, Grid

sizes = st.integers(1, 12)
compressions = st.builds(Compression, st.integers(1, 5), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 8]))


def test_published_size_gives_the_published_grid():
    assert Compression().grid(Clip(17, 480, 720)) == Grid(5, 30, 45)
    assert Grid(5, 30, 45).per_frame == 1350


@given(compressions, sizes, sizes, sizes)
def test_grid_and_clip_are_inverses(compression, f, h, w):
    assert compression.grid(compression.clip(Grid(f, h, w))) == Grid(f, h, w)


@given(compressions, st.integers(1, 200))
def test_padded_length_is_the_shortest_legal_one(compression, frames):
    padded = compression.padded_frames(frames)
    assert frames <= padded < frames + compression.time
    compression.latent_frames(padded)


@given(compressions, st.integers(1, 500), st.integers(1, 500), st.integers(1, 40))
def test_nearest_working_size_is_legal_and_near(compression, height, width, cells):
    clip = compression.nearest(Clip(1, height, width), cells * compression.cell)
    compression.grid(clip)
    assert min(clip.height, clip.width) == cells * compression.cell


def test_a_length_that_does_not_fit_names_the_nearest():
    with pytest.raises(ValueError, match=r"16 frames; use 13 or 17 \(4k\+1\)"):
        Compression().grid(Clip(16, 480, 720))


def test_a_size_that_does_not_fit_names_the_nearest():
    with pytest.raises(ValueError, match=r"width 721; use 720 or 736"):
        Compression().grid(Clip(17, 480, 721))
    with pytest.raises(ValueError, match=r"height 7; use 16"):
        Compression().grid(Clip(1, 7, 16))


@pytest.mark.parametrize("make", [lambda: Clip(0, 1, 1), lambda: Grid(1, 0, 1), lambda: Compression(patch=0)])
def test_empty_sizes_are_refused(make):
    with pytest.raises(ValueError, match="at least 1"):
        make()
