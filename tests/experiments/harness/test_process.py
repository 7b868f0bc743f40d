"""The program as a process: its streams, its endings, and that no child outlives it."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from experiments.harness.records import REPOSITORY
from tests.helpers import some_fast

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")

# `run all` of experiments that never end: one works in its own process, one in a pool's, one in a process by subprocess.
ENDLESS = textwrap.dedent("""
    import sys, time, types
    from pathlib import Path

    from experiments import Experiment, __main__
    from original_repro import children

    def tell(path):
        Path(path).touch()
        # As in a library: no Python, no handler.
        time.sleep(600)

    if __name__ == "__main__":
        folder = Path(sys.argv[1])
        # Not the real one, which takes seconds to import.
        command_line = sys.modules["experiments.command_line"] = types.ModuleType("experiments.command_line")
        if sys.argv[2] == "all":
            experiments = {name: Experiment(name=name, source="", shows="", run=None) for name in ("alone", "pool", "command")}
            from experiments.harness import run_all

            command_line.main = lambda: run_all.run_all(experiments, [str(folder)], 3, folder)
            popen = run_all.subprocess.Popen
            run_all.subprocess.Popen = lambda command, **options: popen(
                [*command[:command.index("-m")], __file__, str(folder), command[command.index("run") + 1]], **options)
        elif sys.argv[2] == "alone":
            command_line.main = lambda: tell(folder / "alone")
        elif sys.argv[2] == "pool":
            from experiments.harness import workers

            command_line.main = lambda: workers.run_tasks(tell, [str(folder / "pool1"), str(folder / "pool2")], 2)
        else:
            code = f"import pathlib, time; pathlib.Path({str(folder / 'command')!r}).touch(); time.sleep(600)"
            command_line.main = lambda: children.run([sys.executable, "-c", code])
        sys.exit(__main__.program())
""")


def states():
    """{number: (state, parent)} of all processes."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        found[int(place.name)] = state, int(parent)
    return found


def descendants(number):
    """Numbers of a process's children, their children and so on."""
    found = {one for one, (_, parent) in states().items() if parent == number}
    return found.union(*map(descendants, found))


def living(numbers):
    """Those that are more than a note for their parent, who may not have asked for it."""
    now = states()
    return [number for number in numbers if number in now and now[number][0] != "Z"]


@linux
@pytest.mark.parametrize("name", some_fast(["SIGTERM", "SIGHUP", "SIGKILL"], "SIGHUP", "SIGKILL"))
def test_run_all_ended_by_a_signal_leaves_no_process(tmp_path, name):
    (tmp_path / "endless.py").write_text(ENDLESS)
    main = subprocess.Popen(
        [sys.executable, tmp_path / "endless.py", tmp_path, "all"],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        # Under nohup the tests have it ignored, and whoever they start.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 90
    while not all((tmp_path / one).exists() for one in ("alone", "pool1", "pool2", "command")):
        assert main.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    everyone = descendants(main.pid)
    assert len(everyone) >= 6
    main.send_signal(getattr(signal, name))
    deadline = time.monotonic() + 2
    while living(everyone) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not living(everyone)
    assert main.wait(1) == (-signal.SIGKILL if name == "SIGKILL" else 128 + getattr(signal, name))
    assert name == "SIGKILL" or f"ended by {name}; the same command goes on" in main.stderr.read()


def test_ctrl_c_is_one_line_and_ends_a_pool(tmp_path):
    (tmp_path / "endless.py").write_text(ENDLESS)
    main = subprocess.Popen(
        [sys.executable, tmp_path / "endless.py", tmp_path, "pool"],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not all((tmp_path / one).exists() for one in ("pool1", "pool2")):
        assert main.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(main.pid, signal.SIGINT)  # as a terminal does
    assert main.wait(30) == 130
    assert main.stderr.read() == "interrupted; the same command goes on from its checkpoints\n"


def program(arguments, shell="", **environment):
    """`python -m experiments` with arguments, by a shell that does something with its streams."""
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$0" -m experiments {arguments} {shell}', sys.executable],
        cwd=REPOSITORY,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        timeout=100,
    )


def test_a_reader_that_goes_is_no_traceback():
    done = program("list", "| (exec 0<&-)")
    assert done.returncode == 141 and done.stderr == b""


@pytest.mark.slow
def test_a_run_with_closed_streams_goes_on(tmp_path):
    done = program(f"run integrator_fidelity --out {tmp_path}", "0<&- >&- 2>&-")
    assert done.returncode == 0 and (tmp_path / "runs/integrator_fidelity/quick-seed0.json").exists()


def test_closed_streams_and_a_notebooks_backend_are_no_reason_to_stop():
    done = program("list", "0<&- 2>&-", MPLBACKEND="module://matplotlib_inline.backend_inline")
    assert done.returncode == 0 and done.stdout


def test_tensorflow_is_imported_without_a_word_and_what_else_is_said_comes_through():
    code = (
        "import os; from experiments.harness import process; process.quiet_tensorflow(); import tensorflow; os.write(2, b'other')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, timeout=100, check=True)
    assert done.stderr == b"other"
