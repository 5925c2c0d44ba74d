"""The page on configuration has every setting and every variable, with its default."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

import pytest
from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from pgq_fast.mcp.settings import McpSettings
from pgq_fast.settings import ConnectionSettings, DBSettings
from pgq_fast.web.settings import WebSettings
from support.doc_blocks import ROOT

VARIABLE = re.compile(r"\b(?:PGQUEUER|PGQ_FAST|PGQ_TEST)_[A-Z_]*[A-Z]\b")
# Beginnings of names, and the pattern of a comment.
PREFIXES = {"PGQUEUER_MCP", "PGQUEUER_WEB", "PGQUEUER_X"}
PAGE = (ROOT / "docs/configuration.md").read_text()


def variables(model: type[BaseSettings], name: str, field: FieldInfo) -> list[str]:
    """Environment variables of a field, the one that counts first."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice).upper() for choice in alias.choices]
    return [f"{model.model_config['env_prefix']}{name.upper()}"]


def shown(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return {"": "empty", None: "none"}.get(value) if value in ("", None) else f"`{value}`"


def rows(section: str) -> dict[str, list[str]]:
    """The cells of each row of the table in *section*, by the name of the field."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    table = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and re.fullmatch(r"`\w+`", cells[0]):
            table[cells[0].strip("`")] = cells[1:]
    return table


@pytest.mark.parametrize(
    ("section", "model"),
    [
        ("Connection", ConnectionSettings),
        ("Queue", DBSettings),
        ("MCP server", McpSettings),
        ("Web dashboard", WebSettings),
    ],
)
def test_every_setting(
    section: str, model: type[BaseSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGQUEUER_LAYOUT", raising=False)
    table = rows(section)
    assert list(table) == list(model.model_fields)
    defaults = model()
    for name, field in model.model_fields.items():
        named, default, *_ = table[name]
        assert re.findall(r"`(\w+)`", named) == variables(model, name, field), name
        assert default == shown(getattr(defaults, name)), name


def test_every_variable_that_the_code_reads() -> None:
    sources = [*(ROOT / "pgq_fast").rglob("*.py"), ROOT / "setup.py", ROOT / "tests/conftest.py"]
    read = set()
    for source in sources:
        read |= set(
            re.findall(r"\b(?:PGQUEUER|PGQ_FAST|PGQ_TEST)_[A-Z_]*[A-Z]\b", source.read_text())
        )
    # A prefix, and the pattern of a comment.
    prefixes = {"PGQUEUER_MCP", "PGQUEUER_X"}
    assert sorted(name for name in read - prefixes if f"`{name}`" not in PAGE) == []
