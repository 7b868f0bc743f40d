"""How the integrators of SciPy's releases differ, Fortran and C."""
