"""The fused graph of f and all its vector-Jacobian products, called as a graph and compiled ahead of time, over sizes.

What compiler="auto" goes by: the rows of the state times the numbers in params, an estimate of the multiplications.
"""

import time
from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from solvers_bridge.adjoint import Augmented
from solvers_bridge.dynamics.base import leaf_tuple, num_params
from solvers_bridge.integrators.blas_threads import with_one_blas_thread
from solvers_bridge.nested import Layout

from ..harness import right_hand_sides
from .modern.library import Problem
from .modern.of_solvers_bridge import OfGraph, OfNative
from .side_by_side import compare, heading, native_is_available, take_turns

SECONDS = 0.02  # of calls that one measurement takes the mean of


class Size(NamedTuple):
    """A state (rows, width) and a network width-units-width with tanh."""

    rows: int
    width: int
    units: int

    @property
    def work(self):
        """Rows times numbers in parameters."""
        return self.rows * (2 * self.width * self.units + self.units + self.width)


SIZES = (
    Size(1, 2, 50),
    Size(100, 4, 20),
    Size(1000, 4, 20),
    Size(512, 16, 128),
    Size(512, 64, 150),
    Size(512, 64, 384),
    Size(1024, 128, 384),
)
DTYPES = ("float32", "float64")
COMPILERS = {"graph": OfGraph, "native": OfNative}


def bench_compilers(rounds, sizes=SIZES, dtypes=DTYPES):
    """Microseconds of a call by both compilers; prints a table, returns metrics compilers_*, none where nothing can be compiled.

    compilers_<dtype>_<rows>x<width>x<units>_native_speedup: median of the rounds' ratios.
    """
    heading("Fused graph of f and its vector-Jacobian products, a call: microseconds, median (minimum)")
    if not native_is_available():
        print('compiler="native" needs TensorFlow 2.21 and a C++ compiler', flush=True)
        return {}
    metrics, rows = {}, []
    for dtype in dtypes:
        for size in sizes:
            calls = {compiler: _timed(_fused(size, dtype, compiler)) for compiler in COMPILERS}
            seconds = take_turns(calls, rounds)
            speedup, of_minima = compare(seconds["graph"], seconds["native"])
            label = f"compilers_{dtype}_{'x'.join(map(str, size))}"
            metrics |= {
                f"{label}_work": size.work,
                f"{label}_native_speedup": speedup,
                f"{label}_native_speedup_of_minima": of_minima,
                **{f"{label}_{compiler}_seconds_median": float(np.median(seconds[compiler])) for compiler in calls},
            }
            cells = [f"{1e6 * np.median(seconds[c]):.3g} ({1e6 * min(seconds[c]):.3g})" for c in calls]
            shape = f"{size.rows} x {size.width}, {size.units} units"
            rows.append([dtype, shape, f"{size.work:.1e}", *cells, f"{speedup:.1f} ({of_minima:.1f})"])
    headers = ["", "state, network", "rows times parameters", "graph", "native", "times as fast (of minima)"]
    print(tabulate(rows, headers, disable_numparse=True), flush=True)
    return metrics


def _fused(size, dtype, compiler):
    """A call (t, s) of the adjoint system of a network of that size, without arguments."""
    rng = np.random.default_rng(0)
    rows, width, units = size
    params = (
        rng.normal(size=(width, units)) / np.sqrt(width),
        rng.normal(size=units),
        rng.normal(size=(units, width)) / np.sqrt(units),
        rng.normal(size=width),
    )
    y0 = np.zeros((rows, width))
    problem = Problem(right_hand_sides.mlp, y0, np.zeros(1), params, y0[None]).astype(dtype)
    dynamics, layout = COMPILERS[compiler](problem).func, Layout.of([y0])
    augmented = Augmented(layout.size, num_params(params))
    structure = leaf_tuple(len(params))
    call = dynamics.augmented(layout, structure).bind(Layout.flat(augmented.size), structure, params)
    s = rng.normal(size=augmented.size)
    return lambda: call(0.3, s)


def _timed(call):
    """A function that gives the mean seconds of some calls, made as in a solve: SciPy's BLAS in one thread."""
    call()
    begun = time.perf_counter()
    call()
    number = max(1, int(SECONDS / (time.perf_counter() - begun)))

    def measure():
        begun = time.perf_counter()
        for _ in range(number):
            call()
        return (time.perf_counter() - begun) / number

    return lambda: with_one_blas_thread(measure)
