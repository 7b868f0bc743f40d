"""The Jacobian that an integrator calls, as options ask for it: the caller's own function, or the dynamics' derivative."""

from functools import cached_property

import numpy as np

from .integrators.compiled import compiled_of


def jacobian_of(problem, leaves, sent):
    """jacobian(t, z) -> (n, n), or packed by bands, as options ask for it; None where the integrator sees to it."""
    options = problem.solver.options
    if options.jacobian == "autodiff":
        return _LazyJacobian(problem, sent)
    if not callable(options.jacobian):
        return None
    n, params = problem.layout.size, problem.structure.unflatten(leaves)

    def jacobian(t, z):
        # Copies: the function may write into its argument, and return one buffer each time.
        matrix = np.array(options.jacobian(t, problem.layout.unpack(np.array(z), np.reshape), params), dtype=np.float64)
        banded = None if options.bands is None else (sum(options.bands) + 1, n)
        if matrix.shape not in ((n, n), banded):
            right = f"({n}, {n})" if banded is None else f"({n}, {n}), or {banded} packed by bands,"
            raise ValueError(f"options['jacobian'] must return an array of shape {right} got {matrix.shape}")
        return matrix

    return _packed(jacobian, options.bands)


def _packed(jacobian, bands):
    """jacobian with its bands as rows, entry (i, j) in row upper + i - j, where bands = (lower, upper) are given."""
    if bands is None:
        return jacobian
    lower, upper = bands

    def packed(t, z):
        matrix = jacobian(t, z)
        if matrix.shape[0] != matrix.shape[1]:
            return matrix
        rows = np.zeros((lower + upper + 1, len(matrix)))
        for offset in range(-lower, upper + 1):
            diagonal = np.diagonal(matrix, offset)
            start = max(offset, 0)
            rows[upper - offset, start : start + len(diagonal)] = diagonal
        return rows

    return packed


class _LazyJacobian:
    """jacobian(t, z) that is bound when first wanted, after the integrator has seen whether a dense matrix fits."""

    def __init__(self, problem, leaves):
        self.problem, self.leaves = problem, leaves

    @cached_property
    def bound(self):
        return self.problem.dynamics.bind_jacobian(self.problem.layout, self.problem.structure, self.leaves)

    @cached_property
    def packed(self):
        return _packed(self.bound, self.problem.solver.options.bands)

    @property
    def compiled(self):
        """As machine code, which fills all of the matrix or its bands; None if only Python can call it."""
        return compiled_of(self.bound)

    def __call__(self, t, z):
        return self.packed(t, z)
