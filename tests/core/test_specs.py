"""The specifications keep step with the code: every setting is in its table, every citation leads to a heading."""

from __future__ import annotations

import math
import re
import typing
from pathlib import Path

import pytest

from ptycho_core.cli.settings_tables import DOCUMENTS
from ptycho_core.settings.fields import fields_of, hints_of, kind_of
from ptycho_core.settings.sections import SECTIONS

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


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_generated_document_is_what_the_code_gives(name: str) -> None:
    """`python -m ptycho_core.cli.settings_tables docs` rewrites it."""
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == DOCUMENTS[name]()


def test_the_reference_names_every_field_and_every_choice() -> None:
    text = DOCUMENTS["configuration.md"]()
    for cls in SECTIONS.values():
        section = text.split(f"\n## {cls.__name__}\n", 1)[1].split("\n## ", 1)[0]
        rows = {line.split("`")[1]: line for line in section.splitlines() if line.startswith(("| `", "| **`"))}
        assert list(rows) == list(fields_of(cls))
        bold = [name for name, row in rows.items() if row.startswith("| **")]
        assert bold == [name for name, field in fields_of(cls).items() if field.metadata["common"]]
        for name, row in rows.items():
            kind = kind_of(hints_of(cls)[name])
            choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
            assert all(f"`{choice}`" in row for choice in choices), name


def test_every_citation_of_a_specification_leads_to_a_heading() -> None:
    cited = citations()
    assert [citation for citation in cited if not leads_somewhere(*citation[1:])] == []
    assert any(after for _, _, after in cited), "no citation with a heading was found: look at the pattern"


@pytest.mark.parametrize(
    ("spec", "after"), [("physics.md", "Lossy terms"), ("physic.md", "Losses"), ("physics.md", "NPZ")]
)
def test_a_citation_that_leads_nowhere_is_noticed(spec: str, after: str) -> None:
    assert not leads_somewhere(spec, after)


CONSTANT = re.compile(r"^([A-Z_, ]+) = (.+?)  # specs/(\w+\.md), (.+)$", re.MULTILINE)
"""A constant, or several, and the section that states it."""
SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def spellings(number: float) -> set[str]:
    """How a specification may write a number."""
    found = {f"{number:g}", f"{number:,}"}
    if number == int(number) > 0:
        whole = int(number)
        found |= {str(whole), f"{whole:,}", f"{whole}th", *WORDS[whole : whole + 1]}
        if whole.bit_count() == 1 < whole:
            exponent = whole.bit_length() - 1
            found |= {f"2{str(exponent).translate(SUPERSCRIPT)}", f"{whole >> 20} MiB", f"{whole >> 30} GiB"}
    elif 0 < number < 1:
        exponent = round(math.log10(number))
        found |= {f"{100 * number:g} %", f"1/{1 / number:g}"}
        found |= {f"10{str(exponent).translate(SUPERSCRIPT)}", f"1e{exponent}"} if 10.0**exponent == number else set()
        found |= {0.5: {"half"}, 0.1: {"tenth"}, 0.01: {"hundredth"}}.get(number, set())
    return found


def unstated(code: str) -> list[str]:
    """The constants of a module whose numbers are not in the section that they cite."""
    found = []
    for names, value, spec, after in CONSTANT.findall(code):
        parts = re.split(r"^#+ (.+)$", (SPECS / spec).read_text(encoding="utf-8"), flags=re.MULTILINE)
        sections = dict(zip(parts[1::2], parts[2::2], strict=True))
        title = max((title for title in sections if re.match(rf"{re.escape(title)}\b", after)), key=len)
        numbers = eval(value, {"__builtins__": {}})  # noqa: S307 - arithmetic of our own
        numbers = numbers if isinstance(numbers, tuple) else (numbers,)
        for number in numbers:
            if isinstance(number, str) or number < 0:
                continue
            ways = "|".join(map(re.escape, spellings(number)))
            if not re.search(rf"(?<![\w.,])(?:{ways})(?![\w⁰¹²³⁴⁵⁶⁷⁸⁹]|[.,]\d)", sections[title]):
                found.append(f"{names} = {number}: not in {spec}, {title}")
    return found


def test_a_constant_that_cites_a_section_has_a_number_that_is_stated_there() -> None:
    """Engines and reference share it, so that no comparison of them would notice another one."""
    code = [path.read_text(encoding="utf-8") for path in (ROOT / "ptycho_core").rglob("*.py")]
    assert sum(len(CONSTANT.findall(each)) for each in code) > 50, "look at the pattern"
    assert [line for each in code for line in unstated(each)] == []


@pytest.mark.parametrize(
    "line",
    [
        "ADAM_EPSILON = 1e-7  # specs/physics.md, Optimiser",
        "WIDE_PROBE = 0.3  # specs/model.md, Wide probes",
        "SURE, BETTER = 0.9, 0.06  # specs/physics.md, Metrics: correlations",
        "LOOKED_AT = 2**27  # specs/archive.md, Checkpoints: bytes of an array",
    ],
)
def test_a_constant_that_is_stated_nowhere_is_noticed(line: str) -> None:
    assert len(unstated(line)) == 1
