"""A network is found wherever a checkpoint keeps it, and what was chosen and left out is said.

The network of most tests has three tensors and a classifier.
"""

import pickle

import numpy as np
import pytest

from resflax import UsageError
from resflax.weights.choice import find_weights
from resflax.weights.convert import Names
from resflax.weights.tensor_files import read_content

NAMES = Names(
    "conv1",
    "fc",
    frozenset({"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "fc.weight", "fc.bias"}),
)


def state(seed=0, prefix="", head=True):
    """A state dict with values of its own."""
    random = np.random.default_rng(seed)
    names = sorted(NAMES.tensors if head else NAMES.without_head)
    return {prefix + name: random.normal(size=3).astype(np.float32) for name in names}


def assert_found(root, seed=0, entry=None, place=None):
    """The network of a seed is found, with nothing else."""
    found = find_weights(root, NAMES, entry)
    expected = state(seed, head="fc.weight" in found.arrays)
    arrays = {name: array for name, array in found.arrays.items() if name in NAMES.tensors}
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, name)
    if place is not None:
        assert found.place == place
        assert (f"the weights are those of {place}" in found.lines) == bool(place)
    return found


def refusal(root, entry=None):
    with pytest.raises(UsageError) as error:
        find_weights(root, NAMES, entry)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.",
        "backbone.",
        "encoder.",
        "net.",
        "network.",
        "module.encoder_q.",
        "a.prefix.that.nobody.has.",
    ],
)
@pytest.mark.parametrize("keys", [(), ("state_dict",), ("params",), ("model", "state_dict")])
def test_weights_are_found_under_any_prefix_in_any_entry(prefix, keys):
    root: object = state(prefix=prefix)
    for key in reversed(keys):
        root = {"epoch": 3, key: root}
    found = assert_found(root, place=".".join((*keys, prefix)).strip("."))
    assert any("epoch (int)" in line for line in found.lines) == bool(keys)


def test_tensors_outside_the_prefix_are_named_and_left_out():
    """An averaged model of torch.optim.swa_utils, and a module of Lightning with its loss."""
    averaged = {"n_averaged": np.array(5), **state(prefix="module.")}
    found = assert_found(averaged, place="module")
    assert "tensors beside them are left out: 'n_averaged'" in found.lines
    lightning = {
        "state_dict": state(prefix="model.") | {"criterion.weight": np.ones(10)},
        "hyper_parameters": {"lr": 0.1},
        "pytorch-lightning_version": "2.0",
    }
    found = assert_found(lightning, place="state_dict.model")
    assert "tensors beside them are left out: 'criterion.weight'" in found.lines
    assert any("hyper_parameters (dict), pytorch-lightning_version (str)" in x for x in found.lines)


def test_tensors_under_the_prefix_are_kept_so_that_they_are_refused_if_surplus():
    root = state(prefix="model.") | {"model.layer9.weight": np.ones(3)}
    assert "layer9.weight" in find_weights(root, NAMES).arrays


AVERAGED = ["state_dict_ema", "model_ema", "ema", "ema_state_dict", "swa_model", "averaged"]


@pytest.mark.parametrize("key", AVERAGED)
def test_plain_weights_are_taken_unless_the_averaged_ones_are_named(key):
    root = {"state_dict": state(1, "module."), key: state(2, "module.")}
    found = assert_found(root, 1, place="state_dict.module")
    assert f"it also holds averaged weights: take them with --entry {key}" in found.lines
    assert_found(root, 2, key, place=f"{key}.module")
    assert_found(dict(reversed(root.items())), 1)
    assert_found({key: state(2)}, 2, place=key)


def test_averaged_weights_in_the_same_state_dict():
    root = state(1, "model.") | state(2, "model_ema.module.") | {"loss.weight": np.ones(1)}
    found = assert_found(root, 1, place="model")
    assert "tensors beside them are left out: 'loss.weight'" in found.lines
    assert_found(root, 2, "model_ema")
    inside = state(1) | state(2, "ema.")
    assert assert_found(inside, 1).arrays.keys() == NAMES.tensors
    assert_found(inside, 2, "ema")


@pytest.mark.parametrize(
    ("root", "one", "other"),
    [
        ({"student": state(1), "teacher": state(2)}, "student", "teacher"),
        (
            {"student": state(1, "module.backbone."), "teacher": state(2, "backbone.")},
            "student",
            "teacher",
        ),
        (
            {"state_dict": state(1, "module.encoder_q.") | state(2, "module.encoder_k.")},
            "encoder_q",
            "encoder_k",
        ),
        (state(1, "online.net.") | state(2, "target.net."), "online", "target"),
    ],
)
def test_of_several_networks_one_must_be_chosen(root, one, other):
    message = refusal(root)
    assert f"--entry {one} or --entry {other}" in message
    assert_found(root, 1, one)
    assert_found(root, 2, other)


def test_an_entry_is_any_part_of_the_place():
    root = {"model": {"state_dict": state(1, "net.")}, "model_ema": {"state_dict": state(2)}}
    for entry in ("model", "model.state_dict", "model.state_dict.net", "net"):
        assert_found(root, 1, entry)
    for entry in ("model_ema", "model_ema.state_dict"):
        assert_found(root, 2, entry)
    assert_found(root, 1, "state_dict")
    for wrong in ("weights", "layer1"):
        message = refusal(root, wrong)
        assert f"--entry {wrong} leads to no network with these names" in message
        assert "those it holds are model.state_dict.net, model_ema.state_dict" in message
    assert "leave the option out" in refusal(state(), "weights")


def test_the_same_tensors_under_two_names_are_one_network():
    weights = state()
    assert_found({"model": weights, "state_dict": dict(weights)}, place="model")
    copied = {name: array.copy() for name, array in weights.items()}
    assert "--entry model or --entry state_dict" in refusal(
        {"model": weights, "state_dict": copied}
    )


def test_a_network_without_its_classifier_is_found():
    found = assert_found({"state_dict": state(head=False, prefix="encoder.")})
    assert "fc.weight" not in found.arrays
    projection = state(head=False) | {"fc.0.weight": np.ones(1), "fc.2.weight": np.ones(1)}
    assert "fc.0.weight" in assert_found(projection).arrays


def test_other_networks_are_named_by_what_they_have():
    missing = state(prefix="module.")
    del missing["module.layer1.0.conv1.weight"]
    assert "layer1.0.conv1.weight" not in find_weights(missing, NAMES).arrays  # from_torch names it
    keras = {"conv1/kernel:0": np.ones(1), "conv1/bias:0": np.ones(1)}
    assert "it has 'conv1/kernel:0', 'conv1/bias:0', and the network needs conv1.weight" in refusal(
        keras
    )
    assert "Keras" in refusal(keras)
    transformers = {"resnet.embedder.embedder.convolution.weight": np.ones(1)}
    assert "transformers has such names" in refusal(transformers)


def test_an_entry_with_another_network_is_named_by_what_it_lacks():
    """`from_torch` then refuses it; the whole network beside it is not taken instead."""
    part = {name: array for name, array in state(1).items() if name != "bn1.weight"}
    found = find_weights({"small": part, "model": state(2)}, NAMES, "small")
    assert found.arrays.keys() == NAMES.tensors - {"bn1.weight"}
    assert find_weights({"small": part, "model": state(2)}, NAMES).place == "model"


def test_names_cannot_break_a_line(tmp_path):
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"a\nb\x1b[1m": state(), b"c\n": 3, (1, (2, 3)): 4}))
    found = find_weights(read_content(path).root, NAMES)
    assert found.place == "a?b?[1m"
    assert all(line.isprintable() for line in found.lines)


def test_weights_that_become_float32_are_named():
    halves = {name: array.astype(np.float16) for name, array in state().items()}
    assert "values of float16 become float32" in find_weights(halves, NAMES).lines
    counted = state() | {"bn1.num_batches_tracked": np.array(3)}
    assert find_weights(counted, NAMES).lines == ()
