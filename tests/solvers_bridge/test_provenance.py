"""Which binaries serve: Fortran here, and one warning where they are C translations."""

import warnings

import pytest
import scipy

from solvers_bridge.integrators import provenance, scipy_private
from solvers_bridge.integrators.provenance import warn_of_c_translations
from tests.helpers import run_script

KINDS = ("vode", "lsoda", "dop")


def c_function(*args):
    """Stands for a translated routine, which is a builtin rather than an f2py object."""


def pretend_c(monkeypatch, kind):
    if kind == "vode":
        monkeypatch.setattr(scipy_private._vode, "dvode", c_function)
    elif kind == "dop":
        monkeypatch.setattr(scipy_private._dop, "dopri5", c_function)
    else:
        monkeypatch.setattr(scipy_private._ode.lsoda, "runner", c_function)


def test_fortran_here():
    assert provenance() == {"scipy": scipy.__version__, "vode": "fortran", "lsoda": "fortran", "dop": "fortran"}


def test_no_warning_of_fortran():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_c_translations()


@pytest.mark.parametrize("kind", KINDS)
def test_a_translation_is_recognised_and_warned_of(monkeypatch, kind):
    pretend_c(monkeypatch, kind)
    assert {name: found for name, found in provenance().items() if found == "c"} == {kind: "c"}
    with pytest.warns(RuntimeWarning, match=rf"C translations of {kind} .*scipy>=1\.15,<1\.17") as caught:
        warn_of_c_translations()
    assert len(caught) == 1


@pytest.mark.parametrize("missing", ("dvode", "dopri5"))
def test_a_routine_that_is_gone_counts_as_translated(monkeypatch, missing):
    monkeypatch.delattr(scipy_private._vode if missing == "dvode" else scipy_private._dop, missing)
    assert "c" in provenance().values()


def test_importing_warns_once_and_solving_still_works():
    run_script("""
        import warnings
        import numpy as np
        from scipy.integrate import _dop, _ode, _vode
        dvode, dopri5 = _vode.dvode, _dop.dopri5
        _vode.dvode = lambda *args: dvode(*args)
        _dop.dopri5 = lambda *args: dopri5(*args)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import solvers_bridge
            from solvers_bridge.integrators import provenance
            import solvers_bridge.integrators
            assert abs(solvers_bridge.odeint(lambda t, y, params: -y, 1.0, [0.0, 1.0])[1] - np.exp(-1)) < 1e-6
        told = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
        assert len(told) == 1 and "vode, dop" in told[0] and "lsoda" not in told[0].split("instead")[0], told
        assert provenance()["vode"] == "c" and provenance()["lsoda"] == "fortran"
        """)


def test_the_supported_range_holds_here():
    major, minor = map(int, scipy.__version__.split(".")[:2])
    assert (1, 15) <= (major, minor) < (1, 17)


def test_importing_the_library_does_not_import_tensorflow():
    run_script("""
        import sys
        import solvers_bridge
        solvers_bridge.odeint(lambda t, y, params: -y, 1.0, [0.0, 1.0])
        assert not [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "keras")]
        assert "TensorFlowDynamics" in solvers_bridge.__all__
        try:
            solvers_bridge.nothing_of_the_kind
        except AttributeError as error:
            assert "nothing_of_the_kind" in str(error)
        else:
            raise AssertionError
        """)
