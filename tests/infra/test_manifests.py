"""The cluster's objects keep the rules, and each rule sees a breach that is planted."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from planted_breaches import KIND, PROD, Change, of, planted

from infra.check.pods import selects
from infra.check.references import SECRETS, documented_secrets, secret_references
from infra.check.render import INFRA, OVERLAYS, Document, name_of, render
from infra.check.rules import RULES, Rule, breaches
from infra.check.schemas import SCHEMAS, Schemas
from sonarc.bench.s3_server import server_environment

ROOT = INFRA.parent


@cache
def overlay(name: str) -> tuple[Document, ...]:
    return tuple(render(INFRA / "overlays" / name))


def test_the_overlays_are_those_that_are_documented() -> None:
    assert OVERLAYS == ("gpu", "kind", "prod")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.__name__))
def test_every_overlay_keeps_a_rule(rule: Rule) -> None:
    assert {name: list(rule(overlay(name))) for name in OVERLAYS} == {name: [] for name in OVERLAYS}


@pytest.mark.parametrize("what", KIND)
def test_a_planted_breach_is_seen(what: str) -> None:
    change, words = KIND[what]
    _seen("kind", change, words)


@pytest.mark.parametrize("what", PROD)
def test_a_breach_planted_in_production_is_seen(what: str) -> None:
    change, words = PROD[what]
    _seen("prod", change, words)


def _seen(name: str, change: Change, words: str) -> None:
    found = breaches(planted(overlay(name), change))
    assert any(words in breach for breach in found), found


def test_every_rule_has_a_breach_of_its_own() -> None:
    uncaught = list(RULES)
    for name, table in (("kind", KIND), ("prod", PROD)):
        for change, words in table.values():
            documents = planted(overlay(name), change)
            uncaught = [rule for rule in uncaught if not any(words in breach for breach in rule(documents))]
    assert not uncaught


def test_the_pipeline_may_launch_ray_jobs_and_nothing_else() -> None:
    for name in OVERLAYS:
        roles = {
            document["metadata"]["name"]: [
                (rule["apiGroups"], rule["resources"], rule.get("resourceNames", []), rule["verbs"])
                for rule in document["rules"]
            ]
            for document in overlay(name)
            if document["kind"] == "Role"
        }
        assert roles == {
            "sonarc-ray-jobs": [
                (["ray.io"], ["rayjobs"], [], ["create", "get", "list", "watch", "delete"]),
                ([""], ["pods"], [], ["list"]),
                ([""], ["pods/log"], [], ["get"]),
            ],
            "sonarc-kubeflow-task": [
                (["argoproj.io"], ["workflowtaskresults"], [], ["create", "patch"]),
                ([""], ["configmaps"], ["kfp-launcher"], ["get"]),
                ([""], ["secrets"], ["mlpipeline-minio-artifact"], ["get"]),
            ],
        }
        bindings = [document for document in overlay(name) if document["kind"] == "RoleBinding"]
        assert {subject["name"] for binding in bindings for subject in binding["subjects"]} == {"sonarc-pipeline"}


def test_every_documented_secret_is_used_and_in_the_readme() -> None:
    used = {name for overlay_name in OVERLAYS for _, name, _ in secret_references(overlay(overlay_name))}
    assert used == set(documented_secrets())
    readme = (INFRA / "README.md").read_text("utf-8")
    for entry in yaml.safe_load(SECRETS.read_text("utf-8")):
        assert f"| `{entry['name']}` | {', '.join(f'`{key}`' for key in entry['keys'])} |" in readme


def test_versions_in_the_overlays_are_the_projects() -> None:
    from sonarc import __version__

    for name in OVERLAYS:
        for line in subprocess.run(
            ["grep", "-rhoE", r"sonarc/(pipeline|worker|serve)[:@][^\"' ]+", str(INFRA / "overlays" / name)],
            capture_output=True, text=True, check=False,
        ).stdout.split():  # fmt: skip
            assert line.endswith(f":{__version__}"), line
        images = {str(pod) for pod in _images(overlay(name)) if "sonarc/" in pod}
        assert images and all(image.endswith(f":{__version__}") for image in images)


def _images(documents: tuple[Document, ...]) -> list[str]:
    from infra.check.pods import pods

    return [container["image"] for pod in pods(documents) for container in pod.containers]


@pytest.mark.parametrize("name", OVERLAYS)
def test_only_mlflow_and_trainings_may_call_the_database(name: str) -> None:
    policy = of(overlay(name), "NetworkPolicy/sonarc-to-database")["spec"]["podSelector"]
    made = {
        "MLflow": {"app.kubernetes.io/name": "mlflow", "app.kubernetes.io/component": "tracking"},
        "a RayJob": {"app.kubernetes.io/name": "sonarc", "ray.io/node-type": "worker"},
        "the endpoint": {"app.kubernetes.io/component": "endpoint", "ray.io/node-type": "worker"},
        "a component": {"workflows.argoproj.io/workflow": "sonarc-abc"},
        "a submitter": {"batch.kubernetes.io/job-name": "sonarc-tune-1-2"},
        "accounts": {"app.kubernetes.io/component": "accounts", "batch.kubernetes.io/job-name": "a"},
    }
    assert {who for who, labels in made.items() if selects(policy, labels)} == {"MLflow", "a RayJob"}


def test_the_alert_rules_and_the_dashboard_are_the_files_of_monitoring() -> None:
    documents = overlay("prod")
    alerts = yaml.safe_load((INFRA / "monitoring" / "alerts.yaml").read_text("utf-8"))
    assert of(documents, "PrometheusRule/sonarc-endpoint")["spec"] == alerts
    dashboard = of(documents, "ConfigMap/sonarc-dashboard")["data"]["sonarc-endpoint.json"]
    assert dashboard == (INFRA / "monitoring" / "dashboard.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spec": {"type": "ClusterIP", "prots": []}}, "prots"),
        ({"spec": {"type": 3}}, "type"),
        ({"kind": "Servise"}, "nothing validates"),
        ({"apiVersion": "example.com/v1"}, "nothing validates"),
    ],
)
def test_a_built_in_object_is_validated_strictly(change: Document, words: str) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"type": "ClusterIP"}}
    schemas = Schemas(None)
    assert schemas.problems(service) == []
    assert words in " ".join(schemas.problems(service | change))


def test_a_custom_kind_is_validated_strictly_by_its_definition(tmp_path: Path) -> None:
    version = {"name": "v1", "schema": {"openAPIV3Schema": {
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
            "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
        },
    }}}  # fmt: skip
    definition = {
        "kind": "CustomResourceDefinition",
        "spec": {"group": "example.com", "names": {"kind": "Thing"}, "versions": [version]},
    }
    (tmp_path / "things.yaml").write_text(yaml.safe_dump(definition))
    schemas = Schemas(tmp_path)
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"size": 1}}
    assert schemas.problems(thing) == []
    assert "'width' was unexpected" in schemas.problems(thing | {"spec": {"width": 1}})[0]
    assert "'large' is not of type 'integer'" in schemas.problems(thing | {"spec": {"size": "large"}})[0]


def test_what_goes_unvalidated_is_used_and_has_a_reason() -> None:
    schemas = Schemas(None)
    excused = {
        (document["apiVersion"], document["kind"]): schemas.excuse(document)
        for name in OVERLAYS
        for document in overlay(name)
        if schemas.excuse(document)
    }
    listed = yaml.safe_load((INFRA / "unvalidated.yaml").read_text("utf-8"))
    assert set(excused) == {(entry["apiVersion"], entry["kind"]) for entry in listed}
    assert all(len(reason) > 20 for reason in excused.values())


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="KubeRay's schemas are not beside the project (../shared/schemas).")
def test_kuberays_objects_are_validated_strictly() -> None:
    schemas = Schemas()
    for name in OVERLAYS:
        for document in overlay(name):
            if document["apiVersion"] == "ray.io/v1":
                assert schemas.problems(document) == [], name_of(document)
    service = of(overlay("kind"), "RayService/sonarc")
    for change in ({"serveConfig": "x"}, {"serveConfigV2": 3}, {"rayClusterConfig": {"headGroupSpec": {"pod": {}}}}):
        assert schemas.problems(service | {"spec": service["spec"] | change})


@pytest.mark.slow
@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="KubeRay's schemas are not beside the project (../shared/schemas).")
def test_every_overlay_is_rendered_and_valid(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.check", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name in OVERLAYS:
        assert list(yaml.safe_load_all((tmp_path / f"{name}.yaml").read_text("utf-8"))) == list(overlay(name))


def test_the_object_store_in_the_cluster_is_told_its_keys_as_rclone_reads_them() -> None:
    container = of(overlay("kind"), "StatefulSet/sonarc-objects")["spec"]["template"]["spec"]["containers"][0]
    told = next(entry["value"] for entry in container["env"] if entry["name"] == "RCLONE_AUTH_KEY")
    told = told.replace("$(ACCESS_KEY_ID)", "key").replace("$(SECRET_ACCESS_KEY)", "secret")
    assert told == server_environment("key", "secret")["RCLONE_AUTH_KEY"]
