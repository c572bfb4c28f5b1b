"""Opens what an evaluation measures: the data of the runs themselves, or other data.

Networks see other data as their own: resized and cropped to the size of training, with the run's
own normalisation. Its classes get the numbers of the networks' classes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from resflax.data.class_matching import ClassMatching, match_classes
from resflax.data.class_names import class_names
from resflax.data.description import describe
from resflax.data.encoded import CHANNELS, SplitName
from resflax.data.measured_split import (
    MeasuredSplit,
    Renumbered,
    SplitFacts,
    describe_split,
    open_measured_split,
)
from resflax.data.pictures.decoding import decode
from resflax.declarations.data import Data, Streamed
from resflax.devices import hosts
from resflax.errors import UsageError
from resflax.evaluation.network import ImageShape, count_classes, trained_shape
from resflax.evaluation.split_reader import (
    DiskReader,
    SplitReader,
    open_split,
    trained_picture_format,
)
from resflax.evaluation.views import PictureFormat
from resflax.runs.run_folder import RunFolder
from resflax.runs.trained import load_trained
from resflax.terminal.display import Display


@dataclass(frozen=True)
class DataMeasured:
    """The data of an evaluation, for its result."""

    facts: SplitFacts
    own: bool
    """Whether this is the run's own data."""
    classes: int
    """Number of the set's classes."""
    matched_by: Literal["name", "number"] | None
    """How the set's classes were found among the network's; None for the run's own data."""
    several_labels: bool
    """Whether a picture may have several labels, of which each is right."""

    def to_json(self) -> dict[str, Any]:
        """All fields and those of `facts` as one flat dict."""
        fields = asdict(self)
        return fields | fields.pop("facts")

    def in_words(self) -> str:
        """The set, as in "cifar10_1/v6 1.1.0"."""
        version = self.facts.version
        return self.facts.name if version is None else f"{self.facts.name} {version}"


class Subject(NamedTuple):
    """Examples that are ready to be shown to the networks of some runs."""

    reader: SplitReader
    """Reads the examples. Their classes have the networks' numbers."""
    num_classes: int
    """Number of the networks' classes."""
    class_names: list[str] | None
    """The names of these classes in order; None if they are not known."""
    formats: list[PictureFormat]
    """For each run, the format of the pictures that it was trained on."""
    data: DataMeasured


def own_subject(declared: Sequence[Data], split: SplitName, display: Display) -> Subject:
    """A split of the runs' own data.

    Args:
      declared: the data of each run; all have the same examples.
      split: the split.
      display: shows the progress.

    Raises `UsageError` if the data cannot be read.
    """
    data = declared[0]
    num_classes = describe(data).num_classes
    reader = open_split(data, split, display)
    facts = hosts.on_all(partial(describe_split, data, split))
    measured = DataMeasured(facts, True, num_classes, None, False)
    formats = [trained_picture_format(each) for each in declared]
    return Subject(reader, num_classes, class_names(data), formats, measured)


class _Run(NamedTuple):
    """Holds what has to be known of a run to show it other data than its own."""

    path: str
    num_classes: int
    shape: ImageShape
    names: list[str] | None
    """The names of its classes, if its own data can be found."""
    data: Data


def other_subject(
    folders: Sequence[RunFolder],
    own: Sequence[Data],
    data: Data,
    split: SplitName,
    display: Display,
    *,
    best: bool = False,
) -> Subject:
    """A split of other data than the runs'.

    The runs' own data need not be there; if it is, it tells the names of the classes.

    Args:
      folders: the folders of the runs.
      own: the data of each run.
      data: the data that is measured.
      split: its split, `train` or `test`.
      display: shows messages.
      best: whether the runs' best checkpoints are measured.

    Raises:
      UsageError: if the data cannot be read; if its pictures or classes do not fit the networks; if
        the networks' classes differ.
    """
    opened = hosts.on_all(partial(open_measured_split, data, split))
    hosts.check_same("pictures", opened.facts.sha256)
    for note in opened.notes:
        display.say(note)
    where = opened.facts.name
    runs = [_run(folder, declared, best) for folder, declared in zip(folders, own, strict=True)]
    names = _common_names(runs)
    first = runs[0]
    matching = match_classes(opened.class_names, opened.named, names, first.num_classes, where)
    formats = [_format(run, opened) for run in runs]
    size = None if isinstance(data, Streamed) else _checked_size(runs, formats, opened)
    channels = {picture_format.shape[2] for picture_format in formats}
    if len(channels) > 1:
        raise UsageError("an ensemble needs runs that were trained on as many channels")
    if isinstance(data, Streamed) and not isinstance(first.data, Streamed):
        display.say(
            "pictures of other sizes are resized and cropped to {}x{}".format(*formats[0].size)
        )
    reader = DiskReader(
        Renumbered(opened.examples, matching.numbers),
        first.num_classes,
        display.say,
        channels.pop(),
        size,
    )
    return Subject(reader, first.num_classes, names, formats, _data_measured(opened, matching))


def _data_measured(opened: MeasuredSplit, matching: ClassMatching) -> DataMeasured:
    return DataMeasured(
        facts=opened.facts,
        own=False,
        classes=len(matching.numbers),
        matched_by=matching.by,
        several_labels=opened.several_labels,
    )


def _run(folder: RunFolder, data: Data, best: bool) -> _Run:
    """Describes a run: from its data if they can be found, and else from its weights."""
    path = str(folder.path)
    known = hosts.on_all(partial(_told_by_data, path, data))
    hosts.check_same(f"data of {path}", repr(known))
    if known is not None:
        return known
    trained = load_trained(folder, lambda line: None, best=best)
    return _Run(path, count_classes(trained), trained_shape(trained), None, data)


def _told_by_data(path: str, data: Data) -> _Run | None:
    """Describes a run from its data; returns None if they cannot be found or used."""
    try:
        facts, names = describe(data), class_names(data)
        shape: ImageShape = facts.height, facts.width, facts.channels
        if None in shape:
            shape = trained_picture_format(data).shape
    except UsageError:
        return None
    return _Run(path, facts.num_classes, shape, names, data)


def _common_names(runs: Sequence[_Run]) -> list[str] | None:
    """The names of the runs' classes. Raises `UsageError` if the runs have different classes."""
    known = [run for run in runs if run.names is not None]
    for run in runs:
        if run.num_classes != runs[0].num_classes:
            raise UsageError(
                f"an ensemble needs runs of the same classes, but {runs[0].path} has "
                f"{runs[0].num_classes} and {run.path} has {run.num_classes}"
            )
    for run in known:
        assert run.names is not None, "these are known"
        assert known[0].names is not None, "these are known"
        for number, (here, there) in enumerate(zip(known[0].names, run.names, strict=True)):
            if here != there:
                raise UsageError(
                    f"an ensemble needs runs of the same classes, but class {number} is {here} in "
                    f"{known[0].path} and {there} in {run.path}"
                )
    return known[0].names if known else None


def _format(run: _Run, opened: MeasuredSplit) -> PictureFormat:
    """The format of the pictures that a run was trained on."""
    if isinstance(run.data, Streamed):
        size = run.data.image_size
        shorter_side = run.data.test_shorter_side
        return PictureFormat((size, size, CHANNELS), shorter_side, 0, run.data.resize)
    height, width, channels = run.shape
    if height is None or width is None:  # then any size is right, as far as is known
        height, width, _ = opened.declared_shape
    if height is None or width is None:
        raise UsageError(
            f"the size of the pictures that {run.path} was trained on is not known, because its "
            "data set cannot be found; say where it is with --data-dir"
        )
    return PictureFormat((height, width, channels), None, run.data.crop_padding)


def _checked_size(
    runs: Sequence[_Run], formats: Sequence[PictureFormat], opened: MeasuredSplit
) -> tuple[int, int] | None:
    """The size that all pictures of a set of one size must have; None if they may have any.

    Raises `UsageError` if the set's pictures have another size, or another number of channels.
    """
    size: tuple[int, int] | None = None
    for run, picture_format in zip(runs, formats, strict=True):
        if picture_format.shorter_side is not None:
            continue  # this network's pictures are resized
        size = picture_format.size
        height, width, channels = opened.declared_shape
        if height is None or width is None:
            height, width = _size_of_first(opened)
        if channels is None:
            channels = picture_format.shape[2]
        if (height, width, channels) != picture_format.shape:
            trained_on = "x".join(map(str, picture_format.shape))
            raise UsageError(
                f"the pictures of {opened.facts.name} are {height}x{width}x{channels}, but "
                f"{run.path} was trained on {trained_on}"
            )
    return size


def _size_of_first(opened: MeasuredSplit) -> tuple[int, int]:
    try:
        encoded, _ = opened.examples[0]
        height, width, _ = decode(encoded).shape
    except Exception as error:  # a damaged file can raise anything
        raise UsageError(f"{opened.examples.name(0)}: {error}") from None
    return height, width
