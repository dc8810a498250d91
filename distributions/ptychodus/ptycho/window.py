"""What Ptychodus shows of our work in the text box of its window.

The text box has what is logged under "ptychopinn"; a child's lines reach it by that name. It is drawn again whenever
the child answers, so every epoch is an answer of its own, beside the one that Ptychodus's child gives in the end.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import sys
from collections.abc import Iterator

from ptycho_core import __version__
from ptycho_core.engine.registry import resolve_backend
from ptycho_core.errors import PtychoError

log = logging.getLogger("ptychopinn")
PROTOCOL = "ptychodus.model.processing._subprocess_protocol"
"""The module of the process that Ptychodus has made for the work."""


def introduce(work: str, engine: str) -> None:
    """Say who works, and with which engine, auto or stated; whether there is such a one, the work says."""
    log.info(
        "ptycho-core %s, in place of PtychoPINN: %s with %s",
        __version__,
        work,
        resolve_backend() if engine == "auto" else engine,
    )


def answer_epoch(epoch: int) -> None:
    """Let Ptychodus show what was logged until now. Nothing outside a process that it has made for a training."""
    protocol = sys.modules.get(PROTOCOL)
    if protocol is None:
        return
    for handler in logging.getLogger().handlers:
        if isinstance(handler, protocol.SubprocessLogHandler):
            from ptychodus.api.reconstruct import TrainOutput
            from ptychodus.model.processing.subprocess_reconstructor import TAG_TRAIN_OUTPUT

            handler._result_queue.put((TAG_TRAIN_OUTPUT, pickle.dumps(TrainOutput(progress=epoch))))


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Say in one line what a user can mend; it goes on to Ptychodus."""
    try:
        yield
    except PtychoError as error:
        log.error("ptycho-core: %s", error)
        raise
