"""The experiment: one declaration of everything that decides a run, its JSON and its hash."""

import dataclasses
import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from resflax.declarations.augmentation import Augmentation
from resflax.declarations.checks import added, check_types, choices, field_types, refuse, short
from resflax.declarations.data import Data, Digits
from resflax.declarations.models import Model
from resflax.declarations.optimization import SGD, Optimizer, Schedule, StepDecay
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
        if not 0 <= self.seed < 2**32:
            refuse(self, "seed", "it must be at least 0 and below 2**32")

    def resolved(self) -> "Experiment":
        """The same experiment with every derived field written out."""
        return dataclasses.replace(self, model=self.model.resolved())

    @property
    def content_hash(self) -> str:
        """12 hex digits that depend on every resolved field and on nothing else."""
        text = json.dumps(to_json(self), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def to_json(experiment: Experiment) -> dict[str, Any]:
    """All resolved fields as plain JSON values; each part has its class name as `type`."""
    fields = plain(experiment.resolved())
    assert isinstance(fields, dict)
    return fields


def plain(value: Any) -> Any:
    """A declaration, or a field of one, as plain JSON values."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = {} if isinstance(value, Experiment) else {"type": type(value).__name__}
        names = (field.name for field in dataclasses.fields(value))
        return kind | {name: plain(getattr(value, name)) for name in names}
    return value


def from_json(value: object) -> Experiment:
    """The inverse of `to_json`. Raises `UsageError` for anything that is not an experiment."""
    return _construct(Experiment, value, "experiment")


def _construct(cls: Any, value: object, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} is {short(value)}; it must be an object of fields")
    fields = dict(value)
    types = field_types(cls)
    unknown = sorted(short(name) for name in fields.keys() - types.keys())
    if unknown:
        raise UsageError(f"{where} has no field {unknown[0]}; it has {', '.join(types)}")
    missing = sorted(types.keys() - fields.keys())  # to_json writes every field
    if missing:
        raise UsageError(f"{where} lacks the field {missing[0]}")
    values = {}
    for name, hint in types.items():
        classes = [c for c in choices(hint) if isinstance(c, type) and dataclasses.is_dataclass(c)]
        parts = {c.__name__: c for c in classes}
        values[name] = _part(parts, fields[name], f"{where}.{name}") if parts else fields[name]
    return cls(**values)


def _part(classes: Mapping[str, Any], value: object, where: str) -> Any:
    fields = dict(value) if isinstance(value, Mapping) else {}
    name = fields.pop("type", None)
    if not isinstance(name, str) or name not in classes:
        raise UsageError(f"{where}.type is {short(name)}; it must be one of {', '.join(classes)}")
    return _construct(classes[name], fields, where)


def differences(one: Experiment, other: Experiment) -> list[str]:
    """The fields in which two experiments differ, as `model.depth: 20 != 56`."""
    return _differences(to_json(one), to_json(other), "")


def _differences(one: Any, other: Any, where: str) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        lines = []
        for key in one.keys() | other.keys():
            path = f"{where}.{key}" if where else key
            lines += _differences(one.get(key), other.get(key), path)
        return sorted(lines)
    same = type(one) is type(other) and one == other
    return [] if same else [f"{where}: {short(one)} != {short(other)}"]


def with_fields(experiment: Experiment, fields: Mapping[str, Any]) -> Experiment:
    """The experiment with some fields replaced at once. Fields are named as in `model.depth`.

    As on the command line, `steps` replaces `epochs` and vice versa.

    Raises:
      UsageError: for a field that does not exist, or a value that is refused.
    """
    whole = {name: value for name, value in fields.items() if "." not in name}
    parts: dict[str, dict[str, Any]] = {}
    for name in fields.keys() - whole.keys():
        part, _, field = name.partition(".")
        parts.setdefault(part, {})[field] = fields[name]
    if ("steps" in whole) != ("epochs" in whole):
        whole = {"steps": None, "epochs": None} | whole
    for part, values in parts.items():
        declared = whole.get(part, getattr(experiment, part, None))
        if not dataclasses.is_dataclass(declared) or isinstance(declared, type):
            _refuse_unknown(f"{part}.{next(iter(values))}", experiment)
        names = {field.name for field in dataclasses.fields(declared)}
        for field in values.keys() - names:
            _refuse_unknown(f"{part}.{field}", experiment)
        whole[part] = dataclasses.replace(declared, **values)
    for name in whole.keys() - {field.name for field in dataclasses.fields(experiment)}:
        _refuse_unknown(name, experiment)
    return dataclasses.replace(experiment, **whole)


def _refuse_unknown(name: str, experiment: Experiment) -> NoReturn:
    close = difflib.get_close_matches(name, flat_json(experiment), n=1)
    advice = f"did you mean {close[0]}?" if close else "fields are named as in model.depth"
    raise UsageError(f"the experiment has no field {name}; {advice}")


def flat_json(experiment: Experiment) -> dict[str, Any]:
    """`to_json` with dotted names: `{"name": ..., "model.type": ..., "model.depth": ...}`."""
    return {
        (f"{name}.{field}" if field else name): value
        for name, part in to_json(experiment).items()
        for field, value in (part.items() if isinstance(part, dict) else [("", part)])
    }
