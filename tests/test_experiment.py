"""Declarations refuse what is wrong, survive JSON, and have a hash that means something."""

import dataclasses
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax import (
    CIFAR10,
    CIFAR100,
    SGD,
    TFDS,
    Cosine,
    DenseNet,
    Digits,
    Experiment,
    ResNet,
    StepDecay,
    UsageError,
)
from resflax.experiment import differences, from_json, to_json

HUGE = 10**5000  # longer than Python writes an int

COMPLETE: dict[str, Any] = {"name": "e", "model": ResNet(depth=20), "batch_size": 128, "steps": 10}


def experiment(**fields: Any) -> Experiment:
    return Experiment(**COMPLETE | fields)


# --- Refusals

DENSENET = {"depth": 40, "growth_rate": 12}

REFUSED: list[tuple[type, dict[str, Any], str, str]] = [
    # class, fields, the field that is named, what is allowed
    (ResNet, {"depth": 21}, "depth", "6n+2 (basic units) or 9n+2 (bottleneck units)"),
    (ResNet, {"depth": 2}, "depth", "n >= 1"),
    (ResNet, {"depth": -4}, "depth", "n >= 1"),
    (ResNet, {"depth": 6 * 1667 + 2}, "depth", "at most 10,000"),
    (DenseNet, {"depth": 6 * 1667 + 4, "growth_rate": 12}, "depth", "at most 10,000"),
    (ResNet, {"depth": 29, "block": "basic"}, "depth", "6n+2 (basic units)"),
    (ResNet, {"depth": 32, "block": "bottleneck"}, "depth", "9n+2 (bottleneck units)"),
    (ResNet, {"depth": 20, "layout": "imagenet"}, "depth", "18, 34, 50, 101, 152, 200"),
    (ResNet, {"depth": 50, "layout": "imagenet", "block": "basic"}, "block", "bottleneck"),
    (ResNet, {"depth": 20.0}, "depth", "an int"),
    (ResNet, {"depth": True}, "depth", "an int"),
    (ResNet, {"depth": "20"}, "depth", "an int"),
    (ResNet, {"depth": None}, "depth", "an int"),
    (ResNet, {"depth": np.int64(20)}, "depth", "an int"),
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
    parts = [made, made.model, made.data, made.optimizer, made.schedule]
    for part in parts:
        for field in dataclasses.fields(part):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(part, field.name, getattr(part, field.name))


def test_ints_become_floats_and_lists_tuples():
    made = experiment(steps=None, epochs=3, schedule=StepDecay(boundaries=[10, 20]))  # type: ignore[arg-type]
    assert type(made.epochs) is float
    assert made.schedule == StepDecay(boundaries=(10, 20))
    assert made.content_hash == from_json(to_json(made)).content_hash


# --- Random experiments

positive = st.floats(min_value=1e-6, max_value=1e6)
counts = st.integers(1, 2**31 - 1)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)
texts = st.text(min_size=1).filter(str.strip)

resnets = st.one_of(
    st.builds(
        ResNet,
        depth=st.integers(1, 300).map(lambda n: 6 * n + 2),
        shortcut=st.sampled_from([None, "none", "zero_pad", "projection", "projection_all"]),
        order=st.sampled_from(["post", "full_pre"]),
    ),
    st.builds(
        ResNet,
        depth=st.integers(1, 300).map(lambda n: 9 * n + 2),
        block=st.just("bottleneck"),
        stride_on=st.sampled_from([None, "1x1", "3x3"]),
    ),
    st.builds(ResNet, depth=st.sampled_from([18, 50, 200]), layout=st.just("imagenet")),
)
densenets = st.builds(
    DenseNet,
    depth=st.integers(1, 100).map(lambda n: 6 * n + 4),
    growth_rate=st.integers(1, 100),
    bottleneck=st.booleans(),
    compression=st.floats(0, 1, exclude_min=True),
    dropout_rate=st.floats(0, 1, exclude_max=True),
    initial_channels=st.none() | st.integers(1, 100),
)
data_sets = st.builds(
    TFDS,
    name=texts,
    data_dir=st.none() | texts,
    validation=st.integers(0, 2**40),
    crop_padding=st.integers(0, 2**16 - 1),
    flip=st.booleans(),
    normalization=st.sampled_from(["channel", "pixel"]),
) | st.sampled_from([Digits(), CIFAR10(), CIFAR100(validation=5000)])
optimizers = st.builds(
    SGD,
    learning_rate=positive,
    momentum=st.floats(1e-9, 1, exclude_max=True),
    nesterov=st.booleans(),
    weight_decay=st.just(-0.0) | positive,
)
increasing = st.sets(counts, max_size=5).map(sorted) | st.sets(
    st.floats(1e-9, 1, exclude_max=True), max_size=5
).map(sorted)
warmups = {"warmup_steps": st.integers(0, 2**31 - 1), "warmup_learning_rate": positive}
schedules = st.builds(StepDecay, boundaries=increasing, factor=positive, **warmups) | st.builds(
    Cosine, final_learning_rate=positive, warmup=st.sampled_from(["constant", "linear"]), **warmups
)


@st.composite
def experiments(draw: Any) -> Experiment:
    length = draw(
        st.fixed_dictionaries({"steps": counts}) | st.fixed_dictionaries({"epochs": positive})
    )
    return Experiment(
        name=draw(names),
        model=draw(resnets | densenets),
        data=draw(data_sets),
        optimizer=draw(optimizers),
        schedule=draw(schedules),
        batch_size=draw(counts),
        seed=draw(st.integers(0, 2**32 - 1)),
        precision=draw(st.sampled_from(["float32", "bfloat16"])),
        parallel=draw(st.sampled_from(["pmap", "shard_map"])),
        batch_norm=draw(st.sampled_from(["per_device", "synchronized"])),
        log_every=draw(counts),
        evaluate_every=draw(counts),
        checkpoint_every=draw(counts),
        **length,
    )


@settings(deadline=None, max_examples=100)
@given(experiments())
def test_json_round_trip(made: Experiment):
    text = json.dumps(to_json(made), allow_nan=False)
    back = from_json(json.loads(text))
    assert back == made.resolved()
    assert back.content_hash == made.content_hash
    assert differences(made, back) == []
    assert json.dumps(to_json(back)) == text
    assert made.resolved().resolved() == made.resolved()


def test_json_has_every_field_and_the_type_of_every_part():
    plain = to_json(experiment(data=CIFAR10(), schedule=StepDecay(boundaries=(0.5, 0.75))))
    assert plain.keys() == {field.name for field in dataclasses.fields(Experiment)}
    assert plain["model"].keys() == {"type"} | {field.name for field in dataclasses.fields(ResNet)}
    assert plain["model"]["type"] == "ResNet"
    assert plain["model"]["block"] == "basic"  # derived
    assert plain["model"]["shortcut"] == "zero_pad"
    assert [plain[p]["type"] for p in ("data", "optimizer", "schedule")] == [
        "CIFAR10",
        "SGD",
        "StepDecay",
    ]
    assert plain["schedule"]["boundaries"] == [0.5, 0.75]


# --- JSON that somebody has touched

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


def paths(plain: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Of every value in nested objects."""
    if not isinstance(plain, dict):
        return []
    return [p for key in plain for p in ((*path, key), *paths(plain[key], (*path, key)))]


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_changed_json_is_an_experiment_or_refused(data: st.DataObject):
    plain = to_json(experiment(schedule=data.draw(st.sampled_from([Cosine(), StepDecay()]))))
    for _ in range(data.draw(st.integers(1, 2))):
        *folders, key = data.draw(st.sampled_from(paths(plain)))
        parent = plain
        for folder in folders:
            parent = parent[folder]
        match data.draw(st.sampled_from(["delete", "replace", "add"])):
            case "delete":
                del parent[key]
            case "replace":
                parent[key] = data.draw(json_values)
            case "add":
                parent[data.draw(st.text(max_size=8) | st.just("type"))] = data.draw(json_values)
    try:
        message = str(from_json(plain).name)
    except UsageError as refusal:
        message = str(refusal)
    assert len(message.splitlines()) == 1


@settings(deadline=None, max_examples=100)
@given(json_values)
def test_any_json_is_refused_in_one_line(plain: object):
    with pytest.raises(UsageError) as refusal:
        from_json(plain)
    assert len(str(refusal.value).splitlines()) == 1


def changed(*path: str, to: object = ..., **more: object) -> dict[str, Any]:
    """The JSON of an experiment with one value replaced, or deleted."""
    plain = to_json(experiment())
    parent = plain
    for folder in path[:-1]:
        parent = parent[folder]
    if to is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = to
    return plain | more


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ([], "experiment is []; it must be an object of fields"),
        (changed("seed"), "experiment lacks the field seed"),
        (changed("model", "depth"), "experiment.model lacks the field depth"),
        (changed("stepz", to=3), "experiment has no field 'stepz'; it has name, model, data"),
        (changed("a\nb", to=3), r"experiment has no field 'a\nb'; it has name"),
        (changed("type", to="Experiment"), "experiment has no field 'type'"),
        (changed("model", "k", to=3), "experiment.model has no field 'k'; it has depth, layout"),
        (
            changed("model", to=None),
            "experiment.model.type is None; it must be one of ResNet, Dense",
        ),
        (
            changed("model", "type", to="VGG"),
            "experiment.model.type is 'VGG'; it must be one of Res",
        ),
        (
            changed("data", "type"),
            "experiment.data.type is None; it must be one of Digits, CIFAR10",
        ),
        (changed("data", "type", to=["Digits"]), "experiment.data.type is ['Digits']; it must be"),
        (changed("model", "depth", to=20.0), "ResNet.depth is 20.0; it must be an int"),
        (changed("optimizer", "momentum", to=math.nan), "SGD.momentum is nan; it must be a finite"),
    ],
)
def test_says_what_is_wrong_in_json(plain: object, said: str):
    with pytest.raises(UsageError, match=f"^{re.escape(said)}"):
        from_json(plain)


# --- The content hash, and differences

PINNED = Experiment(
    name="pinned",
    model=ResNet(depth=20),
    data=CIFAR10(),
    optimizer=SGD(learning_rate=0.1),
    schedule=StepDecay(boundaries=(32_000, 48_000)),
    batch_size=128,
    steps=64_000,
)


def test_hash_stays_the_same_between_sessions():
    # A run folder is found again by this. A new field with its default changes it; a change for
    # any other reason is a mistake.
    assert PINNED.content_hash == "a1b71ac5523d"


def test_hash_is_that_of_the_fields_written_out():
    short, long = ResNet(depth=20), ResNet(depth=20, block="basic", shortcut="zero_pad")
    assert experiment(model=short).content_hash == experiment(model=long).content_hash
    bottleneck, written = DenseNet(40, 12), DenseNet(40, 12, initial_channels=24)
    assert experiment(model=bottleneck).content_hash == experiment(model=written).content_hash
    zero, minus_zero = SGD(weight_decay=0.0), SGD(weight_decay=-0.0)
    assert experiment(optimizer=zero).content_hash == experiment(optimizer=minus_zero).content_hash


@given(st.randoms())
@settings(deadline=None, max_examples=20)
def test_hash_does_not_depend_on_the_order_of_fields_in_json(random: Any):
    def shuffled(plain: Any) -> Any:
        if not isinstance(plain, dict):
            return plain
        items = [(key, shuffled(value)) for key, value in plain.items()]
        random.shuffle(items)
        return dict(items)

    assert from_json(shuffled(to_json(PINNED))).content_hash == PINNED.content_hash


CHANGES: list[tuple[str, object]] = [
    ("name", "other"),
    ("model", ResNet(depth=26)),
    ("model", ResNet(depth=20, shortcut="none")),
    ("model", ResNet(depth=20, order="full_pre")),
    ("model", DenseNet(depth=40, growth_rate=12)),
    ("data", CIFAR100()),
    ("data", TFDS(name="cifar10", crop_padding=4, flip=True)),
    ("data", CIFAR10(data_dir="elsewhere")),
    ("data", CIFAR10(validation=5000)),
    ("data", CIFAR10(normalization="pixel")),
    ("data", CIFAR10(flip=False)),
    ("optimizer", SGD(learning_rate=math.nextafter(0.1, 1))),
    ("optimizer", SGD(nesterov=True)),
    ("schedule", StepDecay(boundaries=(32_000, 48_001))),
    ("schedule", Cosine()),
    ("batch_size", 127),
    ("steps", 64_001),
    ("initialize_from", "runs/other"),
    ("seed", 1),
    ("precision", "bfloat16"),
    ("parallel", "shard_map"),
    ("batch_norm", "synchronized"),
    ("log_every", 99),
    ("evaluate_every", 99),
    ("checkpoint_every", 99),
    ("on_nonfinite", "rollback"),
]


def replaced(field: str, value: Any) -> Experiment:
    return dataclasses.replace(PINNED, **{field: value})


def test_every_change_of_a_field_changes_the_hash():
    others = [replaced(field, value) for field, value in CHANGES]
    others.append(dataclasses.replace(PINNED, steps=None, epochs=1))
    covered = {field for field, _ in CHANGES} | {"epochs"}
    assert covered == {field.name for field in dataclasses.fields(Experiment)}
    hashes = {made.content_hash for made in [PINNED, *others]}
    assert len(hashes) == 1 + len(others)
    assert all(re.fullmatch("[0-9a-f]{12}", text) for text in hashes)


@pytest.mark.parametrize(("field", "value"), CHANGES)
def test_differences_name_what_was_changed_and_nothing_else(field: str, value: object):
    found = differences(PINNED, replaced(field, value))
    assert found
    assert all(line.startswith((f"{field}: ", f"{field}.")) for line in found)


def test_differences_show_both_values():
    other = dataclasses.replace(
        PINNED, model=ResNet(depth=56, shortcut="none"), steps=None, epochs=1, schedule=Cosine()
    )
    assert differences(PINNED, PINNED) == []
    assert differences(PINNED, other) == [
        "epochs: None != 1.0",
        "model.depth: 20 != 56",
        "model.shortcut: 'zero_pad' != 'none'",
        "model.zero_pad_side: 'end' != None",
        "schedule.boundaries: [32000, 48000] != None",
        "schedule.factor: 0.1 != None",
        "schedule.final_learning_rate: None != 0.0",
        "schedule.type: 'StepDecay' != 'Cosine'",
        "schedule.warmup: 'constant' != 'linear'",
        "steps: 64000 != None",
    ]
