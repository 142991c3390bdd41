"""Files written whole or not at all, with the modes and through the links that people expect."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from graphflow.files import write_atomically


def _fail(*args: object) -> None:
    raise OSError(28, "No space left on device")


def _interrupt(*args: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(("stop", "error"), [(_fail, OSError), (_interrupt, KeyboardInterrupt)])
def test_what_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, stop: object, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, step, stop)
    with pytest.raises(error) as raised:
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    if error is OSError:
        assert str(path) in str(raised.value)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_that_files_get(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", b"data")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666, 0o440])
def test_an_old_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_atomically(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", mode)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_a_link(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "target", tmp_path / "link"
    if exists:
        target.write_bytes(b"old")
    link.symlink_to(Path("disk") / "target")
    write_atomically(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["disk", "link"] and os.listdir(target.parent) == ["target"]


def test_devices_and_pipes_are_written_to_as_they_are(tmp_path: Path) -> None:
    write_atomically(os.devnull, b"data")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b"data")
    reader.join()
    assert found == [b"data"] and os.listdir(tmp_path) == ["pipe"]


def test_errors_name_the_path_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "missing" / "file", tmp_path, tmp_path / "loop", tmp_path / "file" / "below"):
        with pytest.raises(OSError) as raised:
            write_atomically(path, b"data")
        assert raised.value.filename == str(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError) as raised:
            write_atomically(tmp_path / "file", b"data")
    finally:
        tmp_path.chmod(0o755)
    assert raised.value.filename == str(tmp_path / "file")


def test_long_names_and_many_writers(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 120 + ".safetensors")
    contents = [bytes([i]) * 100_000 for i in range(8)]
    writers = [threading.Thread(target=write_atomically, args=(path, data)) for data in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == [path.name]
