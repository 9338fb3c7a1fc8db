"""Turns of live sessions: the newest camera wins, stills give way, jobs keep their share; with a clock of its own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sphinx_nvs.engine.scheduler.live_turns import LiveTurn, LiveTurns

REST_S = 0.15


def frame(session, number, device=0):
    return LiveTurn(device=device, session=session, number=number, is_still=False)


def still(session, number, device=0):
    return LiveTurn(device=device, session=session, number=number, is_still=True)


def turns(*sessions, share=0.5):
    """Turns of open sessions, each of a key of its own."""
    made = LiveTurns(share, REST_S)
    for session in sessions:
        made.open(session, f"key of {session}")
    return made


def test_the_newest_camera_is_drawn_and_those_before_it_never_are():
    live = turns("a")
    assert live.next(0, [0], []) == []
    for _ in range(3):
        live.move(0, "a")
    assert live.next(0, [0], []) == [frame("a", 3)]
    live.move(0.01, "a")
    live.move(0.02, "a")
    assert live.next(0.02, [0], []) == [], "one at a time"
    live.done(0.05, frame("a", 3), 0.05, is_made=True)
    assert live.next(0.05, [0], []) == [frame("a", 5)]


def test_a_still_follows_once_the_camera_rests():
    live = turns("a")
    live.move(1.0, "a")
    live.next(1.0, [0], [])
    live.done(1.02, frame("a", 1), 0.02, is_made=True)
    assert live.next(1.05, [0], []) == []
    assert live.wakes_at(1.05, [0]) == pytest.approx(1.0 + REST_S)
    assert live.next(1.0 + REST_S, [0], []) == [still("a", 1)]
    live.done(2.0, still("a", 1), 0.8, is_made=True)
    assert live.next(9.0, [0], []) == []
    assert live.wakes_at(9.0, [0]) is None


def test_a_still_gives_way_to_a_move_and_is_made_later():
    live = turns("a", "b")
    live.move(0, "a")
    live.next(0, [0], [])
    live.done(0, frame("a", 1), 0.02, is_made=True)
    assert live.next(1, [0], []) == [still("a", 1)]
    live.move(1.1, "b")
    assert live.next(1.1, [0], []) == [frame("b", 1)], "sent after the still, which ends early"
    assert live.next(1.1, [0], []) == []
    live.done(1.15, still("a", 1), 0.15, is_made=False)
    live.done(1.2, frame("b", 1), 0.02, is_made=True)
    assert live.next(1.2, [0], []) == [still("a", 1)]


def test_beside_a_job_a_device_draws_for_its_share_only():
    live = turns("a", share=0.25)
    live.move(0, "a")
    live.next(0, [0], [0])
    live.done(0.1, frame("a", 1), 0.1, is_made=True)
    live.move(0.1, "a")
    assert live.next(0.3, [0], [0]) == []
    assert live.wakes_at(0.3, [0]) == pytest.approx(0.4)
    assert live.next(0.3, [0], []) == [frame("a", 2)], "without a job there is no pause"
    live.done(0.4, frame("a", 2), 0.1, is_made=True)
    live.move(0.4, "a")
    assert live.next(0.71, [0], [0]) == [frame("a", 3)]


def test_keys_are_served_alike_however_many_sessions_they_have():
    live = LiveTurns(0.5, REST_S)
    for session, key in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b", "b")):
        live.open(session, key)
    counts = dict.fromkeys(("a1", "a2", "a3", "b"), 0)
    for step in range(120):
        for session in counts:
            live.move(step, session)
        (turn,) = live.next(step, [0], [])
        counts[turn.session] += 1
        live.done(step + 0.5, turn, 0.5, is_made=True)
    assert counts == {"a1": 20, "a2": 20, "a3": 20, "b": 60}


def test_sessions_spread_over_devices_and_stay_there():
    live = turns("a", "b", "c")
    for session in "abc":
        live.move(0, session)
    first = {turn.session: turn.device for turn in live.next(0, [0, 1], [])}
    assert sorted(first.values()) == [0, 1]
    live.lost(first["a"])
    other = 1 - first["a"]
    live.move(1, "a")
    live.done(1, frame("b", 1, other), 0.1, is_made=True)
    assert {turn.device for turn in live.next(1, [other], [])} == {other}


def test_what_was_lost_with_its_device_is_drawn_again():
    live = turns("a")
    live.move(0, "a")
    live.next(0, [0], [])
    live.lost(0)
    live.done(0.1, frame("a", 1), 0.1, is_made=True)
    assert live.next(1, [0], []) == [frame("a", 1)]


def test_a_closed_session_is_drawn_no_more_and_its_key_starts_anew():
    live = turns("a", "b")
    live.move(0, "a")
    live.next(0, [0], [])
    live.close("a")
    live.done(5, frame("a", 1), 5.0, is_made=True)
    assert live.next(5, [0], []) == []
    live.open("again", "key of a")
    live.open("more", "key of a")
    for session in ("b", "again", "more"):
        live.move(6, session)
    assert live.next(6, [0], []) == [frame("b", 1)]
    live.close("again")
    live.done(7, frame("b", 1), 1.0, is_made=True)
    assert live.next(7, [0], []) == [frame("more", 1)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcxyz"), st.floats(0.001, 0.4)), min_size=1, max_size=60))
def test_every_camera_that_rests_is_drawn_and_refined(steps):
    live = turns("a", "b", "c")
    now, running, seen = 0.0, [], {"a": [], "b": [], "c": []}

    def work():
        running.extend(live.next(now, [0], []))
        assert sum(not turn.is_still for turn in running) <= 1
        assert len(running) <= 2

    def end():
        turn = running.pop(0)
        gave_way = turn.is_still and bool(running)
        live.done(now, turn, 0.01, is_made=not gave_way)
        if not gave_way:
            seen[turn.session].append((turn.number, turn.is_still))

    newest = dict.fromkeys("abc", 0)
    for name, seconds in steps:
        now += seconds
        if name in "abc":
            newest[name] = live.move(now, name)
        elif running:
            end()
        work()
    for _ in range(12):
        now += 1.0
        work()
        while running:
            end()
    for name, number in newest.items():
        assert [entry[0] for entry in seen[name]] == sorted(entry[0] for entry in seen[name])
        if number:
            assert seen[name][-1] == (number, True)
            assert (number, False) in seen[name]
