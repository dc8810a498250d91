"""`ptycho train-prior`: a prior of the solver, learned from a folder of scans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ptycho_core.cli.importing import next_command
from ptycho_core.cli.options import FILE, config_options
from ptycho_core.cli.shared import (
    SectionedCommand,
    config_option,
    console,
    events_option,
    output_options,
    overwrite_option,
    with_scan,
)
from ptycho_core.errors import ArchiveError
from ptycho_core.settings.files import annotated_toml
from ptycho_core.settings.prior import PriorConfig
from ptycho_core.settings.sources import Layers, build_config

SECTIONS = ("prior", "execution", "reading")


@click.command("train-prior", cls=SectionedCommand)
@click.argument("scans", type=FILE, required=False)
@config_option(*SECTIONS)
@click.option("--resume", is_flag=True, help="Continue the run in the output folder after its last complete epoch.")
@click.option("--show-config", is_flag=True, help="Print the configuration and the origin of each value, then exit.")
@overwrite_option
@events_option
@output_options
@config_options(*SECTIONS, leave_out=("inference_batch_size",))
def train_prior(
    scans: Path | None,
    config: Path | None,
    resume: bool,
    show_config: bool,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Learn a prior from the scans in the folder SCANS.

    Each scan is solved, and a small network learns what solving leaves: from simulated scans with their ground
    truth, or with --from-scans from measured ones whose photons are thinned. `ptycho solve --prior OUT` uses it.
    With --resume all settings are those that the run began with. Ctrl-C keeps the last complete epoch.
    """
    with_scan(flags, "scans_dir", scans)
    begun: PriorConfig | None = None
    if resume:
        folder = Path(Layers(config, flags, *SECTIONS).values["prior"].get("output_dir") or PriorConfig().output_dir)
        stored = folder / "config.toml"
        if not stored.exists():
            remedy = "Give the folder of a run as --out, or start one without --resume."
            raise ArchiveError(stored, expected="the configuration of a run", received="no such file", remedy=remedy)
        begun = build_config(stored, {}, *SECTIONS)["prior"]
        config = config or stored
    layers = Layers(config, flags, *SECTIONS)
    configs = layers.build()
    if show_config:
        click.echo(annotated_toml(layers.sources, **configs), nl=False)
        return
    output = console(quiet, as_json, configs["execution"])
    settings: PriorConfig = configs["prior"]
    from ptycho_core.runs.prepare import prepare_prior
    from ptycho_core.runs.train_prior import check_goes_on, train_prior_into

    prepare_prior(settings, overwrite=overwrite or resume)

    if begun is not None:
        check_goes_on(begun, settings)
    done = train_prior_into(
        settings.output_dir,
        settings,
        execution=configs["execution"],
        reading=configs["reading"],
        output=output,
        resume=resume,
    )
    if done.summary is None:
        output.say("Stopped before the first epoch finished.")
    else:
        summary = done.summary
        left = f"{summary['loss']:.3g} of the error is left" + (
            f", {summary['unseen']:.3g} in lessons set aside" if "unseen" in summary else ""
        )
        output.result(summary, f"{summary['prior']}: {left}")
    if done.stop is not None:
        if isinstance(done.stop, KeyboardInterrupt) and configs["execution"].enable_checkpointing:
            command = ("ptycho", "train-prior", "--resume", "--out", str(settings.output_dir))
            output.say(f"Next: {next_command(*command)}")
        raise done.stop


COMMANDS = (train_prior,)
