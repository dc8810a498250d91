"""A model's reconstruction of a scan, and sweeps of a solve that begin with it."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from ptycho_core.bars import bar_where_asked
from ptycho_core.batches.sampling import subsample
from ptycho_core.errors import ConfigurationError, NoEffectError
from ptycho_core.events import Count, Event
from ptycho_core.models.model import Model
from ptycho_core.reconstruction import predict
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.solving.loop import solve


def reconstruct(
    scan: Scan | None,
    model: Model | None,
    *,
    backend: str | None = None,
    config: InferenceConfig | None = None,
    execution: ExecutionConfig | None = None,
    refine: int | None = None,
    solving: SolveConfig | None = None,
    on_batch: Count | None = None,
    on_event: Callable[[Event], bool | None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: bool | None = None,
) -> Reconstruction:
    """The object that `model` sees in `scan`, on a canvas of the positions' bounding box plus N.

    scan, model: None is the one that `config` names, by test_data_file and by model_path. backend: the engine;
    unstated, `config.backend`, and where that is auto, the model's own, or else the one that trained it. refine: solve
    for so many sweeps, beginning with that object; solving: how, except for its sweeps and start. on_batch: called
    with (groups done, groups) after every batch; on_event: told of every trial and every sweep. Raises DataError when
    the scan does not fit the model, ConfigurationError when `config` or `solving` does not, BackendError when the
    engine is not there, TrainingError when a solve comes to no finite numbers, Cancelled when `should_stop` says so.
    progress: show a bar; None is on a terminal and in a notebook, unless `enable_progress_bar` is off.
    """
    config = config or InferenceConfig()
    if refine is None:
        _check_alone(solving=solving, on_event=on_event)
    settings = None if refine is None else refining(refine, solving)  # what it refuses is refused before any work
    if settings is not None:
        scan = predict.named_scan(config) if scan is None else scan
    with bar_where_asked(progress, execution is None or execution.enable_progress_bar) as bar:

        def told(done: int, total: int) -> None:
            bar(Event(kind="batch", work="reconstruct", done=done, total=total, unit="group"))
            if on_batch is not None:
                on_batch(done, total)

        result = predict.reconstruct(
            scan, model, backend=backend, config=config, execution=execution, on_batch=told, should_stop=should_stop
        )
    if settings is None or scan is None:
        return result
    return solve(
        subsample(scan, config),
        going_on(settings, result, backend=config.backend if backend is None else backend),
        start=result,
        execution=execution,
        on_event=on_event,
        should_stop=should_stop,
        progress=progress,
    )


def refining(sweeps: int, solving: SolveConfig | None = None) -> SolveConfig:
    """How a reconstruction is solved on, for so many sweeps. ConfigurationError where it cannot be."""
    if isinstance(sweeps, bool) or not isinstance(sweeps, int) or sweeps < 1:
        remedy = "Leave it unset to reconstruct by the model alone."
        raise ConfigurationError(
            "reconstruct", "refine", expected="a whole number >= 1", received=repr(sweeps), remedy=remedy
        )
    return attrs.evolve(solving or SolveConfig(), sweeps=sweeps)


def going_on(solving: SolveConfig, result: Reconstruction, backend: str) -> SolveConfig:
    """The settings for solving on from `result`: by the engine that they name, or else `backend`, or its own."""
    stated = next((name for name in (solving.backend, backend) if name != "auto"), result.engine.name)
    return attrs.evolve(solving, backend=stated)


def _check_alone(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            remedy = f"Set refine, or leave {name} unset."
            raise NoEffectError("reconstruct", name, expected="refine is set", received="unset", remedy=remedy)
