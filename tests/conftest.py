"""The same kernels of OpenBLAS on every machine, for all tests.

Which ones it picks by itself depends on the processor, and with them the last bits of the dot products in VODE and LSODA. Problems
that amplify rounding, some of the traces of 2018 among them, then take other numbers of evaluations.
"""

import os

# Read when NumPy and SciPy load their libraries, which no module of pytest's does before this file.
os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
