"""The experiment: one declaration of everything that decides a run."""

import dataclasses
import difflib
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from resflax.declarations.augmentation import Augmentation
from resflax.declarations.checks import added, check_types, refuse, short
from resflax.declarations.data import Data, Digits
from resflax.declarations.models import Custom, Model
from resflax.declarations.optimization import SGD, Optimizer, Schedule, StepDecay
from resflax.declarations.own import Own, Values, as_own, own_classes
from resflax.declarations.records import MISSING, construct, identity, plain, value_before
from resflax.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that decides what a run computes. It is checked when constructed, and immutable.

    Exactly one of `steps` and `epochs` is set. An epoch is one pass over the training examples. A
    batch may span two epochs, so that no example is dropped or repeated within an epoch.
    """

    name: str
    """Letters, digits, dots, dashes and underscores. The run's folder is named after it."""

    model: Model
    """The network."""

    data: Data = dataclasses.field(default_factory=Digits)
    """The data set, and how its images are cropped and normalised."""

    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    """Changes to training images and labels on the device, in addition to those that `data`
    declares."""

    loss: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy"
    """The training loss. cross_entropy: softmax cross-entropy, which evaluations always use;
    binary_cross_entropy: the mean over classes of the binary cross-entropy of each class (ResNet
    Strikes Back, arXiv 2110.00476)."""

    optimizer: Optimizer = dataclasses.field(default_factory=SGD)
    """The optimizer."""

    schedule: Schedule = dataclasses.field(default_factory=StepDecay)
    """How the learning rate changes during the training."""

    batch_size: int
    """Number of examples in a step, over all devices together."""

    steps: int | None = None
    """Length of the training in optimizer steps."""

    epochs: float | None = None
    """Length of the training in passes over the training examples."""

    initialize_from: str | None = None
    """Run folder whose weights the training starts with, including the classifier if the number of
    classes is the same. None: weights are drawn from the seed."""

    initial_weights: str | None = added(None)
    """The sha256 of the weights in `initialize_from`, which the commands fill in. They, and not the
    folder, decide what the run is. If it is given, other weights are refused."""

    seed: int = 0
    """Decides initial weights, data order, augmentation and dropout."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of convolutions and activations. Parameters, batch statistics and the loss are
    always float32."""

    parallel: Literal["pmap", "shard_map"] = "pmap"
    """jax.pmap or jax.jit(jax.shard_map) over all devices; both give the same numbers."""

    batch_norm: Literal["per_device", "synchronized"] = "per_device"
    """The examples from which batch norm computes its statistics in training. per_device: those of
    each device alone, as in the papers' multi-GPU code; synchronized: those of all devices, which
    gives the same result on any number of devices."""

    gradient_accumulation: int = 1
    """Number of micro-batches into which a step divides its batch to save memory. The step uses the
    mean of their gradients. Batch norm sees one micro-batch at a time, and each of them updates its
    running averages."""

    ema_decay: float | None = None
    """Decay of an exponential moving average of weights and batch statistics, which becomes
    decay * average + (1 - decay) * new after each step. Evaluations, exports and `initialize_from`
    then use the average. None: no average."""

    precise_batch_norm: int = 0
    """Number of training batches from which batch norm's mean and variance are measured after the
    last step, to replace its running averages (Wu & Johnson 2021, arXiv 2105.07576, section 3; He
    et al.'s released models have such statistics). 0: the running averages stay."""

    log_every: int = 100
    """Steps between training lines in metrics.jsonl, with mean loss and error over these steps."""

    evaluate_every: int = 1000
    """Steps between evaluations, on the held-out examples if there are any, else on the test split.
    The end of the training is always evaluated."""

    checkpoint_every: int = 1000
    """Steps between checkpoints. The state is always saved at the end and at an interruption."""

    keep_best: bool = added(False)
    """Whether the checkpoint with the lowest error on the held-out examples is kept, whatever else
    is removed; of equal errors the earliest counts. The result then also has its error on the test
    split. It needs `data.validation`."""

    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """What to do when a step's loss or gradient is not finite. stop: end the run; rollback: go back
    to the newest checkpoint and skip the batches up to the step that failed (at most three times
    from one checkpoint)."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value.

        Exactly one of `steps` and `epochs` must be set.
        """
        if isinstance(self.model, type) and not issubclass(self.model, Model):
            name = self.model.__name__
            raise UsageError(
                f"Experiment.model is the class {name}; declare Custom(network={name})"
            )
        check_types(self)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            refuse(
                self, "name", "it needs 1 to 100 of A-Z a-z 0-9 . _ -, a letter or a digit first"
            )
        if (self.steps is None) == (self.epochs is None):
            raise UsageError(
                f"Experiment.steps is {short(self.steps)} and Experiment.epochs is "
                f"{short(self.epochs)}; exactly one of them must be set"
            )
        for field in ("batch_size", "steps", "log_every", "evaluate_every", "checkpoint_every"):
            value = getattr(self, field)
            if value is not None and not 1 <= value < 2**31:
                refuse(self, field, "it must be at least 1 and below 2**31")
        if not 1 <= self.gradient_accumulation < 2**31:
            refuse(self, "gradient_accumulation", "it must be at least 1 and below 2**31")
        if self.batch_size % self.gradient_accumulation:
            refuse(self, "gradient_accumulation", f"it must divide batch_size, {self.batch_size}")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            refuse(self, "ema_decay", "it must be at least 0 and below 1, or None")
        if self.augmentation.target_threshold is not None and self.loss == "cross_entropy":
            refuse(self.augmentation, "target_threshold", "it needs the loss binary_cross_entropy")
        if not 0 <= self.precise_batch_norm < 2**31:
            refuse(self, "precise_batch_norm", "it must be at least 0 and below 2**31")
        if self.keep_best and not self.data.validation:
            allowed = "it needs examples to choose by: hold some out with --data.validation"
            refuse(self, "keep_best", allowed)
        if self.epochs is not None and self.epochs <= 0:
            refuse(self, "epochs", "it must be above 0")
        if self.initialize_from is not None and not self.initialize_from.strip():
            refuse(self, "initialize_from", "it must be a run folder, or None for drawn weights")
        if self.initial_weights is not None and (
            self.initialize_from is None
            or re.fullmatch("[0-9a-f]{64}", self.initial_weights) is None
        ):
            refuse(self, "initial_weights", "it must be the sha256 of the weights that are named")
        if not 0 <= self.seed < 2**32:
            refuse(self, "seed", "it must be at least 0 and below 2**32")

    def resolved(self) -> "Experiment":
        """The same experiment with every derived field written out."""
        return dataclasses.replace(self, model=self.model.resolved())

    def count_steps(self, examples: int) -> int:
        """Length of the training in steps, with so many training examples.

        It is the smallest number of steps that make at least `epochs` passes over the examples.
        """
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None, "__post_init__ checks it"
        return math.ceil(self.epochs * examples / self.batch_size)

    @property
    def own_classes(self) -> dict[str, Own]:
        """The user's own classes that take part, by the dotted name of their field."""
        return {f"model.{name}": own for name, own in own_classes(self.model).items()}

    @property
    def content_hash(self) -> str:
        """12 hex digits that depend on what the run is, and on nothing else.

        They depend on every resolved field, except that a field of `LOCATIONS` does not count, nor
        does a field with the value that experiments had before the field existed.
        """
        return _hash(_identity(self))

    @property
    def hash_of_format_1(self) -> str | None:
        """The hash that this experiment had in format 1; None if it needs a newer format."""
        fields = _without_new_fields(self.resolved())
        return None if fields is None else _hash(fields)


FORMAT = 3
"""The format of the JSON that `to_json` returns. It grows when a declaration gets a field or a
class. Format 1 had no number; its hash counted where files lay."""

LOCATIONS = ("parallel", "data.data_dir", "initialize_from")
"""Fields that say how and where a run computes, but not what. They may change when a run is
continued. The data and the weights themselves are compared by their sha256."""


def _hash(fields: Any) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _identity(experiment: Experiment) -> dict[str, Any]:
    fields = identity(experiment.resolved())
    for name in LOCATIONS:
        part, _, field = name.rpartition(".")
        (fields[part] if part else fields).pop(field)
    if experiment.initial_weights is None and experiment.initialize_from is not None:
        fields["initialize_from"] = experiment.initialize_from  # all that is known of the weights
    assert isinstance(fields, dict)
    return fields


def _without_new_fields(value: Any) -> Any:
    """A declaration as plain values of format 1; None if a newer field has a value of its own."""
    if isinstance(value, Own | Custom):
        return None
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return plain(value)
    fields = {} if isinstance(value, Experiment) else {"type": type(value).__name__}
    for field in dataclasses.fields(value):
        given, before = getattr(value, field.name), value_before(field)
        if before is MISSING:
            fields[field.name] = part = _without_new_fields(given)
            if part is None and given is not None:
                return None
        elif given != before and field.name != "initial_weights":
            return None
    return fields


def to_json(experiment: Experiment) -> dict[str, Any]:
    """All resolved fields as plain JSON values, and the format; each part has a `type`."""
    fields = plain(experiment.resolved())
    del fields["type"]
    return {"format": FORMAT, **fields}


def from_json(value: object) -> Experiment:
    """The inverse of `to_json`, also for earlier formats; no code of a user's own class is run.

    Raises `UsageError` for anything that is not an experiment, or one of a newer format.
    """
    if not isinstance(value, Mapping):
        raise UsageError(f"experiment is {short(value)}; it must be an object of fields")
    fields = dict(value)
    number = fields.pop("format", 1)
    if type(number) is not int or number < 1:
        raise UsageError(f"experiment.format is {short(number)}; it must be a number of at least 1")
    if number > FORMAT:
        raise UsageError(
            f"experiment.format is {number}: it was written by a newer version of resflax, and "
            f"this one reads formats up to {FORMAT}"
        )
    made = construct(Experiment, fields, "experiment")
    assert isinstance(made, Experiment)
    return made


def differences(one: Experiment, other: Experiment) -> list[str]:
    """The fields in which two experiments are different runs, as `model.depth: 20 != 56`.

    The fields of `LOCATIONS` do not count, except that the folder of initial weights does as long
    as their sha256 is not known.
    """
    first, second = _comparable(one), _comparable(other)
    lines = []
    for name in first.keys() | second.keys():
        here, there = first.get(name), second.get(name)
        if type(here) is not type(there) or here != there:
            lines.append(f"{name}: {short(here)} != {short(there)}")
    return sorted(lines)


def _comparable(experiment: Experiment) -> dict[str, Any]:
    fields = {n: value for n, value in flat_json(experiment).items() if n not in LOCATIONS}
    if experiment.initial_weights is None:
        fields["initialize_from"] = experiment.initialize_from
    return fields


def with_code_from(experiment: Experiment, folder: Path, trusted: bool) -> Experiment:
    """The experiment, knowing that a folder has copies of the code of its own classes.

    Args:
      experiment: an experiment that was read from a run or a sweep.
      folder: the folder with the copies.
      trusted: whether the copies may be run if the files where they came from have changed.
    """
    copies = {
        name: part.with_copy(folder, trusted) for name, part in experiment.own_classes.items()
    }
    return with_fields(experiment, copies) if copies else experiment


def with_fields(experiment: Experiment, fields: Mapping[str, Any]) -> Experiment:
    """The experiment with some fields replaced at once. Fields are named as in `model.depth`.

    Fields of a user's own classes are named as in `model.shortcut.initial`. As on the command line,
    `steps` replaces `epochs` and vice versa.

    Raises:
      UsageError: for a field that does not exist, or a value that is refused.
    """
    if ("steps" in fields) != ("epochs" in fields):
        fields = {"steps": None, "epochs": None} | dict(fields)
    if "initialize_from" in fields:  # other weights are meant
        fields = {"initial_weights": None} | dict(fields)
    replaced = _replaced(experiment, fields, "", experiment)
    assert isinstance(replaced, Experiment)
    return replaced


def _replaced(declared: Any, values: Mapping[str, Any], where: str, experiment: Experiment) -> Any:
    """The declaration, or the user's own class, with some fields replaced."""
    whole = {name: value for name, value in values.items() if "." not in name}
    parts: dict[str, dict[str, Any]] = {}
    for name in values.keys() - whole.keys():
        part, _, field = name.partition(".")
        parts.setdefault(part, {})[field] = values[name]
    if isinstance(declared, Values):
        return {**declared, **whole}
    if isinstance(declared, Own):
        return Own(declared, **whole)
    known = set()
    if dataclasses.is_dataclass(declared):
        known = {field.name for field in dataclasses.fields(declared)}
    for name in [*whole, *(f"{part}.{next(iter(inner))}" for part, inner in parts.items())]:
        if name.partition(".")[0] not in known:
            _refuse_unknown(f"{where}{name}", experiment)
    for part, inner in parts.items():
        value = as_own(whole.get(part, getattr(declared, part)))
        if isinstance(value, str | int | float | None):
            field = next(iter(inner))
            raise UsageError(
                f"{where}{part} is {short(value)}, which has no field {field}; fields of a class "
                f"of your own can be varied with the class, as Own(CLASS, {field}=...)"
            )
        whole[part] = _replaced(value, inner, f"{where}{part}.", experiment)
    return dataclasses.replace(declared, **whole)


def _refuse_unknown(name: str, experiment: Experiment) -> NoReturn:
    close = difflib.get_close_matches(name, flat_json(experiment), n=1)
    advice = f"did you mean {close[0]}?" if close else "fields are named as in model.depth"
    raise UsageError(f"the experiment has no field {name}; {advice}")


def flat_json(experiment: Experiment) -> dict[str, Any]:
    """`to_json` with dotted names: `{"name": ..., "model.type": ..., "model.depth": ...}`.

    A user's own class appears as its name under `model.shortcut`, the first digits of the hash of
    its code under `model.shortcut.code`, and its fields under `model.shortcut.FIELD`.
    """
    flat: dict[str, Any] = {}
    for name, part in to_json(experiment).items():
        if name == "format":
            continue
        if not isinstance(part, dict):
            flat[name] = part
            continue
        for field, value in part.items():
            flat |= _flat_own(f"{name}.{field}", value)
    return flat


def _flat_own(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    if value.get("type") != "Own":
        return {f"{name}.{field}": inner for field, inner in value.items()}
    fields = {f"{name}.{field}": inner for field, inner in value["fields"].items()}
    return {name: value["name"], f"{name}.code": value["code_sha256"][:12], **fields}
