"""One player in a process of its own: its peak memory, and its seconds a clip. Prints JSON.

python -m sonarc.bench.edge_alone <folder> <precision> <repeats> <threads>
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from sonarc.edge.player import Player, resident_peak_mb

PROMPT = "a slow fiddle tune in D major"


def main(folder: Path, precision: str, repeats: int, threads: int) -> dict[str, object]:
    """`rss_mb` of one clip whose networks came and went; `kept_rss_mb` and `seconds` of clips with all three kept."""
    Player(folder, precision, keep=False, threads=threads).generate(PROMPT)
    alone = resident_peak_mb()
    player = Player(folder, precision, threads=threads)
    seconds = []
    for seed in range(repeats + 1):
        begun = time.perf_counter()
        player.generate(PROMPT, seed=seed)
        seconds.append(time.perf_counter() - begun)
    return {
        "rss_mb": alone,
        "kept_rss_mb": resident_peak_mb(),
        "seconds": seconds[1:],  # the first one loads
        "torch": "torch" in sys.modules,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
