"""What the runs of a folder were, beside their results: `run.json` (specs/archive.md, Folders)."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from ptycho_core import __version__
from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.errors import DataError, printable
from ptycho_core.events import finite
from ptycho_core.report.facts import scan_facts
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.fields import default_of, fields_of, to_mapping
from ptycho_core.storage.files import write_text

log = logging.getLogger(__name__)

RECORD_NAME = "run.json"
VERSION = 1  # specs/archive.md, Folders
MOST_SCANS = 10  # specs/archive.md, Folders
LARGEST_BYTES = 2**26


@attrs.frozen(kw_only=True)
class Origin:
    """Where a run is from. command: what repeats it; sources: table → setting → the words for where it is set."""

    command: str | None = None
    sources: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)


def write_record(
    folder: Path,
    work: str,
    *,
    configs: Mapping[str, Any],
    scans: Sequence[Scan],
    engine: EngineInfo,
    seconds: Mapping[str, float],
    history: Sequence[Mapping[str, Any]] = (),
    warnings: Sequence[str] = (),
    origin: Origin | None = None,
    stopped: str | None = None,
) -> Path:
    """Add a run to the record of the folder, in the place of an earlier one of the same work; the last run is last.

    configs: by table. seconds: wall time by step. history: a row for each epoch or sweep. stopped: what ended it early.
    """
    origin = origin or Origin()
    runs = _runs_before(folder / RECORD_NAME)
    runs.pop(work, None)
    runs[work] = finite(
        {
            "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": origin.command,
            "stopped": stopped,
            "settings": {table: _settings(config, origin.sources.get(table, {})) for table, config in configs.items()},
            "scans": [scan_facts(scan) for scan in scans[:MOST_SCANS]],
            "number_of_scans": len(scans),
            "warnings": [printable(warning) for warning in warnings],
            "versions": {
                "ptycho-core": __version__,
                engine.framework: engine.version,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "system": platform.platform(),
            },
            "engine": attrs.asdict(engine),
            "seconds": dict(seconds),
            "history": [dict(row) for row in history],
        }
    )
    text = json.dumps({"version": VERSION, "runs": runs}, indent=1, default=str)
    write_text(folder / RECORD_NAME, text + "\n")
    return folder / RECORD_NAME


def read_record(folder: Path) -> dict[str, dict[str, Any]]:
    """The runs of a folder by work, in the order in which they ended; none where nothing is recorded.

    DataError for a record that is none of ours.
    """
    file = folder / RECORD_NAME
    try:
        if file.stat().st_size > LARGEST_BYTES:
            raise ValueError(f"{file.stat().st_size} bytes")
        record = json.loads(file.read_text(encoding="utf-8"))
        runs = record["runs"]
        if record["version"] != VERSION or not all(_is_run(run) for run in runs.values()):
            raise ValueError(f"version {record['version']}")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = f"Remove {file.name}: the results themselves are in other files."
        expected = f"a record of runs, version {VERSION}"
        raise DataError(file, expected=expected, received=f"{type(error).__name__}: {error}", remedy=remedy) from error
    return dict(runs)


TABLES = {"settings": dict, "scans": list, "warnings": list, "versions": dict, "seconds": dict, "history": list}


def _is_run(run: Any) -> bool:
    return isinstance(run, dict) and all(isinstance(run.get(name), kind) for name, kind in TABLES.items())


def _runs_before(file: Path) -> dict[str, Any]:
    """Those of a record that can be read; a damaged one is no reason to lose a run."""
    try:
        return read_record(file.parent)
    except DataError as error:
        log.warning("%s It is replaced.", error)
        return {}


def _settings(config: Any, sources: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Value and origin by name; what a program has set itself is from there."""
    values, told = to_mapping(config), {}
    for name, field in fields_of(type(config)).items():
        same = getattr(config, name) == default_of(config, field)
        told[name] = {"value": values.get(name), "from": sources.get(name, "default" if same else "program")}
    return told
