"""options={"progress": True}: a line on the terminal, only where a solve takes longer than a moment, and taken away again."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import textwrap

import numpy as np
import pytest

from solvers_bridge import odeint
from solvers_bridge.progress import Progress
from tests.helpers import ROOT, some_fast

SCRIPT = """
    import sys, time
    import autograd.numpy as np
    from autograd import grad
    from solvers_bridge import odeint, SolverError, record_solves
    from solvers_bridge import progress
    progress.SILENT_SECONDS = {silent}

    def slow(t, y, p):
        time.sleep({pause})
        if t > {fails_at}:
            raise KeyError("of the user")
        return -y

    try:
        grad(lambda y0: odeint(slow, y0, [0.0, 2.0], method={method!r}, options={options})[-1])(1.0)
    except KeyError:
        print("failed as it should")
    print("done")
    """


def on_a_terminal(terminal=True, silent=0.1, pause=0.004, fails_at=9.0, method="dopri5", options='{"progress": True}'):
    """(stdout, stderr) of SCRIPT, with stderr on a pseudo-terminal or in a pipe."""
    script = textwrap.dedent(SCRIPT.format(silent=silent, pause=pause, fails_at=fails_at, method=method, options=options))
    master, slave = pty.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=slave, cwd=ROOT)
    os.close(slave)
    told = b""
    try:
        while chunk := os.read(master, 65536):
            told += chunk
    except OSError:
        pass  # how Linux says that the other end of a terminal has closed
    os.close(master)
    out = process.communicate(timeout=100)[0].decode()
    assert process.returncode == 0 and out.endswith("done\n"), (out, told.decode())
    return out, told.decode()


@pytest.mark.parametrize("method", some_fast(("lsoda", "dopri5"), "lsoda"))
def test_a_line_on_a_terminal(method):
    _, told = on_a_terminal(method=method)
    assert f"{method}:" in told and "evaluations=" in told and " of 2 [" in told
    assert told.endswith("\r"), "the line is taken away at the end"


@pytest.mark.parametrize("kwargs", ({"options": "{}"}, {"silent": 60.0}, {"terminal": False}), ids=str)
def test_nothing_is_shown(kwargs):
    """Without the option, of a short solve, and where nobody looks."""
    assert on_a_terminal(**kwargs)[1] == ""


def test_the_line_is_taken_away_at_a_failure():
    out, told = on_a_terminal(fails_at=1.0)
    assert "failed as it should" in out and "dopri5:" in told and told.endswith("\r")


def test_silence_lasts_a_moment(monkeypatch, capsys):
    """By the clock: nothing for 1.5 seconds, a bar after that, whose place is how far time has come, never backwards."""
    now = [100.0]
    monkeypatch.setattr("solvers_bridge.progress.time.monotonic", lambda: now[0])
    watch = Progress("adams", 2.0, -2.0)
    watch(1.0)
    now[0] += 1.4
    watch(0.5)
    assert watch.bar is None
    now[0] += 0.2
    watch(0.0)
    assert watch.bar is not None and watch.bar.disable  # no terminal here
    watch.close()


def test_states_do_not_depend_on_it():
    for method in ("adams", "lsoda", "dop853"):
        means = {"method": method, "t": [0.0, 1.0, 2.0], "y0": np.array([1.0, 0.5])}
        plain = odeint(lambda t, y, p: -(y**2), **means)
        np.testing.assert_array_equal(odeint(lambda t, y, p: -(y**2), **means, options={"progress": True}), plain)


def test_it_is_a_flag():
    with pytest.raises(TypeError, match=r"options\['progress'\] must be True or False"):
        odeint(lambda t, y, p: -y, 1.0, [0.0, 1.0], options={"progress": "yes"})
