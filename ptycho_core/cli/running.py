"""Commands that compute: train, reconstruct, evaluate, and the demo that does all of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from ptycho_core.cli.importing import next_command
from ptycho_core.cli.options import FILE, config_options, resumed_layers
from ptycho_core.cli.shared import (
    PlacingCommand,
    SectionedCommand,
    Shared,
    again,
    config_option,
    console,
    events_option,
    files_in_words,
    files_of,
    image_formats,
    is_truth,
    load,
    load_all,
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
from ptycho_core.errors import ProcessError
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import flag_of
from ptycho_core.settings.files import annotated_toml
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.lists import SCANS_NAME
from ptycho_core.settings.reading import ReadOptions, read_like
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.settings.sources import Layers, build_config
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.reports import in_words

if TYPE_CHECKING:
    from ptycho_core.models.model import Model
    from ptycho_core.reconstruction.result import Reconstruction
    from ptycho_core.runs.console import Output
    from ptycho_core.scans.scan import Scan

log = logging.getLogger(__name__)


@click.command(cls=SectionedCommand)
@click.argument("scans", type=FILE, nargs=-1)
@config_option("model", "training", "execution", "reading")
@click.option("--resume", is_flag=True, help="Continue the run in the output folder after its last complete epoch.")
@click.option(
    "--from",
    "begin_from",
    type=FILE,
    metavar="MODEL",
    help="Begin a new run with the weights of MODEL, trained on another scan; --resume continues one.",
)
@click.option("--show-config", is_flag=True, help="Print the configuration and the origin of each value, then exit.")
@overwrite_option
@events_option
@serve_option
@output_options
@config_options("model", "training", "execution", "reading", leave_out=("inference_batch_size",))
def train(
    scans: tuple[Path, ...],
    config: Path | None,
    resume: bool,
    begin_from: Path | None,
    show_config: bool,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train a network on SCANS; no ground truth is needed. N is taken from the scan unless set.

    Several scans, each with its own probe and dose, give one model; a file that ends in .txt lists scans, one per line.
    With --resume all settings, including SCANS, are those that the run began with; --nepochs, --early-stop-patience
    and settings that do not change the result may be changed.
    """
    sections = ("model", "training", "execution", "reading")
    if resume and begin_from is not None:
        raise click.UsageError("--from begins a new run and --resume continues one; give one of them")
    layers, checkpoint = Layers(config, flags, *sections), None
    if scans:
        folder = Path(layers.values["training"].get("output_dir") or TrainingConfig().output_dir)
        with_scan(flags, "train_data_file", scans[0] if len(scans) == 1 else folder / SCANS_NAME)
        layers = Layers(config, flags, *sections)
    if resume:
        layers, checkpoint = resumed_layers(config, flags, *sections)
    configs = layers.build()  # its errors come before a large scan is read
    asked: TrainingConfig = configs["training"]
    place = None if show_config else place_of(configs["execution"])
    output = console(quiet, as_json, configs["execution"], place)
    shared = Shared()
    if not show_config:
        from ptycho_core.runs.prepare import prepare_training

        sized = resume or layers.sources["model"]["N"] != "default"
        prepared = prepare_training(asked, configs["execution"], resume=checkpoint, sized=sized, overwrite=overwrite)
        shared = sharing(prepared.load_engine, configs["execution"], place)
    several = scans if len(scans) > 1 else ()
    files = several or files_of(asked, "train_data_file")
    tests = files_of(asked, "test_data_file")
    if len(files) + len(tests) > 1:
        from ptycho_core.io.places import check_for_several_scans  # with numpy

        check_for_several_scans(configs["reading"], files[0])
    data = None
    if not show_config or files:
        with shared.reading():
            data = load_all(files, configs["training"], "train_data_file", configs["reading"], "a scan to train on")
    if data is not None and not resume:
        layers = Layers(config, flags, *sections, defaults={"N": (data[0].N, "scan")})
        configs = layers.build()
    if data is None or show_config:
        if several and not resume:
            layers.sources["training"]["train_data_file"] = f"written when the run begins: {len(several)} scans"
        click.echo(annotated_toml(layers.sources, **configs), nl=False)
        return
    from ptycho_core.runs.train import train_into

    training: TrainingConfig = configs["training"]
    with shared.reading():
        test = load_all(tests, training, "test_data_file", configs["reading"], "a test scan") if tests else None
    told_origin(output, layers)
    first = None
    if begin_from is not None:
        from ptycho_core.models.model import load_model

        first = load_model(begin_from)
    done = train_into(
        training.output_dir,
        data,
        training,
        begin_from=first,
        test=test,
        execution=configs["execution"],
        reading=configs["reading"],
        output=output,
        resume=checkpoint,
        files=several,
        **shared.settings,
    )
    if done.summary is None and not isinstance(done.stop, ProcessError):
        output.say("Stopped before the first epoch finished; nothing was written.")
    elif done.summary is not None:
        output.result(done.summary, _in_words(done.summary))
        if (
            command := _after_training(done.stop, training, configs["execution"], configs["reading"], files)
        ) is not None:
            output.say(f"Next: {command}")
    if done.stop is not None:
        raise shared.wish.reason(done.stop)


def _in_words(summary: dict[str, Any]) -> str:
    best = f"best epoch {summary['best_epoch']} of {summary['epochs']}"
    told = in_words(summary["losses"]) or "the untrained network, which predicts held-out pixels best"
    text = f"{summary['archive']}: {best}, {told}"
    return files_in_words(text, summary).replace(": the picture", ": losses by epoch")


def _after_training(
    stop: BaseException | None,
    training: TrainingConfig,
    execution: ExecutionConfig,
    reading: ReadOptions,
    files: Sequence[Path],
) -> str | None:
    """The command to go on with; None where there is none, as after an error, which says itself what to do."""
    folder = str(training.output_dir)
    if isinstance(stop, KeyboardInterrupt) and execution.enable_checkpointing:
        return next_command("ptycho", "train", "--resume", "--out", folder, *again(execution))
    if stop is not None:
        return None
    read_alike = () if reading == ReadOptions() else ("--config", str(training.output_dir / "config.toml"))
    scan = str(files[0])
    return next_command("ptycho", "reconstruct", scan, "--model", folder, "--out", folder, *read_alike)


@click.command(cls=SectionedCommand)
@click.argument("scan", type=FILE, required=False)
@config_option("inference", "solving", "execution", "reading")
@click.option(
    "--refine",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Solve for N sweeps, beginning with the model's object; the table [solving] says how.",
)
@write_option
@overwrite_option
@events_option
@preview_option
@serve_option
@output_options
@config_options("inference", "execution", "reading")
def reconstruct(
    scan: Path | None,
    config: Path | None,
    refine: int | None,
    write: str | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Reconstruct the object of SCAN with a trained model."""
    formats = image_formats(write)
    with_scan(flags, "test_data_file", scan)
    sections = ("inference", "execution", "reading", *(("solving",) if refine is not None else ()))
    layers = Layers(config, flags, *sections)
    configs = layers.build()
    place = place_of(configs["execution"])
    output = console(quiet, as_json, configs["execution"], place)
    inference: InferenceConfig = configs["inference"]
    if inference.model_path is None:
        raise click.UsageError("Missing option '--model'.")
    from ptycho_core.models.model import load_model
    from ptycho_core.runs.prepare import check_image_formats, prepare_reconstruction, prepare_solving

    model = load_model(inference.model_path)
    if model.reading is not None:
        configs["reading"] = _read_as_trained(model, layers, config, flags)
    load_engine = prepare_reconstruction(model, inference, overwrite=overwrite)
    check_image_formats(formats)
    solving = None
    if refine is not None:
        solving = attrs.evolve(configs["solving"], sweeps=refine, output_dir=inference.output_dir)
        prepare_solving(solving, configs["execution"], formats, overwrite=overwrite)
    shared = sharing(load_engine, configs["execution"], place)
    with shared.reading():
        data = load(inference, "test_data_file", configs["reading"], "a scan to reconstruct")
    from ptycho_core.runs.reconstruct import reconstruct_into

    folder, execution = inference.output_dir, configs["execution"]
    written = formats if solving is None else ()
    told_origin(output, layers)
    try:
        result, summary = reconstruct_into(
            folder,
            data,
            model,
            config=inference,
            execution=execution,
            reading=configs["reading"],
            output=output,
            formats=written,
            **shared.settings,
        )
    except KeyboardInterrupt as stop:
        output.say("Stopped before the reconstruction was whole; nothing was written. Run the same command again.")
        raise shared.wish.reason(stop) from None
    if solving is not None:
        _refined(folder, data, result, solving, configs, output, formats, shared)
        return
    if summary is None:
        return
    counts = f"{summary['patterns']} patterns, {summary['patterns_per_second']:.0f} patterns/s"
    text = f"{summary['reconstruction']}: {counts}"
    output.result(summary, files_in_words(text, summary))
    if data.object_field is not None and is_truth(inference.test_data_file, configs["reading"]):
        truth = str(inference.test_data_file)
        output.say(f"Next: {next_command('ptycho', 'evaluate', str(folder), '--truth', truth)}")


def _read_as_trained(model: Model, layers: Layers, config: Path | None, flags: dict[str, Any]) -> ReadOptions:
    """How to read the scan: as the model's training scan was read, where the command says nothing else."""
    assert model.reading is not None
    stated = {name for name, source in layers.sources["reading"].items() if source != "default"}
    named, trained = layers.values["inference"].get("test_data_file"), model.config.train_data_file
    same = named is not None and trained is not None and Path(named).resolve() == Path(trained).resolve()
    taken = read_like(model.reading, stated, same_file=same)
    if taken:
        words = ", ".join(f"{flag_of(name)} {value}" for name, value in taken.items())
        log.info("read as the training scan: %s", words)
    defaults = {name: (value, "the model") for name, value in taken.items()}
    reading: ReadOptions = build_config(config, flags, "reading", defaults=defaults)["reading"]
    click.get_current_context().obj = layers
    return reading


def _refined(
    folder: Path,
    scan: Scan,
    result: Reconstruction,
    solving: SolveConfig,
    configs: dict[str, Any],
    output: Output,
    formats: tuple[str, ...],
    shared: Shared,
) -> None:
    """A solve that begins with the reconstruction of a model, in its folder."""
    from ptycho_core.runs.reconstruct import refine_into

    done = refine_into(
        folder,
        scan,
        result,
        solving,
        config=configs["inference"],
        execution=configs["execution"],
        reading=configs["reading"],
        output=output,
        formats=formats,
        **shared.settings,
    )
    if done.summary is None and not isinstance(done.stop, ProcessError):
        output.say("Stopped before the first sweep finished; the reconstruction is that of the model.")
    elif done.summary is not None:
        after = f"{done.summary['R']:.4g} after {len(done.run.history)} sweeps"
        output.result(done.summary, f"{done.summary['reconstruction']}: R {result.R:.4g} before, {after}")
        if isinstance(done.stop, KeyboardInterrupt) and configs["execution"].enable_checkpointing:
            words = ("ptycho", "solve", "--resume", "--out", str(folder), *again(configs["execution"]))
            output.say(f"Next: {next_command(*words)}")
    if done.stop is not None:
        raise shared.wish.reason(done.stop)


@click.command(cls=PlacingCommand)
@click.argument("reconstruction", type=FILE)
@click.option(
    "--truth",
    type=FILE,
    required=True,
    help="Scan with the true object, or another result: its file or folder.",
)
@output_options
def evaluate(reconstruction: Path, truth: Path, quiet: bool, as_json: bool) -> None:
    """Compare RECONSTRUCTION with the true object.

    RECONSTRUCTION is a file, or the folder that holds it. Ambiguities are removed first.
    """
    output = console(quiet, as_json)
    from ptycho_core.runs.evaluate import evaluate_into

    summary, text = evaluate_into(reconstruction, truth, output)
    output.result(summary, text)


@click.command(cls=PlacingCommand)
@click.option("--backend", default="auto", show_default=True, help="Engine: auto, torch or tensorflow.")
@click.option("--out", type=FILE, default=Path("demo"), show_default=True, help="Folder to write to.")
@output_options
def demo(backend: str, out: Path, quiet: bool, as_json: bool) -> None:
    """Run every step on simulated scans.

    Simulate two, solve one, train a network on the other and reconstruct the first with it: an object that it has not
    seen. Both images are compared with the truth, in demo.png.
    """
    output = console(quiet, as_json)
    from ptycho_core.runs.demo import demo_into

    output.result(*demo_into(out, backend, output))


COMMANDS = (train, reconstruct, evaluate, demo)
