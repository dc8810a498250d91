"""The import of the framework: without Keras, and without what it writes before it reads TF_CPP_MIN_LOG_LEVEL."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

CHATTER = re.compile(rb"(WARNING: All log messages before absl::InitializeLog\(\)|I0000 )")
"""How the lines begin that say nothing; what else comes in the meantime is passed on."""
LEGACY = "TF_USE_LEGACY_KERAS"
"""Asks the framework for Keras 2, of the package tf_keras, in place of Keras 3."""


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


@contextmanager
def without_keras() -> Iterator[None]:
    """Leave Keras, of which the engine has no need, to whoever asks for it: it takes two fifths of the import.

    The framework imports Keras 3 at its own end, in case it is needed, unless the environment asks for another; that
    this other is absent is no error there. `tf.keras` reads the environment when it is first used, and is Keras 3.
    """
    if LEGACY in os.environ or "tensorflow" in sys.modules or importlib.util.find_spec("tf_keras") is not None:
        yield
        return
    os.environ[LEGACY] = "1"
    try:
        yield
    finally:
        del os.environ[LEGACY]


def _flush() -> None:
    if sys.stderr is not None:  # as under pythonw
        sys.stderr.flush()
