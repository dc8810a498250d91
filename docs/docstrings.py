"""Docstrings on the site: what is said of a parameter or field becomes an item of a list, and errors a paragraph."""

from __future__ import annotations

import re
from typing import Any

import griffe

ERRORS = re.compile(r"(?<=[.;:)`])\s((?:Raises )?[A-Z]\w*Error\b)")


class Fields(griffe.Extension):
    """`name: text` at the beginning of a line or a sentence, where `name` is a parameter or field of the object."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is None:
            return
        names = {parameter.name for parameter in getattr(obj, "parameters", ())} | set(obj.members)
        text = "\n\n".join(_listed(paragraph, names) for paragraph in obj.docstring.value.split("\n\n"))
        obj.docstring.value = text.replace("\n\n1. ", "\n\n<!-- another list -->\n\n1. ")


def _listed(paragraph: str, names: set[str]) -> str:
    if paragraph.lstrip().startswith(">>>"):
        return f"```pycon\n{paragraph.strip()}\n```"
    if not names or paragraph.lstrip().startswith(("|", "-", "1.")):
        return paragraph
    several = rf"(?:{'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))})"
    label = re.compile(rf"(?:^|(?<=[.;])\s+)({several}(?:, {several})*):\s", flags=re.MULTILINE)
    flat = re.sub(r"\n\s+", "\n", paragraph)
    if not label.search(flat):
        return ERRORS.sub(r"\n\n\1", flat)
    pieces = label.split(flat)
    items = [
        f"- {', '.join(f'**{name}**' for name in labels.split(', '))}: {text.strip()}"
        for labels, text in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    last, *errors = ERRORS.split(items[-1], maxsplit=1)
    end = f"\n\n{''.join(errors)}" if errors else ""
    return "\n".join([pieces[0].strip(), "", *items[:-1], last.strip()]).strip() + end
