"""What record_solves collects, and what a SolverError carries."""

import pickle
import threading
import time

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

from solvers_bridge import SolverError, SolveStatistics, odeint, record_solves
from tests.helpers import ADAPTIVE, FIXED, STEPWISE, every_family, with_and_without_steps

HIGHEST_ORDER = {"adams": 12, "bdf": 5, "lsoda": 12, "dopri5": 5, "dop853": 8, "radau": 5, "euler": 1, "midpoint": 2, "rk4": 4}
METHODS = tuple(HIGHEST_ORDER)
Y0, T = np.array([1.0, 2.0]), np.array([0.0, 0.4, 1.0, 1.5])


class Counted:
    """dy/dt = params * y, counting its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, t, y, params):
        self.calls += 1
        return params * y


def solve(func, method="adams", t=T, y0=Y0, params=-1.0, **kwargs):
    options = {"step_size": 0.1} if method in FIXED else {}
    return odeint(func, y0, t, params, **{"method": method, "rtol": 1e-6, "atol": 1e-6, "options": options, **kwargs})


@pytest.mark.parametrize("method, steps", [*((method, False) for method in METHODS), ("adams", True), ("lsoda", True)])
def test_a_forward_solve_is_one_record_that_counts_right(method, steps):
    func = Counted()
    start = time.perf_counter()
    with record_solves(steps=steps) as solves:
        solve(func, method)
    elapsed = time.perf_counter() - start
    (record,) = solves
    assert isinstance(record, SolveStatistics)
    assert (record.direction, record.method, record.size) == ("forward", method, 2)
    assert record.nfe == func.calls > 0 and record.steps >= 3
    assert 1 <= record.last_order <= HIGHEST_ORDER[method]
    assert 0 < record.last_step <= 1.5
    assert 0 < record.wall_seconds <= elapsed
    if method in FIXED:
        assert record.steps == 4 + 6 + 5 and record.last_step == pytest.approx(0.1)
        assert record.nfe == record.steps * {"euler": 1, "midpoint": 2, "rk4": 4}[method]


@every_family
def test_recording_steps_changes_nothing(method):
    with record_solves() as plain:
        ys = solve(Counted(), method)
    with record_solves(steps=True) as detailed:
        np.testing.assert_array_equal(solve(Counted(), method), ys)
    assert plain[0].t is plain[0].step_sizes is plain[0].orders is None
    for name in ("nfe", "steps", "nje", "last_order"):
        assert getattr(plain[0], name) == getattr(detailed[0], name), name
    assert plain[0].last_step == pytest.approx(detailed[0].last_step, rel=1e-12)


@every_family
@pytest.mark.parametrize("backwards", (False, True))
def test_recorded_steps_add_up(method, backwards):
    t = -T if backwards else T
    with record_solves(steps=True) as solves:
        solve(Counted(), method, t, params=1.0 if backwards else -1.0)
    (record,) = solves
    assert len(record.t) == len(record.step_sizes) == len(record.orders) == record.steps
    sign = -1 if backwards else 1
    assert np.all(np.diff([0.0, *record.t]) * sign > 0) and np.all(np.array(record.step_sizes) * sign > 0)
    # A step ends where the one before ended and its own size later; multistep codes may pass the last output time.
    np.testing.assert_allclose(np.cumsum(record.step_sizes), record.t, rtol=1e-9)
    assert abs(record.t[-1]) >= 1.5 * (1 - 1e-12)
    assert record.first_step == record.step_sizes[0] and record.last_step == record.step_sizes[-1]
    assert record.last_order == record.orders[-1]
    assert all(1 <= order <= HIGHEST_ORDER[method] for order in record.orders)


@pytest.mark.parametrize("method", ["dopri5", "dop853"])
def test_a_step_that_ends_beside_its_output_time_is_one_step(method):
    """The Fortran's last step is t_out - t long, and t + (t_out - t) is not always t_out: no step leads from there to t_out."""
    rng = np.random.default_rng(0)
    for _ in range(80):
        t = np.sort(rng.uniform(size=4) * [0.05, 0.3, 1.0, 2.0])
        with record_solves(steps=True) as solves:
            odeint(lambda t, y, p: -1.3 * y * (1 + y), np.array([1.0, 0.5]), t, (), method=method, rtol=1e-3, atol=1e-3)
        with record_solves() as counted:
            odeint(lambda t, y, p: -1.3 * y * (1 + y), np.array([1.0, 0.5]), t, (), method=method, rtol=1e-3, atol=1e-3)
        assert np.abs(solves[0].step_sizes).min() > 1e-9 and counted[0].steps == solves[0].steps == len(solves[0].step_sizes)


@pytest.mark.parametrize("method, steps", (*STEPWISE, ("rk4", True)))
def test_the_reverse_sweep_is_a_record_a_segment(method, steps):
    with record_solves(steps=steps) as solves:
        grad(lambda params: anp.sum(solve(Counted(), method, params=params)))(np.array([-1.0, -0.5]))
    assert [record.direction for record in solves] == ["forward"] + ["backward"] * 3
    assert [record.size for record in solves] == [2] + [2 + 2 + 2 + 1] * 3
    assert all(record.method == method and record.nfe > 0 and record.steps > 0 and record.last_step < 0 for record in solves[1:])
    if steps:
        ends = [record.t[-1] for record in solves[1:]]
        assert all(end <= t + 1e-12 for end, t in zip(ends, (1.0, 0.4, 0.0)))
        assert [record.t[0] < t for record, t in zip(solves[1:], (1.5, 1.0, 0.4))] == [True] * 3


def test_segments_without_a_cotangent_are_not_solved():
    with record_solves() as solves:
        grad(lambda params: anp.sum(solve(Counted(), params=params)[1]))(-1.0)
    assert [record.direction for record in solves] == ["forward", "backward"]


def test_the_reverse_sweep_names_its_own_method():
    with record_solves() as solves:
        grad(lambda params: anp.sum(solve(Counted(), "adams", params=params, adjoint_method="dopri5")))(-1.0)
    assert [record.method for record in solves] == ["adams"] + ["dopri5"] * 3


@pytest.mark.parametrize("method", FIXED)
def test_the_discrete_adjoint_records_its_forward_solve(method):
    with record_solves() as solves:
        grad(lambda params: anp.sum(solve(Counted(), method, params=params, adjoint_method="discrete")))(-1.0)
    (record,) = solves
    assert (record.direction, record.method, record.size, record.steps) == ("forward", method, 2, 15)
    assert record.nfe == 15 * {"euler": 1, "midpoint": 2, "rk4": 4}[method]


def test_blocks_nest_and_end():
    with record_solves() as outer:
        solve(Counted())
        with record_solves(steps=True) as inner:
            solve(Counted(), "lsoda")
        assert len(inner) == 1 and inner[0].t is not None
        solve(Counted(), "dopri5")
    solve(Counted())
    assert [record.method for record in outer] == ["adams", "lsoda", "dopri5"] and outer[2].t is None
    assert outer[1] is inner[0] and len(inner) == 1


def test_a_block_ends_with_an_exception():
    with pytest.raises(KeyError), record_solves() as solves:
        raise KeyError
    solve(Counted())
    assert solves == []


def test_two_equal_blocks_end_separately():
    first, second = record_solves(), record_solves()
    one, two = first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    solve(Counted())
    second.__exit__(None, None, None)
    assert len(one) == 0 and len(two) == 1


def test_a_single_time_is_no_solve():
    with record_solves() as solves:
        solve(Counted(), t=[0.0])
    assert solves == []


def test_nested_solves_are_recorded_as_they_end():
    def func(t, y, params):
        return -y * solve(Counted(), "rk4", [0.0, 1.0], 1.0)[-1]

    with record_solves() as solves:
        solve(func, "dopri5")
    assert solves[-1].method == "dopri5" and {record.method for record in solves[:-1]} == {"rk4"}
    assert len(solves) == 1 + solves[-1].nfe


def test_solves_of_all_threads_are_seen():
    def work(method):
        for _ in range(5):
            solve(Counted(), method)

    with record_solves() as solves:
        threads = [threading.Thread(target=work, args=(method,)) for method in ("adams", "lsoda", "dopri5", "rk4")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(record.method for record in solves) == sorted(["adams", "lsoda", "dopri5", "rk4"] * 5)


@pytest.mark.parametrize(
    "method, jacobian",
    [
        ("adams", "finite_difference"),
        ("bdf", "finite_difference"),
        ("bdf", "diagonal"),
        ("bdf", "autodiff"),
        ("lsoda", None),
        ("lsoda", "autodiff"),
        ("lsoda", "diagonal"),
        ("radau", None),
        ("radau", "autodiff"),
    ],
)
@pytest.mark.parametrize("steps", (False, True))
def test_jacobians_are_counted(method, jacobian, steps):
    def func(t, y, params):
        return params * (y - anp.cos(t))

    with record_solves(steps=steps) as solves:
        solve(func, method, t=[0.0, 3.0], params=-1e4, options={"jacobian": jacobian})
    assert solves[0].nje >= 1 and solves[0].nje <= solves[0].nfe


@pytest.mark.parametrize("method", ("adams", "bdf", "dopri5", "dop853", *FIXED))
def test_no_jacobians_without_a_newton_iteration(method):
    with record_solves() as solves:
        solve(Counted(), method)
    assert solves[0].nje == 0


def test_max_order_is_kept():
    for method, order in (("adams", 2), ("bdf", 1), ("lsoda", 3)):
        with record_solves(steps=True) as solves:
            solve(Counted(), method, options={"max_order": order})
        assert max(solves[0].orders) <= order


# Failures ------------------------------------------------------------------------------------------------------------------------


@with_and_without_steps
def test_a_failed_solve_is_recorded_and_described(method, steps):
    func = Counted()
    with record_solves(steps=steps) as solves, pytest.raises(SolverError) as info:
        solve(
            lambda t, y, params: func(t, anp.array([y[1], -y[0]]), 50.0),
            method,
            t=[0.0, 0.01, 20.0],
            options={"max_num_steps": 30},
        )
    error, record = info.value, solves[0]
    assert len(solves) == 1 and error.statistics is record
    assert isinstance(error, RuntimeError) and error.reason and error.reason in str(error)
    assert str(error).startswith(f"{method} (forward) stopped at t = {error.t_reached!r}: ")
    assert record.nfe == func.calls >= record.steps > 0 and record.wall_seconds > 0
    assert isinstance(error.t_reached, float) and 0 < error.t_reached < 20
    if steps:
        assert len(record.t) == record.steps
        assert error.t_reached == pytest.approx(record.t[-1])


@every_family
def test_a_solve_whose_func_raises_is_recorded(method):
    def func(t, y, params):
        if t > 0.7:
            raise KeyError("mine")
        return -y

    with record_solves() as solves, pytest.raises(KeyError):
        solve(func, method)
    (record,) = solves
    assert record.nfe > 0 and record.wall_seconds > 0


@every_family
def test_a_failed_reverse_solve_says_backward(method):
    def func(t, y, params):
        return params * y * (np.nan if 0.4 < t < 0.5 and not isinstance(y, np.ndarray) else 1.0)

    with record_solves() as solves, pytest.raises(SolverError) as info:
        options = {"max_step": 0.05} if method in ADAPTIVE else {"step_size": 0.02}
        means = {"options": options, "adjoint_options": {"reconstruction": "solve"}}
        grad(lambda params: anp.sum(solve(func, method, params=params, **means)))(-1.0)
    error = info.value
    assert error.statistics is solves[-1] and error.statistics.direction == "backward"
    assert 0.4 <= error.t_reached <= 1.0 and f"{method} (backward) stopped at t = {error.t_reached!r}" in str(error)
    # One good segment from 1.5 to 1.0, then the failed one.
    assert [record.direction for record in solves] == ["forward", "backward", "backward"]


@every_family
def test_a_failure_at_the_first_evaluation_reached_the_start(method):
    with pytest.raises(SolverError) as info:
        solve(lambda t, y, params: y * np.inf, method, t=[0.25, 1.0])
    assert info.value.t_reached == 0.25 and info.value.statistics.nfe == 1 and info.value.statistics.steps == 0


def test_a_failed_solve_inside_func_goes_on_unchanged():
    def func(t, y, params):
        return solve(lambda t, y, params: y * np.nan, "rk4", [3.0, 4.0])[-1]

    with record_solves() as solves, pytest.raises(SolverError) as info:
        solve(func, "dopri5")
    assert info.value.statistics.method == "rk4" and info.value.t_reached == 3.0
    assert [record.method for record in solves] == ["rk4", "dopri5"]


def test_solver_error_alone():
    error = SolverError("the reason")
    assert str(error) == error.reason == "the reason" and error.t_reached is error.statistics is None


def test_solver_error_travels_between_processes():
    with pytest.raises(SolverError) as info:
        solve(lambda t, y, params: y * np.nan)
    copy = pickle.loads(pickle.dumps(info.value))
    assert str(copy) == str(info.value) and copy.statistics == info.value.statistics
