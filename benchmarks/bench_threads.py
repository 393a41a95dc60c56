"""One thread for OpenMP and BLAS, set before anything loads them: imported first by `bench.py`."""

from __future__ import annotations

import os

NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
for _name in NAMES:
    os.environ[_name] = "1"


def in_use() -> dict[str, int]:
    """Threads that torch and every loaded BLAS and OpenMP library may use now."""
    import torch
    from threadpoolctl import threadpool_info

    found = {"torch": torch.get_num_threads()}
    for library in threadpool_info():
        name = library["internal_api"]
        found[name] = max(found.get(name, 0), library["num_threads"])
    return found
