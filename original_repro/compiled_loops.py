"""Loops over pixels, compiled by Numba, which setup.cfg has among the extra `fast`."""

import numba


def compiled(function):
    """`function` compiled by the types of its arguments: sums in any order, as of a matrix product, without Python's lock."""
    return numba.njit(fastmath={"contract", "reassoc", "nsz"}, nogil=True, error_model="numpy")(function)
