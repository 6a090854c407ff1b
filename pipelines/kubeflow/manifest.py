"""The pipeline as Kubernetes objects, for clusters that are kept by GitOps: a Pipeline and a PipelineVersion."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipelines.kubeflow.profile import Profile
from pipelines.kubeflow.spec import Spec, compile_yaml
from pipelines.kubeflow.version import Version


def manifests(profile: Profile, git: str, namespace: str = "") -> tuple[str, Version]:
    """Both objects as YAML, and the version they are.

    A Kubeflow whose pipeline store is Kubernetes takes them as they are; a version is never changed, only added.

    Args:
        namespace: where they are to live; empty: whoever applies them says.
    """
    from kfp.compiler import Compiler, KubernetesManifestOptions

    from pipelines.dag import PIPELINE, build
    from pipelines.kubeflow.outfit import outfit

    version = Version.of(Spec.of_yaml(compile_yaml(profile, git), "The compiled pipeline"), git)
    options = KubernetesManifestOptions(
        pipeline_name=PIPELINE,
        pipeline_version_name=version.name,
        namespace=namespace or None,
        include_pipeline_manifest=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "manifest.yaml"
        Compiler().compile(
            build(profile.until, outfit(profile, git)),
            str(target),
            kubernetes_manifest_options=options,
            kubernetes_manifest_format=True,
        )
        return target.read_text(encoding="utf-8"), version
