"""solvers_bridge.tensorflow.odeint: tensors in and out, gradients under tf.GradientTape, eagerly and inside tf.function."""

import textwrap

import autograd.numpy as anp
import numpy as np
import pytest
import tensorflow as tf
from autograd import grad, hessian

import solvers_bridge
from solvers_bridge import SolverError, TensorFlowDynamics, record_solves
from solvers_bridge import tensorflow as door
from solvers_bridge.dynamics import native
from tests.helpers import run_script

rng = np.random.default_rng(0)
W, S, Y0, T = rng.normal(size=(3, 3)), 0.7, np.array([1.0, -0.4, 0.5]), np.array([0.0, 0.5, 1.2])


def in_tensorflow(t, y, params):
    return tf.tanh(tf.linalg.matvec(params["w"], y)) * params["s"] - 0.1 * t * y


def in_autograd(t, y, params):
    return anp.tanh(anp.dot(params["w"], y)) * params["s"] - 0.1 * t * y


def reference(inputs, **means):
    """Gradients of sum(sin(y)) with respect to (y0, t, w, s), by autograd's door."""

    def loss(inputs):
        y0, t, w, s = inputs
        return anp.sum(anp.sin(solvers_bridge.odeint(in_autograd, y0, t, {"w": w, "s": s}, **means)))

    return grad(loss)(inputs)


def gradients(**means):
    y0, t, w, s = tf.constant(Y0), tf.constant(T), tf.Variable(W), tf.Variable(S, dtype=tf.float64)
    with tf.GradientTape() as tape:
        tape.watch([y0, t])
        loss = tf.reduce_sum(tf.sin(door.odeint(in_tensorflow, y0, t, {"w": w, "s": s}, **means)))
    return tape.gradient(loss, [y0, t, w, s])


MEANS = (
    {},
    {"method": "lsoda", "rtol": 1e-6, "atol": 1e-6},
    {"method": "rk4", "options": {"step_size": 0.1}},
    {"adjoint_options": {"checkpoint": 3}},
    {"options": {"jump_t": [0.3]}},
    {"method": "dopri5", "adjoint_options": {"reconstruction": "interpolate"}},
    {"method": "dopri5", "adjoint_method": "discrete"},
    {"method": "midpoint", "options": {"step_size": 0.1}, "adjoint_method": "discrete"},
    {"adjoint_options": {"norm": "seminorm"}, "atol": np.array([1e-8, 1e-7, 1e-8])},
)


@pytest.mark.parametrize("means", MEANS, ids=str)
def test_gradients_are_those_of_autograds_door(means):
    for bar, expected in zip(gradients(**means), reference((Y0, T, W, S), **means)):
        np.testing.assert_allclose(bar, expected, rtol=1e-10, atol=1e-10)


@pytest.fixture(scope="module")
def compiled():
    """The gradients, all inside one tf.function; and a loss that is a tf.function, differentiated from outside."""
    variables = tf.Variable(W), tf.Variable(S, dtype=tf.float64)

    @tf.function
    def loss(y0, t):
        return tf.reduce_sum(tf.sin(door.odeint(in_tensorflow, y0, t, {"w": variables[0], "s": variables[1]})))

    def of(loss):
        def with_gradients(y0, t):
            with tf.GradientTape() as tape:
                tape.watch([y0, t])
                value = loss(y0, t)
            return tape.gradient(value, [y0, t, *variables])

        return with_gradients

    return tf.function(of(loss)), of(loss)


@pytest.mark.parametrize("where", (0, 1), ids=("tape inside", "tape outside"))
def test_inside_a_function(compiled, where):
    """Traced once, run with other values."""
    for y0 in (Y0, Y0 + 0.3):
        bars = compiled[where](tf.constant(y0), tf.constant(T))
        for bar, expected in zip(bars, reference((y0, T, W, S))):
            np.testing.assert_allclose(bar, expected, rtol=1e-10, atol=1e-10)


def test_constants_in_a_function():
    """Nothing is solved while the function is traced, which took for ever, nor what nobody asks for. In a process, to be ended."""
    run_script(
        """
        import numpy as np, tensorflow as tf
        from solvers_bridge import record_solves
        from solvers_bridge.tensorflow import odeint

        y0, k = tf.constant([1.0, 2.0], tf.float64), tf.constant(0.5, tf.float64)

        @tf.function
        def gradient():
            with tf.GradientTape() as tape:
                tape.watch(k)
                loss = tf.reduce_sum(odeint(lambda t, y, k: -k * y, y0, [0.0, 1.0], k)[-1])
            return tape.gradient(loss, k)

        @tf.function
        def unused():
            odeint(lambda t, y, k: -k * y, y0, [0.0, 1.0], k)
            return y0

        with record_solves() as solves:
            traced, _ = gradient.get_concrete_function(), unused()
        assert not solves, solves
        np.testing.assert_allclose(traced(), -3 * np.exp(-0.5), rtol=1e-6)
        print("OK")
        """
    )


def test_states_and_shapes_in_a_graph_with_an_unknown_batch():
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
    def solve(y0):
        ys = door.odeint(lambda t, y, p: -y, y0, [0.0, 1.0], rtol=1e-5, atol=1e-5)
        assert ys.shape.as_list() == [2, None, 2] and ys.dtype == tf.float32
        return ys

    for batch in (1, 4):
        np.testing.assert_allclose(solve(tf.ones([batch, 2]))[1], np.full((batch, 2), np.exp(-1)), rtol=1e-4)


def test_states_of_unknown_rank():
    @tf.function(input_signature=[tf.TensorSpec(None, tf.float64)])
    def solve(y0):
        with tf.GradientTape() as tape:
            tape.watch(y0)
            ys = door.odeint(lambda t, y, p: -p * y, y0, [0.0, 1.0], tf.constant(1.0, tf.float64))
        return ys, tape.gradient(ys, y0)

    for shape in ((), (2,), (2, 3)):
        ys, bars = solve(tf.ones(shape, tf.float64))
        assert ys.shape == (2, *shape) and bars.shape == shape
        np.testing.assert_allclose(bars, np.full(shape, 1.0 + np.exp(-1)), rtol=1e-6)


def test_one_reverse_sweep_without_autograd():
    with record_solves() as solves:
        gradients()
    assert [solve.direction for solve in solves] == ["forward", "backward", "backward"]
    with record_solves() as solves:
        door.odeint(in_tensorflow, Y0, T, {"w": W, "s": S})
    assert [solve.direction for solve in solves] == ["forward"]


def test_nested_states_dtypes_and_constants():
    def func(t, y, params):
        return {"a": -params[0] * y["a"] * tf.cast(params[2], y["a"].dtype), "b": [y["b"][0] * 0.5, -y["b"][1] * params[1]]}

    y0 = {"a": tf.ones([2, 1]), "b": [tf.constant(2.0, tf.float64), np.array([3, 4])]}
    rate = tf.Variable(0.5, dtype=tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(y0["b"][0])
        ys = door.odeint(func, y0, [0.0, 1.0], (rate, 2, tf.constant([[1], [0]])))
        loss = tf.reduce_sum(ys["a"][-1]) + tf.cast(ys["b"][0][-1], tf.float32)
    bars = tape.gradient(loss, [rate, y0["b"][0]])
    assert ys["a"].dtype == tf.float32 and ys["a"].shape == (2, 2, 1)
    assert ys["b"][0].dtype == tf.float64 and ys["b"][1].dtype == tf.float64 and ys["b"][1].shape == (2, 2)
    np.testing.assert_allclose(ys["b"][1][-1], np.exp(-2) * np.array([3, 4]), rtol=1e-6)
    assert bars[0].dtype == tf.float32 and float(bars[0]) == pytest.approx(-np.exp(-0.5), rel=1e-5)
    assert bars[1].dtype == tf.float64 and float(bars[1]) == pytest.approx(np.exp(0.5), rel=1e-6)


def test_plain_numbers_are_float64():
    ys = door.odeint(lambda t, y, p: -p * y, [1.0, 2.0], [0.0, 1.0], 0.5)
    assert ys.dtype == tf.float64
    np.testing.assert_allclose(ys[1], np.exp(-0.5) * np.array([1.0, 2.0]), rtol=1e-6)


def test_float32_states_make_float32_dynamics():
    seen = []

    def func(t, y, p):
        seen.append((t.dtype, y.dtype, p.dtype))
        return -p * y

    door.odeint(func, tf.ones(2), [0.0, 1.0], tf.constant(0.5, tf.float64), rtol=1e-4, atol=1e-4)
    door.odeint(func, tf.ones(2, tf.float64), [0.0, 1.0], tf.constant(0.5, tf.float32))
    assert set(seen) == {(tf.float32,) * 3, (tf.float64,) * 3}


def test_graphs_are_kept_from_call_to_call():
    calls = []

    def func(t, y, p):
        calls.append(1)
        return -p * y

    for rate in (0.1, 0.2, 0.3):
        door.odeint(func, tf.ones(2, tf.float64), [0.0, 1.0], tf.constant(rate, tf.float64))
    assert 1 <= len(calls) <= 2  # without XLA, and with


def test_a_tensorflow_dynamics_as_func():
    dynamics = TensorFlowDynamics(in_tensorflow, "float64")
    ys = door.odeint(dynamics, Y0, T, {"w": W, "s": S})
    np.testing.assert_array_equal(ys, solvers_bridge.odeint(dynamics, Y0, T, {"w": W, "s": S}))


# --- Second derivatives.


def second(of_y0, y0, v):
    with tf.GradientTape() as outer:
        outer.watch(y0)
        with tf.GradientTape() as inner:
            inner.watch(y0)
            loss = of_y0(y0)
        product = tf.reduce_sum(inner.gradient(loss, y0) * v)
    return outer.gradient(product, y0)


@pytest.mark.parametrize("graph", (False, True))
def test_products_with_the_hessian(graph):
    def of_y0(y0):
        return tf.reduce_sum(tf.sin(door.odeint(in_tensorflow, y0, T, {"w": W, "s": S}, method="dopri5", rtol=1e-9, atol=1e-9)))

    def expected(y0):
        means = {"method": "dopri5", "rtol": 1e-9, "atol": 1e-9}
        return anp.sum(anp.sin(solvers_bridge.odeint(in_autograd, y0, T, {"w": W, "s": S}, **means)))

    v = np.array([1.0, -0.5, 2.0])
    product = (tf.function(second) if graph else second)(of_y0, tf.constant(Y0), tf.constant(v))
    np.testing.assert_allclose(product, hessian(expected)(Y0) @ v, rtol=1e-6)


def test_third_derivatives():
    def solve(k):
        return door.odeint(lambda t, y, k: -k * y, tf.ones([], tf.float64), [0.0, 1.0], k, method="dopri5", rtol=1e-9, atol=1e-9)[
            -1
        ]

    k = tf.Variable(0.5, dtype=tf.float64)
    with tf.GradientTape() as third:
        with tf.GradientTape() as second_tape:
            with tf.GradientTape() as first:
                end = solve(k)
            slope = first.gradient(end, k)
        curvature = second_tape.gradient(slope, k)
    assert float(slope) == pytest.approx(-np.exp(-0.5), rel=1e-6)
    assert float(curvature) == pytest.approx(np.exp(-0.5), rel=1e-6)
    assert float(third.gradient(curvature, k)) == pytest.approx(-np.exp(-0.5), rel=1e-5)


def test_jacobians():
    y0 = tf.constant(Y0)
    with tf.GradientTape() as tape:
        tape.watch(y0)
        end = door.odeint(lambda t, y, p: -tf.constant([1.0, 2.0, 3.0], tf.float64) * y, y0, [0.0, 1.0])[-1]
    np.testing.assert_allclose(tape.jacobian(end, y0), np.diag(np.exp([-1.0, -2.0, -3.0])), atol=1e-6)


@pytest.mark.parametrize("compiler", ("graph", "native"))
def test_forward_mode_and_reverse_mode_after_it(compiler):
    if compiler == "native":
        try:
            native.check_tensorflow()
            native.cpp_compiler()
        except native.NativeError as error:
            pytest.skip(str(error))
    func = TensorFlowDynamics(lambda t, y, rate: -rate * y, "float64", compiler=compiler)
    rate, y0 = tf.constant(0.5, tf.float64), tf.ones(1, tf.float64)
    with tf.autodiff.ForwardAccumulator(rate, tf.ones_like(rate)) as accumulator:
        end = door.odeint(func, y0, [0.0, 1.0], rate)[-1]
    assert float(accumulator.jvp(end)[0]) == pytest.approx(-np.exp(-0.5), rel=1e-6)
    with tf.GradientTape() as tape:
        tape.watch(rate)
        end = door.odeint(func, y0, [0.0, 1.0], rate)[-1]
    assert float(tape.gradient(end, rate)) == pytest.approx(-np.exp(-0.5), rel=1e-6)


def test_forward_over_reverse():
    rate = tf.constant(0.5, tf.float64)
    with tf.autodiff.ForwardAccumulator(rate, tf.ones_like(rate)) as accumulator:
        with tf.GradientTape() as tape:
            tape.watch(rate)
            end = door.odeint(lambda t, y, rate: -rate * y, tf.ones(1, tf.float64), [0.0, 1.0], rate)[-1]
        slope = tape.gradient(end, rate)
    assert float(accumulator.jvp(slope)) == pytest.approx(np.exp(-0.5), rel=1e-6)


@pytest.mark.parametrize("followed", ("rate", "weight"))
def test_forward_mode_is_refused_in_a_function_which_would_make_it_zero(followed):
    def slope(rate, weight):
        of = {"rate": rate, "weight": weight}[followed]
        with tf.autodiff.ForwardAccumulator(of, tf.ones_like(of)) as accumulator:
            with tf.GradientTape() as tape:
                tape.watch(rate)
                end = weight * door.odeint(lambda t, y, rate: -rate * y, tf.ones(1, tf.float64), [0.0, 1.0], rate)[-1]
            bar = tape.gradient(end, rate)
        return accumulator.jvp(bar)

    arguments = tf.constant(0.5, tf.float64), tf.constant(2.0, tf.float64)
    expected = {"rate": 2.0 * np.exp(-0.5), "weight": -np.exp(-0.5)}[followed]
    assert float(slope(*arguments)) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(TypeError, match="ForwardAccumulator follows a solve inside tf.function"):
        tf.function(slope)(*arguments)


# --- What has no gradient, and what fails.


def test_captured_variables_are_refused():
    rate = tf.Variable(0.5, dtype=tf.float64)
    func = lambda t, y, p: -rate * y

    def solve():
        return door.odeint(func, tf.ones(2, tf.float64), [0.0, 1.0])

    np.testing.assert_allclose(solve()[1], np.full(2, np.exp(-0.5)), rtol=1e-6)  # no tape, nothing to lose
    with (
        tf.GradientTape(),
        pytest.raises(TypeError, match="uses a variable or a tensor that it was not given.*pass it in params"),
    ):
        solve()
    with pytest.raises(TypeError, match="pass it in params"):
        tf.function(solve)()
    with tf.GradientTape(watch_accessed_variables=False):
        rate.assign(1.0)
        np.testing.assert_allclose(solve()[1], np.full(2, np.exp(-1.0)), rtol=1e-6)


def test_captured_tensors_are_refused():
    rate = tf.constant(0.5, tf.float64)
    func = lambda t, y, p: -rate * y
    with tf.GradientTape() as tape:
        door.odeint(func, tf.ones(2, tf.float64), [0.0, 1.0])
        tape.watch(rate)
        with pytest.raises(TypeError, match="pass it in params"):
            door.odeint(func, tf.ones(2, tf.float64), [0.0, 1.0])

    @tf.function
    def solve(rate):
        return door.odeint(lambda t, y, p: -rate * y, tf.ones(2, tf.float64), [0.0, 1.0])

    with pytest.raises(TypeError, match="pass it in params"):
        solve(rate)


@pytest.mark.parametrize("size", (1, 500))
@pytest.mark.parametrize("derived", (False, True))
def test_captured_tensors_that_a_tape_outside_watches_are_refused_in_a_function(size, derived):
    rates = tf.fill([size], tf.constant(0.5, tf.float64))
    used = rates

    def solve(y0):
        return door.odeint(lambda t, y, p: -used * y, y0, [0.0, 1.0])

    y0 = tf.ones(size, tf.float64)
    with tf.GradientTape() as tape:
        np.testing.assert_allclose(tf.function(solve)(y0)[1], np.full(size, np.exp(-0.5)), rtol=1e-6)
        tape.watch(rates)
        used = 1.0 * rates if derived else rates
        with pytest.raises(TypeError, match="pass it in params"):
            tf.function(solve)(y0)


@pytest.mark.parametrize("what", ("y0", "t", "params", "a variable"))
def test_autograds_door_refuses_what_a_tape_watches(what):
    dynamics = TensorFlowDynamics(lambda t, y, p: -p["k"] * y, "float64")
    arguments = {"y0": tf.constant([1.0, 2.0], tf.float64), "t": tf.constant([0.0, 1.0], tf.float64)}
    params = {"k": tf.Variable(0.5, dtype=tf.float64) if what == "a variable" else tf.constant(0.5, tf.float64)}
    ys = solvers_bridge.odeint(dynamics, **arguments, params=params)
    np.testing.assert_allclose(ys[1], np.exp(-0.5) * np.array([1.0, 2.0]), rtol=1e-6)
    with tf.GradientTape() as tape:
        if what != "a variable":
            np.testing.assert_array_equal(solvers_bridge.odeint(dynamics, **arguments, params=params), ys)
            tape.watch({"params": params["k"], **arguments}[what])
        with pytest.raises(TypeError, match=r"solvers_bridge\.tensorflow\.odeint"):
            solvers_bridge.odeint(dynamics, **arguments, params=params)


@pytest.mark.parametrize(
    "kwargs, kind, message",
    (
        ({"func": 3}, TypeError, "func must be a function"),
        ({"t": [0.0, 2.0, 1.0]}, ValueError, "t must be increasing or decreasing"),
        ({"method": "dopri"}, ValueError, "method must be one of"),
        ({"y0": tf.constant([1.0, np.nan], tf.float64)}, ValueError, "y0 must be finite"),
        ({"y0": tf.constant([1.0 + 2.0j])}, TypeError, "y0 must be real"),
        ({"y0": {"a": tf.ones(1), "b": np.array([1j])}}, TypeError, "y0 must be real"),
        ({"y0": tf.constant(["text"])}, TypeError, "y0 must be an array of real numbers, got dtype string"),
        ({"t": tf.constant([False, True])}, TypeError, "t must be an array of real numbers, got dtype bool"),
        ({"t": np.array([0.0, 1.0j])}, TypeError, "t must be an array of real numbers, got dtype complex128"),
        ({"params": tf.constant("text")}, TypeError, "params must be real numbers"),
        ({"rtol": 0}, ValueError, "rtol must be positive"),
    ),
    ids=str,
)
def test_bad_arguments(kwargs, kind, message):
    arguments = {"func": lambda t, y, p: -y, "y0": tf.ones(2, tf.float64), "t": [0.0, 1.0], **kwargs}
    with pytest.raises(kind, match=message):
        door.odeint(**arguments)


@pytest.mark.parametrize("t", (0.5, [], [[0.0, 1.0]]), ids=str)
def test_times_that_are_no_vector(t):
    def solve(y0, t):
        return door.odeint(lambda t, y, p: -y, y0, t)

    y0 = tf.ones(2, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(y0)
        for way in (solve, tf.function(solve)):
            with pytest.raises(ValueError, match="t must be one-dimensional with at least one time, got shape"):
                way(y0, tf.constant(t, tf.float64))


def decay(y0, t, k):
    """y(t[-1]) = y0 / (1 + k y0 (t[-1] - t[0])), by a solve."""
    return door.odeint(lambda t, y, k: -k * y * y, y0, t, k, method="dopri5", rtol=1e-9, atol=1e-9)[-1]


def decay_exactly(y0, t, k):
    return y0 / (1 + k * y0 * (t[-1] - t[0]))


@pytest.mark.parametrize("in_graph", [False, True])
def test_gradients_through_vectorized_map(in_graph):
    y0, t, k = (
        tf.constant([[1.0, 2.0], [3.0, 4.0]], tf.float64),
        tf.constant([0.0, 0.5, 0.9], tf.float64),
        tf.Variable(0.7, dtype=tf.float64),
    )

    def gradients(end):
        with tf.GradientTape() as tape:
            tape.watch([y0, t])
            loss = tf.reduce_sum(tf.vectorized_map(lambda y: end(y, t, k), y0) ** 2)
        return tape.gradient(loss, [y0, t, k])

    found = (tf.function(gradients) if in_graph else gradients)(decay)
    for bar, expected in zip(found, gradients(decay_exactly), strict=True):
        np.testing.assert_allclose(bar, expected, atol=1e-7)


@pytest.mark.parametrize("in_graph", [False, True])
def test_jacobians_that_are_differentiated(in_graph):
    y0, t, k = tf.constant([1.0, 2.0], tf.float64), tf.constant([0.0, 0.9], tf.float64), tf.constant(0.7, tf.float64)

    def second(end):
        with tf.GradientTape() as outer:
            outer.watch([y0, t, k])
            with tf.GradientTape() as inner:
                inner.watch([y0, t, k])
                states = end(y0, t, k)
            jacobian = tf.concat([tf.reshape(part, [2, -1]) for part in inner.jacobian(states, [y0, t, k])], 1)
        return outer.jacobian(jacobian, [y0, t, k])

    found = (tf.function(second) if in_graph else second)(decay)
    for part, expected in zip(found, second(decay_exactly), strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-6)


def test_failures_eagerly_and_in_a_graph():
    def solve():
        return door.odeint(lambda t, y, p: y**2, tf.ones([], tf.float64), [0.0, 0.5, 2.0], options={"max_num_steps": 500})

    with pytest.raises(SolverError, match="max_num_steps = 500"):
        solve()
    with pytest.raises(tf.errors.OpError, match="max_num_steps = 500"):
        tf.function(solve)()


@pytest.mark.parametrize("checkpoint", [None, 3])
def test_what_a_failed_solve_reached_is_nested_as_y0(checkpoint):
    y0 = {"a": tf.ones([2, 1]), "b": tf.zeros([], tf.float64)}
    means = {"options": {"max_num_steps": 500}, "adjoint_options": {"checkpoint": checkpoint} if checkpoint else None}
    with pytest.raises(SolverError) as caught:
        door.odeint(lambda t, y, p: {"a": y["a"] ** 2, "b": 0.0 * y["b"]}, y0, [0.0, 0.25, 0.5, 2.0], **means)
    np.testing.assert_array_equal(caught.value.ts, [0.0, 0.25, 0.5])
    np.testing.assert_allclose(caught.value.ys["a"], np.reshape([1, 1, 4 / 3, 4 / 3, 2, 2], (3, 2, 1)), rtol=1e-5)
    np.testing.assert_array_equal(caught.value.ys["b"], np.zeros(3))


def test_nan_in_the_loss():
    y0 = tf.zeros([], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(y0)
        loss = tf.math.log(door.odeint(lambda t, y, p: 0.0 * y, y0, [0.0, 1.0])[-1])
    with pytest.raises(ValueError, match="the solve itself is sound"):
        tape.gradient(loss, y0)


def test_a_slope_in_t_that_nobody_asked_for_may_be_infinite():
    """y' = p sqrt(t) from 0."""
    p = tf.Variable(1.0, dtype=tf.float64)
    with tf.GradientTape() as tape:
        end = door.odeint(lambda t, y, p: p * tf.sqrt(t) + 0.0 * y, tf.zeros([], tf.float64), [0.0, 0.8], p, method="dopri5")[-1]
    assert float(tape.gradient(end, p)) == pytest.approx(2 / 3 * 0.8**1.5, rel=1e-5)


IN_GRAPHS = """
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(%d)
    from solvers_bridge.tensorflow import odeint

    Y0, T = tf.constant(np.linspace(-1.0, 1.0, 72).reshape(2, 6, 6, 1), tf.float64), [0.0, 0.2, 0.5]
    KERNEL = tf.constant(np.linspace(-0.3, 0.4, 9).reshape(3, 3, 1, 1))
    VARIABLE = tf.Variable(0.5, dtype=tf.float64, trainable=False)

    @tf.custom_gradient
    def sine(y):
        return tf.ensure_shape(tf.numpy_function(np.sin, [y], y.dtype), y.shape), lambda bar: bar * tf.cos(y)

    def convolution(t, y, w):
        return tf.tanh(tf.nn.conv2d(y, w, 1, "SAME")) - tf.nn.conv2d(sine(y), w, 1, "SAME")

    def with_variable(t, y, w):
        return VARIABLE * tf.nn.conv2d(y, w, 1, "SAME")

    def loss(func, y0, w, **settings):
        return tf.reduce_sum(odeint(func, y0, T, w, **settings)[-1] ** 2)

    def gradient(func, y0, w, **settings):
        with tf.GradientTape() as tape:
            tape.watch((y0, w))
            total = loss(func, y0, w, **settings)
        return total, *tape.gradient(total, (y0, w))

    def side_by_side(y0, w):
        both = [gradient(convolution, scale * y0, w) for scale in (1.0, 0.5, 0.25)]
        return [sum(parts) for parts in zip(*both)]
"""


@pytest.mark.parametrize("threads", (1, 2))
def test_solves_in_a_graph_need_no_further_thread_of_tensorflows(threads):
    """A solve holds the thread that calls it; graphs of func, run by another, would wait for ever where there is none."""
    run_script(
        textwrap.dedent(IN_GRAPHS % threads)
        + textwrap.dedent("""
            for way in (
                lambda y0, w: gradient(convolution, y0, w, method="bdf"),
                lambda y0, w: gradient(convolution, y0, w, method="dopri5", adjoint_method="discrete"),
                lambda y0, w: gradient(convolution, y0, w, method="rk4", options={"step_size": 0.1}),
                side_by_side,
            ):
                for inside, outside in zip(tf.function(way)(Y0, KERNEL), way(Y0, KERNEL), strict=True):
                    np.testing.assert_allclose(inside, outside, rtol=1e-12)
            print("OK")
        """)
    )


def test_variables_beside_params_in_a_graph():
    """They belong to TensorFlow's own threads: with two they are read, with one a clear error takes the place of a hang."""
    run_script(
        textwrap.dedent(IN_GRAPHS % 2)
        + textwrap.dedent("""
            inside, outside = (f(with_variable, Y0, KERNEL) for f in (tf.function(loss), loss))
            np.testing.assert_allclose(inside, outside, rtol=1e-12)

            @tf.function
            def many():
                return [loss(with_variable, scale * Y0, KERNEL) for scale in (1.0, 2.0, 3.0, 4.0)]

            for _ in range(5):
                try:
                    many()
                except tf.errors.OpError as error:  # or they came one after the other
                    assert "give the variable in params" in str(error), error
        """)
    )
    run_script(
        textwrap.dedent(IN_GRAPHS % 1)
        + textwrap.dedent("""
            try:
                tf.function(loss)(with_variable, Y0, KERNEL)
            except tf.errors.OpError as error:
                assert "give the variable in params" in str(error), error
            else:
                raise AssertionError("no error")
            assert float(loss(with_variable, Y0, KERNEL)) > 0
        """)
    )
