"""Constants and scaling of the forward model, the same for every engine (specs/physics.md)."""

from __future__ import annotations

INTENSITY_FLOOR = 1e-8  # specs/physics.md, Losses: predicted counts are at least this
MODULUS_FLOOR = 1e-6  # specs/physics.md, Losses: sqrt(|z|² + floor²) - floor stands for |z|, differentiable at 0
ADAM_EPSILON = 1e-8  # specs/physics.md, Optimiser
DATA_STEP_FLOOR = 1e-3  # specs/physics.md, Data steps: of the data's mean intensity, added to the predicted one
NOISE_LEVEL = 1.5  # specs/physics.md, Data steps: added to the noise of a canvas, log10, so that it is about 0
LOSS_FLOOR = 1e-12  # specs/physics.md, Losses: the logarithm of a smaller one has no gradient
AGC_FLOOR = 1e-3  # specs/physics.md, Optimiser: smallest norm of a unit's weights that its gradient is measured by

# specs/solving.md
POISSON_FLOOR = 0.01  # counts, added to the predicted ones in the residual of the Poisson loss
POISSON_FACTOR, POISSON_CHANCE = 3.0, 10.0  # there a pixel counts at most as 3 (I + floor) + 10: chance brings no more
AMPLITUDE_FLOOR = 1e-6  # counts, added to the predicted ones in the residual of the amplitude loss
SHIFT_DAMPING = 0.05  # of the mean diagonal of the Gauss-Newton matrix, added to its diagonal
SOLVER_BETA1, SOLVER_BETA2 = 0.9, 0.999

IMAGE_LOSS_FLOOR = 1e-3  # specs/prior.md, Loss: of the sum of weights, added to the error that there was
