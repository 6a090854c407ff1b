"""What a compiled pipeline says of itself, as facts that people compare: parameters, tasks, images, resources."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.kubeflow.spec import Spec
from sonarc.contracts.hashing import sha256_json

Facts = dict[str, str]
"""What is said of one thing: field → value, as text."""

_OUTPUT = re.compile(r"inputs\.parameter_values\['pipelinechannel--([\w-]+?)(?:-Output)?'\]")
"""How a condition names what a task returned."""
_RESOURCES = {
    "resourceCpuRequest": "cpu",
    "resourceCpuLimit": "cpu limit",
    "resourceMemoryRequest": "memory",
    "resourceMemoryLimit": "memory limit",
}


def parameters(spec: Spec) -> dict[str, Facts]:
    """The pipeline's parameters: type, and default if there is one."""
    given = spec.pipeline.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    return {
        name: {"type": facts.get("parameterType", "")}
        | ({"default": _text(facts["defaultValue"])} if "defaultValue" in facts else {})
        for name, facts in given.items()
    }


def components(spec: Spec) -> dict[str, Facts]:
    """The tasks that run something, by name: what they run, with what, after what and on what condition."""
    executors = spec.pipeline.get("deploymentSpec", {}).get("executors", {})
    kubernetes = spec.platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    found = {}
    for name, task, condition in _tasks(spec.pipeline, spec.pipeline.get("root", {}), ""):
        component = spec.pipeline["components"][task["componentRef"]["name"]]
        label = component["executorLabel"]
        found[name] = {
            **_task_facts(task, condition),
            **_container_facts(executors.get(label, {}).get("container", {})),
            **_pod_facts(kubernetes.get(label, {})),
        }
    return found


def _tasks(pipeline: Mapping[str, Any], component: Mapping[str, Any], condition: str) -> Iterator[tuple[str, Any, str]]:
    """Every task that has an executor, those inside groups too, with the condition it stands under."""
    for name, task in component.get("dag", {}).get("tasks", {}).items():
        inner = pipeline["components"][task["componentRef"]["name"]]
        policy = task.get("triggerPolicy", {})
        own = _OUTPUT.sub(r"\1", policy.get("condition", ""))
        here = " and ".join(part for part in (condition, own) if part)
        if "executorLabel" in inner:
            yield name, task, "always, at the end" if policy.get("strategy") else here
        else:
            yield from _tasks(pipeline, inner, here)


def _task_facts(task: Mapping[str, Any], condition: str) -> Facts:
    facts = {"after": ", ".join(sorted(task.get("dependentTasks", []))) or "(nothing)"}
    retry = task.get("retryPolicy", {})
    facts["retries"] = _text(retry.get("maxRetryCount", 0))
    if retry:
        facts["backoff"] = _text(retry.get("backoffDuration", "0s"))
    facts["kubeflow cache"] = "on" if task.get("cachingOptions", {}).get("enableCache") else "off"
    if condition:
        facts["condition"] = condition
    given = task.get("inputs", {}).get("parameters", {})
    facts["inputs"] = ", ".join(sorted([*given, *task.get("inputs", {}).get("artifacts", {})]))
    return facts


def _container_facts(container: Mapping[str, Any]) -> Facts:
    resources = container.get("resources", {})
    facts = {name: str(resources[key]) for key, name in _RESOURCES.items() if key in resources}
    facts |= {f"env {entry['name']}": entry.get("value", "") for entry in container.get("env", [])}
    code = {key: container.get(key, []) for key in ("command", "args")}
    return {"image": container.get("image", ""), "code": sha256_json(code)[:12], **facts}


def _pod_facts(pod: Mapping[str, Any]) -> Facts:
    facts = {}
    if "activeDeadlineSeconds" in pod:
        facts["timeout"] = f"{pod['activeDeadlineSeconds']} s"
    for label, value in pod.get("nodeSelector", {}).get("labels", {}).items():
        facts[f"node {label}"] = value
    for secret in pod.get("secretAsEnv", []):
        names = ", ".join(entry["envVar"] for entry in secret.get("keyToEnv", []))
        facts[f"secret {secret['secretName']}"] = names + (" (optional)" if secret.get("optional") else "")
    for mounted in pod.get("configMapAsVolume", []):
        facts[f"config map {mounted['configMapName']}"] = mounted.get("mountPath", "")
    for field in pod.get("fieldPathAsEnv", []):
        facts[f"env {field['name']}"] = field.get("fieldPath", "")
    return facts


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, str) and (not value or " " in value) else str(value)
