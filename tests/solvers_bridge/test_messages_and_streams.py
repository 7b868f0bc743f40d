"""What the Fortran, f2py and SciPy print or warn of is in the error, and nothing but the user's own output on the streams."""

import os
import pty
import subprocess
import sys
import textwrap
import threading
import warnings
from collections import Counter

import numpy as np
import pytest

from solvers_bridge import SolverError, record_solves
from tests.helpers import ADAPTIVE, HANG, ROOT, blow_up, oscillator, refused, run_script, solve, some_fast, with_and_without_steps

PRINTING = """
    import os, subprocess, sys
    import numpy as np
    from solvers_bridge import SolverError, odeint, record_solves
    np.seterr(all="ignore")
    count = 0
    def say(*descriptors):
        global count
        count += 1
        for descriptor in descriptors:
            os.write(descriptor, b"written %d\\n" % count)
            print("printed", count, flush=True, file=sys.stdout if descriptor == 1 else sys.stderr)
            if count % 200 == 1:
                subprocess.run(["echo", "child", str(count)], stdout=descriptor)
    fixed = {"euler", "midpoint", "rk4"}
    def attempt(func, t=(0.0, 0.5, 1.0), **options):
        for method in sys.argv[1].split(","):
            for steps in (False, True):
                say(1, 2)
                try:
                    with record_solves(steps=steps):
                        odeint(func, [1.0, 2.0], t, method=method, rtol=1e-4, atol=1e-4, options={} if method in fixed else options)
                except (SolverError, ArithmeticError, SystemExit) as error:
                    pass
                say(1, 2)
    def good(t, y, params):
        say(1, 2)
        return -y
    def fails(t, y, params):
        say(1, 2)
        if t > 0.3:
            raise ArithmeticError("of mine")
        return -y
    def exits(t, y, params):
        raise SystemExit(3)
    def nan(t, y, params):
        say(1)
        return y * (np.nan if t > 0.3 else 1.0)
    attempt(good)
    attempt(fails)
    attempt(exits)
    attempt(nan)
    attempt(lambda t, y, params: y**2, max_num_steps=1000)
    attempt(lambda t, y, params: -y, (1.0, 0.0), first_step=0.1)
    attempt(lambda t, y, params: -y, (1e15, 1e15 + 1), first_step=1e-9)
    attempt(lambda t, y, params: 1e8 * np.sign(np.sin(1e7 * y)), max_num_steps=60)
    attempt(lambda t, y, params: 1e6 * np.random.default_rng(0).normal(size=2) * (-1) ** int(1e9 * t), max_num_steps=60)
    attempt(lambda t, y, params: -1e9 * (y - np.cos(t)), max_num_steps=60)
    print("end", count)
    """


def assert_only_ours(text, with_end):
    lines = text.replace("\r\n", "\n").splitlines()
    if with_end:
        assert lines.pop().startswith("end")
    foreign = [line for line in lines if line.split()[0] not in ("written", "printed", "child")]
    assert not foreign, foreign[:5]
    numbers = [int(line.split()[1]) for line in lines]
    assert numbers == sorted(numbers)
    by_count = {}
    for line in lines:
        by_count.setdefault(int(line.split()[1]), []).append(line.split()[0])
    for count, words in by_count.items():
        assert words == ["written", "printed"] + ["child"] * (count % 200 == 1)
    return set(by_count)


def test_nothing_but_the_users_own_output_reaches_pipes():
    done = run_script(PRINTING, "adams,bdf,lsoda,dopri5,dop853,radau,rk4")
    count = int(done.stdout.split()[-1])
    assert assert_only_ours(done.stdout, True) == set(range(1, count + 1))
    assert len(assert_only_ours(done.stderr, False)) > 40


@pytest.mark.parametrize("methods", some_fast(("adams,lsoda,dopri5", "bdf,dop853,radau,rk4"), "adams,lsoda,dopri5"))
def test_nothing_but_the_users_own_output_reaches_a_terminal(methods):
    leader, follower = pty.openpty()
    errors_leader, errors_follower = pty.openpty()
    texts = {leader: b"", errors_leader: b""}

    def drain(descriptor):
        try:
            while chunk := os.read(descriptor, 65536):
                texts[descriptor] += chunk
        except OSError:
            pass

    readers = [threading.Thread(target=drain, args=(descriptor,), daemon=True) for descriptor in texts]
    for reader in readers:
        reader.start()
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PRINTING), methods], cwd=ROOT, stdout=follower, stderr=errors_follower
        )
        os.close(follower)
        os.close(errors_follower)
        assert child.wait(HANG) == 0
        for reader in readers:
            reader.join(HANG)
    finally:
        os.close(leader)
        os.close(errors_leader)
    out = texts[leader].decode()
    assert assert_only_ours(out, True) == set(range(1, int(out.split()[-1]) + 1))
    assert len(assert_only_ours(texts[errors_leader].decode(), False)) > 40


def test_unflushed_prints_and_other_threads_lose_nothing():
    done = run_script("""
        import os, sys, threading
        from solvers_bridge import odeint
        sys.setswitchinterval(1e-5)
        stop, beside = threading.Event(), 0
        def chatter():
            global beside
            while not stop.is_set():
                beside += 1
                os.write(1, b"beside %d\\n" % beside)
        thread = threading.Thread(target=chatter)
        thread.start()
        inside = 0
        def func(t, y, params):
            global inside
            inside += 1
            sys.stdout.write(f"inside {inside}\\n")
            return -y
        for method in ("adams", "lsoda", "bdf") * 12:
            odeint(func, [1.0], [0.0, 1.0], method=method)
        stop.set()
        thread.join()
        sys.stdout.flush()
        print("end", inside, beside)
        """)
    end = done.stdout.splitlines()[-1]
    _, inside, beside = end.split()
    # Two writers may mix in the middle of a line; no character may be missing.
    told = [f"{name} {i}" for name, count in (("inside", inside), ("beside", beside)) for i in range(1, int(count) + 1)]
    assert Counter(done.stdout) == Counter("\n".join([*told, end, ""]))


def test_streams_that_are_closed_or_replaced():
    """Each in a process of its own, of which this one tells what became."""
    done = run_script("""
        import io, os, sys
        import numpy as np
        from solvers_bridge import odeint
        def fails(t, y, params):
            raise ArithmeticError("of mine")
        def solve():
            for method in ("adams", "lsoda", "dopri5", "radau"):
                ys = odeint(lambda t, y, params: -y, 1.0, [0.0, 1.0], method=method)
                np.testing.assert_allclose(ys[-1], np.exp(-1), rtol=1e-5)
                try:
                    odeint(fails, 1.0, [0.0, 1.0], method=method)
                except ArithmeticError:
                    pass
                else:
                    raise AssertionError(method)
        for preparation in (
            "os.close(1)",
            "os.close(2)",
            "os.close(0)",
            "sys.stdout = None",
            "sys.stderr = None",
            "sys.stdout = sys.stderr = io.StringIO()",
            "sys.stdout.close()",
        ):
            child = os.fork()
            if not child:
                status = 1
                try:
                    exec(preparation)
                    solve()
                    status = 0
                finally:
                    os._exit(status)
            print(preparation, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        """)
    assert len(done.stdout.splitlines()) == 7 and "Error" not in done.stderr
    assert all(line.endswith(" 0") for line in done.stdout.splitlines()), done.stdout


def test_descriptors_do_not_leak():
    def fails(t, y, params):
        raise ArithmeticError

    def once():
        for method in ADAPTIVE:
            solve(method=method)
            with pytest.raises(ArithmeticError):
                solve(fails, method=method)
            with pytest.raises(SolverError):
                solve(oscillator, t=[0.0, 10.0], method=method, options={"max_num_steps": 5})

    once()
    before = os.listdir("/proc/self/fd"), [os.fstat(descriptor)[:3] for descriptor in (1, 2)]
    for _ in range(5):
        once()
    assert (os.listdir("/proc/self/fd"), [os.fstat(descriptor)[:3] for descriptor in (1, 2)]) == before


def test_output_of_a_solve_inside_another_reaches_a_pipe():
    done = run_script("""
        from solvers_bridge import odeint
        def outer(t, y, params):
            print("outer", flush=True)
            inner = odeint(lambda s, x, p: print("inner", flush=True) or -x, 1.0, [0.0, 1.0], method="dopri5")
            try:
                odeint(lambda s, x, p: 1 / 0, 1.0, [0.0, 1.0], method="dop853")
            except ZeroDivisionError:
                print("caught", flush=True)
            return -y * inner[-1]
        for method in ("adams", "lsoda", "dopri5"):
            print("begin", flush=True)
            odeint(outer, 1.0, [0.0, 0.5, 1.0], method=method)
            print("end", flush=True)
        """)
    lines = done.stdout.splitlines()
    assert done.stderr == "" and set(lines) == {"begin", "outer", "inner", "caught", "end"}
    assert lines.count("begin") == lines.count("end") == 3 and lines.count("outer") == lines.count("caught") > 30
    assert lines[0] == "begin" and lines[-1] == "end"
    after = [lines[i + 1] for i, line in enumerate(lines[:-1]) if line == "outer"]
    assert set(after) == {"inner"}


def noise(t, y, params):
    """No function at all, so no corrector iteration converges."""
    return 1e30 * noise.generator.normal(size=y.shape)


@pytest.fixture(autouse=True)
def the_same_noise():
    noise.generator = np.random.default_rng(0)


@pytest.mark.parametrize(
    "method, func, text",
    [
        ("adams", noise, "corrector convergence failed"),
        ("bdf", noise, "corrector convergence failed"),
        ("adams", blow_up, r"dvode--.*t \+ h = t"),
        ("bdf", blow_up, r"dvode--.*t \+ h = t"),
        ("lsoda", blow_up, r"lsoda--.*t \+ h = t"),
    ],
)
@pytest.mark.parametrize("steps", (False, True))
def test_the_error_says_what_fortran_printed(method, func, text, steps):
    with refused(SolverError, f"(?i){text}", method) as info, record_solves(steps=steps):
        solve(func, y0=1.0, t=[0.0, 2.0], method=method, options={"max_num_steps": 5000})
    assert "Fortran" in info.value.reason


FAILURES = (blow_up, noise, lambda t, y, params: y * np.nan, lambda t, y, params: -1e9 * (y - np.cos(t)))


@with_and_without_steps
@pytest.mark.parametrize("action", ("always", "error"))
def test_no_warning_of_scipy_escapes(method, action, steps):
    with warnings.catch_warnings(record=action == "always") as caught:
        warnings.simplefilter(action)
        for func in FAILURES:
            with refused(SolverError, "", method) as info, record_solves(steps=steps):
                solve(func, t=[0.0, 2.0], method=method, options={"max_num_steps": 50})
            assert info.value.statistics.nfe > 0 and info.value.t_reached <= 2.0
    assert not [
        str(warning.message) for warning in caught or [] if "scipy" in warning.filename or "solvers_bridge" in warning.filename
    ]


def test_warnings_as_errors_from_the_command_line():
    done = run_script(
        """
        import sys
        import numpy as np
        from solvers_bridge import SolverError, odeint
        np.seterr(all="ignore")
        for method in ("adams", "bdf", "lsoda", "dopri5", "dop853"):
            for t in ([0.0, 2.0], [0.0, 0.5, 2.0]):
                try:
                    odeint(lambda t, y, params: y**2, 1.0, t, method=method, options={"max_num_steps": 100})
                except SolverError as error:
                    assert error.t_reached > 0.5, error
                else:
                    raise AssertionError(method)
                assert abs(odeint(lambda t, y, params: -y, 1.0, [0.0, 1.0], method=method)[1] - np.exp(-1)) < 1e-5
        print("OK")
        """,
        flags=("-W", "error"),
    )
    assert done.stdout == "OK\n" and done.stderr == ""
