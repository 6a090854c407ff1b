"""Puts the page into a folder that `sonarc export --onnx` makes: any static server serves it, and no other is asked.

The look is the playground's own stylesheet; the networks run in onnxruntime-web's WebAssembly, copied from its npm
package: nothing is loaded from elsewhere.
"""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

from sonarc.contracts.npm import NpmPackage

RUNTIME = NpmPackage("onnxruntime-web", "1.30.0", "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71")
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
SHARED = ("playground.css", "sound.js")
"""Of the playground."""


def write_page(folder: Path) -> None:
    """Write index.html and all that it loads beside the networks.

    Raises:
        SourceError: npm cannot give the runtime.
    """
    found = RUNTIME.folder()
    runtime = folder / "ort"
    runtime.mkdir()
    for name in RUNTIME_FILES:
        shutil.copyfile(found / "dist" / name, runtime / name)
    files = resources.files("serving")
    own = [file for file in (files / "edge" / "page").iterdir() if file.is_file()]
    for file in (*own, *(files / "static" / name for name in SHARED)):
        (folder / file.name).write_bytes(file.read_bytes())
