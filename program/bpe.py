"""run.c's byte-pair encoding: merge the adjacent pair of best score, the leftmost of several, until none is a token."""

import heapq
from collections.abc import Mapping, Sequence

WORST_SCORE = -1e10  # run.c merges only above this


def merge(ids: Sequence[int], vocab: Sequence[bytes], index: Mapping[bytes, int], scores: Sequence[float]) -> list[int]:
    """Merge token ids greedily, in O(n log n).

    index: the inverse of `vocab`.
    scores: a score for each token.
    """
    tokens: list[int | None] = list(ids)
    after = list(range(1, len(tokens) + 1))  # the next living position; len(tokens) is the end
    before = list(range(-1, len(tokens) - 1))
    candidates: list[tuple[float, int, int, int, int]] = []

    def offer(left: int) -> None:
        """Queue the pair that starts at `left`, if it merges into a token."""
        if left < 0 or after[left] >= len(tokens):
            return
        a, b = tokens[left], tokens[after[left]]
        assert a is not None and b is not None
        merged = index.get(vocab[a] + vocab[b])
        if merged is not None and scores[merged] > WORST_SCORE:
            heapq.heappush(candidates, (-scores[merged], left, merged, a, b))

    for left in range(len(tokens) - 1):
        offer(left)
    while candidates:
        _, left, merged, a, b = heapq.heappop(candidates)
        right = after[left]
        if tokens[left] != a or right >= len(tokens) or tokens[right] != b:
            continue  # one of the two has been merged since
        tokens[left], tokens[right] = merged, None
        after[left] = after[right]
        if after[left] < len(tokens):
            before[after[left]] = left
        offer(before[left])
        offer(left)
    return [token for token in tokens if token is not None]
