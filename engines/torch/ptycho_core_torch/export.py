"""A network as a program of this framework: diffraction → patches (specs/engine.md, Export)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.batches.batch import Batch
from ptycho_core.layouts import ALONE_FIRST_TO_BCHW, BCHW_TO_ALONE_FIRST, BCHW_TO_BHWC, BHWC_TO_BCHW
from ptycho_core.models.export import FACTS, facts_json
from ptycho_core.models.signature import AMPLITUDE, BAD_PIXELS, COUNTS_PER_INTENSITY, MEAN_INTENSITY, OFFSETS, PROBE
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.weights import canvas_border, probe_mask
from ptycho_core.settings.model import ModelConfig
from ptycho_core.vocabulary import INPUT_SCALE, Weights
from ptycho_core_torch.ops import run_table
from ptycho_core_torch.placement import Matrices
from ptycho_core_torch.steps import Scene
from ptycho_core_torch.weights import to_tensor


class Weighted(torch.nn.Module):
    """A table and its weights, float32."""

    def __init__(self, model: ModelConfig, weights: Weights, **constants: NDArray[np.floating]) -> None:
        super().__init__()
        self.model, self.table = model, build_table(model)
        arrays = {**weights, **constants}
        self.names = (*self.table.parameters, *constants)
        for name in self.names:
            tensor = to_tensor(name, arrays[name], torch.float32, torch.device("cpu"))
            self.register_buffer(name.replace("/", "_"), tensor.contiguous())

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: self.get_buffer(name.replace("/", "_")) for name in self.names}


class Program(Weighted):
    """Measured amplitudes (B, N, N, C) → real and imaginary part of the patches, (B, N, N, C) each; float32."""

    def __init__(self, model: ModelConfig, weights: Weights, illumination: Illumination) -> None:
        super().__init__(model, weights, **{INPUT_SCALE: np.asarray(illumination.input_scale)})

    def forward(self, diffraction_amplitude: Tensor) -> tuple[Tensor, Tensor]:
        tensors = self.tensors
        x = rearrange(tensors[INPUT_SCALE] * diffraction_amplitude, BHWC_TO_BCHW)
        if not self.model.object_big:
            x = rearrange(x, BCHW_TO_ALONE_FIRST)
        maps = run_table(self.table, tensors, x)
        if not self.model.object_big:
            maps = tuple(rearrange(m, ALONE_FIRST_TO_BCHW, c=self.model.channels) for m in maps)
        first, second = (rearrange(m, BCHW_TO_BHWC) for m in maps)
        return (first, second) if self.table.real else (first * torch.cos(second), first * torch.sin(second))


class CanvasProgram(Weighted):
    """The same of a network of a canvas, which is given the light and the places, too."""

    def forward(
        self,
        diffraction_amplitude: Tensor,
        relative_offsets_px: Tensor,
        probe: Tensor,
        bad_pixels: Tensor,
        mean_intensity: Tensor,
        counts_per_intensity: Tensor,
    ) -> tuple[Tensor, Tensor]:
        N = self.model.N
        reach = torch.ceil(relative_offsets_px.abs().max()).long().item()
        torch._check(reach >= 0)  # which the tracer cannot know
        placement = Matrices.of(relative_offsets_px, N, canvas_border(N, reach, self.table.block))
        if self.model.probe_mask:
            probe = probe * torch.from_numpy(probe_mask(N).astype(np.float32))[..., None]
        scene = Scene.of(
            placement,
            amplitude=rearrange(diffraction_amplitude, BHWC_TO_BCHW),
            good=(~bad_pixels).to(probe.dtype),
            probe=probe,
            lit=probe.square().sum(dim=(0, 3)),
            mean_intensity=mean_intensity,
            counts_per_intensity=counts_per_intensity,
        )
        (canvas,) = run_table(self.table, self.tensors, scene.empty(), scene)
        real, imaginary = placement.extract(canvas.movedim(1, 0))
        return rearrange(real, BCHW_TO_BHWC), rearrange(imaginary, BCHW_TO_BHWC)


def save_program(model: ModelConfig, weights: Weights, batch: Batch, target: Path, facts: Mapping[str, str]) -> None:
    """A `.pt2` file for `torch.export.load`; what is free in its signature is free in it."""
    groups, _, _, frames = batch.diffraction_amplitude.shape
    assert groups > 1, "of 1, the tracer would take that to be the only size"
    amplitude, free = torch.from_numpy(batch.diffraction_amplitude), {0: torch.export.Dim("batch", min=1)}
    example: tuple[Tensor, ...] = (amplitude,)
    shapes: dict[str, dict[int, Any]] = {AMPLITUDE: free}
    if build_table(model).canvas:
        assert frames > 1
        program: torch.nn.Module = CanvasProgram(model, weights)
        light = batch.illumination
        pairs = torch.from_numpy(np.concatenate([light.pairs, light.pairs]).astype(np.float32))
        offsets = torch.from_numpy(batch.relative_offsets_px)
        numbers = (torch.tensor(light.mean_intensity), torch.tensor(light.counts_per_intensity))
        example = (amplitude, offsets, pairs, torch.from_numpy(batch.bad_pixels), *numbers)
        free |= {3: torch.export.Dim("frames", min=1)}
        shapes = {AMPLITUDE: free, OFFSETS: free, PROBE: {0: torch.export.Dim("modes", min=1)}}
        shapes |= {BAD_PIXELS: {}, MEAN_INTENSITY: {}, COUNTS_PER_INTENSITY: {}}
    else:
        program = Program(model, weights, batch.illumination)
    with torch.no_grad():
        exported = torch.export.export(program, example, dynamic_shapes=shapes)
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # the places of this package on this machine
    torch.export.save(exported, target, extra_files={FACTS: facts_json(facts)})
