"""Datasets, collation, and the orders of a DataLoader."""

from __future__ import annotations

import threading
from collections import Counter, namedtuple
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.data import DataLoader, Dataset, Subset, TensorDataset, default_collate, random_split
from hypothesis import given
from hypothesis import strategies as st


class Squares(Dataset):
    """Samples are plain Python numbers, so batches have to be collated one by one."""

    def __init__(self, size: int):
        self.size = size

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, float(index * index)

    def __len__(self) -> int:
        return self.size


def numbers(size: int) -> TensorDataset:
    return TensorDataset(gf.arange(size), gf.arange(size).to(gf.float32) * 2)


def indices(loader: DataLoader) -> list[list[int]]:
    return [batch[0].tolist() for batch in loader]


def flat(batches: list[list[int]]) -> list[int]:
    return [i for batch in batches for i in batch]


# ---------------------------------------------------------------------------------------------- datasets


def test_tensor_dataset_gives_rows_and_whole_batches() -> None:
    dataset = numbers(5)
    assert len(dataset) == 5
    assert [t.item() for t in dataset[3]] == [3, 6.0]
    first, second = dataset.take_batch(np.array([4, 0]))
    assert (first.tolist(), second.tolist()) == ([4, 0], [8.0, 0.0])
    assert len(list(dataset)) == 5


def test_a_batch_has_memory_of_its_own() -> None:
    dataset = numbers(4)
    (batch,) = DataLoader(dataset, 4)
    batch[0].zero_()
    assert dataset.tensors[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TensorDataset(), ValueError, "at least one tensor"),
        (lambda: TensorDataset(gf.zeros(2), gf.zeros(3)), ValueError, "first sizes are 2, 3"),
        (lambda: TensorDataset(gf.tensor(1.0)), ValueError, "at least one dimension"),
        (lambda: TensorDataset([1]), TypeError, "takes tensors, got list"),
        (lambda: len(Dataset()), TypeError, r"has no len\(\)"),
        (lambda: Dataset()[0], NotImplementedError, "has to define __getitem__"),
    ],
)
def test_datasets_refuse_what_they_can_not_hold(make, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        make()


def test_subsets_of_subsets_pick_the_right_rows() -> None:
    part = Subset(Subset(numbers(10), [9, 7, 5, 3]), [2, 0])
    assert [part[i][0].item() for i in range(len(part))] == [5, 9]
    assert indices(DataLoader(part, 2)) == [[5, 9]]
    assert indices(DataLoader(Subset(Squares(10), [8, 1]), 2)) == [[8, 1]]


@given(st.integers(0, 40), st.integers(0, 2**63), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_random_split_covers_every_sample_once(size: int, seed: int, weights: list[int]) -> None:
    fractions = [w / sum(weights) for w in weights]
    parts = random_split(Squares(size), fractions, seed=seed)
    assert sorted(i for part in parts for i in part.indices) == list(range(size))
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(len(part) - fraction * size) < len(parts)
    again = random_split(Squares(size), fractions, seed=seed)
    assert [p.indices for p in parts] == [p.indices for p in again]


def test_random_split_by_lengths_and_its_errors() -> None:
    parts = random_split(Squares(10), [7, 3], seed=1)
    assert [len(p) for p in parts] == [7, 3]
    assert parts[0].indices != random_split(Squares(10), [7, 3], seed=2)[0].indices
    generator = gf.Generator().manual_seed(1)
    assert random_split(Squares(10), [7, 3], generator)[0].indices == parts[0].indices
    gf.manual_seed(5)
    free = random_split(Squares(10), [7, 3])[0].indices
    gf.manual_seed(5)
    assert random_split(Squares(10), [7, 3])[0].indices == free
    with pytest.raises(ValueError, match="does not equal the length"):
        random_split(Squares(10), [7, 4])
    with pytest.raises(ValueError, match="sum to 1"):
        random_split(Squares(10), [0.5, 0.6])
    with pytest.raises(ValueError, match="not both"):
        random_split(Squares(10), [10], generator, seed=1)


# ---------------------------------------------------------------------------------------------- collation


def test_collate_joins_every_kind_of_sample() -> None:
    Pair = namedtuple("Pair", "x y")
    assert default_collate([1, 2]).dtype is gf.int64
    assert default_collate([1.0, 2.5]).dtype is gf.float64
    assert default_collate([True, False]).tolist() == [True, False]
    assert default_collate(["a", "b"]) == ["a", "b"]
    assert default_collate([np.float32(1), np.float32(2)]).dtype is gf.float32
    assert tuple(default_collate([np.zeros((2, 3), np.float32)] * 4).shape) == (4, 2, 3)
    assert tuple(default_collate([gf.zeros(2), gf.ones(2)]).shape) == (2, 2)
    named = default_collate([{"a": 1, "b": (2, "x")}, {"a": 3, "b": (4, "y")}])
    assert named["a"].tolist() == [1, 3]
    assert named["b"][0].tolist() == [2, 4] and named["b"][1] == ["x", "y"]
    pair = default_collate([Pair(1, 2.0), Pair(3, 4.0)])
    assert isinstance(pair, Pair) and pair.y.tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ([], ValueError, "empty batch"),
        ([(1, 2), (1,)], ValueError, "equal size"),
        ([object()], TypeError, "can't collate object"),
        ([np.array(["a"])], TypeError, "no tensor holds"),
    ],
)
def test_collate_refuses_what_has_no_batch(batch: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        default_collate(batch)


# ---------------------------------------------------------------------------------------------- orders


@given(
    st.integers(0, 50), st.integers(1, 12), st.booleans(), st.booleans(), st.sampled_from([numbers, Squares])
)
def test_an_epoch_has_every_sample_once(size: int, batch: int, shuffle: bool, drop: bool, make: Any) -> None:
    loader = DataLoader(make(max(size, 1)), batch, shuffle, drop_last=drop, seed=3)
    size = max(size, 1)
    batches = indices(loader)
    assert len(batches) == len(loader)
    assert all(len(b) == batch for b in batches[: None if drop else -1])
    seen = flat(batches)
    assert max(Counter(seen).values(), default=1) == 1
    assert len(seen) == (size // batch * batch if drop else size)
    if not shuffle:
        assert seen == list(range(len(seen)))


@given(
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(0, 2**40),
    st.integers(0, 3),
    st.integers(0, 40),
    st.booleans(),
)
def test_three_integers_resume_exactly(
    size: int, batch: int, seed: int, epochs: int, stop: int, drop: bool
) -> None:
    def make(seed: int) -> DataLoader:
        return DataLoader(numbers(size), batch, shuffle=True, seed=seed, drop_last=drop)

    loader = make(seed)
    for _ in range(epochs):
        indices(loader)
    running = iter(loader)
    for _ in range(min(stop, len(loader))):
        next(running)
    state = loader.state_dict()
    assert set(state) == {"seed", "epoch", "index"}
    other = make(0)
    other.load_state_dict(state)
    assert other.state_dict() == state
    rest = [b[0].tolist() for b in running]
    assert indices(other) == rest
    assert indices(other) == indices(loader)


def test_orders_depend_on_seed_and_epoch_alone() -> None:
    one, two = (DataLoader(numbers(100), 10, shuffle=True, seed=s) for s in (1, 2))
    first, second = indices(one), indices(one)
    assert first != second
    assert first != indices(two)
    again = DataLoader(Squares(100), 10, shuffle=True, seed=1)
    assert (indices(again), indices(again)) == (first, second)
    # A golden order: what a checkpoint of today means must not change.
    assert flat(indices(DataLoader(numbers(8), 8, shuffle=True, seed=0))) == GOLDEN


GOLDEN = [0, 2, 1, 5, 4, 3, 6, 7]


def test_leaving_an_epoch_early_starts_the_next_one() -> None:
    loader, whole = (DataLoader(numbers(20), 5, shuffle=True, seed=1) for _ in range(2))
    next(iter(loader))
    indices(whole)
    assert indices(loader) == indices(whole)


def test_without_a_seed_manual_seed_decides() -> None:
    gf.manual_seed(11)
    first = indices(DataLoader(numbers(50), 50, shuffle=True))
    second = indices(DataLoader(numbers(50), 50, shuffle=True))
    gf.manual_seed(11)
    assert indices(DataLoader(numbers(50), 50, shuffle=True)) == first
    assert first != second


def test_workers_prepare_ahead_in_the_same_order() -> None:
    threads = set()

    class Noting(Squares):
        def __getitem__(self, index: int) -> tuple[int, float]:
            threads.add(threading.current_thread().name)
            return super().__getitem__(index)

    plain = DataLoader(Squares(40), 3, shuffle=True, seed=4)
    ahead = DataLoader(Noting(40), 3, shuffle=True, seed=4, num_workers=2)
    assert indices(ahead) == indices(plain)
    assert all(name.startswith("graphflow-data") for name in threads)
    running = iter(ahead)
    next(running)
    assert ahead.state_dict()["index"] == 3
    running.close()  # type: ignore[attr-defined]
    assert not any(t.name.startswith("graphflow-data") for t in threading.enumerate())


def test_what_a_worker_raises_arrives_in_its_place() -> None:
    class Broken(Squares):
        def __getitem__(self, index: int) -> tuple[int, float]:
            if index == 5:
                raise OSError("sample 5 is unreadable")
            return super().__getitem__(index)

    running = iter(DataLoader(Broken(9), 2, num_workers=2))
    assert [next(running)[0].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(OSError, match="sample 5"):
        next(running)


def test_a_collate_function_gets_the_samples() -> None:
    loader = DataLoader(numbers(4), 2, collate_fn=lambda samples: [int(s[0].item()) for s in samples])
    assert list(loader) == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: DataLoader(numbers(3), 0), "positive integer value"),
        (lambda: DataLoader(numbers(3), True), "positive integer value"),
        (lambda: DataLoader(numbers(3), num_workers=-1), "should be non-negative"),
        (lambda: DataLoader(numbers(3)).load_state_dict({"seed": 1}), "integers seed, epoch and index"),
        (lambda: DataLoader(numbers(3)).load_state_dict({"seed": 1, "epoch": 0, "index": 4}), "0 … 3"),
        (lambda: DataLoader(numbers(3)).load_state_dict({"seed": 1, "epoch": 0.0, "index": 4}), "integers"),
    ],
)
def test_loaders_refuse_nonsense(act, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        act()


def test_pytorchs_place_for_data() -> None:
    assert gf.utils.data.DataLoader is DataLoader
    assert set(gf.utils.data.__all__) == set(gf.data.__all__)
