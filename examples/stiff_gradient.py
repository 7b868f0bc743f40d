"""The gradient of a stiff problem, by every way there is to z(t) on the way back, beside finite differences.

    python examples/stiff_gradient.py --problem robertson --method bdf

Robertson's reaction has rates from 0.04 to 3e7; Van der Pol's oscillator with mu = 100 creeps along a slow branch. Both contract:
what forgets its past cannot be solved backwards. "auto" notices, and takes the state from the forward solve.
"""

import argparse
import time
import warnings

import autograd.numpy as np
from autograd import value_and_grad
from tabulate import tabulate

from solvers_bridge import GradientWarning, SolverError, odeint, record_solves


def robertson(t, y, rates):
    a, b, c = y
    slow, fast, third = rates[0] * a, rates[1] * b**2, rates[2] * b * c
    return np.array([third - slow, slow - third - fast, fast])


def van_der_pol(t, y, mu):
    return np.array([y[1], mu[0] * (1 - y[0] ** 2) * y[1] - y[0]])


PROBLEMS = {  # function, start, end, parameters
    "robertson": (robertson, np.array([1.0, 0.0, 0.0]), 40.0, np.array([0.04, 3e7, 1e4])),
    "van_der_pol": (van_der_pol, np.array([2.0, 0.0]), 60.0, np.array([100.0])),
}


def finite_differences(loss, params, step=1e-3):
    """Central differences of loss, with steps relative to the parameters."""
    shifts = np.diag(step * params)
    return np.array([(loss(params + shift) - loss(params - shift)) / (2 * shift.sum()) for shift in shifts])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problem", choices=PROBLEMS, default="robertson")
    parser.add_argument("--method", choices=("bdf", "lsoda", "radau"), default="bdf")
    parser.add_argument("--rtol", type=float, default=1e-8)
    parser.add_argument("--atol", type=float, default=1e-12)
    parser.add_argument("--most", type=int, default=1000, help="steps after which a reverse solve is given up (default: 1000)")
    options = parser.parse_args()
    func, start, end, params = PROBLEMS[options.problem]
    # Without a Jacobian, VODE's BDF iterates as if nothing were stiff.
    settings = dict(method=options.method, rtol=options.rtol, atol=options.atol, options={"jacobian": "autodiff"})

    def loss(params, **more):
        return np.sum(odeint(func, start, [0.0, end], params, **{**settings, **more})[-1] ** 2)

    expected = finite_differences(lambda params: loss(params, method="radau", rtol=1e-10, atol=1e-14), params)
    rows = []
    for way in ("auto", "interpolate", "solve"):
        begun = time.perf_counter()
        with record_solves() as solves, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", GradientWarning)
            try:
                _, grad = value_and_grad(loss)(params, adjoint_options={"reconstruction": way, "max_num_steps": options.most})
                outcome = f"{np.max(np.abs(grad / expected - 1)):.1e}"
            except SolverError as error:
                outcome = f"stopped at t = {error.t_reached:.4g}"
        told = "GradientWarning" if any(one.category is GradientWarning for one in caught) else ""
        counts = ", ".join(f"{solve.direction} {solve.nfe}" for solve in solves)
        rows.append([way, outcome, told, counts, f"{time.perf_counter() - begun:.2f}"])
    print(f"{options.problem}, {options.method}: gradient by finite differences {expected}\n")
    print(tabulate(rows, ["reconstruction", "greatest relative difference", "warning", "evaluations", "seconds"]))


if __name__ == "__main__":
    main()
