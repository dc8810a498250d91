"""`ptycho simulate --many`: scans that differ, in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ptycho_core.errors import ConfigurationError
from ptycho_core.formats.convert import save_scan
from ptycho_core.runs.console import Output
from ptycho_core.simulation import simulate
from ptycho_core.simulation.many import VARIED, varied
from ptycho_core.storage.keeping import check_folder_is_free, locked

FLAGS_OF = {
    "object": "object_",
    "probe": "probe",
    "photons": "photons",
    "step": "step_px",
    "amplitude": "amplitude_range",
    "phase": "phase_range",
}
"""What may vary → the parameter that states it."""


def simulate_many(
    folder: Path, many: int, vary: str | None, settings: dict[str, Any], output: Output, *, overwrite: bool
) -> None:
    """Write `scan-0000.npz` and so on. vary: what differs, separated by commas; None is all that no flag states.

    settings: arguments of `simulate` for what does not vary.
    """
    names = _varying(vary)
    scans = (simulate(**{**settings, **each}) for each in varied(many, names, N=settings["N"], seed=settings["seed"]))
    digits = max(4, len(str(many - 1)))
    files = [f"scan-{number:0{digits}}.npz" for number in range(many)]
    check_folder_is_free(folder, files, overwrite=overwrite)
    first = next(scans)  # its errors come before a folder is made
    with locked(folder):
        for number, name in enumerate(files):
            save_scan(folder / name, next(scans) if number else first)
            if (number + 1) % 20 == 0:
                output.say(f"{number + 1}/{many} scans")
    summary = {"folder": str(folder), "scans": many, "vary": names, "seed": settings["seed"]}
    output.result(summary, f"{folder}: {many} scans that differ in {', '.join(names) or 'their seed alone'}")


def _varying(vary: str | None) -> list[str]:
    context = click.get_current_context()
    stated = [n for n, flag in FLAGS_OF.items() if context.get_parameter_source(flag) is ParameterSource.COMMANDLINE]
    if vary is None:
        return [name for name in VARIED if name not in stated]
    names = [name.strip().lower() for name in vary.split(",")]
    for name in names:
        if name in stated:
            remedy = f"Leave {name} out of --vary, or leave its flag out."
            expected = "what differs from scan to scan, or one value for all"
            raise ConfigurationError("--vary", expected=expected, received=f"{name} in both", remedy=remedy)
    return names
