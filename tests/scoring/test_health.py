"""Which regions are given up, and when: those that end or stop whatever process tries them, and no others."""

import pytest

from mitoray.scoring.health import MOST_CRASHES, STALLED_S, Health, Orders, Stall


class Clock:
    def __init__(self):
        self.s = 100.0

    def __call__(self):
        return self.s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    health = Health(clock)
    health.begin_actor("a")
    return health


def test_a_region_that_ended_three_processes_is_given_up(health):
    for crash in range(MOST_CRASHES):
        assert health.orders("a", ["s/1", "s/2"]).given_up == {}
        health.take("a", "s/1")
        health.begin_actor("a")
        assert health.orders("a", ["s/1"]).alone, crash
    orders = health.orders("a", ["s/1", "s/2"])
    assert orders.given_up.keys() == {"s/1"}
    assert "RegionEndsProcess" in orders.given_up["s/1"]
    assert "run again" in orders.given_up["s/1"]


def test_a_process_that_ends_without_a_word_makes_its_block_suspect_until_the_region_is_known(health):
    health.orders("a", ["s/1", "s/2"])
    health.begin_actor("a")
    assert not health.orders("a", ["s/3"]).alone
    for _ in range(MOST_CRASHES - 1):
        orders = health.orders("a", ["s/1", "s/2"])
        assert orders.alone
        assert orders.given_up == {}
        health.take("a", "s/1")
        health.take("a", "s/2")
        health.begin_actor("a")
    assert health.orders("a", ["s/1", "s/2"]).given_up.keys() == {"s/2"}


def test_a_block_that_never_gets_handed_over_is_given_up(health):
    for _ in range(MOST_CRASHES):
        assert health.orders("a", ["s/1", "s/2"]).given_up == {}
        for region_id in ("s/1", "s/2", None):
            health.take("a", region_id)
        health.begin_actor("a")
    assert health.orders("a", ["s/1", "s/2", "s/3"]).given_up.keys() == {"s/1", "s/2"}


def test_a_process_that_ends_later_does_not_accuse_a_block_handed_over(health):
    for _ in range(MOST_CRASHES):
        health.orders("a", ["s/1"])
        health.take("a", "s/1")
        health.take("a", None)
        health.orders("a", ["s/2"])
        health.begin_actor("a")
    assert health.orders("a", ["s/1"]) == Orders({}, alone=False, stop=False)


def test_a_process_that_ends_between_regions_accuses_none(health):
    for _ in range(MOST_CRASHES):
        health.take("a", "s/1")
        health.take("a", None)
        health.begin_actor("a")
    assert health.orders("a", ["s/1"]).given_up == {}
    assert not health.orders("a", ["s/1"]).alone


def test_an_actor_that_the_watch_forgot_when_it_was_restarted_is_known_again(health):
    health.take("b", "s/1")
    assert health.in_hand() == 1
    health.begin_actor("b")
    assert health.orders("b", ["s/1"]).alone


def test_a_region_that_lasts_too_long_is_told_once_and_given_up(health, clock):
    health.orders("a", ["s/1", "s/2"])
    health.take("a", "s/1")
    clock.s += 59
    assert health.stuck(60) == {}
    clock.s += 2
    assert health.stuck(60) == {"a": "s/1"}
    assert health.stuck(60) == {}
    health.begin_actor("a")
    orders = health.orders("a", ["s/1", "s/2"])
    assert orders.given_up.keys() == {"s/1"}
    assert "RegionTimedOut" in orders.given_up["s/1"]
    assert not orders.alone


def test_silence_is_noticed_and_ends_with_a_sign_of_life(health, clock):
    clock.s += 61
    assert health.silent(60) == ["a"]
    health.heard("a")
    assert health.silent(60) == []


def test_the_request_to_stop_reaches_every_actor(health):
    assert not health.heard("a")
    health.stop()
    assert health.heard("a")
    assert health.orders("a", []).stop
    assert health.heard("one that nobody knows")


def test_a_run_that_waits_for_something_is_told_of_again_and_again(clock):
    stall = Stall(clock)

    def after(seconds, left=3, **snapshot):
        clock.s += seconds
        return stall.lasts({"n_actors": 1, "n_in_hand": 0, "n_regions": 0, **snapshot}, left)

    assert not after(2 * STALLED_S, n_actors=0)  # none has begun: models are loaded, nodes come up
    assert not after(STALLED_S - 1)
    assert after(1)
    assert not after(STALLED_S - 1)
    assert after(1)
    assert not after(STALLED_S, n_in_hand=1)
    assert not after(STALLED_S - 1)
    assert not after(STALLED_S, n_regions=1)
    assert not after(2 * STALLED_S, left=0)


def test_regions_in_hand_are_counted(health):
    assert health.in_hand() == 0
    health.take("a", "r1")
    assert health.in_hand() == 1
    health.take("a", None)
    assert health.in_hand() == 0
