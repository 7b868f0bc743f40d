"""Solves in several threads, ours and SciPy's, and in forked processes."""

import sys
import threading

import numpy as np
import pytest
from autograd import grad

from solvers_bridge import record_solves
from tests.helpers import FIXED, HANG, Y0, assert_decays, run_script, solve, some_fast


def test_threads_share_a_dense_output():
    with record_solves(dense=True) as solves:
        solve(method="dop853")
    interpolant, times = solves[0].dense_output, np.linspace(0.0, 1.0, 200)
    want, wrong, interval = [interpolant(t) for t in times], [], sys.getswitchinterval()

    def work(order):
        for _ in range(30):
            wrong.extend(i for i in order if not np.array_equal(interpolant(times[i]), want[i]))

    threads = [threading.Thread(target=work, args=(range(200)[::sign],), daemon=True) for sign in (1, -1)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG)
    finally:
        sys.setswitchinterval(interval)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_threads_of_mixed_methods_and_gradients():
    def work(k, method, failures):
        try:
            rate, t = 0.5 + k / 10, np.linspace(0.0, 1.0, 6)

            def final(rate, y0):
                return solve(
                    lambda t, y, rate: -rate * y,
                    y0,
                    t,
                    method,
                    params=rate,
                    options={"step_size": 0.01} if method in FIXED else {},
                )[-1, 0]

            for _ in range(4):
                np.testing.assert_allclose(final(rate, Y0), np.exp(-rate), rtol=1e-6)
                np.testing.assert_allclose(grad(final)(rate, Y0), -np.exp(-rate), rtol=1e-6)
                np.testing.assert_allclose(grad(final, 1)(rate, Y0), [np.exp(-rate), 0], rtol=1e-6, atol=1e-9)
        except BaseException as error:
            failures.append((method, repr(error)))

    failures, interval = [], sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for round_ in (
            ("adams", "adams", "lsoda", "dopri5"),
            ("bdf", "lsoda", "radau", "rk4"),
            ("dop853", "dopri5", "adams", "lsoda"),
        ):
            threads = [threading.Thread(target=work, args=(k, method, failures), daemon=True) for k, method in enumerate(round_)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(HANG)
                assert not thread.is_alive(), "a thread hangs"
    finally:
        sys.setswitchinterval(interval)
    assert not failures, failures
    assert_decays(solve())


def test_a_thread_with_scipys_own_integrators_beside_ours():
    done = run_script("""
        import itertools, sys, threading
        import numpy as np, scipy.integrate
        from solvers_bridge import odeint, record_solves
        sys.setswitchinterval(1e-5)
        stop, theirs = threading.Event(), []
        f = lambda t, y: -y
        def scipy_alone():
            while not stop.is_set():
                theirs.append(scipy.integrate.odeint(lambda y, t: -y, [1.0], [0.0, 1.0], rtol=1e-8, atol=1e-8)[-1, 0])
                for name in ("vode", "lsoda"):
                    solver = scipy.integrate.ode(f).set_integrator(name, rtol=1e-8, atol=1e-8)
                    theirs.append(solver.set_initial_value([1.0]).integrate(1.0)[0])
        thread = threading.Thread(target=scipy_alone, daemon=True)
        thread.start()
        t = np.linspace(0.0, 1.0, 40)
        for method, steps in 25 * [*itertools.product(("adams", "lsoda"), (False, True))]:
            with record_solves(steps=steps):
                ys = odeint(lambda t, y, params: -y, [1.0, 2.0], t, method=method)
            np.testing.assert_allclose(ys, np.exp(-t)[:, None] * [1.0, 2.0], rtol=1e-5)
        stop.set()
        thread.join(60)
        assert theirs
        np.testing.assert_allclose(theirs, np.exp(-1), rtol=1e-6)
        """)
    assert done.stderr == ""


def test_a_forked_process_has_messages_and_streams_of_its_own():
    """Parent and child fail at the same time: each error has all of its own Fortran's text, and nothing reaches the streams."""
    done = run_script("""
        import os
        import numpy as np
        from solvers_bridge import SolverError, odeint
        def message():
            try:
                odeint(lambda t, y, params: y**2, 1.0, [0.0, 2.0], method="adams", options={"max_num_steps": 5000})
            except SolverError as error:
                return error.reason
        np.seterr(all="ignore")
        expected = message()
        assert "Fortran" in expected
        child = os.fork()
        for _ in range(5):
            assert message() == expected
        if not child:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """)
    assert done.stdout == done.stderr == ""


@pytest.mark.parametrize("method", some_fast(("adams", "lsoda", "dopri5"), "adams"))
def test_a_child_forked_while_another_thread_solves(method):
    """It has no such thread, and none of the locks that one held: it solves, with us and with SciPy alone; so does the parent."""
    done = run_script(
        """
        import os, sys, threading, warnings
        import numpy as np, scipy.integrate
        from solvers_bridge import odeint, record_solves
        warnings.simplefilter("ignore")  # Python 3.12 warns of any fork of a process with threads.
        method = sys.argv[1]
        inside, go_on = threading.Event(), threading.Event()
        def slow(t, y, params):
            inside.set()
            go_on.wait(60)
            return -y
        def check():
            for steps in (False, True):
                with record_solves(steps=steps):
                    for name in (method, "adams", "lsoda"):
                        np.testing.assert_allclose(odeint(lambda t, y, _: -y, [1.0], [0.0, 1.0], method=name)[-1], np.exp(-1), rtol=1e-5)
            for name in ("vode", "lsoda"):
                solver = scipy.integrate.ode(lambda t, y: -y).set_integrator(name, rtol=1e-8, atol=1e-8)
                np.testing.assert_allclose(solver.set_initial_value([1.0]).integrate(1.0), np.exp(-1), rtol=1e-5)
            np.testing.assert_allclose(scipy.integrate.odeint(lambda y, t: -y, [1.0], [0.0, 1.0])[-1], np.exp(-1), rtol=1e-5)
        thread = threading.Thread(target=odeint, args=(slow, [1.0], [0.0, 1.0]), kwargs={"method": method})
        thread.start()
        assert inside.wait(60)
        child = os.fork()
        if not child:
            import signal
            signal.alarm(60)
            status = 1
            try:
                check()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        go_on.set()
        thread.join(60)
        assert not thread.is_alive()
        check()
        """,
        method,
    )
    assert done.stderr == ""
