"""Settings that come from environment variables, read in this one place.

===================== ======================================================================================
GRAPHFLOW_DEBUG       0 (default) nothing, 1 pass timings, 2 per-kernel run table, 3 graphs, 4 kernel source
GRAPHFLOW_NUM_THREADS threads that a step may use, and compiling it; default: the physical cores this process
                      may run on, to compile the logical ones
GRAPHFLOW_CACHE       directory of compiled code, or ``off``; default: graphflow in the user's cache
GRAPHFLOW_CACHE_BYTES upper bound of that directory's size in bytes, with an optional K, M or G; default 1G
GRAPHFLOW_TUNE        on (default): matrix products are cut as ``graphflow tune`` measured; off: by rule
===================== ======================================================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from graphflow.errors import GraphflowError

DEFAULT_CACHE_BYTES = 1 << 30
MAX_THREADS = 1024
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class ConfigError(GraphflowError, ValueError):
    """An environment variable with a value that graphflow can't use."""


@dataclass(frozen=True)
class Settings:
    """The settings of one environment.

    ``threads`` is None where the number is left to the machine, ``cache_directory`` is None where nothing is
    to be kept on disk.
    """

    debug: int = 0
    threads: int | None = None
    cache_directory: Path | None = None
    cache_bytes: int = DEFAULT_CACHE_BYTES
    tune: bool = True


def parse(environment: Mapping[str, str]) -> Settings:
    """The settings in `environment`. ConfigError names the variable, its value, and what it takes."""
    threads = _integer(environment, "GRAPHFLOW_NUM_THREADS", 1, MAX_THREADS)
    return Settings(
        debug=_integer(environment, "GRAPHFLOW_DEBUG", 0, 4) or 0,
        threads=threads,
        cache_directory=_cache_directory(environment),
        cache_bytes=_cache_bytes(environment),
        tune=_switch(environment, "GRAPHFLOW_TUNE"),
    )


def settings() -> Settings:
    """This process's settings, read from its environment on first use."""
    global _current
    if _current is None:
        _current = parse(os.environ)
    return _current


def reload() -> Settings:
    """Reads the environment again; what was already built from the old settings stays as it is."""
    global _current
    _current = None
    return settings()


_current: Settings | None = None


def _integer(environment: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = environment.get(name, "").strip()
    if not text:
        return None
    # isdecimal alone would let other scripts' digits through, and int() takes underscores
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise ConfigError(f"{name}={text!r}: it takes a whole number from {least} to {most}")
    return int(text)


def _switch(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "").strip().lower()
    if text not in ("", "on", "off"):
        raise ConfigError(f"{name}={text!r}: it takes on or off")
    return text != "off"


def _cache_bytes(environment: Mapping[str, str]) -> int:
    text = environment.get("GRAPHFLOW_CACHE_BYTES", "").strip()
    if not text:
        return DEFAULT_CACHE_BYTES
    match = re.fullmatch(r"([0-9]{1,15})([KMG]?)", text.upper())
    if not match:
        raise ConfigError(f"GRAPHFLOW_CACHE_BYTES={text!r}: it takes a number of bytes, like 500M")
    return int(match.group(1)) * _UNITS[match.group(2)]


def _cache_directory(environment: Mapping[str, str]) -> Path | None:
    text = environment.get("GRAPHFLOW_CACHE", "").strip()
    if text.lower() == "off":
        return None
    if text:
        chosen = Path(text)
        if text.startswith("~"):
            chosen = _expand(chosen, environment)
        if not chosen.is_absolute():
            raise ConfigError(f"GRAPHFLOW_CACHE={text!r}: it takes an absolute directory, or 'off'")
        return chosen
    base = environment.get("XDG_CACHE_HOME", "").strip()
    # the XDG base directory specification says that a relative path there is to be ignored
    if base and os.path.isabs(base):
        return Path(base) / "graphflow"
    home = environment.get("HOME", "").strip()
    return Path(home) / ".cache" / "graphflow" if os.path.isabs(home) else None


def _expand(path: Path, environment: Mapping[str, str]) -> Path:
    home = environment.get("HOME", "")
    first, *rest = path.parts
    return Path(home, *rest) if first == "~" and home else path
