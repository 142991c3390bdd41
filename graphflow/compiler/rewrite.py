"""Local algebra: a table of rules by op, and the one driver that applies them."""

from __future__ import annotations

from collections.abc import Callable, Container

from graphflow.compiler.ir import Graph, Node, at, make_node, toposort

Rule = Callable[[Node], Node | None]


class RuleSet:
    """Rewrites by op name. A rule gets a node and gives an equal, simpler one, or None."""

    def __init__(self) -> None:
        self._rules: dict[str, list[Rule]] = {}
        self._for_all: list[Rule] = []

    def rule(self, *ops: str) -> Callable[[Rule], Rule]:
        """Registers a rewrite for nodes of the named ops (for every node when none is named)."""

        def add(function: Rule) -> Rule:
            for op in ops:
                self._rules.setdefault(op, []).append(function)
            if not ops:
                self._for_all.append(function)
            return function

        return add

    def apply(self, graph: Graph, keep: Container[Node] = ()) -> Graph:
        """`graph` with rules applied until none fits, operands first, in sub-graphs too.

        No rule gets to see a node in `keep`. The user's lines stay with the nodes.
        """
        done: dict[Node, Node] = {}
        settled: set[Node] = set()  # what is in `done`, and what became of it
        for node in toposort(graph.roots):
            done[node] = self._simplest(node, done, settled, node in keep)
            settled.update((node, done[node]))
        if all(done[r] is r for r in graph.roots):
            return graph
        return graph.with_roots([done[r] for r in graph.roots])

    def _simplest(self, node: Node, done: dict[Node, Node], settled: set[Node], keep: bool) -> Node:
        with at(node.loc):
            inputs = tuple([done[i] for i in node.inputs])
            current = node
            inner = {k: self.apply(v) for k, v in node.attrs.items() if isinstance(v, Graph)}
            if inputs != node.inputs or inner:
                current = make_node(node.op, inputs, {**node.attrs, **inner})
            while not keep and (better := self._step(current)) is not None:
                # A rule may build several nodes; those below its result are new and get their turn too.
                for new in toposort([better], stop=settled):
                    if new not in settled and new is not better and new is not current:
                        done[new] = self._simplest_of_new(new, done)
                        settled.update((new, done[new]))
                rebuilt = tuple([done.get(i, i) for i in better.inputs])
                if rebuilt != better.inputs:
                    better = make_node(better.op, rebuilt, dict(better.attrs))
                if better.type != current.type:
                    raise AssertionError(
                        f"a rewrite of {current.op.name} changed {current.type} to {better.type}"
                    )
                if better in done:
                    return done[better]
                current = better
            return current

    def _simplest_of_new(self, node: Node, done: dict[Node, Node]) -> Node:
        inputs = tuple([done.get(i, i) for i in node.inputs])
        if inputs != node.inputs:
            node = make_node(node.op, inputs, dict(node.attrs))
        while (better := self._step(node)) is not None:
            node = better
        return node

    def _step(self, node: Node) -> Node | None:
        rules: tuple[Rule, ...] = (*self._rules.get(node.op.name, ()), *self._for_all)
        for rule in rules:
            better = rule(node)
            if better is not None and better is not node:
                return better
        return None


def interned(graph: Graph) -> Graph:
    """`graph` with equal nodes as one, also those that the trace had to keep apart."""
    done: dict[Node, Node] = {}
    for node in toposort(graph.roots):
        done[node] = node
        if node.inputs:
            with at(node.loc):
                done[node] = make_node(node.op, tuple(done[i] for i in node.inputs), dict(node.attrs))
    return graph.with_roots([done[r] for r in graph.roots])
