"""No field is left without a test of what it promises."""

from __future__ import annotations

import ast
from pathlib import Path

from ptycho_core.settings.fields import fields_of
from ptycho_core.settings.sections import SECTIONS

TESTS = Path(__file__).parents[2]
FILES = (
    "core/settings/test_fields.py",
    "core/solving/test_fields.py",
    "core/solving/test_prior_fields.py",
    "core/formats/test_readers.py",
    "core/formats/test_situations.py",
    "core/formats/test_cubes_and_links.py",
    "contract/test_fields.py",
    "contract/test_deterministic.py",
    "contract/test_registered.py",
)


def test_every_field_has_a_test_that_changing_it_changes_what_it_promises() -> None:
    """Marked `@pytest.mark.field("section.name", …)`, or named in a table that a marked test is made of."""
    named = set()
    for file in FILES:
        for node in ast.walk(ast.parse((TESTS / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("field", "pytest.mark.field"):
                named |= {part.value for part in node.args if isinstance(part, ast.Constant)}
    from tests.core.settings.test_fields import SCHEDULES

    named |= {f"training.{name}" for name in SCHEDULES}
    every = {f"{section}.{name}" for section, cls in SECTIONS.items() for name in fields_of(cls)}
    assert every - named == set()
    assert named - every == set()
