"""A coordinator of a search as a process of its own, to be killed: it measures a bowl in a study, without Ray.

    python -m coordinator <folder> <study> <overrides…>

Every measurement leaves the lines `began N` and `measured N` in `<folder>/log`; a file `<folder>/hold` keeps it in one.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path

from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.presets import load
from sonarc.contracts.tuning import LossWeights, Trial
from sonarc.tuning.ledger import Ledger
from sonarc.tuning.results import Measured
from sonarc.tuning.storage import alone, place_of

BEAT = 1
WEIGHTS = ("arc.contrastive_weight=1.0", "tune.contrastive_weight=[0.25, 4]", "tune.penalty_weight=[0, 1]")


def searched(*overrides: str) -> SonarcConfig:
    """A search of a second's heartbeat in the space of the bowl."""
    return load("ci", [*WEIGHTS, f"compute.tune_heartbeat={BEAT}", "compute.threads=1", *overrides])


def bowl(weights: LossWeights) -> Measured:
    """Distance is least at contrastive weight 2; adherence rises with it."""
    distance = abs(math.log(weights.contrastive_weight / 2)) + weights.penalty_weight
    # A resample is a little easier or harder for all.
    drawn = tuple(distance + 0.01 * math.sin(n) for n in range(50))
    return Measured(distance, weights.contrastive_weight / 10, {10: {"loss_d": 0.5}}, drawn)


def search(ledger: Ledger, folder: Path) -> list[Trial]:
    """Work on a study until all its trials have come to their end."""
    while not ledger.finished():
        ledger.retry_lost()
        if (claimed := ledger.claim()) is None:
            time.sleep(0.1)
            continue
        note(folder, f"began {claimed.number}")
        while (folder / "hold").exists():
            time.sleep(0.02)
        if ledger.tell(claimed, bowl(claimed.weights)):
            note(folder, f"measured {claimed.number}")
    return ledger.trials()


def note(folder: Path, line: str) -> None:
    with (folder / "log").open("a") as log:
        log.write(line + "\n")


def notes(folder: Path, begins: str = "") -> list[str]:
    """Lines that coordinators left."""
    log = folder / "log"
    return [line for line in log.read_text().splitlines() if line.startswith(begins)] if log.exists() else []


def start(folder: Path, study: str, *overrides: str) -> subprocess.Popen[bytes]:
    """A coordinator process; its output goes to `<folder>/output`."""
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, __file__, str(folder), study, *overrides],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


def main() -> None:
    folder, study, overrides = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    place = place_of(folder)
    if place.shared:
        search(Ledger(place, study, searched(*overrides)), folder)
        return
    with alone(folder):
        search(Ledger(place, study, searched(*overrides)), folder)


if __name__ == "__main__":
    main()
