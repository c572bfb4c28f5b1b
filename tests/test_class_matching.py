"""Classes of one set found among those of a network that was trained on another."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax import CIFAR10, ImageNet, UsageError
from resflax.data.class_matching import ClassMatching, match_classes, numbers_as_names
from resflax.data.class_names import class_names

ANIMALS = ["ant", "bee", "great white shark", "crab-eater", "éléphant"]


def match(names, known, classes=None, *, named=True):
    return match_classes(
        names, named, known, len(known or ()) if classes is None else classes, "photos"
    )


@settings(deadline=None, max_examples=50)
@given(
    known=st.lists(st.text("abcdefg", min_size=1), min_size=1, max_size=9, unique=True),
    data=st.data(),
)
def test_a_subset_in_any_order_is_found_by_name(known, data):
    names = data.draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
    matching = match(names, known)
    assert matching.by == "name"
    assert [known[number] for number in matching.numbers] == names


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("Bee", 1),
        ("Great_White-Shark", 2),
        ("great  white shark ", 2),
        ("crab eater", 3),
        (unicodedata.normalize("NFD", "Éléphant"), 4),
    ],
)
def test_names_may_differ_in_case_and_in_what_stands_between_words(name, number):
    assert match([name, "ant"], ANIMALS) == ClassMatching((number, 0), "name")


def test_an_exact_name_is_not_ambiguous():
    assert match(["crane"], ["Crane", "crane"]).numbers == (1,)
    with pytest.raises(UsageError, match=r"class CRANE of photos is ambiguous.* 0 and 1 are both"):
        match(["CRANE"], ["Crane", "crane"])
    with pytest.raises(UsageError, match=r"classes crane and Crane, which are both .* class crane"):
        match(["crane", "Crane"], ["ant", "crane"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ant", "zebra"], "photos has the class zebra, which the network does not know; the"),
        (["yak", "bee", "zebra", "gnu"], "class yak and 2 more that the network does not know"),
        (["tench"] * 5, "the network's classes are ant, bee, great white shark, crab-eater, élé"),
    ],
)
def test_a_class_that_the_network_does_not_know_is_refused(names, message):
    with pytest.raises(UsageError, match=message):
        match(names, ANIMALS)


def test_numbers_are_taken_as_they_are_only_for_as_many_classes():
    by_number = ClassMatching((0, 1, 2, 3, 4), "number")
    assert match(numbers_as_names(5), ANIMALS, named=False) == by_number
    assert match(ANIMALS, numbers_as_names(5)) == by_number
    assert match(ANIMALS, None, 5) == by_number
    with pytest.raises(UsageError, match=r"photos have no names, and there are 4 .* network has 5"):
        match(numbers_as_names(4), ANIMALS, named=False)
    with pytest.raises(UsageError, match=r"photos has 5 classes and the network 6, .* --data-dir"):
        match(ANIMALS, None, 6)
    with pytest.raises(
        UsageError, match=r"the class ant and 4 more that the network does not know"
    ):
        match(ANIMALS, numbers_as_names(6))


def test_folders_that_are_named_by_numbers_are_those_classes():
    """ImageNet-V2's folders are 0, 1, 10, 100, ... in alphabetical order."""
    known = [f"n{number:08}" for number in range(120)]
    names = sorted(numbers_as_names(120))
    assert names[2] == "10"
    assert match(names, known) == ClassMatching(tuple(map(int, names)), "number")
    assert match(["7", "10"], numbers_as_names(12)) == ClassMatching((7, 10), "name")


def test_the_names_of_well_known_sets_need_no_set():
    cifar, imagenet = class_names(CIFAR10()), class_names(ImageNet())
    assert cifar is not None
    assert imagenet is not None
    assert (len(cifar), cifar[0], cifar[9]) == (10, "airplane", "truck")
    assert (len(set(imagenet)), imagenet[0], imagenet[999]) == (1000, "n01440764", "n15075141")
    assert imagenet == sorted(imagenet)
