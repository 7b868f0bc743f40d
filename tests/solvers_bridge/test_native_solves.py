"""odeint with compiler="native": what it gives, counts and says is what the same function gives as a graph."""

import os
import pickle
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import autograd.numpy as anp
import numpy as np
import pytest
import tensorflow as tf
from autograd import grad, make_vjp

from solvers_bridge import GradientWarning, SolverError, TensorFlowDynamics, odeint, record_solves
from solvers_bridge.dynamics import native
from solvers_bridge.dynamics.native import NativeError
from solvers_bridge.integrators import blas_threads
from tests.helpers import some_fast

try:
    native.check_tensorflow()
    native.cpp_compiler()
except NativeError as error:
    pytest.skip(str(error), allow_module_level=True)

TIMES = np.linspace(0.0, 3.0, 7)


def network(t, y, params):
    """A perceptron, and a decay beside it; where params["end"] is not zero, not a number once t is greater."""
    hidden = tf.tanh(tf.linalg.matvec(params["first"], y) + t * params["time"])
    slope = tf.linalg.matvec(params["second"], hidden) - params["rate"] * y
    return tf.where((params["end"] > 0) & (t > params["end"]), tf.cast(np.nan, y.dtype), slope)


def parameters(seed=0):
    rng = np.random.default_rng(seed)
    weights = {"first": rng.normal(size=(8, 3)), "time": rng.normal(size=8), "second": rng.normal(size=(3, 8)) / 3}
    return {**weights, "rate": np.zeros(3), "end": np.array(0.0)}


def decay(rate, end=0.0):
    """parameters without a perceptron."""
    return {name: np.zeros_like(array) for name, array in parameters().items()} | {"rate": np.array(rate), "end": np.array(end)}


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def both(own_cache):
    """The network by each compiler."""
    return [TensorFlowDynamics(network, "float64", compiler=compiler) for compiler in ("graph", "native")]


def gradient(dynamics, t=TIMES, y0=(1.0, -0.5, 0.3), params=None, tolerance=1e-6, **solver):
    """(states, their cotangents of y0, t and params, statistics) of a fixed sum of the states."""
    y0, weights = np.array(y0), np.random.default_rng(1).normal(size=(len(t), len(y0)))
    with record_solves() as solves:
        pullback, states = make_vjp(
            lambda y0, t, params: odeint(dynamics, y0, t, params, **{"rtol": tolerance, "atol": tolerance, **solver}), (0, 1, 2)
        )(y0, t, parameters() if params is None else params)
        bars = pullback(weights)
    return states, bars, solves


def told(statistics):
    """What two solves of the same steps have in common, to the last digits."""
    names = ("direction", "method", "size", "nfe", "steps", "nje", "last_order")
    return [getattr(statistics, name) for name in names]


def assert_same(of_graph, of_native, rtol=1e-10):
    states, bars, solves = of_graph
    np.testing.assert_allclose(of_native[0], states, rtol=rtol, atol=1e-13)
    for bar, wanted in zip(tree_leaves(of_native[1]), tree_leaves(bars), strict=True):
        np.testing.assert_allclose(bar, wanted, rtol=rtol, atol=rtol * np.abs(wanted).max())
    assert [told(solve) for solve in of_native[2]] == [told(solve) for solve in solves]
    for got, wanted in zip(of_native[2], solves):
        for name in ("last_step", "first_step"):
            assert getattr(got, name) == (None if getattr(wanted, name) is None else pytest.approx(getattr(wanted, name)))
        if wanted.reconstruction_gap is not None:
            assert got.reconstruction_gap == pytest.approx(wanted.reconstruction_gap, rel=1e-2)


def tree_leaves(tree):
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in tree_leaves(part)]
    return tree_leaves(list(tree.values())) if isinstance(tree, dict) else [tree]


@pytest.fixture
def evaluations_by_python(monkeypatch):
    """Times at which Python called the compiled functions."""
    times, call = [], native.Binding.__call__

    def counted(binding, t, z):
        times.append(t)
        return call(binding, t, z)

    monkeypatch.setattr(native.Binding, "__call__", counted)
    return times


WITHOUT_PYTHON = {
    "adams": {},
    "bdf": {"method": "bdf"},
    "lsoda": {"method": "lsoda"},
    "dopri5": {"method": "dopri5"},
    "dop853": {"method": "dop853"},
    "rk4": {"method": "rk4", "options": {"step_size": 0.13}},
    "midpoint": {"method": "midpoint", "options": {"step_size": 0.05}},
    "euler": {"method": "euler", "options": {"step_size": 0.03}, "adjoint_options": {"reconstruction": "solve"}},
    "first_step, max_step, max_order": {"options": {"first_step": 0.01, "max_step": 0.2, "max_order": 4}},
    "first_step, max_step of dopri5": {"method": "dopri5", "options": {"first_step": 0.3, "max_step": 0.2}},
    "Jacobians": {"method": "bdf", "options": {"jacobian": "autodiff"}, "adjoint_method": "adams"},
    "a diagonal Jacobian": {"options": {"jacobian": "diagonal"}},
    "a Jacobian by differences": {"method": "lsoda", "options": {"jacobian": "finite_difference"}},
    "a warm restart of adams": {"adjoint_options": {"restart": "warm"}},
    "a warm restart of lsoda": {"method": "lsoda", "adjoint_options": {"restart": "warm"}},
    "a warm restart of dopri5": {"method": "dopri5", "adjoint_options": {"restart": "warm"}},
    "seminorm": {"adjoint_options": {"norm": "seminorm"}},
    "checkpoints": {"adjoint_options": {"checkpoint": 4, "reconstruction": "solve"}},
    "vectors of tolerances": {"rtol": np.array([1e-4, 1e-6, 1e-5]), "method": "lsoda"},
    "another way back": {"adjoint_method": "dopri5", "adjoint_rtol": 1e-4},
    "discrete dopri5": {"method": "dopri5", "adjoint_method": "discrete"},
    "discrete dop853": {"method": "dop853", "adjoint_method": "discrete"},
    "discrete with jumps": {"method": "dopri5", "adjoint_method": "discrete", "options": {"jump_t": [0.7], "stay_inside": True}},
}


@pytest.mark.parametrize("case", WITHOUT_PYTHON)
def test_same_steps_states_and_gradients_with_no_python_between(both, case, evaluations_by_python):
    of_graph, of_native = (gradient(dynamics, **WITHOUT_PYTHON[case]) for dynamics in both)
    assert_same(of_graph, of_native)
    assert evaluations_by_python == []


def switched(t, y, rates):
    return tf.where(t < 1.0, rates[0], rates[1]) * y + t


def test_slopes_at_jumps_and_cotangents_that_cancel(own_cache):
    """dL/dt of the discrete adjoint: at a jump on the graph's side of it, and by t0 also where no adjoint is left to carry there."""
    of_graph, of_native = (TensorFlowDynamics(switched, "float64", compiler=compiler) for compiler in ("graph", "native"))
    means = {"method": "dopri5", "adjoint_method": "discrete", "options": {"jump_t": [1.0]}}
    for t in (np.array([0.0, 1.0, 2.0]), np.array([2.0, 1.0, 0.0])):
        given = {"t": t, "y0": (1.2,), "params": np.array([-0.5, -0.9]), **means}
        assert_same(gradient(of_graph, **given), gradient(of_native, **given))

    def difference(t, dynamics):
        states = odeint(dynamics, np.array([1.0]), t, np.zeros(2), method="dopri5", adjoint_method="discrete")
        return states[2, 0] - states[1, 0]

    for dynamics in (of_graph, of_native, lambda t, y, rates: t * anp.ones_like(y)):
        np.testing.assert_allclose(grad(difference)(np.array([0.0, 1.0, 2.0]), dynamics), [0.0, -1.0, 2.0], atol=1e-12)


BY_PYTHON = {
    "stay_inside": {"options": {"stay_inside": True}},
    "stay_inside of lsoda": {"method": "lsoda", "options": {"stay_inside": True}},
    "the 3/8 rule": {"method": "rk4_38", "options": {"step_size": 0.13}},
    "a jump": {"method": "dopri5", "options": {"jump_t": [0.7, 1.0]}},
    "interpolants": {"method": "dopri5", "adjoint_options": {"reconstruction": "interpolate"}},
    "interpolants of checkpoints": {"adjoint_options": {"reconstruction": "interpolate", "checkpoint": 2}},
    "a given Jacobian": {"method": "bdf", "options": {"jacobian": lambda t, y, params: -np.eye(3)}, "adjoint_method": "adams"},
}


@pytest.mark.parametrize("case", BY_PYTHON)
def test_what_is_left_to_python_is_the_same_too(both, case, evaluations_by_python):
    of_graph, of_native = (gradient(dynamics, **BY_PYTHON[case]) for dynamics in both)
    assert_same(of_graph, of_native)
    assert len(evaluations_by_python) > 10


TIMES_OF_ODD_KINDS = {
    "backwards": TIMES[::-1].copy(),
    "repeated": np.array([0.0, 0.5, 0.5, 1.0, 1.0]),
    "far from zero": 1e9 + TIMES,
    "long": np.array([0.0, 1e-3, 40.0]),
    "one": np.array([0.3]),
}


@pytest.mark.parametrize("kind", TIMES_OF_ODD_KINDS)
@pytest.mark.parametrize("method", ["adams", "dopri5"])
def test_times_of_odd_kinds(both, kind, method):
    assert_same(*(gradient(dynamics, TIMES_OF_ODD_KINDS[kind], method=method) for dynamics in both), rtol=1e-7)


def test_radau_and_records_of_steps(both):
    of_graph, of_native = (odeint(dynamics, [1.0, 0.5, 0.0], TIMES, parameters(), method="radau") for dynamics in both)
    np.testing.assert_array_equal(of_native, of_graph)
    kept = []
    for dynamics in both:
        with record_solves(steps=True, dense=True) as solves:
            odeint(dynamics, [1.0, 0.5, 0.0], TIMES, parameters())
        kept.append(solves[0])
    np.testing.assert_array_equal(kept[1].states, kept[0].states)
    np.testing.assert_array_equal(kept[1].dense_output(1.1), kept[0].dense_output(1.1))


@pytest.mark.slow
def test_float32_nested_and_integer_parameters(own_cache):
    def f(t, y, params):
        return {"x": y["v"] * params[0], "v": -y["x"] * tf.cast(params[1], tf.float32)}

    results = []
    for compiler in ("graph", "native"):
        dynamics = TensorFlowDynamics(f, compiler=compiler)

        def loss(y0, rate, dynamics=dynamics):
            y = odeint(dynamics, y0, [0.0, 1.0], (rate, np.array([2, 3])), rtol=1e-4, atol=1e-4)
            return anp.sum(y["x"][-1] ** 2)

        results.append(grad(loss, (0, 1))({"x": np.array([1.0, 2.0]), "v": np.array([0.5, 0.0])}, 1.5))
    for got, wanted in zip(*(tree_leaves(result) for result in results), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4)


@pytest.mark.parametrize(
    "method, restart",
    some_fast(
        [(method, how) for method in ("adams", "lsoda", "dopri5") for how in ("fresh", "warm")],
        ("dopri5", "fresh"),
        ("adams", "warm"),
    ),
)
def test_lost_states_are_healed_as_through_the_graph(both, method, restart):
    """And the segment after one that Python healed goes on, warm, as it would have."""
    case = {"t": np.array([0.0, 0.1, 2.0]), "y0": (1.0, 2.0, 0.5), "params": decay([40.0, 1.0, 2.0]), "method": method}
    case["adjoint_options"] = {"restart": restart}
    of_graph, of_native = (gradient(dynamics, **case) for dynamics in both)
    assert "recomputed" in [solve.direction for solve in of_graph[2]]
    for bar, wanted in zip(tree_leaves(of_native[1]), tree_leaves(of_graph[1]), strict=True):
        np.testing.assert_allclose(bar, wanted, rtol=1e-9, atol=1e-12)
    gave_up = [solve.reconstruction_gap == np.inf for solve in of_native[2]]
    assert any(gave_up)
    for got, wanted, is_failed in zip(of_native[2], of_graph[2], gave_up, strict=True):
        # An exception, which ends the attempt of a graph, leaves VODE's and LSODA's count of steps behind.
        assert got.nfe == wanted.nfe if is_failed else told(got) == told(wanted)


@pytest.mark.parametrize("method, end", [("adams", 0.9), ("dopri5", 1.2)])
def test_a_component_lost_at_a_loose_tolerance_is_healed_as_through_the_graph(both, method, end):
    case = {"t": np.array([0.0, end]), "y0": (1.0, 2.0, 0.5), "params": decay([10.0, 1.0, 2.0]), "method": method}
    of_graph, of_native = (gradient(dynamics, rtol=1e-3, atol=1e-3, **case) for dynamics in both)
    assert [solve.direction for solve in of_native[2]] == [solve.direction for solve in of_graph[2]]
    attempt = next(solve for solve in of_native[2] if solve.direction == "backward")
    assert len(of_native[2]) == 4 and attempt.reconstruction_gap < 100 / np.sqrt(1e-3)
    for bar, wanted in zip(tree_leaves(of_native[1]), tree_leaves(of_graph[1]), strict=True):
        np.testing.assert_allclose(bar, wanted, rtol=1e-6, atol=1e-9)


def test_lost_states_are_told_where_nobody_heals_them(both):
    for dynamics in both:
        with pytest.warns(GradientWarning, match=r"lost z\(t\) between t = 0.5 and 0.0"):
            gradient(
                dynamics,
                np.array([0.0, 0.5]),
                (1.0, 2.0, 0.5),
                decay([40.0, 1.0, 2.0]),
                adjoint_options={"reconstruction": "solve"},
            )


@pytest.mark.parametrize("method, end", [("adams", 0.6), ("dopri5", 0.85)])
def test_states_that_are_hardly_found_are_told(both, method, end):
    case = {"t": np.array([0.0, end]), "y0": (1.0, 2.0, 0.5), "params": decay([10.0, 1.0, 2.0]), "method": method}
    gaps = []
    for dynamics in both:
        with pytest.warns(GradientWarning, match=rf"hardly found z\(t\) between t = {end} and 0.0"):
            *_, solves = gradient(dynamics, rtol=1e-3, atol=1e-3, **case)
        assert [solve.direction for solve in solves] == ["forward", "backward"]
        gaps.append(solves[-1].reconstruction_gap)
    assert gaps[1] == pytest.approx(gaps[0], rel=1e-6)


def driven(t, y, rate):
    return -rate * (y - tf.cos(t))


@pytest.mark.parametrize(
    "t, means",
    [
        ([0.0, 0.3, 1.0], {"method": "dopri5", "adjoint_method": "discrete"}),
        ([0.0, 0.0, 0.3, 0.3, 1.0], {"method": "dopri5", "adjoint_method": "discrete"}),
        ([1.0, 0.3, 0.0], {"method": "dopri5", "adjoint_method": "discrete"}),
        ([0.0, 1.0], {"method": "dopri5"}),
        ([0.0, 1.0], {"method": "lsoda"}),
        ([0.0, 1.0], {"method": "dopri5", "adjoint_options": {"reconstruction": "interpolate"}}),
    ],
    ids=str,
)
@pytest.mark.parametrize("wants_t", [False, True])
def test_gradients_without_balance_are_told(own_cache, t, means, wants_t):
    """At the limit of stability: they are off by as much by either compiler, and at tight tolerances by nothing.

    A loss so great that it is not absolute tolerances that leave them so.
    """
    rate, parts = 100.0 if t[-1] else -100.0, []
    for compiler in ("graph", "native"):
        dynamics = TensorFlowDynamics(driven, "float64", compiler=compiler)

        def end(rate, t, tolerance, dynamics=dynamics):
            return 1e3 * odeint(dynamics, [0.5, 0.6], t, rate, rtol=tolerance, atol=tolerance, **means)[-1, 0]

        grads = grad(end, (0, 1)) if wants_t else grad(end)
        with pytest.warns(GradientWarning, match="flow, was off by [0-9]* %") as caught:
            grads(rate, np.array(t), 1e-2)
        assert len(caught) == 1
        parts.append(str(caught[0].message).partition(" %")[0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            grads(rate, np.array(t), 1e-6)
    assert parts[0] == parts[1]


@pytest.mark.parametrize("method", ["adams", "bdf", "lsoda", "dopri5", "dop853", "rk4"])
def test_not_a_number_is_told_with_its_time_as_through_the_graph(both, method):
    errors = []
    for dynamics in both:
        with pytest.raises(SolverError, match="func returned nan in 3 of 3 components") as caught:
            odeint(dynamics, [1.0, 2.0, 3.0], [0.0, 0.5, 2.0], decay(np.ones(3), 0.8), method=method)
        errors.append(caught.value)
    assert errors[1].reason == errors[0].reason and errors[1].t_reached == errors[0].t_reached
    assert told(errors[1].statistics) == told(errors[0].statistics)
    np.testing.assert_array_equal(errors[1].ys, errors[0].ys)


@pytest.mark.parametrize("method", ["adams", "lsoda", "dopri5"])
def test_step_limits_are_told_as_through_the_graph(both, method):
    errors = []
    for dynamics in both:
        with pytest.raises(SolverError, match="max_num_steps = 7") as caught:
            odeint(dynamics, [1.0, 0.5, 0.0], [0.0, 100.0], parameters(), method=method, options={"max_num_steps": 7})
        errors.append(caught.value)
    assert errors[1].t_reached == errors[0].t_reached and told(errors[1].statistics) == told(errors[0].statistics)


@pytest.mark.parametrize("way", ["forward", "backward", "discrete"])
def test_interrupt_reaches_a_long_solve(both, way):
    # Shells let what they run in the background ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _interrupt(both, way)
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(both, way):
    solver = {"method": "dopri5", "options": {"max_num_steps": 10**9}, "rtol": 1e-9, "atol": 1e-9}
    if way == "discrete":
        solver["adjoint_method"] = "discrete"
    end = {"forward": 1e6, "backward": 3000.0, "discrete": 3000.0}[way]
    turn = decay(np.zeros(3))
    turn["first"][0, 1], turn["first"][1, 0], turn["second"][0, 0], turn["second"][1, 1] = 1.0, -1.0, 1.0, 1.0
    solver["adjoint_options"] = {"reconstruction": "solve"}
    pullback = None
    if way != "forward":
        pullback, _ = make_vjp(lambda y0: odeint(both[1], y0, [0.0, end], turn, **solver))(np.array([1.0, 0.0, 0.0]))
    timer = threading.Timer(0.02, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        while True:
            started = time.perf_counter()
            if pullback is None:
                odeint(both[1], [1.0, 0.0, 0.0], [0.0, end], turn, **solver)
            else:
                pullback(np.ones((2, 3)))
    assert time.perf_counter() - started < 3
    # And nothing is left of it.
    assert_same(gradient(both[0]), gradient(both[1]))


@pytest.mark.parametrize("method", ["adams", "dopri5"])
def test_threads(both, method):
    def solve(seed):
        return gradient(both[1], params=parameters(seed), method=method)[1]

    wanted = [solve(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(solve, range(6)))
    for a, b in zip(got, wanted):
        np.testing.assert_array_equal(tree_leaves(a)[-1], tree_leaves(b)[-1])


def test_pickles_and_solves_after_a_fork(both):
    wanted = odeint(both[1], [1.0, 0.5, 0.0], TIMES, parameters())
    again = pickle.loads(pickle.dumps(both[1]))
    assert again.compiler == "native"
    np.testing.assert_array_equal(odeint(again, [1.0, 0.5, 0.0], TIMES, parameters()), wanted)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, odeint(both[1], [1.0, 0.5, 0.0], TIMES, parameters()).tobytes())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        np.testing.assert_array_equal(np.frombuffer(pipe.read()), wanted.ravel())
    os.waitpid(child, 0)


@pytest.fixture
def threads_of_blas(monkeypatch):
    """What SciPy's OpenBLAS is told of its threads, five before."""
    told = []
    monkeypatch.setattr(blas_threads, "_openblas_threads", lambda: (lambda: told[-1] if told else 5, told.append))
    return told


@pytest.mark.parametrize("solver", [{"method": "dopri5", "adjoint_method": "discrete"}, {"method": "rk4"}], ids=str)
def test_blas_keeps_to_one_thread_in_compiled_solves(both, solver, threads_of_blas):
    gradient(both[1], **solver)
    assert threads_of_blas == [1, 5, 1, 5]


def test_last_of_several_solves_gives_blas_its_threads_back(threads_of_blas):
    one = blas_threads.with_one_blas_thread
    assert one(lambda: (one(lambda: list(threads_of_blas)), list(threads_of_blas))) == ([1], [1])
    assert threads_of_blas == [1, 5]


def test_parameters_changed_in_place_count(both):
    params = parameters()
    first = odeint(both[1], [1.0, 0.5, 0.0], TIMES, params)
    params["second"] *= 0.5
    second = odeint(both[1], [1.0, 0.5, 0.0], TIMES, params)
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_array_equal(odeint(both[0], [1.0, 0.5, 0.0], TIMES, params), second)


@pytest.mark.slow
def test_derivatives_of_derivatives(both):
    def norm(params, dynamics):
        slope = grad(lambda y0: anp.sum(odeint(dynamics, y0, [0.0, 0.5], params, rtol=1e-7, atol=1e-7)[-1] ** 2))
        return anp.sum(slope(np.array([1.0, 0.5, 0.0])) ** 2)

    of_graph, of_native = (grad(norm)(parameters(), dynamics) for dynamics in both)
    np.testing.assert_allclose(of_native["first"], of_graph["first"], rtol=1e-6)


def test_auto_does_without_a_compiler_and_native_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "/nonexistent/compiler")
    solve = [
        lambda dynamics=TensorFlowDynamics(lambda t, y, params: -3.0 * params * y, "float64", compiler=compiler): odeint(
            dynamics, [1.0, 2.0], TIMES, np.array([3.0, 4.0])
        )
        for compiler in ("native", "auto", "graph")
    ]
    with pytest.raises(NativeError, match="does not run"):
        solve[0]()
    np.testing.assert_array_equal(solve[1](), solve[2]())


@pytest.mark.slow
def test_jacobians_of_the_adjoint_system(both, evaluations_by_python):
    assert_same(*(gradient(dynamics, method="bdf", options={"jacobian": "autodiff"}) for dynamics in both))
    assert evaluations_by_python == []


def test_other_compilers_are_refused():
    with pytest.raises(ValueError, match="compiler must be one of 'graph', 'native', 'auto', got 'gcc'"):
        TensorFlowDynamics(network, compiler="gcc")


@pytest.mark.slow
@pytest.mark.parametrize("solver", [{"method": "adams"}, {"method": "dopri5", "adjoint_method": "discrete"}])
def test_ten_thousand_gradients_keep_no_memory(both, solver):
    def resident_pages():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])

    params = parameters()
    slope = grad(lambda params: anp.sum(odeint(both[1], [1.0, 0.5, 0.0], TIMES, params, rtol=1e-3, atol=1e-3, **solver)))
    for _ in range(1000):
        slope(params)
    before = resident_pages()
    for _ in range(10_000):
        slope(params)
    assert (resident_pages() - before) * 4096 < 4e6
