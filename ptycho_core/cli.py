"""The command line: `ptycho …`. Flags come from the configuration classes (specs/configuration.md).

Every command imports what it needs when it runs, so that `ptycho --help` answers at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import click

from ptycho_core import __version__
from ptycho_core.config import SECTIONS, ExecutionConfig, InferenceConfig, ModelConfig, TrainingConfig
from ptycho_core.configfiles import read_config, to_toml
from ptycho_core.errors import MissingExtraError, PtychoError, TrainingError
from ptycho_core.fields import fields_of, from_mapping

if TYPE_CHECKING:
    from ptycho_core.contracts import Scan
    from ptycho_core.training import EpochReport, Fit, Progress

Command = Callable[..., Any]
FILE = click.Path(path_type=Path)
EXIT_INPUT, EXIT_INTERRUPT = 2, 130


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
    """Ptychographic images from physics-informed networks."""


# -- options -------------------------------------------------------------------------------------------------------


def flag_of(field: str) -> str:
    """`batch_size` → `--batch-size`."""
    return "--" + field.replace("_", "-")


def config_options(*sections: str, leave_out: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """One flag for every field of the sections' classes; the command is given those that were set, by field name."""

    def decorate(command: Command) -> Command:
        for section in reversed(sections):
            hints = typing.get_type_hints(SECTIONS[section])
            for name, field in reversed(fields_of(SECTIONS[section]).items()):
                if name not in leave_out:
                    command = _option(name, hints[name], field)(command)
        return command

    return decorate


def _option(name: str, annotation: Any, field: attrs.Attribute[Any]) -> Callable[[Command], Command]:
    default = "unset" if field.default is None else field.default
    shown = f"{field.metadata['help']}  [default: {str(default).lower() if isinstance(default, bool) else default}]"
    kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
    if typing.get_origin(annotation) is Literal:
        return click.option(flag_of(name), name, type=click.Choice(kinds), default=None, help=shown)
    if annotation is bool:
        return click.option(f"{flag_of(name)}/--no-{flag_of(name)[2:]}", name, default=None, help=shown)
    return click.option(flag_of(name), name, type=kinds[0] if kinds else annotation, default=None, help=shown)


def output_options(command: Command) -> Command:
    """`--quiet` and `--json`, for every command that computes."""
    command = click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON on stdout.")(command)
    return click.option("--quiet", is_flag=True, help="Print nothing but errors and, if asked for, JSON.")(command)


def measurement_option(command: Command) -> Command:
    kinds = click.Choice(["intensity", "amplitude"])
    text = "What the patterns hold: counts, or their square root; needed where the file does not say."
    return click.option("--measurement", type=kinds, default=None, help=text)(command)


def build_config(
    path: Path | None, flags: dict[str, Any], *sections: str, defaults: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One configuration for each section: a flag wins over the file, the file over `defaults`, these over the class."""
    tables = {} if path is None else read_config(path)
    source = None if path is None else str(path)
    for section in sections:
        known = fields_of(SECTIONS[section])
        given = {name: value for name, value in flags.items() if name in known and value is not None}
        assumed = {name: value for name, value in (defaults or {}).items() if name in known}
        tables[section] = {**assumed, **tables.get(section, {}), **given}
    built = {name: from_mapping(SECTIONS[name], tables[name], source=source) for name in sections if name != "training"}
    if "training" in sections:
        built["training"] = from_mapping(TrainingConfig, tables["training"], source=source, model=built["model"])
    return built


class Output:
    """Where a command's words go: messages and progress to stderr, results to stdout."""

    def __init__(self, quiet: bool, as_json: bool) -> None:
        self.quiet, self.as_json = quiet, as_json
        level = logging.ERROR if quiet else logging.INFO
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger = logging.getLogger("ptycho_core")
        logger.handlers, logger.level, logger.propagate = [handler], level, False

    def say(self, message: str) -> None:
        if not self.quiet:
            click.echo(message, err=True)

    def result(self, summary: dict[str, Any], text: str = "") -> None:
        """The summary as JSON if asked for; otherwise the text, unless quiet."""
        if self.as_json:
            click.echo(json.dumps(summary, indent=2))
        elif text and not self.quiet:
            click.echo(text)

    @contextmanager
    def bar(self, total: int, title: str, unit: str) -> Iterator[Callable[[int, str], None]]:
        """`update(done, note)` moves a bar on a terminal and does nothing elsewhere."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda done, note: None
            return
        from tqdm import tqdm

        with tqdm(total=total, desc=title, unit=unit, dynamic_ncols=True, leave=True) as bar:

            def update(done: int, note: str) -> None:
                bar.set_postfix_str(note, refresh=False)
                bar.update(done - bar.n)

            yield update


# -- steps that commands share -------------------------------------------------------------------------------------


def run_training(
    scan: Scan,
    config: TrainingConfig,
    test: Scan | None,
    execution: ExecutionConfig,
    output: Output,
    folder: Path,
) -> tuple[Fit, KeyboardInterrupt | TrainingError | None]:
    """Train with progress; the best model so far is in `folder` after every epoch.

    What stopped the run early, if anything did, is returned for the caller to raise.
    """
    from ptycho_core.training import fit

    last = "loss –"

    def on_batch(progress: Progress) -> None:
        done = (progress.epoch - 1) * run.patterns_per_epoch + progress.patterns
        update(done, f"epoch {progress.epoch}/{progress.nepochs}, {last}")

    run = fit(scan, config, test=test, execution=execution, on_batch=on_batch)
    output.say(f"backend: {run.engine.name} ({run.engine.framework} {run.engine.version})")
    started = time.perf_counter()
    with output.bar(config.nepochs * run.patterns_per_epoch, "train", "pattern") as update:
        try:
            for report in run:
                last = describe_losses(report)
                if report.is_best and run.model is not None:
                    run.model.save(folder)  # whatever ends the run later, the best so far is on disk
                update(report.epoch * run.patterns_per_epoch, f"epoch {report.epoch}/{report.nepochs}, {last}")
                left = (time.perf_counter() - started) / report.epoch * (report.nepochs - report.epoch)
                if not sys.stderr.isatty():
                    rate = f"{report.patterns_per_second:.0f} patterns/s, {left:.0f} s left"
                    output.say(f"epoch {report.epoch}/{report.nepochs}: {last}, {rate}")
        except (KeyboardInterrupt, TrainingError) as stop:
            return run, stop
    return run, None


def describe_losses(report: EpochReport) -> str:
    text = f"loss {report.train['total']:.4g}"
    return text if report.validation is None else f"{text}, validation {report.validation['total']:.4g}"


def write_training(run: Fit, folder: Path, execution: ExecutionConfig, output: Output) -> dict[str, Any]:
    """`wts.h5.zip`, `config.toml`, `history.csv` and `loss.png` of a run; returns its summary."""
    from ptycho_core.archive import history_csv
    from ptycho_core.io.files import write_text

    assert run.model is not None
    archive = run.model.save(folder)
    write_text(folder / "config.toml", to_toml(model=run.config.model, training=run.config, execution=execution))
    write_text(folder / "history.csv", history_csv(run.history))
    figure = draw(output, "plot_losses", run.history, folder / "loss.png")
    return {
        "archive": str(archive),
        "backend": run.engine.name,
        "framework_version": run.engine.version,
        "epochs": len(run.history),
        "best_epoch": run.model.best_epoch,
        "losses": run.history[run.model.best_epoch - 1],
        "seconds": sum(row["seconds"] for row in run.history),
        "figure": figure,
    }


def draw(output: Output, function: str, *arguments: Any, **keywords: Any) -> str | None:
    """A figure of `ptycho_core.report.plots`; without the plotting extra it is left out, and that is said."""
    from ptycho_core.report import plots

    path: Path = next(argument for argument in arguments if isinstance(argument, Path))
    try:
        getattr(plots, function)(*arguments, **keywords)
    except MissingExtraError as error:
        output.say(f"{path.name} is left out: {error}")
        return None
    return str(path)


# -- commands ------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("scan", type=FILE)
@click.option("--test", type=FILE, default=None, help="A second scan; its loss chooses the best weights.")
@click.option("--out", type=FILE, default=None, help="Folder to write to; made if it is not there.")
@click.option("--config", type=FILE, default=None, help="TOML file with tables [model], [training], [execution].")
@click.option("--show-config", is_flag=True, help="Print the configuration that flags and file give, and stop.")
@measurement_option
@output_options
@config_options("model", "training", "execution", leave_out=("inference_batch_size",))
def train(
    scan: Path,
    test: Path | None,
    out: Path | None,
    config: Path | None,
    show_config: bool,
    measurement: Literal["amplitude", "intensity"] | None,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train a network on SCAN; no ground truth is needed. N is taken from the scan unless it is set."""
    from ptycho_core.io import load_scan
    from ptycho_core.io.files import make_folder

    output = Output(quiet, as_json)
    if out is None and not show_config:
        raise click.UsageError("Missing option '--out'.")
    build_config(config, flags, "model", "training", "execution")  # its errors come before a large scan is read
    data = load_scan(scan, measurement=measurement)
    configs = build_config(config, flags, "model", "training", "execution", defaults={"N": data.N})
    if out is None or show_config:
        click.echo(to_toml(**configs), nl=False)
        return
    test_data = None if test is None else load_scan(test, measurement=measurement)
    make_folder(out)
    run, stop = run_training(data, configs["training"], test_data, configs["execution"], output, out)
    if run.model is None:
        output.say("No epoch had ended: nothing was written.")
    else:
        summary = {**write_training(run, out, configs["execution"], output), "stopped_early": stop is not None}
        output.result(summary, f"{summary['archive']}: best epoch {summary['best_epoch']} of {summary['epochs']}")
    if stop is not None:
        raise stop


@cli.command()
@click.argument("scan", type=FILE)
@click.option("--model", "model_path", type=FILE, required=True, help="Model archive, or the folder that holds it.")
@click.option("--out", type=FILE, required=True, help="Folder to write to; made if it is not there.")
@click.option("--backend", default="auto", show_default=True, help="Engine: any engine reads any model.")
@click.option("--config", type=FILE, default=None, help="TOML file with tables [inference], [execution].")
@measurement_option
@output_options
@config_options("inference", "execution")
def reconstruct(
    scan: Path,
    model_path: Path,
    out: Path,
    backend: str,
    config: Path | None,
    measurement: Literal["amplitude", "intensity"] | None,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Reconstruct the object of SCAN with a trained model."""
    from ptycho_core.archive import load_model
    from ptycho_core.io import load_scan
    from ptycho_core.io.files import make_folder

    output = Output(quiet, as_json)
    configs = build_config(config, flags, "inference", "execution")
    data, model = load_scan(scan, measurement=measurement), load_model(model_path)
    make_folder(out)
    summary = reconstruct_into(data, model, out, backend, configs["inference"], configs["execution"], output)
    text = (
        f"{summary['reconstruction']}: {summary['patterns']} patterns, {summary['patterns_per_second']:.0f} patterns/s"
    )
    output.result(summary, text)


def reconstruct_into(
    scan: Scan,
    model: Any,
    folder: Path,
    backend: str,
    inference: InferenceConfig,
    execution: ExecutionConfig,
    output: Output,
) -> dict[str, Any]:
    """`reconstruction.npz`, `.json` and `.png` of a scan; returns the summary."""
    from ptycho_core import reconstruction
    from ptycho_core.io.files import write_text

    groups = inference.n_groups or len(scan)
    with output.bar(groups, "reconstruct", "group") as update:
        result = reconstruction.reconstruct(
            scan,
            model,
            backend=backend,
            config=inference,
            execution=execution,
            on_batch=lambda done, total: update(done, ""),
        )
    path = folder / "reconstruction.npz"
    result.save(path)
    figure = draw(output, "plot_reconstruction", result.object_field, result.probe, folder / "reconstruction.png")
    summary = {**result.summary(), "scan": scan.source, "reconstruction": str(path), "figure": figure}
    write_text(folder / "reconstruction.json", json.dumps(summary, indent=2) + "\n")
    return summary


@cli.command()
@click.argument("reconstruction", type=FILE)
@click.option("--truth", type=FILE, required=True, help="Scan or NPZ file with the true object as objectGuess.")
@output_options
def evaluate(reconstruction: Path, truth: Path, quiet: bool, as_json: bool) -> None:
    """Compare RECONSTRUCTION (a file, or the folder that holds it) with the truth, ambiguities removed."""
    output = Output(quiet, as_json)
    summary, text = evaluate_into(reconstruction, truth, output)
    output.result(summary, text)


def evaluate_into(reconstruction: Path, truth: Path, output: Output) -> tuple[dict[str, Any], str]:
    """`evaluation.json` and `evaluation.png` beside the reconstruction; returns the summary and a table."""
    from ptycho_core.evaluation import evaluate, load_truth
    from ptycho_core.io.files import write_text
    from ptycho_core.reconstruction import load_reconstruction

    result = load_reconstruction(reconstruction)
    folder = reconstruction if reconstruction.is_dir() else reconstruction.parent
    evaluation = evaluate(result, load_truth(truth))
    figure = draw(
        output,
        "plot_comparison",
        evaluation.estimate,
        evaluation.truth,
        evaluation.metrics.frc,
        folder / "evaluation.png",
        mask=evaluation.compared,
    )
    summary = {**evaluation.as_dict(), "truth": str(truth), "figure": figure}
    write_text(folder / "evaluation.json", json.dumps(summary, indent=2) + "\n")
    return summary, evaluation.table()


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

    output = Output(quiet, as_json)
    scan = simulate_scan(object=object_, **settings)
    save_scan(out, scan)
    summary = {"scan": str(out), "frames": len(scan), "N": scan.N, "seed": settings["seed"]}
    output.result(summary, f"{out}: {len(scan)} patterns of {scan.N} x {scan.N} pixels")


@cli.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--figure", type=FILE, default=None, help="Draw a scan's mean pattern, probe and positions (.png).")
@measurement_option
def inspect(
    file: Path, as_json: bool, figure: Path | None, measurement: Literal["amplitude", "intensity"] | None
) -> None:
    """Say what FILE is: a scan, a model archive or a reconstruction."""
    from ptycho_core.report.inspection import inspect_file

    Output(quiet=False, as_json=as_json)

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
    from ptycho_core.simulation import simulate as simulate_scan

    output = Output(quiet, as_json)
    make_folder(out)
    path = out / "scan.npz"
    output.say("1/4 simulate")
    save_scan(path, simulate_scan(**DEMO_SCAN))
    scan = load_scan(path)
    output.say("2/4 train")
    config = TrainingConfig(model=ModelConfig(**DEMO_MODEL), backend=backend, n_groups=len(scan), **DEMO_TRAINING)
    execution = ExecutionConfig()
    run, stop = run_training(scan, config, None, execution, output, out)
    if stop is not None:
        raise stop
    training = write_training(run, out, execution, output)
    output.say("3/4 reconstruct")
    model = load_model(out)
    reconstruction = reconstruct_into(scan, model, out, run.engine.name, InferenceConfig(), execution, output)
    output.say("4/4 evaluate")
    evaluation, table = evaluate_into(out, path, output)
    figures = f"figures: {', '.join(str(out / name) for name in ('loss.png', 'reconstruction.png', 'evaluation.png'))}"
    summary = {"training": training, "reconstruction": reconstruction, "evaluation": evaluation}
    output.result(summary, f"{table}\n{figures}")


DEMO_SCAN: dict[str, Any] = {"object": "siemens-star", "positions": 500, "photons": 1e6, "seed": 0}
DEMO_MODEL: dict[str, Any] = {"N": 64, "n_filters_scale": 1}
DEMO_TRAINING: dict[str, Any] = {"nepochs": 12, "batch_size": 4}
