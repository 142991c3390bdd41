"""The user's own code: functions that a job.toml names."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from graphflow.errors import GraphflowError, JobError
from graphflow.jobs.config import Entry, JobConfig


class UserCode:
    """The Python files of one job. Each file is run once; while its code runs, its folder is importable."""

    def __init__(self, config: JobConfig):
        self._config = config
        self._modules: dict[Path, ModuleType] = {}

    def call(self, key: str, entry: Entry) -> Any:
        """What the entry's function returns; JobError names the job's key and the line where it failed."""
        with self._blamed(key, entry):
            function = getattr(self._module(entry.file), entry.function, None)
        if not callable(function):
            raise JobError(f"{self._config.path}: {key}: {entry.file} has no function {entry.function!r}")
        with self._blamed(key, entry):
            return function()

    def _module(self, file: Path) -> ModuleType:
        file = file.resolve()
        if file not in self._modules:
            name = f"graphflow_job_{file.stem}"
            spec = importlib.util.spec_from_file_location(name, file)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module  # dataclasses and the like look their module up
            spec.loader.exec_module(module)
            self._modules[file] = module
        return self._modules[file]

    @contextmanager
    def _blamed(self, key: str, entry: Entry) -> Iterator[None]:
        """Runs the user's code with its folder importable; exceptions become a JobError."""
        folder = str(entry.file.parent.resolve())
        sys.path.insert(0, folder)
        try:
            yield
        except Exception as error:
            raise self.blame(key, entry, error) from error
        finally:
            if folder in sys.path:
                sys.path.remove(folder)

    def blame(self, key: str, entry: Entry, error: Exception) -> JobError:
        """A JobError with the job's file, `key` and the user's innermost line that `error` passed through."""
        if isinstance(error, JobError):
            return error
        where = _innermost(error, entry.file.parent.resolve())
        kind = "" if isinstance(error, GraphflowError) else f"{type(error).__name__}: "
        return JobError(f"{self._config.path}: {key}: {where}{kind}{error}")


def _innermost(error: Exception, folder: Path) -> str:
    """``model.py:12 in build: `` for the deepest frame in the user's folder, or nothing."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}: "
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_absolute() and path.is_relative_to(folder):
            return f"{path.relative_to(folder)}:{frame.lineno} in {frame.name}: "
    return ""
