"""Confidence intervals and paired comparisons, on values whose answer is known."""

import copy
import json
import math

import numpy as np
import pytest
from scipy import stats

from timecolor.evaluate.statistics import FEWEST_CASES, Interval, _student, mean_interval, paired_differences


def test_interval_of_many_values_is_that_of_the_normal():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = mean_interval(values)
    half = 1.96 * values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_holds_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    for cases, least in ((5, 0.88), (8, 0.91), (32, 0.92)):
        hits = 0
        for trial in range(400):
            found = mean_interval(rng.normal(size=cases), seed=trial, resamples=1000)
            assert found.low is not None
            assert found.high is not None
            hits += found.low <= 0 <= found.high
        assert least <= hits / 400 <= 0.98


def test_interval_of_equal_values_has_no_width():
    assert mean_interval([2.5] * 9) == Interval(2.5, 2.5, 2.5)


def test_few_cases_have_no_interval():
    assert mean_interval([1.0, 2.0, 3.0, 6.0]) == Interval(3.0, None, None)
    assert mean_interval([7.0]) == Interval(7.0, None, None)
    assert mean_interval(list(range(FEWEST_CASES))).low is not None


def test_interval_is_one_seeds_and_none_of_the_callers_order_of_work(monkeypatch):
    from timecolor.evaluate import statistics

    values = np.random.default_rng(2).normal(size=30)
    whole = mean_interval(values, seed=4)
    assert whole == mean_interval(values, seed=4)
    assert whole != mean_interval(values, seed=5)
    monkeypatch.setattr(statistics, "_BLOCK", 100)  # a few rows at once
    assert mean_interval(values, seed=4) == whole


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="got 3 values, 1 not finite"):
        mean_interval([1.0, math.inf, 2.0])
    with pytest.raises(ValueError, match="got 0 values"):
        mean_interval([])


@pytest.mark.parametrize("freedom", [4, 5, 9, 30, 1000])
def test_student_is_that_of_the_tables(freedom):
    assert _student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=2e-3)


def results(psnr: dict[str, float | None], **more) -> dict:
    """results.json with a row for each case; lpips is what psnr is, turned round."""
    rows = [
        {
            "dataset": "world",
            "protocol": "start frame",
            "case": case,
            "method": "timecolor",
            "frames": [1, 2, 3],
            "values": {"psnr": value, "lpips": None if value is None else 1 - value / 100},
            "seconds_per_frame": 0.5,
            "peak_mib": None,
            **more,
        }
        for case, value in psnr.items()
    ]
    metrics = [{"name": "psnr", "better": "higher"}, {"name": "lpips", "better": "lower"}]
    return json.loads(json.dumps({"schema": 1, "metrics": metrics, "rows": rows}))


def cases(*values: float | None) -> dict[str, float | None]:
    return {f"world/{1000 + i}": value for i, value in enumerate(values)}


def test_a_small_steady_gain_among_unlike_cases_is_seen():
    """Cases lie 5 dB apart, so two separate intervals overlap; each gained about 0.2 dB."""
    before = np.arange(10, 60, 5.0)
    after = before + 0.2 + np.resize([0.02, -0.02], 10)
    separate = mean_interval(before), mean_interval(after)
    assert separate[0].high is not None
    assert separate[1].low is not None
    assert separate[1].low < separate[0].high
    found = {d.metric: d for d in paired_differences(results(cases(*before)), results(cases(*after)))}
    assert list(found) == ["psnr", "lpips", "seconds_per_frame"]
    psnr = found["psnr"]
    assert (psnr.dataset, psnr.protocol, psnr.method, psnr.cases) == ("world", "start frame", "timecolor", 10)
    assert psnr.mean_a == pytest.approx(before.mean())
    assert psnr.mean_b == pytest.approx(after.mean())
    assert psnr.difference.mean == pytest.approx(0.2)
    assert psnr.difference.low is not None
    assert 0.18 < psnr.difference.low < 0.2
    assert psnr.better == "b"
    assert found["lpips"].better == "b"  # lower is better there
    assert found["lpips"].difference.mean == pytest.approx(-0.002)
    assert found["seconds_per_frame"].better is None
    turned = {d.metric: d for d in paired_differences(results(cases(*after)), results(cases(*before)))}
    assert {metric: d.better for metric, d in turned.items()} == {"psnr": "a", "lpips": "a", "seconds_per_frame": None}
    assert turned["psnr"].difference.mean == pytest.approx(-0.2)


def test_a_change_that_goes_both_ways_has_no_winner():
    before, after = cases(*[20.0] * 8), cases(*[20.5, 19.4] * 4)
    assert paired_differences(results(before), results(after))[0].better is None


def test_only_shared_cases_with_both_figures_are_compared():
    a = results(cases(10, 20, 30, None, 50, 60, 70))
    b = results(cases(11, 21, None, 41, 51, 61))
    found = paired_differences(a, b)[0]
    assert (found.cases, found.mean_a, found.mean_b) == (4, (10 + 20 + 50 + 60) / 4, (11 + 21 + 51 + 61) / 4)
    assert found == paired_differences(a, b)[0]
    few = paired_differences(results(cases(1, 2, 3)), results(cases(2, 3, 4)))[0]
    assert few.difference == Interval(1.0, None, None)
    assert few.better is None
    assert paired_differences(a, results(cases(1), method="copy")) == []


def test_results_that_cannot_be_compared_are_refused():
    a = results(cases(10, 20))
    with pytest.raises(
        ValueError, match=r"world, start frame, world/1000, timecolor: A scored frames 1, 2, 3 \(3\), B 1, 2 \(2\)"
    ):
        paired_differences(a, results(cases(10, 20), frames=[1, 2]))
    twice = copy.deepcopy(a)
    twice["rows"].append(twice["rows"][0])
    with pytest.raises(ValueError, match="B has world, start frame, world/1000, timecolor twice"):
        paired_differences(a, twice)
    with pytest.raises(ValueError, match="A has schema 2"):
        paired_differences({**a, "schema": 2}, a)
