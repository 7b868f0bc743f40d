"""Rules: each on made-up records that must pass and on others that must fail."""

import math

import numpy as np
import pytest

from experiments.report import rules


def record(history=(), configuration=None, **metrics):
    return {"metrics": metrics, "history": list(history), "configuration": configuration or {}}


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
