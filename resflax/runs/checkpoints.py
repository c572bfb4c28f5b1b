"""Checkpoints, which Orbax writes. They are used only if their manifest proves them undamaged."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    CustomSteps,
    LatestN,
    PreservationPolicy,
)

from resflax.devices import hosts
from resflax.errors import TrainingError, UsageError
from resflax.files import not_written
from resflax.models.stacking import unstack
from resflax.paths import check_utf8
from resflax.runs import manifest
from resflax.runs.quiet import quiet_reading, quiet_threads

KEPT = 3
"""How many of the newest checkpoints are kept."""

Tree = TypeVar("Tree")


class Checkpoints:
    """The checkpoints of one run, each in a folder named by its step."""

    def __init__(self, folder: Path) -> None:
        """Raises `UsageError` if the path of the folder is not UTF-8."""
        check_utf8(folder)
        self.folder = folder.absolute()

    def steps(self) -> list[int]:
        """The steps that have a checkpoint folder, whole or not, in ascending order."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdecimal())

    def good(self, say: Callable[[str], None], *, every: int = 1) -> Iterator[int]:
        """The steps whose files are as they were saved, from the newest to the oldest.

        Each is checked when it is asked for. There are none if no save was ever finished.

        Args:
          say: is called with a line for every checkpoint that is skipped, with the reason.
          every: only steps that are multiples of this number are considered.

        Raises:
          TrainingError: if there are checkpoints, but all of them are damaged.
        """
        damaged, good = False, False
        for step in (step for step in reversed(self.steps()) if step % every == 0):
            folder = self.folder / str(step)
            if not manifest.exists(folder):
                say(f"passing over checkpoint {step}: its save was not finished")
            elif (fault := manifest.fault(folder)) is not None:
                damaged = True
                say(f"passing over checkpoint {step}: {fault}")
            else:
                good = True
                yield step
        if damaged and not good:
            raise TrainingError(
                f"all checkpoints in {self.folder} are damaged; to start over, remove the run's "
                "folder or name another with --run-dir"
            )

    def newest_good(self, say: Callable[[str], None], *, every: int = 1) -> int | None:
        """The newest step of `good`, which raises the same; None if no save was ever finished."""
        return next(self.good(say, every=every), None)

    def fault(self, step: int) -> str | None:
        """Why the checkpoint of a step cannot be used; None if it is as it was saved."""
        folder = self.folder / str(step)
        return manifest.fault(folder) if manifest.exists(folder) else "it does not exist"

    def forget_after(self, step: int | None) -> None:
        """Removes unfinished checkpoints newer than `step`, and sets damaged ones aside."""
        hosts.on_first(lambda: self._forget_after(step))

    def _forget_after(self, step: int | None) -> None:
        for newer in self.steps():
            if step is not None and newer <= step:
                continue
            folder = self.folder / str(newer)
            if manifest.exists(folder):
                aside = self.folder.parent / "damaged-checkpoints"
                aside.mkdir(exist_ok=True)
                shutil.rmtree(aside / str(newer), ignore_errors=True)
                folder.rename(aside / str(newer))
            else:
                shutil.rmtree(folder)

    def drop_after(self, step: int) -> None:
        """Removes all checkpoints newer than `step`."""
        hosts.on_first(lambda: self._drop_after(step))

    def _drop_after(self, step: int) -> None:
        for newer in self.steps():
            if newer > step:
                shutil.rmtree(self.folder / str(newer))

    def restore(self, step: int, like: Tree) -> tuple[Tree, dict[str, Any]]:
        """Returns the state and the notes that were saved at `step`.

        The state has the structure, types and devices of `like`. Raises `UsageError` if the saved
        arrays have other shapes than those of `like`.
        """
        self._check_shapes(step, like)
        with quiet_reading(), self._manager() as manager:
            saved = manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(like),
                    notes=ocp.args.JsonRestore(),
                ),
            )
        return saved["state"], saved["notes"]

    def notes(self, step: int) -> dict[str, Any]:
        """Returns the notes that were saved at `step`. A single one of several hosts may ask."""
        with quiet_reading():  # a manager would wait for the other hosts
            notes: dict[str, Any] = ocp.JsonCheckpointHandler().restore(
                self.folder / str(step) / "notes", args=ocp.args.JsonRestore()
            )
        return notes

    def restore_arrays(self, step: int) -> dict[str, Any]:
        """Returns the state saved at `step` as nested dicts and lists of arrays on a local device.

        `params` and `batch_stats` are the ones that evaluations use: the moving averages if the run
        has them. They are nested by module path, and stacked units are taken apart.
        """
        one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one_device),
            self._saved_shapes(step),
        )
        state, _ = self.restore(step, like)
        state |= state["average"] or {}
        by_path = ("params", "batch_stats")
        return {name: unstack(tree) if name in by_path else tree for name, tree in state.items()}

    def _check_shapes(self, step: int, like: Any) -> None:
        """Raises `UsageError` unless the arrays saved at `step` have the shapes of `like`.

        The check comes before Orbax begins to read, because Orbax's threads would otherwise go on
        printing errors for a long time.
        """
        saved = _by_path(self._saved_shapes(step))
        for name, leaf in _by_path(like).items():
            shape = saved[name].shape if name in saved else None
            if shape != leaf.shape:
                raise UsageError(
                    f"checkpoint {step} in {self.folder} does not fit: its {name} has the shape "
                    f"{shape}, and here it must be {leaf.shape}"
                )

    def _saved_shapes(self, step: int) -> Any:
        with quiet_reading():
            metadata = ocp.StandardCheckpointer().metadata(self.folder / str(step) / "state")
        return metadata.item_metadata.tree

    def save(
        self,
        step: int,
        state: Any,
        notes: dict[str, Any],
        *,
        every: int = 1,
        bests: Sequence[int] = (),
    ) -> None:
        """Saves the state and some JSON, and returns when both are on disk.

        The newest `KEPT` checkpoints are kept, and also the newest two at multiples of `every`.
        From whichever of them the run goes on, it still has its best up to there: for each of them,
        the newest one of `bests` that is not newer is kept too.

        Raises `TrainingError` if the checkpoint cannot be written. An incomplete checkpoint has no
        manifest.
        """
        folder = self.folder / str(step)
        there = sorted({*self.steps(), step})
        newest, regular = there[-KEPT:], [saved for saved in there if saved % every == 0][-2:]
        best = [max((b for b in bests if b <= x), default=x) for x in (*newest, *regular)]
        keep = AnyPreservationPolicy([LatestN(KEPT), CustomSteps([*regular, *best])])
        # Orbax takes twice as long to save arrays that are on devices.
        state = jax.device_get(state)
        try:
            with quiet_threads(), self._manager(keep) as manager:
                manager.save(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardSave(state),
                        notes=ocp.args.JsonSave(notes),
                    ),
                )
                manager.wait_until_finished()
        except Exception as error:  # Orbax and TensorStore wrap system errors in many types
            raise not_written(folder, error) from error
        hosts.on_first(lambda: manifest.write(folder))

    def _manager(self, keep: PreservationPolicy | None = None) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                # The whole save, manifest included, already runs in the background: see
                # `runs.background`.
                enable_async_checkpointing=False,
                preservation_policy=keep,
                cleanup_tmp_directories=keep is not None,
                read_only=keep is None,
            ),
        )


def _by_path(tree: Any) -> dict[str, Any]:
    """The leaves by names such as `params/head/bias`, whatever types the nodes above them have."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
