"""The specifications keep step with the code: every setting is in its table, every citation leads to a heading."""

from __future__ import annotations

import re
import tomllib
import typing
from pathlib import Path
from typing import Any

import pytest

from ptycho_core.config import SECTIONS
from ptycho_core.fields import fields_of

ROOT = Path(__file__).parents[2]
SPECS = ROOT / "specs"
CITING = (
    "ptycho_core/**/*.py",
    "engines/**/*.py",
    "tests/**/*.py",
    "benchmarks/**/*.py",
    "specs/*.md",
    "docs/**/*.md",
    "*.md",
)
CITATION = re.compile(r"\bspecs/(\w+\.md)`?(?:, (?=[A-Z])(.{1,60}))?")
"""`specs/physics.md` alone, or with a heading and whatever follows it: `specs/physics.md, Losses: …`."""


def headings(spec: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", (SPECS / spec).read_text(encoding="utf-8"), flags=re.MULTILINE)


def citations() -> list[tuple[str, str, str]]:
    """(where, spec, what follows the comma or "") of every citation in code and documents, its lines joined."""
    found = []
    for path in sorted({path for pattern in CITING for path in ROOT.glob(pattern)}):
        text = re.sub(r"\s*\n[\s#]*", " ", path.read_text(encoding="utf-8"))
        where = path.relative_to(ROOT).as_posix()
        found += [(where, match[1], match[2] or "") for match in CITATION.finditer(text)]
    return found


def leads_somewhere(spec: str, after: str) -> bool:
    if not (SPECS / spec).is_file():
        return False
    return not after or any(re.match(rf"{re.escape(heading)}\b", after) for heading in headings(spec))


def table_of(class_name: str) -> dict[str, tuple[str, str]]:
    """Field → (default, whole row) of the table under the heading of a class in specs/configuration.md."""
    text = (SPECS / "configuration.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text.split(f"\n## {class_name}\n", 1)[1], flags=re.MULTILINE)[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {name.strip("`"): (default.strip("`"), row) for (name, _, default, _), row in zip(cells, rows, strict=True)}


def parsed(default: str) -> Any:
    """A default as TOML writes it; `unset` is None."""
    return None if default == "unset" else tomllib.loads(f"value = {default}")["value"]


@pytest.mark.parametrize("cls", SECTIONS.values(), ids=lambda cls: cls.__name__)
def test_every_field_of_a_configuration_is_in_the_table_and_nothing_else(cls: type) -> None:
    assert list(table_of(cls.__name__)) == list(fields_of(cls))


@pytest.mark.parametrize("cls", SECTIONS.values(), ids=lambda cls: cls.__name__)
def test_the_table_states_the_defaults_of_the_code(cls: type) -> None:
    stated = {name: parsed(default) for name, (default, _) in table_of(cls.__name__).items()}
    defaults = {name: field.default for name, field in fields_of(cls).items()}
    assert stated == defaults
    assert {name: type(value) for name, value in stated.items()} == {
        name: type(value) for name, value in defaults.items()
    }


@pytest.mark.parametrize("cls", SECTIONS.values(), ids=lambda cls: cls.__name__)
def test_the_table_names_every_choice_of_a_field(cls: type) -> None:
    hints = typing.get_type_hints(cls)
    for name, (_, row) in table_of(cls.__name__).items():
        if typing.get_origin(hints[name]) is typing.Literal:
            missing = [choice for choice in typing.get_args(hints[name]) if f"`{choice}`" not in row]
            assert not missing, f"{cls.__name__}.{name}"


def test_every_citation_of_a_specification_leads_to_a_heading() -> None:
    cited = citations()
    assert [citation for citation in cited if not leads_somewhere(*citation[1:])] == []
    assert any(after for _, _, after in cited), "no citation with a heading was found: look at the pattern"


@pytest.mark.parametrize(
    ("spec", "after"), [("physics.md", "Lossy terms"), ("physic.md", "Losses"), ("physics.md", "NPZ")]
)
def test_a_citation_that_leads_nowhere_is_noticed(spec: str, after: str) -> None:
    assert not leads_somewhere(spec, after)
