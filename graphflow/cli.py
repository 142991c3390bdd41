"""The command ``graphflow``.

Exit codes: 0 done, 2 something to correct (one line says what), 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from graphflow.config import settings
from graphflow.errors import GraphflowError
from graphflow.job import train
from graphflow.jobs.signals import Stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code. With GRAPHFLOW_DEBUG set, errors come with a traceback."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except Stopped as stopped:
        _complain(str(stopped))
        return stopped.exit_code
    except KeyboardInterrupt:
        _complain("interrupted")
        return 128 + int(signal.SIGINT)
    except (GraphflowError, OSError) as error:
        if settings().debug:
            raise
        _complain(f"error: {error}")
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
    return parser


def _train(options: argparse.Namespace) -> None:
    train(options.job, resume=options.resume, console=Console())


def _complain(text: str) -> None:
    print(f"graphflow: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
