"""Integrators side by side on one problem: evaluations, steps, error and time over the tolerance.

    python examples/compare_solvers.py --methods adams lsoda dop853 --tolerances 1e-3 1e-6 1e-9 --out compare_solvers.png

The problem is the Arenstorf orbit, a satellite that comes back to where it began after passing close to earth and moon: the end
of one round is known, so the error is measured, not estimated. Another problem is another `func`, `start` and `end`.
"""

import argparse

import autograd.numpy as np
import matplotlib.pyplot as plt
from tabulate import tabulate

from solvers_bridge import odeint, record_solves

MOON = 0.012277471
START = np.array([0.994, 0.0, 0.0, -2.00158510637908252240537862224])
PERIOD = 17.0652165601579625588917206249


def arenstorf(t, y, moon):
    """Positions and velocities (4,) of a third body, in the frame that turns with the other two."""
    x1, x2, v1, v2 = y
    earth = 1 - moon
    d1 = ((x1 + moon) ** 2 + x2**2) ** 1.5
    d2 = ((x1 - earth) ** 2 + x2**2) ** 1.5
    a1 = x1 + 2 * v2 - earth * (x1 + moon) / d1 - moon * (x1 - earth) / d2
    a2 = x2 - 2 * v1 - earth * x2 / d1 - moon * x2 / d2
    return np.array([v1, v2, a1, a2])


def measure(method, tolerance):
    """A row: what one solve took, and how far from the start it ended."""
    with record_solves() as solves:
        end = odeint(arenstorf, START, [0.0, PERIOD], MOON, method=method, rtol=tolerance, atol=tolerance)[-1]
    (solve,) = solves
    error = float(np.max(np.abs(end - START)))
    return [method, tolerance, solve.nfe, solve.steps, solve.last_order, error, solve.wall_seconds]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["adams", "bdf", "lsoda", "dopri5", "dop853"])
    parser.add_argument("--tolerances", nargs="+", type=float, default=[1e-4, 1e-6, 1e-8, 1e-10, 1e-12])
    parser.add_argument("--out", default="compare_solvers.png")
    options = parser.parse_args()
    rows = [measure(method, tolerance) for method in options.methods for tolerance in options.tolerances]
    headers = ["method", "tolerance", "evaluations", "steps", "last order", "error", "seconds"]
    print(tabulate(rows, headers, floatfmt=("", ".0e", "", "", "", ".1e", ".3f")))
    for method in options.methods:
        evaluations, errors = zip(*((row[2], row[5]) for row in rows if row[0] == method))
        plt.loglog(evaluations, errors, "o-", label=method)
    plt.xlabel("evaluations of the right-hand side")
    plt.ylabel("distance from the start after one round")
    plt.legend()
    plt.savefig(options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
