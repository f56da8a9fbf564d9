"""The process that all scoring actors tell: what it knows of them when it is started anew among them."""

from mitoray.scoring.actors import Watch


def test_after_a_restart_an_actor_that_is_stuck_can_still_be_named_with_its_handle():
    watch = Watch()
    assert not watch.heard("a", "handle of a")  # its sign of life, since `begin` was told to the one before
    watch.take("a", "s/1")
    assert watch.snapshot(60.0)["n_actors"] == 1
    assert watch.stuck(3600) == []
    assert watch.stuck(-1) == [("s/1", "handle of a")]
    assert watch.orders("a", ["s/1", "s/2"]).given_up.keys() == {"s/1"}


def test_an_actor_that_is_heard_of_again_and_again_is_one():
    watch = Watch()
    watch.begin("a", "handle of a")
    watch.heard("a", "handle of a")
    watch.begin("a", "handle of a")
    watch.begin("b", "handle of b")
    assert watch.snapshot(60.0)["n_actors"] == 2
