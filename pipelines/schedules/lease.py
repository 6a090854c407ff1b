"""Who starts runs: of any number of keepers on one database, one at a time.

The holder raises a number in its row. Whoever else waits takes the lease once that number has stood still for
`GRACE_SECONDS` by its own clock, so clocks that disagree do no harm; and the change is granted to one of them, as it
names the number that it was seen to be.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from pipelines.schedules.tables import LEASES, Database

NAME = "keeper"
GRACE_SECONDS = 30.0


@dataclass(frozen=True)
class Holder:
    """Who has the lease.

    Attributes:
        seen: its last sign of life, by its own clock.
    """

    name: str
    seen: datetime


class Lease:
    """One keeper's claim.

    Args:
        grace: seconds after which a holder that shows no sign of life has lost it.
        clock: seconds that only go forward.
    """

    def __init__(
        self, database: Database, *, grace: float = GRACE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.me = f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._database, self._grace, self._clock = database, grace, clock
        self._still: tuple[str, int] | None = None
        self._since = 0.0

    def hold(self) -> bool:
        """Show a sign of life, or take the lease if it is free; whether it is this keeper's now.

        Raises:
            StoreError: the database does not say.
        """
        with self._database.transaction() as connection:
            if beat(connection, self.me):
                return True
            row = connection.execute(select(LEASES).where(LEASES.c.name == NAME)).mappings().first()
            if row is None:
                return self._first(connection)
            found = (row["holder"], row["beat"])
            if found != self._still:
                self._still, self._since = found, self._clock()
                return False
            if self._clock() - self._since < self._grace:
                return False
            taken = connection.execute(
                update(LEASES)
                .where(LEASES.c.name == NAME, LEASES.c.holder == found[0], LEASES.c.beat == found[1])
                .values(holder=self.me, beat=LEASES.c.beat + 1, seen=datetime.now(UTC))
            )
            return taken.rowcount == 1

    def _first(self, connection: Connection) -> bool:
        try:
            with connection.begin_nested():
                connection.execute(insert(LEASES).values(name=NAME, holder=self.me, beat=1, seen=datetime.now(UTC)))
        except IntegrityError:  # another keeper was faster
            return False
        return True

    def release(self) -> None:
        """Let another keeper take it at once."""
        with self._database.transaction() as connection:
            connection.execute(delete(LEASES).where(LEASES.c.name == NAME, LEASES.c.holder == self.me))


def beat(connection: Connection, holder: str) -> bool:
    """A sign of life; whether the lease is this holder's. The row then stays its own until the transaction ends."""
    mine = connection.execute(
        update(LEASES)
        .where(LEASES.c.name == NAME, LEASES.c.holder == holder)
        .values(beat=LEASES.c.beat + 1, seen=datetime.now(UTC))
    )
    return mine.rowcount == 1


def holder(database: Database) -> Holder | None:
    """Who has the lease, whether it lives or not."""
    with database.transaction() as connection:
        row = connection.execute(select(LEASES).where(LEASES.c.name == NAME)).mappings().first()
    return None if row is None else Holder(row["holder"], row["seen"])
