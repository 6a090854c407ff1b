"""What a stage's machine is busy with, as curves under `system/`, as MLflow names them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

INTERVAL_SECONDS = 10.0


class _Takes(Protocol):
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None: ...


@contextmanager
def watched(run: _Takes, interval: float = INTERVAL_SECONDS) -> Iterator[None]:
    """Log this machine's processors, memory, disk, network and GPUs every `interval` seconds, and once at the end.

    MLflow's own monitors measure; its own loop is not used, for it would lose what a server that is away cannot take.
    """
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor]
    monitors = []
    for kind in kinds:
        with suppress(Exception):  # no NVIDIA driver, no pynvml: whatever it raises, there is nothing to watch
            monitors.append(kind())
    ended = threading.Event()

    def watch() -> None:
        step = 0
        while True:
            last = ended.wait(interval)
            for monitor in monitors:
                monitor.collect_metrics()
                found = {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
                run.log_metrics(found, step)
            if last:
                return
            step += 1

    thread = threading.Thread(target=watch, name="system-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
