"""The Python blocks of a Markdown page, run one after the other as one program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def run_page(path: Path) -> dict[str, Any]:
    """Run them in the working directory; the names that they leave. An error shows the line of the page."""
    text = path.read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "__page__"}
    blocks = list(BLOCK.finditer(text))
    assert blocks, f"{path} has no Python block"
    for block in blocks:
        above = "\n" * text.count("\n", 0, block.start(1))
        exec(compile(above + block[1], str(path), "exec"), names)  # noqa: S102 - our own pages
    return names
