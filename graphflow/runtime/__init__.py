"""The runtime: runs Programs, and knows nothing of graphs."""
