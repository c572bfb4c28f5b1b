"""Training, networks and results for Python programs and notebooks.

These functions do what the commands do. Each imports what it needs only when it is called, so that
importing this file does not import JAX. Errors are `UsageError` and `TrainingError`.
"""

import dataclasses
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast, get_args

from resflax.declarations.data import Data
from resflax.errors import Interrupted, UsageError
from resflax.experiment import Experiment
from resflax.paths import PathLike, user_path

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from resflax.evaluation.evaluate import Evaluation
    from resflax.evaluation.loaded import LoadedNetwork

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Result:
    """The result of a finished run. It may stand wherever a run folder is asked for."""

    path: Path
    """The run folder."""
    steps: int
    """Number of steps of the training."""
    test_error: float
    """Top-1 error at the end of the training, as a fraction."""
    test_loss: float | None
    """Cross-entropy in nats; None if it was not finite."""
    train_error: float
    """Mean over the last training batches, with augmentation."""
    train_loss: float | None
    params: int
    """Number of parameters."""
    macs: int
    """Multiply-adds for one image."""
    seconds: float
    """Time spent on training steps."""
    params_sha256: str
    """Hash of the final parameters."""
    validation_error: float | None = None
    """Error on the held-out examples; None if there are none."""
    validation_loss: float | None = None
    best_step: int | None = None
    """The step with the lowest validation error, if the experiment has `keep_best`."""
    best_validation_error: float | None = None
    best_test_error: float | None = None
    """Test error of the checkpoint of that step."""
    rollbacks: tuple[Mapping[str, Any], ...] | None = None
    """The times that the run went back, if the experiment has `on_nonfinite="rollback"`."""

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        from resflax.runs.run_folder import describe_result

        return describe_result(self.path, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The content of result.json, as plain JSON values."""
        plain = {"status": "finished"} | dataclasses.asdict(self)
        del plain["path"]
        if self.validation_error is None:
            del plain["validation_error"], plain["validation_loss"]
        if self.best_step is None:
            del plain["best_step"], plain["best_validation_error"], plain["best_test_error"]
        if self.rollbacks is None:
            del plain["rollbacks"]
        else:
            plain["rollbacks"] = list(self.rollbacks)
        return plain


def train(experiment: Experiment, run_dir: PathLike | None = None) -> Result:
    """Trains an experiment and returns its result; continues a run that was begun.

    The folder keeps copies of the program that calls this function and of the modules beside it. If
    the run is finished, its result is returned at once. Ctrl-C (in a notebook: interrupt the
    kernel) saves the run and then raises KeyboardInterrupt; the same call continues the run, which
    ends as if nothing had happened, to the bit. SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU save
    it too, and then act as they do outside of this function; those that the program ignores stay
    ignored. Threads other than the main one do not notice signals. If what the function prints
    cannot be written, it goes on without.

    Args:
      experiment: the experiment.
      run_dir: the folder where the run is kept. None: `runs/NAME-HASH` in the working directory.

    Raises:
      UsageError: before anything is written, if the experiment, its data or the folder cannot be
        used, or if another process trains in the folder.
      TrainingError: if a loss or gradient is not finite, no checkpoint of the run can be read,
        something cannot be written, or memory runs out.
      KeyboardInterrupt: on Ctrl-C, after the run was saved.
    """
    if not isinstance(experiment, Experiment):
        raise UsageError(
            f"train needs an Experiment, and was given a {type(experiment).__name__}; an "
            "experiment is declared as Experiment(name=..., model=..., ...)"
        )
    from resflax.parts.user_files import read_program
    from resflax.runs import session
    from resflax.runs.initial_weights import with_initial_weights
    from resflax.runs.run_folder import RunFolder, default_run_path

    if run_dir is None:
        experiment = with_initial_weights(experiment)
    path = default_run_path(experiment) if run_dir is None else _path(run_dir, "run_dir")
    try:
        result = session.train(experiment, RunFolder(path), _console(), read_program())
    except Interrupted as interruption:
        number, text = interruption.signal, str(interruption)
    else:
        return _result(path, result)
    if number == signal.SIGINT:
        raise KeyboardInterrupt(text)
    signal.raise_signal(number)  # the program's own handler now answers, or the program ends
    raise Interrupted(number, text)


def load(run: PathLike, *, best: bool = False, trust_code: bool = False) -> "LoadedNetwork":
    """Loads the network of a run, finished or not, from its newest good checkpoint.

    The run's data set need not be there.

    Args:
      run: the run folder, or the `Result` of the run.
      best: whether to load the checkpoint with the lowest validation error, which a run with
        `keep_best` keeps, and not the newest.
      trust_code: whether to run the code of classes of your own as the folder keeps it, even if the
        file where it came from has changed or is gone.

    Raises:
      UsageError: if the folder is not a run folder or has no checkpoint.
      TrainingError: if all of its checkpoints are damaged.
    """
    from resflax.evaluation import loaded
    from resflax.runs.run_folder import RunFolder
    from resflax.terminal.display import Display

    with Display(_console()) as display:
        return loaded.load(RunFolder(_path(run, "run"), trust_code=trust_code), display, best=best)


def evaluate(
    runs: PathLike | Iterable[PathLike],
    split: SplitName = "test",
    crops: Literal[1, 10] = 1,
    scales: Sequence[int] = (),
    flip: bool = False,
    data_dir: PathLike | None = None,
    *,
    best: bool = False,
    trust_code: bool = False,
    data: Data | None = None,
    classes: Literal["all", "present"] = "all",
) -> "Evaluation":
    """Measures the network of a run, or the ensemble of several runs, over a whole split.

    Args:
      runs: a run folder or `Result`, or several, whose probabilities are averaged.
      split: the split. `validation` means the examples held out of the training split.
      crops: 10: average over the four corners and the centre, and the same five mirrored. Pictures
        of one size are padded first, as they were in training.
      scales: average over pictures resized to these lengths of the shorter side: over whole
        pictures or, with 10 crops, over ten crops of each.
      flip: average over mirrored pictures as well.
      data_dir: the folder where the runs' own data is now. None: the folder that the experiment
        declares.
      best: as for `load`.
      trust_code: as for `load`.
      data: other data to measure, such as `CIFAR10(name="cifar10_1/v6")`. Only the fields that name
        the examples count, because the network sees pictures as the test pictures of its training.
        None: the runs' own data.
      classes: the classes among which the network guesses: all of its classes, or only those that
        the measured pictures have, as ImageNet-A and ImageNet-R are measured.

    Returns:
      The `split`, the `views`, the `data`, the number of steps of each of the `runs`, and the
      `measures`: `top1_error`, `top5_error`, `loss`, `calibration_error`, `per_class_accuracy`,
      `examples`.

    Raises:
      UsageError: if a folder is not a run's or has no checkpoint; if the data cannot be read or
        does not allow these views; if a run is named twice or the runs have different data or
        classes; if the pictures or classes of other data do not fit the network.
      TrainingError: if all checkpoints of a run are damaged.
    """
    paths = _paths(runs, "runs")
    _check_choice(split, SplitName, "split")
    _check_choice(classes, Literal["all", "present"], "classes")
    if data is not None and not isinstance(data, Data):
        raise UsageError(
            f"data is of type {type(data).__name__}; it must be a declaration of data, such as "
            'CIFAR10(name="cifar10_1/v6")'
        )
    from resflax.evaluation.evaluate import evaluate as measure
    from resflax.evaluation.views import Views
    from resflax.runs.run_folder import RunFolder
    from resflax.terminal.display import Display

    views = Views(crops, cast(tuple[int, ...], scales), flip)  # which checks them
    folder = None if data_dir is None else str(_path(data_dir, "data_dir"))
    with Display(_console()) as display:
        run_folders = [RunFolder(path, trust_code=trust_code) for path in paths]
        return measure(
            run_folders, split, folder, display, views, best=best, data=data, classes=classes
        )


def results(folders: PathLike | Iterable[PathLike]) -> "pd.DataFrame":
    """A table of all runs in folders, with one row per run.

    The columns are `path`, `state`, `why` and `variant`; the fields of the experiments by dotted
    name, such as `model.depth` and `seed`; and the results, such as `steps_done`, `test_error`,
    `train_error`, `params`, `macs` and `seconds`, which unfinished runs lack. A run that cannot be
    read is left out, with a warning that names it.

    Args:
      folders: a run folder, a sweep folder or a folder that contains these, or several.

    Raises:
      UsageError: if a folder does not exist or has no runs, if none of them can be read, or if
        pandas is not installed.
    """
    from resflax.report.collect import collect_runs
    from resflax.report.dataframe import make_dataframe

    def note(line: str) -> None:
        warnings.warn(f"left out: {line}", stacklevel=3)

    return make_dataframe(collect_runs(_paths(folders, "folders"), note))


def _result(path: Path, plain: Mapping[str, Any]) -> Result:
    """The result of a run, from the content of its result.json."""
    names = (field.name for field in dataclasses.fields(Result))
    values: dict[str, Any] = {name: plain.get(name) for name in names}
    rollbacks = plain.get("rollbacks")
    values |= {"path": path, "rollbacks": None if rollbacks is None else tuple(rollbacks)}
    return Result(**values)


def _console() -> "Console":
    from rich.console import Console

    from resflax.terminal.output import ForgivingText

    if sys.stdout is None:  # it was closed when the program started
        return Console()
    return Console(file=cast(IO[str], ForgivingText(sys.stdout)))


def _check_choice(value: object, choices: Any, name: str) -> None:
    """Raises `UsageError` unless the value is one of those of a `Literal`."""
    if value not in get_args(choices):
        raise UsageError(f"{name} is {value!r}; it must be one of {', '.join(get_args(choices))}")


def _path(path: PathLike, name: str) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"{name} is of type {type(path).__name__}; it must be a path")
    return user_path(path)


def _paths(paths: PathLike | Iterable[PathLike], name: str) -> list[Path]:
    """One path or several as a list. Raises `UsageError` for anything else, and for no path."""
    if isinstance(paths, str | os.PathLike):
        return [user_path(paths)]
    several = list(paths) if isinstance(paths, Iterable) else []
    if not several:
        raise UsageError(f"{name} is {paths!r}; it must be a path or several paths")
    return [_path(path, name) for path in several]
