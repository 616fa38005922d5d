"""Places clusters one after the other, each in the earliest cycle in which all that it needs is free."""

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from compiler.ir import Cell, Cluster

from .reservations import Need


class Graph:
    """The dependences between a block's clusters, from their cells and program order.

    before[i]: for each cluster that i waits for, the least distance from its start to the start of i.
    after[i]: the same distances, for each cluster that waits for i.
    """

    def __init__(self, clusters: Sequence[Cluster]) -> None:
        self.before: list[dict[int, int]] = [{} for _ in clusters]
        self.after: list[dict[int, int]] = [{} for _ in clusters]
        self._written: dict[Cell, tuple[int, int]] = {}
        self._read: dict[Cell, dict[int, int]] = defaultdict(dict)
        for number, cluster in enumerate(clusters):
            self._wait(number, cluster)
            self._note(number, cluster)

    def _edge(self, first: int, second: int, distance: int) -> None:
        if first != second and distance > self.before[second].get(first, distance - 1):
            self.before[second][first] = self.after[first][second] = distance

    def _wait(self, number: int, cluster: Cluster) -> None:
        for read in cluster.reads:
            if read.cell in self._written:
                writer, ready = self._written[read.cell]
                self._edge(writer, number, ready - read.first)
        for write in cluster.writes:
            if write.cell in self._written:
                writer, ready = self._written[write.cell]
                self._edge(writer, number, ready + 1 - write.first)
            for reader, last in self._read[write.cell].items():
                self._edge(reader, number, last + 1 - write.first)

    def _note(self, number: int, cluster: Cluster) -> None:
        for read in cluster.reads:
            readers = self._read[read.cell]
            readers[number] = max(read.last, readers.get(number, read.last))
        for write in cluster.writes:
            writer, ready = self._written.get(write.cell, (-1, 0))
            self._written[write.cell] = number, max(write.last, ready) if writer == number else write.last
            self._read[write.cell] = {}

    def mirrored(self) -> "Graph":
        """The graph for time that runs backward."""
        graph = Graph(())
        graph.before, graph.after = self.after, self.before
        return graph


class Placer:
    """Places clusters in one direction of time.

    graph: dependences of the clusters.
    needs: needs of each cluster.
    first: least start of each cluster.
    slots: (every, phase) of each cluster: it may start in cycles that are `phase` modulo `every`.
    """

    def __init__(self, graph: Graph, needs: Sequence[Sequence[Need]], first: Sequence[int],
                 slots: Sequence[tuple[int, int]]) -> None:
        self._first, self._slots = list(first), slots
        self._waits = [len(before) for before in graph.before]
        self._after = [tuple(after.items()) for after in graph.after]
        busy = Counter[Hashable]()
        for need in itertools.chain.from_iterable(needs):
            busy[need.resource] += need.mask.bit_count()
        numbers = {resource: number for number, (resource, _) in enumerate(busy.most_common())}
        self._resources = len(numbers)
        self._needs = [sorted((numbers[need.resource], *need[1:]) for need in own) for own in needs]

    def earliest(self) -> list[int]:
        """Earliest start of each cluster if all resources were free."""
        return self._placed(range(len(self._first)), [()] * len(self._first))

    def place(self, urgency: Sequence[float]) -> list[int]:
        """Starts of the clusters. Of those that are ready, the one with the least `urgency` is placed first."""
        return self._placed(urgency, self._needs)

    def _placed(self, urgency: Sequence[float], needs: Sequence[Sequence[tuple[int, int, int, bool]]]) -> list[int]:
        """This is where the compiler spends its time."""
        by_urgency = sorted(range(len(urgency)), key=urgency.__getitem__)
        ranks = [0] * len(by_urgency)
        for rank, number in enumerate(by_urgency):
            ranks[number] = rank
        busy, starts, waits = [0] * self._resources, self._first.copy(), self._waits.copy()
        ready = [rank for rank, number in enumerate(by_urgency) if not waits[number]]
        while ready:
            number = by_urgency[heapq.heappop(ready)]
            starts[number] = at = _free_from(busy, needs[number], starts[number], *self._slots[number])
            for resource, start, mask, _ in needs[number]:
                busy[resource] |= mask << at + start
            for following, distance in self._after[number]:
                if starts[following] < at + distance:
                    starts[following] = at + distance
                waits[following] -= 1
                if not waits[following]:
                    heapq.heappush(ready, ranks[following])
        return starts


def _free_from(busy: Sequence[int], needs: Sequence[tuple[int, int, int, bool]], at: int, every: int, phase: int,
               ) -> int:
    """The first cycle, from `at` on and `phase` modulo `every`, in which all needs of a cluster are free."""
    at += (phase - at) % every
    tried = -1
    while tried < at:
        tried = at
        for resource, start, mask, solid in needs:
            while conflict := busy[resource] >> at + start & mask:
                at += conflict.bit_length() if solid else 1
                at += (phase - at) % every
    return at
