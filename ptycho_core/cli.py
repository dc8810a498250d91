"""The command line: `ptycho …`. Flags come from the configuration classes (specs/configuration.md).

Every command imports what it needs when it runs, so that `ptycho --help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import click
from click.core import ParameterSource

from ptycho_core import __version__
from ptycho_core.config import ExecutionConfig, InferenceConfig, ModelConfig, TrainingConfig
from ptycho_core.configfiles import annotated_toml
from ptycho_core.console import Output
from ptycho_core.errors import ConfigurationError, PtychoError, explain
from ptycho_core.options import (
    FILE,
    Command,
    Layers,
    build_config,
    config_options,
    resumed_layers,
    warn_of_unknown_variables,
)

if TYPE_CHECKING:
    from ptycho_core.contracts import Scan

EXIT_INPUT, EXIT_INTERRUPT = 2, 130
Measurement = Literal["amplitude", "intensity"] | None


def main() -> None:
    """Run one command; an error of the input exits with 2 and an interrupt with 130, both without a traceback."""
    # The framework's chatter would drown our lines; a real failure raises. Its first lines come before it reads this.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except PtychoError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_INPUT)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        sys.exit(EXIT_INTERRUPT)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ptycho")
def cli() -> None:
    """Ptychographic images from physics-informed networks.

    A setting is given by a flag, by a variable such as PTYCHO_BATCH_SIZE, or in a file; the first of these that has
    it wins.
    """


def output_options(command: Command) -> Command:
    """`--quiet` and `--json`, for every command that computes."""
    command = click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON on stdout.")(command)
    return click.option("--quiet", is_flag=True, help="Print nothing but errors and, if asked for, JSON.")(command)


def measurement_option(command: Command) -> Command:
    kinds = click.Choice(["intensity", "amplitude"])
    text = "What the patterns hold: counts, or their square root; needed where the file does not say."
    return click.option("--measurement", type=kinds, default=None, help=text)(command)


def config_option(*sections: str) -> Callable[[Command], Command]:
    tables = ", ".join(f"[{section}]" for section in sections)
    return click.option("--config", type=FILE, default=None, help=f"TOML or YAML file with tables {tables}.")


def console(quiet: bool, as_json: bool, progress_bar: bool = True) -> Output:
    """Where this command's words go; the core's log too."""
    output = Output(quiet, as_json, progress_bar)
    output.take_log()
    warn_of_unknown_variables()
    return output


def with_scan(flags: dict[str, Any], field: str, scan: Path | None) -> None:
    """The argument SCAN is another way to set `field`."""
    if scan is None:
        return
    context = click.get_current_context()
    if context.get_parameter_source(field) is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"SCAN and --{field.replace('_', '-')} are two names of one thing: give one of them.")
    flags[field] = scan
    context.set_parameter_source(field, ParameterSource.COMMANDLINE)


def load(config: Any, field: str, measurement: Measurement, what: str) -> Scan:
    """The scan that a configuration names, or an error that says how to name one."""
    from ptycho_core.io import load_scan

    path = getattr(config, field)
    if path is None:
        name, remedy = f"{type(config).__name__}.{field}", "Give it as the argument SCAN or in the configuration."
        raise ConfigurationError(explain(name, None, expected=what, received="none", remedy=remedy))
    return load_scan(path, measurement=measurement)


# -- commands ------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("scan", type=FILE, required=False)
@config_option("model", "training", "execution")
@click.option("--resume", is_flag=True, help="Go on with the run in the output folder, after its last whole epoch.")
@click.option("--show-config", is_flag=True, help="Print the configuration, and where each value is from, and stop.")
@measurement_option
@output_options
@config_options("model", "training", "execution", leave_out=("inference_batch_size",))
def train(
    scan: Path | None,
    config: Path | None,
    resume: bool,
    show_config: bool,
    measurement: Measurement,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train a network on SCAN; no ground truth is needed. N is taken from the scan unless it is set.

    With --resume all settings, SCAN among them, are those that the run began with; --nepochs, --early-stop-patience
    and what does not change the result may be set anew.
    """
    sections = ("model", "training", "execution")
    with_scan(flags, "train_data_file", scan)
    layers, checkpoint = Layers(config, flags, *sections), None
    if resume:
        layers, checkpoint = resumed_layers(config, flags, *sections)
    configs = layers.build()  # its errors come before a large scan is read
    output = console(quiet, as_json, configs["execution"].enable_progress_bar)
    data = None
    if not show_config or configs["training"].train_data_file is not None:
        data = load(configs["training"], "train_data_file", measurement, "a scan to train on")
    if data is not None and not resume:
        layers = Layers(config, flags, *sections, defaults={"N": (data.N, "scan")})
        configs = layers.build()
    if data is None or show_config:
        click.echo(annotated_toml(layers.sources, **configs), nl=False)
        return
    from ptycho_core.runs import train_into

    training: TrainingConfig = configs["training"]
    test = None
    if training.test_data_file is not None:
        test = load(training, "test_data_file", measurement, "a test scan")
    done = train_into(
        training.output_dir,
        data,
        training,
        test=test,
        execution=configs["execution"],
        output=output,
        resume=checkpoint,
    )
    if done.summary is None:
        output.say("No epoch had ended: nothing was written.")
    else:
        text = f"best epoch {done.summary['best_epoch']} of {done.summary['epochs']}"
        output.result(done.summary, f"{done.summary['archive']}: {text}")
    if done.stop is not None:
        raise done.stop


@cli.command()
@click.argument("scan", type=FILE, required=False)
@config_option("inference", "execution")
@measurement_option
@output_options
@config_options("inference", "execution")
def reconstruct(
    scan: Path | None,
    config: Path | None,
    measurement: Measurement,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Reconstruct the object of SCAN with a trained model."""
    with_scan(flags, "test_data_file", scan)
    configs = build_config(config, flags, "inference", "execution")
    output = console(quiet, as_json, configs["execution"].enable_progress_bar)
    inference: InferenceConfig = configs["inference"]
    if inference.model_path is None:
        raise click.UsageError("Missing option '--model'.")
    from ptycho_core.archive import load_model
    from ptycho_core.runs import reconstruct_into

    data = load(inference, "test_data_file", measurement, "a scan to reconstruct")
    model = load_model(inference.model_path)
    _, summary = reconstruct_into(
        inference.output_dir, data, model, config=inference, execution=configs["execution"], output=output
    )
    text = (
        f"{summary['reconstruction']}: {summary['patterns']} patterns, {summary['patterns_per_second']:.0f} patterns/s"
    )
    output.result(summary, text)


@cli.command()
@click.argument("reconstruction", type=FILE)
@click.option("--truth", type=FILE, required=True, help="Scan or NPZ file with the true object as objectGuess.")
@output_options
def evaluate(reconstruction: Path, truth: Path, quiet: bool, as_json: bool) -> None:
    """Compare RECONSTRUCTION (a file, or the folder that holds it) with the truth, ambiguities removed."""
    output = console(quiet, as_json)
    from ptycho_core.runs import evaluate_into

    summary, text = evaluate_into(reconstruction, truth, output)
    output.result(summary, text)


@cli.command()
@click.argument("out", type=FILE)
@click.option("--N", "N", type=int, default=64, show_default=True, help="Side of a pattern, pixels.")
@click.option("--positions", type=int, default=1000, show_default=True, help="Scan positions.")
@click.option("--object", "object_", default="lines", show_default=True, help="Kind of object, or a file.")
@click.option("--probe", default="defocused-zone-plate", show_default=True, help="Kind of probe, or a file.")
@click.option("--scan", default="random", show_default=True, help="Kind of scan: raster, fermat or random.")
@click.option("--photons", type=float, default=1e6, show_default=True, help="Mean photons a frame.")
@click.option("--step-px", type=float, default=None, help="Mean distance of positions, pixels.  [default: N/8]")
@click.option("--modes", type=int, default=1, show_default=True, help="Incoherent probe modes.")
@click.option("--bad-pixels", type=int, default=0, show_default=True, help="Dead and hot detector pixels.")
@click.option("--amplitude-range", type=(float, float), default=(0.5, 1.0), show_default=True, help="Of the object.")
@click.option("--phase-range", type=(float, float), default=(0.0, 0.8), show_default=True, help="Of the object, rad.")
@click.option("--noise/--no-noise", default=True, show_default=True, help="Poisson counts, or their expectation.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of object, positions and counts.")
@output_options
def simulate(out: Path, object_: str, quiet: bool, as_json: bool, **settings: Any) -> None:
    """Simulate a scan and write it to OUT (.npz) with its ground truth."""
    from ptycho_core.io import save_scan
    from ptycho_core.simulation import simulate as simulate_scan

    output = console(quiet, as_json)
    scan = simulate_scan(object=object_, **settings)
    save_scan(out, scan)
    summary = {"scan": str(out), "frames": len(scan), "N": scan.N, "seed": settings["seed"]}
    output.result(summary, f"{out}: {len(scan)} patterns of {scan.N} x {scan.N} pixels")


@cli.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--figure", type=FILE, default=None, help="Draw a scan's mean pattern, probe and positions (.png).")
@measurement_option
def inspect(file: Path, as_json: bool, figure: Path | None, measurement: Measurement) -> None:
    """Say what FILE is: a scan, a model archive or a reconstruction."""
    from ptycho_core.report.inspection import inspect_file

    console(quiet=False, as_json=as_json)
    facts = inspect_file(file, measurement)
    if figure is not None:
        from ptycho_core.io import load_scan
        from ptycho_core.report.plots import plot_scan

        plot_scan(load_scan(file, measurement=measurement), figure)
    click.echo(json.dumps(facts, indent=2) if as_json else as_table(facts))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def engines(as_json: bool) -> None:
    """List the engines, their frameworks and devices."""
    from ptycho_core.engine import is_installed, load_engine, registered_engines

    found = {
        name: attrs.asdict(load_engine(name).describe()) if is_installed(name) else {"framework": "not installed"}
        for name in registered_engines()
    }
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for name, facts in found.items():
        values = [str(facts["framework"]), str(facts.get("version", "")), ", ".join(facts.get("devices", ()))]
        click.echo(f"{name:12} " + "  ".join(value for value in values if value))


def as_table(facts: dict[str, Any]) -> str:
    width = max(map(len, facts))
    return "\n".join(f"{name:{width}}  {value}" for name, value in facts.items())


@cli.command()
@click.option("--backend", default="auto", show_default=True, help="Engine: auto, torch or tensorflow.")
@click.option("--out", type=FILE, default=Path("demo"), show_default=True, help="Folder to write to.")
@output_options
def demo(backend: str, out: Path, quiet: bool, as_json: bool) -> None:
    """The whole way on a simulated scan: simulate, train, save, load, reconstruct, evaluate."""
    from ptycho_core.archive import load_model
    from ptycho_core.io import load_scan, save_scan
    from ptycho_core.io.files import make_folder
    from ptycho_core.runs import evaluate_into, reconstruct_into, train_into
    from ptycho_core.simulation import simulate as simulate_scan

    output = console(quiet, as_json)
    make_folder(out)
    path = out / "scan.npz"
    output.say("1/4 simulate")
    save_scan(path, simulate_scan(**DEMO_SCAN))
    scan = load_scan(path)
    output.say("2/4 train")
    config = TrainingConfig(
        model=ModelConfig(**DEMO_MODEL),
        backend=backend,
        train_data_file=path,
        output_dir=out,
        n_groups=len(scan),
        **DEMO_TRAINING,
    )
    execution = ExecutionConfig()
    done = train_into(out, scan, config, execution=execution, output=output)
    if done.stop is not None:
        raise done.stop
    output.say("3/4 reconstruct")
    engine = done.run.engine.name
    _, reconstructed = reconstruct_into(out, scan, load_model(out), backend=engine, execution=execution, output=output)
    output.say("4/4 evaluate")
    evaluation, table = evaluate_into(out, path, output)
    figures = f"figures: {', '.join(str(out / name) for name in ('loss.png', 'reconstruction.png', 'evaluation.png'))}"
    summary = {"training": done.summary, "reconstruction": reconstructed, "evaluation": evaluation}
    output.result(summary, f"{table}\n{figures}")


DEMO_SCAN: dict[str, Any] = {"object": "siemens-star", "positions": 500, "photons": 1e6, "seed": 0}
DEMO_MODEL: dict[str, Any] = {"N": 64, "n_filters_scale": 1}
DEMO_TRAINING: dict[str, Any] = {"nepochs": 12, "batch_size": 4}
