"""`sonarc schedule`: retraining by the calendar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipelines.commands.options import Overrides, Preset, Runs, Servers, explained

if TYPE_CHECKING:
    from pipelines.schedules.embedded import EmbeddedSchedules
    from pipelines.schedules.model import Schedules

schedule = typer.Typer(
    no_args_is_help=True,
    help=(
        "Retraining by the calendar, kept by Sonarc itself (`sonarc schedule serve`) or by Kubeflow.\n\n"
        "A scheduled run ingests what is new in the sources, ends with *nothing new* where there is none, begins with "
        "the champion's base, and promotes through the gate only."
    ),
)

Name = Annotated[str, typer.Argument(help="Its name: small letters, digits, dashes. It is its identity.")]
On = Annotated[
    Literal["embedded", "kubeflow"],
    typer.Option("--on", envvar="SONARC_SCHEDULES_ON", help="Who keeps it: `sonarc schedule serve`, or Kubeflow."),
]
Profile = Annotated[
    Path, typer.Option(envvar="SONARC_PROFILE", help="For Kubeflow: the YAML file that says where it is.")
]
PROFILE = Path("profile.yaml")


def _embedded() -> EmbeddedSchedules:
    from pipelines.schedules.embedded import EmbeddedSchedules
    from pipelines.schedules.tables import Database

    return EmbeddedSchedules(Database.default())


def _keeper(on: str, profile: Path) -> Schedules:
    if on == "embedded":
        return _embedded()
    from pipelines.kubeflow.profile import read_profile
    from pipelines.schedules.kubeflow import KubeflowSchedules

    return KubeflowSchedules(read_profile(profile))


@schedule.command("set")
def set_schedule(
    name: Name,
    cron: Annotated[str, typer.Option(help='Minute, hour, day of month, month, day of week: "0 3 * * SUN".')],
    timezone: Annotated[str, typer.Option("--timezone", "-z", help="IANA name, as Europe/Berlin.")] = "UTC",
    preset: Preset = "laptop",
    overrides: Overrides = None,
    version: Annotated[str, typer.Option(help="`latest`, or the pipeline's version to stay with.")] = "latest",
    catch_up: Annotated[
        Literal["one", "none"], typer.Option(help="After missed fires: one run for all of them, or none.")
    ] = "one",
    paused: Annotated[bool, typer.Option("--paused", help="Set it, but do not fire yet.")] = False,
    on: On = "embedded",
    profile: Profile = PROFILE,
) -> None:
    """Set a schedule, whatever was set under its name before; nothing is changed unless all of it is valid."""
    with explained():
        from pipelines.schedules.model import schedule_of
        from pipelines.schedules.shown import in_words

        wanted = schedule_of(
            name=name,
            cron=cron,
            timezone=timezone,
            preset=preset,
            overrides=tuple(overrides or ()),
            version=version,
            catch_up=catch_up,
            paused=paused,
        )
        typer.echo(in_words(_keeper(on, profile).set(wanted)))


@schedule.command("list")
def list_schedules(on: On = "embedded", profile: Profile = PROFILE) -> None:
    """Every schedule: when it fires next, by its own clock, and how its last run ended."""
    with explained():
        from pipelines.schedules.shown import show_keeper, show_schedules

        show_schedules(_keeper(on, profile).list())
        if on == "embedded":
            show_keeper()


@schedule.command()
def pause(name: Name, on: On = "embedded", profile: Profile = PROFILE) -> None:
    """Fire no more until `resume`; a run that goes on is let be."""
    with explained():
        from pipelines.schedules.shown import in_words

        typer.echo(in_words(_keeper(on, profile).pause(name)))


@schedule.command()
def resume(name: Name, on: On = "embedded", profile: Profile = PROFILE) -> None:
    """Fire again, from the next time on."""
    with explained():
        from pipelines.schedules.shown import in_words

        typer.echo(in_words(_keeper(on, profile).pause(name, paused=False)))


@schedule.command()
def delete(name: Name, on: On = "embedded", profile: Profile = PROFILE) -> None:
    """Forget a schedule; a run that goes on is let be, and its history stays."""
    with explained():
        _keeper(on, profile).delete(name)
        typer.echo(f"{name} is deleted.")


@schedule.command()
def runs(name: Name, limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20) -> None:
    """What became of a schedule's fires, newest first (embedded; Kubeflow's are in `sonarc pipeline runs`)."""
    with explained():
        from pipelines.schedules.shown import show_runs

        show_runs(_embedded().runs(name, limit))


@schedule.command()
def serve(runs: Runs = Path("runs"), servers: Servers = None) -> None:
    """Keep the embedded schedules until Ctrl-C: start what is due, one run at a time.

    Any number may be started on one database: one of them works, and another goes on for it should it die.
    """
    with explained():
        import logging

        from pipelines.schedules.embedded import EmbeddedSchedules
        from pipelines.schedules.keeper import Keeper
        from pipelines.schedules.lease import Lease
        from pipelines.schedules.process import RunProcess
        from pipelines.schedules.tables import Database

        logging.getLogger("pipelines.schedules").setLevel(logging.INFO)
        database, home = Database.default(), runs.resolve()
        typer.echo(f"Keeping the schedules of {database.place.shown}; Ctrl-C ends it.", err=True)
        keeper = Keeper(EmbeddedSchedules(database), Lease(database), lambda *given: RunProcess(*given, home))
        keeper.serve()
