"""Readers of tables: CSV and Parquet, on files made here, good and bad."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphflow as gf
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from graphflow.data import (
    CsvDataset,
    DataLoader,
    ParquetDataset,
)
from graphflow.errors import FormatError

RNG = np.random.default_rng(0)

def test_csv_with_a_target(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a, b ,c\n1,2.5,0\n\n3,-4e1,1\n")
    dataset = CsvDataset(path, target="c")
    assert dataset.feature_names == ("a", "b")
    x, y = dataset[1]
    assert (x.tolist(), x.dtype, y.item(), y.dtype) == ([3.0, -40.0], gf.float32, 1, gf.int64)
    (only,) = CsvDataset(path, columns=["b"], dtype=gf.float64)[0]
    assert (only.tolist(), only.dtype) == ([2.5], gf.float64)
    x, y = CsvDataset(path, target="b", columns=["c"], target_dtype=gf.float64)[0]
    assert (x.tolist(), y.item(), y.dtype) == ([0.0], 2.5, gf.float64)


def test_csv_without_a_header_and_with_gaps(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("1;2\n3;\n")
    dataset = CsvDataset(path, target="0", header=False, delimiter=";", missing=-1)
    assert [dataset[i][0].tolist() for i in range(2)] == [[2.0], [-1.0]]
    with pytest.raises(FormatError, match=r"t\.csv:2, column '1': an empty cell; missing="):
        CsvDataset(path, header=False, delimiter=";")


BAD_TABLES: list[tuple[str, dict[str, object], type[Exception], str]] = [
    ("a,b\n1,x\n", {}, FormatError, r"t\.csv:2, column 'b': 'x' is no number"),
    ("a,b\n1,2,3\n", {}, FormatError, r"t\.csv:2: 3 cells, the table has 2 columns"),
    ("a,a\n1,2\n", {}, FormatError, "the same name"),
    ("a,b\n", {}, FormatError, "no rows"),
    ("", {}, FormatError, "no rows"),
    ("a,b\n1,2\n", {"target": "z"}, ValueError, "no column 'z'; there are a, b"),
    ("a,b\n1,2\n", {"columns": ["y"]}, ValueError, "no column 'y'"),
    ("a\n1\n", {"target": "a"}, ValueError, "no column is left"),
    ("a,b\n1,9007199254740993\n", {"target": "b"}, FormatError, "rounded"),
]


@pytest.mark.parametrize(("text", "options", "error", "message"), BAD_TABLES)
def test_csv_files_that_do_not_fit(
    tmp_path: Path, text: str, options: dict[str, object], error: type[Exception], message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(error, match=message):
        CsvDataset(path, **options)  # type: ignore[arg-type]


def test_text_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(FormatError, match="not a CSV file"):
        CsvDataset(path)


def write_parquet(path: Path, **columns: object) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "t.parquet", a=[1.5, 2.5, 3.5], b=[1, 2, 3], name=["x", "y", "z"], big=[2**60 + 1, 0, 1]
    )
    dataset = ParquetDataset(path, target="big", columns=["b", "a"])
    assert dataset.feature_names == ("b", "a")
    x, y = dataset[0]
    assert (x.tolist(), y.item()) == ([1.0, 1.5], 2**60 + 1)
    batch = next(iter(DataLoader(dataset, 2)))
    assert batch[0].shape == (2, 2)
    with pytest.raises(FormatError, match="'name' holds string, not numbers"):
        ParquetDataset(path)


def test_parquet_with_nulls(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", a=[1, None, 3])
    with pytest.raises(FormatError, match="1 nulls; missing="):
        ParquetDataset(path)
    assert ParquetDataset(path, missing=-1)[1][0].tolist() == [-1.0]


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", a=list(range(100)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match="not a Parquet file"):
        ParquetDataset(path)


@pytest.mark.parametrize(
    ("make", "extra"),
    [
        (lambda path: ParquetDataset(path), "parquet"),
        (lambda path: gf.data.load_image(path), "images"),
    ],
)
def test_a_missing_extra_is_named(
    make: Callable[[str], object], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pyarrow", "pyarrow.parquet", "PIL"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install 'graphflow\[{extra}\]'"):
        make("x")


# --------------------------------------------------------------------------------------- what is in tables


def table_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "täble.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_target_of_names_becomes_class_numbers(tmp_path: Path) -> None:
    table = CsvDataset(table_of(tmp_path, 'a,y\n1,"cat"\n2, dog \n3,cat\n'), "y")
    assert table.classes == ("cat", "dog")
    assert [int(y.item()) for _, y in table] == [0, 1, 0]
    with pytest.raises(FormatError, match=r":3, column 'y': an empty cell"):
        CsvDataset(table_of(tmp_path, "a,y\n1,cat\n2,\n"), "y")
    with pytest.raises(FormatError, match=r":3, column 'y': 'c4t' is no number"):
        CsvDataset(table_of(tmp_path, "a,y\n1,2\n2,c4t\n"), "y")
    with pytest.raises(FormatError, match=r":2, column 'a': 'x' is no number"):
        CsvDataset(table_of(tmp_path, "a,y\nx,2\n"), "y")


def test_columns_by_their_place_and_cells_that_say_nothing(tmp_path: Path) -> None:
    path = table_of(tmp_path, "1,NA,3\n4,5,null\n")
    table = CsvDataset(path, -1, [1], header=False, missing=9)
    assert [(x.tolist(), y.item()) for x, y in table] == [([9.0], 3), ([5.0], 9)]
    with pytest.raises(FormatError, match=r":1, column '1': an empty cell"):
        CsvDataset(path, header=False)
    for columns, error, message in (
        (["0", 0], ValueError, "a column comes twice"),
        ("01", TypeError, "columns is a list"),
        ([3], ValueError, "there is no column 3"),
    ):
        with pytest.raises(error, match=message):
            CsvDataset(path, None, columns, header=False, missing=0)
    with pytest.raises(ValueError, match="one character"):
        CsvDataset(path, delimiter="::")


@pytest.mark.parametrize(
    ("cell", "dtype", "shown"),
    [("1.5", gf.int64, "1.5"), ("300", gf.int8, "300.0"), ("-1", gf.uint8, "-1.0"), ("nan", gf.int32, "nan")],
)
def test_numbers_that_a_dtype_does_not_hold_are_refused(
    tmp_path: Path, cell: str, dtype: gf.dtype, shown: str
) -> None:
    path = table_of(tmp_path, f"a,y\n0,0\n{cell},{cell}\n")
    with pytest.raises(FormatError, match=rf"the column 'a' has {shown}, which .*{dtype.name} doesn't hold"):
        CsvDataset(path, dtype=dtype)
    with pytest.raises(FormatError, match=rf"the column 'y' has {shown}"):
        CsvDataset(path, "y", target_dtype=dtype)


def test_parquet_columns_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"

    def written(**columns: Any) -> Path:
        pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=1)
        return path

    table = ParquetDataset(written(a=[1.0, 2.0], y=["x", "w"]), "y")
    assert (table.classes, [int(y.item()) for _, y in table]) == (("w", "x"), [1, 0])
    coded = pyarrow.array(["b", "a"]).dictionary_encode()
    assert ParquetDataset(written(a=[1.0, 2.0], y=coded), "y").classes == ("a", "b")
    whole = ParquetDataset(written(a=[1.0, 2.0], y=[2**60 + 1, None]), "y", missing=0)
    assert [int(y.item()) for _, y in whole] == [2**60 + 1, 0]
    for columns, message in (
        ({"a": [1.0], "y": pyarrow.array([2**63 + 1], pyarrow.uint64())}, "9223372036854775809, which"),
        ({"a": [[1.0]], "y": [0]}, "the column 'a' holds list<"),
        ({"a": [{"b": 1}], "y": [0]}, "the column 'a' holds struct<"),
        ({"a": ["x"], "y": [0]}, "the column 'a' holds string"),
        ({"a": [1.0, 2.0], "y": ["x", None]}, "'y' has 1 nulls"),
    ):
        with pytest.raises(FormatError, match=message):
            ParquetDataset(written(**columns), "y")
    data = written(a=list(range(99)), y=list(range(99))).read_bytes()
    path.write_bytes(data[:40] + bytes(300) + data[340:])
    with pytest.raises(FormatError, match=r"t\.parquet: not a Parquet file that can be read"):
        ParquetDataset(path)
    with pytest.raises(FileNotFoundError):
        ParquetDataset(tmp_path / "none.parquet")
