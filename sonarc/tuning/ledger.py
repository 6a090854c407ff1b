"""The trials of one study, shared by every coordinator that works on it: each is measured once, whoever dies.

The trials to come are queued when the study is made, each with its number, and a coordinator claims one by a change of
state that the database grants to one of them. A claimed trial shows signs of life; one without is failed and queued
once more by whoever finds it. Two coordinators may queue the same attempt at the same time: the first one made counts.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.database import Place
from sonarc.contracts.errors import ConfigError, StoreError
from sonarc.contracts.tuning import LossWeights, Trial
from sonarc.tuning.choice import DIRECTIONS
from sonarc.tuning.results import Measured, documents
from sonarc.tuning.space import LINEAR, configured, search_space, weights_of
from sonarc.tuning.storage import RETRIES, once_more, open_storage, patiently

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Claimed:
    """A trial that is this coordinator's to measure."""

    number: int
    weights: LossWeights
    asked: optuna.trial.Trial

    @property
    def id(self) -> int:
        """Its row in the storage."""
        return int(self.asked._trial_id)


class Ledger:
    """A study in its storage, as one coordinator sees it.

    Args:
        place: where it lives; a file must be this process's alone.
        name: of the study.
        config: the search, what it begins with, and patience.

    Raises:
        StoreError: the storage cannot be reached. ConfigError: the study was begun as another search.
    """

    def __init__(self, place: Place, name: str, config: SonarcConfig) -> None:
        self.place, self._config, self._tune = place, config, config.tune
        self.heartbeat = config.compute.tune_heartbeat
        # The storage may just have come back, and the others had no time yet to show signs of life.
        self._calm_until = time.monotonic() + 2 * self.heartbeat
        self._storage = open_storage(place, self.heartbeat)
        self._once_more = once_more()
        startup = max(1, min(10, self._tune.trials // 2))
        self._startup = startup
        self._study = self._patiently(
            lambda: optuna.create_study(
                study_name=name,
                storage=self._storage,
                directions=[DIRECTIONS[objective] for objective in self._tune.objectives],
                pruner=optuna.pruners.MedianPruner(n_startup_trials=startup),
                load_if_exists=True,
            )
        )
        self._space = search_space(self._tune, config.arc)
        self._agree()
        self._patiently(self._queue)
        if not place.shared:
            self._patiently(self._fail_running)
        self._beating: set[int] = set()
        self._ended = threading.Event()
        self._pulse = threading.Thread(target=self._beat, name="tune-heartbeat", daemon=True)
        if place.shared:
            self._pulse.start()

    def close(self) -> None:
        """End the signs of life and the connections."""
        self._ended.set()
        if self._pulse.is_alive():
            self._pulse.join(self.heartbeat)
        self._storage.engine.dispose()

    def claim(self) -> Claimed | None:
        """The next trial in the queue, now this coordinator's; None if there is none."""
        while (trial := self._patiently(self._take)) is not None:
            self._beating.add(trial._trial_id)
            number = trial.user_attrs["number"]
            if (figures := trial.user_attrs.get("figures")) is not None:
                # Its coordinator died between the figures and the end.
                self._patiently(partial(self._finish, trial.number, figures))
                self._beating.discard(trial._trial_id)
                continue
            asked = self._patiently(partial(self._suggest, trial._trial_id, number))
            return Claimed(number, weights_of(asked.params), asked)
        return None

    def report(self, claimed: Claimed, step: int, frechet: float) -> bool:
        """Note a distance taken on the way; whether the trial has fallen behind and is to stop. Trial 0 never does."""

        def noted() -> bool:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a trial whose process died reports its first steps again
                claimed.asked.report(frechet, step)
            return claimed.number > 0 and claimed.asked.should_prune()

        try:
            return self._patiently(noted)
        except UpdateFinishedTrialError:
            return True

    def tell(self, claimed: Claimed, measured: Measured) -> bool:
        """Record what a trial measured; False if it had been given up, and is measured again elsewhere."""
        figures = measured.figures(self._tune.objectives)

        def told() -> None:
            self._storage.set_trial_user_attr(claimed.id, "figures", figures)
            self._finish(claimed.asked.number, figures)

        try:
            self._patiently(told)
        except UpdateFinishedTrialError:
            known = self._patiently(lambda: self._storage.get_trial(claimed.id))
            if "figures" not in known.user_attrs:
                logger.warning("trial %d had been given up; what it measured does not count", claimed.number)
                return False
        finally:
            self._beating.discard(claimed.id)
        return True

    def release(self, claimed: Claimed) -> None:
        """Put a trial that was not measured back into the queue, as far as the storage can be reached."""
        self._beating.discard(claimed.id)
        with contextlib.suppress(StoreError, UpdateFinishedTrialError):
            patiently(
                lambda: self._storage.set_trial_state_values(claimed.id, TrialState.WAITING), self.place, seconds=1.0
            )

    def retry_lost(self) -> None:
        """Queue once more what died with its coordinator."""
        if self.place.shared and time.monotonic() >= self._calm_until:
            self._patiently(self._fail_stale)
        self._patiently(self._requeue)

    def finished(self) -> bool:
        """Whether every trial has come to its end, by whomever."""
        return all(_settled(trial) for trial in self._patiently(self._newest).values())

    def trials(self) -> list[Trial]:
        """Trials that came to their end, by number."""
        newest = self._patiently(self._newest)
        return documents([newest[number] for number in sorted(newest) if _settled(newest[number])])

    def _patiently(self, call: Callable[[], T]) -> T:
        tried = 0

        def counted() -> T:
            nonlocal tried
            tried += 1
            return call()

        found = patiently(counted, self.place, self._config.compute.tune_patience)
        if tried > 1:
            # The others could show no sign of life either: they have some time to do so.
            self._calm_until = time.monotonic() + 2 * self.heartbeat
        return found

    def _agree(self) -> None:
        """All coordinators, and all attempts, search in one space."""
        ours = {
            "space": {name: list(bounds) for name, bounds in self._space.items()},
            "objectives": list(self._tune.objectives),
        }

        def agreed() -> Any:
            if "search" not in self._study.user_attrs:
                self._study.set_user_attr("search", ours)
            return self._study.user_attrs["search"]

        theirs = self._patiently(agreed)
        hint = f"Remove the study {self._study.study_name} there, or search as it was begun."
        for what, words in (("space", "in another space"), ("objectives", "for other objectives")):
            if theirs[what] != ours[what]:
                raise ConfigError(
                    f"The search in {self.place.shown} was begun {words}: {theirs[what]}, not {ours[what]}.", hint
                )

    def _queue(self) -> None:
        newest, first = self._newest(), configured(self._tune, self._config.arc).model_dump(exclude_none=True)
        for number in range(self._tune.trials):
            if number not in newest:
                params = {name: first[name] for name in self._space} if number == 0 else {}
                self._study.enqueue_trial(params, user_attrs={"number": number})

    def _newest(self) -> dict[int, FrozenTrial]:
        """Number → its latest attempt. Trials come in the order they were made: a second copy does not count."""
        newest: dict[int, FrozenTrial] = {}
        for trial in self._study.get_trials(deepcopy=False):
            number = trial.user_attrs.get("number")
            if number is None:
                continue  # put there by hand
            if number not in newest or _attempt(trial) > _attempt(newest[number]):
                newest[number] = trial
        return newest

    def _take(self) -> FrozenTrial | None:
        newest = self._newest()
        for number in sorted(newest):
            trial = newest[number]
            if trial.state != TrialState.WAITING:
                continue
            if self.place.shared:  # before the claim: one that never showed a sign of life is never missed
                self._storage.record_heartbeat(trial._trial_id)
            with contextlib.suppress(UpdateFinishedTrialError):
                if self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                    return trial
        return None

    def _suggest(self, trial_id: int, number: int) -> optuna.trial.Trial:
        """Seeded by the trial's number, so that a resumed search asks what an undisturbed one would."""
        self._study.sampler = optuna.samplers.TPESampler(seed=self._tune.seed + number, n_startup_trials=self._startup)
        asked = optuna.trial.Trial(self._study, trial_id)
        for name, (low, high) in self._space.items():
            asked.suggest_float(name, low, high, log=name not in LINEAR)
        return asked

    def _finish(self, number: int, figures: dict[str, Any]) -> None:
        values = [figures[name] for name in self._tune.objectives]
        if figures["stopped"]:
            self._study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)
        elif None in values:
            self._study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
        else:
            self._study.tell(number, values, skip_if_finished=True)

    def _fail_running(self) -> None:
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        self._requeue()

    def _fail_stale(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(self._study)

    def _requeue(self) -> None:
        """For a coordinator that died between failing a trial and queueing it again."""
        for number, trial in self._newest().items():
            if trial.state == TrialState.FAIL and not _settled(trial):
                logger.warning("trial %d died with its coordinator; it is queued once more", number)
                self._once_more(self._study, trial)

    def _beat(self) -> None:
        while not self._ended.wait(self.heartbeat):
            try:
                for trial_id in list(self._beating):
                    self._storage.record_heartbeat(trial_id)
            except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
                # Others follow.
                logger.warning("The study's storage took no sign of life: %s", type(error).__name__)


def _attempt(trial: FrozenTrial) -> int:
    return len(trial.system_attrs.get("retry_history", ()))  # as RetryHeartbeatStaleTrialCallback leaves it


def _settled(trial: FrozenTrial) -> bool:
    """Whether nothing more is to come of it."""
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        return True
    return trial.state == TrialState.FAIL and ("figures" in trial.user_attrs or _attempt(trial) >= RETRIES)
