"""The words of a program's loops and branches, at one assignment of its symbolic sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphflow.runtime import words
from graphflow.runtime.buffers import WordArray
from graphflow.runtime.layout import Layout
from graphflow.runtime.program import Control, Program, Size

_KINDS = {"loop": words.LOOP, "end": words.END, "branch": words.BRANCH, "jump": words.JUMP}
_FOREVER = 2**63 - 1


class Regions:
    """Decisions and regions as words, and the same decisions taken in Python.

    ``decisions`` are the addresses of the words of the commands that decide, by the command's number.
    """

    def __init__(self, program: Program, layout: Layout, blocks: WordArray, size: Callable[[Size], int]):
        self._blocks = blocks
        self.spans = program.regions()
        self._row = {number: row for row, number in enumerate(self.spans)}
        controls = [(i, c.control) for i, c in enumerate(program.commands) if c.control is not None]
        self._controls = dict(controls)
        self._regions = WordArray(len(self.spans), words.REGION_WORDS)
        self._decisions = WordArray(len(controls), words.DECISION_WORDS)
        self._pairs: dict[int, WordArray] = {}
        for number, row in self._row.items():
            pairs = [(w, size(step) * width) for w, step, width in layout.advances.get(number, ())]
            array = self._pairs[number] = WordArray(len(pairs), 2)
            for pair, (place, shift) in zip(array.values, pairs, strict=True):
                pair[:] = blocks.address + 8 * place, shift
            region = self._regions.values[row]
            region[words.ADVANCES], region[words.ADVANCE_COUNT] = array.address, len(pairs)
        self.decisions: dict[int, int] = {}
        for row, (index, control) in enumerate(controls):
            place = self._row[control.region]
            if control.kind == "loop":
                length = _FOREVER if control.length is None else size(control.length)
                self._regions.values[place, words.LENGTH] = length
            self._decisions.values[row, : words.REGION + 1] = (
                _KINDS[control.kind],
                control.target,
                control.leave,
                0,
                self._regions.address + 8 * words.REGION_WORDS * place,
            )
            self.decisions[index] = self._decisions.address + 8 * words.DECISION_WORDS * row

    def place_counters(self, address: int, row_bytes: int, shared: Sequence[int]) -> None:
        """Tells every region where the counters of its shared commands are; all lie in the commands' order.
        """
        for number, (start, leave) in self.spans.items():
            inside = [i for i, command in enumerate(shared) if start <= command < leave]
            region = self._regions.values[self._row[number]]
            region[words.AREA] = address + row_bytes * inside[0] if inside else address
            region[words.AREA_BYTES] = row_bytes * len(inside)

    def rounds(self, number: int) -> int:
        """How many rounds of a loop are done in the current run."""
        return int(self._regions.values[self._row[number], words.DONE])

    def decide(self, index: int, flag: bool, failed: bool) -> int:
        """The number of the command after the deciding command `index`, as ``decide`` in the machine code."""
        control = self._controls[index]
        if control.kind == "jump":
            return control.target
        if control.kind == "branch":
            return index + 1 if flag else control.target
        return self._loop(index, control, failed)

    def _loop(self, index: int, control: Control, failed: bool) -> int:
        region = self._regions.values[self._row[control.region]]
        if control.kind == "loop":
            region[words.DONE] = 0
            return index + 1 if region[words.LENGTH] > 0 and not failed else control.target
        done = int(region[words.DONE])
        again = done + 1 < region[words.LENGTH] and not failed
        for address, shift in self._pairs[control.region].values:
            self._blocks.values[(address - self._blocks.address) // 8] += shift if again else -done * shift
        if not again:
            return index + 1
        region[words.DONE] = done + 1
        return control.target


__all__ = ["Regions"]
