"""`sonarc pipeline`: compile the DAG, compare, upload, run it on Kubeflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.options import Overrides, Preset, explained
from sonarc.contracts.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.kubeflow import profile as profiles

pipeline = typer.Typer(
    no_args_is_help=True,
    help=(
        "The pipeline on Kubeflow: its compiled versions and their runs.\n\n"
        "A profile says where a cluster is and what components need there; all else is as on a laptop. "
        "`sonarc pipeline upload --profile cluster.yaml`, then `sonarc pipeline submit --profile cluster.yaml`."
    ),
)

Profile = Annotated[
    Path | None,
    typer.Option("--profile", envvar="SONARC_PROFILE", help="YAML file of the cluster; none: the defaults, at --host."),
]
Host = Annotated[
    str, typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="Address of Kubeflow's API, instead of the profile's.")
]
Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="NAME=REFERENCE",
        help="Image of pipeline, worker or serve; by digest, or with a tag; with neither, the git version is the tag.",
    ),
]


def _profile(path: Path | None, host: str = "", images: list[str] | None = None) -> profiles.Profile:
    from pipelines.kubeflow.profile import Profile as Cluster
    from pipelines.kubeflow.profile import changed, read_profile

    found = read_profile(path) if path else Cluster()
    chosen = {}
    for image in images or ():
        name, equals, reference = image.partition("=")
        if not equals:
            raise ConfigError(f"--image {image!r} is not NAME=REFERENCE.", "Example: --image worker=example.com/w:1")
        chosen[name] = reference
    return changed(found, host=host, images=chosen)


@pipeline.command("compile")
def compile_(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: the copy in git.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; say what changed and exit 2 where the file is out of date.")
    ] = False,
    manifest: Annotated[bool, typer.Option("--manifest", help="As Kubernetes objects, for GitOps.")] = False,
    namespace: Annotated[str, typer.Option(help="Namespace of those objects.")] = "",
    profile: Profile = None,
    images: Images = None,
) -> None:
    """Compile the DAG: the copy in git with the defaults, or with --output for a cluster.

    For a cluster, images with neither tag nor digest get the git version as their tag.
    """
    with explained():
        from pipelines.compiled import COMPILED, compile_text
        from pipelines.kubeflow.manifest import manifests
        from pipelines.kubeflow.spec import compile_yaml
        from pipelines.kubeflow.version import git_version

        if output is None:
            if profile or images or manifest:
                raise ConfigError("The copy in git is compiled with the defaults.", "Name another file with --output.")
            text, target = compile_text(), COMPILED
        elif manifest:
            text, target = manifests(_profile(profile, images=images), git_version(), namespace)[0], output
        else:
            text, target = compile_yaml(_profile(profile, images=images), git_version()), output
        if check:
            _check(target, text, manifest)
        else:
            target.write_text(text, encoding="utf-8")
            typer.echo(f"Wrote {target}")


def _check(target: Path, text: str, manifest: bool) -> None:
    """Say what differs, and fail, where a file is not what it should be."""
    from pipelines.kubeflow.diff import told
    from pipelines.kubeflow.spec import Spec

    there = target.read_text(encoding="utf-8") if target.exists() else ""
    if there == text:
        return
    if there and not manifest:
        for line in told(Spec.of_yaml(there, str(target)), Spec.of_yaml(text, "the DAG")):
            typer.echo(line)
    raise ConfigError(f"{target} is not what the DAG compiles to.", "Run `sonarc pipeline compile` as for this file.")


@pipeline.command()
def diff(
    before: Annotated[str, typer.Argument(help="What was: as for AFTER.")] = "latest",
    after: Annotated[
        str,
        typer.Argument(
            help="`git`: the copy in git; `git:REVISION`: as it was then; `code`: this code with the profile; a file; "
            "`latest` or a version's name: as uploaded."
        ),
    ] = "git",
    text: Annotated[bool, typer.Option("--text", help="Line by line instead.")] = False,
    profile: Profile = None,
    host: Host = "",
) -> None:
    """What changed between two versions of the pipeline: components, images, parameters, resources."""
    with explained():
        from pipelines.kubeflow.diff import text_diff, told
        from pipelines.kubeflow.named import spec_of

        cluster = _profile(profile, host)
        one, other = spec_of(before, cluster), spec_of(after, cluster)
        if text:
            typer.echo(text_diff(one, other, (before, after)), nl=False)
            return
        lines = told(one, other)
        for line in lines:
            typer.echo(line)
        if not lines:
            typer.echo(f"{before} and {after} would run the same: {one.sha256()[:12]}.")


@pipeline.command()
def upload(profile: Profile = None, host: Host = "", images: Images = None) -> None:
    """Compile this code for a cluster and put it into its Kubeflow as a version; one that is there already stays.

    The version's name is the git version and the hash of what was compiled.
    """
    with explained():
        from pipelines.kubeflow import versions
        from pipelines.kubeflow.client import Kubeflow
        from pipelines.kubeflow.spec import Spec, compile_yaml
        from pipelines.kubeflow.version import Version, git_version

        cluster, git = _profile(profile, host, images), git_version()
        text = compile_yaml(cluster, git)
        version = Version.of(Spec.of_yaml(text, "the DAG"), git)
        found, new = versions.upload(Kubeflow(cluster.kubeflow), text, version)
        typer.echo(f"{found.name} {'is uploaded' if new else 'was there already'}.")


@pipeline.command()
def submit(
    preset: Preset = "laptop",
    overrides: Overrides = None,
    version: Annotated[str, typer.Option(help="`latest`, or the name of an uploaded version.")] = "latest",
    name: Annotated[str, typer.Option(help="Name of the run; default: preset, time, a random part.")] = "",
    profile: Profile = None,
    host: Host = "",
) -> None:
    """Start a run of an uploaded version; every setting is checked before anything is sent."""
    with explained():
        from pipelines.kubeflow import runs as started
        from pipelines.kubeflow.client import Kubeflow
        from pipelines.kubeflow.parameters import RunParameters
        from pipelines.kubeflow.versions import deployed
        from sonarc.contracts.presets import load

        cluster = _profile(profile, host)
        parameters = RunParameters.of(cluster, load(preset, overrides or ()))
        kubeflow = Kubeflow(cluster.kubeflow)
        chosen = deployed(kubeflow, version)
        run = started.submit(kubeflow, chosen, parameters, name)
        typer.echo(f"{run.name} ({run.id}) runs {chosen.name}.")


@pipeline.command()
def runs(
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20, profile: Profile = None, host: Host = ""
) -> None:
    """The last runs, newest first: state, version, duration, and the schedule that started them."""
    with explained():
        from pipelines.kubeflow.client import Kubeflow
        from pipelines.kubeflow.shown import show_runs

        show_runs(Kubeflow(_profile(profile, host).kubeflow), limit)


@pipeline.command()
def cancel(
    run: Annotated[str, typer.Argument(help="Id or name of a run.")], profile: Profile = None, host: Host = ""
) -> None:
    """End a run. Its Ray jobs end with its pods, or at their own deadline."""
    with explained():
        from pipelines.kubeflow.client import Kubeflow
        from pipelines.kubeflow.runs import cancel as end

        found, going = end(Kubeflow(_profile(profile, host).kubeflow), run)
        typer.echo(f"{found.name} ({found.id}) {'is being ended' if going else f'is over: {found.state}'}.")
