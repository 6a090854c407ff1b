"""`sonarc export`: a model for machines without Sonarc."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.commands.options import explained
from sonarc.contracts.errors import ConfigError


def export(
    package: Annotated[str, typer.Argument(help="Location of a model package; default: the champion.")] = "",
    out: Annotated[Path, typer.Option(help="New folder, or an earlier export, which is replaced.")] = Path("edge"),
    onnx: Annotated[bool, typer.Option("--onnx", help="As ONNX graphs: text encoder, DiT step and decoder.")] = False,
    precision: Annotated[
        Literal["both", "float32", "int8"], typer.Option(help="int8 is a quarter of the size.")
    ] = "both",
    page: Annotated[
        bool, typer.Option("--page", help="With a page that runs the model in a browser; its runtime comes from npm.")
    ] = False,
) -> None:
    """Write a generator for onnxruntime alone, without torch; each graph is held against PyTorch.

    The folder plays by itself: `python edge/player.py "rain on a roof" -o rain.wav`. With `--page`,
    `python -m http.server --directory edge` serves a page that makes sounds wholly in the browser.
    """
    with explained():
        if not onnx:
            raise ConfigError("What to export as was not said.", "Say --onnx.")
        from pipelines.bars import busy
        from pipelines.champion import champion_package
        from serving.edge.page import write_page
        from sonarc.edge.export import export_onnx
        from sonarc.edge.manifest import PRECISIONS

        with busy("Writing networks and holding them against PyTorch"):
            manifest = export_onnx(
                package or champion_package(),
                out,
                PRECISIONS if precision == "both" else (precision,),
                beside=write_page if page else None,
            )
        for kind, graphs in manifest.graphs.items():
            size = sum(manifest.files[name].bytes for name in graphs.values()) / 1e6
            typer.echo(f"{kind:<8} {size:6.1f} MB, off by at most {max(manifest.errors[kind].values()):.1g}")
        typer.echo(f'python {out / "player.py"} "rain on a roof" -o rain.wav')
        if page:
            typer.echo(f"python -m http.server --bind 127.0.0.1 --directory {out} 8000")
