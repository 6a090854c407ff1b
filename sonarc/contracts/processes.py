"""Processes on this machine: a port for one, the environment of a Ray of our own, and an end with all they started."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket

import psutil

STOP_SECONDS = 10.0
PATIENT = {
    # Ray's parts wait 30 to 60 s for each other to come up, which on a busy machine can be too little.
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_raylet_start_wait_time_s": "150",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "150",
    "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "120",
    "RAY_worker_register_timeout_seconds": "180",
}
"""Settings of a Ray on a machine that may have much else to do."""
QUIET = {
    **PATIENT,
    # Workers do the work here; at Ray's niceness of 15 everything else on the machine comes first.
    "RAY_worker_niceness": "0",
    # Ray watches itself every few seconds. On two cores that takes a seventh of one from the training.
    "RAY_enable_metrics_collection": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "30000",
    "LOG_NAME_UPDATE_INTERVAL_S": "5",
}
"""Settings of a head that shares a small machine with its work."""


def free_port() -> int:
    """A TCP port free on loopback just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def private_env() -> dict[str, str]:
    """What a head on loopback, and whoever is to be let in, need in their environment: a token of their own."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        # Ray puts the host's own address in place of a loopback one unless told that no cluster is meant.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        **QUIET,
    }


def began(pid: int) -> float:
    """When a process was created, seconds since 1970; 0 where there is none."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def end_tree(pid: int) -> None:
    """End a process and all it started, in its session too: politely, then by force."""
    members = tree(pid)
    for sent in (signal.SIGTERM, signal.SIGKILL):
        for member in members:
            with contextlib.suppress(psutil.Error):
                member.send_signal(sent)
        _, members = psutil.wait_procs(members, timeout=STOP_SECONDS)
        members = [*members, *tree(pid)]
        if not members:
            return


def tree(pid: int) -> list[psutil.Process]:
    """The process, its descendants, and what is left of the session it leads."""
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(pid)
        for member in [leader, *leader.children(recursive=True)]:
            found[member.pid] = member
    for member in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(member.pid) == pid:
                found[member.pid] = member
    return [member for member in found.values() if _lives(member)]


def _lives(member: psutil.Process) -> bool:
    """Whether a process that was found is still there, and more than a zombie."""
    try:
        return bool(member.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
