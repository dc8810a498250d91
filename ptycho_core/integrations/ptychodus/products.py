"""Ptychodus's products as arrays of ours, and results as its products."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ptychodus.api.object import Object
from ptychodus.api.probe import ProbeSequence
from ptychodus.api.probe_positions import ProbePositionSequence
from ptychodus.api.product import LossValue, Product
from ptychodus.api.reconstruct import ReconstructInput

from ptycho_core.embedding import ObjectGrid, ReconstructionProgress, ScanArrays, SolvingProgress
from ptycho_core.errors import DataError
from ptycho_core.scans.geometry import object_pixel_m

SAME_PIXEL = 1e-3
"""Relative difference of the pixels of probe and object that is taken for rounding."""


def arrays_of(parameters: ReconstructInput) -> ScanArrays:
    """What Ptychodus hands to an algorithm: photon counts, positions in metres, the object of layer 0.

    The probe is that of no position in particular (its first coherent mode), with all incoherent modes. Raises
    DataError where the product is not of the far field or its probe is sampled otherwise than its object.
    """
    product = parameters.product
    metadata, geometry = product.metadata, product.object_.get_geometry()
    if not metadata.far_field:
        remedy = "Reconstruct it with an algorithm for the near field."
        expected = "a product of the far field"
        raise DataError(metadata.name, "far_field", expected=expected, received="one of the near field", remedy=remedy)
    pixel = geometry.pixel_width_m, geometry.pixel_height_m
    sampled = product.probes.get_pixel_geometry()
    if not np.allclose((sampled.width_m, sampled.height_m), pixel, rtol=SAME_PIXEL, atol=0):
        expected, received = f"pixels of {pixel} m, as the object's", f"{(sampled.width_m, sampled.height_m)} m"
        raise DataError(
            metadata.name, "probe", expected=expected, received=received, remedy="Resample the probe or the object."
        )
    positions = product.probe_positions
    return ScanArrays(
        patterns=parameters.diffraction_patterns,
        measurement="intensity",
        positions_m=np.stack([positions.get_coordinates_x_m(), positions.get_coordinates_y_m()], axis=1),
        probe=product.probes.get_probe_no_opr().get_array(),
        grid=ObjectGrid(
            shape=(geometry.height_px, geometry.width_px),
            pixel_m=pixel,
            centre_m=(geometry.center_x_m, geometry.center_y_m),
        ),
        bad_pixels=parameters.bad_pixels,
        object_field=product.object_.get_layer(0),
        name=metadata.name,
        metadata=_lengths(product, parameters.diffraction_patterns.shape[-1]),
    )


def product_of(product: Product, progress: ReconstructionProgress, losses: Sequence[LossValue] = ()) -> Product:
    """The product with the object so far, of the same shape, type and place, and what the losses were.

    Where no pattern says anything the object stays as it was. Layers after the first are 1 where one does.
    """
    object_ = product.object_
    array = object_.get_array().copy()
    array[0][progress.known] = progress.object_field[progress.known]
    array[1:, progress.known] = 1
    placed = Object(
        array=array,
        pixel_geometry=object_.get_pixel_geometry(),
        center=object_.get_center(),
        layer_spacing_m=object_.layer_spacing_m,
    )
    return dataclasses.replace(product, object_=placed, losses=list(losses))


def solved_product(product: Product, progress: SolvingProgress, losses: Sequence[LossValue]) -> Product:
    """`product_of`, with the probe and the positions of a solve that has ended."""
    placed = product_of(product, progress, losses)
    if progress.probe is None or progress.positions_m is None:
        return placed
    positions = [
        dataclasses.replace(point, x_m=float(x), y_m=float(y))
        for point, (x, y) in zip(product.probe_positions, progress.positions_m, strict=True)
    ]
    probes = ProbeSequence(
        array=progress.probe[None], opr_weights=None, pixel_geometry=product.probes.get_pixel_geometry()
    )
    return dataclasses.replace(placed, probe_positions=ProbePositionSequence(positions), probes=probes)


def _lengths(product: Product, N: int) -> dict[str, Any]:
    """What is known of the experiment, by the keys of specs/data.md, Geometry; Ptychodus has 0 for what is not."""
    metadata, pixel = product.metadata, product.object_.get_pixel_geometry()
    facts: dict[str, Any] = {"name": metadata.name}
    energy, distance = metadata.photon_energy_eV, metadata.detector_distance_m
    if energy > 0 and math.isfinite(energy):
        facts["photon_energy_eV"] = float(energy)
        if distance > 0 and math.isfinite(distance):
            facts["detector_distance_m"] = float(distance)
            wavelength, sides = metadata.photon_wavelength_m, (pixel.width_m, pixel.height_m)
            # λ z / (N p) is its own inverse.
            facts["detector_pixel_m"] = [object_pixel_m(wavelength, distance, N, side) for side in sides]
    return facts
