"""Samplers, streams, workers, and the options of DataLoader that come with them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    StackDataset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)


class Numbers(Dataset):
    def __init__(self, size: int):
        self.size = size

    def __getitem__(self, index: int) -> int:
        return index

    def __len__(self) -> int:
        return self.size


class Stream(IterableDataset):
    def __init__(self, start: int, end: int):
        self.start, self.end = start, end

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.end))


def batches(loader: DataLoader) -> list[list[int]]:
    return [batch.tolist() for batch in loader]


def flat(loader: DataLoader) -> list[int]:
    return [i for batch in loader for i in batch.tolist()]


@pytest.fixture(autouse=True)
def seeded() -> None:
    gf.manual_seed(0)


# ---------------------------------------------------------------------------------------------- samplers


def test_orders_of_samplers() -> None:
    data = Numbers(20)
    assert list(SequentialSampler(data)) == list(range(20))
    sampler = RandomSampler(data)
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert len(sampler) == 20
    picked = list(SubsetRandomSampler([3, 5, 8, 13]))
    assert sorted(picked) == [3, 5, 8, 13]


def test_random_sampler_with_more_and_fewer_samples_than_there_are() -> None:
    many = list(RandomSampler(Numbers(4), num_samples=10))
    assert sorted(many[:4]) == sorted(many[4:8]) == [0, 1, 2, 3]
    assert len(many) == 10
    few = list(RandomSampler(Numbers(100), num_samples=5))
    assert len(set(few)) == 5
    drawn = Counter(RandomSampler(Numbers(4), replacement=True, num_samples=4000))
    assert all(850 < drawn[i] < 1150 for i in range(4))
    assert list(RandomSampler(Numbers(0))) == []


def test_weights_decide_how_often() -> None:
    drawn = Counter(WeightedRandomSampler([1, 0, 3], 4000))
    assert set(drawn) == {0, 2}
    assert 850 < drawn[0] < 1150
    first = Counter(next(iter(WeightedRandomSampler([1, 3, 0], 1, replacement=False))) for _ in range(2000))
    assert set(first) == {0, 1}
    assert 400 < first[0] < 600
    whole = list(WeightedRandomSampler([5, 0, 1, 2], 3, replacement=False))
    assert sorted(whole) == [0, 2, 3]


@pytest.mark.parametrize(
    ("size", "drop_last", "each"), [(10, False, 4), (10, True, 3), (9, False, 3), (1, False, 1)]
)
def test_parts_of_processes(size: int, drop_last: bool, each: int) -> None:
    parts = [DistributedSampler(Numbers(size), 3, rank, drop_last=drop_last) for rank in range(3)]
    for epoch in (0, 1):
        loaders = [flat(DataLoader(Numbers(size), 2, sampler=part)) for part in parts]
        assert [len(p) for p in loaders] == [each] * 3
        counted = Counter(i for p in loaders for i in p)
        assert set(counted.values()) <= {1, 2, 3}
        assert len(counted) == (size if not drop_last else 3 * each)
        for part in parts:
            part.set_epoch(epoch + 1)
    assert list(DistributedSampler(Numbers(6), 3, 1, shuffle=False)) == [1, 4]


def test_set_epoch_changes_the_order() -> None:
    sampler = DistributedSampler(Numbers(50), 2, 0)
    sampler.set_epoch(3)
    assert list(sampler) == list(sampler)
    third = list(sampler)
    sampler.set_epoch(4)
    assert list(sampler) != third


def test_batch_sampler() -> None:
    assert list(BatchSampler(SequentialSampler(Numbers(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(BatchSampler(range(7), 3, drop_last=True)) == [[0, 1, 2], [3, 4, 5]]
    assert [len(BatchSampler(range(7), 3, drop)) for drop in (False, True)] == [3, 2]


# ---------------------------------------------------------------------------------------------- loaders


def test_a_loader_with_a_sampler_follows_it() -> None:
    assert batches(DataLoader(Numbers(9), 2, sampler=[8, 1, 7])) == [[8, 1], [7]]
    loader = DataLoader(Numbers(9), batch_sampler=[[0], [5, 6], [2]])
    assert batches(loader) == [[0], [5, 6], [2]]
    assert len(loader) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomSampler(Numbers(11)),
        lambda: WeightedRandomSampler(np.arange(11), 8),
        lambda: SubsetRandomSampler(range(3, 9)),
        lambda: DistributedSampler(Numbers(11), 2, 1),
    ],
)
def test_a_loader_with_a_sampler_is_resumed_exactly(make: Callable[[], Sampler]) -> None:
    whole = DataLoader(Numbers(11), 2, sampler=make(), seed=4)
    expected = [flat(whole) for _ in range(3)]
    assert expected[0] != expected[1]
    first = DataLoader(Numbers(11), 2, sampler=make(), seed=4)
    assert flat(first) == expected[0]
    running = iter(first)
    head = next(running).tolist()
    second = DataLoader(Numbers(11), 2, sampler=make(), seed=9)
    second.load_state_dict(first.state_dict())
    assert head + flat(second) == expected[1]
    assert flat(second) == expected[2]


def test_a_loader_with_a_batch_sampler_is_resumed() -> None:
    groups = [[0], [5, 6], [2], [7, 8, 1]]
    first = DataLoader(Numbers(9), batch_sampler=groups)
    running = iter(first)
    head = [next(running).tolist(), next(running).tolist()]
    second = DataLoader(Numbers(9), batch_sampler=groups)
    second.load_state_dict(first.state_dict())
    assert head + batches(second) == groups


def test_without_batches_samples_come_one_by_one() -> None:
    class Arrays(Numbers):
        def __getitem__(self, index: int) -> Any:
            return np.full(2, index), "name"

    (first, name), *_ = list(DataLoader(Arrays(3), batch_size=None))
    assert isinstance(first, gf.Tensor)
    assert (first.tolist(), name) == ([0, 0], "name")
    assert list(DataLoader(Numbers(3), batch_size=None, collate_fn=lambda n: n * 10)) == [0, 10, 20]
    assert len(DataLoader(Numbers(3), batch_size=None)) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_streams(workers: int) -> None:
    loader = DataLoader(Stream(0, 7), 3, num_workers=workers)
    assert batches(loader) == [[0, 1, 2], [3, 4, 5], [6]]
    assert batches(loader) == [[0, 1, 2], [3, 4, 5], [6]]
    assert batches(DataLoader(Stream(0, 7), 3, drop_last=True, num_workers=workers)) == [[0, 1, 2], [3, 4, 5]]
    assert list(DataLoader(Stream(0, 3), batch_size=None, num_workers=workers)) == [0, 1, 2]
    assert flat(DataLoader(ChainDataset([Stream(0, 3), Stream(7, 9)]), 2)) == [0, 1, 2, 7, 8]
    running = iter(loader)
    next(running)
    resumed = DataLoader(Stream(0, 7), 3)
    resumed.load_state_dict(loader.state_dict())
    assert batches(resumed) == [[3, 4, 5], [6]]
    with pytest.raises(TypeError, match=r"has no len\(\)"):
        len(loader)


def test_datasets_put_together() -> None:
    both = ConcatDataset([Numbers(3), Numbers(0), Numbers(2)])
    assert [both[i] for i in range(len(both))] == [0, 1, 2, 0, 1]
    assert both[-1] == 1
    with pytest.raises(IndexError):
        both[5]
    assert StackDataset(Numbers(3), Numbers(3))[1] == (1, 1)
    assert StackDataset(a=Numbers(3), b=TensorDataset(gf.ones(3)))[2]["a"] == 2


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: DataLoader(Numbers(3), shuffle=True, sampler=[1]),
        ValueError,
        "mutually exclusive with shuffle",
    ),
    (lambda: DataLoader(Numbers(3), 2, batch_sampler=[[1]]), ValueError, "mutually exclusive"),
    (lambda: DataLoader(Numbers(3), None, drop_last=True), ValueError, "disables auto-batching"),
    (lambda: DataLoader(Numbers(3), timeout=-1), ValueError, "timeout"),
    (lambda: DataLoader(Numbers(3), prefetch_factor=2), ValueError, "prefetch_factor"),
    (lambda: DataLoader(Stream(0, 1), shuffle=True), ValueError, "its own order"),
    (lambda: Stream(0, 1)[0], TypeError, "iterate over it"),
    (lambda: iter(IterableDataset()), NotImplementedError, "has to define __iter__"),
    (lambda: iter(Sampler()), NotImplementedError, "has to define __iter__"),
    (lambda: ConcatDataset([]), ValueError, "should not be an empty"),
    (lambda: ConcatDataset([Stream(0, 1)]), TypeError, "ChainDataset"),
    (lambda: StackDataset(), ValueError, "at least one"),
    (lambda: StackDataset(Numbers(2), Numbers(3)), ValueError, "Size mismatch"),
    (lambda: RandomSampler(Numbers(2), num_samples=0), ValueError, "above 0"),
    (lambda: BatchSampler([1], True), ValueError, "above 0"),
    (lambda: WeightedRandomSampler([1, -1], 1), ValueError, "aren't negative"),
    (lambda: WeightedRandomSampler([1, np.nan], 1), ValueError, "finite"),
    (
        lambda: WeightedRandomSampler([1, 0], 2, replacement=False),
        ValueError,
        "1 weights aren't 0, it takes 2",
    ),
    (lambda: WeightedRandomSampler([[1.0]], 1), ValueError, "a sequence"),  # type: ignore[list-item]
    (lambda: DistributedSampler(Numbers(3), 2, 2), ValueError, "rank 2 isn't one of 2"),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# ---------------------------------------------------------------------------------------------- workers


def test_workers_know_who_they_are_and_are_set_up_once() -> None:
    seen: list[int] = []
    barrier = threading.Barrier(3)

    class Who(Numbers):
        def __getitem__(self, index: int) -> int:
            info = get_worker_info()
            assert info is not None
            assert (info.num_workers, info.seed, info.dataset) == (3, 8, self)
            if index < 3:
                barrier.wait(timeout=30)  # each of the three workers has one of these
            return info.id

    loader = DataLoader(Who(9), 1, num_workers=3, worker_init_fn=seen.append, seed=8)
    ids = flat(loader)
    assert sorted(ids[:3]) == [0, 1, 2]
    assert sorted(seen) == [0, 1, 2]
    assert get_worker_info() is None


def test_workers_do_not_run_far_ahead() -> None:
    taken: list[int] = []

    class Watched(Numbers):
        def __getitem__(self, index: int) -> int:
            taken.append(index)
            return index

    running = iter(DataLoader(Watched(100), 1, num_workers=2, prefetch_factor=3))
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert len(taken) <= 1 + 2 * 3
    assert not [t for t in threading.enumerate() if t.name.startswith("graphflow-data")]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_names_the_sample(workers: int) -> None:
    class Broken(Numbers):
        def __getitem__(self, index: int) -> int:
            if index == 5:
                raise OSError("no such photograph")
            return index

    with pytest.raises(OSError, match="no such photograph") as caught:
        list(DataLoader(Broken(9), 2, num_workers=workers))
    assert caught.value.__notes__ == ["This was sample 5 of the Broken."]


def test_a_worker_that_takes_too_long() -> None:
    release = threading.Event()

    class Slow(Numbers):
        def __getitem__(self, index: int) -> int:
            release.wait(30)
            return index

    running = iter(DataLoader(Slow(2), 1, num_workers=1, timeout=0.05))
    threading.Timer(0.5, release.set).start()
    with pytest.raises(RuntimeError, match=r"timed out after 0\.05 seconds"):
        next(running)


def test_batches_arrive_in_order_whichever_is_ready_first() -> None:
    class Uneven(Numbers):
        def __getitem__(self, index: int) -> int:
            time.sleep(0.002 * (index % 3 == 0))
            return index

    assert flat(DataLoader(Uneven(24), 2, num_workers=4)) == list(range(24))
