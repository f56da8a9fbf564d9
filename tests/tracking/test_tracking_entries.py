import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_param, _validate_tag

from mitoray.tracking.entries import MAX_PARAMETER, metric_entries, parameter_entries, tag_entries


@dataclass(frozen=True)
class Optimiser:
    learning_rate: float = 4e-3
    storage_options: dict = field(default_factory=lambda: {"key": "AKIA", "secret": "hush"})


def test_nested_settings_get_dotted_names():
    found = parameter_entries({"mpp": 0.25, "optimiser": Optimiser(), "augment": {"hed": {"sigma": 0.1}}, "none": None})
    assert found == {"mpp": "0.25", "optimiser.learning_rate": "0.004", "augment.hed.sigma": "0.1", "none": "None"}


def test_secrets_are_never_recorded():
    given = {
        "storage_options": {"key": "hush"},
        "deep": [{"storage_options": {"key": "hush"}, "uri": "s3://user:hush@bucket/slide.svs?token=hush"}],
        "model": "https://me:hush@host/model?X-Amz-Signature=hush",
        "aws_secret_access_key": "hush",
        "password": "hush",
    }
    found = parameter_entries(given)
    assert "hush" not in json.dumps(found)
    assert found["model"] == "https://host/model"
    assert json.loads(found["deep"]) == [{"uri": "s3://bucket/slide.svs"}]
    assert tag_entries({"token": "hush", "source": "s3://k:hush@bucket/x"}) == {"source": "s3://bucket/x"}


def test_long_values_are_cut_to_what_mlflow_takes():
    (value,) = parameter_entries({"slides": ["slide"] * 2000}).values()
    assert len(value) == MAX_PARAMETER
    assert value.endswith("…")


def test_metrics_that_a_database_cannot_hold_are_left_out():
    assert metric_entries({"a": None, "b": float("nan"), "c": float("inf"), "f1/breast, human": 0.5}) == {
        "f1/breast- human": 0.5
    }


def test_names_that_would_become_one_stay_apart():
    found = metric_entries({"f1/a+b": 0.1, "f1/a*b": 0.2, "f1/c": 0.3})
    assert sorted(found.values()) == [0.1, 0.2, 0.3]
    assert found["f1/c"] == 0.3
    assert metric_entries({"f1/a+b": 0.4, "f1/a*b": 0.5}).keys() == found.keys() - {"f1/c"}


@pytest.mark.parametrize("name", ["f1/", "f1//all", "f1/../all", "/f1", ".", "..", "", " ", "f1/ /x", "ä/…", "x" * 900])
def test_any_name_of_a_domain_is_taken(name):
    (clean,) = metric_entries({name: 1.0})
    _validate_metric_name(clean)


@given(st.dictionaries(st.text(max_size=300), st.floats() | st.text(max_size=8000), max_size=4))
def test_mlflow_takes_all_that_is_made_of_any_text(entries):
    for name, value in parameter_entries(entries).items():
        _validate_param(name, value)
    for name, value in tag_entries(entries).items():
        _validate_tag(name, value)
    for name in metric_entries(dict.fromkeys(entries, 1.0)):
        _validate_metric_name(name)
