"""Where a guest has been, as the compiler is told."""

from __future__ import annotations

from anyarch.engine.compiler import Request
from anyarch.engine.visits import Visits, visited_map

START, NBYTES = 0x10000, 0x3000


def test_single_places_and_ranges_are_marked_within_the_window() -> None:
    marks = visited_map(
        START,
        NBYTES,
        [START, START + 6, START - 2, START + NBYTES],
        [(START - 8, START + 2), (START + 0x100, START + 0x106), (START + NBYTES - 4, START * 2)],
    )
    assert len(marks) == NBYTES // 2
    found = [START + 2 * index for index, mark in enumerate(marks) if mark]
    middle, end = START + 0x100, START + NBYTES
    assert found == [START, START + 6, middle, middle + 2, middle + 4, end - 4, end - 2]


def test_outside_of_the_window_and_without_knowledge_all_may_be_visited() -> None:
    marks = visited_map(START, NBYTES, [START + 2], [])
    request = Request(START, START, bytes(NBYTES), lambda address, nbytes: b"", visited=marks)
    places = (START - 2, START, START + 2, START + NBYTES)
    assert [request.was_visited(pc) for pc in places] == [True, False, True, True]
    unknown = Request(START, START, bytes(NBYTES), lambda address, nbytes: b"")
    assert unknown.was_visited(START)


def test_pages_are_forgotten() -> None:
    visits = Visits()
    pcs = [START + 0x400 * index for index in range(40)]
    visits.add(pcs)
    assert sorted(visits.within(START, START + 40 * 0x400)) == pcs
    visits.forget(START + 0x1000, START + 0x2000)
    left = [pc for pc in pcs if not START + 0x1000 <= pc < START + 0x2000]
    assert sorted(visits.within(START, START + 40 * 0x400)) == left
    assert sorted(visits.within(START + 0x2000, START + 0x3000)) == left[4:8]
    visits.forget(0, 1 << 40)
    assert not list(visits.within(START, START + 40 * 0x400))
