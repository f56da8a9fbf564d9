import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mitoray.errors import BadLabels
from mitoray.evaluation.subtypes import BALANCED_ACCURACY, ROC_AUC, subtype_quality


@pytest.fixture
def figures():
    rng = np.random.default_rng(0)
    is_atypical = rng.random(600) < 0.25
    probability = np.clip(0.4 + 0.2 * is_atypical + rng.normal(0, 0.2, 600), 0, 1)
    slides = [f"slide {i // 20}" for i in range(600)]
    return probability, is_atypical, slides, ["a" if i < 300 else "b" for i in range(600)]


def test_balanced_accuracy_is_the_mean_of_both_recalls_and_the_area_that_of_scikit_learn(figures):
    probability, is_atypical, *_ = figures
    quality = subtype_quality(*figures, repeats=50)
    called = probability >= 0.5
    recalls = called[is_atypical].mean(), (~called)[~is_atypical].mean()
    assert quality[BALANCED_ACCURACY].value == pytest.approx(np.mean(recalls))
    assert quality[ROC_AUC].value == pytest.approx(roc_auc_score(is_atypical, probability))
    assert quality[ROC_AUC].by_group["a"] == pytest.approx(roc_auc_score(is_atypical[:300], probability[:300]))


def test_intervals_hold_the_value_and_widen_where_slides_differ(figures):
    probability, is_atypical, slides, groups = figures
    alike = subtype_quality(*figures)[ROC_AUC]
    assert alike.low < alike.value < alike.high
    offset = np.random.default_rng(1).choice([0, 0.4], 30)[np.arange(600) // 20]
    differing = subtype_quality(probability + np.where(is_atypical, offset, -offset), is_atypical, slides, groups)
    one_each = subtype_quality(
        probability + np.where(is_atypical, offset, -offset), is_atypical, list(map(str, range(600))), groups
    )
    assert differing[ROC_AUC].high - differing[ROC_AUC].low > one_each[ROC_AUC].high - one_each[ROC_AUC].low


def test_a_group_of_one_subtype_is_left_out_and_figures_of_one_subtype_are_an_error(figures):
    probability, is_atypical, slides, groups = figures
    groups = [group if not atypical else "b" for group, atypical in zip(groups, is_atypical, strict=True)]
    assert set(subtype_quality(probability, is_atypical, slides, groups, repeats=5)[ROC_AUC].by_group) == {"b"}
    with pytest.raises(BadLabels, match="one subtype"):
        subtype_quality(probability, np.zeros(600, bool), slides, groups)
