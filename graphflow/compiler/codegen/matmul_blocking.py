"""How the matrix-product core cuts its work: register tile, cache blocks and units of parallel work."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from graphflow.compiler.codegen.llvm import Target

#: Deepest run of k that is summed in registers. The same on every machine, because it decides the order of
#: additions: what a product's bits are must not depend on the size of a cache.
DEPTH = 512

#: Most rows of A that panels of B are packed for one at a time.
PANELWISE_ROWS = 256

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Blocking:
    """Sizes in elements.

    A register tile has up to `rows` rows and `vectors` vectors of `lanes` columns. One row, two rows and
    so on of A are multiplied with so many rows of B together as `stream` says, in up to `stream_columns`
    columns; a B that runs along k is turned in registers for up to the last of `turn` rows. A unit of
    parallel work is `unit_rows` x `unit_columns` of C. One thread takes up to `columns` columns together,
    as that many columns of B, `depth` deep, stay in the second-level cache. Where C isn't stored from
    registers, sums are kept in a tile of at most `small_tile` elements if `depth` covers all of k, else
    `large_tile`, but at least `rows` rows. Up to `panelwise_rows` rows of A are multiplied with one panel
    of B after another. `masks`: the processor has masked loads.
    """

    lanes: int
    rows: int
    vectors: int
    stream: tuple[int, ...]
    stream_columns: int
    turn: tuple[int, ...]
    depth: int
    unit_rows: int
    unit_columns: int
    columns: int
    small_tile: int
    large_tile: int
    panelwise_rows: int
    masks: bool

    @property
    def panel(self) -> int:
        """Columns of the widest register tile."""
        return self.lanes * self.vectors


@functools.cache
def _cache_bytes(level: int, otherwise: int) -> int:
    """Bytes of this machine's data cache of `level`; `otherwise` where the system doesn't tell."""
    for index in sorted(_CACHES.glob("index*")):
        try:
            if (
                int((index / "level").read_text()) != level
                or (index / "type").read_text().strip() == "Instruction"
            ):
                continue
            text = (index / "size").read_text().strip()
            return int(text[:-1]) * _UNITS[text[-1]] if text[-1:] in _UNITS else int(text)
        except (OSError, ValueError):
            continue
    return otherwise


#: Register tiles, the rule's own first, and tenths of the second-level cache that B may take: what the rule
#: knows no reason for, and what may be measured instead. None of it shows in a result's bits.
_TILES = {True: ((8, 3), (12, 2), (14, 2), (6, 4)), False: ((6, 2), (4, 3))}
_SHARES = (6, 3, 8)

_chosen: dict[tuple[int, Target], str] = {}


def blocking(itemsize: int, target: Target) -> Blocking:
    """The blocking for elements of `itemsize` bytes on `target`: by rule, unless `choose` said otherwise."""
    name = _chosen.get((itemsize, target))
    return candidates(itemsize, target)[name] if name else by_rule(itemsize, target)


def choose(itemsize: int, target: Target, name: str | None) -> None:
    """Has products that are compiled from now on use the candidate `name`; None: what the rule says."""
    if name is None:
        _chosen.pop((itemsize, target), None)
    elif name not in candidates(itemsize, target):
        raise KeyError(name)
    else:
        _chosen[itemsize, target] = name


@functools.cache
def candidates(itemsize: int, target: Target) -> dict[str, Blocking]:
    """Blockings by name, the rule's first. All give the same bits."""
    own, *others = _TILES[_many_registers(target)]
    pairs = [(own, share) for share in _SHARES] + [(tile, _SHARES[0]) for tile in others]
    return {
        f"{rows}x{vectors}, {share}/10": _made(itemsize, target, rows, vectors, share)
        for (rows, vectors), share in pairs
    }


@functools.cache
def by_rule(itemsize: int, target: Target) -> Blocking:
    """The blocking for elements of `itemsize` bytes on `target`, for the caches of this machine."""
    return next(iter(candidates(itemsize, target).values()))


def _many_registers(target: Target) -> bool:
    return target.vector_bits >= 512 or not target.triple.startswith(("x86_64", "i386", "i686"))


def _made(itemsize: int, target: Target, rows: int, vectors: int, share: int) -> Blocking:
    lanes = target.lanes(itemsize)
    stream = (8, 8) if _many_registers(target) else (8, 4)
    panel = lanes * vectors
    depth = DEPTH * 4 // itemsize
    second = _cache_bytes(2, 1 << 20)
    unit_columns = panel * 2
    columns = max(2, second * share // 10 // (depth * itemsize) // unit_columns) * unit_columns
    return Blocking(
        lanes=lanes,
        rows=rows,
        vectors=vectors,
        stream=stream,
        stream_columns=(16 << 10) // itemsize // len(stream),
        turn=(1, 4),
        depth=depth,
        unit_rows=rows * 4,
        unit_columns=unit_columns,
        columns=columns,
        small_tile=(16 << 10) // itemsize,
        large_tile=max(PANELWISE_ROWS * columns, (512 << 10) // itemsize),
        panelwise_rows=PANELWISE_ROWS,
        masks=target.vector_bits >= 512,
    )
