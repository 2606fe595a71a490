"""LEAP and its baselines as a pipeline of small, checkable stages, from models and data to tables and figures."""

import os

__version__ = "0.1.0"

LIBRARIES = {"ATEN_CPU_CAPABILITY": "avx2", "OPENBLAS_CORETYPE": "Haswell", "MKL_CBWR": "AVX2"}
"""Which instructions the numerical libraries use on the CPU (`portable`). Each reads its own once, when it is loaded,
so they are set here, for this process and its children, whatever stood there. `MKL_CBWR`: for what may still reach MKL.
"""

os.environ.update(LIBRARIES)
