"""Random graphs: compiled, compiled without fusion, and evaluated, all three agree; on any number of threads.

``GRAPHFLOW_FUZZ_EXAMPLES`` sets how many graphs are tried; ``tools/fuzz.py`` goes on until stopped.
"""

from __future__ import annotations

import os
import random
from functools import partial

import numpy as np
from graphflow.compiler.interpret import run_graph
from graphflow.engine import compile_graph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from random_graphs import Case, check, random_case, tolerances

EXAMPLES = int(os.environ.get("GRAPHFLOW_FUZZ_EXAMPLES", "300"))


def check_case(case: Case, unfused: bool) -> None:
    """Compares a case's compiled graph with the evaluator at several sizes."""
    engines = {"fused": compile_graph(case.graph)}
    if unfused:
        engines["unfused"] = compile_graph(case.graph, join=False)
    for n in (6, 1, 0, 33) if case.allows_empty else (6, 1, 33):
        arrays = case.arrays(n)
        with np.errstate(all="ignore"):
            outputs, states = run_graph(case.graph, arrays)
            exact = [*outputs, *states]
            allowed = tolerances(case.graph, arrays, exact)
            # What a comparison makes of the last bit shows in some runs only; many are for the few doubtful
            # cases.
            widened = np.errstate(all="ignore")(partial(tolerances, case.graph, arrays, exact, 100))
        for name, engine in engines.items():
            copies = [a.copy() for a in arrays]
            outputs, states = engine.run(copies)
            try:
                check([*outputs, *states], exact, allowed, f"{name}, n={n}")
            except AssertionError:
                check([*outputs, *states], exact, widened(), f"{name}, n={n}")
            for before, after in zip(arrays, copies, strict=True):
                np.testing.assert_array_equal(before, after, err_msg="an input was written to")


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.integers(0, 3))
def test_compiled_graphs_agree_with_the_evaluator(source: random.Random, unfused: int) -> None:
    check_case(random_case(source), unfused == 3)
