"""What a figure was measured on: processor, cores, memory, GPU. No host names, users or paths."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_CPUINFO = Path("/proc/cpuinfo")


class Machine(BaseModel):
    """A machine, as far as it explains a figure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu: str
    """Model name of the processor."""
    cores: int = Field(ge=1)
    """Logical cores this process may use."""
    memory_gb: float = Field(ge=0)
    """Physical memory, GB (10⁹ bytes); 0 where the system does not say."""
    system: str
    """Operating system and architecture, as `Linux x86_64`."""
    gpu: str = ""
    """Model name of the GPU that was used; empty: none was."""


def this_machine() -> Machine:
    """The machine this process runs on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        cpu=_cpu_name(),
        cores=cores,
        memory_gb=round(_memory_bytes() / 1e9, 1),
        system=f"{platform.system()} {platform.machine()}",
    )


def _cpu_name() -> str:
    # platform.processor() is empty or just the architecture on Linux.
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
