"""When schedules fire: always later, at the wall time asked for, whatever the clocks do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.schedules.cron import fires, next_fire
from sonarc.contracts.errors import ConfigError

# Hours, half an hour, and midnight itself are skipped and doubled in these; one changes nothing.
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Santiago", "UTC")
zones = st.sampled_from(ZONES)
moments = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
minutes, hours = st.integers(0, 59), st.integers(0, 23)
crons = st.one_of(
    st.builds("{} {} * * *".format, minutes, hours),
    st.builds("{} {} * * {}".format, minutes, hours, st.integers(0, 6)),
    st.builds("{0},{1} {2}-{3} 1-7 * *".format, minutes, minutes, st.integers(0, 3), st.integers(3, 5)),
    st.builds("{} * * * *".format, minutes),
    st.builds("*/{} */{} * * *".format, st.sampled_from((5, 15, 30)), st.sampled_from((1, 2, 6))),
)


@settings(max_examples=40)
@given(crons, zones, moments)
@example("45 2 * * *", "Europe/Berlin", datetime(2026, 10, 25, 1, 30, tzinfo=UTC))  # within the second 2 o'clock hour
@example("* 0 * * FRI", "Africa/Cairo", datetime(2026, 4, 23, 20, tzinfo=UTC))  # midnight is skipped
@example("0,30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 20, tzinfo=UTC))  # both in one gap
def test_fires_are_ever_later_and_one_asks_for_the_next(cron: str, zone: str, after: datetime) -> None:
    found = list(islice(fires(cron, zone, after), 8))
    times = [after, *(fire.astimezone(UTC) for fire in found)]
    assert all(a < b for a, b in pairwise(times))
    assert all(fire.tzinfo == ZoneInfo(zone) for fire in found)
    for last, following in pairwise(found):
        assert next_fire(cron, zone, last) == following, "a keeper that starts again would fire otherwise"


@settings(max_examples=40)
@given(minutes, hours, zones, moments)
@example(30, 2, "Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC))
@example(30, 2, "Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC))
@example(0, 0, "Africa/Cairo", datetime(2026, 4, 23, 12, tzinfo=UTC))
def test_a_time_of_day_comes_once_a_day(minute: int, hour: int, zone: str, after: datetime) -> None:
    found = list(islice(fires(f"{minute} {hour} * * *", zone, after), 6))
    days = [fire.date() for fire in found]
    assert days == [days[0] + timedelta(n) for n in range(6)]
    for fire in found:
        asked = datetime(fire.year, fire.month, fire.day, hour, minute, tzinfo=ZoneInfo(zone))
        there = asked.astimezone(UTC).astimezone(ZoneInfo(zone))
        if there.replace(tzinfo=None) == asked.replace(tzinfo=None):
            assert fire == asked and fire.fold == 0, "the first of two"
        else:
            before = (fire.astimezone(UTC) - timedelta(minutes=1)).astimezone(ZoneInfo(zone))
            assert before.utcoffset() != fire.utcoffset(), "as the clock jumps"


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (datetime(2026, 3, 29), ["00:30+0100", "01:30+0100", "03:30+0200", "04:30+0200"]),
        (datetime(2026, 10, 25), ["00:30+0200", "01:30+0200", "02:30+0200", "02:30+0100", "03:30+0100"]),
    ],
)
def test_an_hourly_schedule_follows_the_clock_as_it_goes(day: datetime, expected: list[str]) -> None:
    midnight = day.replace(tzinfo=ZoneInfo("Europe/Berlin"))
    assert [f"{fire:%H:%M%z}" for fire in islice(fires("30 * * * *", "Europe/Berlin", midnight), len(expected))] == (
        expected
    )


@pytest.mark.parametrize(
    ("cron", "zone", "said"),
    [
        ("0 3 * *", "UTC", "has 4 fields"),
        ("0 0 3 * * *", "UTC", "has 6 fields"),
        ("61 3 * * *", "UTC", "bad minute"),
        ("@weekly", "UTC", "has 1 fields"),
        ("0 3 30 2 *", "UTC", "bad day-of-month"),
        ("0 3 * * *", "Mars/Olympus", "no time zone 'Mars/Olympus'"),
        ("0 3 * * *", "Europe", "no time zone 'Europe'"),
        ("0 3 * * *", "../../etc/passwd", "no time zone"),
        ("0 3 * * *", "", "no time zone ''"),
    ],
)
def test_what_is_no_time_is_refused(cron: str, zone: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        next_fire(cron, zone, datetime(2026, 1, 1, tzinfo=UTC))
