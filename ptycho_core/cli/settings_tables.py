"""The reference tables of the documents, made from the configuration classes and the translation rules.

    python -m ptycho_core.cli.settings_tables docs

writes `configuration.md` and `legacy.md` into that folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from ptycho_core.legacy.translation import INFERENCE_RULES, MODEL_RULES, NOT_CARRIED, TRAINING_RULES, Rule
from ptycho_core.models.flat import PUBLISHED, flat_key
from ptycho_core.settings.fields import condition, fields_of, needs_of, show_default, takes_of
from ptycho_core.settings.sections import SECTIONS
from ptycho_core.storage.files import write_text

GENERATED = "<!-- python -m ptycho_core.cli.settings_tables docs -->\n"

CONFIGURATION = """\
# Configuration

Every setting by the class that holds it, which is also its table in a configuration file. `batch_size` is the flag
`--batch-size`, the variable `PTYCHO_BATCH_SIZE` and, under `[training]`, the key `batch_size`. The rules are in
`specs/configuration.md`. In bold: what people change most, which `--help` shows; `--help-all` shows all of them.
"Only with" names what else must be set: without it the field would have no effect and is refused.
"""

LEGACY = """\
# Published configurations, dictionaries and entry points

`ptycho_core.legacy` takes what users of the published implementations have. There is no global dictionary: a caller
that has one passes it in.

- `update_legacy_dict(cfg, config)` writes the fields with a flat key marked "published"; `to_legacy_dict(config)` adds
  every other field that is not at its default, and `from_legacy_dict(flat, cls)` gives the same configuration back. A
  dictionary, a configuration or an archive that leaves `architecture` out is of `cnn`.
- `to_model_config(data, model, overrides)`, `to_training_config(model, data, pt_model, training, overrides)` and
  `to_inference_config(model, data, inference, overrides)` take PyTorch-style configurations, as objects or mappings;
  overrides are fields of this package and take precedence. nphotons left at their default 1e5, a missing n_groups
  and a missing train_data_file are errors that name the override; a missing test_data_file is a warning; a warning
  lists the fields that neither table below knows.
- `RawData.from_file`, `.from_coords_without_pc`, `.to_file`, `.generate_grouped_data`; `PtychoDataContainer` in
  `ptycho_core.legacy`.
- `run_cdi_example`, `train_cdi_model`, `load_inference_bundle`, `reassemble_cdi_image`, `save_outputs`; `results` hold
  `model`, `history`, `best_epoch`, `backend` and `engine`, with stitching also `obj_image`, `origin_px` and
  `reconstruction`. `M` places the central M × M pixels of a patch, all of it where it is not given.

`n_images` is a deprecated spelling of `n_groups`, with a DeprecationWarning; an explicit `n_groups` takes precedence.
"""


def configuration_reference() -> str:
    """A table for every class: field, type, default, meaning, what it takes, what it needs beside it."""
    parts = [GENERATED + CONFIGURATION]
    for section, cls in SECTIONS.items():
        rows = [_setting_row(cls, name, field) for name, field in fields_of(cls).items()]
        title = f"## {cls.__name__}\n\nTable `[{section}]`. {(cls.__doc__ or '').splitlines()[0]}\n\n"
        parts.append(title + _table(("field", "takes", "default", "meaning", "only with"), rows))
    return "\n".join(parts)


def legacy_reference() -> str:
    """A table of every field on each side, and of what nothing of ours follows from."""
    parts = [GENERATED + LEGACY]
    for section in ("model", "training", "inference"):
        cls = SECTIONS[section]
        rows = [_legacy_row(cls, name, field) for name, field in fields_of(cls).items()]
        header = ("ours", "flat key", "PyTorch-style", "transformation", "our default", "their default")
        parts.append(f"## {cls.__name__}\n\n{_table(header, rows)}")
    rows = [(f"`{name}`", where) for name, where in NOT_CARRIED.items()]
    parts.append(f"## Not carried over\n\n{_table(('PyTorch-style', 'instead'), rows)}")
    return "\n".join(parts)


def _setting_row(cls: type[Any], name: str, field: attrs.Attribute[Any]) -> tuple[str, ...]:
    beside = [condition(f"`{other}`", allowed) for other, allowed in needs_of(field).items()]
    shown = f"**`{name}`**" if field.metadata["common"] else f"`{name}`"
    return (shown, takes_of(cls, name), f"`{show_default(field)}`", field.metadata["help"], "; ".join(beside))


def _legacy_row(cls: type[Any], name: str, field: attrs.Attribute[Any]) -> tuple[str, ...]:
    rules = [rule for rule in (*MODEL_RULES, *TRAINING_RULES, *INFERENCE_RULES) if (rule.cls, rule.ours) == (cls, name)]
    key = f"`{flat_key(name)}`" + (" (published)" if name in PUBLISHED[cls] else "")
    theirs, how, default = (_of(rules, part) for part in ("theirs", "how", "default"))
    return (f"`{name}`", key, theirs, how, f"`{show_default(field)}`", default)


def _of(rules: list[Rule], part: str) -> str:
    if not rules:
        return ""
    value = getattr(rules[0], part)
    if part == "default":
        return "`unset`" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"
    return f"`{value}`" if part == "theirs" else str(value)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


DOCUMENTS = {"configuration.md": configuration_reference, "legacy.md": legacy_reference}
"""File → what makes its text."""


def main(folder: Path) -> None:
    for name, make in DOCUMENTS.items():
        write_text(folder / name, make())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
