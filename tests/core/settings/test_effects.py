"""A setting that changes nothing beside the others is warned of, and one that changes something is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from ptycho_core.networks.registry import ARCHITECTURES, build_table, fields_read, reads, register_architecture
from ptycho_core.networks.table import Table
from ptycho_core.settings.effects import OF_THE_NETWORK, idle_fields
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.reading import ReadOptions, read_like
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.prepare import prepare
from tests.networks import cnn

OTHER: dict[str, Any] = {"n_filters_scale": 1, "amp_activation": "softplus", "amplitude_ceiling": 1.5}
"""Values that are not the default; True for all others."""


@pytest.mark.parametrize(
    ("model", "training", "idle"),
    [
        ({}, {}, []),
        ({}, {"neighbor_count": 6}, ["neighbor_count"]),
        ({"object_big": False}, {}, ["object_big"]),
        ({"gridsize": 2, "object_big": False}, {"neighbor_count": 6}, []),
        ({"probe_big": False}, {}, []),
        ({"probe_big": False, "pad_object": False}, {}, ["probe_big"]),
        ({"model_type": "supervised"}, {"nphotons": 1e5, "probe_gauge": "given"}, ["probe_gauge", "nphotons"]),
        ({"model_type": "supervised", "probe_scale": 3.0}, {}, ["probe_scale"]),
        ({"model_type": "supervised"}, {"intensity_scale_trainable": False}, ["intensity_scale_trainable"]),
        ({}, {"nepochs": 9, "early_stop_patience": 8}, []),
        ({}, {"nepochs": 9, "early_stop_patience": 9}, ["early_stop_patience"]),
        ({"n_filters_scale": 1, "eca_encoder": True}, {}, []),
    ],
)
def test_what_has_no_effect_is_named(model: dict[str, Any], training: dict[str, Any], idle: list[str]) -> None:
    config = TrainingConfig(model=cnn(**model), **training)
    assert [name for name, _ in idle_fields(config, OF_THE_NETWORK)] == idle


@pytest.mark.parametrize("architecture", ["cnn", "published_torch"])
def test_ours_read_the_fields_that_they_declare(architecture: str) -> None:
    plain = ModelConfig(N=32, architecture=architecture)
    for name in OF_THE_NETWORK:
        changed = attrs.evolve(plain, **{name: OTHER.get(name, True)})
        declared = fields_read(plain)
        assert declared is not None and (name in declared) == (build_table(changed) != build_table(plain)), name


@pytest.mark.parametrize("declares", [True, False])
def test_what_another_architecture_does_not_read_is_warned_of(
    declares: bool, core_log: pytest.LogCaptureFixture, fake_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ARCHITECTURES, "_registered", dict(ARCHITECTURES._registered))

    def plain(model: ModelConfig) -> Table:
        return build_table(cnn(N=model.N, n_filters_scale=model.n_filters_scale))

    register_architecture("plain")(reads("n_filters_scale")(plain) if declares else plain)
    model = ModelConfig(N=32, architecture="plain", n_filters_scale=1, cbam_encoder=True)
    prepare(TrainingConfig(model=model))
    warned = "cbam_encoder has no effect on the architecture plain" in core_log.text
    assert warned == declares and "n_filters_scale" not in core_log.text


@pytest.mark.parametrize(
    ("trained", "stated", "same", "taken"),
    [
        ({"energy_eV": 8000.0, "bin": 2}, {"wavelength_m"}, True, {"bin": 2}),
        ({"dc": "corner"}, {"centre"}, True, {}),
        ({"crop": 32, "frames": "0:9"}, set(), True, {"crop": 32, "frames": "0:9"}),
        ({"crop": 32, "frames": "0:9", "drop_frames": "7"}, set(), False, {"crop": 32}),
        ({"positions": "x,y", "position_order": "xy", "position_unit": "px"}, set(), False, "all"),
        ({"scan_step": "3", "position_unit": "px"}, {"positions"}, True, {"position_unit": "px"}),
    ],
)
def test_how_another_scan_was_read_lies_beneath_what_is_stated(
    trained: dict[str, Any], stated: set[str], same: bool, taken: Any
) -> None:
    assert read_like(ReadOptions(**trained), stated, same_file=same) == (trained if taken == "all" else taken)


def test_a_file_of_positions_is_of_one_scan(tmp_path: Path) -> None:
    (tmp_path / "places.txt").write_text("")
    reading = ReadOptions(positions=str(tmp_path / "places.txt"), position_order="xy", position_unit="m", flip_x=True)
    assert read_like(reading, (), same_file=False) == {"flip_x": True}
