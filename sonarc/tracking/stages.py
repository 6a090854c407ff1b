"""The stages `gate` and `promote`, run in the component's own process."""

from __future__ import annotations

from sonarc.contracts import store
from sonarc.contracts.dataset import read_dataset, read_latents
from sonarc.contracts.errors import CheckpointError, TrackingError
from sonarc.contracts.package import PackageLineage, read_package
from sonarc.contracts.result import Artifact
from sonarc.contracts.scores import read_scores
from sonarc.contracts.stage import Outcome, StageContext
from sonarc.tracking.gate import judge, read_verdict, write_verdict
from sonarc.tracking.packages import build_package
from sonarc.tracking.registry import Registry


def run_gate(context: StageContext) -> Outcome:
    """Judge the candidate and write `verdict.json`; the metric `passed` is 1 or 0.

    A refusal is an outcome like any other: the pipeline's condition reads it, and `promote` checks it again.
    """
    sheet = read_scores(context.input("evaluate", "scores").uri)
    verdict = judge(sheet, context.config.gate, champion=_has_rival(context))
    where = store.join(context.folder, "verdict.json")
    sha256 = write_verdict(where, verdict)
    context.run.log_dict(verdict.model_dump(mode="json", by_alias=True), "verdict.json")
    return Outcome(
        {"verdict": Artifact(uri=where, sha256=sha256)},
        metrics={"passed": float(verdict.passed)},
        counts={
            "rules": len(verdict.rules),
            "failed": sum(rule.passed is False for rule in verdict.rules),
            "skipped": sum(rule.passed is None for rule in verdict.rules),
        },
    )


def _has_rival(context: StageContext) -> bool:
    """Whether a champion is in place that is not the candidate itself: then it must have been scored, too."""
    tracking, names = context.request.tracking, context.config.registry
    if tracking is None:
        return False
    champion = Registry(tracking.uri, context.request.store).resolve(names.model, names.alias)
    if champion is None:
        return False
    candidate = context.inputs["evaluate"].inputs["posttrain.generator"].sha256
    return read_package(champion.package_uri).lineage.generator_sha256 != candidate


def run_promote(context: StageContext) -> Outcome:
    """Package base and generator, register both, and move the alias to the generator: the champion's, or the one of
    arrival.

    Raises:
        GateRefused: the verdict is negative. TrackingError: no registry is configured, or it refuses.
    """
    read_verdict(context.input("gate", "verdict").uri).require()
    tracking = context.request.tracking
    if tracking is None:
        raise TrackingError("Promotion needs a model registry, and no tracking is configured.", "Set a tracking URI.")
    from sonarc.codec.package import load_codec  # torch, which the gate does without
    from sonarc.text.load import load_text_encoder

    config = context.config
    registry = Registry(tracking.uri, context.request.store)
    scores = store.read_json(context.input("evaluate", "scores").uri)
    base_checkpoint = context.input("pretrain", "base")
    dataset = context.input("ingest", "dataset")
    generator_checkpoint = context.input("posttrain", "generator")
    encoder, codec = load_text_encoder(config.text), load_codec(config.codec.uri)
    made_by = read_latents(context.input("encode", "latents").uri).encoder_sha256
    if codec.encoder_sha256 != made_by:
        raise CheckpointError(
            f"The codec {config.codec.uri!r} has the encoder {codec.encoder_sha256[:16]}, the model was trained on "
            f"latents of {made_by[:16]}.",
            "Put back the codec the latents were made with, or one that shares its encoder.",
        )
    lineage = PackageLineage(
        base_uri=base_checkpoint.uri,
        base_sha256=base_checkpoint.sha256,
        generator_sha256="",
        codec_sha256=codec.sha256,
        dataset_sha256=dataset.sha256,
        dataset_version=read_dataset(dataset.uri).version,
        text_encoder=f"{encoder.name}:{encoder.sha256}",
        encoder_sha256=made_by,
        dataset_uri=dataset.uri,
    )
    base_uri, base = build_package(
        context.request.store,
        kind="base",
        checkpoint_uri=base_checkpoint.uri,
        config=config,
        lineage=lineage,
        scores=scores,
    )
    uri, package = build_package(
        context.request.store,
        kind="generator",
        checkpoint_uri=generator_checkpoint.uri,
        config=config,
        lineage=lineage.model_copy(
            update={
                "base_uri": base_uri,
                "base_sha256": base.sha256(),
                "generator_sha256": generator_checkpoint.sha256,
            }
        ),
        scores=scores,
    )
    tags = {"sonarc.dataset_sha256": lineage.dataset_sha256, "sonarc.codec_sha256": lineage.codec_sha256}
    names = config.registry
    registry.register(names.base_model, base_uri, run_id=context.run.id, tags=tags)
    registered = registry.register(names.model, uri, run_id=context.run.id, tags={**tags, "base_uri": base_uri})
    why = f"passed the gate in run {tracking.parent_run_id}"
    staged = names.arrival is not None and registry.resolve(names.model, names.alias) is not None
    alias = names.arrival if staged and names.arrival else names.alias
    moved = registry.move(names.model, alias, registered.version, why, run_id=context.run.id)
    where = store.join(context.folder, "registration.json")
    sha256 = store.write_json(where, registered.model_dump(mode="json"))
    return Outcome(
        {
            "package": Artifact(uri=uri, sha256=package.sha256()),
            "base_package": Artifact(uri=base_uri, sha256=base.sha256()),
            "registration": Artifact(uri=where, sha256=sha256),
        },
        metrics={"version": float(registered.version)},
        counts={"alias_moved": int(moved is not None)},
    )
