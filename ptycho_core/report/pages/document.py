"""A page as one file: text that is escaped, figures, and the scripts that draw them, all inside."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptycho_core.report.pages.figures import Model, plotting
from ptycho_core.storage.files import make_folder, replacing

TEMPLATES = Path(__file__).parent
SCRIPT = re.compile(r"^\s*<script[^>]*>(.*)</script>\s*$", re.DOTALL)


def save_page(path: Path, template: str, figures: Mapping[str, Model], **values: Any) -> Path:
    """Write the page, whole or not at all. figures: by the name under which the template places them."""
    make_folder(path.parent)
    text = page(template, figures, **values)
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))
    return path


def page(template: str, figures: Mapping[str, Model], **values: Any) -> str:
    """HTML of a page that fetches nothing.

    Its policy lets the scripts that are in it run, by their digests, and no other, whatever a file of data may say.
    """
    plotting()
    from bokeh.embed import components
    from bokeh.embed.bundle import bundle_for_objs_and_resources
    from bokeh.resources import INLINE
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    scripts: list[str] = []
    divs: dict[str, str] = {}
    if figures:
        bundle = bundle_for_objs_and_resources(list(figures.values()), INLINE)
        script, divs = components(dict(figures))
        found = SCRIPT.match(script)
        assert found is not None
        scripts = [*(str(each) for each in bundle.js_raw), found[1]]
    digests = " ".join(f"'sha256-{_digest(script)}'" for script in scripts) or "'none'"
    policy = f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data:; font-src data:"
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    policy = f"{policy}; base-uri 'none'; form-action 'none'"
    text: str = environment.get_template(template).render(scripts=scripts, divs=divs, policy=policy, **values)
    return text


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
