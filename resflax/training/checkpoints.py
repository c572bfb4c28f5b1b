"""Checkpoints: written by Orbax, and believed only where a sha256 manifest says they are whole.

The manifest is written when a save is finished; Orbax itself does not notice a flipped bit. A
folder without one is a save that was cut off.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
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

from resflax.errors import TrainingError, UsageError
from resflax.models.stacking import unstack
from resflax.training import hosts
from resflax.training.files import not_written, write_atomically, writing

MANIFEST = "sha256.json"
KEPT = 3

State = TypeVar("State")


class Checkpoints:
    """The checkpoints of one run, each in a folder named by its step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def steps(self) -> list[int]:
        """Steps that have a folder, good or not, in order."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdecimal())

    def newest_good(self, tell: Callable[[str], None], *, every: int = 1) -> int | None:
        """The newest step whose files are what was saved; None if nothing was ever saved.

        Args:
          tell: is given a line for every newer checkpoint that is passed over, and why.
          every: only multiples of it are looked at.

        Raises:
          TrainingError: if there are checkpoints, but all of them are damaged.
        """
        damaged = []
        for step in (step for step in reversed(self.steps()) if step % every == 0):
            folder = self.folder / str(step)
            if not (folder / MANIFEST).exists():
                tell(f"passing over checkpoint {step}: its save was not finished")
                continue
            fault = verify(folder)
            if fault is None:
                return step
            damaged.append(step)
            tell(f"passing over checkpoint {step}: {fault}")
        if damaged:
            raise TrainingError(
                f"all checkpoints in {self.folder} are damaged; to start over, remove the run's "
                "folder or name another with --run-dir"
            )
        return None

    def forget_after(self, step: int | None) -> None:
        """Removes unfinished checkpoints newer than `step` and puts damaged ones aside."""
        hosts.by_first(lambda: self._forget_after(step))

    def _forget_after(self, step: int | None) -> None:
        for newer in self.steps():
            if step is not None and newer <= step:
                continue
            folder = self.folder / str(newer)
            if (folder / MANIFEST).exists():
                aside = self.folder.parent / "damaged-checkpoints"
                aside.mkdir(exist_ok=True)
                shutil.rmtree(aside / str(newer), ignore_errors=True)
                folder.rename(aside / str(newer))
            else:
                shutil.rmtree(folder)

    def drop_after(self, step: int) -> None:
        """Removes all checkpoints newer than `step`."""
        hosts.by_first(lambda: self._drop_after(step))

    def _drop_after(self, step: int) -> None:
        for newer in self.steps():
            if newer > step:
                shutil.rmtree(self.folder / str(newer))

    def restore(self, step: int, like: State) -> tuple[State, dict[str, Any]]:
        """What was saved at `step`; the state with the structure, types and devices of `like`.

        Raises `UsageError` if arrays of other shapes were saved.
        """
        self._check_shapes(step, like)
        with self._manager() as manager:
            saved = manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(like),
                    notes=ocp.args.JsonRestore(),
                ),
            )
        return saved["state"], saved["notes"]

    def restore_arrays(self, step: int) -> dict[str, Any]:
        """The state saved at `step` as nested dicts and lists of arrays on one local device.

        Its `params` and `batch_stats` are those that are evaluated, moving averages if the run has
        them, by module path, stacked units taken apart.
        """
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one),
            self._shapes(step),
        )
        state, _ = self.restore(step, like)
        state |= state["average"] or {}
        named = ("params", "batch_stats")
        return {name: unstack(tree) if name in named else tree for name, tree in state.items()}

    def _check_shapes(self, step: int, like: Any) -> None:
        """Before Orbax begins to read: it would leave threads behind that complain for long."""
        saved = _by_path(self._shapes(step))
        for name, leaf in _by_path(like).items():
            found = saved[name].shape if name in saved else None
            if found != leaf.shape:
                raise UsageError(
                    f"checkpoint {step} in {self.folder} does not fit: its {name} has the shape "
                    f"{found}, and here it must be {leaf.shape}"
                )

    def _shapes(self, step: int) -> Any:
        metadata = ocp.StandardCheckpointer().metadata(self.folder / str(step) / "state")
        return metadata.item_metadata.tree

    def save(self, step: int, state: Any, notes: dict[str, Any], *, every: int = 1) -> None:
        """Saves the state, with some JSON, and returns when it is on disk.

        Keeps the newest few, and of the multiples of `every` the newest two in any case.

        Raises `TrainingError` if it cannot be written. What is there of it then has no manifest.
        """
        folder = self.folder / str(step)
        regular = [there for there in (*self.steps(), step) if there % every == 0]
        keep = AnyPreservationPolicy([LatestN(KEPT), CustomSteps(regular[-2:])])
        # From the host: half the time that Orbax takes for arrays on devices.
        state = jax.device_get(state)
        try:
            with _one_voice(), self._manager(keep) as manager:
                manager.save(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardSave(state),
                        notes=ocp.args.JsonSave(notes),
                    ),
                )
                manager.wait_until_finished()
        except Exception as error:  # Orbax and TensorStore wrap the system's in many kinds
            raise not_written(folder, error) from error
        hosts.by_first(lambda: _seal(folder))

    def _manager(self, keep: PreservationPolicy | None = None) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                # Saves run beside the steps as a whole, manifest and all: see `background`.
                enable_async_checkpointing=False,
                preservation_policy=keep,
                cleanup_tmp_directories=keep is not None,
                read_only=keep is None,
            ),
        )


def _by_path(tree: Any) -> dict[str, Any]:
    """Leaves by names such as `params/head/bias`, whatever kinds of nodes are above them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


@contextlib.contextmanager
def _one_voice() -> Iterator[None]:
    """Keeps a save's threads from printing and logging errors: the save raises them.

    After a failure they stay silent, for some are still ending when it is known.
    """
    before = threading.excepthook, sys.unraisablehook, logging.root.manager.disable
    threading.excepthook = lambda unhandled: None
    sys.unraisablehook = lambda unhandled: None
    logging.disable(logging.CRITICAL)
    yield
    threading.excepthook, sys.unraisablehook, disabled = before
    logging.disable(disabled)


def _seal(folder: Path) -> None:
    """Writes the manifest of what is there."""
    with writing(folder):
        hashes = json.dumps(_hashes(folder), indent=1, sort_keys=True)
        write_atomically(folder / MANIFEST, hashes)


def verify(folder: Path) -> str | None:
    """What is wrong with a finished checkpoint, or None."""
    try:
        expected = json.loads((folder / MANIFEST).read_text())
        found = _hashes(folder)
    except (OSError, ValueError) as error:
        return f"it cannot be read ({error})"
    if not isinstance(expected, dict):
        return f"its {MANIFEST} is damaged"
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"its file {name} is missing"
        if name not in expected:
            return f"its file {name} does not belong to it"
        if found[name] != expected[name]:
            return f"its file {name} is damaged"
    return None


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }
