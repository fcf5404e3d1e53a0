"""What a running system tells Prometheus, summed over its processes on this machine.

Every process writes its numbers into files of its own in `home`/run/metrics; whichever router
is asked for /metrics adds them up (prometheus-client's multiprocess mode). No text of anybody
is in them.
"""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client.metrics import MetricWrapperBase

from registry.interactions import Rated
from serving.jobs import Reply

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
RECORD_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
BATCH_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BASE = "base"
"""The version label of answers that the base model gave."""


class _By:
    """A metric's children by their labels, without the library's lock around each look."""

    def __init__(self, metric: MetricWrapperBase) -> None:
        self._metric = metric
        self._children: dict[tuple[str, ...], Any] = {}

    def __call__(self, *labels: str) -> Any:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(*labels)
        return child


class Metrics:
    """The numbers of one process. Without a folder they are this process's alone."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._registry = CollectorRegistry()
        if folder is not None:
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            # The library looks at the environment when it is imported, which in a process that
            # somebody else starts may have happened already.
            os.environ[FOLDER_VARIABLE] = str(folder)
            values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        self._make_router_metrics()
        self._make_recorder_metrics()
        build = Gauge(
            "kalimtak_build_info",
            "The running version.",
            ["version", "python"],
            registry=self._registry,
            multiprocess_mode="max",
        )
        build.labels(version("kalimtak"), platform.python_version()).set(1)

    def request(
        self,
        *,
        route: str,
        status: int,
        seconds: float,
        workload: str,
        version: str,
        role: str,
    ) -> None:
        """A request has ended; the last three are empty where no model was asked."""
        self._requests(route, workload, version, role, str(status)).inc()
        self._request_seconds(route, role).observe(seconds)

    def reply(self, reply: Reply, *, workload: str, version: str, role: str) -> None:
        """A model has answered."""
        self._queue_seconds(role).observe(reply.queue_ms / 1000)
        self._first_token_seconds(role).observe(reply.first_token_ms / 1000)
        if reply.batch_rows:
            self._batch_rows(role).observe(reply.batch_rows)
        self._tokens(workload, version, "in").inc(reply.tokens_input)
        self._tokens(workload, version, "out").inc(reply.tokens_output)

    def shadow(self, outcome: str) -> None:
        """A copy of a request was "answered", has "failed" or was "dropped"."""
        self._shadows(outcome).inc()

    def written(self, *, into: str, records: int, seconds: float) -> None:
        """The recorder has made a batch durable."""
        self._record_seconds(into).observe(seconds)
        self._record_batch(into).observe(records)

    def spooled(self, *, records: int, size_bytes: int) -> None:
        """How much waits in this router's spool."""
        self._spool_records.set(records)
        self._spool_bytes.set(size_bytes)

    def rated(self, rated: Rated) -> None:
        """Feedback was kept."""
        sign = {1: "positive", 0: "neutral", -1: "negative", None: "none"}[rated.thumb]
        self._feedback(rated.workload, rated.version or BASE, sign).inc()

    def share(self, workload: str, share: float) -> None:
        """The challenger's share of traffic as it is set."""
        self._share(workload).set(share)

    def text(self) -> bytes:
        """All processes' numbers in Prometheus's text format."""
        if self._folder is None:
            return generate_latest(self._registry)
        for path in _of_the_dead(self._folder, "gauge_live*.db"):
            path.unlink(missing_ok=True)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, path=str(self._folder))  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def _make_router_metrics(self) -> None:
        registry = self._registry
        self._requests = _By(
            Counter(
                "kalimtak_requests",
                "Requests answered.",
                ["route", "workload", "version", "role", "status"],
                registry=registry,
            )
        )
        self._request_seconds = _By(
            Histogram(
                "kalimtak_request_seconds",
                "From a request's arrival to the end of its answer.",
                ["route", "role"],
                buckets=SECONDS,
                registry=registry,
            )
        )
        self._queue_seconds = _By(
            Histogram(
                "kalimtak_queue_seconds",
                "Wait at the model replica before generation began.",
                ["role"],
                buckets=SECONDS,
                registry=registry,
            )
        )
        self._first_token_seconds = _By(
            Histogram(
                "kalimtak_first_token_seconds",
                "From the beginning of generation to the first token.",
                ["role"],
                buckets=SECONDS,
                registry=registry,
            )
        )
        self._batch_rows = _By(
            Histogram(
                "kalimtak_batch_rows",
                "Answers that were written together, at the last token of each.",
                ["role"],
                buckets=BATCH_ROWS,
                registry=registry,
            )
        )
        self._tokens = _By(
            Counter(
                "kalimtak_tokens",
                "Tokens read and written by models.",
                ["workload", "version", "direction"],
                registry=registry,
            )
        )
        self._shadows = _By(
            Counter(
                "kalimtak_shadows", "Copies of requests by outcome.", ["outcome"], registry=registry
            )
        )
        self._share = _By(
            Gauge(
                "kalimtak_share_configured",
                "The challenger's share of traffic as it is set.",
                ["workload"],
                registry=registry,
                multiprocess_mode="mostrecent",
            )
        )

    def _make_recorder_metrics(self) -> None:
        registry = self._registry
        self._record_seconds = _By(
            Histogram(
                "kalimtak_record_seconds",
                "Time to make a batch of records durable.",
                ["into"],
                buckets=RECORD_SECONDS,
                registry=registry,
            )
        )
        self._record_batch = _By(
            Histogram(
                "kalimtak_record_batch",
                "Records made durable together.",
                ["into"],
                buckets=BATCH_ROWS,
                registry=registry,
            )
        )
        self._spool_records = Gauge(
            "kalimtak_spool_records",
            "Records in the spool.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._spool_bytes = Gauge(
            "kalimtak_spool_bytes",
            "Bytes in the spool.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._feedback = _By(
            Counter(
                "kalimtak_feedback",
                "Feedback by version and sign.",
                ["workload", "version", "sign"],
                registry=registry,
            )
        )


def metrics_folder(home: Path) -> Path:
    """Where the processes of this machine write their numbers."""
    return home / "run" / "metrics"


def clean_stale(folder: Path) -> None:
    """Remove the files of processes that have ended; call it when the system starts."""
    for path in _of_the_dead(folder, "*.db"):
        path.unlink(missing_ok=True)


def _of_the_dead(folder: Path, pattern: str) -> list[Path]:
    return [
        path
        for path in folder.glob(pattern)
        if not Path("/proc", path.stem.rpartition("_")[2]).exists()
    ]
