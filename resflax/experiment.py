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
from resflax.declarations.checks import check_types, choices, field_types, refuse, short
from resflax.declarations.data import Data, Digits
from resflax.declarations.models import Model
from resflax.declarations.optimization import SGD, Optimizer, Schedule, StepDecay
from resflax.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that decides what a run computes. Checked when constructed; immutable.

    Exactly one of `steps` and `epochs` is set. An epoch is one pass over the training examples;
    batches run on across its end, so that no example is dropped or repeated within it.
    """

    name: str
    """Letters, digits, dots, dashes and underscores; the run's folder begins with it."""

    model: Model
    """The network."""

    data: Data = dataclasses.field(default_factory=Digits)
    """What it learns from."""

    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    """What is done to training pictures and labels on the device, beside what `data` declares."""

    loss: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy"
    """Of training: softmax cross-entropy, or the mean over classes of the cross-entropy of each
    class by itself (ResNet Strikes Back, arXiv 2110.00476). Evaluation has the first."""

    optimizer: Optimizer = dataclasses.field(default_factory=SGD)
    """How it learns."""

    schedule: Schedule = dataclasses.field(default_factory=StepDecay)
    """How the learning rate moves."""

    batch_size: int
    """Examples per step over all devices together."""

    steps: int | None = None
    """Length of the training in optimizer steps."""

    epochs: float | None = None
    """Length of the training in passes over the training examples."""

    initialize_from: str | None = None
    """Run folder whose weights the training starts with, its classifier too if the number of
    classes is the same. None: weights drawn from the seed."""

    seed: int = 0
    """Decides initial weights, data order, augmentation and dropout."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of convolutions and activations. Parameters, statistics and the loss are always float32."""

    parallel: Literal["pmap", "shard_map"] = "pmap"
    """jax.pmap or jax.jit(jax.shard_map) over the devices of this machine: same numbers."""

    batch_norm: Literal["per_device", "synchronized"] = "per_device"
    """Whose examples a training batch's statistics come from: each device's own (as the papers'
    multi-GPU code), or all devices' (the same result on any number of devices)."""

    gradient_accumulation: int = 1
    """Micro-batches that a step takes one after another: the mean of their gradients, with less
    memory. Batch norm sees one micro-batch at a time, and its running averages take in each."""

    ema_decay: float | None = None
    """Decay of the exponential moving average of weights and batch statistics: after each step it
    is decay * average + (1 - decay) * new. The average is what is evaluated, exported and started
    from. None: no average."""

    precise_batch_norm: int = 0
    """Batches of training pictures, behind the last step's, whose mean and variance replace the
    running averages at the end of the training (as He et al.'s released models; Wu & Johnson
    2021, arXiv 2105.07576, section 3). 0: the running averages stay."""

    log_every: int = 100
    """Steps between lines of training loss and error in metrics.jsonl (means since the last)."""

    evaluate_every: int = 1000
    """Steps between evaluations: on the held-out examples if there are, else on the test split.
    The end of the training is always evaluated."""

    checkpoint_every: int = 1000
    """Steps between checkpoints. The end, and any interruption, is always saved."""

    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """When a step's loss or gradient is not finite: end the run, or go back to the newest
    checkpoint and take the data behind that step instead (three times at most from one place)."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value, or not exactly one of steps and epochs."""
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
    """All fields, resolved, as plain JSON values; parts carry their class name as `type`."""
    found = plain(experiment.resolved())
    assert isinstance(found, dict)
    return found


def plain(value: Any) -> Any:
    """A declaration, or a field of one, as plain JSON values."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = {} if isinstance(value, Experiment) else {"type": type(value).__name__}
        names = (field.name for field in dataclasses.fields(value))
        return kind | {name: plain(getattr(value, name)) for name in names}
    return value


def from_json(found: object) -> Experiment:
    """The inverse of `to_json`. Raises `UsageError` for anything that is not an experiment."""
    return _construct(Experiment, found, "experiment")


def _construct(cls: Any, found: object, where: str) -> Any:
    if not isinstance(found, Mapping):
        raise UsageError(f"{where} is {short(found)}; it must be an object of fields")
    fields = dict(found)
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


def _part(classes: Mapping[str, Any], found: object, where: str) -> Any:
    fields = dict(found) if isinstance(found, Mapping) else {}
    kind = fields.pop("type", None)
    if not isinstance(kind, str) or kind not in classes:
        raise UsageError(f"{where}.type is {short(kind)}; it must be one of {', '.join(classes)}")
    return _construct(classes[kind], fields, where)


def differences(one: Experiment, other: Experiment) -> list[str]:
    """The fields in which two experiments differ, as `model.depth: 20 != 56`."""
    return _differences(to_json(one), to_json(other), "")


def _differences(one: Any, other: Any, where: str) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for key in one.keys() | other.keys():
            path = f"{where}.{key}" if where else key
            found += _differences(one.get(key), other.get(key), path)
        return sorted(found)
    same = type(one) is type(other) and one == other
    return [] if same else [f"{where}: {short(one)} != {short(other)}"]


def with_fields(experiment: Experiment, fields: Mapping[str, Any]) -> Experiment:
    """The experiment with some fields replaced, named as in `model.depth`, all at once.

    As on the command line, `steps` replaces `epochs` and the other way round.

    Raises:
      UsageError: for a field that there is not, or a value that is refused.
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
