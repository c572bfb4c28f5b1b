"""Declarations refuse what is wrong, in one line that says what is right."""

import array
import dataclasses
import json
import math
import signal
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from declared_experiments import COMPLETE, experiment

from resflax import (
    CIFAR10,
    CIFAR100,
    LAMB,
    LARS,
    SGD,
    TFDS,
    AdamW,
    Augmentation,
    Cosine,
    DenseNet,
    Digits,
    Experiment,
    Polynomial,
    ResNet,
    StepDecay,
    UsageError,
)
from resflax.declarations.checks import as_python
from resflax.experiment import from_json, to_json

HUGE = 10**5000  # longer than Python writes an int

DENSENET = {"depth": 40, "growth_rate": 12}

REFUSED: list[tuple[type, dict[str, Any], str, str]] = [
    # class, fields, the field that is named, what is allowed
    (ResNet, {"depth": 21}, "depth", "6n+2 or 6n+4 (basic units) or 9n+2"),
    (ResNet, {"depth": 2}, "depth", "n >= 1"),
    (ResNet, {"depth": -4}, "depth", "n >= 1"),
    (ResNet, {"depth": 6 * 1667 + 2}, "depth", "at most 10,000"),
    (DenseNet, {"depth": 6 * 1667 + 4, "growth_rate": 12}, "depth", "at most 10,000"),
    (ResNet, {"depth": 29, "block": "basic"}, "depth", "6n+2 or 6n+4 (basic units)"),
    (ResNet, {"depth": 32, "block": "bottleneck"}, "depth", "9n+2 (bottleneck units)"),
    (ResNet, {"depth": 20, "layout": "imagenet"}, "depth", "18, 34, 50, 101, 152, 200"),
    (ResNet, {"depth": 50, "layout": "imagenet", "block": "basic"}, "block", "bottleneck"),
    (ResNet, {"depth": 20.0}, "depth", "an int"),
    (ResNet, {"depth": True}, "depth", "an int"),
    (ResNet, {"depth": "20"}, "depth", "an int"),
    (ResNet, {"depth": None}, "depth", "an int"),
    (ResNet, {"depth": math.nan}, "depth", "an int"),
    (ResNet, {"depth": "a\nb\r\u2028c"}, "depth", "an int"),
    (ResNet, {"depth": 20, "layout": "cifar10"}, "layout", "cifar, imagenet"),
    (ResNet, {"depth": 20, "shortcut": "identity"}, "shortcut", "none, zero_pad, projection"),
    (ResNet, {"depth": 20, "shortcut": ["none"]}, "shortcut", "None"),
    (ResNet, {"depth": 20, "order": "pre"}, "order", "full_pre"),
    (ResNet, {"depth": 20, "stride_on": "1x1"}, "stride_on", "no 1x1"),
    (ResNet, {"depth": 20, "stride_on": 3}, "stride_on", "1x1, 3x3"),
    (DenseNet, DENSENET | {"depth": 41}, "depth", "6n+4, n >= 1"),
    (DenseNet, DENSENET | {"depth": 4}, "depth", "6n+4, n >= 1"),
    (DenseNet, DENSENET | {"depth": 41, "bottleneck": False}, "depth", "3n+4, n >= 1"),
    (DenseNet, DENSENET | {"layout": "imagenet"}, "depth", "121, 161, 169, 201, 264"),
    (
        DenseNet,
        DENSENET | {"depth": 121, "layout": "imagenet", "bottleneck": False},
        "bottleneck",
        "bottlenecks",
    ),
    (DenseNet, DENSENET | {"growth_rate": 0}, "growth_rate", "at least 1"),
    (DenseNet, DENSENET | {"growth_rate": 12.0}, "growth_rate", "an int"),
    (DenseNet, DENSENET | {"bottleneck": 1}, "bottleneck", "True or False"),
    (DenseNet, DENSENET | {"compression": 0.0}, "compression", "above 0"),
    (DenseNet, DENSENET | {"compression": 1.01}, "compression", "at most 1"),
    (DenseNet, DENSENET | {"compression": math.nan}, "compression", "a finite float"),
    (DenseNet, DENSENET | {"compression": True}, "compression", "a finite float"),
    (DenseNet, DENSENET | {"dropout_rate": 1.0}, "dropout_rate", "below 1"),
    (DenseNet, DENSENET | {"dropout_rate": -0.1}, "dropout_rate", "at least 0"),
    (DenseNet, DENSENET | {"initial_channels": 0}, "initial_channels", "at least 1"),
    (SGD, {"learning_rate": 0.0}, "learning_rate", "above 0"),
    (SGD, {"learning_rate": math.inf}, "learning_rate", "a finite float"),
    (SGD, {"learning_rate": "0.1"}, "learning_rate", "a finite float"),
    (SGD, {"momentum": 1.0}, "momentum", "below 1"),
    (SGD, {"momentum": -0.1}, "momentum", "at least 0"),
    (SGD, {"momentum": 0.0, "nesterov": True}, "nesterov", "momentum above 0"),
    (SGD, {"nesterov": "True"}, "nesterov", "True or False"),
    (SGD, {"weight_decay": -1e-4}, "weight_decay", "at least 0"),
    (StepDecay, {"boundaries": (2, 1)}, "boundaries", "increase"),
    (StepDecay, {"boundaries": (1, 1)}, "boundaries", "increase"),
    (StepDecay, {"boundaries": (0.75, 0.5)}, "boundaries", "increase"),
    (StepDecay, {"boundaries": (0, 1)}, "boundaries", "between 1 and"),
    (StepDecay, {"boundaries": (1, 2**31)}, "boundaries", "2**31 - 1"),
    (StepDecay, {"boundaries": (0.0, 0.5)}, "boundaries", "between 0 and 1"),
    (StepDecay, {"boundaries": (0.5, 1.0)}, "boundaries", "between 0 and 1"),
    (StepDecay, {"boundaries": (0.5, 32_000.0)}, "boundaries", "between 0 and 1"),
    (StepDecay, {"boundaries": (math.nan,)}, "boundaries", "a tuple of int or a tuple of float"),
    (StepDecay, {"boundaries": (True,)}, "boundaries", "a tuple of int or a tuple of float"),
    (StepDecay, {"boundaries": 100}, "boundaries", "a tuple of int or a tuple of float"),
    (StepDecay, {"boundaries": "12"}, "boundaries", "a tuple of int or a tuple of float"),
    (StepDecay, {"factor": 0.0}, "factor", "above 0"),
    (StepDecay, {"warmup_steps": -1}, "warmup_steps", "at least 0"),
    (StepDecay, {"warmup_steps": 2**31}, "warmup_steps", "below 2**31"),
    (StepDecay, {"warmup_learning_rate": -1.0}, "warmup_learning_rate", "at least 0"),
    (StepDecay, {"warmup": "cosine"}, "warmup", "constant, linear"),
    (Cosine, {"final_learning_rate": -1.0}, "final_learning_rate", "at least 0"),
    (Cosine, {"warmup_steps": 1.0}, "warmup_steps", "an int"),
    (Cosine, {"warmup_learning_rate": -math.inf}, "warmup_learning_rate", "a finite float"),
    (TFDS, {"name": " "}, "name", "not be empty"),
    (TFDS, {"name": 10}, "name", "a str"),
    (TFDS, {"name": "x", "data_dir": ""}, "data_dir", "a folder, or None"),
    (TFDS, {"name": "x", "train_split": "test"}, "test_split", "differ from train_split"),
    (TFDS, {"name": "x", "image_key": ""}, "image_key", "not be empty"),
    (CIFAR10, {"validation": -1}, "validation", "at least 0"),
    (CIFAR10, {"validation": 0.1}, "validation", "an int"),
    (CIFAR100, {"normalization": "pixels"}, "normalization", "channel, pixel"),
    (Digits, {"crop_padding": -1}, "crop_padding", "at least 0"),
    (Digits, {"crop_padding": 2**31}, "crop_padding", "below 2**16"),
    (Digits, {"flip": None}, "flip", "True or False"),
    (Experiment, {"name": ""}, "name", "1 to 100"),
    (Experiment, {"name": "a/b"}, "name", "1 to 100"),
    (Experiment, {"name": "../a"}, "name", "a letter or a digit first"),
    (Experiment, {"name": "a\n"}, "name", "1 to 100"),
    (Experiment, {"name": "é"}, "name", "1 to 100"),
    (Experiment, {"model": "resnet20"}, "model", "a ResNet or a DenseNet"),
    (Experiment, {"model": ResNet}, "model", "a ResNet or a DenseNet"),
    (Experiment, {"model": SGD()}, "model", "a ResNet or a DenseNet"),
    (Experiment, {"data": "cifar10"}, "data", "a Digits or a CIFAR10 or a CIFAR100 or a TFDS"),
    (Experiment, {"optimizer": Cosine()}, "optimizer", "a SGD"),
    (Experiment, {"schedule": None}, "schedule", "a StepDecay or a Cosine"),
    (Experiment, {"batch_size": 0}, "batch_size", "at least 1"),
    (Experiment, {"batch_size": 2**31}, "batch_size", "below 2**31"),
    (Experiment, {"batch_size": "128"}, "batch_size", "an int"),
    (Experiment, {"steps": 0}, "steps", "at least 1"),
    (Experiment, {"steps": 1e3}, "steps", "an int or None"),
    (Experiment, {"steps": None}, "steps", "exactly one"),
    (Experiment, {"epochs": 3}, "epochs", "exactly one"),
    (Experiment, {"steps": None, "epochs": 0.0}, "epochs", "above 0"),
    (Experiment, {"steps": None, "epochs": math.inf}, "epochs", "a finite float or None"),
    (Experiment, {"seed": -1}, "seed", "at least 0"),
    (Experiment, {"seed": 2**32}, "seed", "below 2**32"),
    (Experiment, {"seed": True}, "seed", "an int"),
    (Experiment, {"precision": "float16"}, "precision", "float32, bfloat16"),
    (Experiment, {"parallel": "jit"}, "parallel", "pmap, shard_map"),
    (Experiment, {"batch_norm": "global"}, "batch_norm", "per_device, synchronized"),
    (Experiment, {"log_every": 0}, "log_every", "at least 1"),
    (Experiment, {"loss": "hinge"}, "loss", "cross_entropy, binary_cross_entropy"),
    (Experiment, {"gradient_accumulation": 0}, "gradient_accumulation", "at least 1"),
    (Experiment, {"gradient_accumulation": 7}, "gradient_accumulation", "divide batch_size"),
    (Experiment, {"ema_decay": 1.0}, "ema_decay", "below 1, or None"),
    (Experiment, {"precise_batch_norm": -1}, "precise_batch_norm", "at least 0"),
    (Augmentation, {"policy": "auto"}, "policy", "none, rand_augment"),
    (Augmentation, {"policy_magnitude": 10.5}, "policy_magnitude", "at most 10"),
    (Augmentation, {"policy_layers": 0}, "policy_layers", "at least 1"),
    (Augmentation, {"mixup": -0.1}, "mixup", "at least 0"),
    (Augmentation, {"random_erasing": 1.1}, "random_erasing", "at most 1"),
    (Augmentation, {"label_smoothing": 1.0}, "label_smoothing", "below 1"),
    (Augmentation, {"target_threshold": 1.0}, "target_threshold", "below 1, or None"),
    (SGD, {"no_weight_decay": "bias"}, "no_weight_decay", "none, norm, norm_and_bias"),
    (LARS, {"learning_rate": 1.0, "trust_coefficient": 0.0}, "trust_coefficient", "above 0"),
    (LAMB, {"learning_rate": 1.0, "max_gradient_norm": 0.0}, "max_gradient_norm", "above 0"),
    (SGD, {"max_gradient_norm": -1.0}, "max_gradient_norm", "above 0, or None"),
    (AdamW, {"b2": 1.0}, "b2", "below 1"),
    (Polynomial, {"power": 0.0}, "power", "above 0"),
    (Experiment, {"evaluate_every": 2**31}, "evaluate_every", "below 2**31"),
    (Experiment, {"checkpoint_every": -5}, "checkpoint_every", "at least 1"),
]


@pytest.mark.parametrize(("cls", "fields", "field", "allowed"), REFUSED)
def test_refuses_naming_field_value_and_what_is_allowed(cls, fields, field, allowed):
    with pytest.raises(UsageError) as refusal:
        cls(**COMPLETE | fields if cls is Experiment else fields)
    message = str(refusal.value)
    value = fields.get(field, "test")  # of TFDS.test_split above
    assert f"{cls.__name__}.{field} is {repr(value)[:77]}" in message
    assert allowed in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "declare",
    [
        lambda: ResNet(depth=HUGE + 2),
        lambda: SGD(learning_rate=HUGE),
        lambda: StepDecay(boundaries=(HUGE,)),
        lambda: CIFAR10(flip={"a": [HUGE]}),  # type: ignore[arg-type]
        lambda: experiment(steps=HUGE),
        lambda: experiment(name="a" * 101),
        lambda: experiment(model=np.arange(10_000).reshape(-1, 2)),
    ],
)
def test_refuses_huge_values_in_one_short_line(declare):
    with pytest.raises(UsageError) as refusal:
        declare()
    assert len(str(refusal.value).splitlines()) == 1
    assert len(str(refusal.value)) < 250


def test_accepts_the_limits_of_what_it_refuses():
    ResNet(depth=8), ResNet(depth=11, block="bottleneck")
    DenseNet(depth=10, growth_rate=1, compression=1, dropout_rate=0.99, initial_channels=1)
    DenseNet(depth=7, growth_rate=1, bottleneck=False)
    StepDecay(boundaries=(1, 2**31 - 1), factor=2.0, warmup_steps=2**31 - 1)
    Digits(crop_padding=2**16 - 1)
    experiment(name="a" * 100, seed=2**32 - 1, batch_size=2**31 - 1, steps=2**31 - 1)
    experiment(name="0._-", seed=0, batch_size=1, steps=None, epochs=0.001)


def test_is_frozen():
    made = experiment()
    parts = [made, made.model, made.data, made.augmentation, made.optimizer, made.schedule]
    for part in parts:
        for field in dataclasses.fields(part):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(part, field.name, getattr(part, field.name))


PLAIN_FIELDS: dict[str, Any] = {
    "seed": 3,
    "batch_size": 64,
    "name": "e",
    "optimizer": SGD(learning_rate=0.25, nesterov=True),
    "schedule": StepDecay(boundaries=(4, 6), factor=0.5),
    "keep_best": False,
    "model": ResNet(20, shortcut="zero_pad"),
}
ARRAY_FIELDS: dict[str, Any] = {
    "seed": np.arange(4)[3],
    "batch_size": jnp.int32(64),
    "name": np.str_("e"),
    "optimizer": SGD(learning_rate=np.float32(0.25), nesterov=np.True_),  # type: ignore[arg-type]
    "schedule": StepDecay(np.array([4, 6]), np.float64(0.5)),  # type: ignore[arg-type]
    "keep_best": np.False_,
    "model": ResNet(np.array(20), shortcut=np.str_("zero_pad")),  # type: ignore[arg-type]
}


def test_numbers_and_arrays_of_other_libraries_are_the_plain_values_that_they_are():
    plain, made = experiment(**PLAIN_FIELDS), experiment(**ARRAY_FIELDS)
    assert made == plain
    assert made.content_hash == plain.content_hash
    assert repr(made) == repr(plain)
    assert json.dumps(to_json(made)) == json.dumps(to_json(plain))
    assert type(made.seed) is type(made.batch_size) is int
    assert type(made.name) is str
    assert made.keep_best is False


@pytest.mark.parametrize(
    ("given", "python"),
    [
        (np.int64(-3), -3),
        (np.uint8(3), 3),
        (np.float32(0.1), 0.10000000149011612),
        (np.float64(128.0), 128.0),
        (np.longdouble(0.5), 0.5),
        (jnp.bfloat16(0.5), 0.5),
        (jnp.asarray(2), 2),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (signal.SIGTERM, 15),
        (range(3), [0, 1, 2]),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        ([np.int8(1), (np.float16(0.5), "a")], [1, (0.5, "a")]),
        (array.array("d", [0.5]), [0.5]),
        (np.int64, np.int64),
        (None, None),
    ],
    ids=repr,
)
def test_as_python(given: Any, python: Any):
    made = as_python(given)
    assert repr(made) == repr(python)  # True, 1 and 1.0 are equal
    assert type(made) is type(python)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": np.float64(128.0)}, "batch_size is 128.0; it must be an int"),
        ({"batch_size": np.float32(2.5)}, "batch_size is 2.5; it must be an int"),
        ({"batch_size": np.array([128])}, "batch_size is [128]; it must be an int"),
        ({"seed": np.bool_(True)}, "seed is True; it must be an int"),
        ({"seed": np.int64(-1)}, "seed is -1; it must be at least 0"),
        ({"steps": None, "epochs": np.nan}, "epochs is nan; it must be a finite float"),
        ({"steps": None, "epochs": np.float32("inf")}, "epochs is inf; it must be a finite float"),
        ({"steps": np.complex64(1)}, "steps is (1+0j); it must be an int"),
        ({"keep_best": np.int64(1)}, "keep_best is 1; it must be True or False"),
        ({"name": np.str_("a/b")}, "name is 'a/b'; it needs"),
    ],
)
def test_wrong_numbers_of_other_libraries_are_refused_like_plain_ones(fields, message):
    with pytest.raises(UsageError) as refusal:
        experiment(**fields)
    assert f"Experiment.{message}" in str(refusal.value)


def test_ints_become_floats_and_lists_tuples():
    made = experiment(steps=None, epochs=3, schedule=StepDecay(boundaries=[10, 20]))  # type: ignore[arg-type]
    assert type(made.epochs) is float
    assert made.schedule == StepDecay(boundaries=(10, 20))
    assert made.content_hash == from_json(to_json(made)).content_hash
