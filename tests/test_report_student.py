"""The t distribution, intervals and the number of seeds, judged by scipy."""

import math
import random

import pytest
from scipy import stats

from ls_lightning.sweep.estimate import difference, mean_interval
from ls_lightning.sweep.student import MOST_SEEDS, seeds_needed, t_cdf, t_quantile


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 9, 30, 101, 998])
def test_distribution_and_quantile_are_students(df):
    for t in (-30.0, -2.0, -0.1, 0.0, 0.5, 1.0, 3.0, 12.0):
        assert t_cdf(t, df) == pytest.approx(stats.t.cdf(t, df), abs=1e-13)
    for share in (1e-4, 0.025, 0.3, 0.5, 0.8, 0.975, 0.995, 0.9999):
        assert t_quantile(share, df) == pytest.approx(stats.t.ppf(share, df), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("share", "df"), [(0.0, 3), (1.0, 3), (math.nan, 3), (0.5, 0)])
def test_quantiles_that_are_none(share, df):
    with pytest.raises(ValueError, match=r"must be (in \(0, 1\)|at least 1)"):
        t_quantile(share, df)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_intervals_are_scipys(n, level):
    generator = random.Random(n)
    a = {seed: generator.gauss(0.3, 0.1) for seed in range(n)}
    b = {seed: generator.gauss(0.2, 0.2) for seed in range(n)}
    mean = mean_interval(list(a.values()), level)
    assert (mean.low, mean.high) == pytest.approx(
        stats.t.interval(level, n - 1, loc=mean.mean, scale=stats.sem(list(a.values())))
    )
    paired = difference(a, b, level)
    wanted = stats.ttest_rel(list(a.values()), list(b.values())).confidence_interval(level)
    assert paired.paired
    assert (paired.low, paired.high) == pytest.approx((wanted.low, wanted.high))


def test_only_matching_seeds_are_paired():
    found = difference({0: 1.0, 1: 2.0, 2: 100.0}, {0: 0.5, 1: 1.0, 3: -100.0})
    assert (found.mean, found.n, found.paired) == (0.75, 2, True)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 7), (9, 2)])
def test_seeds_that_do_not_match_give_welchs_interval(n, m):
    generator = random.Random(n)
    a = {seed: generator.gauss(0.3, 0.1) for seed in range(n)}
    b = {100 + seed: generator.gauss(0.2, 0.3) for seed in range(m)}
    found = difference(a, b)
    exact = stats.ttest_ind(list(a.values()), list(b.values()), equal_var=False)
    half = stats.t.ppf(0.975, math.floor(exact.df)) * math.sqrt(
        stats.sem(list(a.values())) ** 2 + stats.sem(list(b.values())) ** 2
    )
    exact_mean = (exact.confidence_interval().low + exact.confidence_interval().high) / 2
    assert found.mean == pytest.approx(exact_mean)
    assert found.half == pytest.approx(half)
    assert found.half >= (exact.confidence_interval().high - exact.confidence_interval().low) / 2 - 1e-12
    assert not found.paired


def test_one_seed_has_no_interval():
    for found in (mean_interval([0.5]), difference({0: 1.0}, {0: 0.5}), difference({0: 1.0}, {1: 0.5})):
        assert found.mean == 0.5
        assert math.isnan(found.half)
        assert not found.separated


def exact_power(n, effect, alpha):
    critical, centre = stats.t.ppf(1 - alpha / 2, n - 1), effect * math.sqrt(n)
    return stats.nct.sf(critical, n - 1, centre) + stats.nct.cdf(-critical, n - 1, centre)


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("effect", [0.15, 0.3, 0.5, 0.8, 1.0, 1.5, 2.5, 4.0])
def test_number_of_seeds_against_the_noncentral_t(effect, alpha):
    n = seeds_needed(effect, 1.0, alpha=alpha)
    exact = next(n for n in range(2, MOST_SEEDS) if exact_power(n, effect, alpha) >= 0.8)
    assert abs(n - exact) <= 1
    assert seeds_needed(-3 * effect, 3.0, alpha=alpha) == n


def test_differences_that_no_number_of_seeds_finds():
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(1e-4, 1.0) is None
    assert seeds_needed(1.0, 0.0) == 2
