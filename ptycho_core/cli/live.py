"""`ptycho watch` and `ptycho replay`: a scan that is still measured, and one that is played back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import click

from ptycho_core.cli.options import FILE, config_options
from ptycho_core.cli.shared import (
    PlacingCommand,
    SectionedCommand,
    config_option,
    console,
    events_option,
    output_options,
    overwrite_option,
    preview_option,
    serve_option,
    told_origin,
)
from ptycho_core.settings.sources import Layers, build_config


@click.command(cls=SectionedCommand)
@click.argument("source")
@config_option("inference", "solving", "execution", "reading")
@click.option(
    "--patience",
    type=float,
    default=30.0,
    show_default=True,
    help="Seconds without anything new, after which a file or a folder has ended; a stream says so itself.",
)
@click.option("--first", type=int, default=0, show_default=True, help="Number in the name of a folder's first frame.")
@overwrite_option
@events_option
@preview_option
@serve_option
@output_options
@config_options("inference", "execution", "reading", leave_out=("test_data_file",))
def watch(
    source: str,
    config: Path | None,
    patience: float,
    first: int,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Reconstruct SOURCE while it is measured.

    SOURCE is a file that grows (HDF5, in SWMR mode or not), a folder to which frames or a master file are written, or
    an address, tcp://HOST:PORT, to which frames are sent. Without --model it is solved, as [solving] says. Killed and
    started again, it goes on with the frames that had come.
    """
    sections = ("inference", "execution", "reading", "solving")
    layers = Layers(config, flags, *sections)
    configs = layers.build()
    output = console(quiet, as_json, configs["execution"])
    inference = configs["inference"]
    from ptycho_core.live.sources import source_of
    from ptycho_core.models.model import Model, load_model
    from ptycho_core.runs.prepare import prepare_reconstruction, prepare_solving
    from ptycho_core.runs.watch import watch_into
    from ptycho_core.settings.solving import SolveConfig

    folder = inference.output_dir
    model: Model | SolveConfig
    if inference.model_path is None:
        solving: SolveConfig = attrs.evolve(configs["solving"], output_dir=folder, backend=inference.backend)
        prepare_solving(solving, configs["execution"], overwrite=overwrite)
        model = solving
    else:
        model = load_model(inference.model_path)
        prepare_reconstruction(model, inference, overwrite=overwrite)
    told_origin(output, layers)
    opened = source_of(source, configs["reading"], patience, first)
    if (bound := getattr(opened, "bound", None)) is not None:
        output.say(f"listening on {bound}")
    try:
        _, summary = watch_into(
            folder,
            opened,
            model,
            config=inference,
            execution=configs["execution"],
            reading=configs["reading"],
            output=output,
            overwrite=overwrite,
        )
    except KeyboardInterrupt:
        output.say("Stopped; what has come is kept. The same command goes on.")
        raise
    live = summary["live"]
    text = f"{summary['reconstruction']}: {live['placed']} frames placed"
    text += f", {live['without_position']} without a position" if live["without_position"] else ""
    output.result(summary, text)


@click.command(cls=PlacingCommand)
@click.argument("scan", type=FILE)
@click.option("--to", "address", default="tcp://127.0.0.1:5555", show_default=True, help="Address of ptycho watch.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), default=500.0, show_default=True, help="Frames a second."
)
@click.option("--shuffle", is_flag=True, help="Send frames and positions in an order drawn at random.")
@click.option("--duplicate", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Part sent twice.")
@click.option("--late", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Part that is late.")
@click.option("--late-s", type=click.FloatRange(min=0), default=10.0, show_default=True, help="By so many seconds.")
@click.option("--lose", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Part that is never sent.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of what goes wrong.")
@output_options
@config_options("reading")
def replay(scan: Path, address: str, rate: float, quiet: bool, as_json: bool, **flags: Any) -> None:
    """Send SCAN to ptycho watch as if it were measured."""
    faults = {name: flags.pop(name) for name in ("shuffle", "duplicate", "late", "late_s", "lose", "seed")}
    output = console(quiet, as_json)
    reading = build_config(None, flags, "reading")["reading"]
    from ptycho_core.events import counting
    from ptycho_core.io import load_scan
    from ptycho_core.live.replay import Faults
    from ptycho_core.live.replay import replay as send

    data = load_scan(scan, reading)
    data.check_probe()
    with output.listening() as tell:
        sent = send(data, address, rate=rate, faults=Faults(**faults), tell=counting(tell, "replay", "frame"))
    output.result({"sent": sent, "of": len(data)}, f"{sent} of {len(data)} frames sent")


COMMANDS = (watch, replay)
