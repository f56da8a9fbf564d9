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
    place = Resources(cpus_per_actor=per_actor).placed(cpus, gpus)
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
