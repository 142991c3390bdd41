"""How modules print: PyTorch's layout."""

from __future__ import annotations


def bracketed(name: str, extra: list[str], children: list[str]) -> str:
    """A printed module: on one line when a single line of facts is all there is to say."""
    if len(extra) <= 1 and not children:
        return f"{name}({''.join(extra)})"
    body = "\n  ".join(extra + children)
    return f"{name}(\n  {body}\n)"


def indented(text: str) -> str:
    """`text` as it stands inside another module's brackets."""
    return text.replace("\n", "\n  ")
