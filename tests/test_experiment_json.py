"""Experiments survive JSON; JSON that somebody has changed is an experiment or is refused."""

import dataclasses
import json
import math
import re
from typing import Any

import pytest
from declared_experiments import experiment
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
    assert plain.keys() == {"format"} | {field.name for field in dataclasses.fields(Experiment)}
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
    """The path of every value in nested objects."""
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
        (
            changed("stepz", to=3),
            "experiment has no field 'stepz' in this version of resflax; it has",
        ),
        (changed("a\nb", to=3), r"experiment has no field 'a\nb' in this version of resflax"),
        (changed("type", to="Experiment"), "experiment has no field 'type'"),
        (
            changed("model", "k", to=3),
            "experiment.model has no field 'k' in this version of resflax",
        ),
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
