"""Ctrl-C and alarms at any moment: KeyboardInterrupt arrives, and descriptors and locks are in order after it."""

import signal
import subprocess
import sys
import textwrap
import threading

from tests.helpers import HANG, ROOT, run_script


def assert_only_f2py(stderr):
    """An interrupt that strikes before the first line of a callback is Python's to raise: f2py's own two lines get out."""
    assert all(line.startswith(("capi_return is NULL", "Call-back cb_")) for line in stderr.splitlines()), stderr


def test_interrupt_by_signal():
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
        import signal, sys, numpy as np
        from solvers_bridge import odeint
        # Shells let what they run in the background ignore it, and children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for method in ("adams", "lsoda", "dopri5", "radau", "rk4"):
            ready = False
            def endless(t, y, params):
                global ready
                if not ready:
                    ready = True
                    print("ready", flush=True)
                return np.cos(1e3 * t) * y
            try:
                odeint(endless, [1.0], [0.0, 1e5], method=method,
                       options={"step_size": 1e-3} if method == "rk4" else {"max_num_steps": 10**9})
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            assert abs(odeint(lambda t, y, params: -y, 1.0, [0.0, 1.0])[1] - np.exp(-1)) < 1e-6
        print("OK", flush=True)
        """),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(HANG, child.kill)
    guard.start()
    lines = []
    for line in child.stdout:
        lines.append(line.strip())
        if lines[-1] == "ready":
            child.send_signal(signal.SIGINT)
    guard.cancel()
    assert_only_f2py(child.stderr.read())
    assert child.wait() == 0 and lines == ["ready", "interrupted"] * 5 + ["OK"]


def test_interrupts_at_any_moment_leave_everything_in_order():
    done = run_script("""
        import os, random, signal, sys
        import numpy as np
        from scipy.integrate import _ode, _odepack_py
        from solvers_bridge import odeint
        locks = _ode.VODE_LOCK, _ode.LSODA_LOCK, _odepack_py.ODE_LOCK
        def handler(*_):
            raise KeyboardInterrupt
        decay = lambda t, y, params: -y
        t = np.linspace(0.0, 1.0, 20)
        for method in ("adams", "lsoda"):
            odeint(decay, 1.0, t, method=method)
        descriptors = sorted(os.listdir("/proc/self/fd"))
        streams = [os.fstat(descriptor)[:3] for descriptor in (1, 2)]
        signal.signal(signal.SIGALRM, handler)
        random.seed(1)
        interrupted = 0
        for attempt in range(600):
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 2.5e-3))
                    while True:
                        odeint(decay, 1.0, t, method=("adams", "lsoda")[attempt % 2])
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            assert [os.fstat(descriptor)[:3] for descriptor in (1, 2)] == streams, f"streams changed, attempt {attempt}"
        assert interrupted == 600
        assert sorted(os.listdir("/proc/self/fd")) == descriptors, "descriptors leaked"
        assert (_ode.VODE_LOCK, _ode.LSODA_LOCK, _odepack_py.ODE_LOCK) == locks, "SciPy's locks were not put back"
        for method in ("adams", "lsoda", "bdf"):
            np.testing.assert_allclose(odeint(decay, 1.0, t, method=method), np.exp(-t), rtol=1e-5)
        print("OK")
        """)
    assert done.stdout == "OK\n"
    assert_only_f2py(done.stderr)
