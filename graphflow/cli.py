"""The command ``graphflow``.

Exit codes: 0 done, 2 something to correct (one line says what), 130 and 143 stopped by Ctrl-C and SIGTERM.
A reader that closes the output (``| head``) stops nothing.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphflow import tuning
from graphflow.artifact import read_artifact
from graphflow.config import settings
from graphflow.errors import GraphflowError
from graphflow.job import train
from graphflow.jobs.output import complain, standard_output
from graphflow.jobs.signals import Stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code. With GRAPHFLOW_DEBUG set, errors come with a traceback."""
    debug = 0
    try:
        options = _parser().parse_args(arguments)
        debug = settings().debug  # a variable with a bad value is told before anything is begun
        options.run(options)
    except Stopped as stopped:
        complain(str(stopped))
        return stopped.exit_code
    except KeyboardInterrupt:
        complain("interrupted")
        return 128 + int(signal.SIGINT)
    except (GraphflowError, OSError) as error:
        if debug:
            raise
        complain(f"error: {_told(error)}")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphflow", description="Train and look at models that run as static graphs."
    )
    parser.add_argument("--version", action="version", version=f"graphflow {version('graphflow')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("train", help="run the training job that a TOML file describes")
    command.add_argument("job", type=Path, help="the job's description, e.g. examples/digits/job.toml")
    command.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint in the output folder"
    )
    command.set_defaults(run=_train)
    command = commands.add_parser("inspect", help="tell what a .gfz file holds, without running it")
    command.add_argument("file", type=Path, help="a graph file, e.g. runs/digits/model.gfz")
    command.set_defaults(run=_inspect)
    command = commands.add_parser(
        "tune", help="measure how matrix products are best cut on this machine, and keep that"
    )
    command.add_argument("--again", action="store_true", help="also where it was measured before")
    command.set_defaults(run=_tune)
    return parser


def _train(options: argparse.Namespace) -> None:
    train(options.job, resume=options.resume)


def _tune(options: argparse.Namespace) -> None:
    """Measures once per machine; prints what was found."""
    console = Console(file=standard_output())
    found = None if options.again else tuning.kept()
    if found is not None:
        _say(console, f"measured before: {_chosen(found)} (--again measures anew)")
        return
    names = {}
    for dtype in tuning.DTYPES:
        measured = tuning.measure(dtype)
        if not measured.complete:
            raise tuning.TuneError(
                "time was up before all was measured; try when the machine does nothing else"
            )
        names[str(dtype)] = measured.name
        table = Table(str(dtype), "speed, the rule's being 1", "", box=None, pad_edge=False)
        for name, speed in measured.speeds.items():
            table.add_row(name, f"{speed:.3f}", "chosen" if name == measured.name else "")
        console.print(table)
    tuning.keep(names)
    _say(console, f"kept: {_chosen(names)}")


def _chosen(names: dict[str, str]) -> str:
    return ", ".join(f"{dtype} {name}" for dtype, name in names.items())


def _inspect(options: argparse.Namespace) -> None:
    """Prints a graph file's signature and states."""
    graph, states, _ = read_artifact(options.file)
    console = Console(file=standard_output())
    updated = {index for index, _ in graph.updates}
    kind = f"changes {len(updated)} of its states" if updated else "changes no state"
    _say(console, f"{options.file}: {graph.name}, {len(graph.nodes())} operations, {kind}")
    for node in graph.args:
        _say(console, f"  takes {node.attrs['name']}: {node.type}")
    for node in graph.outputs:
        _say(console, f"  gives {node.type}")
    table = Table("state", "dtype", "shape", "elements", "changes", box=None, pad_edge=False)
    for index, node in enumerate(graph.states):
        name, array = node.attrs["name"], states[node.attrs["name"]]
        shape = " x ".join(map(str, array.shape)) or "scalar"
        table.add_row(
            Text(name), str(node.dtype), shape, f"{array.size:,}", "yes" if index in updated else ""
        )
    if states:
        console.print(table)
    total = sum(array.nbytes for array in states.values())
    _say(console, f"{sum(array.size for array in states.values()):,} elements, {total:,} bytes")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
