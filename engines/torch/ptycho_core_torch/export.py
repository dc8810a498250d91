"""A network as a program of this framework: diffraction → patches (specs/engine.md, Export)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ptycho_core.batches.batch import Batch
from ptycho_core.layouts import ALONE_FIRST_TO_BCHW, BCHW_TO_ALONE_FIRST, BCHW_TO_BHWC, BHWC_TO_BCHW
from ptycho_core.models.export import FACTS, NAMES, facts_json
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.settings.model import ModelConfig
from ptycho_core.vocabulary import INPUT_SCALE, Weights
from ptycho_core_torch.ops import run_table
from ptycho_core_torch.weights import to_tensor


class Program(torch.nn.Module):
    """Measured amplitudes (B, N, N, C) → real and imaginary part of the patches, (B, N, N, C) each; float32."""

    def __init__(self, model: ModelConfig, weights: Weights, illumination: Illumination) -> None:
        super().__init__()
        self.model = model
        self.table = build_table(model)
        arrays = {INPUT_SCALE: np.asarray(illumination.input_scale), **weights}
        self.names = (INPUT_SCALE, *self.table.parameters)
        for name in self.names:
            tensor = to_tensor(name, arrays[name], torch.float32, torch.device("cpu"))
            self.register_buffer(name.replace("/", "_"), tensor.contiguous())

    def forward(self, diffraction_amplitude: Tensor) -> tuple[Tensor, Tensor]:
        tensors = {name: self.get_buffer(name.replace("/", "_")) for name in self.names}
        x = rearrange(tensors[INPUT_SCALE] * diffraction_amplitude, BHWC_TO_BCHW)
        if not self.model.object_big:
            x = rearrange(x, BCHW_TO_ALONE_FIRST)
        maps = run_table(self.table, tensors, x)
        if not self.model.object_big:
            maps = tuple(rearrange(m, ALONE_FIRST_TO_BCHW, c=self.model.channels) for m in maps)
        amplitude, phase = (rearrange(m, BCHW_TO_BHWC) for m in maps)
        return amplitude * torch.cos(phase), amplitude * torch.sin(phase)


def save_program(model: ModelConfig, weights: Weights, batch: Batch, target: Path, facts: Mapping[str, str]) -> None:
    """A `.pt2` file for `torch.export.load`; the size of a batch is free."""
    assert len(batch) > 1, "of 1, the tracer would take that to be the only size"
    free = {NAMES[0]: {0: torch.export.Dim("batch", min=1)}}
    example = torch.from_numpy(batch.diffraction_amplitude)
    with torch.no_grad():
        program = torch.export.export(Program(model, weights, batch.illumination), (example,), dynamic_shapes=free)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the places of this package on this machine
    torch.export.save(program, target, extra_files={FACTS: facts_json(facts)})
