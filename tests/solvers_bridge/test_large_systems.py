"""Hundreds of thousands of unknowns: little memory, and dense Jacobians refused at once."""

import pytest

from tests.helpers import run_script


@pytest.mark.parametrize("method", ("adams", "lsoda"))
def test_large_systems_are_solved_in_little_memory(method):
    size = 700_000
    done = run_script(
        """
        import resource, sys
        import numpy as np
        from solvers_bridge import odeint
        method, size = sys.argv[1], int(sys.argv[2])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ys = odeint(lambda t, y, params: -y, np.ones(size), [0.0, 1.0], method=method, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(ys[-1], np.exp(-1), rtol=1e-2)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
        """,
        method,
        size,
    )
    assert int(done.stdout) < 8 * size * 60 and done.stderr == ""


def test_dense_jacobians_of_large_systems_are_refused_at_once():
    run_script("""
        import resource
        import numpy as np
        from solvers_bridge import odeint
        size = 294_912
        def never(t, y, params):
            raise AssertionError("func was called")
        resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
        for method, jacobian in (("lsoda", "finite_difference"), ("lsoda", "autodiff"), ("bdf", "autodiff"),
                                 ("adams", "finite_difference"), ("radau", None), ("radau", "autodiff")):
            try:
                odeint(never, np.ones(size), [0.0, 1.0], method=method, options={"jacobian": jacobian})
            except ValueError as error:
                assert "jacobian" in str(error) and f"{size} x {size}" in str(error) and "diagonal" in str(error), error
            else:
                raise AssertionError(f"{method} with {jacobian} was not refused")
        """)
