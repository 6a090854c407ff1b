"""Cron expressions as Kubeflow's scheduler reads them: six fields, the first one seconds.

It parses with robfig/cron 1.2, which has no time zone of its own, knows no Sunday called 7, and takes five fields for
seconds to month.
"""

from __future__ import annotations

import re

from sonarc.contracts.errors import ConfigError

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ITEM = re.compile(r"^(?:\*|([0-9a-z]+)(?:-([0-9a-z]+))?)(?:/([1-9][0-9]?))?$", re.IGNORECASE)
HINT = "Five fields of numbers, lists, ranges and steps: minute, hour, day of month, month, day of week."


def six_fields(cron: str) -> str:
    """A cron expression of five fields as Kubeflow takes it: at second 0, days of the week as numbers from 0, Sunday.

    Raises:
        ConfigError: it is not of five fields, or uses what Kubeflow reads in another way or not at all.
    """
    fields = cron.split()
    if len(fields) != 5:
        raise ConfigError(f"The cron expression {cron!r} has {len(fields)} fields.", HINT)
    for field, names in zip(fields, ((), (), (), MONTHS, DAYS), strict=True):
        for item in field.split(","):
            found = _ITEM.match(item)
            stepped_alone = found and found[1] and found[3] and not found[2]
            if found is None or stepped_alone or not all(_known(part, names) for part in found.groups()[:2]):
                raise ConfigError(
                    f"Kubeflow does not read {item!r} of the cron expression {cron!r} as cron does.", HINT
                )
    minute, hour, day, month, weekday = fields
    return " ".join(("0", minute, hour, day, month, ",".join(_days(item) for item in weekday.split(","))))


def _known(part: str | None, names: tuple[str, ...]) -> bool:
    return part is None or part.isdecimal() or part.lower() in names


def _days(item: str) -> str:
    """Days of the week by number: Kubeflow's weeks end on Saturday, so a range over Sunday is written out."""
    if item.startswith("*"):
        return item
    span, _, step = item.partition("/")
    first, dash, last = span.partition("-")
    begin, end = _day(first), _day(last or first)
    if dash and end < begin:
        end += 7  # from Friday to Sunday, where Sunday is called 0
    return ",".join(dict.fromkeys(str(day % 7) for day in range(begin, end + 1, int(step or 1))))


def _day(name: str) -> int:
    if name.lower() in DAYS:
        return DAYS.index(name.lower())
    if not name.isdecimal() or int(name) > 7:
        raise ConfigError(f"{name!r} is no day of the week.", "0 or 7 is Sunday, 6 Saturday; or sun to sat.")
    return int(name)
