"""Tables of numbers: CSV and Parquet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from graphflow import dtypes
from graphflow.data.readers.arrays import Rows, Transform
from graphflow.errors import FormatError

# From this on, neighbouring whole numbers are one float64.
_EXACT = 2.0**53


class _Table(Rows):
    """Columns of numbers as samples: (features,), or (features, target) where there is a target column."""

    def __init__(
        self,
        path: Path,
        columns: dict[str, np.ndarray],
        target: str | None,
        dtype: dtypes.DType,
        target_dtype: dtypes.DType | None,
        transform: Transform | None,
    ):
        if target is not None and target not in columns:
            raise ValueError(f"{path}: there is no column {target!r}; there are {', '.join(columns)}")
        self.feature_names = tuple(name for name in columns if name != target)
        if not self.feature_names:
            raise ValueError(f"{path}: no column is left for the features")
        features = [columns[name] for name in self.feature_names]
        arrays = [np.stack(features, axis=1).astype(dtype.numpy, copy=False)]
        if target is not None:
            values = columns[target]
            kind = target_dtype or (dtypes.int64 if _whole(path, target, values) else dtypes.float32)
            arrays.append(values.astype(kind.numpy))
        super().__init__(tuple(arrays), transform)

    @property
    def features(self) -> np.ndarray:
        """All samples' features, shape (N, F)."""
        return self.arrays[0]


def _whole(path: Path, name: str, values: np.ndarray) -> bool:
    """Whether all numbers are whole."""
    if values.dtype.kind in "iub":
        return True
    if not np.all(values == np.floor(values)):  # NaN isn't equal to itself
        return False
    if np.any(np.abs(values) >= _EXACT):
        raise FormatError(
            f"{path}: the column {name!r} has whole numbers of 2**53 and more, which would be rounded"
        )
    return True


class CsvDataset(_Table):
    """A CSV file of numbers. Samples are (features,) or, with a `target` column, (features, target).

    `features` are the other columns, or those that `columns` names, as one tensor of shape (F,) and dtype
    `dtype`; the target is int64 if all its numbers are whole, else float32, or `target_dtype`. Columns are
    called by the `header` line, or by "0", "1", … without one. Empty cells are an error, or have the value
    `missing`. The whole table is in memory. FormatError names the line and column of a cell that is no number
    and the line with too many or too few cells; ValueError for columns that aren't there.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        target: str | None = None,
        columns: Sequence[str] | None = None,
        *,
        header: bool = True,
        delimiter: str = ",",
        missing: float | None = None,
        dtype: dtypes.DType = dtypes.float32,
        target_dtype: dtypes.DType | None = None,
        transform: Transform | None = None,
    ):
        path = Path(path)
        names, values = _read_csv(path, header, delimiter, missing)
        wanted = _wanted(path, names, columns, target)
        table = {name: values[:, names.index(name)] for name in wanted}
        super().__init__(path, table, target, dtype, target_dtype, transform)


def _wanted(path: Path, names: Sequence[str], columns: Sequence[str] | None, target: str | None) -> list[str]:
    wanted = list(names) if columns is None else [*columns, *([] if target in (None, *columns) else [target])]
    absent = [name for name in wanted if name not in names]
    if absent:
        raise ValueError(f"{path}: there is no column {absent[0]!r}; there are {', '.join(names)}")
    return wanted  # type: ignore[return-value]


def _read_csv(
    path: Path, header: bool, delimiter: str, missing: float | None
) -> tuple[list[str], np.ndarray]:
    rows: list[list[float]] = []
    names: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter)
            for cells in reader:
                if not cells:
                    continue
                if not names:
                    names = [c.strip() for c in cells] if header else [str(i) for i in range(len(cells))]
                    if len(set(names)) != len(names):
                        raise FormatError(f"{path}: two columns have the same name: {', '.join(names)}")
                    if header:
                        continue
                if len(cells) != len(names):
                    raise FormatError(
                        f"{path}:{reader.line_num}: {len(cells)} cells, the table has {len(names)} columns"
                    )
                rows.append([
                    _number(cell, missing, f"{path}:{reader.line_num}, column {name!r}")
                    for name, cell in zip(names, cells, strict=True)
                ])  # fmt: skip
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: not a CSV file: {error}") from None
    if not rows:
        raise FormatError(f"{path}: there are no rows in it")
    return names, np.array(rows, np.float64)


def _number(cell: str, missing: float | None, where: str) -> float:
    text = cell.strip()
    if not text:
        if missing is None:
            raise FormatError(f"{where}: an empty cell; missing= gives empty cells a value")
        return missing
    try:
        return float(text)
    except ValueError:
        raise FormatError(f"{where}: {text!r} is no number") from None


class ParquetDataset(_Table):
    """A Parquet file of numeric columns. Samples, `target`, `columns` and dtypes as in CsvDataset.

    Takes the extra ``parquet`` (pyarrow; ImportError names it). Only the columns that are asked for are read.
    Nulls are an error, or have the value `missing`. FormatError for a damaged file and for columns that
    aren't numbers.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        target: str | None = None,
        columns: Sequence[str] | None = None,
        *,
        missing: float | None = None,
        dtype: dtypes.DType = dtypes.float32,
        target_dtype: dtypes.DType | None = None,
        transform: Transform | None = None,
    ):
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise ImportError("reading Parquet takes pyarrow: pip install 'graphflow[parquet]'") from None
        path = Path(path)
        try:
            with pyarrow.parquet.ParquetFile(path, memory_map=True) as file:
                wanted = _wanted(path, file.schema_arrow.names, columns, target)
                read = file.read(columns=wanted)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
            raise FormatError(f"{path}: not a Parquet file that can be read: {error}") from None
        table = {name: _column(path, name, read.column(name), missing, pyarrow.types) for name in wanted}
        super().__init__(path, table, target, dtype, target_dtype, transform)


def _column(path: Path, name: str, column: Any, missing: float | None, types: Any) -> np.ndarray:
    kind = column.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise FormatError(f"{path}: the column {name!r} holds {kind}, not numbers")
    if column.null_count:
        if missing is None:
            raise FormatError(
                f"{path}: the column {name!r} has {column.null_count} nulls; missing= gives them a value"
            )
        column = column.cast("float64").fill_null(missing)
    values: np.ndarray = column.to_numpy()
    return values
