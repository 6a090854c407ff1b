"""The object a stage becomes: it follows KubeRay's schema, and nothing in it is root, writable or secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from components.launch.attempt import Attempt
from components.launch.rayjob import rayjob
from components.launch.settings import LauncherConfig, parse_launcher
from infra.check.schemas import SCHEMAS, Schemas
from sonarc.contracts.computing import computing_env
from sonarc.contracts.stages import STAGES

SCHEMA = Schemas()
needs_schema = pytest.mark.skipif(
    not SCHEMA.knows("ray.io/v1", "RayJob"), reason=f"KubeRay's schema is not in {SCHEMAS}"
)
POD = {"KFP_POD_NAME": "p", "KFP_POD_UID": "u"}
EVERYTHING = """
backend: kuberay
namespace: sonarc
image: registry.example.com/sonarc/worker@sha256:0123456789abcdef
image_pull_secrets: [registry]
service_account: sonarc-ray
ttl_seconds: 60
deadline_seconds: 7200
head: {cpu: "4", memory: 16Gi}
workers: [{name: cpu, cpu: 3500m, memory: 12Gi, min_workers: 2, max_workers: 4}]
stages:
  pretrain:
    deadline_seconds: 259200
    workers:
      - name: gpu
        cpu: "8"
        memory: 64Gi
        gpu: 2
        node_selector: {pool: a100}
        tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}, {key: spot, value: "true"}]
  sources: {workers: []}
env: {AWS_ENDPOINT_URL: "https://s3.example.com"}
secret_env: {SONARC_TUNE_STORAGE: {secret: tune, key: url}}
secrets: [store]
volumes:
  - {name: audio, mount_path: /data, claim: audio, read_only: true}
  - {name: ca, mount_path: /etc/ca, config_map: ca}
  - {name: key, mount_path: /etc/key, secret: key}
  - {name: cache, mount_path: /cache, empty_dir: 50Gi}
"""


def _settings(**more: Any) -> LauncherConfig:
    return parse_launcher(yaml.safe_load(EVERYTHING) | more, "here")


def _body(stage: str, settings: LauncherConfig) -> dict[str, Any]:
    attempt = Attempt.here("run-1", stage, POD)
    return rayjob(settings, attempt, "python -m ray_jobs.x", computing_env(2), owned=True)


def _pods(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = body["spec"]["rayClusterSpec"]
    yield body["spec"]["submitterPodTemplate"]["spec"]
    yield cluster["headGroupSpec"]["template"]["spec"]
    yield from (group["template"]["spec"] for group in cluster["workerGroupSpecs"])


@needs_schema
@pytest.mark.parametrize("stage", [stage for stage, spec in STAGES.items() if spec.ray])
@pytest.mark.parametrize("settings", [_settings(), LauncherConfig(backend="kuberay", image="i:1", queue="q")])
def test_it_follows_kuberays_schema(stage: str, settings: LauncherConfig) -> None:
    assert SCHEMA.problems(_body(stage, settings)) == []


@needs_schema
def test_the_schema_would_tell() -> None:
    body = _body("pretrain", _settings())
    body["spec"]["ttlSecondsAfterFinish"] = 3
    body["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["securityContext"]["root"] = 1
    found = SCHEMA.problems(body)
    assert len(found) == 2 and "ttlSecondsAfterFinish" in found[0] + found[1]


@pytest.mark.parametrize("stage", ["sources", "ingest", "pretrain"])
def test_every_pod_is_unprivileged_and_bounded(stage: str) -> None:
    for pod in _pods(_body(stage, _settings())):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"] == container["resources"]["requests"]
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}


def test_a_stage_has_its_own_deadline_and_groups() -> None:
    settings = _settings()
    spec = _body("pretrain", settings)["spec"]
    assert spec["activeDeadlineSeconds"] == 259_200
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert pod["nodeSelector"] == {"pool": "a100"}
    assert pod["tolerations"][0] == {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert _body("ingest", settings)["spec"]["activeDeadlineSeconds"] == 7200
    assert _body("sources", settings)["spec"]["rayClusterSpec"]["workerGroupSpecs"] == []


def test_only_a_cluster_that_grows_has_an_autoscaler_and_a_token_of_kubernetes() -> None:
    grows, fixed = _body("ingest", _settings())["spec"], _body("pretrain", _settings())["spec"]
    assert grows["rayClusterSpec"]["enableInTreeAutoscaling"]
    assert "enableInTreeAutoscaling" not in fixed["rayClusterSpec"]
    mounted = [pod["automountServiceAccountToken"] for pod in _pods({"spec": grows})]
    assert mounted == [False, True, False]
    assert not any(pod["automountServiceAccountToken"] for pod in _pods({"spec": fixed}))


def test_it_never_runs_twice_by_itself_and_ends_with_its_cluster() -> None:
    spec = _body("tune", _settings())["spec"]
    assert spec["backoffLimit"] == 0 and spec["shutdownAfterJobFinishes"] and not spec["suspend"]
    assert spec["ttlSecondsAfterFinished"] == 60
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    variables = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert variables == computing_env(2)


def test_the_submitter_sees_no_secret_and_no_data() -> None:
    submitter, *others = _pods(_body("pretrain", _settings()))
    assert "store" not in json.dumps(submitter) and "audio" not in json.dumps(submitter)
    assert all(pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "store"}}] for pod in others)


@pytest.mark.parametrize("owned", [True, False])
def test_it_belongs_to_the_pod_that_launched_it_where_that_can_be(owned: bool) -> None:
    body = rayjob(_settings(), Attempt.here("run-1", "tune", POD), "python", {}, owned=owned)
    assert ("ownerReferences" in body["metadata"]) is owned
    outside = rayjob(_settings(), Attempt.here("run-1", "tune", {}), "python", {}, owned=owned)
    assert "ownerReferences" not in outside["metadata"]


def test_names_are_an_attempts_own() -> None:
    def name(run: str = "r", stage: str = "tune", **environ: str) -> str:
        return Attempt.here(run, stage, POD | environ).name

    assert name() == name() == name(KFP_RETRY_INDEX="3")
    others = [name("s"), name(stage="evaluate"), name(KFP_POD_UID="v"), name(SONARC_ATTEMPT="a")]
    assert len({name(), *others}) == 5
    assert name(SONARC_ATTEMPT="a") == name(SONARC_ATTEMPT="a", KFP_POD_UID="v")
    assert max(map(len, (name("x" * 500, stage) for stage in STAGES))) <= 47
