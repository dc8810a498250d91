"""Training as a child process: what happens as it happens, a stop, and the model that is left.

    python examples/follow_events.py [BACKEND]

`--events` prints one JSON object a line (specs/events.md); any language can read them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from ptycho_core import save_scan, simulate


def main(backend: str = "auto", stop_after: int = 3) -> dict[str, Any]:
    """The last event of a training that is told to stop after so many epochs."""
    save_scan("train.npz", simulate(object="dead-leaves", N=32, positions=60, photons=1e6, seed=2))
    settings = ["--architecture", "cnn", "--n-filters-scale", "1", "--no-pad-object", "--nepochs", "100"]
    command = [sys.executable, "-m", "ptycho_core", "train", "train.npz", "--out", "run", "--backend", backend]
    event: dict[str, Any] = {}
    with subprocess.Popen([*command, *settings, "--events"], stdin=-1, stdout=-1, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        for line in child.stdout:
            event = json.loads(line)
            if event["kind"] == "epoch":
                print(f"epoch {event['done']} of {event['total']}: loss {event['terms']['total']:.4f}")
                if event["done"] == stop_after:
                    print("stop", file=child.stdin, flush=True)
            elif event["kind"] in ("warning", "checkpoint", "cancelling", "failed"):
                print(f"{event['kind']}: {event['message']}")
    print(f"{event['kind']}: {event['result']['archive']}")
    return event


if __name__ == "__main__":
    main(*sys.argv[1:])
