"""Demo audio: a source folder of real, captioned sounds that anyone can make on their own machine.

Two sources, neither of them committed here: recorded CC0 one-shots and loops that a package ships
(`recorded`), and real scores rendered with real instruments (`scores`, `plan`, `render`).
`source.write_demo` puts both into one folder that ingest reads like anybody's audio.
"""

from __future__ import annotations
