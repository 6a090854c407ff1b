"""When a schedule fires: five cron fields, read in a time zone.

Cronsim does as Debian's cron does when clocks change. Where minute and hour are both fixed (neither field begins with
a star), a time in the hour that is skipped fires once, as the clock jumps; a time in the hour that comes twice fires
the first time only. Else the fields are held against the clock as it goes: nothing in the skipped hour, and the
doubled one twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from sonarc.contracts.errors import ConfigError

FIELDS = 5


def zone_of(name: str) -> ZoneInfo:
    """The time zone of an IANA name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError; `Europe` is a folder
        raise ConfigError(f"There is no time zone {name!r}.", "Use an IANA name, as Europe/Berlin, or UTC.") from error


def fires(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """The times of a cron expression later than `after`, in its zone.

    Raises:
        ConfigError: the expression or the zone is none, or it never fires.
    """
    zone = zone_of(timezone)
    hint = "Five fields: minute, hour, day of month, month, day of week. Sundays at three: 0 3 * * SUN"
    if len(cron.split()) != FIELDS:
        raise ConfigError(f"The cron expression {cron!r} has {len(cron.split())} fields.", hint)
    try:
        times = CronSim(cron, after.astimezone(zone))
    except CronSimError as error:
        raise ConfigError(f"The cron expression {cron!r} is not valid: {str(error).lower()}.", hint) from error
    last, fired = after.astimezone(UTC), False
    for found in times:
        # By way of UTC, since a wall time that the clock jumps over is none, and one that comes twice may be past.
        moment = found.astimezone(UTC)
        if moment > last:
            last, fired = moment, True
            yield moment.astimezone(zone)
    if not fired:
        raise ConfigError(f"The cron expression {cron!r} never fires.", hint)


def next_fire(cron: str, timezone: str, after: datetime) -> datetime:
    """The first time later than `after`, in its zone.

    Raises:
        ConfigError: as `fires`.
    """
    return next(fires(cron, timezone, after))
