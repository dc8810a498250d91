"""Commands on files: simulate, inspect, convert, split and export; and the list of engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from ptycho_core.cli.options import FILE, config_options
from ptycho_core.cli.shared import (
    PlacingCommand,
    SectionedCommand,
    config_option,
    console,
    output_options,
    overwrite_option,
)
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.events import counting
from ptycho_core.settings.fields import flag_of
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.sources import build_config

if TYPE_CHECKING:
    from ptycho_core.scans.scan import Scan
    from ptycho_core.scans.steps import Orient


@click.command(cls=PlacingCommand)
@click.argument("out", type=FILE)
@click.option("--N", "N", type=int, default=64, show_default=True, help="Side of a pattern, pixels.")
@click.option("--positions", type=int, default=1000, show_default=True, help="Number of scan positions.")
@click.option("--object", "object_", default="lines", show_default=True, help="Kind of object, or a file.")
@click.option("--probe", default="defocused-zone-plate", show_default=True, help="Kind of probe, or a file.")
@click.option("--scan", default="random", show_default=True, help="Kind of scan: raster, fermat or random.")
@click.option("--photons", type=float, default=1e6, show_default=True, help="Mean photons per pattern.")
@click.option("--step-px", type=float, default=None, help="Mean distance between positions, pixels.  [default: N/8]")
@click.option("--modes", type=int, default=1, show_default=True, help="Incoherent probe modes.")
@click.option("--bad-pixels", type=int, default=0, show_default=True, help="Number of dead and hot detector pixels.")
@click.option(
    "--amplitude-range", type=(float, float), default=(0.5, 1.0), show_default=True, help="Amplitude of the object."
)
@click.option(
    "--phase-range", type=(float, float), default=(0.0, 0.8), show_default=True, help="Phase of the object, rad."
)
@click.option(
    "--noise/--no-noise",
    default=True,
    show_default=True,
    help="Draw Poisson counts; otherwise write their expectation.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of object, positions and counts.")
@click.option("--many", type=click.IntRange(min=1), default=None, help="Write so many scans into the folder OUT.")
@click.option(
    "--vary",
    default=None,
    metavar="LIST",
    help="What differs from scan to scan: some of object,probe,photons,step,amplitude,phase.  [default: all of them]",
)
@overwrite_option
@output_options
def simulate(
    out: Path,
    object_: str,
    many: int | None,
    vary: str | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Simulate a scan, with its ground truth, into OUT (.npz).

    With --many OUT is a folder of scans that differ.
    """
    if many is not None:
        from ptycho_core.cli.many import simulate_many

        settings = {**settings, "object": object_}
        simulate_many(out, many, vary, settings, console(quiet, as_json), overwrite=overwrite)
        return
    if vary is not None:
        remedy = "Say how many scans, --many 200."
        raise ConfigurationError("--vary", expected="--many beside it", received="no --many", remedy=remedy)
    from ptycho_core.formats.convert import save_scan, targets_of
    from ptycho_core.simulation import simulate as simulate_scan
    from ptycho_core.storage.files import check_other_files, check_space
    from ptycho_core.storage.keeping import check_new

    output = console(quiet, as_json)
    if out.suffix.lower() != ".npz":
        received = f"the ending {out.suffix!r}"
        remedy = "Give a file name that ends in .npz."
        raise ConfigurationError(out, expected="the ending .npz", received=received, remedy=remedy)
    for source in map(Path, (object_, settings["probe"])):
        if source.is_file():  # and no kind
            check_other_files(source, out)
    check_new(*targets_of(out), overwrite=overwrite)
    check_space(out, 4 * settings["positions"] * settings["N"] ** 2)
    scan = simulate_scan(object=object_, **settings)
    save_scan(out, scan)
    summary = {"scan": str(out), "frames": len(scan), "N": scan.N, "seed": settings["seed"]}
    output.result(summary, f"{out}: {len(scan)} patterns of {scan.N} x {scan.N} pixels")


@click.command(cls=SectionedCommand)
@click.argument("file", type=FILE)
@click.option(
    "--check-orientation", is_flag=True, help="Rank the eight orientations that the detector of a scan may have."
)
@click.option(
    "--figure",
    type=FILE,
    default=None,
    help="Draw the mean pattern, probe and positions of a scan to this file (.png).",
)
@click.option(
    "--suggest", is_flag=True, help="Print the command line that reads a scan of any kind, and what it does not say."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@config_option("reading")
@config_options("reading")
def inspect(
    file: Path,
    check_orientation: bool,
    figure: Path | None,
    suggest: bool,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Describe FILE: a scan, model, checkpoint or reconstruction."""
    reading: ReadOptions = build_config(config, flags, "reading")["reading"]
    if suggest:
        console(quiet=False, as_json=as_json).result(*_suggested(file, reading))
        return
    from ptycho_core.report.facts import archive_facts, scan_facts, scan_table

    output = console(quiet=False, as_json=as_json)
    if figure is not None:
        from ptycho_core.storage.files import check_other_files

        if figure.suffix.lower() != ".png":
            received = f"the ending {figure.suffix!r}"
            remedy = "Give a file name that ends in .png."
            raise ConfigurationError(figure, expected="the ending .png", received=received, remedy=remedy)
        check_other_files(file, figure)
    facts = archive_facts(file)
    if facts is not None:
        asked = {"--check-orientation": check_orientation, "--figure": figure is not None}
        for flag in (flag for flag, given in asked.items() if given):
            received, remedy = f"a {facts['kind']}", "Leave it out."
            raise DataError(file, flag, expected="a scan", received=received, remedy=remedy)
        output.result(facts, as_table(facts))
        return
    from ptycho_core.io.readers import read_known
    from ptycho_core.quality.judging import judge, table

    scan = read_known(file, reading)
    facts = scan_facts(scan, file)
    findings = judge(scan)
    text = f"{scan_table(facts)}\n\n{table(findings)}"
    if check_orientation:
        from ptycho_core.io.assembly import detector_orientation
        from ptycho_core.scans.orientation import combined, rank_orientations

        with output.listening() as tell:
            ranking = rank_orientations(scan, progress=counting(tell, "orientation", "sweep"))
        facts["orientation"] = ranking.as_dict()
        text += f"\n\n{ranking.as_table()}"
        best = ranking.best
        if best is None:
            best, facts["orientation"]["solved"], solved = _solved_orientation(scan)
            text += f"\n\nEach of them solved for a few sweeps:\n{solved}"
        if best is not None:
            turn = attrs.asdict(combined(detector_orientation(reading), best))
            flags_of_best = " ".join(flag_of(name) for name, given in turn.items() if given)
            facts["orientation"]["flags"] = flags_of_best
            text += f"\nRead it with: {flags_of_best or 'none of --transpose, --flip-rows, --flip-columns'}"
    if figure is not None:
        from ptycho_core.report.plots import plot_scan

        plot_scan(scan, figure)
    output.result(facts, text)
    for finding in findings:
        if finding.severity == "error":
            raise finding.error(scan.source)


def _suggested(file: Path, reading: ReadOptions) -> tuple[dict[str, Any], str]:
    """The command that reads a scan, and what is to be filled in, as plain values and in words."""
    from ptycho_core.io.gaps import command_of, gaps_of, held_in
    from ptycho_core.io.readers import MAPPED, read_known

    gaps, held, known = gaps_of(file, reading), held_in(file), MAPPED
    try:
        known = str(read_known(file, reading).metadata["reader"])
        gaps = ()
    except DataError:
        if not gaps:
            raise
    facts: dict[str, Any] = {
        "reader": known,
        "command": command_of(file, reading, gaps),
        "fill_in": {flag_of(gap.option): gap.why for gap in gaps if not gap.sure},
        "holds": [str(each) for each in sorted(held, key=lambda each: -len(each.shape))],
    }
    lines = [f"  {each}" for each in facts["holds"]] if gaps else [f"It is read as it is, by {known}."]
    lines += [facts["command"], *(["Fill in:"] if facts["fill_in"] else [])]
    wide = max(map(len, facts["fill_in"]), default=0)
    return facts, "\n".join([*lines, *(f"  {flag:{wide}}  {why}" for flag, why in facts["fill_in"].items())])


def _solved_orientation(scan: Scan) -> tuple[Orient | None, list[dict[str, Any]], str]:
    """The orientation that short solves single out, or None; what was tried, as plain values and in words."""
    from ptycho_core.engine.registry import load_engine
    from ptycho_core.settings.execution import ExecutionConfig
    from ptycho_core.solving.asking import orientation_of
    from ptycho_core.solving.choices import Trial, table

    asking = orientation_of(scan, load_engine("auto"), ExecutionConfig())
    trials: list[Trial] = []
    while True:
        try:
            trials.append(next(asking))
        except StopIteration as end:
            return end.value, [trial.as_dict() for trial in trials], table(trials)
        except DataError as undecided:
            reason = (undecided.received or "").splitlines()[0]
            return None, [trial.as_dict() for trial in trials], f"{table(trials)}\nundecided: {reason}"


def as_table(facts: dict[str, Any]) -> str:
    width = max(map(len, facts))
    return "\n".join(f"{name:{width}}  {value}" for name, value in facts.items())


@click.command(cls=SectionedCommand)
@click.argument("source", metavar="IN", type=FILE)
@click.argument("target", metavar="OUT", type=FILE)
@click.option(
    "--format", "format_", default=None, help="Format of OUT: npz, cxi or ptychodus.  [default: from its ending]"
)
@click.option(
    "--scan", type=FILE, default=None, help="For a published model: the scan to take its data scale and probe from."
)
@overwrite_option
@output_options
@config_option("reading")
@config_options("reading")
def convert(
    source: Path,
    target: Path,
    format_: str | None,
    scan: Path | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Convert IN, a scan or a published model, to OUT.

    A scan becomes an NPZ file (.npz), a CXI file (.cxi) or the two files of Ptychodus (.h5 or a folder). A model
    archive of the published implementations becomes a model archive (.h5.zip or a folder); nothing in it is executed.
    """
    reading: ReadOptions = build_config(config, flags, "reading")["reading"]
    from ptycho_core.formats.convert import convert as convert_scan
    from ptycho_core.formats.convert import targets_of
    from ptycho_core.io import load_scan
    from ptycho_core.published import convert_published, is_published
    from ptycho_core.storage.files import check_other_files
    from ptycho_core.storage.keeping import check_new

    output = console(quiet, as_json)
    if is_published(source):
        if format_ is not None:
            received, remedy = f"--format {format_}", "Leave it out: a published model becomes a model archive."
            raise ConfigurationError(source, expected="a scan", received=received, remedy=remedy)
        check_new(target, overwrite=overwrite)
        written = convert_published(source, target, scan=None if scan is None else load_scan(scan, reading))
        output.result({"written": [str(written)]}, str(written))
        return
    if scan is not None:
        raise ConfigurationError(source, expected="a published model", received="a scan", remedy="Leave out --scan.")
    check_other_files(source, *targets_of(target, format_))
    check_new(*targets_of(target, format_), overwrite=overwrite)
    with output.listening() as tell:
        progress = counting(tell, "convert", "pattern")
        files = convert_scan(source, target, reading, format=format_, progress=progress)
    names = [str(file) for file in files]
    output.result({"written": names}, "\n".join(names))


@click.command(cls=SectionedCommand)
@click.argument("scan", type=FILE)
@click.argument("train", type=FILE)
@click.argument("test", type=FILE)
@click.option("--test-fraction", type=float, default=0.2, show_default=True, help="Fraction of the patterns in TEST.")
@click.option(
    "--how",
    type=click.Choice(["spatial", "random"], case_sensitive=False),
    default="spatial",
    show_default=True,
    help="Cut the scanned area in two, or draw patterns at random.",
)
@click.option(
    "--axis",
    type=click.Choice(["x", "y"], case_sensitive=False),
    default=None,
    help="Axis to cut across.  [default: the longer one]",
)
@click.option(
    "--margin-px", type=float, default=0.0, show_default=True, help="Width of the strip left out along the cut, pixels."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of a random split.")
@overwrite_option
@output_options
@config_option("reading")
@config_options("reading")
def split(
    scan: Path,
    train: Path,
    test: Path,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    config: Path | None,
    **options: Any,
) -> None:
    """Split SCAN into TRAIN and TEST, which share no pattern.

    The endings of the two files set their format.
    """
    settings = {name: options.pop(name) for name in ("test_fraction", "how", "axis", "margin_px", "seed")}
    reading: ReadOptions = build_config(config, options, "reading")["reading"]
    from ptycho_core.formats.convert import format_of, targets_of, write_scan
    from ptycho_core.io.readers import read_known
    from ptycho_core.scans.splitting import split as split_scan
    from ptycho_core.storage.files import check_folder, check_other_files
    from ptycho_core.storage.keeping import check_new

    output = console(quiet, as_json)
    check_other_files(scan, train, test)
    for target in (train, test):  # both before either is written
        format_of(target)
        check_folder(target.parent)
        check_new(*targets_of(target), overwrite=overwrite)
    parts = split_scan(read_known(scan, reading), **settings)
    write_scan(train, parts.train)
    write_scan(test, parts.test)
    summary = {"train": str(train), "test": str(test), **parts.as_dict()}
    counts = f"{train}: {len(parts.train)} patterns\n{test}: {len(parts.test)} patterns"
    output.result(summary, counts + (f"\nleft out: {len(parts.left_out)}" if len(parts.left_out) else ""))


@click.command(cls=PlacingCommand)
@click.argument("model", type=FILE)
@click.argument("out", type=FILE)
@click.option("--form", default=None, help="onnx, savedmodel or torch-export.  [default: from the ending of OUT]")
@click.option("--backend", default="auto", show_default=True, help="Engine that writes the program; ONNX needs none.")
@click.option(
    "--layout",
    default="channels-last",
    show_default=True,
    help="Of ONNX also nchw-amp-phase: (B, 1, N, N) in, amplitude and phase (B, 2, N, N) out.",
)
@overwrite_option
@output_options
def export(
    model: Path, out: Path, form: str | None, backend: str, layout: str, overwrite: bool, quiet: bool, as_json: bool
) -> None:
    """Export MODEL to OUT, a program that needs no ptycho-core.

    The program maps diffraction patterns to object patches. OUT ends in .onnx (ONNX), in .pt2 (torch.export), or has
    no ending: a folder (TensorFlow SavedModel).
    """
    from ptycho_core.models.export import export_model, form_of
    from ptycho_core.models.model import load_model
    from ptycho_core.storage.keeping import check_new

    output = console(quiet, as_json)
    form = form or form_of(out)
    check_new(out, overwrite=overwrite)
    written = export_model(load_model(model), out, form=form, backend=backend, layout=layout)
    output.result({"written": str(written), "form": form}, str(written))


@click.command(cls=PlacingCommand)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def engines(as_json: bool) -> None:
    """List the engines, their frameworks and devices.

    One that is not installed, and one of another package that fails, is listed as such; a warning gives the reason.
    """
    from ptycho_core.engine.registry import engine_facts

    console(quiet=False, as_json=as_json)
    found = engine_facts()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for name, facts in found.items():
        values = [str(facts["framework"]), str(facts.get("version", "")), ", ".join(facts.get("devices", ()))]
        click.echo(f"{name:12} " + "  ".join(value for value in values if value))


COMMANDS = (simulate, inspect, convert, split, export, engines)
