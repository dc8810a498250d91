"""PyTorch places patches by windows on a processor and by products of matrices elsewhere: the same, to rounding."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("ptycho_core_torch", reason="the PyTorch engine is not installed")

from ptycho_core_torch.placement import Corners, Matrices, placement_at  # noqa: E402

N, PADDING = 8, 7


def test_windows_are_the_matrices_with_their_gradients_up_to_the_border() -> None:
    rng = torch.Generator().manual_seed(0)
    offsets = torch.rand(3, 1, 2, 5, dtype=torch.float64, generator=rng).sub(0.5).mul(2 * PADDING)
    offsets[0, 0, :, 0], offsets[0, 0, :, 1] = PADDING, -PADDING
    offsets[1] = offsets[1].round()
    side = N + 2 * PADDING
    canvas = torch.randn(2, 3, side, side, dtype=torch.float64, generator=rng, requires_grad=True)
    patches = torch.randn(2, 3, 5, N, N, dtype=torch.float64, generator=rng, requires_grad=True)
    image = torch.randn(N, N, dtype=torch.float64, generator=rng, requires_grad=True)
    found = []
    for placement in (Matrices.of(offsets, N, PADDING), Corners(offsets, N, PADDING)):
        made = placement.extract(canvas), placement.place(patches), placement.place_alike(image)
        given = (canvas, patches, image)
        gradients = [torch.autograd.grad(x.sin().sum(), of)[0] for x, of in zip(made, given, strict=True)]
        found.append([*made, *gradients])
    for expected, actual in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-13)


def test_windows_are_as_exact_as_matrices_on_a_wide_canvas_in_single_precision() -> None:
    rng, padding = torch.Generator().manual_seed(0), 300
    offsets = torch.rand(1, 1, 2, 9, generator=rng).sub(0.5).mul(2 * padding)
    side = N + 2 * padding
    canvas = torch.randn(2, 1, side, side, generator=rng)
    exact = Matrices.of(offsets.double(), N, padding).extract(canvas.double())
    for kind in (Matrices.of, Corners):
        actual = kind(offsets, N, padding).extract(canvas).double()
        torch.testing.assert_close(actual, exact, rtol=0, atol=1e-6 * float(exact.abs().max()))


def test_a_processor_has_windows_and_another_device_matrices() -> None:
    offsets = torch.zeros(1, 1, 2, 1)
    assert isinstance(placement_at(offsets, N, PADDING), Corners)
    assert isinstance(placement_at(offsets.to("meta"), N, PADDING), Matrices)
