"""`ptycho report` and `ptycho compare`: what runs have come to, as pages for a browser."""

from __future__ import annotations

from pathlib import Path

import click

from ptycho_core.cli.options import FILE
from ptycho_core.cli.shared import PlacingCommand, console, output_options, overwrite_option


@click.command(cls=PlacingCommand)
@click.argument("folder", type=FILE)
@output_options
def report(folder: Path, quiet: bool, as_json: bool) -> None:
    """Make report.html of the runs in FOLDER again.

    One file that works offline: settings and where each is from, the scan, curves, the object, probe, trust map,
    resolution, positions, the worst frames. train, solve and reconstruct make it themselves.
    """
    output = console(quiet, as_json)
    from ptycho_core.report.pages import REPORT_NAME, write_report

    path = write_report(folder, folder / REPORT_NAME)
    output.result({"report": str(path)}, f"{path}: open it in a browser")


@click.command(cls=PlacingCommand)
@click.argument("runs", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FILE, default=Path("compare.html"), show_default=True, help="Page to write.")
@overwrite_option
@output_options
def compare(runs: tuple[Path, ...], out: Path, overwrite: bool, quiet: bool, as_json: bool) -> None:
    """Put RUNS, two or more output folders, side by side on a page.

    Objects are held against the first one after alignment; beside them the curves and the settings that differ.
    """
    output = console(quiet, as_json)
    from ptycho_core.report.pages import write_comparison
    from ptycho_core.storage.keeping import check_new

    check_new(out, overwrite=overwrite)
    summary = write_comparison(runs, out)
    told = [
        f"{name}: correlation {row['correlation with the first']:.4f} with {next(iter(summary['runs']))}"
        for name, row in summary["runs"].items()
        if row["correlation with the first"] is not None
    ]
    output.result(summary, "\n".join([f"{out}: open it in a browser", *told]))


COMMANDS = (report, compare)
