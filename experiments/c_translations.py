"""What SciPy 1.17 changed when it translated VODE and Hairer's codes into C. Run it under 1.16 and 1.17; it needs only SciPy.

dop853: the first two steps it tries on y' = -y, the first of them too long. C's second try is 0.3 (dfactor) times as long, whatever
the error was. dopri5: the first times at which the second call of integrate() evaluates y'. C begins with the Euler step of a new
estimate, the Fortran with the step it had. vode: the diagonal of Newton's matrix 1 - h J for J = diag(-1, -5, -9), from the first
correction with h = 0.01. In C its last element is the first one's.
"""
import numpy as np
import scipy
from scipy.integrate import ode

RATES = np.array([-1.0, -5.0, -9.0])


def evaluations(rates, outputs, name, **options):
    seen = []
    solve = ode(lambda t, y: seen.append((t, y.copy())) or rates * y).set_integrator(name, **options)
    solve.set_solout(lambda t, y: 0) if name.startswith("dop") else None
    solve.set_initial_value(np.ones(len(rates)))
    for end in outputs:
        seen.clear()
        solve.integrate(end)
    return seen


print(scipy.__version__)
tried = evaluations(RATES[:1], [2.0], "dop853", first_step=2.0)
print("dop853", [round(tried[i][0] / 0.0526001519587677, 4) for i in (1, 12)])
print("dopri5", [round(t, 4) for t, _ in evaluations(RATES[:1], [1.0, 2.0], "dopri5")[:4]])
(_, start), (_, predicted), (_, corrected) = evaluations(RATES, [0.05], "vode", method="bdf", with_jacobian=True, first_step=0.01,
                                                         rtol=1e-3, atol=1e-3)[:9:1][:3]
