"""What the options of the reverse solve do: its method and tolerances, warm restarts, the seminorm, checkpoints."""

import warnings
from functools import cache

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

from solvers_bridge import GradientWarning, SolverError, odeint, record_solves
from tests.helpers import ADAPTIVE, some_fast

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.normal(size=(4, 4)), "b": RNG.normal(size=4)}
Y0 = RNG.normal(size=4)
N, P = 4, 20

# Radau is Python, ten times as dear, and gets its options by the same way as the others.
all_but_slow_radau = pytest.mark.parametrize("method", some_fast(ADAPTIVE, *(method for method in ADAPTIVE if method != "radau")))


def network(t, y, params):
    return anp.tanh(anp.dot(params["w"], y) + params["b"] * anp.sin(t)) - 0.3 * y


def gradients(func, y0, t, params, **means):
    """(gradients of sum(y(t)^2) with respect to y0 and params, records of the backward solves with their steps)."""
    with record_solves(steps=True) as solves:
        bars = grad(lambda args: anp.sum(odeint(func, args[0], t, args[1], **means) ** 2))((y0, params))
    return bars, [solve for solve in solves if solve.direction == "backward"]


def error(got, want):
    """Largest difference over both gradients, relative to the largest entry of each."""
    pairs = [(got[0], want[0])] + [(got[1][key], want[1][key]) for key in want[1]]
    return max(np.abs(g - w).max() / np.abs(w).max() for g, w in pairs)


@cache
def network_gradients(*t):
    return true_gradients(network, Y0, list(t), PARAMS)


def true_gradients(func, y0, t, params):
    return gradients(func, y0, t, params, method="dop853", rtol=1e-12, atol=1e-12)[0]


# --- Method, tolerances and options of the reverse solve.


@pytest.mark.parametrize("adjoint_method", [None, *ADAPTIVE, "rk4"])
@pytest.mark.parametrize("method", ["adams", "dopri5"])
def test_adjoint_method(method, adjoint_method):
    options = {"step_size": 0.02} if adjoint_method == "rk4" else {}
    got, backward = gradients(
        network,
        Y0,
        [0.0, 0.5, 1.0],
        PARAMS,
        method=method,
        rtol=1e-9,
        atol=1e-9,
        adjoint_method=adjoint_method,
        adjoint_options=options,
    )
    assert [solve.method for solve in backward] == [adjoint_method or method] * 2
    assert {solve.size for solve in backward} == {2 * N + P + 1}
    assert [solve.t[-1] <= end + 1e-12 for solve, end in zip(backward, (0.5, 0.0))] == [True, True]
    assert error(got, network_gradients(0.0, 0.5, 1.0)) < 1e-6


def test_forward_and_backward_methods_both_show_in_the_records():
    with record_solves() as solves:
        grad(lambda y0: anp.sum(odeint(network, y0, [0.0, 1.0], PARAMS, method="dop853", adjoint_method="lsoda")))(Y0)
    assert [(solve.direction, solve.method, solve.size) for solve in solves] == [
        ("forward", "dop853", N),
        ("backward", "lsoda", 2 * N + P + 1),
    ]


@all_but_slow_radau
def test_adjoint_tolerances(method):
    """Looser ones make the reverse solve cheaper and less precise, tighter ones the contrary; the forward solve is untouched."""
    want = network_gradients(0.0, 3.0)
    errors, costs = [], []
    for tol in (1e-3, 1e-6, 1e-9):
        with record_solves() as solves:
            got, backward = gradients(
                network, Y0, [0.0, 3.0], PARAMS, method=method, rtol=1e-10, atol=1e-10, adjoint_rtol=tol, adjoint_atol=tol
            )
        errors.append(error(got, want))
        costs.append(backward[0].nfe)
        forward = solves[0].nfe
        with record_solves() as alone:
            odeint(network, Y0, [0.0, 3.0], PARAMS, method=method, rtol=1e-10, atol=1e-10)
        assert forward == alone[0].nfe
    assert costs[0] < costs[1] < costs[2]
    assert errors[2] < 1e-2 * errors[0] and errors[2] < 1e-6


def test_each_adjoint_tolerance_is_inherited_by_itself():
    def costs(**means):
        return gradients(network, Y0, [0.0, 3.0], PARAMS, **means)[1][0].nfe

    both = costs(rtol=1e-9, atol=1e-9)
    assert costs(rtol=1e-9, atol=1e-9, adjoint_rtol=1e-9) == costs(rtol=1e-9, atol=1e-9, adjoint_atol=1e-9) == both
    assert costs(rtol=1e-9, atol=1e-9, adjoint_rtol=1e-4, adjoint_atol=1e-4) < both


def test_adjoint_options_inherit_from_the_same_method_only():
    def largest_step(**means):
        _, backward = gradients(network, Y0, [0.0, 1.0], PARAMS, options={"max_step": 0.01}, rtol=1e-4, atol=1e-4, **means)
        return np.abs(backward[0].step_sizes).max()

    assert largest_step(method="adams") <= 0.01 * (1 + 1e-12)
    assert largest_step(method="adams", adjoint_options={"first_step": 1e-4}) <= 0.01 * (1 + 1e-12)
    assert 0.01 < largest_step(method="adams", adjoint_options={"max_step": 0.05}) <= 0.05 * (1 + 1e-12)
    assert largest_step(method="adams", adjoint_options={"max_step": None}) > 0.05
    assert largest_step(method="adams", adjoint_method="dopri5") > 0.05
    assert largest_step(method="adams", adjoint_method="dopri5", adjoint_options={"max_step": 0.02}) <= 0.02 * (1 + 1e-12)


# --- Warm restarts.


@pytest.mark.parametrize(
    "method, tol",
    some_fast([(method, tol) for method in ADAPTIVE for tol in (1e-5, 1e-8)][:-1], *((method, 1e-5) for method in ADAPTIVE)),
)
def test_warm_restart_gives_the_same_gradient(method, tol):
    t = np.linspace(0, 6, 31)[: 11 if method == "radau" else 31]
    fresh, fresh_solves = gradients(network, Y0, t, PARAMS, method=method, rtol=tol, atol=tol)
    warm, warm_solves = gradients(network, Y0, t, PARAMS, method=method, rtol=tol, atol=tol, adjoint_options={"restart": "warm"})
    assert error(warm, fresh) < 100 * tol
    assert len(warm_solves) == len(fresh_solves) == len(t) - 1
    assert warm_solves[0].nfe == fresh_solves[0].nfe
    # One-step codes find their step size so soon that there is little to save.
    assert sum(s.nfe for s in warm_solves) < 1.05 * sum(s.nfe for s in fresh_solves)


def test_warm_restart_saves_adams_a_fifth_of_its_evaluations():
    t = np.linspace(0, 6, 31)
    costs = {
        restart: sum(
            solve.nfe
            for solve in gradients(network, Y0, t, PARAMS, rtol=1e-5, atol=1e-5, adjoint_options={"restart": restart})[1]
        )
        for restart in ("fresh", "warm")
    }
    assert costs["warm"] < 0.8 * costs["fresh"]


def test_warm_restart_with_an_interval_shorter_than_the_last_step():
    t = np.array([0.0, 1e-6, 2.0, 2.001, 5.0])
    got, _ = gradients(network, Y0, t, PARAMS, rtol=1e-8, atol=1e-8, adjoint_options={"restart": "warm"})
    assert error(got, true_gradients(network, Y0, t, PARAMS)) < 1e-6


@pytest.mark.parametrize("reconstruction", ["auto", "solve", "interpolate"])
@pytest.mark.parametrize("method", some_fast(ADAPTIVE, "adams", "lsoda", "dopri5"))
def test_warm_restarts_in_gradients_of_gradients(method, reconstruction):
    """The same second derivative; every restarted solve, of the sweep and of its own reverse sweep, takes up a step size."""
    t = np.linspace(0.0, 1.0, 6)

    def second(restart):
        def loss(rate):
            states = odeint(
                lambda t, y, rate: -rate * y + anp.sin(t),
                [1.0],
                t,
                rate,
                method=method,
                rtol=1e-6,
                atol=1e-6,
                adjoint_options={"restart": restart, "reconstruction": reconstruction},
            )
            return anp.sum(states**2)

        with record_solves(steps=True) as solves:
            value = grad(grad(loss))(0.5)
        return value, [abs(solve.step_sizes[0]) for solve in solves if solve.direction == "backward"], solves

    fresh, fresh_first, _ = second("fresh")
    warm, warm_first, solves = second("warm")
    assert warm == pytest.approx(fresh, rel=1e-3)
    assert len(warm_first) == len(fresh_first) >= 10
    # All but the first solve of each sweep begin otherwise than by the integrator's own guess, and no worse for it.
    restarted = sum(not np.isclose(a, b, rtol=1e-6) for a, b in zip(warm_first, fresh_first))
    assert restarted >= len(warm_first) // 2


# --- Seminorm.


def forced(t, y, params):
    """Many parameters of fast forces that are switched off: z and a are smooth, and only dL/dtheta is not."""
    phases = np.linspace(0, 2 * np.pi, 40)
    return anp.tanh(y) * 0.2 - 0.5 * y + anp.sum(params["off"] * anp.cos(40 * t + phases))


FORCED = (Y0, [0.0, 2.0], {"off": np.zeros(40)})


@cache
def forced_gradients():
    return true_gradients(forced, *FORCED)


@all_but_slow_radau
def test_seminorm_spends_nothing_on_parameters(method):
    """The gradient with respect to y0 stays as accurate, with less than half of the evaluations."""
    tol = 1e-6
    want = forced_gradients()[0]
    errors, costs = {}, {}
    for norm in (None, "seminorm"):
        got, [solve] = gradients(forced, *FORCED, method=method, rtol=tol, atol=tol, adjoint_options={"norm": norm})
        errors[norm], costs[norm] = np.abs(got[0] - want).max() / np.abs(want).max(), solve.nfe
    assert costs["seminorm"] < 0.5 * costs[None]
    assert errors["seminorm"] < 100 * tol


def padded(t, y, params):
    return network(t, y, params) + 0.0 * anp.sum(params["padding"])


@pytest.mark.parametrize(
    "method, padding, tol",
    [
        *((method, 300, tol) for method in ("adams", "bdf", "lsoda", "dopri5", "dop853") for tol in (1e-4, 1e-6)),
        ("radau", 40, 1e-5),
    ],
)
def test_seminorm_does_not_see_how_many_parameters_there_are(method, padding, tol):
    """A root mean square over 2n + P + 1 unknowns would be loosened by them, without the rescaling of the tolerances.

    With a given first step: Hairer's codes guess theirs from a sum, not a mean.
    """

    def steps(padding):
        _, [solve] = gradients(
            padded,
            Y0,
            [0.0, 4.0],
            {**PARAMS, "padding": np.ones(padding)},
            method=method,
            rtol=tol,
            atol=tol,
            adjoint_options={"norm": "seminorm", "first_step": 0.05},
        )
        return solve.step_sizes

    few, many = steps(0), steps(padding)
    # Radau's Newton iterations stop at sqrt(rtol), which the rescaling changes: its last steps drift apart.
    count = 20 if method == "radau" else None
    np.testing.assert_allclose(many[:count], few[:count], rtol=1e-3)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_seminorm_is_as_accurate_on_any_problem(method):
    want = network_gradients(0.0, 1.5, 3.0)
    got, _ = gradients(
        network, Y0, [0.0, 1.5, 3.0], PARAMS, method=method, rtol=1e-7, atol=1e-7, adjoint_options={"norm": "seminorm"}
    )
    assert error(got, want) < 1e-5


# --- Checkpoints.


@pytest.mark.parametrize(
    "method, count, t",
    some_fast(
        [(method, *case) for method in ADAPTIVE for case in ((1, [0.0, 1.1, 3.0]), (5, [3.0, 1.1, 0.0]))],
        *((method, 1, [0.0, 1.1, 3.0]) for method in ("adams", "lsoda", "dopri5")),
        *((method, 5, [3.0, 1.1, 0.0]) for method in ("adams", "lsoda", "dopri5")),
    ),
)
def test_checkpoints_are_that_many_more_backward_solves(method, count, t):
    """On a problem that does not need them, the gradient is the same."""
    means = {"method": method, "rtol": 1e-8, "atol": 1e-8}
    plain, _ = gradients(network, Y0, t, PARAMS, **means)
    got, backward = gradients(network, Y0, t, PARAMS, **means, adjoint_options={"checkpoint": count})
    assert error(got, plain) < 1e-5
    assert len(backward) == 2 + count
    states = odeint(network, Y0, t, PARAMS, **means, adjoint_options={"checkpoint": count})
    np.testing.assert_allclose(states, odeint(network, Y0, t, PARAMS, **means), rtol=0, atol=1e-6)


def test_checkpoints_at_output_times_are_not_stored_twice():
    _, backward = gradients(network, Y0, [0.0, 1.0, 2.0], PARAMS, adjoint_options={"checkpoint": 3})
    assert len(backward) == 2 + 2


def relaxation(t, y, params):
    """Falls onto cos t at rate k. Backwards that is a growth: an error of 1e-8 reaches 1 after a time of 18 / k."""
    return -params["k"] * anp.sin(y - anp.cos(t))


RELAXING = {"y0": np.array([1.1, 0.7]), "t": [0.0, 4.0], "params": {"k": np.array([20.0, 15.0])}}


@cache
def relaxation_gradient():
    """With respect to k, by central differences; that with respect to y0 is e^-60 and tells nothing."""

    def loss(k):
        end = odeint(relaxation, RELAXING["y0"], RELAXING["t"], {"k": k}, method="lsoda", rtol=1e-12, atol=1e-12)[-1]
        return np.sum(end**2)

    h = 1e-2 * np.eye(2)
    k = RELAXING["params"]["k"]
    return np.array([loss(k + e) - loss(k - e) for e in h]) / 2e-2


@all_but_slow_radau
def test_checkpoints_repair_a_reconstruction_that_diverges(method):
    def k_gradient(**options):
        options = {"reconstruction": "solve", **options}
        bars, _ = gradients(relaxation, **RELAXING, method=method, rtol=1e-7, atol=1e-9, adjoint_options=options)
        return bars[1]["k"]

    want = relaxation_gradient()
    np.testing.assert_allclose(k_gradient(checkpoint=40), want, rtol=1e-3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            plain = k_gradient()
        except SolverError:
            return
    assert [warning.category for warning in caught] == [GradientWarning]
    assert np.abs(plain - want).max() > 10 * np.abs(want).max()


@pytest.mark.parametrize("t", ([0.0, 1.0], [1.0, 0.6, 0.0]))
@pytest.mark.parametrize("options", ({}, {"step_size": 0.3}))
@pytest.mark.parametrize("more", ({}, {"adjoint_method": "discrete"}))
def test_checkpoints_leave_the_steps_of_a_fixed_grid_as_they_are(t, options, more):
    def ends(count):
        more_options = {"options": options, "adjoint_options": {"checkpoint": count}, **more}
        with record_solves() as solves:
            y = odeint(lambda t, y, _: -y, 1.0, t, method="euler", **more_options)
        return y, sum(solve.nfe for solve in solves)

    (y, nfe), (of_checkpoints, their_nfe) = ends(0), ends(3)
    np.testing.assert_allclose(of_checkpoints, y, rtol=1e-13, atol=1e-300)
    assert their_nfe == nfe
