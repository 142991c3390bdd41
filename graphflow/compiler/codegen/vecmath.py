"""placeholder while the front end is brought up."""
from __future__ import annotations


def link(ir_text: str) -> str:
    return ir_text

SOURCES = ("vecmath", "vecmath_scalars")
