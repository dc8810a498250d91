"""A text file that names several scans."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptycho_core.errors import DataError
from ptycho_core.settings.lists import listed


def test_a_list_names_scans_relative_to_its_folder(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    for name in ("a #1.npz", "far/b.h5"):
        (tmp_path / name).touch()
    (tmp_path / "scans.TXT").write_text(f"\ufeff# of one night\n\n  a #1.npz\r\n{tmp_path / 'far' / 'b.h5'}\n")
    assert listed(tmp_path / "scans.TXT") == (tmp_path / "a #1.npz", tmp_path / "far" / "b.h5")


def test_a_file_of_another_name_is_itself(tmp_path: Path) -> None:
    assert listed(tmp_path / "scan.npz") == (tmp_path / "scan.npz",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n", "expected a list of scans, one path on each line; received none"),
        (b"PK\x03\x04\0\0", "received a file that is not text"),
        (b"\nnone.npz\n", r"line 2: expected an existing file; received .*none\.npz. Check the path; it is relative"),
        (None, "received no such file"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "scans.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        listed(path)
    assert str(caught.value).startswith(str(path))
