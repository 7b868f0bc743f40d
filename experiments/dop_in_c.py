"""What SciPy 1.17 changed when it translated Hairer's codes into C. Run it under 1.16 and 1.17; it needs only SciPy.

First line: the first two steps that dop853 tries on y' = -y, the first of them too long. In C the second is dfactor = 0.3 times as
long, whatever the error was. Second line: the first three times at which dopri5 evaluates y' in the second call of integrate().
In C the second of them is the Euler step of a new estimate of the first step; the Fortran goes on with the step it had.
"""
import scipy
from scipy.integrate import ode

for name, first_step, outputs in ("dop853", 2.0, [2.0]), ("dopri5", 0.0, [1.0, 2.0]):
    times, solve = [], ode(lambda t, y: times.append(t) or -y).set_integrator(name, first_step=first_step)
    solve.set_solout(lambda t, y: 0)
    solve.set_initial_value([1.0])
    for end in outputs:
        times.clear(), solve.integrate(end)
    print(scipy.__version__, name, [t / 0.0526001519587677 for t in times[1:13:11]] if name == "dop853" else times[:3])
