"""The compiled-code cache: digest → object code and JSON metadata, on disk and safe among many processes.

An entry is one file, named by its digest: a magic line, the SHA-256 of all that follows, the length of the
metadata, the metadata (JSON), the object code. Files are written under another name and renamed, so a reader
sees a whole file or none. There is no fsync: a file that a power cut truncates fails its checksum, is
removed, and is made again.

The object code will be executed, so the directory must belong to this user, and nobody else may be able to
write to it. The checksum is there for accidents, it doesn't protect from people who can write. Where the
directory can't be used, entries are kept in memory for this process, and `status` tells why.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import struct
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from graphflow import config
from graphflow.runtime.locks import ForkLock

Metadata = dict[str, Any]
Entry = tuple[bytes, Metadata]
Make = Callable[[], Entry]

_MAGIC = b"graphflow-cache-1\n"
_SUFFIX = ".gfc"
_DIGEST = re.compile(r"[0-9a-f]{16,128}")
# A file's time of last use is refreshed at most this often (seconds), and what other processes wrote is
# counted every so many writes.
_TOUCH_SECONDS = 600.0
_RESCAN_WRITES = 64
# An unfinished file this old (seconds) was left behind by a process that died.
_STALE_SECONDS = 3600.0


@dataclass(frozen=True)
class Status:
    """What became of the cache: its directory (None when entries are in memory only), and the reason for
    that.

    ``hits`` and ``misses`` count `get`, ``corrupt`` the files that failed their check, ``compiled`` the
    entries that `compile` had to make.
    """

    directory: Path | None
    reason: str
    hits: int
    misses: int
    corrupt: int
    compiled: int


class Cache:
    """A cache in `directory` (None: in memory), whose files together take at most about `limit` bytes.

    The files that went unused longest are removed first. Safe for many threads and processes.
    """

    def __init__(self, directory: Path | None, limit: int = config.DEFAULT_CACHE_BYTES, reason: str = ""):
        self._directory, self._limit, self._reason = directory, limit, reason
        self._memory: dict[str, Entry] = {}
        self._lock = ForkLock()
        self._making: dict[str, ForkLock] = {}
        self._hits = self._misses = self._corrupt = self._compiled = 0
        self._bytes = 0
        self._writes = 0
        if directory is None:
            self._reason = reason or "no cache directory was given"
        else:
            self._check(directory)

    def get(self, digest: str) -> Entry | None:
        """The object code and metadata under `digest`, or None. A file that fails its check is removed."""
        _check_digest(digest)
        entry = self._memory.get(digest) or self._read(digest)
        with self._lock:
            self._hits += entry is not None
            self._misses += entry is None
        return entry

    def peek(self, digest: str) -> Entry | None:
        """`get`, which `status` doesn't count."""
        _check_digest(digest)
        return self._memory.get(digest) or self._read(digest)

    def put(self, digest: str, object_code: bytes, metadata: Metadata) -> None:
        """Keeps an entry. What the disk doesn't take is kept in memory."""
        _check_digest(digest)
        text = json.dumps(metadata, sort_keys=True, allow_nan=False).encode()
        body = struct.pack("<Q", len(text)) + text + object_code
        if not self._write(digest, _MAGIC + hashlib.sha256(body).digest() + body):
            self._memory[digest] = (object_code, json.loads(text))

    def compile(self, digest: str, make: Make, counted: bool = True) -> Entry:
        """The entry under `digest`, made by `make` (and counted as a compilation) when there is none.

        Threads that want the same entry at once wait for one of them to make it.
        """
        return self.get(digest) or self._make(digest, make, counted)

    def compile_all(self, wanted: Sequence[tuple[str, Make]], threads: int) -> list[Entry]:
        """As `compile`, for many digests, each with what makes its entry; up to `threads` are made at once.

        They are begun in the order given. What one raises is raised here, when those already begun are done.
        """
        found = {digest: self.get(digest) for digest, _ in wanted}
        missing = {digest: make for digest, make in wanted if found[digest] is None}
        made = _run_all([partial(self._make, *one, True) for one in missing.items()], threads)
        found.update(zip(missing, made, strict=True))
        return [entry for digest, _ in wanted if (entry := found[digest]) is not None]

    def _make(self, digest: str, make: Make, counted: bool) -> Entry:
        with self._lock:
            making = self._making.setdefault(digest, ForkLock())
        try:
            with making:
                entry = self._memory.get(digest) or self._read(digest)
                if entry is None:
                    entry = make()
                    with self._lock:
                        self._compiled += counted
                    self.put(digest, *entry)
        finally:
            with self._lock:
                self._making.pop(digest, None)
        return entry

    def status(self) -> Status:
        """Where entries are kept, why, and how often they were found."""
        with self._lock:
            counts = (self._hits, self._misses, self._corrupt, self._compiled)
            return Status(self._directory, self._reason, *counts)

    def _fall_back(self, reason: str) -> None:
        self._directory, self._reason = None, reason

    def _check(self, directory: Path) -> None:
        try:
            # parents get the usual permissions; only the cache itself is private
            directory.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                directory.mkdir(mode=0o700)
            state = directory.stat()
        except OSError as error:
            self._fall_back(f"{directory} can't be made: {error.strerror}")
            return
        if not stat.S_ISDIR(state.st_mode):
            self._fall_back(f"{directory} is not a directory")
        elif state.st_uid != os.geteuid():
            self._fall_back(f"{directory} belongs to another user")
        elif state.st_mode & 0o022:
            self._fall_back(f"{directory} can be written to by others (mode {state.st_mode & 0o777:o})")

    def _read(self, digest: str) -> Entry | None:
        directory = self._directory
        if directory is None:
            return None
        path = directory / (digest + _SUFFIX)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            return None
        state = os.fstat(descriptor)
        if stat.S_ISDIR(state.st_mode):
            os.close(descriptor)
            return None
        with open(descriptor, "rb") as file:
            try:
                content = file.read()
            except OSError:
                return None
        trusted = stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & 0o022
        entry = _unpack(content) if trusted else None
        if entry is None:
            with self._lock:
                self._corrupt += 1
            with contextlib.suppress(OSError):
                path.unlink()
        elif time.time() - state.st_mtime > _TOUCH_SECONDS:
            with contextlib.suppress(OSError):
                os.utime(path)
        return entry

    def _write(self, digest: str, content: bytes) -> bool:
        directory = self._directory
        if directory is None or len(content) > self._limit:
            return False
        try:
            descriptor, temporary = tempfile.mkstemp(".tmp", digest[:16], directory)  # mode 0600
            try:
                with open(descriptor, "wb") as file:
                    file.write(content)
                os.replace(temporary, directory / (digest + _SUFFIX))
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            # a full disk may have room again later, so the directory stays in use
            self._reason = f"an entry was kept in memory: {error.strerror}"
            return False
        with self._lock:
            self._bytes += len(content)
            self._writes += 1
            if self._writes % _RESCAN_WRITES == 1 or self._bytes > self._limit:
                self._trim(directory)
        return True

    def _trim(self, directory: Path) -> None:
        """When all files exceed the limit, removes those unused longest until nine tenths of it are left."""
        files = []
        total = 0
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    state = entry.stat(follow_symlinks=False)
                    stale = time.time() - state.st_mtime > _STALE_SECONDS
                    if entry.name.endswith(".tmp") and stale:
                        os.unlink(entry.path)
                    elif entry.name.endswith(_SUFFIX):
                        files.append((state.st_mtime_ns, entry.path, state.st_size))
                        total += state.st_size
        if total > self._limit:
            for _, path, size in sorted(files)[:-1]:
                if total <= self._limit * 9 // 10:
                    break
                with contextlib.suppress(OSError):
                    os.unlink(path)
                    total -= size
        self._bytes = total


def _run_all(tasks: Sequence[Make], threads: int) -> list[Entry]:
    """What all tasks give, up to `threads` of them running at once, this thread's among them."""
    waiting = deque(enumerate(tasks))
    results: dict[int, Entry] = {}
    errors: list[BaseException] = []

    def work() -> None:
        while not errors:
            try:
                number, task = waiting.popleft()
            except IndexError:
                return
            try:
                results[number] = task()
            except BaseException as error:  # an interrupt, too, has to stop the others
                errors.append(error)

    helpers = [threading.Thread(target=work) for _ in range(min(threads, len(tasks)) - 1)]
    for helper in helpers:
        helper.start()
    try:
        work()
    finally:
        waiting.clear()  # after an interrupt the others end with what they have begun
        for helper in helpers:
            helper.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(tasks))]


def _check_digest(digest: str) -> None:
    # it becomes a file name
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"a digest is 16 to 128 lower-case hexadecimal digits, not {digest!r}")


def _unpack(content: bytes) -> Entry | None:
    """The entry in a file's bytes; None when they aren't what `put` wrote."""
    start = len(_MAGIC)
    if len(content) < start + 40 or not content.startswith(_MAGIC):
        return None
    body = memoryview(content)[start + 32 :]
    if hashlib.sha256(body).digest() != content[start : start + 32]:
        return None
    (length,) = struct.unpack_from("<Q", body)
    if length > len(body) - 8:
        return None
    return bytes(body[8 + length :]), json.loads(bytes(body[8 : 8 + length]))


_default: Cache | None = None
_default_lock = ForkLock()


def default() -> Cache:
    """This process's cache, as GRAPHFLOW_CACHE and GRAPHFLOW_CACHE_BYTES ask."""
    global _default
    if _default is None:
        with _default_lock:
            if _default is None:
                settings = config.settings()
                off = "GRAPHFLOW_CACHE=off, or there is no home directory"
                reason = off if settings.cache_directory is None else ""
                _default = Cache(settings.cache_directory, settings.cache_bytes, reason)
    return _default


def reset() -> None:
    """Forgets this process's cache object and its counts; the next use reads the settings again."""
    global _default
    config.reload()
    _default = None


def get(digest: str) -> Entry | None:
    """`Cache.get` of this process's cache."""
    return default().get(digest)


def put(digest: str, object_code: bytes, metadata: Metadata) -> None:
    """`Cache.put` of this process's cache."""
    default().put(digest, object_code, metadata)


def compile(digest: str, make: Make, counted: bool = True) -> Entry:
    """`Cache.compile` of this process's cache."""
    return default().compile(digest, make, counted)


def compile_all(wanted: Sequence[tuple[str, Make]], threads: int) -> list[Entry]:
    """`Cache.compile_all` of this process's cache."""
    return default().compile_all(wanted, threads)


def status() -> Status:
    """`Cache.status` of this process's cache."""
    return default().status()


def compile_count() -> int:
    """How many entries this process had to compile so far."""
    return default().status().compiled
