"""Which failures of many are kept as recordings: of as many families as there are, then of as many kinds."""

from collections import Counter, defaultdict
from collections.abc import Iterable


def spread(failures: Iterable[tuple[int, int, int]], keep: int) -> list[int]:
    """Choose failures, one after the other: of a family of which the fewest have been chosen, among these of a kind of
    which the fewest have been, and then the first by family, kind and episode.

    Whoever sees only some of the failures keeps `keep` of them by this rule, and what is chosen from all that was kept
    is what would have been chosen from all failures: within a family the n-th failure of a kind belongs to round n,
    and choices go through the rounds in order. What is chosen from all has fewer than `keep` before it in the rounds
    of its family, and no more among some.

    Args:
        failures: number of the family, of the kind and of the episode, of each, in any order.
        keep: how many to choose at most.

    Returns:
        the episodes, in the order in which they were chosen.
    """
    waiting = defaultdict(list)
    for family, kind, episode in sorted(failures, reverse=True):
        waiting[family, kind].append(episode)
    of_family, of_kind = Counter(), Counter()
    chosen = []
    while waiting and len(chosen) < keep:
        family, kind = min(waiting, key=lambda group: (of_family[group[0]], of_kind[group[1]], *group))
        chosen.append(waiting[family, kind].pop())
        of_family[family] += 1
        of_kind[kind] += 1
        if not waiting[family, kind]:
            del waiting[family, kind]
    return chosen
