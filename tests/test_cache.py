from __future__ import annotations

import hashlib
import multiprocessing
import os
import stat
import tempfile
import threading
import time
from pathlib import Path

import pytest
from graphflow import config
from graphflow.runtime import cache
from graphflow.runtime.cache import Cache


def digest(text: object) -> str:
    """A digest made from anything."""
    return hashlib.sha256(str(text).encode()).hexdigest()


def file_of(directory: Path, key: str) -> Path:
    """The file of an entry."""
    return directory / (key + ".gfc")


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "deeper" / "cache"


def test_round_trip(directory):
    first = Cache(directory)
    assert first.get(digest(1)) is None
    first.put(digest(1), b"code\0\xff", {"b": [1, 2.5, None], "a": "ä"})
    first.put(digest(2), b"", {})
    for reader in (first, Cache(directory)):
        assert reader.get(digest(1)) == (b"code\0\xff", {"a": "ä", "b": [1, 2.5, None]})
        assert reader.get(digest(2)) == (b"", {})
    assert first.status().directory == directory and first.status().reason == ""
    assert (first.status().hits, first.status().misses) == (2, 1)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(file_of(directory, digest(1)).stat().st_mode) == 0o600


def test_only_digests_become_file_names(directory):
    store = Cache(directory)
    for bad in ("", "../../etc/passwd", "A" * 64, "0" * 15, "0" * 129, "0" * 63 + "/", "0" * 64 + "\n"):
        with pytest.raises(ValueError, match="digest"):
            store.get(bad)
        with pytest.raises(ValueError, match="digest"):
            store.put(bad, b"", {})


def test_compile_makes_once_and_counts(directory):
    store = Cache(directory)
    made = []

    def make():
        made.append(1)
        return b"object", {"n": 1}

    assert [store.compile(digest(1), make) for _ in range(3)] == [(b"object", {"n": 1})] * 3
    assert len(made) == 1 and store.status().compiled == 1
    assert Cache(directory).compile(digest(1), make) == (b"object", {"n": 1})
    assert len(made) == 1


def test_threads_that_want_the_same_wait_for_one(directory):
    for store in (Cache(directory), Cache(None)):
        made = []
        start = threading.Barrier(6)

        def make(made=made):
            made.append(1)
            time.sleep(0.02)
            return b"object", {}

        def want(store=store, start=start, make=make):
            start.wait()
            assert store.compile(digest(1), make)[0] == b"object"

        callers = [threading.Thread(target=want) for _ in range(6)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert len(made) == 1 and store.status().compiled == 1


def test_a_failed_compilation_leaves_nothing(directory):
    store = Cache(directory)

    def fail():
        raise RuntimeError("no")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="no"):
            store.compile(digest(1), fail)
    assert store.compile(digest(1), lambda: (b"x", {})) == (b"x", {})
    assert os.listdir(directory) == [digest(1) + ".gfc"]


def test_many_are_made_at_once_in_order_and_once(directory):
    both = threading.Barrier(2, timeout=60)
    made = []

    def maker(number):
        def make():
            made.append(number)
            if number < 2:
                both.wait()  # passes only when two are being made at the same time
            return b"%d" % number, {"n": number}

        return make

    for store in (Cache(directory), Cache(None)):
        store.put(digest(5), b"5", {"n": 5})
        numbers = [0, 1, 5, 2, 3, 2]
        wanted = [(digest(n), maker(n)) for n in numbers]
        assert store.compile_all(wanted, 2) == [(b"%d" % n, {"n": n}) for n in numbers]
        assert sorted(made) == [0, 1, 2, 3] and store.status().compiled == 4
        assert store.compile_all(wanted, 2) == [(b"%d" % n, {"n": n}) for n in numbers]
        assert store.compile_all([], 2) == [] and len(made) == 4
        made.clear()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_among_many_is_raised_and_the_others_stay_or_wait(directory, threads):
    store = Cache(directory)

    def fail():
        raise RuntimeError("no")

    wanted = [(digest(n), fail if n == 1 else lambda: (b"x", {})) for n in range(6)]
    with pytest.raises(RuntimeError, match="no"):
        store.compile_all(wanted, threads)
    assert store.get(digest(1)) is None and store.get(digest(0)) == (b"x", {})
    assert not [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    wanted[1] = wanted[0]
    assert store.compile_all(wanted, threads) == [(b"x", {})] * 6


def test_every_damaged_byte_and_every_cut_is_noticed(directory):
    store = Cache(directory)
    store.put(digest(1), b"machine code", {"name": "k"})
    path = file_of(directory, digest(1))
    good = path.read_bytes()
    damaged = [good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :] for i in range(len(good))]
    damaged += [good[:i] for i in range(len(good))] + [good + b"\0"]
    for content in damaged:
        path.write_bytes(content)
        assert store.get(digest(1)) is None
        assert not path.exists()
    assert store.status().corrupt == len(damaged)
    assert store.compile(digest(1), lambda: (b"again", {})) == (b"again", {})
    assert Cache(directory).get(digest(1)) == (b"again", {})


def test_a_symbolic_link_is_not_followed(directory, tmp_path):
    store = Cache(directory)
    store.put(digest(1), b"code", {})
    file_of(directory, digest(1)).rename(tmp_path / "elsewhere")
    file_of(directory, digest(1)).symlink_to(tmp_path / "elsewhere")
    assert store.get(digest(1)) is None


def test_files_that_others_may_write_are_not_loaded(directory):
    store = Cache(directory)
    store.put(digest(1), b"code", {})
    file_of(directory, digest(1)).chmod(0o666)
    assert store.get(digest(1)) is None


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_directory_that_others_may_write_is_refused(directory, mode):
    directory.mkdir(parents=True)
    directory.chmod(mode)
    store = Cache(directory)
    assert store.status().directory is None and "can be written to by others" in store.status().reason
    store.put(digest(1), b"code", {"a": 1})
    assert store.get(digest(1)) == (b"code", {"a": 1})
    assert os.listdir(directory) == []


def test_a_directory_of_another_user_is_refused(directory, monkeypatch):
    directory.mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: directory.stat().st_uid + 1)
    assert "belongs to another user" in Cache(directory).status().reason


def test_places_that_cannot_be_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    assert "not a directory" in Cache(tmp_path / "file").status().reason
    assert "can't be made" in Cache(tmp_path / "file" / "below").status().reason


def test_a_directory_without_write_permission(directory, monkeypatch):
    directory.mkdir(parents=True)
    directory.chmod(0o500)
    if os.geteuid() == 0:  # the superuser may write anywhere

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(tempfile, "mkstemp", refuse)
    store = Cache(directory)
    store.put(digest(1), b"code", {})
    assert store.get(digest(1)) == (b"code", {})
    assert "Permission denied" in store.status().reason


def test_a_full_disk(directory, monkeypatch):
    store = Cache(directory)
    real = os.replace

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    store.put(digest(1), b"code", {})
    assert store.get(digest(1)) == (b"code", {})
    assert "No space left" in store.status().reason
    assert os.listdir(directory) == []
    monkeypatch.setattr(os, "replace", real)
    store.put(digest(2), b"code", {})
    assert Cache(directory).get(digest(2)) is not None


def test_the_directory_may_vanish(directory):
    store = Cache(directory)
    os.rmdir(directory)
    store.put(digest(1), b"code", {})
    assert store.get(digest(1)) == (b"code", {})


def test_size_is_bounded_and_the_unused_go_first(directory):
    store = Cache(directory, limit=50_000)
    for number in range(8):
        store.put(digest(number), bytes(5_000), {})
        os.utime(file_of(directory, digest(number)), (1000 + number, 1000 + number))
    assert store.get(digest(0)) is not None  # now the one used last
    for number in range(8, 14):
        store.put(digest(number), bytes(5_000), {})
    total = sum(entry.stat().st_size for entry in os.scandir(directory))
    assert total <= 50_000
    kept = [number for number in range(14) if file_of(directory, digest(number)).exists()]
    assert 0 in kept and 1 not in kept and kept[1:] == list(range(kept[1], 14))
    # what is too big for the directory is kept in memory
    store.put(digest("big"), bytes(60_000), {})
    assert store.get(digest("big")) == (bytes(60_000), {}) and not file_of(directory, digest("big")).exists()


def test_what_dead_processes_left_is_removed(directory):
    store = Cache(directory, limit=1000)
    old, new = directory / "0123456789abcdefx.tmp", directory / "0123456789abcdefy.tmp"
    for path in (old, new):
        path.write_bytes(b"unfinished")
    os.utime(old, (1000, 1000))
    store.put(digest(1), bytes(10), {})
    assert not old.exists() and new.exists()


def _hammer(directory: Path, seed: int, failures: multiprocessing.Queue) -> None:
    store = Cache(directory, limit=20_000)
    for step in range(150):
        number = (seed * 7 + step) % 12
        expected = (str(number).encode() * 1000, {"number": number})
        if store.compile(digest(number), lambda expected=expected: expected) != expected:
            failures.put((seed, step))
    if store.status().corrupt:
        failures.put((seed, "corrupt"))


def test_many_processes_at_once(directory):
    context = multiprocessing.get_context("spawn")
    failures = context.Queue()
    workers = [context.Process(target=_hammer, args=(directory, seed, failures)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert failures.empty()
    assert not [name for name in os.listdir(directory) if not name.endswith(".gfc")]


def test_the_default_follows_the_environment(directory, monkeypatch):
    monkeypatch.setattr(cache, "_default", None)
    try:
        monkeypatch.setenv("GRAPHFLOW_CACHE", "off")
        cache.reset()
        assert cache.status().directory is None and "off" in cache.status().reason
        cache.put(digest(1), b"code", {})
        assert cache.get(digest(1)) == (b"code", {})
        monkeypatch.setenv("GRAPHFLOW_CACHE", str(directory))
        monkeypatch.setenv("GRAPHFLOW_CACHE_BYTES", "1M")
        cache.reset()
        assert cache.get(digest(1)) is None
        before = cache.compile_count()
        cache.compile(digest(1), lambda: (b"code", {}))
        cache.compile(digest(2), lambda: (b"code", {}), counted=False)
        assert cache.compile_count() == before + 1
        assert file_of(directory, digest(1)).exists()
    finally:
        monkeypatch.undo()
        config.reload()
