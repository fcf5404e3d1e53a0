"""Carries out steps as Prefect tasks, and shows reports as Prefect artifacts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast
from uuid import UUID

from prefect import State, Task
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Completed, Crashed

from flows.each_workload import End
from registry.errors import KalimtakError
from registry.models import DEFAULT_WORKLOAD, RetrainRun

T = TypeVar("T")
RETRY_DELAY_S = 5.0
_IN_KEYS = str.maketrans({"-": "--", ".": "-d-", "_": "-u-"})
"""Keys have letters, digits and dashes; no two names may become the same."""


class PrefectSteps:
    """The steps of one flow run for one workload, whose artifacts have keys of their own."""

    def __init__(
        self, workload: str = DEFAULT_WORKLOAD, *, retry_delay_s: float = RETRY_DELAY_S
    ) -> None:
        is_default = workload == DEFAULT_WORKLOAD
        self._ending = "" if is_default else f"--{workload.translate(_IN_KEYS)}"
        self._retry_delay_s = retry_delay_s
        self._progress: UUID | None = None

    def run(self, name: str, step: Callable[[], T], *, retries: int = 0) -> T:
        """Carry out `step` as a task of that name."""
        as_task: Task[[], T] = Task(
            step,
            name=name,
            retries=retries,
            retry_delay_seconds=self._retry_delay_s,
            retry_condition_fn=_may_pass,
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        return as_task()

    def progress(self, percent: float, note: str) -> None:
        """Move the flow run's progress artifact, and log."""
        if self._progress is None:
            created = create_progress_artifact(
                percent, key=f"training-progress{self._ending}", description=note
            )
            self._progress = cast(UUID, created)  # not a coroutine: no flow of ours is async
        else:
            update_progress_artifact(self._progress, progress=percent, description=note)
        get_run_logger().info("%3.0f %% %s", percent, note)

    def table(self, key: str, markdown: str) -> None:
        """Add a markdown artifact to the series of that key."""
        create_markdown_artifact(markdown, key=key + self._ending)

    def image(self, key: str, data_uri: str, description: str) -> None:
        """Add an image artifact to the series of that key."""
        create_image_artifact(data_uri, key=key + self._ending, description=description)

    def abandoned(self, run: RetrainRun) -> None:
        """Mark its flow run as crashed: of a process that was killed Prefect hears nothing."""
        get_run_logger().warning("training run %s: %s", run.id, run.reason)
        if run.flow_run_id is None:
            return
        with get_client(sync_client=True) as client:
            try:
                client.set_flow_run_state(
                    UUID(run.flow_run_id), Crashed(message=run.reason), force=True
                )
            except ObjectNotFound:  # deleted, or of another server
                get_run_logger().info("flow run %s is not known here", run.flow_run_id)


def completed(end: End) -> State[None]:
    """The state of a flow run that has come to this end."""
    return Completed(name=end.name, message=end.message)


def _may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """What the product itself refuses is refused again; anything else may have been a hiccup."""
    return not isinstance(state.result(raise_on_failure=False), KalimtakError)
