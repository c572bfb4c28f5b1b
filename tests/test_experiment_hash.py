"""The content hash of an experiment, and how two experiments differ."""

import dataclasses
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
    LAMB,
    LARS,
    SGD,
    TFDS,
    AdamW,
    Augmentation,
    Cosine,
    DenseNet,
    Experiment,
    Polynomial,
    ResNet,
    StepDecay,
)
from resflax.experiment import differences, from_json, to_json

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
    assert PINNED.content_hash == "393ddba328fb"


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
    ("augmentation", Augmentation(mixup=0.2)),
    ("augmentation", Augmentation(policy="rand_augment")),
    ("loss", "binary_cross_entropy"),
    ("optimizer", SGD(no_weight_decay="norm")),
    ("optimizer", LARS(learning_rate=0.1)),
    ("optimizer", AdamW(learning_rate=0.1)),
    ("optimizer", LAMB(learning_rate=0.1)),
    ("schedule", Polynomial()),
    ("gradient_accumulation", 2),
    ("ema_decay", 0.999),
    ("precise_batch_norm", 100),
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
    others.append(dataclasses.replace(PINNED, data=CIFAR10(validation=5000), keep_best=True))
    covered = {field for field, _ in CHANGES} | {"epochs", "keep_best"}
    assert covered == {field.name for field in dataclasses.fields(Experiment)}
    hashes = {made.content_hash for made in [PINNED, *others]}
    assert len(hashes) == 1 + len(others)
    assert all(re.fullmatch("[0-9a-f]{12}", text) for text in hashes)


@pytest.mark.parametrize(("field", "value"), CHANGES)
def test_differences_name_what_was_changed_and_nothing_else(field: str, value: object):
    lines = differences(PINNED, replaced(field, value))
    assert lines
    assert all(line.startswith((f"{field}: ", f"{field}.")) for line in lines)


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
