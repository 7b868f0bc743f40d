"""SciPy's C translations from 1.17 on: what they make of an exception in func, with routines that do the same, and with the real ones."""

import os
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from scipy.integrate import _ode

from solvers_bridge import odeint
from solvers_bridge.integrators import scipy_private
from solvers_bridge.integrators.scipy_private import inner_integrator
from tests.helpers import ROOT, Calls, raising, some_fast

RELEASE = "1.17.1"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


class Mine(Exception):
    pass


def deaf(routine, seen):
    """The routine as its C translation is: an exception in a callback does not end it, it calls again."""

    def swallowing(callback):
        def called(t, y):
            seen.append(t)
            try:
                return callback(t, y)
            except BaseException:
                return np.zeros(2)

        return called

    return staticmethod(lambda f, *rest: routine(swallowing(f), *rest))


@pytest.fixture(params=("adams", "bdf", "dopri5", "dop853"))
def deaf_method(request, monkeypatch):
    """(method, times at which its routine called back)."""
    seen, integrator = [], _ode.vode if request.param in ("adams", "bdf") else getattr(_ode, request.param)
    monkeypatch.setattr(integrator, "runner", deaf(integrator.runner, seen))
    monkeypatch.setattr(scipy_private._vode, "dvode", None)
    monkeypatch.setattr(scipy_private._dop, "dopri5", None)
    return request.param, seen


@pytest.mark.parametrize("at", (0, 1, 9, 30))
def test_an_exception_ends_a_routine_that_would_go_on(deaf_method, at):
    method, seen = deaf_method
    error = Mine()
    func = Calls(at, raising(error))
    with pytest.raises(Mine) as info:
        odeint(func, np.ones(2), np.linspace(0.0, 1e3, 3), method=method, options={"max_step": 0.01})
    assert info.value is error and len(seen) < 1000  # for some 100,000 steps


def test_what_the_routine_would_do_by_itself(deaf_method):
    """The stand-in is as bad as what it stands for: without the bridge it ends as if nothing had been raised."""
    method, seen = deaf_method
    name = "vode" if method in ("adams", "bdf") else method
    integrator = inner_integrator(name, rtol=1e-6, atol=1e-6, nsteps=10_000, **({"method": method} if name == "vode" else {}))
    integrator.reset(2, False)
    with np.errstate(all="ignore"):
        integrator.run(raising_after(3), lambda: None, np.ones(2), 0.0, 1.0, (), ())
    assert integrator.success and len(seen) > 4


def raising_after(calls):
    left = [calls]

    def func(t, y):
        left[0] -= 1
        if left[0] < 0:
            raise Mine
        return -y

    return func


@pytest.mark.parametrize(
    "line",
    some_fast(
        (
            "import solvers_bridge",
            "from solvers_bridge import odeint",
            "import solvers_bridge.integrators.vode",
            "__import__('importlib').import_module('solvers_bridge.odeint')",
        ),
        "import solvers_bridge",
        "__import__('importlib').import_module('solvers_bridge.odeint')",
    ),
)
def test_the_warning_shows_the_line_that_imports(tmp_path, line):
    script = tmp_path / "mine.py"
    script.write_text(f"from scipy.integrate import _dop\n_dop.dopri5 = None\n\ndef later():\n    {line}\n\nlater()\n")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, env=ENVIRONMENT, timeout=100)
    assert run.returncode == 0, run.stderr
    assert f"{script}:5: RuntimeWarning: SciPy" in run.stderr and "dopri5 and dop853" in run.stderr
    assert run.stderr.count("RuntimeWarning") == 1


INTERRUPTED = """
import random, signal, warnings
warnings.simplefilter("ignore")
import numpy as np
from solvers_bridge import odeint

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
random.seed(0)
for method in ("dopri5", "dop853", "adams", "bdf", "lsoda"):
    for _ in range(100):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.02))
            odeint(lambda t, y, params: np.array([y[1], -y[0]]), [1.0, 0.0], [0.0, 1e6, 2e6], method=method)
        except KeyboardInterrupt:
            continue
        raise AssertionError(f"{method} was not interrupted")
"""


@pytest.mark.slow
def test_with_the_real_ones(tmp_path):
    """The tests of exceptions and failed solves, and interrupts at any moment, with SciPy 1.17.1; no solve hangs."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    ours = [f"{name}=={metadata.version(name)}" for name in ("numpy", "autograd", "pytest")]
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"scipy=={RELEASE}", *ours], check=True)
    files = [
        f"tests/solvers_bridge/test_{name}.py" for name in ("exceptions_in_func", "failed_solves", "results_that_are_not_finite")
    ]
    for arguments in (["-m", "pytest", "-q", "-p", "no:cacheprovider", *files], ["-c", INTERRUPTED]):
        run = subprocess.run([python, *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
        assert run.returncode == 0, run.stdout + run.stderr
