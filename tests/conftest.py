"""Golden files and the settings of property tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from graphflow import manual_seed
from graphflow.compiler import pipeline
from hypothesis import settings

GOLDEN = Path(__file__).parent / "golden"

# Examples come from the test's source alone, so that runs repeat; a machine under load is no failure.
settings.register_profile("graphflow", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("graphflow")

pipeline.always_verify = True


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--update-golden``, which writes the golden files instead of comparing with them."""
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files instead of comparing with them"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test's random numbers don't depend on the tests that ran before it."""
    manual_seed(0)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)`` compares a text with ``tests/golden/<name>``."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8")
            return
        assert path.exists(), (
            f"no golden file {path.name}; run pytest --update-golden and review what it writes"
        )
        assert text + "\n" == path.read_text(encoding="utf-8")

    return check
