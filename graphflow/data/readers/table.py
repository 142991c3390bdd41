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

_EMPTY = ("", "NA", "N/A", "n/a", "null", "NULL", "<NA>")

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
        self.feature_names = tuple(name for name in columns if name != target)
        self.classes: tuple[str, ...] = ()
        if not self.feature_names:
            raise ValueError(f"{path}: no column is left for the features")
        features = [_in_dtype(path, name, columns[name], dtype) for name in self.feature_names]
        arrays = [np.stack(features, axis=1)]
        if target is not None:
            values = columns[target]
            if values.dtype == object:
                found, values = np.unique(values.astype(str), return_inverse=True)
                self.classes = tuple(found.tolist())
            kind = target_dtype or (dtypes.int64 if _whole(path, target, values) else dtypes.float32)
            arrays.append(_in_dtype(path, target, values, kind))
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


def _in_dtype(path: Path, name: str, values: np.ndarray, dtype: dtypes.DType) -> np.ndarray:
    """The column in another dtype; FormatError where an integer dtype doesn't hold its numbers."""
    if dtype.is_floating_point or dtype is dtypes.bool_ or values.dtype.kind == "b":
        with np.errstate(over="ignore"):
            return values.astype(dtype.numpy, copy=False)
    limits = np.iinfo(dtype.numpy)
    fits = (values >= limits.min) & (values <= limits.max)
    if values.dtype.kind == "f":
        # the highest int64 isn't a float64: what rounds up to it is beyond
        fits = (values >= limits.min) & (values < float(limits.max) + 1) & (values == np.floor(values))
    if not fits.all():
        odd = values[~fits][0]
        raise FormatError(f"{path}: the column {name!r} has {odd}, which {dtype} doesn't hold")
    return values.astype(dtype.numpy, copy=False)


class CsvDataset(_Table):
    """A CSV file of numbers. Samples are (features,) or, with a `target` column, (features, target).

    `features` are the other columns, or those that `columns` names, as one tensor of shape (F,) and dtype
    `dtype`; the target is int64 if all its numbers are whole, else float32, or `target_dtype`. A target
    column of names, without a single number, becomes class numbers, the names in order in ``classes``.
    Columns are called by the `header` line, or by "0", "1", … without one, or by their place, an int. Empty
    cells (also NA, N/A, null) are an error, or have the value `missing`. The whole table is in memory.
    FormatError names the line and column of a cell that is no number and the line with too many or too few
    cells, and numbers that an integer dtype doesn't hold; ValueError for columns that aren't there.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        target: str | int | None = None,
        columns: Sequence[str | int] | None = None,
        *,
        header: bool = True,
        delimiter: str = ",",
        missing: float | None = None,
        dtype: dtypes.DType = dtypes.float32,
        target_dtype: dtypes.DType | None = None,
        transform: Transform | None = None,
    ):
        path = Path(path)
        if not isinstance(delimiter, str) or len(delimiter) != 1:
            raise ValueError(f"CsvDataset: delimiter is one character, got {delimiter!r}")
        names, rows, lines = _read_csv(path, header, delimiter)
        wanted, label = _wanted(path, names, columns, target)
        table = {
            name: _numbers(path, name, [row[place] for row in rows], lines, missing, name == label)
            for name, place in ((name, names.index(name)) for name in wanted)
        }
        super().__init__(path, table, label, dtype, target_dtype, transform)


def _wanted(
    path: Path, names: Sequence[str], columns: Sequence[str | int] | None, target: str | int | None
) -> tuple[list[str], str | None]:
    """The names of the columns to read, and the target's."""

    def found(column: str | int) -> str:
        if isinstance(column, int) and not isinstance(column, bool) and -len(names) <= column < len(names):
            return names[column]
        if column not in names:
            raise ValueError(f"{path}: there is no column {column!r}; there are {', '.join(names)}")
        return str(column)

    if isinstance(columns, str):
        raise TypeError(f"{path}: columns is a list of columns, got {columns!r}")
    label = None if target is None else found(target)
    wanted = list(names) if columns is None else [found(column) for column in columns]
    if len(set(wanted)) != len(wanted):
        raise ValueError(f"{path}: a column comes twice: {', '.join(wanted)}")
    return wanted + ([] if label is None or label in wanted else [label]), label


def _read_csv(path: Path, header: bool, delimiter: str) -> tuple[list[str], list[list[str]], list[int]]:
    """The columns' names, and the cells and line number of each row."""
    rows: list[list[str]] = []
    lines: list[int] = []
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
                rows.append(cells)
                lines.append(reader.line_num)
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: not a CSV file: {error}") from None
    if not rows:
        raise FormatError(f"{path}: there are no rows in it")
    return names, rows, lines


def _numbers(
    path: Path, name: str, cells: list[str], lines: list[int], missing: float | None, may_be_names: bool
) -> np.ndarray:
    """A column's numbers, float64; or, where it may hold names and has no number, its text."""
    values = np.empty(len(cells))
    for i, cell in enumerate(cells):
        text = cell.strip()
        where = f"{path}:{lines[i]}, column {name!r}"
        if text in _EMPTY:
            if missing is None:
                raise FormatError(f"{where}: an empty cell; missing= gives empty cells a value")
            values[i] = missing
            continue
        number = _number(text)
        if number is None:
            if may_be_names and all(_number(other.strip()) is None for other in cells):
                return _names(cells, lines, f"{path}:{{}}, column {name!r}")
            raise FormatError(f"{where}: {text!r} is no number")
        values[i] = number
    return values


def _names(cells: list[str], lines: list[int], where: str) -> np.ndarray:
    texts = [cell.strip() for cell in cells]
    if "" in texts:
        raise FormatError(f"{where.format(lines[texts.index('')])}: an empty cell among names")
    return np.array(texts, object)


def _number(text: str) -> float | None:
    if "_" in text:  # which Python takes, and nobody else
        return None
    try:
        return float(text)
    except ValueError:
        return None


class ParquetDataset(_Table):
    """A Parquet file of numeric columns. Samples, `target`, `columns` and dtypes as in CsvDataset.

    Takes the extra ``parquet`` (pyarrow; ImportError names it). Only the columns that are asked for are read.
    Nulls are an error, or have the value `missing`. FormatError for a damaged file and for columns that
    aren't numbers.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        target: str | int | None = None,
        columns: Sequence[str | int] | None = None,
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
                wanted, label = _wanted(path, file.schema_arrow.names, columns, target)
                read = file.read(columns=wanted)
            table = {
                name: _column(path, name, read.column(name), missing, name == label, pyarrow.types)
                for name in wanted
            }
        except (FileNotFoundError, IsADirectoryError, PermissionError, FormatError):
            raise
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            raise FormatError(f"{path}: not a Parquet file that can be read: {error}") from None
        super().__init__(path, table, label, dtype, target_dtype, transform)


def _column(
    path: Path, name: str, column: Any, missing: float | None, may_be_names: bool, types: Any
) -> np.ndarray:
    kind = column.type
    if may_be_names and types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    named = may_be_names and (types.is_string(kind) or types.is_large_string(kind))
    if not (named or types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise FormatError(f"{path}: the column {name!r} holds {kind}, not numbers")
    if column.null_count:
        if missing is None or named:
            raise FormatError(
                f"{path}: the column {name!r} has {column.null_count} nulls; missing= gives them a value, "
                "unless it holds names"
            )
        whole = types.is_integer(kind) and float(missing).is_integer()
        column = column.fill_null(int(missing)) if whole else column.cast("float64").fill_null(missing)
    values: np.ndarray = column.to_numpy()
    return values.astype(object) if named else values
