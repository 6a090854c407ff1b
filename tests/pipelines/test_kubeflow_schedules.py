"""Schedules that Kubeflow keeps: one recurring run a name, whatever interrupts its setting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from kfp_cluster import profile, spec, uploaded
from kfp_server import Fault, Kfp, kfp_server

from pipelines.kubeflow.cron import six_fields
from pipelines.schedules.kubeflow import KubeflowSchedules
from pipelines.schedules.model import Schedule, Schedules
from sonarc.contracts.errors import ConfigError, PlatformError, SonarcError

NOW = datetime(2026, 11, 2, 6, 30, tzinfo=UTC)


@pytest.fixture
def kfp() -> Iterator[Kfp]:
    with kfp_server() as server:
        uploaded(server)
        yield server


def schedules(kfp: Kfp, **kubeflow: str) -> Schedules:
    return KubeflowSchedules(profile(kfp, kubeflow=kubeflow), now=lambda: NOW)


def weekly(**given: Any) -> Schedule:
    return Schedule.model_validate({"name": "weekly", "cron": "0 3 * * SUN", "preset": "ci", **given})


def test_setting_makes_one_recurring_run_that_follows_the_latest_version(kfp: Kfp) -> None:
    state = schedules(kfp).set(weekly())
    (kept,) = kfp.all("recurring_run")
    assert state.schedule.spec_sha256 == spec().sha256()
    assert state.next_fire == datetime(2026, 11, 8, 3, 0, tzinfo=UTC)
    assert kept["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 0"
    assert (kept["max_concurrency"], kept["no_catchup"], kept["status"]) == ("1", True, "ENABLED")
    assert "pipeline_version_id" not in kept["pipeline_version_reference"]
    about = json.loads(kept["description"])
    assert about["schedule"]["spec_sha256"] == spec().sha256()
    assert json.loads(kept["runtime_config"]["parameters"]["config"])["retrain"]["only_new"] is True


def test_a_pinned_version_stays_and_the_latest_moves_on(kfp: Kfp) -> None:
    first = kfp.all("pipeline_version")[0]
    uploaded(kfp, "v2")
    state = schedules(kfp).set(weekly(version=first["name"]))
    (kept,) = kfp.all("recurring_run")
    assert kept["pipeline_version_reference"]["pipeline_version_id"] == first["pipeline_version_id"]
    assert state.schedule.spec_sha256 == spec("v1").sha256()
    with pytest.raises(ConfigError, match="'v9'"):
        schedules(kfp).set(weekly(version="v9"))
    assert kfp.all("recurring_run") == [kept]


def test_setting_the_same_again_changes_nothing_and_another_replaces_it(kfp: Kfp) -> None:
    schedules(kfp).set(weekly())
    before = kfp.all("recurring_run")
    schedules(kfp).set(weekly())
    assert kfp.all("recurring_run") == before
    schedules(kfp).set(weekly(cron="30 4 * * 1-5"))
    (now,) = kfp.all("recurring_run")
    assert now["recurring_run_id"] != before[0]["recurring_run_id"]
    assert now["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * 1,2,3,4,5"
    assert kfp.fire() == ["weekly"]


STEPS = ["POST /recurringruns", ":disable", ":enable", "DELETE /recurringruns"]


@pytest.mark.parametrize("after", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("step", STEPS)
def test_a_setting_that_breaks_off_never_fires_twice_and_is_ended_by_the_next(kfp: Kfp, step: str, after: bool) -> None:
    schedules(kfp).set(weekly())
    kfp.faults += [Fault(500, after=after, only=step)]
    with pytest.raises(PlatformError, match="as told"):
        schedules(kfp).set(weekly(cron="0 5 * * *"))
    assert len(kfp.fire()) <= 1
    assert [state.schedule.name for state in schedules(kfp).list()] == ["weekly"]
    state = schedules(kfp).set(weekly(cron="0 5 * * *"))
    (kept,) = kfp.all("recurring_run")
    assert kept["trigger"]["cron_schedule"]["cron"] == "0 0 5 * * *"
    assert state.next_fire == datetime(2026, 11, 3, 5, 0, tzinfo=UTC)
    assert kfp.fire() == ["weekly"]


def test_a_lost_answer_makes_no_second_one(kfp: Kfp) -> None:
    kfp.faults += [Fault(503, after=True, only="POST /recurringruns")]
    schedules(kfp).set(weekly())
    assert len(kfp.all("recurring_run")) == 1


def test_two_who_set_at_once_leave_one(kfp: Kfp) -> None:
    schedules(kfp).set(weekly())
    (kept,) = kfp.all("recurring_run")
    about = json.loads(kept["description"])
    other = {**kept, "description": json.dumps({**about, "revision": 7}), "status": "DISABLED"}
    kfp.put("recurring_run", other)  # set elsewhere, later, and not settled yet
    assert schedules(kfp).pause("weekly", paused=False).next_fire is not None
    (left,) = kfp.all("recurring_run")
    assert json.loads(left["description"])["revision"] == 7
    assert left["status"] == "ENABLED"


def test_pausing_resuming_and_deleting(kfp: Kfp) -> None:
    kept = schedules(kfp)
    kept.set(weekly())
    kept.set(weekly(name="nightly", cron="0 1 * * *", paused=True))
    assert [(s.schedule.name, s.schedule.paused) for s in kept.list()] == [("nightly", True), ("weekly", False)]
    assert kept.pause("weekly").next_fire is None
    assert kfp.fire() == []
    assert kept.pause("weekly", paused=False).next_fire == datetime(2026, 11, 8, 3, 0, tzinfo=UTC)
    assert kfp.fire() == ["weekly"]
    kept.delete("weekly")
    assert [state.schedule.name for state in kept.list()] == ["nightly"]
    for verb in (kept.pause, kept.delete):
        with pytest.raises(ConfigError, match="no schedule 'weekly'"):
            verb("weekly")


def test_the_last_fire_is_remembered_when_it_is_set_anew(kfp: Kfp) -> None:
    kept = schedules(kfp)
    assert kept.set(weekly()).last_fire is None
    kfp.fire()
    kfp.all("run")[0]["state"] = "FAILED"
    for hour in range(3):
        kept.set(weekly(cron=f"0 {hour} * * *"))
    (state,) = kept.list()
    assert state.last_outcome == "failed"
    assert state.last_fire is not None and state.last_fire.year == 2026


def test_recurring_runs_of_others_are_let_be(kfp: Kfp) -> None:
    kept = schedules(kfp)
    kept.set(weekly())
    (ours,) = kfp.all("recurring_run")
    kfp.put("recurring_run", {**ours, "description": "by hand"})
    kept.delete("weekly")
    assert [entry["description"] for entry in kfp.all("recurring_run")] == ["by hand"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"timezone": "Europe/Berlin"}, "by the clock of UTC"),
        ({"catch_up": "none"}, "cannot do 'none'"),
        ({"cron": "0 3 * *"}, "4 fields"),
        ({"cron": "0 25 * * *"}, "'0 25 \\* \\* \\*'"),
        ({"cron": "0 3 31 2 *"}, "is not valid"),
        ({"cron": "0 3 L * *"}, "'L'"),
        ({"overrides": ("arc.stps=1",)}, "'arc.stps'"),
        ({"preset": "huge"}, "'huge'"),
    ],
)
def test_what_this_kubeflow_cannot_do_is_refused_before_anything_is_sent(
    kfp: Kfp, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(SonarcError, match=said):
        schedules(kfp).set(weekly(**given))
    assert kfp.all("recurring_run") == []


def test_a_zone_that_the_scheduler_has_is_taken(kfp: Kfp) -> None:
    state = schedules(kfp, timezone="Europe/Berlin").set(weekly(timezone="Europe/Berlin"))
    assert state.next_fire == datetime(2026, 11, 8, 2, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "read"),
    [
        ("0 3 * * 7", "0 0 3 * * 0"),
        ("*/15 0-6 1,15 jan-mar *", "0 */15 0-6 1,15 jan-mar *"),
        ("0 3 * * fri-sun", "0 0 3 * * 5,6,0"),
        ("0 3 * * 1-7/2", "0 0 3 * * 1,3,5,0"),
        ("0 3 * * MON,Wed", "0 0 3 * * 1,3"),
    ],
)
def test_cron_in_kubeflows_six_fields(cron: str, read: str) -> None:
    assert six_fields(cron) == read


@pytest.mark.parametrize(
    "cron", ["0 3 * * 8", "0 3 * * funday", "5/15 * * * *", "0 3 ? * *", "0 3 L * *", "@weekly", "0 3 * * 1#2"]
)
def test_cron_that_kubeflow_reads_otherwise_is_refused(cron: str) -> None:
    with pytest.raises(ConfigError):
        six_fields(cron)
