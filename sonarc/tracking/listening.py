"""Votes of blind listening tests in MLflow: every session is kept with both runs, and what all of them say is a metric.

The sign test asks how likely so uneven a count is if listeners could not tell: ties are left out, and each vote counts
as one trial.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scipy.stats import binomtest

from sonarc.contracts.errors import TrackingError
from sonarc.contracts.votes import Votes, read_votes
from sonarc.tracking import mlflow_client
from sonarc.tracking.messages import Kept, Metrics, send

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "listening"


@dataclass(frozen=True)
class Tally:
    """What all sessions of one pair say, from one run's side."""

    wins: int
    losses: int
    ties: int
    sessions: int

    @property
    def p(self) -> float:
        """Probability of a count at least so uneven without a difference, two-sided; 1 without a vote."""
        trials = self.wins + self.losses
        return float(binomtest(self.wins, trials).pvalue) if trials else 1.0


def tally(sessions: list[Votes], run: str) -> Tally:
    """Count the votes for and against a run, each session once."""
    distinct = {session.id: session for session in sessions}
    wins = losses = ties = 0
    for session in distinct.values():
        side = "a" if session.a.run == run else "b"
        for vote in session.votes:
            ties += vote.choice == "tie"
            wins += vote.choice == side
            losses += vote.choice not in (side, "tie")
    return Tally(wins, losses, ties, len(distinct))


def record_votes(uri: str, votes: Votes, now: int) -> Tally:
    """Keep a session with both runs and renew their counts; returns what all sessions of the pair say of `a`.

    Args:
        uri: MLflow's tracking URI.
        now: milliseconds since 1970.

    Raises:
        TrackingError: a run is not in MLflow, or MLflow is away.
    """
    found: Tally | None = None
    for mine, other in ((votes.a, votes.b), (votes.b, votes.a)):
        if mine.mlflow_run_id is None:
            raise TrackingError(f"The run {mine.run} is in no MLflow.", "Compare runs that were tracked.")
        with mlflow_client.explained(uri):
            client = mlflow_client.client(uri)
            folder = f"{FOLDER}/{other.run}"
            data = votes.model_dump_json(by_alias=True, indent=2).encode()
            send(client, mine.mlflow_run_id, Kept(name=f"{votes.id}.json", folder=folder, data=data))
            counted = tally(_sessions(client, mine.mlflow_run_id, folder), mine.run)
            figures = {"wins": counted.wins, "losses": counted.losses, "ties": counted.ties, "p": counted.p}
            points = tuple(
                (f"listening/{other.run}/{name}", float(value), now, counted.sessions)
                for name, value in figures.items()
            )
            send(client, mine.mlflow_run_id, Metrics(points=points))
        found = found or counted
    assert found is not None
    return found


def _sessions(client: MlflowClient, run_id: str, folder: str) -> list[Votes]:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(client.download_artifacts(run_id, folder, scratch))
        return [read_votes(path) for path in sorted(place.glob("*.json"))]
