"""What users do to a DataLoader: datasets and samplers of their own, random numbers, interruptions."""

from __future__ import annotations

import collections
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import graphflow as gf
import numpy as np
import pytest
from graphflow.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    NpyDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    get_worker_info,
    sample_generator,
)
from graphflow.utils.data.sampler import WeightedRandomSampler


class Numbers(Dataset):
    def __init__(self, size: int):
        self.size = size

    def __getitem__(self, index: Any) -> Any:
        return index

    def __len__(self) -> int:
        return self.size


# ------------------------------------------------------------------------- what a subclass redefines counts


class Tens(TensorDataset):
    def __getitem__(self, index: Any) -> tuple[gf.Tensor, ...]:
        return tuple(value * 10 for value in super().__getitem__(index))


def test_a_subclass_that_gives_other_samples_is_asked_for_them() -> None:
    tens = Tens(gf.arange(4))
    assert next(iter(DataLoader(tens, 4)))[0].tolist() == [0, 10, 20, 30]
    assert next(iter(DataLoader(Subset(tens, [3, 1]), 2)))[0].tolist() == [30, 10]

    class Negated(Subset):
        def __getitem__(self, index: Any) -> Any:
            return -super().__getitem__(index)[0]

    assert next(iter(DataLoader(Negated(TensorDataset(gf.arange(4)), [3, 1]), 2))).tolist() == [-3, -1]


def test_what_is_changed_after_a_dataset_was_made_counts(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", np.arange(6.0))
    rows = NpyDataset(tmp_path / "x.npy")
    part = Subset(rows, [1, 2, 3])
    loader = DataLoader(part, 3)
    assert next(iter(loader))[0].tolist() == [1, 2, 3]
    rows.transform = lambda sample: sample[0] + 100
    assert next(iter(loader)).tolist() == [101, 102, 103]
    part.indices = [5]
    assert next(iter(loader)).tolist() == [105]


def test_a_sampler_that_redefines_its_iteration_is_followed() -> None:
    class Backwards(RandomSampler):
        def __iter__(self) -> Iterator[int]:
            return iter(range(len(self.data_source)))

    class Pairs(BatchSampler):
        def __iter__(self) -> Iterator[list[int]]:
            return iter([[0, 3], [1, 2]])

    assert [b.tolist() for b in DataLoader(Numbers(4), 2, sampler=Backwards(Numbers(4)))] == [[0, 1], [2, 3]]
    pairs = Pairs(RandomSampler(Numbers(4)), 2)
    assert [b.tolist() for b in DataLoader(Numbers(4), batch_sampler=pairs)] == [[0, 3], [1, 2]]


def test_tensors_that_need_gradients_keep_their_history() -> None:
    weight = gf.ones(3, requires_grad=True)
    (batch,) = next(iter(DataLoader(TensorDataset(weight * 2), 3)))
    batch.sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2, 2, 2]


# ------------------------------------------------------------------------------- what is asked for, and how


def test_keys_are_what_the_sampler_gives() -> None:
    class Words(Dataset):
        def __getitem__(self, key: tuple[str, int]) -> str:
            return key[0] * key[1]

    assert list(DataLoader(Words(), 2, sampler=[("a", 2), ("b", 1)])) == [["aa", "b"]]
    assert list(DataLoader(Words(), batch_sampler=[[("a", 1)]])) == [["a"]]
    whole = DataLoader(TensorDataset(gf.arange(5)), None, sampler=BatchSampler(range(5), 2))
    assert [x.tolist() for (x,) in whole] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in DataLoader(Numbers(3), 2, sampler=gf.tensor([2, 0, 1]))] == [[2, 0], [1]]


def test_a_sampler_without_an_end_is_taken_as_far_as_needed() -> None:
    class Forever(Sampler[int]):
        def __iter__(self) -> Iterator[int]:
            while True:
                yield from (2, 0, 1)

    running = iter(DataLoader(Numbers(3), 2, sampler=Forever(), num_workers=1))
    assert [next(running).tolist() for _ in range(3)] == [[2, 0], [1, 2], [0, 1]]


def test_several_samples_asked_for_at_once() -> None:
    class Batched(Numbers):
        def __getitems__(self, indices: list[int]) -> list[int]:
            return [10 * i for i in indices]

    assert [b.tolist() for b in DataLoader(Batched(3), 2)] == [[0, 10], [20]]
    assert [b.tolist() for b in DataLoader([5, 6, 7], 2)] == [[5, 6], [7]]
    assert [b.tolist() for b in DataLoader(np.arange(4.0).reshape(2, 2), 2)] == [[[0, 1], [2, 3]]]


def test_datasets_of_the_users_own() -> None:
    class Ints(Dataset[int]):
        def __getitem__(self, index: int) -> int:
            if index > 2:
                raise IndexError
            return index

    assert list(Ints()) == [0, 1, 2]
    with pytest.raises(TypeError, match=r"has no len\(\)"):
        DataLoader(Ints(), shuffle=True).__len__()
    both = Numbers(2) + TensorDataset(gf.arange(1))
    assert len(both) == 3
    assert Subset([5, 6, 7, 8], [1, 3])[0] == 6
    assert Subset(gf.arange(9), [1, 3, 5])[[0, 2]].tolist() == [1, 5]


class Point(NamedTuple):
    x: float
    name: str


class Record(dict[str, Any]):
    source = "none"


def test_a_batch_is_of_the_kind_of_its_samples() -> None:
    samples = [Record(a=Point(1.5, "p"), b=[1, (2, True)]), Record(a=Point(2, "q"), b=[3, (4, False)])]
    samples[0].source = "here"
    (batch,) = DataLoader(samples, 2)
    assert type(batch) is Record
    assert batch.source == "here"
    assert type(batch["a"]) is Point
    assert batch["a"].x.dtype is gf.float64
    assert batch["a"].name == ["p", "q"]
    assert [batch["b"][0].tolist(), batch["b"][1][0].tolist()] == [[1, 3], [2, 4]]
    assert batch["b"][1][1].dtype is gf.bool
    ordered = [collections.OrderedDict(z=1, a=2)] * 2
    assert list(next(iter(DataLoader(ordered, 2)))) == ["z", "a"]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(2,\) in the batch's sample 0, \(3,\) in its sample 1"):
        list(DataLoader([np.zeros(2), np.zeros(3)], 2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"persistent_workers": True}, ValueError, "persistent_workers option needs num_workers > 0"),
        ({"multiprocessing_context": "fork"}, ValueError, "needs num_workers > 0"),
        ({"num_workers": 1.5}, TypeError, "should be an integer, but got 1.5"),
        ({"num_workers": "2"}, TypeError, "should be an integer, but got '2'"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DataLoader(Numbers(3), **options)


def test_options_that_are_kept() -> None:
    loader = DataLoader(
        Numbers(3), 2, num_workers=1, pin_memory=True, pin_memory_device="", persistent_workers=True,
        multiprocessing_context="fork", prefetch_factor=4, timeout=30,
        generator=gf.Generator().manual_seed(3),
    )  # fmt: skip
    assert [len(b) for b in loader] == [2, 1]
    assert isinstance(loader.batch_sampler, BatchSampler)
    assert (loader.prefetch_factor, loader.pin_memory, loader.seed) == (4, True, 3)
    assert DataLoader(Numbers(3)).prefetch_factor is None


# ------------------------------------------------------------------------------------------ random numbers


class Noise(Dataset):
    """Draws of both kinds, in the dataset."""

    def __getitem__(self, index: int) -> tuple[gf.Tensor, gf.Tensor, float]:
        return gf.rand(2), gf.randint(0, 10**6, ()), float(sample_generator().random())

    def __len__(self) -> int:
        return 40


def drawn(**options: Any) -> np.ndarray:
    def mixed(samples: list[Any]) -> gf.Tensor:
        rows = [gf.cat([a.double(), gf.stack([b, b]).double()[:1], gf.tensor([c])]) for a, b, c in samples]
        return gf.cat([gf.stack(rows), gf.rand(len(rows), 1, dtype=gf.float64)], 1)

    return np.concatenate([b.numpy() for b in DataLoader(Noise(), 4, collate_fn=mixed, **options)])


def test_draws_in_a_dataset_depend_on_the_seed_alone() -> None:
    first = drawn(seed=3)
    np.testing.assert_array_equal(drawn(seed=3, num_workers=4), first)
    assert len(np.unique(first[:, [0, 1, 3, 4]])) == 160  # none comes twice
    assert not (drawn(seed=4) == first).all(axis=1).any()
    gf.manual_seed(5)
    second = drawn()
    gf.manual_seed(5)
    np.testing.assert_array_equal(drawn(num_workers=3), second)


def test_a_seed_set_in_the_dataset_is_the_samples_own() -> None:
    class Seeded(Numbers):
        def __getitem__(self, index: int) -> gf.Tensor:
            gf.manual_seed(index % 2)
            return gf.rand(3)

    gf.manual_seed(9)
    expected = gf.rand(2)
    gf.manual_seed(9)
    (batch,) = DataLoader(Seeded(4), 4, num_workers=2, seed=0)
    np.testing.assert_array_equal(batch[:2].numpy(), batch[2:].numpy())
    np.testing.assert_array_equal(gf.rand(2).numpy(), expected.numpy())  # the program's stream isn't touched


def test_threads_share_the_generator_without_repeating_numbers() -> None:
    found: list[np.ndarray] = []

    def draw() -> None:
        for _ in range(100):
            found.append(gf.rand(2).numpy())

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(np.unique(np.array(found), axis=0)) == 400


@pytest.mark.parametrize("workers", [0, 1])
def test_a_streams_numbers_never_repeat_and_are_resumed(workers: int) -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Iterator[float]:
            return (float(sample_generator().random()) for _ in range(11))

    def loader() -> DataLoader:
        return DataLoader(Stream(), 3, num_workers=workers, seed=2)

    whole = [v for batch in loader() for v in batch.tolist()]
    assert len(set(whole)) == 11
    first = loader()
    running = iter(first)
    head = next(running).tolist() + next(running).tolist()
    second = loader()
    second.load_state_dict(first.state_dict())
    assert head + [v for batch in second for v in batch.tolist()] == whole


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "make",
    [
        lambda: BatchSampler(RandomSampler(Numbers(11)), 3, True),
        lambda: BatchSampler(SubsetRandomSampler(range(2, 11)), 2, False),
        lambda: BatchSampler(WeightedRandomSampler(range(11), 20), 4, False),
    ],
)
def test_batch_samplers_are_resumed_by_three_integers(make: Callable[[], Any], workers: int) -> None:
    def loader(seed: int) -> DataLoader:
        return DataLoader(Numbers(11), batch_sampler=make(), num_workers=workers, seed=seed)

    whole = loader(4)
    expected = [[b.tolist() for b in whole] for _ in range(2)]
    assert expected[0] != expected[1]
    first = loader(4)
    list(first)
    running = iter(first)
    head = [next(running).tolist()]
    second = loader(7)
    second.load_state_dict(first.state_dict())
    assert head + [b.tolist() for b in second] == expected[1]


# -------------------------------------------------------------------------------------------------- workers


def test_a_hanging_worker_is_not_waited_for() -> None:
    release = threading.Event()

    class Hanging(Numbers):
        def __getitem__(self, index: int) -> int:
            release.wait(60)
            return index

    started = time.monotonic()
    with pytest.raises(RuntimeError, match="timed out"):
        list(DataLoader(Hanging(4), num_workers=2, timeout=0.05))
    release.set()
    assert time.monotonic() - started < 30
    for thread in threading.enumerate():
        if thread.name.startswith("graphflow-data"):
            thread.join()


def test_an_error_while_a_worker_starts_arrives_with_its_own_line() -> None:
    def start(number: int) -> None:
        assert get_worker_info() is not None
        raise LookupError("no such disk")

    with pytest.raises(LookupError, match="no such disk") as caught:
        list(DataLoader(Numbers(4), num_workers=2, worker_init_fn=start))
    assert caught.traceback[-1].name == "start"


INTERRUPTED = """
import os, time
from graphflow.data import DataLoader, Dataset

class Slow(Dataset):
    def __len__(self): return 9
    def __getitem__(self, index):
        if index > 1: os.write(1, b"ready\\n"); time.sleep(60)  # in one piece, whichever thread it is
        return index

try:
    for batch in DataLoader(Slow(), 2, num_workers=2): pass
except KeyboardInterrupt:
    os.write(1, b"interrupted\\n")
left = iter(DataLoader(range(99), num_workers=2)); next(left)  # open at the end of the process
"""


def test_an_interrupt_ends_the_loop_and_the_process() -> None:
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert "interrupted" in rest.splitlines()
    assert process.returncode == 0
