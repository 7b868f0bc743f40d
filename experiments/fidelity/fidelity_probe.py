"""Run with any Python from 3.6 on and any SciPy: solves given on standard input, as JSON; what they did goes out as one line of
JSON.

In: {"problems": {name: [right-hand side as a list of expressions, y0, end]}, "tasks": [{"solver", "problem", "tolerance",
"outputs"}]}. Out: {"python", "numpy", "scipy", "integrators", "cells": the tasks with "evaluations", "steps", "success", "state"
added}, the state as hexadecimal floats. It imports nothing of this project, because it runs where this project cannot.

Plain scipy.integrate.ode with three additions. nsteps is raised, which changes no step. dopri5 and dop853 have a solout that does
nothing but count: without one, Hairer's core never sets IRTRN and yet asks whether it is 2 or more before each step, so that it
may evaluate the right-hand side once more, or not, as memory happens to be. Newton's iteration is a row of its own, because
SciPy's vode has functional iteration unless it is told otherwise.
"""

import json
import math
import platform
import sys

import numpy
import scipy
from scipy.integrate import _ode, ode

SOLVERS = {
    "vode-adams": ("vode", {"method": "adams"}),
    "vode-bdf": ("vode", {"method": "bdf"}),
    "vode-bdf-newton": ("vode", {"method": "bdf", "with_jacobian": True}),
    "lsoda": ("lsoda", {}),
    "dopri5": ("dopri5", {}),
    "dop853": ("dop853", {}),
}
MAX_NUM_STEPS = 1000000
NST = 10  # IWORK(11) of VODE and LSODA, counted from 0


def right_hand_side(expressions):
    return eval("lambda t, y: [%s]" % ", ".join(expressions), {name: getattr(math, name) for name in ("sqrt", "sin", "cos")})


def measure(problems, solver, problem, tolerance, outputs):
    expressions, y0, end = problems[problem]
    f = right_hand_side(expressions)
    calls, ends = [0], [0.0]

    def counted(t, y):
        calls[0] += 1
        return f(t, y.tolist())

    def after_step(t, y):
        # The beginning of a call of the integrator is told too; it is the end of the step before.
        if t != ends[-1]:
            ends.append(t)
        return 0

    name, options = SOLVERS[solver]
    solve = ode(counted).set_integrator(name, rtol=tolerance, atol=tolerance, nsteps=MAX_NUM_STEPS, **options)
    if name.startswith("dop"):
        solve.set_solout(after_step)
    solve.set_initial_value(y0, 0.0)
    for k in range(1, outputs + 1):
        solve.integrate(end * k / outputs)
    if name.startswith("dop"):
        steps = len(ends) - 1
    else:
        steps = int(solve._integrator.iwork[NST])
    return {
        "evaluations": calls[0],
        "steps": steps,
        "success": bool(solve.successful()),
        "state": " ".join(float(number).hex() for number in solve.y),
    }


def main():
    asked = json.load(sys.stdin)
    kinds = {
        name: "fortran" if type(binary).__name__ == "fortran" else "c"
        for name, binary in (("vode", _ode.vode.runner), ("lsoda", _ode.lsoda.runner), ("dop", _ode.dopri5.runner))
    }
    cells = [dict(task, **measure(asked["problems"], **task)) for task in asked["tasks"]]
    # A line of its own: Fortran may have written messages to the same place.
    print(
        "\n"
        + json.dumps(
            {
                "python": platform.python_version(),
                "numpy": numpy.__version__,
                "scipy": scipy.__version__,
                "integrators": kinds,
                "cells": cells,
            }
        )
    )


if __name__ == "__main__":
    main()
