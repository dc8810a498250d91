"""`reconstruct` with and without sweeps of a solve: what begins with what, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core import reconstruct, save_scan
from ptycho_core.batches.batch import Batch
from ptycho_core.errors import Cancelled, ConfigurationError, DataError, NoEffectError
from ptycho_core.events import Event
from ptycho_core.models.model import Model
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.patches import extract_patches
from ptycho_core.reconstruction import predict
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.solving.loop import solve
from ptycho_core.solving.refinement import going_on
from tests.core.archives import tiny_model
from tests.core.refusals import refusal_of
from tests.core.solving.conftest import small

pytestmark = pytest.mark.usefixtures("engines", "tiny_architecture")


@pytest.fixture
def model(solved_scan: Scan, fake_engine: Any) -> Model:
    """One that predicts the true patches, whose groups are the frames in their order, in the light of the scan."""
    assert solved_scan.object_field is not None
    patches = extract_patches(solved_scan.object_field, solved_scan.positions_px, solved_scan.N)
    taken = 0

    def in_order(batch: Batch) -> Any:
        nonlocal taken
        taken += len(batch)
        return patches[(taken - len(batch)) % len(patches) :][: len(batch), ..., None]

    fake_engine.predict = in_order
    tiny = tiny_model()
    light = Illumination.of(solved_scan, nphotons=tiny.config.nphotons).arrays()
    return attrs.evolve(tiny, weights={**tiny.weights, **light})


def test_sweeps_begin_with_the_object_of_the_model(solved_scan: Scan, model: Model) -> None:
    seen = predict.reconstruct(solved_scan, model)
    result = reconstruct(solved_scan, model, refine=3, solving=small(refine="probe"))
    np.testing.assert_array_equal(
        result.object_field, solve(solved_scan, small(refine="probe"), start=seen).object_field
    )
    flat = solve(solved_scan, small(refine="probe"))
    assert result.history[0]["R"] < 0.7 * flat.history[0]["R"]


def test_there_are_as_many_sweeps_as_are_asked_for(solved_scan: Scan, model: Model) -> None:
    heard: list[Event] = []
    counted: list[tuple[int, int]] = []
    result = reconstruct(
        solved_scan,
        model,
        refine=2,
        solving=small(sweeps=9, refine="probe"),
        on_event=heard.append,
        on_batch=lambda done, total: counted.append((done, total)),
    )
    assert (result.method, len(result.history)) == ("solver", 2)
    assert result.settings["sweeps"] == 2 and result.choices["refined"] == ["probe"]
    assert [event.kind for event in heard] == ["started", "prepared", "sweep", "sweep"]
    assert counted[-1] == (40, 40)


def test_without_them_it_is_the_reconstruction_of_the_model(solved_scan: Scan, model: Model) -> None:
    result = reconstruct(solved_scan, model)
    assert (result.method, list(result.history)) == ("network", [])
    np.testing.assert_array_equal(result.object_field, predict.reconstruct(solved_scan, model).object_field)


def test_scan_and_settings_may_come_from_the_configuration(solved_scan: Scan, model: Model, tmp_path: Path) -> None:
    save_scan(tmp_path / "scan.npz", solved_scan)
    config = InferenceConfig(test_data_file=tmp_path / "scan.npz")
    result = reconstruct(None, model, config=config, refine=1, solving=small())
    assert (result.method, result.patterns) == ("solver", 40)


def test_the_frames_that_were_drawn_are_those_that_are_solved(solved_scan: Scan, model: Model) -> None:
    config = InferenceConfig(n_subsample=20)
    assert reconstruct(solved_scan, model, config=config, refine=1, solving=small()).patterns == 20


@pytest.mark.parametrize(
    ("of_solving", "stated", "asked"),
    [("auto", "auto", "fake"), ("auto", "torch", "torch"), ("tensorflow", "torch", "tensorflow")],
)
def test_the_engine_is_the_stated_one_or_that_of_the_model(
    solved_scan: Scan, model: Model, of_solving: str, stated: str, asked: str
) -> None:
    result = reconstruct(solved_scan, model)
    assert going_on(small(backend=of_solving), result, stated).backend == asked


def test_a_wish_to_stop_reaches_the_sweeps(solved_scan: Scan, model: Model) -> None:
    sweeps: list[Event] = []

    def stop() -> bool:
        return len(sweeps) > 1

    def hear(event: Event) -> None:
        if event.kind == "sweep":
            sweeps.append(event)

    with pytest.raises(Cancelled, match="stopped in sweep 3"):
        reconstruct(solved_scan, model, refine=5, solving=small(), on_event=hear, should_stop=stop)


# -- refused -----------------------------------------------------------------------------------------------------------

Refused = Callable[[Scan, Model], Any]


@pytest.mark.parametrize("sweeps", [0, -1, 2.5, True, "3"])
def test_what_is_no_number_of_sweeps_is_refused_before_any_work(
    solved_scan: Scan, model: Model, fake_engine: Any, sweeps: Any
) -> None:
    refusal_of(
        lambda: reconstruct(solved_scan, model, refine=sweeps),
        ConfigurationError,
        f"reconstruct: refine must be a whole number >= 1; got {sweeps!r}.",
        key="refine",
    )
    assert fake_engine.backends == []


@pytest.mark.parametrize("more", [{"solving": small()}, {"on_event": print}], ids=["solving", "on_event"])
def test_what_belongs_to_sweeps_has_no_effect_without(solved_scan: Scan, model: Model, more: dict[str, Any]) -> None:
    (name,) = more
    refusal_of(lambda: reconstruct(solved_scan, model, **more), NoEffectError, "unless refine is set", key=name)


def test_a_scan_that_cannot_be_solved_is_refused_as_a_solve_refuses_it(solved_scan: Scan, model: Model) -> None:
    few = solved_scan.subset(slice(3))
    refusal_of(lambda: reconstruct(few, model, refine=1, solving=small()), ConfigurationError, key="batches")
    refusal_of(lambda: reconstruct(None, model, refine=1), ConfigurationError, key="test_data_file")
    wide = Scan(diffraction_amplitude=np.ones((5, 32, 32)), positions_px=np.zeros((5, 2)), probe=np.ones((1, 32, 32)))
    refusal_of(lambda: reconstruct(wide, model, refine=1, solving=small()), DataError)
