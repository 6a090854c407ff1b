"""The structure of the code, read from its syntax: who may import whom, and what may not be written at all."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("sonarc", "ray_jobs", "components", "pipelines", "serving")
TESTS = "tests"

MAY_IMPORT = {
    "sonarc": {"sonarc"},
    "ray_jobs": {"sonarc", "ray_jobs"},
    "components": {"sonarc", "ray_jobs", "components", "serving"},
    "serving": {"sonarc", "serving"},
    "pipelines": {"sonarc", "components", "serving", "pipelines"},
}
"""Room → rooms it may import. Components launch jobs by name; those without Ray run in the component itself."""

SCIENCE = (
    "arc", "audio", "checkpoint", "codec", "data", "demo", "dit", "edge", "flow", "metrics", "published", "runtime",
    "samplers", "study", "text", "training", "tuning",
)  # fmt: skip

PACKING = {
    "sonarc/tracking/packages.py": {"sonarc.codec.package.load_codec", "sonarc.codec.package.save_codec"},
    "sonarc/tracking/stages.py": {"sonarc.codec.package.load_codec", "sonarc.text.load.load_text_encoder"},
}
"""A package holds the codec and the text encoder's hash: what tracking asks science for when it packs."""

SUFFIXES = (".py", ".md", ".toml", ".yml", ".yaml", ".json", ".txt", ".html", ".css", ".js", ".j2", ".sh", "")
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:root|home|work|opt|Users|tmp)/\w")


def python_files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def imports(file: Path, *, module_level: bool = False) -> set[str]:
    """Dotted names of what a file imports; `module_level`: only what happens when it is imported itself."""
    found: set[str] = set()
    for node in _at_import(tree(file)) if module_level else ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield child
        yield from _at_import(child)


def under(names: set[str], *packages: str) -> set[str]:
    """The names that are one of the packages or inside it."""
    return {name for name in names for package in packages if name == package or name.startswith(f"{package}.")}


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_one_way(room: str) -> None:
    forbidden = [other for other in ROOMS if other not in MAY_IMPORT[room]]
    wrong = {name_of(file): sorted(found) for file in python_files(room) if (found := under(imports(file), *forbidden))}
    assert not wrong


def test_sonarc_knows_neither_ray_nor_kubeflow() -> None:
    wrong = {name_of(f): sorted(found) for f in python_files("sonarc") if (found := under(imports(f), "ray", "kfp"))}
    assert not wrong


def test_only_tracking_speaks_to_mlflow() -> None:
    allowed = ROOT / "sonarc" / "tracking"
    wrong = [name_of(f) for f in python_files(*ROOMS) if allowed not in f.parents and under(imports(f), "mlflow")]
    assert not wrong


def test_tracking_and_science_know_only_the_contracts() -> None:
    science = [f"sonarc.{name}" for name in SCIENCE]
    wrong = [name_of(f) for f in python_files("sonarc/tracking") if under(imports(f, module_level=True), *science)]
    wrong += [
        name_of(f)
        for f in python_files("sonarc/tracking")
        if under(imports(f), *science, "sonarc.report") - PACKING.get(name_of(f), set())
    ]
    outside = ("sonarc.tracking", "sonarc.report", "sonarc.bench")
    wrong += [name_of(f) for f in python_files(*(f"sonarc/{name}" for name in SCIENCE)) if under(imports(f), *outside)]
    inner = under(set().union(*(imports(f) for f in python_files("sonarc/contracts"))), "sonarc")
    assert not wrong
    assert all(name.startswith(("sonarc.contracts", "sonarc.__")) for name in inner)


def test_every_part_of_sonarc_has_its_place() -> None:
    """A new package is put on one side of the rule above before it grows imports."""
    places = {folder.name for folder in (ROOT / "sonarc").iterdir() if (folder / "__init__.py").exists()}
    assert places <= {*SCIENCE, "contracts", "tracking", "report", "bench"}


def test_components_and_pipelines_start_light() -> None:
    wrong = {
        name_of(file): sorted(found)
        for file in python_files("components", "pipelines")
        if (found := under(imports(file, module_level=True), "torch", "ray"))
    }
    assert not wrong


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("sonarc.contracts", ("torch", "ray", "kfp", "mlflow")),
        ("sonarc.contracts.stage", ("torch", "ray", "kfp", "mlflow")),
        ("components.launch", ("torch", "ray")),
        ("pipelines.cli", ("torch", "ray", "kfp", "mlflow")),
        ("sonarc.runtime.generator", ("transformers", "diffusers", "ray", "mlflow")),
    ],
)
def test_importing_loads_nothing_heavy(module: str, heavy: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_contracts_load_no_torch_one_by_one() -> None:
    files = [file for file in python_files("sonarc/contracts") if file.stem != "__init__"]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    program = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def calls(file: Path) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Dotted name and keyword arguments of every call in a file."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: word.value for word in node.keywords if word.arg}


def is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def test_nothing_is_unpickled_and_no_shell_is_asked() -> None:
    wrong = []
    for file in python_files(*ROOMS, TESTS):
        modules = ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
        wrong += [f"{name_of(file)}: imports {name}" for name in under(imports(file), *modules)]
        for name, words in calls(file):
            if name in ("os.system", "os.popen", "commands.getoutput", "subprocess.getoutput", "eval", "exec"):
                wrong.append(f"{name_of(file)}: {name}")
            if is_true(words.get("shell")) and name.startswith("subprocess."):
                wrong.append(f"{name_of(file)}: {name} with a shell")
            if name == "torch.load" and not is_true(words.get("weights_only")):
                wrong.append(f"{name_of(file)}: torch.load without weights_only=True")
            if is_true(words.get("allow_pickle")):
                wrong.append(f"{name_of(file)}: {name} with allow_pickle")
            if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
                wrong.append(f"{name_of(file)}: {name}")
    # The lint's own fixtures are strings, not calls.
    assert not wrong


def shipped_files() -> list[Path]:
    """Text files of the project: what git tracks or would track, or, without git, the rooms' own."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode == 0:
        files = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        files = [
            f for folder in (*ROOMS, TESTS, "docs") for f in (ROOT / folder).rglob("*") if "__pycache__" not in f.parts
        ]
    return [file for file in files if file.is_file() and file.suffix in SUFFIXES and file.stat().st_size < 2_000_000]


def test_no_path_of_one_machine() -> None:
    wrong = []
    for file in shipped_files():
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if MACHINE_PATH.search(line):
                wrong.append(f"{name_of(file)}:{number}: {line.strip()[:120]}")
    assert not wrong


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("x = '/" + "home/me/data'", True),
        ("open('/" + "tmp/x')", True),
        ("PYTHON=/path/to/python3.11", False),
        ("https://example.org/" + "home/page", False),
        ("/usr/share/sounds", False),
    ],
)
def test_machine_paths_are_recognised(text: str, caught: bool) -> None:
    assert bool(MACHINE_PATH.search(text)) is caught


def test_import_reader_sees_what_python_would(tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nimport a.b\nif TYPE_CHECKING:\n    import torch\n"
        "try:\n    from ray import data\nexcept ImportError: ...\ndef f():\n    import kfp\n",
        encoding="utf-8",
    )
    assert imports(file, module_level=True) == {"typing.TYPE_CHECKING", "a.b", "ray.data"}
    assert under(imports(file), "kfp", "torch") == {"kfp", "torch"}
