"""The Python blocks of a Markdown page, and the cells of a notebook, run one after the other as one program."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def run_notebook(path: Path) -> list[Any]:
    """Run its code cells in the working directory; what each shows, the value of its last expression or None."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names, shown = {"__name__": "__notebook__"}, []
    for number, cell in enumerate(cell for cell in cells if cell["cell_type"] == "code"):
        assert not cell["outputs"], f"{path}: cell {number} keeps an output"
        tree, place = ast.parse("".join(cell["source"])), f"{path}, cell {number}"
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, place, "exec"), names)  # noqa: S102 - our own notebooks
        value = last.value if isinstance(last, ast.Expr) else None
        shown.append(None if value is None else eval(compile(ast.Expression(value), place, "eval"), names))  # noqa: S307
    return shown


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
