"""Which checkpoints are kept, and from which a changed process goes on."""

from __future__ import annotations

from typing import Any, cast

from devserver.warm.chain import Chain, Checkpoint
from devserver.watching.answers import Entry, Question

NOBODY = cast("Any", None)


def chain(*checkpoints: tuple[int, float]) -> Chain:
    """One with checkpoints at these ticks, after so many seconds."""
    made = Chain()
    for seq, seconds in checkpoints:
        made.add(Checkpoint(NOBODY, seq, seconds, {}))
    return made


def dispensable(made: Chain, seq: int, sizes: list[int] | None = None) -> int | None:
    """The number of the one that is forgotten first."""
    every = list(made)
    least = made.dispensable(seq, None if sizes is None else dict(zip(every, sizes, strict=True)))
    return None if least is None else every.index(least)


def test_the_first_is_never_forgotten() -> None:
    assert dispensable(chain(), 5) is None
    assert dispensable(chain((0, 0.0)), 5) is None
    assert dispensable(chain((0, 0.0), (1, 0.001)), 500) == 1


def test_one_that_saves_little_is_forgotten() -> None:
    assert dispensable(chain((0, 0.0), (10, 1.0), (20, 1.1), (30, 2.0)), 40) == 2


def test_one_that_stands_before_much_that_may_be_edited_is_kept() -> None:
    # Behind the second is a framework and one module of the user's; behind the third are all others.
    assert dispensable(chain((0, 0.0), (2, 0.5), (3, 0.7)), 100) == 1


def test_one_that_was_edited_behind_is_kept() -> None:
    made = chain((0, 0.0), (10, 1.0), (90, 1.2))
    assert dispensable(made, 91) == 2
    list(made)[2].likely = 4
    assert dispensable(made, 91) == 1


def test_what_it_occupies_counts() -> None:
    made = chain((0, 0.0), (10, 1.0), (20, 1.9))
    assert dispensable(made, 30) == 2
    assert dispensable(made, 30, [1, 100, 10]) == 1


def test_going_on_from_the_latest_that_has_not_read_what_changed() -> None:
    made = chain((0, 0.0), (10, 1.0), (20, 2.0))
    changed = Entry(Question.FILE, "/shop/views.py", "", seq=15)
    assert [each.seq for each in made.candidates([changed])] == [10, 0]
    list(made)[2].unfinished["/shop/views.py"] = 3  # it can tell by itself
    assert [each.seq for each in made.candidates([changed])] == [20, 10, 0]
