"""diffrax: explicit and implicit Runge-Kutta methods, gradients by checkpoints, backwards in time, or directly."""

import diffrax

from .of_jax import Compiled

ADJOINTS = {
    "recursive checkpoints": diffrax.RecursiveCheckpointAdjoint,
    "backsolve": diffrax.BacksolveAdjoint,
    "direct": diffrax.DirectAdjoint,
}
MAX_STEPS = 16_384


class Diffrax(Compiled):
    """`diffeqsolve` with diffrax's own advice: Tsit5, Dopri8 for tight tolerances, Kvaerno5 for stiff problems.

    It tells steps, not evaluations.
    """

    METHODS = {
        "Tsit5, recursive checkpoints": "any",
        "Tsit5, direct": "smooth",
        "Dopri5, backsolve": "any",
        "Dopri8, recursive checkpoints": "smooth",
        "Kvaerno5, recursive checkpoints": "stiff",
    }
    PACKAGES = ("diffrax", "equinox", "optimistix", "lineax", "jax", "jaxlib", "numpy")

    def __init__(self, problem):
        super().__init__(problem)
        self.solvers = {}

    def solver(self, method, rtol, atol):
        if method not in self.solvers:
            self.solvers[method] = self.functions(self._solve(*method.split(", ")))
        return self.compiled(self.solvers[method], rtol, atol)

    def _solve(self, name, way):
        def solve(params, y0, rtol, atol):
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(self.f),
                getattr(diffrax, name)(),
                self.t[0],
                self.t[-1],
                None,
                y0,
                params,
                saveat=diffrax.SaveAt(ts=self.t),
                stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
                adjoint=ADJOINTS[way](),
                max_steps=MAX_STEPS,
            )
            return solution.ys, None

        return solve
