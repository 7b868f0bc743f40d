"""TensorFlow functions compiled ahead of time: values, callbacks, and all that Python did in callbacks before."""

import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from scipy.integrate import DOP853, RK45, ode

from solvers_bridge.dynamics import native
from solvers_bridge.dynamics.native import NativeError, NativeFunction, cache, library
from tests.helpers import some_fast

try:
    native.check_tensorflow()
    native.cpp_compiler()
except NativeError as error:
    pytest.skip(str(error), allow_module_level=True)

METHODS = {"adams": "vode", "bdf": "vode", "lsoda": "lsoda", "dopri5": "dopri5", "dop853": "dop853"}
NETWORK_SHAPES = ((2, 50), (50,), (50, 2), (2,))


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def network(t, z, leaves):
    w, b, v, c = leaves
    return tf.reshape(tf.tanh(tf.reshape(z, [-1, w.shape[0]]) @ w + b + tf.sin(t)) @ v + c, [-1])


def augmented_network(t, s, leaves):
    n = s.shape[0] // 2
    z, a = s[:n], s[n:]
    with tf.GradientTape() as tape:
        tape.watch([t, z, *leaves])
        f = network(t, z, leaves)
    bars = tape.gradient(f, [z, *leaves, t], output_gradients=-a)
    return tf.concat([f, *(tf.reshape(bar, [-1]) for bar in bars)], axis=0)


def specs(shapes, dtype="float64"):
    return tuple((shape, dtype) for shape in shapes)


def parameters(seed, shapes=NETWORK_SHAPES):
    rng = np.random.default_rng(seed)
    return [0.5 * rng.standard_normal(shape) for shape in shapes]


@pytest.fixture(scope="module")
def compiled(own_cache):
    return NativeFunction(network, 2, specs(NETWORK_SHAPES), "float64")


@pytest.fixture(scope="module")
def compiled_linear(own_cache):
    """A stiff linear system without t, and its Jacobian: entries that are all different."""

    def f(t, z, leaves):
        return tf.linalg.matvec(leaves[0], z)

    return (
        NativeFunction(f, 3, specs([(3, 3)]), "float64"),
        NativeFunction(lambda t, z, leaves: leaves[0], 3, specs([(3, 3)]), "float64"),
    )


@pytest.fixture(scope="module")
def compiled_root(own_cache):
    """dz/dt = sqrt(1 - t) z, not a number after t = 1, for a parameter 1; -sqrt(z), not a number for z < 0, for 0."""

    def f(t, z, leaves):
        return tf.where(leaves[0] > 0, tf.sqrt(1 - t) * z, -tf.sqrt(z))

    return NativeFunction(f, 2, specs([()]), "float64")


def integrate(method, f, z0, t0, t1, jacobian=None, solout=None, rtol=1e-8, atol=1e-8, nsteps=100_000, **kwargs):
    """What scipy.integrate.ode does in one step from t0 to t1; returns the state and the integrator."""
    if METHODS[method] == "vode":
        kwargs["method"] = method
    if jacobian is not None and method == "bdf":
        kwargs["with_jacobian"] = True
    integrator = ode(lambda t, z: z, jacobian and (lambda t, z: z))
    integrator = integrator.set_integrator(METHODS[method], rtol=rtol, atol=atol, nsteps=nsteps, **kwargs)._integrator
    integrator.reset(len(z0), jacobian is not None)
    if solout is not None:
        integrator.call_args[2:4] = [solout, 1]
    z, _ = integrator.run(f, jacobian or (lambda t, z: None), np.array(z0), t0, t1, (), ())
    return z, integrator


def integrate_natively(method, binding, *args, jacobian=None, **kwargs):
    f = binding.rhs_lsoda if method == "lsoda" else binding.rhs
    if jacobian is not None:
        with binding, jacobian:
            return integrate(
                method, f, *args, jacobian=jacobian.jacobian_lsoda if method == "lsoda" else jacobian.jacobian, **kwargs
            )
    with binding:
        return integrate(method, f, *args, **kwargs)


def tensors(arrays, dtype):
    return [tf.constant(array, dtype) for array in arrays]


@pytest.mark.parametrize("dtype, tolerance", some_fast([("float64", 1e-15), ("float32", 1e-6)], ("float32", 1e-6)))
def test_values_are_those_of_the_graph(dtype, tolerance):
    function = NativeFunction(augmented_network, 4, specs(NETWORK_SHAPES, dtype), dtype)
    leaves = parameters(0)
    binding = function.bind(leaves)
    for s in np.random.default_rng(1).standard_normal((5, 4)):
        want = augmented_network(tf.constant(0.3, dtype), tf.constant(s, dtype), tensors(leaves, dtype)).numpy()
        got = binding(0.3, np.append(s, [7.0, 8.0]))  # a state that is longer than what is sent
        assert got.dtype == np.float64 and got.shape == (2 + 2 + 252 + 1,)
        np.testing.assert_allclose(got, want, rtol=20 * tolerance, atol=tolerance)
    assert binding.control.evaluations == 5


@pytest.mark.parametrize("dtype, tolerance", some_fast([("float64", 1e-13), ("float32", 1e-4)], ("float64", 1e-13)))
def test_large_matrix_products(dtype, tolerance):
    shapes = ((2, 512), (512,), (512, 512), (512, 2))

    def wide(t, z, leaves):
        w, b, v, u = leaves
        return tf.reshape(tf.tanh(tf.tanh(tf.reshape(z, [256, 2]) @ w + b * t) @ v) @ u, [-1])

    def augmented(t, s, leaves):
        z, a = s[:512], s[512:]
        with tf.GradientTape() as tape:
            tape.watch([z, *leaves])
            f = wide(t, z, leaves)
        bars = tape.gradient(f, [z, *leaves], output_gradients=-a)
        return tf.concat([f, *(tf.reshape(bar, [-1]) for bar in bars)], axis=0)

    leaves = [leaf / np.sqrt(leaf.shape[0]) for leaf in parameters(2, shapes)]
    s = np.random.default_rng(3).standard_normal(1024)
    want = augmented(tf.constant(0.4, dtype), tf.constant(s, dtype), tensors(leaves, dtype)).numpy()
    got = NativeFunction(augmented, 1024, specs(shapes, dtype), dtype).bind(leaves)(0.4, s)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


def test_control_flow_and_integer_parameters():
    big = tf.constant(np.random.default_rng(4).standard_normal((40, 40)))

    def f(t, z, leaves):
        number, times = leaves
        z = tf.while_loop(lambda i, z: i < times, lambda i, z: (i + 1, tf.sin(tf.linalg.matvec(big, z))), (0, z))[1]
        return tf.cond(t > 0, lambda: z + number, lambda: tf.cumsum(z))

    leaves = [np.ones(40), np.int32(3)]
    binding = NativeFunction(f, 40, (((40,), "float64"), ((), "int32")), "float64").bind(leaves)
    z = np.linspace(0, 1, 40)
    for t in (1.0, -1.0):
        want = f(tf.constant(t, tf.float64), tf.constant(z), [tf.constant(leaf) for leaf in leaves])
        np.testing.assert_allclose(binding(t, z), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_fortran_takes_the_same_steps_as_through_python(compiled, method):
    binding = compiled.bind(parameters(5))
    through_python, _ = integrate(method, lambda t, z: binding(t, z), [1.0, -0.5], 0.0, 5.0)
    evaluations = binding.control.evaluations
    binding.reset()
    direct, _ = integrate_natively(method, binding, [1.0, -0.5], 0.0, 5.0)
    np.testing.assert_array_equal(direct, through_python)
    assert binding.control.evaluations == evaluations > 50


@pytest.mark.parametrize("method", ["bdf", "lsoda"])
@pytest.mark.parametrize("bands", [None, (0, 1)])
def test_jacobian(compiled_linear, method, bands):
    # Triangular where it is stored in bands; stiff, so that LSODA asks for it.
    matrix = np.array([[-1000.0, 2.0, 0.0], [0.0, -300.0, 5.0], [0.0, 0.0, -1.0]])
    if bands is None:
        matrix[2] = [0.5, 7.0, -1.0]
    f, jacobian = (function.bind([matrix]) for function in compiled_linear)
    jacobian.set_bands(bands)
    packing = {} if bands is None else {"lband": bands[0], "uband": bands[1]}

    def in_python(t, z):
        if bands is None:
            return matrix
        return np.array([[0, matrix[0, 1], matrix[1, 2]], np.diag(matrix)])

    z_python, python = integrate(method, lambda t, z: f(t, z), [1.0, 2.0, 3.0], 0.0, 2.0, jacobian=in_python, **packing)
    z_native, direct = integrate_natively(method, f, [1.0, 2.0, 3.0], 0.0, 2.0, jacobian=jacobian, **packing)
    np.testing.assert_array_equal(z_native, z_python)
    assert direct.iwork[12] == python.iwork[12] == jacobian.control.evaluations > 0
    assert list(direct.iwork[10:14]) == list(python.iwork[10:14])


@pytest.mark.parametrize("method, code", [("dopri5", RK45), ("dop853", DOP853)])
def test_recorded_stages_make_up_the_steps(compiled, method, code):
    binding = compiled.bind(parameters(6))
    # A first step that is rejected: stages of rejected steps must not be taken for those of accepted ones.
    for first_step in (0.0, 4.0):
        binding.reset()
        binding.record(method)
        z1, _ = integrate_natively(
            method, binding, [1.0, -0.5], 0.0, 5.0, solout=binding.solout, rtol=1e-9, first_step=first_step
        )
        t, z, k = binding.recorded()
        assert len(t) == len(z) == len(k) + 1 > 4 and t[0] == 0 and t[-1] == 5
        np.testing.assert_array_equal(z[-1], z1)
        per_step = k.shape[1] - 1
        if first_step:
            assert binding.control.evaluations > len(k) * per_step + 2
        for i in range(len(k)):
            h = t[i + 1] - t[i]
            np.testing.assert_allclose(z[i + 1], z[i] + h * code.B @ k[i, : len(code.B)], rtol=1e-13)
            np.testing.assert_array_equal(k[i, 0], binding(t[i], z[i]))
            np.testing.assert_array_equal(k[i, -1], binding(t[i + 1], z[i + 1]))
    binding.record(None)
    with pytest.raises(ValueError, match="nothing is recorded"):
        binding.recorded()


@pytest.mark.parametrize("method", METHODS)
def test_a_value_that_is_not_finite_ends_the_solve_and_is_told(compiled_root, method):
    binding = compiled_root.bind([1.0])
    _, integrator = integrate_natively(method, binding, [1.0, 2.0], 0.0, 2.0, nsteps=2**31 - 1)
    assert not integrator.success
    control = binding.control
    assert control.stop == native.NOT_FINITE and control.not_finite == 2 and control.not_finite_index == 0
    assert np.isnan(control.not_finite_value) and control.not_finite_t > 1 and not control.not_finite_state
    assert 0.9 < control.last_t <= 1
    before = control.evaluations
    integrate_natively(method, binding, [1.0, 2.0], 0.0, 0.5)
    assert control.evaluations == before, "evaluations are refused until reset"
    binding.reset()
    _, integrator = integrate_natively(method, binding, [1.0, 2.0], 0.0, 0.5)
    assert integrator.success and control.stop == native.RUNNING and control.not_finite == 0


def test_values_that_are_not_finite_can_be_let_through(compiled_root):
    binding = compiled_root.bind([0.0])
    binding.reset(stop_at_not_finite=False)
    z, integrator = integrate_natively("dopri5", binding, [4.0, 1.0], 0.0, 1.8, rtol=1e-3, atol=1e-3)
    assert integrator.success and binding.control.not_finite > 0 and binding.control.stop == native.RUNNING
    np.testing.assert_allclose(z, [1.1**2, 0.1**2], atol=2e-3)


def test_state_that_is_not_finite_is_told_apart(compiled_root):
    binding = compiled_root.bind([0.0])
    binding(0.5, np.array([1.0, np.nan]))
    assert binding.control.not_finite == 1 and binding.control.not_finite_index == 1 and binding.control.not_finite_state


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_limit(compiled, method):
    binding = compiled.bind(parameters(7))
    binding.reset(evaluation_limit=70)
    _, integrator = integrate_natively(method, binding, [1.0, -0.5], 0.0, 1e6, nsteps=2**31 - 1)
    assert not integrator.success and binding.control.evaluations == 70
    assert binding.control.stop == native.EVALUATION_LIMIT


@pytest.fixture
def interruptible():
    """SIGINT as in a foreground process: a background one may have been started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("method", METHODS)
def test_interrupt_reaches_a_long_solve(compiled, method):
    binding = compiled.bind(parameters(8))
    timer = threading.Timer(0.05, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
    timer.start()
    started = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        integrate_natively(method, binding, [1.0, -0.5], 0.0, 1e9, nsteps=2**31 - 1, rtol=1e-10)
    assert time.perf_counter() - started < 5
    assert binding.control.stop == native.INTERRUPTED
    binding.reset()
    assert integrate_natively(method, binding, [1.0, -0.5], 0.0, 1.0)[1].success


def test_a_signal_handler_may_solve_with_another_binding(compiled):
    first, second = compiled.bind(parameters(9)), compiled.bind(parameters(10))
    want, _ = integrate_natively("dopri5", first, [1.0, -0.5], 0.0, 20_000.0)
    answers = []

    def handler(signum, frame):
        answers.append(integrate_natively("dopri5", second, [1.0, -0.5], 0.0, 1.0)[0])

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        until = time.monotonic() + 10
        while not answers and time.monotonic() < until:  # a fast machine needs more than one solve
            got, _ = integrate_natively("dopri5", first, [1.0, -0.5], 0.0, 20_000.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(answers, [integrate_natively("dopri5", second, [1.0, -0.5], 0.0, 1.0)[0]])


@pytest.mark.parametrize("method", ["dopri5", "dop853"])
def test_threads_solve_with_parameters_of_their_own(compiled, method):
    bindings = [compiled.bind(parameters(seed)) for seed in range(8)]

    def solve(binding):
        return integrate_natively(method, binding, [1.0, -0.5], 0.0, 2_000.0)[0]

    want = [solve(binding) for binding in bindings]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(solve, bindings))
    np.testing.assert_array_equal(got, want)
    assert len({tuple(z) for z in want}) == 8


def test_other_threads_have_a_turn_during_a_solve(compiled):
    binding = compiled.bind(parameters(11))
    ticks = []
    done = threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.01)

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.perf_counter()
    binding.reset(evaluation_limit=500_000)
    integrate_natively("dopri5", binding, [1.0, -0.5], 0.0, 1e9, nsteps=2**31 - 1, rtol=1e-10)
    ended = time.perf_counter()
    done.set()
    thread.join()
    assert sum(started + 0.02 < tick < ended for tick in ticks) >= 2


def test_binding_keeps_no_memory(compiled):
    def resident_pages():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])

    leaves = parameters(12)
    for _ in range(500):
        compiled.bind(leaves)
    before = resident_pages()
    for _ in range(10_000):
        with compiled.bind(leaves) as binding:
            binding.record("dopri5")
    assert (resident_pages() - before) * 4096 < 2e6


def test_parameters_are_shared_where_they_can_be_and_checked(compiled):
    tensor = tf.constant(parameters(13)[0])
    leaves = [tensor.numpy(), *parameters(13)[1:]]
    binding = compiled.bind(leaves)
    assert all(leaf.ctypes.data % 64 == 0 for leaf in binding.leaves)
    np.testing.assert_array_equal(binding.leaves[1], leaves[1])
    with pytest.raises(ValueError, match="shape"):
        compiled.bind([leaves[0].T, *leaves[1:]])
    with pytest.raises(ValueError):
        compiled.bind(leaves[:3])


def test_pickles(compiled):
    again = pickle.loads(pickle.dumps(compiled))
    assert again.program.key() == compiled.program.key() and again.library is compiled.library
    z = np.array([0.1, 0.2])
    np.testing.assert_array_equal(again.bind(parameters(14))(0.5, z), compiled.bind(parameters(14))(0.5, z))


def test_solves_after_a_fork(compiled):
    binding = compiled.bind(parameters(15))
    want, _ = integrate_natively("adams", binding, [1.0, -0.5], 0.0, 5.0)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            z, _ = integrate_natively("adams", compiled.bind(parameters(15)), [1.0, -0.5], 0.0, 5.0)
            os.write(write, z.tobytes())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        np.testing.assert_array_equal(np.frombuffer(pipe.read()), want)
    os.waitpid(child, 0)


IN_ANOTHER_PROCESS = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np
from test_native import NETWORK_SHAPES, NativeFunction, augmented_network, specs
print(NativeFunction(augmented_network, 4, specs(NETWORK_SHAPES), "float64").program.key())
"""


def another_process(**environment):
    return subprocess.Popen(
        [sys.executable, "-c", IN_ANOTHER_PROCESS.format(folder=os.path.dirname(__file__))],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
def test_another_process_finds_it_in_the_cache():
    key = NativeFunction(augmented_network, 4, specs(NETWORK_SHAPES), "float64").program.key()
    assert cache.library_path(key).exists()
    process = another_process(CXX="/nonexistent/compiler", PYTHONHASHSEED="7")
    assert process.communicate()[0].split() == [key] and process.returncode == 0


@pytest.mark.slow
def test_processes_compile_the_same_graph_at_once(tmp_path):
    processes = [another_process(XDG_CACHE_HOME=str(tmp_path)) for _ in range(2)]
    keys = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0] and len(keys) == 1
    assert [path.name for path in (tmp_path / "solvers_bridge" / "native").iterdir()] == [f"{keys.pop()}.so"]


def scaled(factor):
    """Something small to compile that no other test compiles."""
    return lambda t, z, leaves: factor * z


def test_a_damaged_library_is_compiled_again(compiled, monkeypatch, tmp_path):
    """Once, and kept: here the compiler gives what another cache holds."""
    key = compiled.program.key()
    sound, compilations = cache.library_path(key), []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cache.library_path(key)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half a library")

    def compile_library(program, folder):
        compilations.append(program.key())
        return shutil.copy(sound, folder)

    monkeypatch.setattr(library, "compile_library", compile_library)
    monkeypatch.delitem(library._loaded, key)
    again, z = pickle.loads(pickle.dumps(compiled)), np.array([0.1, 0.2])
    np.testing.assert_array_equal(again.bind(parameters(17))(0.5, z), compiled.bind(parameters(17))(0.5, z))
    assert compilations == [key] and path.read_bytes() == sound.read_bytes()


@pytest.mark.slow
def test_the_cache_can_be_cleared(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    NativeFunction(scaled(5.0), 2, (), "float64")
    command = [sys.executable, "-m", "solvers_bridge.dynamics.native"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "1 compiled graphs" in listed and str(cache.entries()[0]) in listed
    assert "1 compiled graphs deleted" in subprocess.run([*command, "--clear"], capture_output=True, text=True, check=True).stdout
    assert cache.entries() == [] and native.clear() == 0


@pytest.mark.parametrize(
    "compiler, complaint",
    some_fast(
        [("/nonexistent/compiler", "does not run"), ("{folder}/no-program", "does not run"), ("false", "refused a graph")],
        ("/nonexistent/compiler", "does not run"),
        ("false", "refused a graph"),
    ),
)
def test_no_compiler_is_one_clear_error(monkeypatch, tmp_path, compiler, complaint):
    (tmp_path / "no-program").write_bytes(b"\x7fELF of nothing")
    (tmp_path / "no-program").chmod(0o755)
    monkeypatch.setenv("CXX", compiler.format(folder=tmp_path))
    with pytest.raises(NativeError, match=complaint):
        NativeFunction(scaled(7.0), 2, (), "float64")
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NativeError, match="no C\\+\\+ compiler"):
        NativeFunction(scaled(7.0), 2, (), "float64")


def test_a_cache_that_cannot_be_written_is_a_clear_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(NativeError, match="cannot be kept"):
        NativeFunction(scaled(9.0), 2, (), "float64")


def test_what_cannot_be_compiled_is_refused():
    variable = tf.Variable(np.ones(4))
    image = (1, 2, 2, 1)
    refused = {
        "convolutions": lambda t, z, leaves: tf.nn.conv2d(tf.reshape(z, image), tf.ones((1, 1, 1, 1), tf.float64), 1, "SAME"),
        "tf.Variable": lambda t, z, leaves: variable * z,
        "random numbers": lambda t, z, leaves: z + tf.random.normal([4], dtype=tf.float64),
        "Sort": lambda t, z, leaves: tf.sort(z),
        "EagerPyFunc": lambda t, z, leaves: tf.ensure_shape(tf.py_function(lambda z: z, [z], tf.float64), [4]),
    }
    for complaint, function in refused.items():
        with pytest.raises(NativeError, match=complaint):
            NativeFunction(function, 4, (), "float64")


def test_an_older_tensorflow_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(tf, "__version__", "2.18.0")
    with pytest.raises(NativeError, match=r"needs TensorFlow 2\.21, this is 2\.18\.0"):
        native.check_tensorflow()


def test_bindings_in_cycles_are_freed_once(compiled):
    for _ in range(30):
        binding = compiled.bind(parameters(16))
        binding.cycle = binding
    del binding
    gc.collect()
    bindings = [compiled.bind(parameters(seed)) for seed in range(8)]
    z = np.array([0.1, 0.2])
    for seed, binding in enumerate(bindings):
        want = network(tf.constant(0.5, tf.float64), tf.constant(z), tensors(parameters(seed), "float64"))
        np.testing.assert_allclose(binding(0.5, z), want, rtol=1e-13)
