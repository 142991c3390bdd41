"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Replaces the file at `path` as a whole, also when the machine stops in the middle.

    A new file gets the mode that the process gives files, an old one keeps its own. A link stays a link, and
    what it leads to is replaced; a device or a pipe is written to as it is. OSError names `path`.
    """
    name = os.fspath(path)
    target = os.path.realpath(name)
    folder, base = os.path.split(target)
    temporary = os.path.join(folder, f".{base[:40]}.{secrets.token_hex(8)}.tmp")
    try:
        mode = _mode(target)
        if mode is not None and not stat.S_ISREG(mode):
            with open(target, "wb") as file:
                file.write(data)
            return
        _write(temporary, data, mode)
        try:
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:  # it may name a file that nobody asked for
        raise OSError(error.errno, error.strerror, name) from None
    _sync(folder)


def _mode(path: str) -> int | None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return os.stat(path).st_mode
    return None


def _write(path: str, data: bytes, mode: int | None) -> None:
    """Writes a new file, which is on the disk when this returns and gone when it fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        with open(descriptor, "wb") as file:
            if mode is not None:
                os.chmod(path, stat.S_IMODE(mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(path)
        raise


def _sync(folder: str) -> None:
    """Makes the new name last through a power cut, where the system can open folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
