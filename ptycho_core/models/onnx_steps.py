"""Data steps as nodes of an ONNX graph, for networks of a canvas (specs/physics.md, Data steps).

Maps are (B, C, Q, Q), real and imaginary part as two of them. ONNX knows no complex numbers: a field is a pair of
nodes, and a Fourier transform two products with a matrix, which has DC in the middle, as the amplitudes have.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import numpy as np

from ptycho_core.physics.constants import DATA_STEP_FLOOR, NOISE_LEVEL

if TYPE_CHECKING:
    from ptycho_core.models.onnx import Graph

Field = tuple[str, str]
"""Nodes of the real and of the imaginary part."""


@attrs.frozen
class Scene:
    """What data steps see, as names of nodes.

    x, y: placement, (B, C, Q, N) each. amplitude: (B, C, N, N). good: (N, N), 1 or 0. probe: (modes, N, N). light: S
    (B, 1, Q, Q). brightest: p₀. floor: added to the predicted intensity. noise: of a canvas, log₁₀, where the brightest
    pixel of the probe fell once. N: pixels of a side.
    """

    graph: Graph
    N: int
    x: str
    y: str
    amplitude: str
    good: str
    probe: Field
    light: str
    brightest: str
    floor: str
    noise: str

    @classmethod
    def of(
        cls,
        graph: Graph,
        *,
        N: int,
        block: int,
        amplitude: str,
        offsets: str,
        probe: str,
        good: str,
        mean_intensity: str,
        counts_per_intensity: str,
        mask: str | None,
    ) -> Scene:
        """amplitude: (B, C, N, N). offsets: (B, 1, 2, C). probe: (modes, N, N, 2). mask: (N, N) on the probe."""
        node, number = graph.node, graph.number
        parts = [node("Gather", [probe, graph.whole(part)], axis=3) for part in (0, 1)]
        real, imaginary = (part if mask is None else node("Mul", [part, mask]) for part in parts)
        squares = node("Add", [node("Mul", [real, real]), node("Mul", [imaginary, imaginary])])
        lit = node("ReduceSum", [squares, number(0)], keepdims=0)
        # the canvas: N and as much on every side as the farthest offset needs, in whole blocks
        reach = node("ReduceMax", [node("Abs", [offsets])], keepdims=0)
        reach = node("Cast", [node("Ceil", [reach])], to=graph.INT64)
        side = node("Add", [node("Mul", [reach, graph.whole(2)]), graph.whole(N + block - 1)])
        side = node("Mul", [node("Div", [side, graph.whole(block)]), graph.whole(block)])
        border = node("Div", [node("Sub", [side, graph.whole(N)]), graph.whole(2)])
        canvas = node("Cast", [node("Range", [graph.whole(0), side, graph.whole(1)])], to=graph.FLOAT)
        canvas = node("Unsqueeze", [node("Sub", [canvas, node("Cast", [border], to=graph.FLOAT)]), number(1)])
        distance = node("Sub", [canvas, graph.constant("pixels", np.arange(N, dtype=np.float32))])  # (Q, N)
        x, y = (_placement(graph, offsets, axis, distance) for axis in (0, 1))
        placed = node("MatMul", [node("MatMul", [y, lit]), node("Transpose", [x], perm=[0, 1, 3, 2])])
        brightest = node("ReduceMax", [lit], keepdims=0)
        photons = node("Log", [node("Mul", [node("Mul", [counts_per_intensity, brightest]), graph.single(2)])])
        return cls(
            graph,
            N,
            x,
            y,
            amplitude,
            good,
            (real, imaginary),
            light=node("ReduceSum", [placed, number(1)]),
            brightest=brightest,
            floor=node("Mul", [mean_intensity, graph.single(DATA_STEP_FLOOR)]),
            noise=node("Sub", [graph.single(NOISE_LEVEL), node("Div", [photons, graph.single(2 * math.log(10))])]),
        )

    def empty(self) -> str:
        """The canvas that is 1 everywhere, (B, 2, Q, Q)."""
        nothing = self.graph.node("Mul", [self.light, self.graph.single(0)])
        return self.graph.node("Concat", [self.graph.node("Add", [nothing, self.graph.single(1)]), nothing], axis=1)

    def patches(self, canvas: str) -> Field:
        """(B, C, N, N) of a canvas (B, 2, Q, Q)."""
        across = self.graph.node("Transpose", [self.y], perm=[0, 1, 3, 2])
        real, imaginary = (
            self.graph.node(
                "MatMul", [self.graph.node("MatMul", [across, maps(self.graph, canvas, part, part + 1)]), self.x]
            )
            for part in (0, 1)
        )
        return real, imaginary

    def correction(self, canvas: str) -> str:
        """Σ_c W_y q_c W_xᵀ, (B, 2, Q, Q)."""
        graph, node = self.graph, self.graph.node
        patches = tuple(node("Unsqueeze", [part, graph.number(2)]) for part in self.patches(canvas))
        far = self._transformed(self._times(self.probe, patches), inverse=False)
        squares = [node("ReduceSum", [node("Mul", [part, part]), graph.number(2)], keepdims=0) for part in far]
        intensity = node("Add", [node("Add", squares), self.floor])
        ratio = node("Sub", [node("Div", [self.amplitude, node("Sqrt", [intensity])]), graph.single(1)])
        ratio = node("Unsqueeze", [node("Mul", [ratio, self.good]), graph.number(2)])
        residual = self._transformed(tuple(node("Mul", [part, ratio]) for part in far), inverse=True)
        conjugate = self.probe[0], node("Neg", [self.probe[1]])
        change = self._times(conjugate, residual)
        turned = node("Transpose", [self.x], perm=[0, 1, 3, 2])
        placed = []
        for part in change:
            summed = node("ReduceSum", [part, graph.number(2)], keepdims=0)
            whole = node("MatMul", [node("MatMul", [self.y, summed]), turned])
            placed.append(node("ReduceSum", [whole, graph.number(1)]))
        return node("Concat", placed, axis=1)

    def damped(self, epsilon: float) -> str:
        """S + ε p₀."""
        node = self.graph.node
        return node("Add", [self.light, node("Mul", [self.brightest, self.graph.single(epsilon)])])

    def _transformed(self, field: tuple[str, ...], *, inverse: bool) -> Field:
        """Orthonormal transform or its inverse, DC in the middle: D f Dᵀ, or with D* on the left and D̄ on the right."""
        steps = np.arange(self.N)
        matrix = np.exp(-2j * np.pi * np.outer(steps - self.N // 2, steps) / self.N) / np.sqrt(self.N)
        left, right = (matrix.conj().T, matrix.conj()) if inverse else (matrix, matrix.T)
        sides = []
        for name, each in (("left", left), ("right", right)):
            name = f"transform/{'inverse' if inverse else 'forward'}/{name}"
            parts = {"real": each.real, "imaginary": each.imag}
            sides.append(tuple(self.graph.constant(f"{name}/{p}", a.astype(np.float32)) for p, a in parts.items()))
        return self._times(self._times(sides[0], field, "MatMul"), sides[1], "MatMul")

    def _times(self, one: tuple[str, ...], other: tuple[str, ...], product: str = "Mul") -> Field:
        """The product of two fields, pixel by pixel or as matrices."""
        node, (a, b), (c, d) = self.graph.node, one, other
        real = node("Sub", [node(product, [a, c]), node(product, [b, d])])
        return real, node("Add", [node(product, [a, d]), node(product, [b, c])])


def _placement(graph: Graph, offsets: str, axis: int, distance: str) -> str:
    """(B, C, Q, N): bilinear weight of patch pixel j in canvas pixel i, along x (0) or y (1).

    distance: (Q, N), canvas pixel − border − patch pixel.
    """
    node = graph.node
    along = node("Gather", [offsets, graph.whole(axis)], axis=2)  # (B, 1, C)
    along = node("Unsqueeze", [node("Transpose", [along], perm=[0, 2, 1]), graph.number(3)])
    off = node("Abs", [node("Add", [along, distance])])
    return node("Relu", [node("Sub", [graph.single(1), off])])


def data_step(graph: Graph, x: str, *, scene: Scene, epsilon: float) -> str:
    damped = scene.damped(epsilon)
    change = graph.node("Div", [scene.correction(x), damped])
    cover = graph.node("Div", [scene.light, damped])
    return graph.node("Concat", [graph.node("Add", [x, change]), change, cover], axis=1)


def warm_sweeps(graph: Graph, x: str, *, scene: Scene, sweeps: int, epsilon: float, momentum: float) -> str:
    node, damped, velocity = graph.node, scene.damped(epsilon), ""
    for _ in range(sweeps):
        change = node("Div", [scene.correction(x), damped])
        kept = [node("Mul", [velocity, graph.single(momentum)])] if velocity else []
        velocity = node("Sum", [*kept, change])
        x = node("Sum", [x, change, node("Mul", [velocity, graph.single(momentum)])])
    return x


def in_gauge(graph: Graph, x: str, *, scene: Scene) -> str:
    mean, node = gauge(graph, x), graph.node
    power = node("ReduceSum", [node("Mul", [mean, mean]), graph.number(1)])
    inverse = node("Div", [node("Mul", [mean, graph.constant("conjugate", CONJUGATE)]), power])
    canvas = node("Sub", [times(graph, maps(graph, x, 0, 2), inverse), graph.constant("one", ONE)])
    change = times(graph, maps(graph, x, 2, 4), inverse)
    cover = maps(graph, x, 4, 5)
    noise = node("Add", [node("Mul", [cover, graph.single(0)]), scene.noise])
    return node("Concat", [canvas, change, cover, noise], axis=1)


def correct(graph: Graph, x: str, y: str, *, scene: Scene) -> str:
    return graph.node("Add", [maps(graph, x, 0, 2), times(graph, y, gauge(graph, x))])


CONJUGATE = np.array([1, -1], np.float32)[None, :, None, None]
ONE = np.array([1, 0], np.float32)[None, :, None, None]


def gauge(graph: Graph, x: str) -> str:
    """m, (B, 2, 1, 1): the mean of the canvas where it is lit."""
    axes, cover = graph.constant("axes/2,3", np.array([2, 3], np.int64)), maps(graph, x, 4, 5)
    summed = graph.node("ReduceSum", [graph.node("Mul", [cover, maps(graph, x, 0, 2)]), axes])
    return graph.node("Div", [summed, graph.node("ReduceSum", [cover, axes])])


def times(graph: Graph, x: str, y: str) -> str:
    """The product of two fields (B, 2, …)."""
    node = graph.node
    (a, b), (c, d) = ((maps(graph, each, 0, 1), maps(graph, each, 1, 2)) for each in (x, y))
    real = node("Sub", [node("Mul", [a, c]), node("Mul", [b, d])])
    return node("Concat", [real, node("Add", [node("Mul", [a, d]), node("Mul", [b, c])])], axis=1)


def maps(graph: Graph, x: str, start: int, stop: int) -> str:
    return graph.node("Slice", [x, graph.number(start), graph.number(stop), graph.number(1)])
