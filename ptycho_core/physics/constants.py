"""Constants and scaling of the forward model, the same for every engine (specs/physics.md)."""

from __future__ import annotations

INTENSITY_FLOOR = 1e-8  # specs/physics.md, Losses: predicted counts are at least this
MODULUS_FLOOR = 1e-6  # specs/physics.md, Losses: sqrt(|z|² + floor²) - floor stands for |z|, differentiable at 0
ADAM_EPSILON = 1e-8  # specs/physics.md, Optimiser
AGC_FLOOR = 1e-3  # specs/physics.md, Optimiser: smallest norm of a unit's weights that its gradient is measured by
