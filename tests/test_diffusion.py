import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timecolor import diffusion
from timecolor.sampling import sample


@given(st.floats(0.01, 1.0), st.integers(0, 999))
def test_velocity_on_the_path_is_noise_minus_colours(t, seed):
    clean, noise = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(seed))
    time = torch.full((2,), t)
    noisy = diffusion.noised(clean, noise, time)
    torch.testing.assert_close(diffusion.velocity(clean, noisy, time), noise - clean, atol=1e-3, rtol=1e-3)


def test_the_path_runs_from_colours_to_noise():
    clean, noise = torch.randn(2, 1, 3)
    assert torch.equal(diffusion.noised(clean, noise, torch.zeros(1)), clean)
    assert torch.equal(diffusion.noised(clean, noise, torch.ones(1)), noise)


@given(st.integers(1, 50), st.floats(0.5, 8))
def test_schedule_falls_from_one_to_zero(steps, shift):
    times = diffusion.schedule(steps, shift)
    assert times[0] == 1
    assert times[-1] == 0
    assert (times.diff() < 0).all()


def test_shift_three_puts_the_middle_at_three_quarters():
    torch.testing.assert_close(diffusion.schedule(2, 3.0), torch.tensor([1.0, 0.75, 0.0]))


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="0 steps"):
        diffusion.schedule(0)


def test_training_times_are_in_range_and_often_pure_noise():
    times = diffusion.training_times(4000, torch.Generator().manual_seed(0))
    assert times.min() > 0
    assert times.max() == 1
    assert 0.3 < (times == 1).float().mean() < 0.4


def test_loss_is_the_mean_square_of_each_sample():
    prediction = torch.zeros(2, 1, 3, 2, 2)
    clean = torch.stack([torch.full((1, 3, 2, 2), 2.0), torch.full((1, 3, 2, 2), -3.0)])
    assert diffusion.loss(prediction, clean).tolist() == [4.0, 9.0]


class Constant:
    """Always says the same colours."""

    def __init__(self, clean):
        self.clean = clean

    def prepare(self, conditions):
        return conditions

    def predict(self, latents, timestep, cache):
        return self.clean


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_sampling_ends_at_what_the_model_says(steps):
    clean, noise = torch.randn(2, 1, 2, 3, 4, 4)
    solver = diffusion.Euler(steps)
    done = list(sample(Constant(clean), noise, None, solver))
    assert [s.index for s in done] == list(range(1, steps + 1))
    for step, time in zip(done[:-1], solver.times[1:], strict=True):  # on the straight path between the two
        torch.testing.assert_close(step.latents, diffusion.noised(clean, noise, time[None]), atol=1e-4, rtol=1e-4)
    assert torch.equal(done[-1].latents, clean)


def test_values_that_are_not_finite_stop_sampling_and_name_the_step():
    broken = torch.full((1, 1, 3, 2, 2), torch.nan)
    with pytest.raises(FloatingPointError, match="step 1 of 3"):
        list(sample(Constant(broken), torch.randn(1, 1, 3, 2, 2), None, diffusion.Euler(3)))
