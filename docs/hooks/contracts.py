"""mkdocs hook: `::: module.Model` in a page becomes a table of the model's fields, read from the code itself."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

DIRECTIVE = re.compile(r"^::: ([\w.]+)\.(\w+)$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace every directive of a page."""
    return DIRECTIVE.sub(lambda match: table(match[1], match[2]), markdown)


def table(module: str, name: str) -> str:
    """Markdown: the model's first docstring line, then a row a field."""
    model: type[BaseModel] = getattr(importlib.import_module(module), name)
    meanings = _meanings(model)
    lines = [inspect.cleandoc(model.__doc__ or "").splitlines()[0], "", "| field | type | |", "|---|---|---|"]
    for field, info in model.model_fields.items():
        shown = str(info.default) if field == "schema_" else meanings.get(field, info.description or "")
        kind = _type(model, field)
        lines.append(f"| `{info.alias or field}` | `{kind}` | {_cell(shown)} |")
    return "\n".join(lines)


def _type(model: type[BaseModel], field: str) -> str:
    """The annotation as it is written, without its constraints."""
    written = next(
        ast.unparse(node.annotation)
        for node in _body(_owner(model, field))
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == field
    )
    return written.replace("|", "or").replace("'", '"')


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Field → the string written under it."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not (isinstance(owner, type) and issubclass(owner, BaseModel)) or owner is BaseModel:
            continue
        body = _body(owner)
        for node, after in pairwise(body):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[ast.unparse(node.target)] = inspect.cleandoc(str(after.value.value))
    return found


def _owner(model: type[BaseModel], field: str) -> type:
    return next(owner for owner in model.__mro__ if field in vars(owner).get("__annotations__", {}))


def _body(model: type) -> list[ast.stmt]:
    parsed = ast.parse(inspect.cleandoc("\n" + inspect.getsource(model))).body[0]
    assert isinstance(parsed, ast.ClassDef)
    return parsed.body


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
