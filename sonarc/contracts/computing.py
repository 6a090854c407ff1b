"""The environment in which tensors are computed with: it has to be there when a process starts."""

from __future__ import annotations

import os
import sys


def computing_env(threads: int) -> dict[str, str]:
    """Variables of a process that computes: bounded threads, and a malloc that keeps what is freed, in huge pages.

    By default glibc gives every block above 32 MB back to the kernel at once, and computing with large tensors then
    spends up to half its CPU time in page faults (docs/log.md has the figures, and jemalloc's).
    """
    env = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    kept = {"MALLOC_MMAP_THRESHOLD_": 1 << 30, "MALLOC_TRIM_THRESHOLD_": 1 << 30, "MALLOC_TOP_PAD_": 64 << 20}
    return env | {name: str(size) for name, size in kept.items()} | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def restart_for_computing(threads: int) -> None:
    """Replace this process by itself in that environment, unless it has it already."""
    env = computing_env(threads)
    if any(os.environ.get(name) != value for name, value in env.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | env)
