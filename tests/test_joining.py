"""Classes of one dataset in the words of another."""

import pytest

from joining import join
from sources import SOURCES, Target, dx_target


@pytest.mark.parametrize(
    ("theirs", "classes", "ours"),
    [
        ("AFIB", ("AF", "NSR"), "AF"),  # PTB-XL and the challenges, by the same meaning
        ("164889003", ("AFIB", "SR"), "AFIB"),  # a SNOMED CT code
        ("SR", ("N", "A", "O", "~"), "N"),
        ("AFIB", ("N", "A", "O", "~"), "A"),
        ("CLBBB", ("CD", "MI", "NORM"), "CD"),  # a diagnosis and its superclass
        ("CD", ("CLBBB", "MI"), ""),  # not the other way round
        ("AF", ("AF", "AFIB"), "AF"),  # the same name is the same class
        ("426783006", ("SR", "NSR"), ""),  # two of the run's
        ("RBBB", ("CRBBB|RBBB", "NSR"), "CRBBB|RBBB"),  # classes that a challenge counts as one
        ("banana", ("AF",), ""),
    ],
)
def test_a_class_is_found_by_name_code_or_meaning(theirs, classes, ours):
    joined = join(Target((theirs,)), classes, "multilabel")
    assert joined.target.of == {theirs: ours} and joined.target.classes == classes
    assert joined.shared == ((ours,) if ours else ()) and joined.lacking == (() if ours else (theirs,))


def test_labels_are_translated_through_the_classes_that_the_dataset_gives_them():
    target = dx_target("2020")
    joined = join(target, ("AFIB", "SR"), "multilabel")
    assert joined.target.of["164889003"] == "AFIB" and joined.target.of["426783006"] == "SR"
    assert joined.target.of.keys() == target.of.keys() and joined.target.without == "kept"
    assert "CRBBB|RBBB" in joined.lacking


def test_one_of_several_classes_needs_one():
    target = SOURCES["ptbxl"].targets["rhythm"]
    assert join(target, ("N", "A", "O", "~"), "multiclass").target.without == target.without
