"""A stored configuration names the same files from every working folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.rooted import rooted
from ptycho_core.settings.solving import SolveConfig


def test_names_of_files_are_absolute_and_other_text_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("p.txt", "a.tif", "probe.npy", "auto", "flat", "learned", "model"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for text, expected in {
        "p.txt": f"{tmp_path}/p.txt",
        "p.txt:x,y": f"{tmp_path}/p.txt:x,y",
        "p.txt:x,p.txt:y": f"{tmp_path}/p.txt:x,{tmp_path}/p.txt:y",
        "entry/x,entry/y": "entry/x,entry/y",
        "gone.txt": "gone.txt",
    }.items():
        assert rooted(ReadOptions(positions=text)).positions == expected, text
    read = rooted(ReadOptions(dataset="*.tif:/data", probe="auto", follow_links=Path("raw"), measurement="intensity"))
    assert (read.dataset, read.probe) == (f"{tmp_path}/*.tif:/data", "auto")
    assert (read.follow_links, read.measurement) == (tmp_path / "raw", "intensity")
    solve = rooted(SolveConfig(data_file=Path("p.txt"), prior="learned"))
    assert (solve.data_file, solve.start, solve.prior) == (tmp_path / "p.txt", "flat", "learned")
    assert rooted(SolveConfig(start="model")).start == f"{tmp_path}/model"
