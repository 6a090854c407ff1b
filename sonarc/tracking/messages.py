"""What MLflow is told of a run, as values that can be kept while it is away, and how each one is sent."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]


AS_JSON = ConfigDict(
    extra="forbid", frozen=True, ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings"
)
"""How files and NaN survive in a JSON document; of nested models the outermost one's counts."""


class _Message(BaseModel):
    model_config = AS_JSON


class Start(_Message):
    """The run begins."""

    parent: str
    """Id of the run it is nested in, or `journal:` and the journal of one that does not exist yet."""
    name: str
    tags: dict[str, str]
    at: int
    """Milliseconds since 1970."""


class Params(_Message):
    """Settings."""

    kind: Literal["params"] = "params"
    values: dict[str, str]


class Metrics(_Message):
    """Points of curves."""

    kind: Literal["metrics"] = "metrics"
    points: tuple[tuple[str, float, int, int], ...]
    """Name, value, milliseconds since 1970, step."""


class Tags(_Message):
    """Searchable labels."""

    kind: Literal["tags"] = "tags"
    values: dict[str, str]


class Kept(_Message):
    """A file."""

    kind: Literal["file"] = "file"
    name: str
    folder: str
    data: bytes


class Data(_Message):
    """A dataset that the run read."""

    kind: Literal["data"] = "data"
    name: str
    digest: str
    source: str
    profile: str
    context: str


class End(_Message):
    """The run ends."""

    kind: Literal["end"] = "end"
    status: Status
    at: int


Message = Annotated[Params | Metrics | Tags | Kept | Data | End, Field(discriminator="kind")]


def send(client: MlflowClient, run_id: str, message: Message) -> None:
    """Tell MLflow. Sending the same message twice does no harm."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    match message:
        case Params(values=values):
            client.log_batch(run_id, params=[Param(*pair) for pair in values.items()])
        case Metrics(points=points):
            client.log_batch(run_id, metrics=[Metric(*point) for point in points])
        case Tags(values=values):
            client.log_batch(run_id, tags=[RunTag(*pair) for pair in values.items()])
        case Kept(name=name, folder=folder, data=data):
            with tempfile.TemporaryDirectory() as scratch:
                place = Path(scratch) / name
                place.write_bytes(data)
                client.log_artifact(run_id, str(place), folder or None)
        case Data():
            dataset = Dataset(
                name=message.name,
                digest=message.digest,
                source_type="sonarc",
                source=message.source,
                profile=message.profile,
            )
            client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", message.context)])])
        case End(status=status, at=at):
            client.set_terminated(run_id, status, end_time=at)
