"""Outputs appear whole or not at all, and what was there before survives what fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contextem._output import replaced_folder, whole_file, whole_folder


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("before", [{}, {"a.txt": "old"}])
def test_a_file_is_whole_or_as_it_was(tmp_path, before):
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        assert contents(tmp_path).get("a.txt") == before.get("a.txt")
        assert temporary.suffix == ".txt"
        _ = 1 / 0
    assert contents(tmp_path) == before
    with whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert contents(tmp_path) == {"a.txt": "new"}


def test_a_file_has_the_permissions_that_the_user_gives_new_files(tmp_path):
    mask = os.umask(0o027)
    try:
        with whole_file(tmp_path / "below" / "a.txt") as temporary:
            temporary.write_text("")
    finally:
        os.umask(mask)
    assert (tmp_path / "below" / "a.txt").stat().st_mode & 0o777 == 0o640


def test_files_of_a_folder_are_added_to_those_there(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "kept.txt").write_text("kept")
    (folder / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), whole_folder(folder) as temporary:
        (temporary / "a.txt").write_text("half")
        _ = 1 / 0
    assert contents(tmp_path) == {"out/kept.txt": "kept", "out/a.txt": "old"}
    with whole_folder(folder) as temporary:
        (temporary / "a.txt").write_text("new")
    assert contents(tmp_path) == {"out/kept.txt": "kept", "out/a.txt": "new"}


@pytest.mark.parametrize("before", [{}, {"old.txt": "old"}])
def test_a_folder_takes_the_place_of_another(tmp_path, before):
    folder = tmp_path / "table"
    for name, text in before.items():
        folder.mkdir()
        (folder / name).write_text(text)
    with pytest.raises(ZeroDivisionError), replaced_folder(folder) as temporary:
        (temporary / "half.txt").write_text("")
        _ = 1 / 0
    assert contents(tmp_path) == {f"table/{name}": text for name, text in before.items()}
    with replaced_folder(folder) as temporary:
        (temporary / "new.txt").write_text("new")
    assert contents(tmp_path) == {"table/new.txt": "new"}


@pytest.mark.parametrize("before", [{}, {"old.txt": "old"}])
def test_the_old_folder_comes_back_where_the_new_one_cannot_take_its_place(tmp_path, before, monkeypatch):
    folder = tmp_path / "table"
    for name, text in before.items():
        folder.mkdir()
        (folder / name).write_text(text)
    rename = Path.rename

    def fail(path, target):
        if path.name == "new":
            raise OSError("input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="input/output error"), replaced_folder(folder) as temporary:
        (temporary / "new.txt").write_text("new")
    assert contents(tmp_path) == {f"table/{name}": text for name, text in before.items()}
