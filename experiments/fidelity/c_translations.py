"""What SciPy 1.17 changed when it translated VODE and Hairer's codes into C. Run it under 1.16 and 1.17; it needs only SciPy.

dop853: the first two steps it tries on y' = -y, the first of them too long. C's second try is 0.3 (dfactor) times as long,
whatever the error was. dopri5: where the second call of integrate() evaluates y' first. C begins with the Euler step of a new
estimate, the Fortran with the step it had. vode: the diagonal of Newton's matrix 1 - h J for J = diag(-1, -5, -9) and h = 0.01,
as the first correction shows it. In C its last element is its first.
"""

import numpy as np
import scipy
from scipy.integrate import ode

RATES = np.array([-1.0, -5.0, -9.0])


def evaluations(name, n, outputs, **options):
    """Times and states at which the last call of integrate() evaluates y' = RATES[:n] y."""
    times, states = [], []
    solve = ode(lambda t, y: times.append(t) or states.append(y.copy()) or RATES[:n] * y).set_integrator(name, **options)
    if name != "vode":
        solve.set_solout(lambda t, y: 0)
    solve.set_initial_value(np.ones(n))
    for end in outputs:
        del times[:], states[:]
        solve.integrate(end)
    return np.array(times), np.array(states)


# Five lines that show it:
tried = evaluations("dop853", 1, [2.0], first_step=2.0)[0][[1, 12]] / 0.0526001519587677
second_call = evaluations("dopri5", 1, [1.0, 2.0])[0][:3]
y = evaluations("vode", 3, [0.05], method="bdf", with_jacobian=True, first_step=0.01, rtol=1e-3, atol=1e-3)[1]
newton = (0.01 * RATES * y[1] - (y[1] - y[0])) / (y[5] - y[1])
print(scipy.__version__, "dop853", tried.round(3), "dopri5", second_call.round(3), "vode", newton.round(3))
