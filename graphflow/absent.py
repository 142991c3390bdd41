"""What to say of names that aren't there: why, what to use instead, or which name was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

_COMPLEX = "graphflow has no complex dtypes"
_SPARSE = "graphflow has no sparse tensors; nn.Embedding's gradient adds up the rows that were used"
_QUANTISED = "graphflow has no quantised dtypes"
_UNSIGNED = "graphflow's unsigned integers are uint8"
_STRIDES = "how elements lie in memory is the compiler's choice; use unfold(), expand() or indexing"

_WHY: dict[str, str] = {
    **dict.fromkeys((
        "complex", "complex32", "complex64", "complex128", "cfloat", "cdouble", "chalf", "polar", "imag",
        "stft", "istft", "view_as_complex", "view_as_real", "fft", "ifft", "fft2", "ifft2", "fftn", "ifftn",
        "rfft", "irfft", "rfft2", "irfft2", "rfftn", "irfftn", "hfft", "ihfft", "hfft2", "ihfft2",
        "hfftn", "ihfftn",
    ), _COMPLEX),
    **dict.fromkeys(("eig", "eigvals"), f"{_COMPLEX}; linalg.eigh and eigvalsh are for symmetric matrices"),
    **dict.fromkeys((
        "sparse", "sparse_coo", "sparse_csr", "sparse_coo_tensor", "sparse_csr_tensor", "sparse_csc_tensor",
        "sparse_bsr_tensor", "sparse_bsc_tensor", "sparse_compressed_tensor", "to_sparse", "to_sparse_csr",
        "to_sparse_csc", "to_sparse_coo", "coalesce", "is_coalesced", "indices", "values", "smm", "sspaddmm",
        "spmm", "hspmm", "sparse_mask", "sparse_dim", "dense_dim", "crow_indices", "col_indices",
    ), _SPARSE),
    **dict.fromkeys((
        "quantize_per_tensor", "quantize_per_channel", "quantization", "ao", "qint8", "quint8", "qint32",
        "dequantize", "qscheme", "int_repr", "q_scale", "q_zero_point",
    ), _QUANTISED),
    **dict.fromkeys(("uint16", "uint32", "uint64"), _UNSIGNED),
    **dict.fromkeys(("as_strided", "as_strided_", "empty_strided", "new_empty_strided", "set_"), _STRIDES),
    "jit": "graphflow.compile compiles functions and Modules, export and load_graph write and read them",
    "fx": "graphflow.trace gives a function's graph",
    "onnx": "graphflow.export writes graphs in a format of its own",
    "distributed": "graphflow runs in one process; set_num_threads sets its threads",
    "multiprocessing": "tensors aren't shared between processes; DataLoader has workers of its own",
    "hub": "graphflow loads no code from the network",
    "record_function": "profiler.profile names kernels and functions, and explain() their lines",
    "distributions": "there are the random functions, and special.* for densities",
    "resize": "use reshape(), or make a new tensor with empty()",
    "share_memory_": "tensors aren't shared between processes; threads share them anyway",
    "lstm": "use nn.LSTM", "gru": "use nn.GRU", "rnn_tanh": "use nn.RNN", "rnn_relu": "use nn.RNN",
    "lu": "use linalg.solve, linalg.inv or linalg.det", "lu_factor": "use linalg.solve",
    "lu_solve": "use linalg.solve", "symeig": "use linalg.eigh", "lstsq": "use linalg.lstsq",
    "solve": "use linalg.solve", "matrix_rank": "use linalg.matrix_rank",
}  # fmt: skip


def message(place: str, name: str, known: Iterable[str], elsewhere: Mapping[str, Iterable[str]]) -> str:
    """The text of an AttributeError for ``place.name``.

    `known` are the names there are, `elsewhere` those of other places by the place's name.
    """
    start = f"{place} has no attribute {name!r}"
    if name.startswith("__"):
        return start
    if name in _WHY:
        return f"{start}: {_WHY[name]}"
    for other, names in elsewhere.items():
        if name in names:
            return f"{start}; there is {other}.{name}"
    near = difflib.get_close_matches(name, [n for n in known if not n.startswith("_")], 1, 0.75)
    return f"{start}; did you mean {near[0]!r}?" if near else start
