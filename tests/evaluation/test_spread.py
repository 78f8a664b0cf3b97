"""Which failures are kept: of all families and kinds, whatever the parts in which they are found."""

from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.spread import spread

# Kind of each episode's failure, family by family; -1 where there is none.
families = st.lists(st.lists(st.integers(-1, 4), max_size=20), max_size=5)


def failures_of(drawn: list[list[int]]) -> list[tuple[int, int, int]]:
    numbered = [(family, kind) for family, kinds in enumerate(drawn) for kind in kinds]
    return [(family, kind, episode) for episode, (family, kind) in enumerate(numbered) if kind >= 0]


@settings(max_examples=40)
@given(families, st.integers(0, 9), st.integers(1, 8), st.randoms(use_true_random=False))
def test_parts_hold_what_is_chosen_from_all(drawn, keep, block, random):
    failures = failures_of(drawn)
    found = defaultdict(list)
    for family, kind, episode in failures:
        found[family, episode // block].append((family, kind, episode))
    parts = list(found.values())
    random.shuffle(parts)
    kept = [each for part in parts for each in part if each[2] in spread(part, keep)]
    assert spread(kept, keep) == spread(failures, keep)
    random.shuffle(failures)
    assert spread(failures, keep) == spread(kept, keep)


@settings(max_examples=40)
@given(families, st.integers(0, 12))
def test_families_come_before_kinds(drawn, keep):
    failures = failures_of(drawn)
    about = {episode: (family, kind) for family, kind, episode in failures}
    chosen = spread(failures, keep)
    assert len(chosen) == len(set(chosen)) == min(keep, len(failures))
    there = Counter(family for family, *_ in failures)
    taken = Counter(about[episode][0] for episode in chosen)
    for family, more in ((a, b) for a in there for b in there):
        # No family has two more than another that has some left.
        assert taken[more] - taken[family] <= 1 or taken[family] == there[family]
    for family in there:
        kinds = {kind for other, kind, _ in failures if other == family}
        if len(there) == 1:
            assert {about[episode][1] for episode in chosen} == set(sorted(kinds)[:keep])


def test_an_example():
    # Family 0 fails in one way only, family 1 in three.
    failures = [(0, 0, k) for k in range(5)] + [(1, 0, 5), (1, 0, 6), (1, 3, 7), (1, 2, 8)]
    assert spread(failures, 2) == [0, 8]
    assert spread(failures, 4) == [0, 8, 7, 1]
    assert spread(failures, 6) == [0, 8, 7, 1, 2, 5]
    assert spread(failures, 100)[6:] == [3, 6, 4]
