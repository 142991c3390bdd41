"""Passes: each takes a graph and gives a better one, or the next stage."""
