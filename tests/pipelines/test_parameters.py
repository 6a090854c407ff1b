"""What a run is started with, and a cluster's profile: typed, complete, and without secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kfp_cluster import spec

from components.image import image, reference
from pipelines.kubeflow.parameters import RunParameters
from pipelines.kubeflow.profile import Profile, changed, read_profile
from pipelines.kubeflow.spec import Spec
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.presets import load

DIGEST = "sha256:" + "0a" * 32
CLUSTER = {"store": "s3://bucket/sonarc", "tracking": "http://mlflow:5000"}


def of(given: dict[str, Any] | None = None, overrides: list[str] | None = None) -> RunParameters:
    return RunParameters.of(Profile.model_validate({**CLUSTER, **(given or {})}), load("ci", overrides or []))


def test_parameters_are_what_the_version_asks_for() -> None:
    given = of().given_to(spec())
    assert json.loads(given["config"])["preset"] == "ci"
    assert set(given) == {"config", "store", "tracking", "ray_address"}


def test_another_versions_parameters_are_refused_by_name() -> None:
    tree = json.loads(json.dumps(spec().pipeline))
    asked = tree["root"]["inputDefinitions"]["parameters"]
    asked["region"] = {"parameterType": "STRING"}
    asked["store"]["parameterType"] = "NUMBER_INTEGER"
    del asked["tracking"]
    with pytest.raises(ConfigError, match="tracking is unknown, region is missing, store is a str"):
        of().given_to(Spec(tree, {}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"store": ""}, "store ''"),
        ({"store": "data"}, "store 'data'"),
        ({"tracking": "sqlite:///mlflow.db"}, "no MLflow server's address"),
        ({"ray_address": "auto"}, "ray_address 'auto'"),
    ],
)
def test_an_address_that_no_pod_could_use_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        of(given)


@pytest.mark.parametrize(
    ("given", "overrides", "said"),
    [
        ({"store": "s3://key:hunter22@host/bucket"}, [], "store holds credentials in an address"),
        ({"tracking": "https://me:hunter22@mlflow"}, [], "tracking holds credentials"),
        ({}, ["text.path=see https://me:hunter22@host/a"], "config.text.path holds credentials in an address"),
        ({}, ["text.path=another-battery-staple"], r"config.text.path holds the value of \$S3_SECRET_KEY"),
        ({}, ['data.sources=[{"name":"a","uri":"https://x.org/a?X-Amz-Signature=1"}]'], "a signed address"),
        ({}, ["evaluate.clap=hub:AKIAABCDEFGHIJKLMNOP"], "config.evaluate.clap holds an AWS access key"),
        ({}, ["text.path=correct-horse-battery"], r"config.text.path holds the value of \$MY_PASSWORD"),
    ],
)
def test_secrets_are_refused_and_not_repeated(
    given: dict[str, Any], overrides: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_PASSWORD", "correct-horse-battery")
    monkeypatch.setenv("S3_SECRET_KEY", "another-battery-staple")
    with pytest.raises(ConfigError, match=said) as caught:
        of(given, overrides)
    for secret in ("hunter22", "AKIAABCDEFGHIJKLMNOP", "correct-horse", "another-battery", "Signature=1"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stroe: s3://x", "stroe: Extra inputs"),
        ("components: {pretrian: {}}", "there is no pretrian"),
        ("components: {pretrain: {timeout: 5}}", "timeout: Extra inputs"),
        ("every: {memory: lots}", "memory: String should match"),
        ("images: {worker: 'example.com/w:latest'}", "images.worker: a tag that moves"),
        ("images: {cook: 'example.com/w'}", "images.cook"),
        ("until: polish", "until: there is no such stage"),
        ("every: {env: {TOKEN: ghp_0123456789012345678901234567890123}}", "TOKEN holds a GitHub token"),
        ("every: {env: {MLFLOW_TRACKING_PASSWORD: ghp_short}}", "MLFLOW_TRACKING_PASSWORD is named like a secret"),
        ("kubeflow: {password: ghp_short}", "kubeflow.password: Extra inputs"),
        ("components: {pretrain: {password: ghp_short}}", "pretrain: password: Extra inputs"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_profile_is_refused_with_the_field_named(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_profile(file)
    assert said in caught.value.message
    assert "ghp_" not in str(caught.value)


def test_a_profile_gives_each_component_what_it_needs(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "store: s3://b/x\nevery: {retries: 5}\ncomponents: {tune: {retries: 0, node_selector: {pool: jobs}}}\n"
    )
    found = read_profile(file)
    assert (found.component("encode").retries, found.component("tune").retries) == (5, 0)
    assert found.component("promote").image == "worker"
    other = changed(found, host="http://elsewhere", images={"worker": f"example.com/w@{DIGEST}"})
    assert other.kubeflow.host == "http://elsewhere"
    assert other.component("tune").node_selector == {"pool": "jobs"}
    with pytest.raises(ConfigError, match="Cannot read"):
        read_profile(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("example.com:5000/a/worker", "example.com:5000/a/worker:v1"),
        ("example.com:5000/a/worker:7", "example.com:5000/a/worker:7"),
        (f"worker@{DIGEST}", f"worker@{DIGEST}"),
        (f"example.com/worker:7@{DIGEST}", f"example.com/worker@{DIGEST}"),
    ],
)
def test_a_digest_wins_over_a_tag_and_a_tag_over_the_version(given: str, made: str) -> None:
    assert reference(given, "v1") == made


def test_images_are_those_that_were_built_where_a_file_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SONARC_IMAGES", raising=False)
    image.cache_clear()
    assert image("serve", "v1") == "sonarc/serve:v1"
    built = tmp_path / "images.json"
    built.write_text(json.dumps({"images": {"worker": {"reference": f"example.com/w@{DIGEST}"}}}), encoding="utf-8")
    monkeypatch.setenv("SONARC_IMAGES", str(built))
    image.cache_clear()
    assert image("worker") == f"example.com/w@{DIGEST}"
    with pytest.raises(ConfigError, match="no image 'serve'"):
        image("serve")
    image.cache_clear()
