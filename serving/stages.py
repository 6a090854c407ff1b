"""The stages `deploy` and `smoke`, run in the component's own process."""

from __future__ import annotations

from pathlib import Path

from serving import control
from serving.smoke import check_endpoint
from serving.state import ServedModel, ServeState, Source
from sonarc.contracts import store
from sonarc.contracts.errors import ServingError
from sonarc.contracts.hashing import sha256_bytes
from sonarc.contracts.result import Artifact
from sonarc.contracts.stage import Outcome, StageContext
from sonarc.tracking.registry import Registered, Registry, read_registration

SMOKE_SECONDS = 1.0


def state_folder(context: StageContext) -> Path:
    """Folder of `serve.json`: the one that holds the run's own folder; without one, `runs` where the command runs."""
    progress = context.request.progress
    return Path(progress).parent.parent if progress else Path("runs").absolute()


def run_deploy(context: StageContext) -> Outcome:
    """Serve the promoted package: keep the live server, swap its model, or start one.

    One that waits for its turn under an alias of arrival is served beside the champion, as its candidate.
    """
    arrived = read_registration(context.input("promote", "registration").uri)
    champion, candidate = _champion(context) or arrived, None
    if champion.package_sha256 != arrived.package_sha256:
        candidate = ServedModel.model_validate(arrived.model_dump())
    state = control.deploy(
        champion.package_uri,
        champion.package_sha256,
        context.config.serve,
        state_folder(context),
        model=champion.model,
        version=champion.version,
        candidate=candidate,
        source=_source(context),
    )
    where = store.join(context.folder, "endpoint.json")
    sha256 = store.write_json(where, state.model_dump(mode="json", by_alias=True))
    return Outcome({"endpoint": Artifact(uri=where, sha256=sha256)}, counts={"processes": len(state.processes)})


def _source(context: StageContext) -> Source | None:
    """The registry that a server with `serve.follow_s` follows from then on."""
    config, tracking = context.config, context.request.tracking
    if tracking is None:
        return None
    return Source(
        tracking=tracking.uri,
        store=context.request.store,
        model=config.registry.model,
        alias=config.registry.alias,
        candidate_alias=config.serve.candidate_alias,
    )


def _champion(context: StageContext) -> Registered | None:
    """The model under the endpoint's alias, if what is promoted arrives under another."""
    names, tracking = context.config.registry, context.request.tracking
    if names.arrival is None or tracking is None:
        return None
    return Registry(tracking.uri, context.request.store).resolve(names.model, names.alias)


def run_smoke(context: StageContext) -> Outcome:
    """Send one real request to the endpoint and check the audio that comes back."""
    endpoint = ServeState.model_validate(store.read_json(context.input("deploy", "endpoint").uri))
    live = control.status(state_folder(context))
    if live is None or live.package_sha256 != endpoint.package_sha256:
        raise ServingError("The deployed server does not run any more.", "Deploy again; its log says more.")
    audio = context.config.audio
    report = check_endpoint(
        live.address,
        seconds=min(SMOKE_SECONDS, audio.seconds),
        package_sha256=live.package_sha256,
        sample_rate=audio.sample_rate,
        channels=audio.channels,
        timeout_s=context.config.serve.timeout_s,
    )
    where = store.join(context.folder, "answer.wav")
    store.write_bytes(where, report.audio)
    metrics = {"latency_s": report.latency_s, "peak": report.peak, "rms": report.rms, "audio_seconds": report.seconds}
    return Outcome({"answer": Artifact(uri=where, sha256=sha256_bytes(report.audio))}, metrics)
