"""The forward model in float64, each step beside its adjoint (specs/physics.md, Forward model of the network).

Fields are complex. The gradient of a real loss L by a complex array z is ∂L/∂Re z + i ∂L/∂Im z, so that a linear step
A z hands its gradient back through the conjugate transpose of A.
"""

from __future__ import annotations

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from ptycho_core.layouts import OFFSETS_TO_XY
from ptycho_core.physics.weights import MERGE_EPSILON, probe_mask, smoothing_matrix
from ptycho_core.settings.model import ModelConfig
from ptycho_core.vocabulary import Field

Array = NDArray[np.float64]
Placement = tuple[Array, Array]
"""Bilinear weights for x and y, each (B, C, M, N): of patch pixel j in canvas pixel i, M = N + 2 padding."""


class ForwardModel:
    """Patches → one object for each group → exit waves → far-field intensity.

    The steps are methods, so that a test can plant a fault in one of them.
    """

    def __init__(self, model: ModelConfig) -> None:
        N, sigma = model.N, model.gaussian_smoothing_sigma
        self.N = N
        self.merge_epsilon = MERGE_EPSILON[model.merge_weights]
        self.probe_mask = probe_mask(N) if model.probe_mask else np.ones((N, N))
        self.smoothing = smoothing_matrix(N, sigma) if sigma > 0 else np.eye(N)

    # -- amplitude and phase ---------------------------------------------------------------------------------------

    def polar_to_field(self, amplitude: Array, phase: Array) -> Field:
        """amplitude · exp(i phase)."""
        field: Field = amplitude * np.exp(1j * phase)
        return field

    def polar_gradient(self, g: Field, amplitude: Array, phase: Array) -> tuple[Array, Array]:
        """Gradients by amplitude and phase from the gradient g by the field."""
        turned = np.exp(-1j * phase) * g
        return turned.real, amplitude * turned.imag

    # -- patches and canvas ----------------------------------------------------------------------------------------

    def placement(self, relative_offsets_px: NDArray[np.floating], padding: int) -> Placement:
        """Where patches lie on the canvas: patch pixel j at canvas coordinate j + padding - relative offset.

        relative_offsets_px: (B, 1, 2, C), [x, y] on axis 2; padding: border of the canvas, pixels.
        """
        x, y = rearrange(relative_offsets_px.astype(np.float64), OFFSETS_TO_XY)[..., None, None]
        distance = np.arange(self.N + 2 * padding)[:, None] - padding - np.arange(self.N)
        return np.maximum(1 - np.abs(distance + x), 0), np.maximum(1 - np.abs(distance + y), 0)

    def place(self, patches: Field, placement: Placement) -> Field:
        """Sum of the patches (B, C, N, N) of each group on its canvas (B, M, M)."""
        x, y = placement
        canvas: Field = (y @ patches @ x.swapaxes(-1, -2)).sum(axis=1)
        return canvas

    def extract(self, canvas: Field, placement: Placement) -> Field:
        """The canvas (B, M, M) seen from each position, (B, C, N, N): the adjoint of `place`."""
        x, y = placement
        patches: Field = y.swapaxes(-1, -2) @ canvas[:, None] @ x
        return patches

    def merge_group(self, patches: Field, weight: Array, placement: Placement) -> Field:
        """Weighted mean of the patches of each group on one canvas (B, M, M); weight (N, N), a constant."""
        return self.place(patches * weight, placement) / self.summed_weight(weight, placement)

    def merge_adjoint(self, g: Field, weight: Array, placement: Placement) -> Field:
        """Gradient by the patches from the gradient g by the canvas."""
        return self.extract(g / self.summed_weight(weight, placement), placement) * weight

    def summed_weight(self, weight: Array, placement: Placement) -> Array:
        """(B, M, M): what a merge divides by."""
        return self.place(weight.astype(np.complex128), placement).real + self.merge_epsilon

    # -- exit wave and far field -----------------------------------------------------------------------------------

    def exit_wave(self, patches: Field, probe: Field) -> Field:
        """Patches (B, C, N, N) lit by the probe (modes, N, N) → (B, C, modes, N, N), masked and smoothed."""
        lit: Field = self.smoothing @ (patches[:, :, None] * (probe * self.probe_mask)) @ self.smoothing.T
        return lit

    def exit_wave_gradient(self, g: Field, patches: Field, probe: Field) -> tuple[Field, Field]:
        """Gradients by patches and probe from the gradient g by the exit wave."""
        g = self.smoothing.T @ g @ self.smoothing
        by_patches: Field = (np.conj(probe * self.probe_mask) * g).sum(axis=2)
        by_probe: Field = (np.conj(patches[:, :, None]) * g).sum(axis=(0, 1)) * self.probe_mask
        return by_patches, by_probe

    def far_field(self, exit_wave: Field) -> Field:
        """Orthonormal Fourier transform, DC at [N/2, N/2]: Σ|far field|² = Σ|exit wave|² (Parseval)."""
        return np.fft.fftshift(np.fft.fft2(exit_wave, norm="ortho"), axes=(-2, -1))

    def far_field_adjoint(self, g: Field) -> Field:
        """Gradient by the exit wave from the gradient g by the far field: the inverse, as the transform is unitary."""
        exit_wave: Field = np.fft.ifft2(np.fft.ifftshift(g, axes=(-2, -1)), norm="ortho")
        return exit_wave

    def intensity(self, far_field: Field) -> Array:
        """Σ over the modes of |far field|², (B, C, N, N): modes add incoherently."""
        summed: Array = (far_field.real**2 + far_field.imag**2).sum(axis=2)
        return summed

    def intensity_gradient(self, g: Array, far_field: Field) -> Field:
        """Gradient by the far field from the gradient g by the intensity."""
        return 2 * far_field * g[:, :, None]

    def measured_intensity(self, diffraction_amplitude: Array) -> Array:
        """Counts from what a batch holds, their square root."""
        return diffraction_amplitude**2
