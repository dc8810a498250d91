"""The site holds more than this folder: specifications, examples, architecture and changelog, from where they lie.

Links between files of the repository lead to the pages that these files become, and `specs/….md` in the text is a link.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    **{f"specs/{path.name}": f"specs/{path.name}" for path in sorted((ROOT / "specs").glob("*.md"))},
    **{f"examples/{path.name}": f"examples/{path.stem}.md" for path in sorted((ROOT / "examples").glob("*.py"))},
}
"""File of the repository outside docs/ → page of the site."""
SOURCES = {page: source for source, page in PAGES.items()}
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")
SPECIFICATION = re.compile(r"(?<!\[)`(specs/\w+\.md)`")


def on_files(files: Files, config: Any) -> Files:
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_example(source, text) if source.endswith(".py") else text))
    return files


def _example(source: str, code: str) -> str:
    title = code.partition('"""')[2].partition("\n")[0].partition(":")[0].rstrip(".")
    return f"# {title}\n\nThe tests run this file, `{source}`, as it stands.\n\n```python\n{code}```\n"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    here = page.file.src_uri
    if here.startswith("examples/"):
        return markdown
    folder = posixpath.dirname(SOURCES.get(here, f"docs/{here}"))

    def to(path: str) -> str:
        return posixpath.relpath(path, posixpath.dirname(here) or ".")

    def moved(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join(folder, target))
        if "://" in target:
            return match[0]
        if path in PAGES:
            return f"[{text}]({to(PAGES[path])}{anchor})"
        return f"[{text}]({to(path.removeprefix('docs/'))}{anchor})" if path.startswith("docs/") else text

    def cited(match: re.Match[str]) -> str:
        return f"[{match[0]}]({to(match[1])})"

    return SPECIFICATION.sub(cited, LINK.sub(moved, markdown))
