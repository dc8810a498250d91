"""`ptycho solve`: the object of a scan without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ptycho_core.cli.importing import next_command
from ptycho_core.cli.options import FILE, config_options, solve_resumed
from ptycho_core.cli.shared import (
    SectionedCommand,
    again,
    config_option,
    console,
    events_option,
    files_in_words,
    image_formats,
    is_truth,
    load,
    output_options,
    overwrite_option,
    preview_option,
    serve_option,
    sharing,
    told_origin,
    with_scan,
    write_option,
)
from ptycho_core.engine.launched import place_of
from ptycho_core.errors import DataError, ProcessError
from ptycho_core.settings.files import annotated_toml
from ptycho_core.settings.sources import Layers

if TYPE_CHECKING:
    from ptycho_core.runs.console import Output
    from ptycho_core.scans.scan import Scan
    from ptycho_core.settings.reading import ReadOptions
    from ptycho_core.settings.solving import SolveConfig

SECTIONS = ("solving", "execution", "reading")


@click.command(cls=SectionedCommand)
@click.argument("scan", type=FILE, required=False)
@config_option(*SECTIONS)
@click.option("--resume", is_flag=True, help="Continue the run in the output folder after its last complete sweep.")
@click.option("--show-config", is_flag=True, help="Print the configuration and the origin of each value, then exit.")
@write_option
@overwrite_option
@events_option
@preview_option
@serve_option
@output_options
@config_options(*SECTIONS, leave_out=("inference_batch_size",))
def solve(
    scan: Path | None,
    config: Path | None,
    resume: bool,
    show_config: bool,
    write: str | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Solve SCAN: the object that fits, without a network.

    Probe, positions and intensities are refined where that helps; a probe that the file does not hold is
    found. With --resume all settings, including SCAN, are those that the run began with. Ctrl-C keeps the last complete
    sweep.
    """
    formats = image_formats(write)
    with_scan(flags, "data_file", scan)
    layers, checkpoint = Layers(config, flags, *SECTIONS), None
    if resume:
        layers, checkpoint = solve_resumed(config, flags, *SECTIONS)
    configs = layers.build()  # its errors come before a large scan is read
    if show_config:
        click.echo(annotated_toml(layers.sources, **configs), nl=False)
        return
    place = place_of(configs["execution"])
    output = console(quiet, as_json, configs["execution"], place)
    settings: SolveConfig = configs["solving"]
    from ptycho_core.runs.prepare import prepare_solving

    load_engine = prepare_solving(settings, configs["execution"], formats, overwrite=overwrite or resume)
    shared = sharing(load_engine, configs["execution"], place)
    with shared.reading():
        data, reading = _load(settings, configs["reading"], output)
    told_origin(output, layers)
    from ptycho_core.runs.solve import solve_into

    try:
        done = solve_into(
            settings.output_dir,
            data,
            settings,
            execution=configs["execution"],
            reading=reading,
            output=output,
            resume=checkpoint,
            formats=formats,
            **shared.settings,
        )
    except KeyboardInterrupt as stop:  # while the result of the last sweep was made
        raise shared.wish.reason(stop) from None
    if done.summary is None and not isinstance(done.stop, ProcessError):
        output.say("Stopped before the first sweep finished; nothing was written.")
    elif done.summary is not None:
        summary = done.summary
        text = f"{summary['reconstruction']}: R {summary['R']:.4g}, H {summary['H']:.4g} on held-out pixels"
        output.result(summary, files_in_words(text, summary))
        if isinstance(done.stop, KeyboardInterrupt) and configs["execution"].enable_checkpointing:
            words = ("ptycho", "solve", "--resume", "--out", str(settings.output_dir), *again(configs["execution"]))
            output.say(f"Next: {next_command(*words)}")
        elif done.stop is None and data.object_field is not None and is_truth(settings.data_file, reading):
            words = ("ptycho", "evaluate", str(settings.output_dir), "--truth", str(settings.data_file))
            output.say(f"Next: {next_command(*words)}")
    if done.stop is not None:
        raise shared.wish.reason(done.stop)


def _load(settings: SolveConfig, reading: ReadOptions, output: Output) -> tuple[Scan, ReadOptions]:
    """The scan; one without a probe as one whose probe is unknown, which is said."""
    import attrs

    try:
        return load(settings, "data_file", reading, "a scan to solve"), reading
    except DataError as error:
        if error.state != ("probe",) or reading.probe is not None:
            raise
        output.say(f"WARNING: {error.source}: no probe in the file; it is looked for. State a known one: --probe.")
        reading = attrs.evolve(reading, probe="auto")
        return load(settings, "data_file", reading, "a scan to solve"), reading


COMMANDS = (solve,)
