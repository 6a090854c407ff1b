"""Versions of the pipeline: what is compiled, what it is called, what changed, as files and as Kubernetes objects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kfp_cluster import compiled, spec
from kfp_server import Kfp, kfp_server
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.kubeflow.diff import text_diff, told
from pipelines.kubeflow.facts import components
from pipelines.kubeflow.manifest import manifests
from pipelines.kubeflow.profile import COMPONENTS, Profile
from pipelines.kubeflow.secrets import refuse_secrets
from pipelines.kubeflow.spec import Spec, compile_yaml
from pipelines.kubeflow.version import Version, git_version
from sonarc.contracts.errors import ConfigError

DIGEST = "sha256:" + "0a" * 32


@pytest.fixture
def kfp() -> Iterator[Kfp]:
    with kfp_server() as server:
        yield server


def small(**given: object) -> Spec:
    """The pipeline up to its first stage, on a cluster."""
    profile = Profile.model_validate({"until": "sources", "images": {"pipeline": "example.com/pipeline"}, **given})
    return Spec.of_yaml(compile_yaml(profile, "v1"), "a test's")


def test_the_same_code_gives_the_same_version() -> None:
    assert small().sha256() == spec("v1").sha256()
    assert spec("v1").sha256() != spec("v2").sha256()  # another tag is another image
    name = Version.of(spec(), "V1.2-3-gABC_dirty").name
    assert re.fullmatch(r"sonarc-v1\.2-3-gabc-dirty-[0-9a-f]{12}", name)
    assert git_version()


def test_what_changed_is_told_in_words() -> None:
    changed = small(
        images={"pipeline": f"example.com/pipeline@{DIGEST}"},
        components={
            "sources": {"memory_limit": "9Gi", "node_selector": {"pool": "jobs"}, "timeout_s": 60, "retries": 0},
            "begin": {"env": {"A": "b"}, "config_maps": {"sonarc-launcher": "/etc/sonarc"}},
        },
        secrets=[],
    )
    mlflow = "MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_USERNAME"
    assert told(spec(), changed) == [
        "~ component begin: config map sonarc-launcher (none) → /etc/sonarc",
        "~ component begin: env A (none) → b",
        f"~ every component: image example.com/pipeline:v1 → example.com/pipeline@{DIGEST}",
        f"~ every component: secret sonarc-mlflow {mlflow} (optional) → (none)",
        "~ every component: secret sonarc-ray RAY_AUTH_TOKEN (optional) → (none)",
        "~ every component: secret sonarc-store AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (optional) → (none)",
        "~ component sources: backoff 30s → (none)",
        "~ component sources: memory limit 2Gi → 9Gi",
        "~ component sources: node pool (none) → jobs",
        "~ component sources: retries 2 → 0",
        "~ component sources: timeout 21600 s → 60 s",
    ]
    assert told(spec(), spec()) == []
    assert "+" in text_diff(spec(), changed, ("a", "b"))
    longer = told(spec(), small(until="ingest"))
    assert longer[0] == "+ component ingest (example.com/pipeline:v1)"


def test_parameters_and_wiring_are_told_too() -> None:
    tree = yaml.safe_load(yaml.safe_dump(spec().pipeline))
    asked = tree["root"]["inputDefinitions"]["parameters"]
    asked["ray_address"]["defaultValue"] = "http://ray:8265"
    del asked["progress"]
    assert told(spec(), Spec(tree, spec().platform)) == [
        "- parameter progress",
        "~ parameter ray_address: default http://127.0.0.1:8265 → http://ray:8265",
    ]
    tree = yaml.safe_load(yaml.safe_dump(spec().pipeline))
    tree["pipelineInfo"]["description"] = "other"
    assert "wiring" in told(spec(), Spec(tree, spec().platform))[0]


def test_every_component_has_limits_deadline_retries_and_its_runs_id() -> None:
    from pipelines.compiled import COMPILED

    found = components(Spec.of_yaml(COMPILED.read_text(encoding="utf-8"), "git"))
    assert set(found) == set(COMPONENTS)
    for name, facts in found.items():
        assert {"cpu", "cpu limit", "memory", "memory limit", "timeout", "env KFP_RUN_ID"} <= set(facts), name
        assert int(facts["retries"]) >= 1, name
        assert facts["kubeflow cache"] == "off", name
        assert facts["image"].startswith("sonarc/"), name
    refuse_secrets(COMPILED.read_text(encoding="utf-8"))


def test_kubernetes_objects_for_gitops() -> None:
    profile = Profile(until="sources", images={"pipeline": "example.com/pipeline"})
    text, version = manifests(profile, "v1", "kubeflow")
    pipeline, made = yaml.safe_load_all(text)
    assert (pipeline["kind"], made["kind"]) == ("Pipeline", "PipelineVersion")
    assert made["metadata"] == {"name": version.name, "namespace": "kubeflow"}
    assert made["spec"]["pipelineName"] == pipeline["metadata"]["name"] == "sonarc"
    answer = {"pipeline_spec": made["spec"]["pipelineSpec"], "platform_spec": made["spec"]["platformSpec"]}
    assert Spec.of_answer(answer, "the manifest").sha256() == version.spec_sha256


def test_compile_check_tells_what_changed_and_fails(tmp_path: Path) -> None:
    cluster, target = tmp_path / "cluster.yaml", tmp_path / "pipeline.yaml"
    cluster.write_text("until: sources\n", encoding="utf-8")
    command = ["pipeline", "compile", "--output", str(target), "--profile", str(cluster)]
    image = ["--image", f"pipeline=example.com/p@{DIGEST}"]
    assert CliRunner().invoke(app, [*command, "--check", *image]).exit_code == ConfigError.exit_code
    assert CliRunner().invoke(app, [*command, *image]).exit_code == 0
    assert CliRunner().invoke(app, [*command, *image, "--check"]).exit_code == 0
    cluster.write_text("until: sources\nevery: {timeout_s: 77}\n", encoding="utf-8")
    failed = CliRunner().invoke(app, [*command, *image, "--check"])
    assert failed.exit_code == ConfigError.exit_code
    assert "timeout" in failed.output and "→ 77 s" in failed.output
    assert "is not what the DAG compiles to" in failed.output
    assert CliRunner().invoke(app, ["pipeline", "compile", *image]).exit_code == ConfigError.exit_code


def test_the_commands_from_upload_to_cancel(kfp: Kfp, tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(
        yaml.safe_dump({"until": "sources", "store": "s3://b/x", "kubeflow": {"host": kfp.address}}), encoding="utf-8"
    )

    def ran(*command: str, code: int = 0) -> str:
        answer = CliRunner().invoke(app, ["pipeline", *command, "--profile", str(cluster)], env={"COLUMNS": "400"})
        assert answer.exit_code == code, answer.output
        return answer.output

    assert "is uploaded" in ran("upload")
    assert "was there already" in ran("upload")
    assert "would run the same" in ran("diff", "latest", "code")
    (tmp_path / "other.yaml").write_text(compiled(), encoding="utf-8")
    assert "~ every component: image" in ran("diff", "latest", str(tmp_path / "other.yaml"))
    assert "no version 'none'" in ran("diff", "none", "git", code=ConfigError.exit_code)
    assert "'arc.stps'" in ran("submit", "--set", "arc.stps=1", code=ConfigError.exit_code)
    assert kfp.all("run") == []
    assert "runs sonarc-" in ran("submit", "--preset", "ci", "--name", "mine")
    assert "a run called 'mine' already" in ran("submit", "--preset", "ci", "--name", "mine", code=2)
    shown = ran("runs")
    assert "mine" in shown and "pending" in shown and "sonarc-" in shown
    assert "is being ended" in ran("cancel", "mine")


def test_a_revision_that_git_does_not_have_is_named() -> None:
    failed = CliRunner().invoke(app, ["pipeline", "diff", "git:no-such-revision", "git"])
    assert failed.exit_code == ConfigError.exit_code
    assert "'no-such-revision'" in failed.output
