"""Reports and comparisons: they hold what they promise, run no script of a file, and are refused in one line."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.errors import ConfigurationError, DataError, MissingExtraError
from ptycho_core.quality.ramp import flattened
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.report.pages import images, write_comparison, write_report
from ptycho_core.report.record import Origin, read_record, write_record
from ptycho_core.settings.solving import SolveConfig
from tests.core.reconstructions import make_reconstruction

ENGINE = EngineInfo("fake", "no framework", "1.0", ("cpu",), ("32-true",))
EVIL = "<script>alert(1)</script>"


def folder_of(path: Path, result: Reconstruction | None, scans: Any = (), **changes: Any) -> Path:
    """A run's folder: its record, and its result where there is one."""
    path.mkdir()
    fields: dict[str, Any] = {
        "configs": {"solving": SolveConfig(sweeps=7)},
        "scans": list(scans),
        "engine": ENGINE,
        "seconds": {"total": 2.5},
        "history": [{"epoch": 1, "total": 0.5, "seconds": 1.0}, {"epoch": 2, "total": 0.25, "seconds": 1.0}],
        "warnings": ["mind the gap"],
        "origin": Origin(command="ptycho solve x.npz", sources={"solving": {"sweeps": "flag --sweeps"}}),
    }
    write_record(path, changes.pop("work", "solve"), **{**fields, **changes})
    if result is not None:
        result.save(path)
    return path


def drawn(page: str) -> dict[str, Any]:
    """The figures of a page by name, as Bokeh is given them."""
    (text,) = re.findall(r"const docs_json = '(.*?)';\n", page)
    (document,) = json.loads(text.replace("\\\\", "\\").replace("\\'", "'")).values()
    return {root["attributes"]["name"]: root["attributes"] for root in document["roots"]}


def test_a_report_holds_what_a_run_was_and_came_to(numbered_scan: Callable[..., Any], tmp_path: Path) -> None:
    result = make_reconstruction(N=16)
    assert result.worst_frames is not None
    folder = folder_of(tmp_path / "run", result, [numbered_scan()])
    page = write_report(folder, folder / "report.html").read_text(encoding="utf-8")
    for text in (
        "ptycho solve x.npz",
        "flag --sweeps",
        "mind the gap",
        "fake on cpu",
        "numpy",
        "2.5 s",
        "9 of 32 x 32 pixels",
        "mode 2: ",
        f"frame {result.worst_frames[0]}, among the worst",
        "frame 5, of median misfit",
        "resolution 0.",
    ):
        assert text in page, text
    figures = drawn(page)
    assert set(figures) == {"amplitude", "phase", "trust", "positions", "curves"}
    shared = {json.dumps(figures[name]["x_range"]) for name in ("phase", "trust", "positions")}
    assert shared == {json.dumps({"id": figures["amplitude"]["x_range"]["id"]})}
    assert "moved 0." in figures["positions"]["title"]["attributes"]["text"]


def test_a_report_fetches_nothing_and_runs_no_script_but_its_own(
    numbered_scan: Callable[..., Any], tmp_path: Path
) -> None:
    scan = numbered_scan(source=EVIL, metadata={EVIL: EVIL, "reader": f"</script>{EVIL}"})
    folder = folder_of(tmp_path / "<b>run", make_reconstruction(source=EVIL), [scan], warnings=[EVIL])
    page = write_report(folder, folder / "report.html").read_text(encoding="utf-8")
    assert EVIL not in page and "<b>run" not in page and "&lt;script&gt;alert(1)" in page
    assert re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"'](?!data:)", page) == []
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None and "default-src &#39;none&#39;" in policy[1]
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(scripts) > 1 and re.findall(r"sha256-([^&]+)&", policy[1]) == digests


def test_a_large_object_loses_its_ramp_however_steep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ramp is found on every fourth pixel, of which this one turns by more than half a period."""
    rows, columns = np.indices((200, 190))
    field = np.exp(1j * (0.1 * np.sin(rows / 9) + 1.2 * columns - 0.9 * rows)).astype(np.complex64)
    inside = (rows > 20) & (columns < 150)
    monkeypatch.setattr(images, "RAMP_PX", 50)
    found = images.flat(field, inside)
    expected = np.angle(flattened(field, inside).field)
    assert np.abs(found - expected)[inside].max() < 0.02 and np.abs(expected[inside]).max() < 0.2


def test_a_training_has_its_losses(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run", None, work="train", stopped="ended by SIGTERM")
    page = write_report(folder, folder / "report.html").read_text(encoding="utf-8")
    assert "ended early: ended by SIGTERM" in page and "2 epochs" in page
    (figure,) = drawn(page).values()
    assert figure["title"]["attributes"]["text"] == "losses"


def test_a_result_without_evidence_and_without_a_record_is_reported(tmp_path: Path) -> None:
    nothing = dict.fromkeys(
        ("predicted_error", "frc", "frame_R", "frame_deviance", "given_positions_px", "known", "frames")
    )
    whole = make_reconstruction(measured_amplitude=None, history=(), object_without_prior=None)
    attrs.evolve(whole, **nothing).save(tmp_path)
    page = write_report(tmp_path, tmp_path / "report.html").read_text(encoding="utf-8")
    assert set(drawn(page)) == {"amplitude", "phase", "positions"}


def test_the_record_keeps_one_run_of_each_kind_and_the_last_one_last(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run", None, work="train")
    write_record(folder, "solve", configs={}, scans=[], engine=ENGINE, seconds={"total": float("nan")})
    configs = {"solving": SolveConfig(sweeps=9)}
    write_record(folder, "train", configs=configs, scans=[], engine=ENGINE, seconds={})
    runs = read_record(folder)
    assert list(runs) == ["solve", "train"]
    assert runs["solve"]["seconds"] == {"total": None}
    settings = runs["train"]["settings"]["solving"]
    assert settings["sweeps"] == {"value": 9, "from": "program"} and settings["batches"]["from"] == "default"


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2, "runs": {}}', '{"version": 1, "runs": {"solve": {}}}'])
def test_a_record_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(
        DataError, match=r"run\.json: expected a record of runs, version 1; received .*Remove run\.json"
    ):
        write_report(tmp_path, tmp_path / "report.html")


def test_runs_are_held_against_the_first(tmp_path: Path) -> None:
    first = make_reconstruction(N=16, frames=60)
    turned = attrs.evolve(first, object_field=1.5 * first.object_field * np.exp(0.4j), R=0.5)
    one = folder_of(tmp_path / "one", first)
    two = folder_of(tmp_path / "two", turned, configs={"solving": SolveConfig(sweeps=8)})
    summary = write_comparison([one, two], tmp_path / "compare.html")
    assert summary["runs"]["two"]["correlation with the first"] == pytest.approx(1, abs=1e-6)
    assert summary["runs"]["one"]["correlation with the first"] is None
    assert summary["settings"] == {"solving.sweeps": ["7", "8"]}
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert "solving.sweeps" in page
    names = [root["name"] for root in drawn(page).values()]
    assert {"amplitude", "phase", "difference", "change", "curves"} <= set(names)


def test_what_is_no_run_is_refused(tmp_path: Path, ptycho: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="runs must be two or more; got 1"):
        write_comparison([tmp_path], tmp_path / "compare.html")
    outcome = ptycho("report", tmp_path)
    assert outcome.code == 2 and "expected the folder of a run; received neither" in outcome.err
    outcome = ptycho("compare", tmp_path, tmp_path / "nowhere", "--out", tmp_path / "c.html")
    assert outcome.code == 2 and not (tmp_path / "c.html").exists()
    (tmp_path / "c.html").write_text("mine")
    outcome = ptycho("compare", tmp_path, tmp_path, "--out", tmp_path / "c.html")
    assert outcome.code == 2 and "--overwrite" in outcome.err


def test_without_the_extra_its_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bokeh.plotting", None)
    with pytest.raises(MissingExtraError, match=r"needs the package bokeh.*ptycho-core\[pages\]"):
        write_report(tmp_path, tmp_path / "report.html")
