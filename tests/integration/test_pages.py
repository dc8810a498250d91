"""The Python blocks of the documentation are run as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptycho_core import Comparison
from ptycho_core.engine import registry
from ptycho_core.engine.registry import is_installed, registered_engines
from tests.examples import EXAMPLES
from tests.pages import DOCS, run_notebook, run_page

INSTALLED = [name for name in registered_engines() if is_installed(name)]
needs_an_engine = pytest.mark.skipif(not INSTALLED, reason="no engine is installed")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where PyTorch is the one engine that is installed, as the pages say, if it is installed at all."""
    monkeypatch.chdir(tmp_path)
    if "torch" in INSTALLED:
        monkeypatch.setattr(registry, "installed_engines", lambda: ("torch",))


@pytest.mark.parametrize("page", ["your_data.md", "embedding.md"])
def test_a_page_runs_without_an_engine(page: str) -> None:
    assert run_page(DOCS / page)


@needs_an_engine
def test_a_network_from_a_page_is_trained() -> None:
    assert run_page(DOCS / "write_a_network.md")["trained"].weights["stem/kernel"].shape == (3, 3, 1, 16)


@needs_an_engine
def test_a_loss_and_an_optimizer_from_a_page_train() -> None:
    assert run_page(DOCS / "write_a_loss.md")["trained"].history[-1]["log_counts"] > 0


@needs_an_engine
def test_the_page_on_solving_solves(tmp_path: Path) -> None:
    run_page(DOCS / "solve.md")
    assert (tmp_path / "solved" / "reconstruction.npz").is_file()


@needs_an_engine
def test_the_first_image_is_drawn(tmp_path: Path, pages: None) -> None:
    run_page(DOCS / "first_image.md")
    assert (tmp_path / "object.png").stat().st_size > 10_000
    assert (tmp_path / "run" / "reconstruction.npz").is_file()


@needs_an_engine
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_has_made(path: Path) -> None:
    shown = [each for each in run_notebook(path) if each is not None]
    assert shown and all(hasattr(each, "_repr_html_") or len(repr(each)) < 200 for each in shown)
    if path.stem == "first_image":  # the truth, and two results of their own origins
        assert all(each.metrics.correlation > 0.9 for each in shown if isinstance(each, Comparison))


def test_a_page_that_fails_says_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\nx = 1\n```\n\ntext\n\n```python\nassert x == 2\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError) as caught:
        run_page(page)
    assert caught.traceback[-1].lineno + 1 == 10
