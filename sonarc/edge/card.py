"""The card of an exported folder: what is in it, how it is run, whose work it is."""

from __future__ import annotations

from sonarc.edge.manifest import EdgeManifest

CARD = "README.md"

_TEXT = """# A Sonarc model for small machines

Prompts to stereo sound of up to {seconds:.2f} s at {rate} Hz, with onnxruntime alone:

    pip install numpy onnxruntime tokenizers
    python player.py "a slow fiddle tune in D major" -o tune.wav

Exported from the model package {package}. `manifest.json` has every file's hash and what a player needs to know.

| network | precision | MB | deviation from PyTorch |
|---|---|---:|---:|
{rows}

The deviation is the largest of one output, over its peak. `text_encoder` reads token ids and gives their states; `dit`
gives the velocity at a noise level and is called once a step; `decoder` makes audio of a whole clip's latents.

The text encoder is all-MiniLM-L6-v2 by the Sentence Transformers project, Apache-2.0. What the generator and the codec
were trained on, and under which licences, is told by the package's own cards.
"""


def text(manifest: EdgeManifest) -> str:
    """The card in Markdown."""
    rows = [
        f"| {network} | {precision} | {manifest.files[path].bytes / 1e6:.1f} | "
        f"{manifest.errors[precision][network]:.1g} |"
        for precision, graphs in manifest.graphs.items()
        for network, path in graphs.items()
    ]
    return _TEXT.format(
        seconds=manifest.clip_samples / manifest.sample_rate,
        rate=manifest.sample_rate,
        package=manifest.package_sha256[:16],
        rows="\n".join(rows),
    )
