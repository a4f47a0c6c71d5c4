"""Look ahead from a snapshot of a text that is being written, by PUCT over blocks of tokens.

The planner first writes what the text itself will write up to the plan's position, and searches from there: the rest
of an earlier plan, which one call reads, and tokens drawn by the text's own generator. A node is a state behind some
tokens; its candidates are blocks that the model draws, and a candidate's prior P is its share of the draws. A
simulation descends by

    Q + c · P · √N / (1 + n),

n visits of the candidate, N of its node and Q its mean value, scaled by the smallest and the largest value seen
(Schrittwieser et al. 2020; Hubert et al. 2021 for drawn candidates). It opens the node that it reaches, in one batch,
and adds all values found there to the nodes above.

Shapes: K candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.domains import Count, Few, Positive, checked
from gssr.search.decoding.plans import Plan, digest
from gssr.search.decoding.rows import Decoding, Rows
from gssr.search.decoding.select import Value
from gssr.states.cache import LayerState
from gssr.states.hybrid_state import HybridState
from gssr.states.rules import Rule


@checked
@dataclass(frozen=True)
class Lookahead:
    """How far and how wide a planner looks.

    Args:
        ahead: tokens from the snapshot to the plan's position. A plan that takes longer than the text takes to write
            so many tokens comes too late.
        candidates: K, blocks drawn at a node.
        block: tokens of a block; 1 searches over tokens.
        simulations: nodes that are opened.
        depth: blocks from the plan's position on, at most.
        exploration: c of PUCT.
    """

    ahead: Count = 32
    candidates: Few = 4
    block: Few = 8
    simulations: Few = 4
    depth: Few = 3
    exploration: Positive = 1.25


@dataclass(frozen=True, eq=False)
class Request:
    """A snapshot of one text.

    Args:
        written: new tokens among those of the state.
        generator: state of the generator that draws the text's tokens.
        coming: tokens of an earlier plan that the text will write next.
    """

    state: HybridState
    written: int
    generator: Tensor
    coming: tuple[int, ...] = ()


@dataclass(eq=False)
class _Node:
    tokens: tuple[int, ...]
    state: HybridState
    prior: float
    depth: int
    is_end: bool
    visits: int = 0
    total: float = 0.0
    children: list[_Node] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return self.total / max(1, self.visits)

    @property
    def best(self) -> _Node | None:
        """The child that was tried most, None where there is none or all are forbidden."""
        found = max(self.children, key=lambda child: (child.visits, child.mean), default=None)
        return None if found is None or found.mean == -math.inf else found


class Search:
    """One look ahead.

    Args:
        value: of rows, finished or not; higher is better.
        rules: of steering, as the text has them.
    """

    def __init__(
        self, backbone: FrozenBackbone, options: Lookahead, decoding: Decoding, value: Value, rules: tuple[Rule, ...]
    ) -> None:
        self.backbone, self.options, self.decoding = backbone, options, decoding
        self.value, self.rules = value, rules

    def plan(self, request: Request) -> Plan | None:
        """None where the text ends before the plan's position, or every candidate is forbidden."""
        foreseen = Rows(self.backbone, request.state, 1, self.decoding, self.rules, written=request.written)
        foreseen.generator.set_state(request.generator)
        foreseen.put(request.coming[: self.options.ahead])
        foreseen.write(self.options.ahead - len(request.coming))
        if foreseen.finished:
            return None
        position = foreseen.length
        (root,) = self._grown([foreseen.snapshot()], position, foreseen.tokens)
        if (best := root.best) is None:
            return None
        between = digest(foreseen.tokens[0, request.written :].tolist())
        return Plan(request.written, position, between, best.tokens, best.mean)

    def behind(self, states: HybridState, written: int) -> list[HybridState]:
        """By row of states whose last ``written`` tokens are new, the state behind the path that is tried most; the
        row's own where every candidate is forbidden. The rows are searched side by side."""
        found = []
        for node in self._grown([states.select([row]) for row in range(states.rows)], written, states.tokens):
            while (best := node.best) is not None:
                node = best
            found.append(node.state)
        return found

    def _grown(self, states: list[HybridState], position: int, tokens: Tensor) -> list[_Node]:
        """The roots of trees behind states of one length; ``tokens`` decide their draws."""
        trees = [_Tree(_Node((), state, 1.0, 0, False), self.options.exploration) for state in states]
        # The search draws from a generator of its own, which the snapshot decides.
        seeds = torch.Generator().manual_seed(int(digest(tokens.flatten().tolist())[:8], 16))
        for _ in range(self.options.simulations):
            seed, opened = int(torch.randint(2**31, (), generator=seeds)), dict[int, list[tuple[_Tree, list[_Node]]]]()
            for tree in trees:
                path = tree.descend()
                leaf = path[-1]
                if leaf.is_end or leaf.depth == self.options.depth:
                    tree.add(path, leaf.mean)
                elif leaf.mean != -math.inf:
                    opened.setdefault(leaf.depth, []).append((tree, path))
            # Those of one depth have one length, and are opened in one batch.
            for some in opened.values():
                self._open(some, position, seed)
        return [tree.root for tree in trees]

    def _open(self, opened: list[tuple[_Tree, list[_Node]]], position: int, seed: int) -> None:
        """Draw the candidates behind the last nodes of paths, and add their values to the nodes of the paths."""
        leaves, options = [path[-1] for _, path in opened], self.options
        written = position + sum(len(each.tokens) for each in opened[0][1])
        rows = Rows(
            self.backbone, _joined(leaves), options.candidates, self.decoding, self.rules, seed=seed, written=written
        )
        rows.write(options.block)
        values, lengths, after = self.value(rows).double().tolist(), rows.lengths.tolist(), rows.snapshot()
        is_full = rows.length >= self.decoding.tokens
        for i, (tree, path) in enumerate(opened):
            same: dict[tuple[int, ...], list[int]] = {}
            for row in range(i * options.candidates, (i + 1) * options.candidates):
                same.setdefault(tuple(rows.tokens[row, written : lengths[row]].tolist()), []).append(row)
            for tokens, drawn in same.items():
                row, share, depth = drawn[0], len(drawn) / options.candidates, path[-1].depth + 1
                child = _Node(tokens, after.select([row]), share, depth, is_full or bool(rows.ended[row]))
                child.visits, child.total = 1, values[row]
                path[-1].children.append(child)
                # A forbidden candidate says nothing of its node.
                if math.isfinite(values[row]):
                    tree.add(path, values[row])


class _Tree:
    """Nodes behind one state, and the smallest and the largest value seen there."""

    def __init__(self, root: _Node, exploration: float) -> None:
        self.root, self.exploration = root, exploration
        self.low, self.high = math.inf, -math.inf

    def descend(self) -> list[_Node]:
        path = [self.root]
        while path[-1].children:
            path.append(max(path[-1].children, key=lambda child, parent=path[-1]: self._bound(parent, child)))
        return path

    def add(self, path: list[_Node], value: float) -> None:
        self.low, self.high = min(self.low, value), max(self.high, value)
        for node in path:
            node.visits, node.total = node.visits + 1, node.total + value

    def _bound(self, parent: _Node, child: _Node) -> float:
        if child.mean == -math.inf:
            return -math.inf
        width = self.high - self.low
        mean = (child.mean - self.low) / width if width > 0 else 0.5
        return mean + self.exploration * child.prior * math.sqrt(parent.visits) / (1 + child.visits)


def _joined(nodes: list[_Node]) -> HybridState:
    """The states of nodes of one length, as rows of one."""
    states = [node.state for node in nodes]
    if len(states) == 1:
        return states[0]
    layers = tuple(LayerState.concatenate(own) for own in zip(*(state.layers for state in states), strict=True))
    tokens, mask = (torch.cat([getattr(state, name) for state in states]) for name in ("tokens", "mask"))
    return replace(states[0], layers=layers, tokens=tokens, mask=mask)
