"""One thread for the linear algebra of small fits.

A BLAS with several threads shares out every product, however small, and its threads wait for each other by spinning. As
soon as another program wants a core, each of the many thousand calls of a fit waits for the scheduler, and a sweep of
seconds takes minutes. `OMP_WAIT_POLICY` does not help: it is for OpenMP, and NumPy's OpenBLAS has threads of its own.
"""

from __future__ import annotations

import contextlib
from functools import cache
from importlib import import_module
from typing import Any

SMALL = 2**29
"""Multiplications, of the largest product of a fit, up to which one thread does it: some hundredths of a second."""


def one_thread(multiplications: int) -> contextlib.AbstractContextManager[Any]:
    """Keep NumPy's and SciPy's linear algebra to one thread inside a `with` block, where its products are small.

    The number of threads is the process's, and is set back on leaving; meanwhile its other threads compute the same, on
    one core. (Of fits that overlap in several threads the first sets it, which threadpoolctl sees to.)
    """
    if multiplications > SMALL:
        return contextlib.nullcontext()
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> Any:
    """Looks for the libraries once, which takes milliseconds; SciPy brings one of its own."""
    import_module("scipy.linalg")
    return import_module("threadpoolctl").ThreadpoolController()
