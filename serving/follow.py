"""The registry's aliases, followed: a moved alias becomes what the server should serve.

It is the registry that is asked, so whoever promotes or rolls back need not know where servers run.
"""

from __future__ import annotations

import logging
import threading
import uuid
from pathlib import Path

from serving.state import Desired, Lineup, ServedModel, Source, only_one, read_desired, write_desired
from sonarc.contracts.errors import SonarcError

log = logging.getLogger(__name__)


class Follower(threading.Thread):
    """Asks every `every_s` seconds, until `stop` is set. A registry that is away is asked again.

    Args:
        state_dir: where `serve.desired.json` is.
        source: the registry and its aliases.
        every_s: seconds between two questions.
        stop: ends it.
    """

    def __init__(self, state_dir: Path, source: Source, every_s: float, stop: threading.Event) -> None:
        super().__init__(name="follower", daemon=True)
        self._state_dir, self._source, self._every_s, self._stop_asked = state_dir, source, every_s, stop
        self._told: Lineup | None = None

    def run(self) -> None:
        """Ask, until told to stop."""
        while not self._stop_asked.wait(self._every_s):
            try:
                self.ask()
            except SonarcError as error:
                log.warning("The registry could not be asked: %s", error)
            except Exception as error:
                log.warning("The registry could not be asked: %s", type(error).__name__)

    def ask(self) -> None:
        """Ask once; where an alias has moved, say so in `serve.desired.json`.

        Raises:
            SonarcError: the registry is away.
        """
        lineup = resolve(self._source)
        if lineup is None or lineup == self._told:  # one that was refused is not tried for ever
            return
        with only_one(self._state_dir):
            now = read_desired(self._state_dir)
            if now is not None and now.lineup != lineup:
                log.info("the registry now says %s/%s", lineup.champion.model, lineup.champion.version)
                changes = {"attempt": uuid.uuid4().hex, "served": lineup.champion, "candidate": lineup.candidate}
                write_desired(self._state_dir, Desired.model_validate({**dict(now), **changes}))
        self._told = lineup


def resolve(source: Source) -> Lineup | None:
    """What the aliases point at; None while the champion's points at nothing.

    Raises:
        TrackingError: the registry is away.
    """
    from sonarc.tracking.registry import Registry

    registry = Registry(source.tracking, source.store)
    champion = registry.resolve(source.model, source.alias)
    candidate = registry.resolve(source.model, source.candidate_alias)
    if champion is None:
        return None
    if candidate is not None and candidate.package_sha256 == champion.package_sha256:
        candidate = None
    return Lineup(
        champion=ServedModel.model_validate(champion.model_dump()),
        candidate=None if candidate is None else ServedModel.model_validate(candidate.model_dump()),
    )
