"""Documents keep step: changelog fragments, floors in ARCHITECTURE.md, links between pages, the pages of the site."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FRAGMENTS = sorted(
    path for path in (ROOT / "changelog.d").iterdir() if path.name not in PROJECT["tool"]["towncrier"]["ignore"]
)
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("specs/*.md"), *ROOT.glob("changelog.d/*.md")]
)
KINDS = [kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def fault_of(name: str, text: str) -> str | None:
    """What is wrong with a fragment, if anything is."""
    match = re.fullmatch(r"([a-z0-9]+(?:-[a-z0-9]+)*)\.(\w+)\.md", name)
    if match is None or match[2] not in KINDS:
        return f"expected the name words-with-hyphens.<{'|'.join(KINDS)}>.md"
    if text.strip() == "" or text.lstrip().startswith(("#", "-", "*")):
        return "expected a sentence, without heading or bullet"
    if not re.search(r"[.:`)]$", text.strip()):
        return "expected a full stop at the end"
    return None


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_of_the_changelog_is_well_formed(path: Path) -> None:
    assert fault_of(path.name, path.read_text(encoding="utf-8")) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Solve.added.md", "A command."),
        ("solve.new.md", "A command."),
        ("solve.added.txt", "A command."),
        ("solve.added.md", "\n"),
        ("solve.added.md", "- A command."),
        ("solve.added.md", "A command"),
    ],
)
def test_a_fragment_that_is_not_well_formed_is_noticed(name: str, text: str) -> None:
    assert fault_of(name, text) is not None


def floors_in_the_contract() -> list[set[str]]:
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    return [set(re.findall(r"\w+", layer)) for layer in layers]


def test_the_architecture_names_the_floors_of_the_contract() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", text, flags=re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", rooms)) for _, rooms in rows] == floors_in_the_contract()
    assert [int(number) for number, _ in rows] == list(range(len(rows), 0, -1))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_site_has_every_page() -> None:
    """Of docs/, specs/ and examples/: its navigation names them."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = set(re.findall(r"([\w/]+\.md)$", navigation, flags=re.MULTILINE))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    pages |= {f"specs/{path.name}" for path in ROOT.glob("specs/*.md")}
    pages |= {f"examples/{path.stem}.md" for path in ROOT.glob("examples/*.py")}
    pages |= {"architecture.md", "contributing.md", "changelog.md"}
    assert named == pages


def test_every_public_name_is_explained_and_on_a_page_of_the_site() -> None:
    import ptycho_core
    from ptycho_core import errors

    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    names = [name for name in dir(ptycho_core) if not name.startswith("_")]
    assert "train" in names and "::: ptycho_core.errors\n" in pages
    listed = {*re.findall(r"^::: [\w.]+\.(\w+)$", pages, flags=re.MULTILINE), *vars(errors)}
    assert [name for name in names if name not in listed] == []
    assert [name for name in names if not inspect.getdoc(getattr(ptycho_core, name))] == []
