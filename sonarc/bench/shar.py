"""lhotse's Shar export of the files that ingest takes: resampled, brought to one loudness, FLAC in tars, lhotse's way.

python -m sonarc.bench.shar FOLDER OUT RATE LUFS SHARD_CLIPS JOBS

lhotse resamples with scipy's polyphase filter, measures with pyloudnorm, and writes FLAC through libsndfile. It looks
for no damage, silence or repetition and hashes nothing. Only the export is timed: reading the files' headers, as its
manifests need, is left out.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path


def main() -> None:
    """Export, and print the seconds as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m sonarc.bench.shar", description=main.__doc__)
    for name, kind in (("folder", Path), ("out", Path), ("rate", int), ("lufs", float), ("clips", int), ("jobs", int)):
        parser.add_argument(name, type=kind)
    asked = parser.parse_args()
    from lhotse import CutSet, Recording

    recordings = [Recording.from_file(path) for path in sorted(asked.folder.glob("*.flac"))]
    cuts = CutSet.from_cuts(recording.to_cut() for recording in recordings)
    cuts = cuts.resample(asked.rate).normalize_loudness(asked.lufs, mix_first=False).to_eager()
    asked.out.mkdir(parents=True)
    begun = time.perf_counter()
    made = cuts.to_shar(str(asked.out), {"recording": "flac"}, shard_size=asked.clips, num_jobs=asked.jobs)
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "files": len(recordings), "shards": len(made["recording"])}))


if __name__ == "__main__":
    main()
