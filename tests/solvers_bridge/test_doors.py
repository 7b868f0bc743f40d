"""What holds for every door: frameworks are imported where they are asked for, and missed by name; the 3/8 rule, which one needs."""

import numpy as np

import solvers_bridge
from tests.helpers import run_script


def test_importing_the_package_imports_no_framework_of_a_door():
    run_script(
        """
        import sys
        import solvers_bridge
        loaded = [name for name in ("torch", "tensorflow", "keras") if name in sys.modules]
        assert not loaded, loaded
        """
    )


def test_without_pytorch_the_error_names_the_extra():
    run_script(
        """
        import sys
        sys.modules["torch"] = None
        try:
            import solvers_bridge.torch
        except ImportError as error:
            assert "neural-ode-repro[torch]" in str(error), error
        else:
            raise AssertionError("imported")
        """
    )


def test_the_three_eighths_rule_is_of_order_four():
    def error(step):
        ys = solvers_bridge.odeint(lambda t, y, _: t * y, 1.0, [0.0, 2.0], method="rk4_38", options={"step_size": step})
        return abs(ys[-1] - np.exp(2.0))

    assert 14 < error(0.05) / error(0.025) < 18
    classical = solvers_bridge.odeint(lambda t, y, _: t * y, 1.0, [0.0, 2.0], method="rk4", options={"step_size": 0.5})[-1]
    assert (
        classical
        != solvers_bridge.odeint(lambda t, y, _: t * y, 1.0, [0.0, 2.0], method="rk4_38", options={"step_size": 0.5})[-1]
    )
