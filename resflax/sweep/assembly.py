"""Makes the queue and the executor of a sweep from its declaration and options."""

from resflax.declarations.sweeps import Grid, Sweep
from resflax.experiment import Experiment
from resflax.parts.user_files import UserFiles
from resflax.sweep.command_options import ExecutorName
from resflax.sweep.executors import Executor
from resflax.sweep.local import LocalExecutor, visible_gpus
from resflax.sweep.queues import GridQueue, Queue
from resflax.sweep.search import SearchQueue
from resflax.sweep.slurm import SlurmExecutor, SlurmOptions
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import expand_grid


def make_queue(
    folder: SweepFolder,
    experiment: Experiment,
    sweep: Sweep,
    group_size: int,
    files: UserFiles | None = None,
) -> Queue:
    """Makes the queue of a sweep's trials, and creates the sweep's folder.

    Args:
      folder: the sweep's folder. It is created only after everything else was checked.
      experiment: the experiment that the trials vary.
      sweep: a grid or a search.
      group_size: the largest number of trials of a grid that train together; 0 sets no limit.
      files: the experiment file and its modules, which the folder keeps.

    Raises:
      UsageError: if the experiment refuses a field or value of the sweep, or if the folder cannot
        be created or holds another sweep.
    """
    if isinstance(sweep, Grid):
        trials = expand_grid(experiment, sweep)
        folder.begin(experiment, files)
        folder.add(list(trials))
        return GridQueue(trials, group_size)
    SearchQueue.check(experiment, sweep)
    folder.begin(experiment, files)
    return SearchQueue(experiment, sweep, folder)


def make_executor(
    executor: ExecutorName,
    folder: SweepFolder,
    queue: Queue,
    jobs: int,
    slurm: SlurmOptions,
    job_name: str,
) -> Executor:
    """Makes the executor of a sweep's trials.

    Args:
      executor: processes of this machine, or jobs of a SLURM cluster.
      folder: the sweep's folder.
      queue: the sweep's trials. Those of a grid are all submitted to SLURM at once.
      jobs: the largest number of trials, or groups of trials, that run at the same time.
      slurm: the resources that every SLURM job requests.
      job_name: the name of the SLURM jobs.

    Raises:
      UsageError: if SLURM is asked for, and submitit is missing or this machine has no SLURM.
    """
    if executor == "local":
        return LocalExecutor(folder, jobs, visible_gpus())
    # The trials of a search cannot be submitted before they are proposed.
    capacity = len(queue.known_trials()) if isinstance(queue, GridQueue) else jobs
    return SlurmExecutor(folder, capacity, jobs, slurm, job_name)
