"""The import of the framework, which writes to the descriptor of stderr before it reads TF_CPP_MIN_LOG_LEVEL."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

CHATTER = re.compile(rb"(WARNING: All log messages before absl::InitializeLog\(\)|I0000 )")
"""How the lines begin that say nothing; what else comes in the meantime is passed on."""


@contextmanager
def without_chatter() -> Iterator[None]:
    """Keep the framework's first lines from stderr, where TF_CPP_MIN_LOG_LEVEL asks for none of their kind."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") in ("0", ""):
        yield
        return
    try:
        own = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    _flush()
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            _flush()
            os.dup2(own, 2)
            os.close(own)
            held.seek(0)
            for line in held:
                if CHATTER.match(line) is None:
                    os.write(2, line)


def _flush() -> None:
    if sys.stderr is not None:  # as under pythonw
        sys.stderr.flush()
