"""Says once, before the trials of a sweep start, what their schedules do not do."""

from collections import Counter
from collections.abc import Sequence

from resflax.declarations.schedule_notes import schedule_notes
from resflax.declarations.sweeps import Grid, Sweep
from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.sweep.trials import Trial


def sweep_notes(experiment: Experiment, sweep: Sweep, trials: Sequence[Trial]) -> list[str]:
    """Lines about parts of schedules that have no effect, because the trainings are too short.

    Args:
      experiment: the experiment that the trials vary.
      sweep: the grid or the search.
      trials: all trials of a grid. Those of a search are not known yet, so there are lines only
        about what it does not vary.
    """
    if isinstance(sweep, Grid):
        return notes_on([trial.experiment for trial in trials])
    parts = {name.partition(".")[0] for name in sweep.fields_that_vary}
    varied = parts & {"schedule", "steps", "epochs", "batch_size", "data"}
    return [] if varied else notes_on([experiment])


def notes_on(experiments: Sequence[Experiment]) -> list[str]:
    """The different `schedule_notes` of experiments; each says for how many of them it is true."""
    counts = Counter(note for experiment in experiments for note in _notes(experiment))
    total = len(experiments)
    return [
        note if count == total else f"{note} (so in {count} of {total} trials)"
        for note, count in counts.items()
    ]


def _notes(experiment: Experiment) -> list[str]:
    if experiment.steps is not None:
        return schedule_notes(experiment.schedule, experiment.steps)
    if not schedule_notes(experiment.schedule, 1):
        return []  # then there are none for any length, and the data need not be opened
    from resflax.data.description import training_examples  # imports TFDS

    try:
        examples = training_examples(experiment.data)
    except UsageError:  # the set is not prepared
        return []
    return schedule_notes(experiment.schedule, experiment.count_steps(examples))
