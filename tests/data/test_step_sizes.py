import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from adakd_jax.data.step_sizes import size_for, step_sizes


def held(sizes, needs):
    return sum(size_for(sizes, need) for need in needs)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 400))
def test_no_other_sizes_pad_less_and_each_is_worth_its_compilation(needs, times):
    found = step_sizes(np.array(needs * times))
    largest = max(needs)
    assert found == tuple(sorted(set(found))) and found[-1] == largest and len(found) <= 3
    least = [
        times * min(held((*some, largest), needs) for some in _choices(needs, count))
        for count in range(3)
    ]
    assert times * held(found, needs) == least[len(found) - 1]
    for count in range(1, len(found)):
        assert least[count - 1] - least[count] >= 50 * largest
    if len(found) < min(3, len(set(needs))):
        assert least[len(found) - 1] - least[len(found)] < 50 * largest


def _choices(needs, count):
    """Of fewer values, all that there are."""
    below = sorted(set(needs) - {max(needs)})
    return itertools.combinations(below, min(count, len(below)))


def test_a_need_beyond_all_sizes_has_none():
    assert size_for((2, 5), 5) == 5 and size_for((2, 5), 6) is None
