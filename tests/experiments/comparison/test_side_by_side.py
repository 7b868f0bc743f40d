"""What benchmarks share."""

from experiments.comparison import side_by_side


def test_candidates_take_turns_after_one_round_to_warm_up():
    order = []
    results = side_by_side.take_turns({name: lambda name=name: order.append(name) or len(order) for name in "ab"}, 2)
    assert "".join(order) == "ababab"
    assert results == {"a": [3, 5], "b": [4, 6]}


def test_compare_takes_ratios_round_by_round():
    assert side_by_side.compare([2.0, 6.0, 10.0], [1.0, 2.0, 2.0]) == (3.0, 2.0)
