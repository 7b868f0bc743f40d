"""python -m experiments.comparison.modern.worker LIBRARY: that library, asked in JSON, a line a question, a line an answer.

    {"ask": "versions"}                                       -> {"versions": {...}, "methods": {...}, "compiled": bool}
    {"ask": "open", "problem": path}                          -> {}
    {"ask": "derivative", "points": path, "answer": path}     -> {}; npz of t (k,) and y (k, ...), npz of dy (k, ...)
    {"ask": "first", "method", "rtol", "atol", "answer", "seconds"}  -> {"seconds": of the first calls, "counts", "warnings"}
    {"ask": "time", "seconds"}                                -> {"forward": [wall, cpu], "gradient": [wall, cpu]}, of a call
    {"ask": "peak"}                                           -> {"peak_mib"}

"first" makes a solver, calls both of its functions and writes states and gradient as npz; "time" calls them as often as fills
LEAST seconds. Solvers stay, by method and tolerance. An answer {"raised": text} is a result, {"late": true} one that took more
processor time than `seconds`; {"broken": text} is a fault in here.
"""

import contextlib
import importlib.metadata
import json
import os
import resource
import signal
import sys
import time
import warnings

import numpy as np

from experiments.harness.memory import resident_peak

from .library import read_problem
from .names import LIBRARIES

# Only what a user would take as a word on the numbers: a compiler's and a deprecation are none.
NO_WORD = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning)
LEAST = 0.02  # seconds that a turn lasts at least, in as many calls as it takes


class Late(BaseException):
    """Processor time is up; no library may catch it as one of its own errors."""


class Worker:
    """The library and what is open of it."""

    def __init__(self, name):
        self.library = LIBRARIES[name].load()
        self.opened, self.solvers = None, {}

    def versions(self, order):
        found = {package: importlib.metadata.version(package) for package in self.library.PACKAGES}
        return {"versions": found, "methods": self.library.METHODS, "compiled": self.library.COMPILED}

    def open(self, order):
        self.library.one_thread()
        self.solvers, self.opened = {}, self.library(read_problem(order["problem"]))
        return {}

    def derivative(self, order):
        with np.load(order["points"]) as points:
            dy = [self.opened.derivative(float(t), y) for t, y in zip(points["t"], points["y"], strict=True)]
        np.savez(order["answer"], dy=np.stack(dy))
        return {}

    def first(self, order):
        with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
            warnings.simplefilter("always")
            begun = time.perf_counter()
            solver = self.opened.solver(order["method"], order["rtol"], order["atol"])
            found = {}
            if solver.gradient is not None:
                states, y0_bar, params_bar = solver.gradient()
                found = {"y0_bar": y0_bar} | {f"param{number}": bar for number, bar in enumerate(params_bar)}
            in_gradient = time.perf_counter() - begun
            states_alone = solver.forward()
        found["states"] = states_alone if solver.gradient is None else states
        seconds = time.perf_counter() - begun
        np.savez(order["answer"], **found)
        self.solvers[order["method"], order["rtol"]] = solver
        said = sorted({one.category.__name__ for one in caught if not issubclass(one.category, NO_WORD)})
        return {"seconds": seconds, "gradient_seconds": in_gradient, "counts": dict(solver.counts), "warnings": said}

    def time(self, order):
        solver = self.solvers[order["method"], order["rtol"]]
        functions = {"forward": solver.forward, **({"gradient": solver.gradient} if solver.gradient else {})}
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return {name: _seconds(function) for name, function in functions.items()}

    def peak(self, order):
        return {"peak_mib": resident_peak()}


def _seconds(function):
    """[wall, processor] seconds of a call, a mean over as many as fill LEAST."""
    calls, wall, cpu = 0, time.perf_counter(), time.process_time()
    while calls == 0 or time.perf_counter() - wall < LEAST:
        function()
        calls += 1
    return [(time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls]


def _late(number, frame):
    raise Late


def in_short(error):
    """An exception's kind and the end of its message, where compiled libraries have what matters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[-250:]}"


def answer(worker, order):
    """What the worker says to an order; processor time is limited by its "seconds"."""
    signal.setitimer(signal.ITIMER_PROF, order.get("seconds", 0.0))
    try:
        return getattr(worker, order["ask"])(order)
    except Late:
        return {"late": True}
    except Exception as error:
        text = in_short(error)
        return {"raised" if order["ask"] in ("first", "open") else "broken": text}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def main(name):
    """Answer until standard input ends. What libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGPROF, _late)
    # A solver that runs away in memory ends by MemoryError, not with the machine.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    worker = Worker(name)
    for line in sys.stdin:
        answers.write(json.dumps(answer(worker, json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
