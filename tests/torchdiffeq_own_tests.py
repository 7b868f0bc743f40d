"""torchdiffeq's own test files, run against solvers_bridge.torch with their lists of methods replaced by ours.

python tests/torchdiffeq_own_tests.py [FOLDER]: FOLDER, or the environment variable TORCHDIFFEQ_TESTS, is the folder tests of a
checkout of github.com/rtqichen/torchdiffeq, which is not part of this repository. Without it the script says so and ends with 2.
"""

import os
import sys
import tempfile
import types
import unittest
import warnings
from collections import Counter
from pathlib import Path

FILES = ("api_tests", "gradient_tests", "odeint_tests", "event_tests", "norm_tests")
METHOD_LISTS = """
FIXED_METHODS = FIXED_EXPLICIT_METHODS = ("euler", "midpoint", "rk4")
ADAPTIVE_METHODS = ("adams", "bdf", "lsoda", "dopri5", "dop853", "radau")
IMPLICIT_METHODS = SCIPY_METHODS = FIXED_IMPLICIT_METHODS = ()
METHODS = FIXED_METHODS + ADAPTIVE_METHODS
"""
# In the test that a seminorm costs no more: lsoda and radau would form Jacobians of 5,000 unknowns, parameters among them, and
# that it costs adams more is known (see adjoint_options of solvers_bridge.odeint).
METHODS_OF_NORM_TESTS = ("bdf", "dopri5", "dop853")
# Cases for what this door refuses, or for names that none of ours has; and why.
LEFT_OUT = {
    "TestScipySolvers": "method 'scipy_solver' is refused, naming ours",
    "TestMinMaxStep": "options['min_step'] is refused: the Fortran has none",
    "TestCallbacks.test_steps": "callbacks are warned of, not called",
    "TestNorms.test_norm": "options['norm'] is refused: the error norm is the Fortran's",
    "TestNorms.test_adjoint_norm": "adjoint_options['norm'] is refused, but for 'seminorm'",
    "TestNorms.test_large_norm": "options['norm'] is refused",
}


class _Counting(unittest.TestResult):
    """Counts cases by test: a subTest is one, and so is a test without any."""

    def __init__(self):
        super().__init__()
        self.passed, self.with_cases = Counter(), set()

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        self.with_cases.add(_name(test))
        self.passed[_name(test)] += error is None

    def addSuccess(self, test):
        self.passed[_name(test)] += _name(test) not in self.with_cases


def _name(test):
    return ".".join(test.id().split(".")[-2:])


def run(folder):
    """(number of cases that passed by test, [(case, traceback) of those that failed])."""
    import solvers_bridge.torch as door

    with tempfile.TemporaryDirectory() as copy:
        for name in (*FILES, "problems"):
            text = (Path(folder) / f"{name}.py").read_text(encoding="utf-8")
            if name == "problems":
                text = text.replace("\n\ndef construct_problem", METHOD_LISTS + "\n\ndef construct_problem")
            # One list of methods is written out in a test.
            text = text.replace("'scipy_solver': (3e-4", "'adams': (3e-4")
            if name == "norm_tests":
                text = text.replace("for method in ADAPTIVE_METHODS", f"for method in {METHODS_OF_NORM_TESTS}")
            (Path(copy) / f"{name}.py").write_text(text, encoding="utf-8")
        facade = types.ModuleType("torchdiffeq")
        facade.odeint, facade.odeint_adjoint, facade.odeint_event = door.odeint, door.odeint_adjoint, door.odeint_event
        before = sys.modules.get("torchdiffeq")
        sys.modules["torchdiffeq"] = facade
        sys.path.insert(0, copy)
        try:
            result = _Counting()
            tests = [test for name in FILES for test in _flat(unittest.defaultTestLoader.loadTestsFromName(name))]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for test in tests:
                    if _name(test) not in LEFT_OUT and _name(test).split(".")[0] not in LEFT_OUT:
                        test.run(result)
        finally:
            sys.path.remove(copy)
            del sys.modules["torchdiffeq"]
            if before is not None:
                sys.modules["torchdiffeq"] = before
    return result.passed, [(str(test), trace) for test, trace in result.failures + result.errors]


def _flat(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from _flat(item)
        else:
            yield item


def main(arguments):
    folder = arguments[0] if arguments else os.environ.get("TORCHDIFFEQ_TESTS")
    if not folder or not (Path(folder) / "api_tests.py").exists():
        print("torchdiffeq's tests are not at hand: give the folder tests of its repository, or set TORCHDIFFEQ_TESTS")
        return 2
    passed, failed = run(folder)
    for name, count in passed.items():
        print(f"{count:4} passed  {name}")
    for name, reason in LEFT_OUT.items():
        print(f"   - left out {name}: {reason}")
    for case, trace in failed:
        print(f"FAILED {case}\n{trace}")
    print(f"{sum(passed.values())} cases passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
