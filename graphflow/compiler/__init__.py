"""The compiler: from a traced graph to a Program."""
