"""For every test."""

import gc
import os

import hypothesis
import pytest

# Before numpy or a framework is imported, here or in a process that a test starts: the arrays are small, and threads
# that wait for each other on a busy machine take ten times as long as one.
for _library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

# Where both frameworks are loaded a full collection takes a fifth of a second, and ten times fewer are enough.
gc.set_threshold(gc.get_threshold()[0], gc.get_threshold()[1], 100)


# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def no_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs leave an empty report, and figures of one byte, unless a test asks for `pages`: few look at them.

    A real one takes a third of a second.
    """
    if "pages" not in request.fixturenames:
        monkeypatch.setattr("ptycho_core.runs.folder.write_report", lambda folder, path: path.write_bytes(b""))
        monkeypatch.setattr("ptycho_core.report.plots.drawing.write", lambda figure, file: file.write(b"-"))


@pytest.fixture
def pages() -> None:
    """The reports and figures of runs are real."""
