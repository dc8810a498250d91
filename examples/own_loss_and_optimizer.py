"""A loss and an optimiser of your own, in one file outside the package, on every engine that is installed.

    python examples/own_loss_and_optimizer.py
    ptycho train scan.npz --import examples/own_loss_and_optimizer.py --loss-weights log_error=0.5 --optimizer lion

Each is one function of arrays, whichever engine's they are.
"""

from __future__ import annotations

from typing import Any

from ptycho_core import TrainingConfig, fit, register_loss, register_optimizer, registered_engines, simulate
from ptycho_core.engine.losses import Compared
from ptycho_core.engine.optimizers import Step
from ptycho_core.engine.registry import is_installed
from ptycho_core.settings.model import ModelConfig


@register_loss("log_error", formula="mean((ln(1 + I) − ln(1 + n))²)")
def log_error(of: Compared) -> Any:
    """Counts of all sizes weigh alike: predicted I, measured n, over the good pixels."""
    xp = of.xp
    return of.mean(xp.square(xp.log(1 + of.predicted) - xp.log(1 + of.measured)))


@register_loss("contrast", compares="object", formula="mean(abs(O'))²")
def contrast(of: Compared) -> Any:
    """A term of the object alone: patches are (2, B, C, N, N), real and imaginary part."""
    return of.xp.square(of.xp.mean(of.modulus(of.patches)))


@register_optimizer("lion", state=("momentum",))
def lion(at: Step) -> tuple[Any, dict[str, Any]]:
    """Chen et al., Symbolic discovery of optimization algorithms, NeurIPS 2023: the sign of a momentum."""
    rule, momentum = at.rule, at.state["momentum"]
    direction = at.xp.sign(rule.adam_beta1 * momentum + (1 - rule.adam_beta1) * at.gradient)
    kept = rule.adam_beta2 * momentum + (1 - rule.adam_beta2) * at.gradient
    return at.array - at.rate * (direction + at.decay * at.array), {"momentum": kept}


def main(nepochs: int = 3) -> dict[str, list[float]]:
    """The losses of each epoch, by engine."""
    scan = simulate(object="dead-leaves", N=32, positions=60, photons=1e5, seed=1)
    model = ModelConfig(N=32, architecture="cnn", n_filters_scale=1, pad_object=False)
    losses = {}
    for engine in filter(is_installed, registered_engines()):
        config = TrainingConfig(
            model=model,
            backend=engine,
            nepochs=nepochs,
            n_groups=60,
            nll_weight=0,
            loss_weights="log_error=1,contrast=0.01",
            optimizer="lion",
            learning_rate=2e-3,
        )
        losses[engine] = [report.train["log_error"] for report in fit(scan, config)]
        print(f"{engine}: log_error {' '.join(f'{loss:.4f}' for loss in losses[engine])}")
    return losses


if __name__ == "__main__":
    main()
