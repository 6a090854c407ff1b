"""The messages of one run on their way to MLflow. While it is away they wait, and at the end of the process they are
left as a journal in the store; `replay` delivers journals when it is back, so that nothing is lost.

A journal is `<outbox>/<start>-<id>.json`. A run that could not even be created is created by its journal, once.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sonarc.contracts import store
from sonarc.contracts.result import TrackingRef
from sonarc.tracking import mlflow_client
from sonarc.tracking.messages import AS_JSON, Message, Start, send

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

PARENT_TAG = "mlflow.parentRunId"
JOURNAL_TAG = "sonarc.journal"
AWAITED = "journal:"
"""How the id of a parent begins that is a journal's."""
RETRY_SECONDS, RETRY_AT_MOST = 30.0, 600.0
"""Pause before the server is tried again: doubled each time, since one that hangs costs its time-out each time."""
OUTBOX = "outbox"
"""The folder of journals in a store."""


class Journal(BaseModel):
    """What MLflow was not told of one run."""

    model_config = ConfigDict(populate_by_name=True, **AS_JSON)

    schema_: Literal["sonarc.outbox/1"] = Field(default="sonarc.outbox/1", alias="schema")
    id: str
    start: Start
    pipeline_run_id: str
    """The pipeline's parent run, whose experiment the run belongs to."""
    run_id: str | None
    """None: the run does not exist yet."""
    messages: tuple[Message, ...]


class Outbox:
    """Messages of one run, in order.

    Args:
        ref: the server, the pipeline's run, and where journals are left.
        start: how the run begins.
        run_id: the run, if it exists.
    """

    def __init__(self, ref: TrackingRef, start: Start, run_id: str | None = None) -> None:
        self.ref, self.start, self.run_id = ref, start, run_id
        self.id = uuid.uuid4().hex
        self.client: MlflowClient = mlflow_client.client(ref.uri)
        self._waiting: deque[Message] = deque()
        self._retry_at, self._pause = 0.0, RETRY_SECONDS
        self._tried = self._left = False

    @classmethod
    def of(cls, ref: TrackingRef, journal: Journal) -> Outbox:
        """The outbox that a journal continues."""
        outbox = cls(ref, journal.start, journal.run_id)
        outbox.id, outbox._tried = journal.id, True
        outbox._waiting.extend(journal.messages)
        return outbox

    def put(self, message: Message) -> None:
        """Send a message, or keep it until the server is back."""
        self._waiting.append(message)
        if time.monotonic() >= self._retry_at:
            self.deliver()

    def deliver(self) -> None:
        """Create the run if there is none, and send what waits; stop at the first failure that time may heal.

        Raises:
            MlflowException: a failure that it will not; the message is dropped.
        """
        try:
            if self.run_id is None:
                self.run_id = self._create()
            while self._waiting:
                self._send_first()
        except Exception as error:
            if not mlflow_client.transient(error):
                raise
            log.warning("MLflow cannot be reached (%s); %d messages wait.", error, len(self._waiting))
            self._retry_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, RETRY_AT_MOST)
            return
        self._retry_at, self._pause = 0.0, RETRY_SECONDS

    @property
    def delivered(self) -> bool:
        """Whether the run exists and nothing waits."""
        return self.run_id is not None and not self._waiting

    def leave(self) -> None:
        """Keep what waits as a journal in the store, or remove the one that was left before."""
        if not self.ref.outbox:
            if self._waiting:
                log.warning("MLflow is away, and %d messages have nowhere to wait.", len(self._waiting))
            return
        where = store.join(self.ref.outbox, f"{self.start.at:013d}-{self.id}.json")
        if not self.delivered:
            store.write_bytes(where, self.journal().model_dump_json(by_alias=True).encode())
            self._left = True
            log.warning("MLflow is away; %d messages wait in %s.", len(self._waiting), where)
        elif self._left:
            store.remove_file(where)
            self._left = False

    def journal(self) -> Journal:
        """What waits."""
        return Journal(
            id=self.id,
            start=self.start,
            pipeline_run_id=self.ref.parent_run_id,
            run_id=self.run_id,
            messages=tuple(self._waiting),
        )

    def _send_first(self) -> None:
        assert self.run_id is not None
        try:
            send(self.client, self.run_id, self._waiting[0])
        except Exception as error:
            if not mlflow_client.transient(error):
                self._waiting.popleft()
            raise
        self._waiting.popleft()

    def _create(self) -> str:
        parent = self.start.parent
        experiment_id = self.client.get_run(self.ref.parent_run_id).info.experiment_id
        if self._tried and (known := self._created(experiment_id, self.id)):
            return known  # the server had heard, and only its answer was lost
        self._tried = True
        if parent.startswith(AWAITED):
            found = self._created(experiment_id, parent.removeprefix(AWAITED))
            if found is None:
                raise ConnectionError("the run it is nested in does not exist yet")
            parent = found
        tags = {PARENT_TAG: parent, JOURNAL_TAG: self.id, **self.start.tags}
        created = self.client.create_run(experiment_id, start_time=self.start.at, run_name=self.start.name, tags=tags)
        return str(created.info.run_id)

    def _created(self, experiment_id: str, journal_id: str) -> str | None:
        found = self.client.search_runs([experiment_id], f"tags.`{JOURNAL_TAG}` = '{journal_id}'", max_results=1)
        return str(found[0].info.run_id) if found else None


def replay(ref: TrackingRef) -> tuple[int, int]:
    """Tell MLflow what journals in `ref.outbox` hold; returns how many runs it was told of and how many still wait."""
    told, names = 0, sorted(store.list_files(ref.outbox)) if ref.outbox else []
    for name in names:  # by start: a run before those nested in it
        where = store.join(ref.outbox, name)
        try:
            journal = Journal.model_validate_json(store.read_bytes(where))
        except ValidationError:
            log.warning("The journal %s does not follow its schema and stays where it is.", where)
            continue
        outbox = Outbox.of(ref.model_copy(update={"parent_run_id": journal.pipeline_run_id}), journal)
        while not outbox.delivered:
            try:
                outbox.deliver()
            except Exception as error:
                if outbox.run_id is None:
                    log.warning("MLflow refuses the run %s of %s: %s", journal.start.name, where, error)
                    break
                log.warning("MLflow refuses a message of %s, which is dropped: %s", where, error)
            else:
                break
        if outbox.delivered:
            store.remove_file(where)
            told += 1
    return told, len(names) - told
