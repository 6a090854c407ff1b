"""What Prometheus scrapes from `/metrics`."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving import errors
from serving.state import Lineup
from serving.work import Report

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32)
_FACTORS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server; prompts and keys never become labels."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        said: dict[str, Any] = {"registry": self._registry, "namespace": "sonarc"}
        self._requests = Counter("requests", "Answers, by status.", ("route", "status"), **said)
        self._rejections = Counter("rejections", "Requests without audio, by the error's code.", ("code",), **said)
        self._phases = Histogram("phase_seconds", "Time in each phase.", ("phase",), buckets=_SECONDS, **said)
        self._batches = Histogram("batch_size", "Clips made together.", buckets=_SIZES, **said)
        self._queue = Gauge("queue_depth", "Clips waiting, as of the last answer.", **said)
        self._audio = Counter("audio_seconds", "Seconds of audio delivered.", ("slot",), **said)
        self._factor = Histogram(
            "real_time_factor", "Seconds of audio a second of its batch's time.", buckets=_FACTORS, **said
        )
        self._models = Gauge("model_info", "What is served: always 1.", ("slot", "model", "version", "package"), **said)
        self._backed_off = Gauge("canary_backed_off", "1 where the candidate did worse and gets no traffic.", **said)
        self._jobs = Gauge("jobs", "Jobs kept, by status.", ("status",), **said)

    def observe(self, report: Report) -> None:
        """Count one answer, and the refusals at the door that it brings word of."""
        if report.refused:
            refusal = errors.too_busy()
            self._requests.labels(report.route, str(refusal.status)).inc(report.refused)
            self._rejections.labels(refusal.code).inc(report.refused)
        self._requests.labels(report.route, str(report.status)).inc()
        if report.code:
            self._rejections.labels(report.code).inc()
        if not report.batch:
            return
        for phase, seconds in report.timings.seconds().items():
            self._phases.labels(phase).observe(seconds)
        self._batches.observe(report.batch)
        self._queue.set(report.waiting)
        self._audio.labels(report.slot).inc(report.audio_s)
        if report.timings.generate > 0:
            self._factor.observe(report.audio_s / report.timings.generate)

    def present(self, lineup: Lineup) -> None:
        """Name what is served."""
        self._models.clear()
        for slot, served in (("champion", lineup.champion), ("candidate", lineup.candidate)):
            if served is not None:
                self._models.labels(slot, served.model, served.version, served.package_sha256[:16]).set(1)

    def text(self, *, backed_off: bool, jobs: dict[str, int]) -> str:
        """Prometheus' text format."""
        self._backed_off.set(backed_off)
        for status, count in jobs.items():
            self._jobs.labels(status).set(count)
        return generate_latest(self._registry).decode()
