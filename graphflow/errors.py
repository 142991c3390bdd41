"""Every error graphflow raises on purpose.

Each class also derives from the built-in exceptions that PyTorch and NumPy users would catch, so existing
``except RuntimeError`` and ``except ValueError`` code keeps working.
"""

from __future__ import annotations


class GraphflowError(Exception):
    """Base of all errors that graphflow raises on purpose."""


class ShapeError(GraphflowError, ValueError, RuntimeError):
    """Operand shapes that an operation can't combine."""


class IndexRangeError(ShapeError, IndexError):
    """A dimension or an index that doesn't exist."""


class DTypeError(GraphflowError, TypeError, RuntimeError):
    """Operand dtypes that an operation can't combine, or a value of a kind that has no dtype here."""


class DeviceError(GraphflowError, RuntimeError):
    """A device that doesn't exist on this machine, or operands on different devices."""


class GradientError(GraphflowError, RuntimeError):
    """A gradient that was asked for and doesn't exist."""


class TraceError(GraphflowError, RuntimeError):
    """Python code that can't be turned into a static graph."""


class LinAlgError(GraphflowError, RuntimeError, ValueError):
    """A matrix that has no inverse, or no such factor."""


class CompileError(GraphflowError, RuntimeError):
    """A graph that could not be turned into machine code."""


class FormatError(GraphflowError, ValueError):
    """A file that isn't what it should be: truncated, altered, or of an unknown version."""


class JobError(GraphflowError, ValueError):
    """A batch job description or its data that can't be run."""


class CheckError(GraphflowError, AssertionError):
    """A kernel that computes something else than the reference evaluator; always a mistake of graphflow's."""


class NaNError(GraphflowError, FloatingPointError):
    """A NaN in a result, where the user asked to be told."""


class VerifyError(GraphflowError, AssertionError):
    """A graph that breaks one of the IR's invariants; always a mistake inside graphflow."""


class UnrollWarning(UserWarning):
    """A Python loop inside a compiled function that makes its graph very long."""
