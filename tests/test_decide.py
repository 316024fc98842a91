import numpy as np
import pytest

from decide import decide, thresholds_of


def test_multiclass_decides_for_the_highest_score_and_the_first_of_equals():
    decided = decide(np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [0, 0, 0]]), "multiclass")
    assert decided.dtype == np.uint8
    assert decided.tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]


def test_multilabel_decides_at_or_above_the_threshold_of_each_class():
    scores = np.array([[0.5, 0.49, 0.9], [0.1, 0.2, 0.3]], dtype=np.float32)
    assert decide(scores, "multilabel").tolist() == [[1, 0, 1], [0, 0, 0]]
    assert decide(scores, "multilabel", 0.25).tolist() == [[1, 1, 1], [0, 0, 1]]
    assert decide(scores, "multilabel", [0.1, 0.3, 0.95]).tolist() == [[1, 1, 0], [1, 0, 0]]


def test_deciding_over_no_rows_gives_no_rows():
    for task in ("multiclass", "multilabel"):
        assert decide(np.zeros((0, 3)), task).shape == (0, 3)


@pytest.mark.parametrize(
    ("scores", "task", "thresholds", "words"),
    [
        (np.zeros((2, 3)), "binary", None, "task 'binary': must be one of multiclass, multilabel"),
        (np.zeros(3), "multilabel", None, r"scores \(3,\)"),
        (np.zeros((3, 0)), "multiclass", None, r"scores \(3, 0\)"),
        (np.array([[0.1], [np.nan]]), "multilabel", None, "NaN or infinity in 1 of 2 rows, first row 1"),
        (np.array([[0.1], [-np.inf]]), "multiclass", None, "first row 1"),
        (np.zeros((2, 3)), "multiclass", 0.5, "thresholds: multiclass"),
        (np.zeros((2, 3)), "multilabel", [0.5, 0.5], "thresholds .* one number or 3"),
        (np.zeros((2, 3)), "multilabel", [0.5, 0.5, np.nan], "thresholds"),
    ],
)
def test_what_cannot_be_decided_is_an_error(scores, task, thresholds, words):
    with pytest.raises(ValueError, match=words):
        decide(scores, task, thresholds)


def test_thresholds_are_one_for_each_class_and_none_where_the_highest_score_decides():
    assert thresholds_of("multilabel", 3) == (0.5, 0.5, 0.5)
    assert thresholds_of("multilabel", 2, [0.25, 0.75]) == (0.25, 0.75)
    assert thresholds_of("multiclass", 3) is None
