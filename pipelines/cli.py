"""The command line `sonarc`. Sub-commands import what they need when they run, so that help is quick."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipelines.commands.export import export
from pipelines.commands.keys import keys
from pipelines.commands.models import models
from pipelines.commands.options import Overrides, Preset, Quiet, Runs, Servers, Store, Tracking, explained
from pipelines.commands.pipeline import pipeline
from pipelines.commands.schedule import schedule
from sonarc.contracts import log
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.stages import STAGES

if TYPE_CHECKING:
    from sonarc.contracts.config import SonarcConfig
    from sonarc.runtime.edit import Edit

app = typer.Typer(
    name="sonarc",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=(
        "Captioned audio in, a fast text-to-audio model behind an endpoint out.\n\n"
        "Start with `sonarc run`: it makes demo audio, trains, evaluates, promotes and serves a model, on "
        'two cores. Then `sonarc generate "a slow fiddle tune in D major" -o tune.wav`.'
    ),
)
train = typer.Typer(no_args_is_help=True, help="Train one model: the base, the generator (ARC), the codec, the CLAP.")
app.add_typer(models, name="models", rich_help_panel="Models")
app.command("export", rich_help_panel="Models")(export)
app.add_typer(train, name="train", rich_help_panel="Stages")
app.add_typer(pipeline, name="pipeline", rich_help_panel="Platform")
app.add_typer(keys, name="keys", rich_help_panel="Platform")
app.add_typer(schedule, name="schedule", rich_help_panel="Platform")
Dataset = Annotated[str, typer.Option(help="Location of a dataset folder, the output of `sonarc ingest`.")]


def _run(
    preset: str,
    overrides: list[str] | None,
    runs: Path,
    quiet: bool,
    until: str,
    place: str = "",
    runner: Literal["process", "docker"] = "process",
) -> None:
    with explained():
        from pipelines.local import run_pipeline
        from pipelines.places import Places
        from sonarc.contracts.presets import load
        from sonarc.report.terminal import print_summary

        config = load(preset, overrides or ())
        outcome = run_pipeline(config, Places.default(runs, place), until=until, quiet=quiet, runner=runner)
        print_summary(outcome.summary)
        endpoint, port = outcome.summary.endpoint, config.serve.port
        if endpoint and not endpoint.endswith(f":{port}"):
            typer.echo(f"Port {port} was taken, so the endpoint is at {endpoint}.")
        typer.echo(f"Everything about this run: {outcome.folder}")
        if outcome.error is not None:
            raise outcome.error


@app.command(rich_help_panel="Daily")
def run(
    preset: Preset = "laptop",
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    quiet: Quiet = False,
    until: Annotated[str, typer.Option(help=f"Last stage to run: {', '.join(STAGES)}.")] = "smoke",
    place: Store = "",
    runner: Annotated[
        Literal["process", "docker"],
        typer.Option(help="`docker`: components, Ray and the endpoint in the images that SONARC_IMAGES names."),
    ] = "process",
    servers: Servers = None,
) -> None:
    """Run the whole pipeline on this machine; finished stages are taken from the cache.

    Leaves `runs/latest/` with summary.json, report.html and samples/, and a live endpoint in `runs/serve.json`.
    Safe to repeat and to interrupt: what was trained so far is kept and gone on with.
    """
    _run(preset, overrides, runs, quiet, until, place, runner)


def _stage_command(stage: str, summary: str) -> Callable[..., None]:
    def command(
        preset: Preset = "laptop",
        overrides: Overrides = None,
        runs: Runs = Path("runs"),
        quiet: Quiet = False,
        place: Store = "",
        servers: Servers = None,
    ) -> None:
        _run(preset, overrides, runs, quiet, stage, place)

    command.__doc__ = f"{summary}\n\nStages before it are run first, unless they are in the cache."
    return command


for _name, _summary in {
    "ingest": "Turn captioned audio into a dataset: shards, index, quarantine, manifest.",
    "encode": "Encode the dataset into latents.",
    "tune": "Search the ARC loss weights.",
    "evaluate": "Score the base and the generator on the pinned reference set.",
}.items():
    app.command(_name, rich_help_panel="Stages")(_stage_command(_name, _summary))
train.command("base")(_stage_command("pretrain", "Train the rectified-flow base from scratch."))
train.command("arc")(_stage_command("posttrain", "Post-train the base into a few-step generator."))


@app.command("study", rich_help_panel="Stages")
def study_command(
    size: Annotated[str, typer.Option(help="`full` takes hours on two cores; `tiny` minutes.")] = "full",
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder for study.json, study.md and study.png.")] = Path("study"),
    attempt: Annotated[
        str,
        typer.Option("--try", help="Only train ARC with the settings of --set under this name, scored on validation."),
    ] = "",
) -> None:
    """Train base, ARC and its ablations alike, score all alike, and write up what came out.

    Stopped and started again, it goes on where it was: everything is kept in the user's cache folder. Settings are
    chosen with `--try`, on the validation split; the study itself is scored on the test split.
    """
    with explained():
        from pipelines import study
        from sonarc.contracts.computing import restart_for_computing
        from sonarc.study.sizes import design_of

        design = design_of(size, overrides or [])
        restart_for_computing(design.config.compute.threads)
        if attempt:
            for row in study.attempt(design, attempt, overrides or []):
                figures = {k: round(v, 3) for k, v in row.model_dump().items() if isinstance(v, float)}
                typer.echo(f"{row.name}: {figures}")
        else:
            typer.echo(str(study.study(design, size, out)))


@train.command("codec")
def train_codec(
    dataset: Dataset,
    out: Annotated[str, typer.Option(help="Folder for weights, settings and card.")] = "codec",
    seconds: Annotated[float, typer.Option(help="Wall time to train, seconds; more is better.")] = 3_400.0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Train so many steps instead, however long a shared machine takes.")
    ] = None,
    start: Annotated[str, typer.Option(help="Codec to go on from, such as codec-v3; none: start afresh.")] = "",
    decoder_only: Annotated[
        bool, typer.Option(help="Keep the encoder of --start: latents, and models trained on them, stay valid.")
    ] = False,
) -> None:
    """Train the codec on a dataset's train split; use it with `--set codec.uri=<folder>`.

    Started again, it goes on where it was.
    """
    with explained():
        from pipelines import shipped

        length = shipped.Length(seconds=None if steps else seconds, steps=steps)
        made = shipped.train_codec(dataset, out, length=length, start=start, decoder_only=decoder_only)
        typer.echo(f"{out}: codec {made}")


@train.command("clap")
def train_clap(
    dataset: Dataset, out: Annotated[str, typer.Option(help="Folder for weights, settings and card.")] = "clap"
) -> None:
    """Train the in-domain audio-text model behind adherence; use it with `--set evaluate.clap=<folder>`."""
    with explained():
        from pipelines import shipped

        typer.echo(f"{out}: clap {shipped.train_clap(dataset, out)}")


@app.command(rich_help_panel="Models")
def score(
    data: Annotated[str, typer.Option(help="Folder with AudioCaps' test.csv and the audio of its clips.")],
    package: Annotated[str, typer.Option(help="Location of a model package; default: the champion.")] = "",
    embedder: Annotated[
        list[str] | None,
        typer.Option(help="Space to score in: aisfx, yamnet, hub:<folder or id>, onnx:<file>; repeat for more."),
    ] = None,
    clap: Annotated[str, typer.Option(help="Audio-text model: hub:<folder or id>, or one of ours.")] = "clap-v1",
    steps: Annotated[int, typer.Option(help="Sampling steps: 1 to 8.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the first caption.")] = 0,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("audiocaps.json"),
) -> None:
    """Score a model by AudioCaps' test protocol: 4,875 captions, Fréchet distance, class divergence, agreement.

    For figures that compare with published ones, name OpenL3, PaSST and LAION's CLAP. Started again, it goes on.
    """
    with explained():
        from pipelines import protocol

        scores = protocol.audiocaps(data, package, embedder or ["aisfx", "yamnet"], clap, steps, seed, out)
        for figure in scores.figures:
            typer.echo(f"{figure.name:<16} {figure.value:9.3f}  [{figure.low:.3f}, {figure.high:.3f}]")
        told = "" if scores.comparable else "; not the whole protocol, so not to be compared with published figures"
        typer.echo(f"{scores.n:,} captions of {scores.n_real:,} clips, {scores.seconds:g} s{told}: {out}")


@app.command(rich_help_panel="Daily")
def quarantine(
    dataset: Annotated[str, typer.Option(help="Location of a dataset folder; default: the last run's.")] = "",
    reason: Annotated[str, typer.Option(help="Only what was refused for this reason, as `corrupt`.")] = "",
    source: Annotated[str, typer.Option(help="Only what this source offered.")] = "",
    examples: Annotated[int, typer.Option(min=0, help="Examples of each reason.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Every refusal as a line of JSON.")] = False,
    runs: Runs = Path("runs"),
    servers: Servers = None,
) -> None:
    """Show what ingest refused, why, and which files: nothing is dropped in silence."""
    with explained():
        from pipelines.quarantine import latest_dataset, show

        show(dataset or latest_dataset(runs), reason=reason, source=source, examples=examples, as_json=as_json)


@app.command("import-checkpoint", rich_help_panel="Models")
def import_checkpoint(
    config: Annotated[Path, typer.Argument(help="The release's `model_config.json`.")],
    weights: Annotated[Path, typer.Argument(help="Its `model.safetensors` or `model.ckpt`.")],
    out: Annotated[str, typer.Option(help="New folder for the checkpoint and the codec.")] = "imported",
    text_path: Annotated[str, typer.Option(help="Folder or hub id of its T5 encoder; default: the release's.")] = "",
) -> None:
    """Bring in a model published in the layout of Stable Audio Open Small; every key must fit.

    Nothing but tensors is read from a `.ckpt`. T5 is not in the file. What it says as `checkpoint` can be heard:
    `sonarc generate PROMPT --package CHECKPOINT`.
    """
    with explained():
        from pipelines.bars import busy
        from sonarc.published import import_checkpoint as bring_in

        with busy(f"Reading and checking {weights.name}"):
            found = bring_in(config, weights, out, text_path=text_path)
        typer.echo(f"{found.kind} of {found.parameters / 1e6:,.1f} M parameters in {found.tensors} tensors")
        typer.echo(f"checkpoint  {found.checkpoint}")
        typer.echo(f"codec       {found.codec}")


@app.command("export-checkpoint", rich_help_panel="Models")
def export_checkpoint(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint folder that came from import-checkpoint.")],
    out: Annotated[Path, typer.Option(help="Folder for `model_config.json` and `model.safetensors`.")] = Path(
        "exported"
    ),
) -> None:
    """Write an imported model in its published layout again, byte for byte if it was not trained since."""
    with explained():
        from pipelines.bars import busy
        from sonarc.published import export_checkpoint as give_back

        with busy(f"Checking and writing {checkpoint}"):
            written = give_back(checkpoint, out)
        for path in written:
            typer.echo(str(path))


@app.command(rich_help_panel="Daily")
def generate(
    prompt: Annotated[str, typer.Argument(help="What it should sound like.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="WAV or FLAC file to write.")] = Path("sound.wav"),
    seconds: Annotated[float | None, typer.Option(help="Length; default: the model's whole clip.")] = None,
    steps: Annotated[int, typer.Option(help="Sampling steps: 1 to 8.")] = 4,
    seed: Annotated[int, typer.Option(help="The same seed gives the same audio.")] = 0,
    package: Annotated[
        str, typer.Option(help="Location of a model package or of a checkpoint; default: the champion.")
    ] = "",
    like: Annotated[Path | None, typer.Option(help="Audio file to begin from.")] = None,
    noise: Annotated[float, typer.Option(help="How much of that file is forgotten: above 0, up to 1.")] = 1.0,
    keep: Annotated[str, typer.Option(help="Seconds of that file that stay, as `0:1.5`; `0:` is all of it.")] = "",
    servers: Servers = None,
) -> None:
    """Make one sound from a prompt with the champion, in this process.

    With `--like FILE --noise 0.5` it is a variation of that file; with `--like FILE --keep 0:1` it goes on from its
    first second.
    """
    with explained():
        with _asked_aside(package) as location, _unswept():
            from sonarc.runtime.generator import Generator
            from sonarc.runtime.wave import write_audio

            generator = Generator.load(location())
        length, edit = seconds or generator.max_seconds, _edit(like, noise, keep, generator.sample_rate)
        audio = generator.generate([prompt], [length], [seed], steps=steps, edit=edit)[0]
        write_audio(output, audio, generator.sample_rate)
        typer.echo(f"{output}: {audio.shape[1] / generator.sample_rate:.2f} s, {steps} steps, seed {seed}")


@contextmanager
def _asked_aside(package: str) -> Iterator[Callable[[], str]]:
    """Where the package lies. The registry is asked by another process: MLflow takes as long to import as PyTorch."""
    if package:
        yield lambda: package
        return
    with ProcessPoolExecutor(1, get_context("spawn")) as aside:
        yield aside.submit(_champion_package).result


@contextmanager
def _unswept() -> Iterator[None]:
    """No search for garbage meanwhile, nor later among what was made meanwhile: imports make very many objects that all
    stay, and to look through them again and again takes a tenth of a short process' time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _champion_package() -> str:
    from pipelines.champion import champion_package

    return champion_package()


def _edit(like: Path | None, noise: float, keep: str, sample_rate: int) -> Edit | None:
    """What `generate` is told of a file to begin from."""
    if like is None:
        if noise != 1 or keep:
            raise ConfigError("--noise and --keep say what happens to a file; none was given.", "Add --like FILE.")
        return None
    from sonarc.runtime.edit import Edit
    from sonarc.runtime.sound import read_sound

    span = None
    if keep:
        first, colon, last = keep.partition(":")
        try:
            span = (float(first or 0), float(last or "inf"))
        except ValueError:
            colon = ""
        if not colon:
            raise ConfigError(f"--keep {keep!r} is not FROM:TO in seconds.", "Example: --keep 0:1.5")
    return Edit(read_sound(like, sample_rate), noise, span)


@app.command(rich_help_panel="Daily")
def serve(
    runs: Runs = Path("runs"), preset: Preset = "laptop", overrides: Overrides = None, servers: Servers = None
) -> None:
    """Serve the champion: starts the endpoint, or hands the live one the champion if it has another model."""
    with explained():
        from pipelines.champion import serve_champion
        from sonarc.contracts.presets import load

        state = serve_champion(load(preset, overrides or ()), runs)
        typer.echo(f"Serving at {state.address} (model package {state.package_sha256[:12]}). `sonarc stop` ends it.")


@app.command(rich_help_panel="Daily")
def stop(runs: Runs = Path("runs")) -> None:
    """End the endpoint recorded in `runs/serve.json`, and nothing else."""
    with explained():
        from serving import control

        ended = control.stop(runs)
        typer.echo(f"Ended {ended} processes of the endpoint." if ended else "No endpoint of ours is running.")


@app.command(rich_help_panel="Daily")
def status(runs: Runs = Path("runs"), servers: Servers = None) -> None:
    """The last run's outcome, the live endpoint and the champion."""
    with explained():
        from pipelines.champion import show_status

        show_status(runs)


@app.command(rich_help_panel="Daily")
def compare(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN RUN…", help="Names below `runs` (`latest` is one), or MLflow run ids.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = Path("compare.html"),
    runs: Runs = Path("runs"),
    tracking: Tracking = "",
    servers: Servers = None,
) -> None:
    """Compare runs on one self-contained page: scores, speed, the same prompts side by side, a blind listening test."""
    with explained():
        from pipelines.bars import busy
        from pipelines.compare import compare as write
        from pipelines.places import Places

        with busy(f"Comparing {', '.join(names)}"):
            write(names, runs, Places.default(runs, tracking=tracking).tracking, output)
        typer.echo(f"Wrote {output}")


@app.command(rich_help_panel="Daily")
def votes(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Votes saved from a comparison page.")],
    tracking: Tracking = "",
    servers: Servers = None,
) -> None:
    """Tell MLflow the votes of blind listening tests; says how likely chance alone would be as uneven (sign test)."""
    with explained():
        from pipelines.compare import vote
        from pipelines.places import Places

        for a, b, all_ in vote(files, Places.default(tracking=tracking).tracking):
            typer.echo(
                f"{a} against {b}: preferred {all_.wins}, not {all_.losses}, no difference {all_.ties}, "
                f"{all_.sessions} session{'s' if all_.sessions > 1 else ''}, p = {all_.p:.3f}"
            )


@app.command(rich_help_panel="Platform")
def sync(store: Store = "", tracking: Tracking = "", servers: Servers = None) -> None:
    """Tell MLflow now what it could not be told while it was away; the next stage of any run would, too."""
    with explained():
        from pipelines.places import Places
        from sonarc.contracts.result import TrackingRef
        from sonarc.tracking.outbox import OUTBOX, replay

        places = Places.default(place=store, tracking=tracking)
        outbox = f"{places.store}/{OUTBOX}"
        ref = TrackingRef(uri=places.tracking, experiment="", parent_run_id="", outbox=outbox)
        told, left = replay(ref)
        typer.echo(f"Told of {told} run{'s' if told != 1 else ''}; {left} wait in {outbox}.")


@app.command(rich_help_panel="Platform")
def ui(port: Annotated[int, typer.Option(help="Port on loopback.")] = 5000, servers: Servers = None) -> None:
    """MLflow's pages over the local runs, until Ctrl-C."""
    with explained():
        from pipelines.places import Places

        tracking = Places.default().tracking
        if tracking.startswith("http"):
            typer.echo(f"MLflow's pages are at {tracking} already.")
            return
        command = ["mlflow", "ui", "--backend-store-uri", tracking, "--host", "127.0.0.1"]
        os.execv(str(Path(sys.executable).parent / "mlflow"), [*command, "--port", str(port)])


@app.command(rich_help_panel="Platform")
def config(
    preset: Preset = "laptop",
    overrides: Overrides = None,
    fields: Annotated[bool, typer.Option("--fields", help="Every field with its meaning instead.")] = False,
    servers: Servers = None,
) -> None:
    """Print the configuration tree that a preset and overrides make."""
    with explained():
        from sonarc.contracts.presets import load

        tree = load(preset, overrides or ())
        if fields:
            for path, meaning in _fields(tree):
                typer.echo(f"{path}\n    {meaning}")
        else:
            typer.echo(json.dumps(tree.model_dump(mode="json"), indent=2, ensure_ascii=False))


def _fields(tree: SonarcConfig) -> Iterator[tuple[str, str]]:
    for section, info in type(tree).model_fields.items():
        value = getattr(tree, section)
        if not hasattr(type(value), "model_fields"):
            yield section, info.description or ""
            continue
        for name, field in type(value).model_fields.items():
            yield f"{section}.{name} = {getattr(value, name)!r}", field.description or ""


def main() -> None:
    """Entry point of the console script."""
    log.setup(os.environ.get("SONARC_LOG", "WARNING"))
    app()


if __name__ == "__main__":
    main()
