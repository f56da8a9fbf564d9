import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitoray.errors import BadOption
from mitoray.scoring.config import Identity, Method, Resources


@pytest.mark.parametrize(
    "settings",
    [{"threshold": 0}, {"threshold": 1.2}, {"region_um": 1}, {"hotspot_mm2": -2}, {"nms_radius_um": 90}],
)
def test_a_setting_out_of_range_is_refused_by_name(settings):
    with pytest.raises(BadOption, match=next(iter(settings))):
        Method(**settings)


def test_candidates_are_never_kept_more_strictly_than_they_count():
    with pytest.raises(BadOption, match=r"candidate_threshold \(0.6\) must not be above threshold \(0.5\)"):
        Method(threshold=0.5, candidate_threshold=0.6)


def test_a_domain_takes_its_own_threshold_unless_one_is_given():
    by_domain = {"breast": 0.3}
    assert Method().threshold_for("breast", 0.5, by_domain) == 0.3
    assert Method().threshold_for("lung", 0.5, by_domain) == 0.5
    assert Method().threshold_for(None, 0.5, by_domain) == 0.5
    assert Method(threshold=0.7).threshold_for("breast", 0.5, by_domain) == 0.7
    assert Method().lowest_threshold(0.5, by_domain) == 0.3
    assert Method(candidate_threshold=0.1).lowest_threshold(0.5, by_domain) == 0.1


@given(cpus=st.integers(2, 256), gpus=st.integers(0, 16), per_actor=st.none() | st.integers(1, 4))
def test_actors_leave_a_whole_cpu_to_the_tasks_around_them(cpus, gpus, per_actor):
    place = Resources(cpus_per_actor=per_actor).placed([(cpus, gpus)])
    assert place.num_actors >= 1
    assert place.num_actors * place.num_cpus <= max(cpus - 1.2, 0.1 * place.num_actors) + 0.005 * place.num_actors
    assert place.num_actors * place.num_gpus <= gpus


def test_identities_name_every_setting_in_which_they_differ():
    one = Identity("mitoray-s", "aa", "bb", 3, Method(threshold=0.5))
    other = Identity("copy/of/it", "aa", "cc", 4, Method(threshold=0.6))
    assert one.difference(one.record()) == []
    assert other.difference(one.record()) == [
        "manifest_digest: was bb, is cc",
        "n_slides: was 3, is 4",
        "method.threshold: was 0.5, is 0.6",
    ]


def test_a_run_that_decoded_tiles_whole_is_not_gone_on_with_reduced_ones():
    now, whole = (Identity("m", "aa", "bb", 3, Method(reduced_decode=reduced)) for reduced in (True, False))
    earlier = now.record()
    del earlier["method"]["reduced_decode"]
    assert now.difference(earlier) == ["method.reduced_decode: was False, is True"]
    assert whole.difference(earlier) == []


@pytest.mark.parametrize(
    ("nodes", "reader", "why"),
    [
        ([(16, 0), (16, 0)], "inline", "no GPU"),
        ([(32, 2), (64, 0)], "inline", "16 CPUs per GPU are enough"),
        ([(8, 4)], "inline", "no node without GPUs"),
        ([(8, 4), (8, 4), (32, 0)], "staged", "2 CPUs per GPU are few, and 32 CPUs on nodes without"),
    ],
)
def test_where_slides_are_read_follows_from_the_nodes(nodes, reader, why):
    place = Resources().placed(nodes)
    assert place.reader == reader
    assert why in place.why
    assert Resources(reader="staged").placed(nodes).reader == "staged"


def test_beside_a_gpu_as_many_threads_read_as_cpus_are_there_for_it():
    assert Resources(num_gpus=1).placed([(16, 2)]).read_threads == 8
    assert Resources(num_gpus=1).placed([(128, 2)]).read_threads == 16
    assert Resources().placed([(16, 0)]).read_threads == 1
    assert Resources(read_threads=3).placed([(16, 2)]).read_threads == 3


@pytest.mark.parametrize(("nodes", "actors"), [([(16, 1)], 8), ([(64, 1)], 8), ([(8, 2)], 4), ([(1, 1)], 1)])
def test_actors_of_two_cpus_share_a_gpu(nodes, actors):
    place = Resources().placed(nodes)
    assert place.num_actors == actors
    assert place.num_actors * place.num_gpus <= sum(gpus for _, gpus in nodes)
    assert place.num_actors * place.read_threads >= min(16, nodes[0][0])
