"""Rules: each on made-up records that must pass and on others that must fail."""

import math

import numpy as np
import pytest

from experiments.report import rules


def record(history=(), configuration=None, seed=0, **metrics):
    return {"metrics": metrics, "history": list(history), "configuration": configuration or {}, "seed": seed}


def errors(*counts, examples=10_000):
    return [record(errors=count, examples=examples) for count in counts]


@pytest.mark.parametrize(
    "counts, reported, holds",
    [
        ((45,), 0.0042, True),
        ((20,), 0.0042, True),
        ((54,), 0.0042, True),
        ((55,), 0.0042, False),
        ((100,), 0.0042, False),
        ((48, 60), 0.0042, True),
        ((50, 60), 0.0042, False),
    ],
)
def test_an_error_rate_reaches_the_reported_one_or_lies_below(counts, reported, holds):
    found = rules.error_rate(errors(*counts), reported)
    assert found.holds == holds == (found.interval[0] <= reported)
    assert found.measured == pytest.approx(np.mean(counts) / 10_000)


def test_seeds_share_a_test_set_and_do_not_narrow_the_interval():
    one, three = rules.error_rate(errors(50), 0.0042), rules.error_rate(errors(40, 50, 60), 0.0042)
    assert three.interval == pytest.approx(one.interval) and three.deviation == pytest.approx(0.001)
    with pytest.raises(rules.CannotJudge, match="test sets of different sizes"):
        rules.error_rate([*errors(1), *errors(1, examples=1000)], 0.01)


@pytest.mark.parametrize(
    "count, where, holds", [(20, "above", True), (42, "inside", True), (54, "inside", True), (60, "below", False)]
)
def test_an_error_rate_says_where_the_reported_one_lies(count, where, holds):
    found = rules.error_rate(errors(count), 0.0042)
    assert found.detail == f"reported rate {where}" and found.holds == holds


@pytest.mark.parametrize("ours, theirs, holds", [((45,), (38,), True), ((20,), (60,), True), ((70,), (38,), False)])
def test_as_few_errors_if_the_intervals_overlap_or_ours_is_below(ours, theirs, holds):
    found = rules.as_few_errors(errors(*ours), None, against=errors(*theirs))
    assert found.holds == holds and "the other's" in found.detail and "1 seed" in found.detail


@pytest.mark.parametrize("ours, theirs, holds", [((18,), (36,), False), ((180,), (360,), True), ((360,), (180,), False)])
def test_fewer_errors_if_the_interval_is_below(ours, theirs, holds):
    found = rules.fewer_errors(errors(*ours), None, against=errors(*theirs))
    assert found.holds == holds and "the other's" in found.detail


def test_fewer_on_average():
    ours, theirs = [record(nfe=20.0), record(nfe=24.0)], [record(nfe=23.0)]
    assert rules.fewer_on_average(ours, None, "nfe", against=theirs).holds
    assert not rules.fewer_on_average(theirs, None, "nfe", against=ours).holds
    with pytest.raises(rules.CannotJudge):
        rules.fewer_on_average(ours, None, "nfe", against=[record()])


@pytest.mark.parametrize("measured, holds", [(0.964, True), (0.95, True), (0.978, True), (0.948, False), (0.98, False)])
def test_within_the_reported_deviation(measured, holds):
    found = rules.within_deviations([record(accuracy=measured)], 0.964, "accuracy", 0.005)
    assert found.holds == holds and "reported deviations" in found.detail


def test_a_bound_itself_is_within_it_whatever_the_rounding():
    assert rules.within_deviations([record(accuracy=0.979)], 0.982, "accuracy", 0.001).holds
    assert not rules.within_deviations([record(accuracy=0.9789)], 0.982, "accuracy", 0.001).holds
    assert rules.within([record(rmse=0.33)], 0.3, "rmse", 0.1).holds
    assert rules.at_most([record(rmse=value) for value in (0.1, 0.2)], 0.15, "rmse").holds
    assert rules.at_least([record(rmse=value) for value in (0.1, 0.7)], 0.4, "rmse").holds


def test_at_most_and_at_least_judge_the_mean_over_seeds():
    records = [record(rmse=value) for value in (0.1, 0.2)]
    assert rules.at_most(records, 0.15 + 1e-12, "rmse").holds and not rules.at_most(records, 0.149, "rmse").holds
    assert rules.at_least(records, 0.15 - 1e-12, "rmse").holds and not rules.at_least(records, 0.151, "rmse").holds
    assert rules.at_most(records, None, "rmse", limit=0.2).holds and not rules.at_least(records, None, "rmse", limit=0.2).holds
    assert rules.at_most(records, 1.0, "rmse").deviation == pytest.approx(0.1 / math.sqrt(2))


@pytest.mark.parametrize("value, limit", [(None, None), (1.0, 1.0)])
def test_a_bound_is_the_reported_value_or_a_limit(value, limit):
    with pytest.raises(ValueError, match="the reported value or a limit, one of them"):
        rules.at_most([record(rmse=1.0)], value, "rmse", limit=limit)


@pytest.mark.parametrize("measured, holds", [(110, True), (90, True), (111, False), (89, False)])
def test_within_a_share(measured, holds):
    assert rules.within([record(size=measured)], 100, "size", 0.1).holds == holds


def test_a_share_may_ask_for_seeds():
    records = [record(seed=seed, size=100) for seed in range(3)]
    assert rules.within(records, 100, "size", 0.15, seeds=3).holds
    with pytest.raises(rules.CannotJudge, match="3 seeds are asked for, there are 2"):
        rules.within(records[:2], 100, "size", 0.15, seeds=3)
    with pytest.raises(rules.CannotJudge, match="there is 1"):
        rules.within([records[0], records[0]], 100, "size", 0.15, seeds=3)


@pytest.mark.parametrize("low, high, holds", [(-0.5, -0.3, True), (-0.5, 0.1, False), (0.2, 0.3, False)])
def test_an_interval_lies_beyond_a_bound(low, high, holds):
    one = record(rank=(low + high) / 2, rank_low=low, rank_high=high)
    assert rules.interval([one], None, "rank", below=0.0).holds == holds
    assert rules.interval([one], None, "rank", above=0.0).holds == (low > 0)
    with pytest.raises(rules.CannotJudge, match="of one run"):
        rules.interval([one, one], None, "rank", below=0.0)


def line(slope, noise, points=6):
    """Points of a line with residuals + and - in turn."""
    return [{"model": "one", "x": x, "y": 10 + slope * x + noise * (-1) ** x} for x in range(1, points + 1)]


@pytest.mark.parametrize(
    "slope, noise, bounds, holds",
    [
        (1.0, 0.1, {"above": 0.0}, True),
        (1.0, 5.0, {"above": 0.0}, False),
        (-1.0, 0.1, {"above": 0.0}, False),
        (0.1, 0.1, {"below": 0.5}, True),
        (0.1, 2.0, {"below": 0.5}, False),
        (0.6, 0.0, {"below": 0.5}, False),
        (1.0, 0.1, {"above": 0.8, "below": 1.2}, True),
        (1.3, 0.1, {"above": 0.8, "below": 1.2}, False),
    ],
)
def test_a_trend_needs_the_whole_interval_of_its_slope(slope, noise, bounds, holds):
    found = rules.trend([record(line(slope, noise))], None, {"model": "one"}, "x", "y", **bounds)
    assert found.holds == holds and found.interval[0] <= found.measured <= found.interval[1]


def test_the_interval_of_a_slope_is_students():
    # By hand: residuals -1, 1, 1, -1 leave a variance of 4 / 2, the x a sum of squares of 5; t(0.975, 2) is 4.302653.
    rows = [{"x": x, "y": y} for x, y in zip(range(4), (0.0, 4.0, 6.0, 6.0))]
    found = rules.trend([record(rows)], None, {}, "x", "y")
    assert found.measured == pytest.approx(2.0)
    assert found.interval[1] - found.measured == pytest.approx(4.302653 * math.sqrt(2 / 5), rel=1e-6)


def test_a_trend_of_logarithms_is_a_power_and_units_divide():
    rows = [{"x": x, "y": 3 * x**-2.0} for x in (1.0, 2.0, 4.0, 9.0)]
    assert rules.trend([record(rows)], None, {}, "x", "y", log=True, below=0.0).measured == pytest.approx(-2.0)
    assert rules.trend([record(line(3.0, 0.0), state=1.5)], None, {}, "x", "y", per="state").measured == pytest.approx(2.0)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        line(1.0, 0.0, points=2),
        [{"model": "other", "x": x, "y": x} for x in range(9)],
        [{"model": "one", "x": x, "y": None} for x in range(9)],
    ],
)
def test_a_trend_needs_three_points(rows):
    with pytest.raises(rules.CannotJudge, match="at three x or more"):
        rules.trend([record(rows)], None, {"model": "one"}, "x", "y")


def growth(function, points=8):
    """Points of y = function(x), off by 1 in turn."""
    return [{"x": x, "y": 100 + function(x) + (1, -1, -1, 1)[x % 4]} for x in range(1, points + 1)]


@pytest.mark.parametrize(
    "function, reason",
    [
        (lambda x: 20 * x, None),
        (lambda x: -20 * x, "falls"),
        (lambda x: 1.5 * x, "R² is small"),
        (lambda x: 20 * x + 0.7 * x**2, "a parabola with R² above 0.98"),
        (lambda x: 0, "constant"),
    ],
)
def test_growth_in_proportion_needs_a_slope_a_good_fit_and_no_curvature(function, reason):
    found = rules.linear([record(growth(function))], None, {}, "x", "y")
    assert found.holds == (reason is None), found
    if reason and "parabola" in reason:
        assert found.detail.startswith("R² 0.99") and "; curvature beyond its error" in found.detail


def test_a_curvature_needs_four_points():
    with pytest.raises(rules.CannotJudge, match="four x or more"):
        rules.linear([record(growth(lambda x: x, points=3))], None, {}, "x", "y")


def ratios(*values, **more):
    return [record([{"part": "backward", "method": "adams", "ratio": value, **more} for value in values])]


@pytest.mark.parametrize(
    "records, holds, inside",
    [
        (ratios(0.45, 0.5, 0.6), True, "3 of 3"),
        (ratios(0.45, 0.5, 0.61), False, "2 of 3"),
        (ratios(0.3), False, "0 of 1"),
        (ratios(0.5, finished=False), False, "0 of 1"),
        (ratios(0.5, finished=True), True, "1 of 1"),
    ],
)
def test_a_band_holds_every_row(records, holds, inside):
    found = rules.band(records, None, {"part": "backward", "method": ["adams", "lsoda"]}, "ratio", 0.4, 0.6)
    assert found.holds == holds and inside in found.detail
    with pytest.raises(rules.CannotJudge, match="no rows with ratio"):
        rules.band(records, None, {"part": "backward", "method": "dopri5"}, "ratio", 0.4, 0.6)


PAIRS = {"lesser": "kl_{density}_cnf_{size}", "greater": "kl_{density}_nf_{size}", "over": {"density": ["u1"], "size": [2, 8]}}


def flows(cnf, nf, error=0.01):
    return record(
        **{
            f"kl_u1_{flow}_{size}{end}": value
            for flow, values in (("cnf", cnf), ("nf", nf))
            for size, kl in zip((2, 8), values)
            for end, value in (("", kl), ("_se", error))
        }
    )


def test_an_ordering_holds_in_every_pair_or_names_the_others():
    assert rules.ordering([flows((0.1, 0.2), (0.1, 0.3))], None, **PAIRS).holds
    found = rules.ordering([flows((0.1, 0.4), (0.2, 0.3))], None, **PAIRS)
    assert not found.holds and found.measured == 1 and found.detail == "of 2 pairs; not u1, 8 (0.4 and 0.3)"
    assert rules.ordering([flows((0.1, 0.4), (0.2, 0.3)), flows((0.1, 0.1), (0.2, 0.3))], None, **PAIRS).holds


GENERALLY = {**PAIRS, "standard_errors": 2.0, "margin": 0.01, "pairs": 1, "seeds": 1}


@pytest.mark.parametrize(
    "cnf, nf, error, holds",
    [
        ((0.1, 0.1), (0.2, 0.2), 0.0, True),
        ((0.1, 0.109), (0.2, 0.1), 0.0, True),  # above by less than 0.01 nats
        ((0.1, 0.12), (0.2, 0.1), 0.01, True),  # above by less than two errors
        ((0.19, 0.3), (0.2, 0.1), 0.0, False),  # one pair holds, but on average the ratio is above 1
        ((0.3, 0.3), (0.2, 0.2), 0.0, False),
        ((0.201, 0.201), (0.2, 0.2), 0.0, False),  # no pair is broken, and none is lower
    ],
)
def test_generally_lower_needs_most_pairs_and_the_average(cnf, nf, error, holds):
    assert rules.generally_lower([flows(cnf, nf, error)], None, **GENERALLY).holds == holds


def test_generally_lower_needs_so_many_pairs_and_seeds():
    one = flows((0.1, 0.2), (0.3, 0.1), 0.0)
    assert rules.generally_lower([one], None, **GENERALLY).holds
    found = rules.generally_lower([one], None, **{**GENERALLY, "pairs": 2})
    assert not found.holds and found.detail.startswith("of 2 pairs; not u1, 8 (0.2 and 0.1); geometric mean of the ratios 0.816")
    with pytest.raises(rules.CannotJudge, match="3 seeds are asked for"):
        rules.generally_lower([one], None, **{**GENERALLY, "seeds": 3})


@pytest.mark.parametrize("factor, holds", [(2.9, True), (3.1, False)])
def test_so_many_times_somewhere(factor, holds):
    found = rules.somewhere([flows((0.1, 0.1), (0.1, 0.3))], None, **PAIRS, factor=factor)
    assert found.holds == holds and found.detail == "at u1, 8"


@pytest.mark.parametrize("gaps, holds", [((0.03, 0.02), True), ((0.03, 0.019), False), ((-0.03, 0.02), False)])
def test_a_paired_gap_is_beyond_its_own_error_in_every_choice(gaps, holds):
    metrics = {f"gap_{data}{end}": value for data, gap in zip("ab", gaps) for end, value in (("", gap), ("_se", 0.01))}
    found = rules.paired_gap([record(**metrics)], None, "gap_{data}", {"data": ["a", "b"]}, 2.0)
    assert found.holds == holds and found.measured == min(gaps)
    # Of two seeds the mean has an error smaller by sqrt(2).
    assert rules.paired_gap(2 * [record(**metrics)], None, "gap_{data}", {"data": ["b"]}, 2.0).holds


def test_an_ordering_may_ask_for_more_than_chance():
    assert rules.ordering([flows((0.1, 0.1), (0.13, 0.2))], None, **PAIRS, standard_errors=2.0).holds
    assert not rules.ordering([flows((0.1, 0.1), (0.12, 0.2))], None, **PAIRS, standard_errors=2.0).holds
    # Two seeds have a standard error smaller by sqrt(2).
    assert rules.ordering(2 * [flows((0.1, 0.1), (0.121, 0.2))], None, **PAIRS, standard_errors=2.0).holds
    with pytest.raises(rules.CannotJudge, match="no metric kl_u1_cnf_2_se"):
        rules.ordering([record(kl_u1_cnf_2=0.1, kl_u1_nf_2=0.1)], None, **PAIRS, standard_errors=2.0)


def test_a_setting_is_the_reported_one_in_every_record():
    records = [record(configuration={"solver": {"tolerance": value}}) for value in (1e-5, 1e-5, 1e-3)]
    assert rules.setting(records[:2], 1e-5, "solver.tolerance").holds
    assert not rules.setting(records[2:], 1e-5, "solver.tolerance").holds
    with pytest.raises(rules.CannotJudge, match="differs between records"):
        rules.setting(records, 1e-5, "solver.tolerance")
    with pytest.raises(rules.CannotJudge, match="no solver.rtol in the configuration"):
        rules.setting(records, 1e-5, "solver.rtol")


@pytest.mark.parametrize("records", [[], [record()], [record(rmse=None)], [record(rmse=1.0), record()]])
def test_a_metric_that_is_not_there_decides_nothing(records):
    with pytest.raises(rules.CannotJudge, match="no metric rmse"):
        rules.at_most(records, 1.0, "rmse")


@pytest.mark.parametrize("name", rules.RULES)
def test_every_rule_has_a_meaning(name):
    assert len(rules.meaning(name)) > 20
