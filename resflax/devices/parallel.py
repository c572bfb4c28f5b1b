"""Runs the same function on all devices, by `jax.pmap` or by `jax.jit(jax.shard_map(...))`.

A function is written once, for one replica. It takes a state and other arrays that are whole on
every device, and its share of a batch whose leading axis is sharded. It may communicate over the
axis `AXIS`, and returns values that are equal on all devices.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from resflax.devices.compilation import compile_for
from resflax.errors import UsageError

AXIS = "data"
"""Name of the axis over which replicas communicate."""

Parallel = Literal["pmap", "shard_map"]


class ReplicatedFunction:
    """A replica's function on all devices, compiled once for each set of argument shapes."""

    def __init__(self, compile_function: Callable[..., Any]) -> None:
        self._compile_function = compile_function
        self._programs: dict[Any, Any] = {}

    def __call__(self, state: Any, replicated: Any, batch: Any) -> Any:
        """Runs the function.

        Args:
          state: a tree of arrays that are whole on every device.
          replicated: another tree of arrays that are whole on every device, never donated.
          batch: a tree of arrays from `Devices.shard` or `Devices.shard_own_rows`.
        """
        return self.compile(state, replicated, batch)(state, replicated, batch)

    def compile(self, state: Any, replicated: Any, batch: Any) -> Any:
        """The compiled program for arguments of these shapes; the state may be abstract."""
        leaves, structure = jax.tree.flatten((replicated, batch))  # a state's shapes never change
        shapes = structure, tuple((np.shape(leaf), np.dtype(leaf.dtype)) for leaf in leaves)
        if shapes not in self._programs:
            self._programs[shapes] = self._compile_function(state, replicated, batch)
        return self._programs[shapes]


class Devices:
    """The devices of a run, which form one row of replicas."""

    steps_per_call = 64
    """The most training steps in one call. The operating system provides new memory for every call,
    which on CPUs takes up to a sixth of the time of a single step (benchmarks/notes.md)."""

    def __init__(self, parallel: Parallel, devices: Sequence[jax.Device] | None = None) -> None:
        """Uses all devices if `devices` is None.

        Raises `UsageError` for pmap on several hosts.
        """
        self.parallel = parallel
        self.devices = (
            sorted(jax.devices(), key=_host_and_number) if devices is None else [*devices]
        )
        self.local = [d for d in self.devices if d.process_index == jax.process_index()]
        self.hosts = len({device.process_index for device in self.devices})
        if self.hosts > 1 and parallel == "pmap":
            raise UsageError("several hosts need --parallel shard_map")
        mesh = Mesh(np.array(self.devices), (AXIS,))
        self._whole = NamedSharding(mesh, PartitionSpec())
        self._sharded = NamedSharding(mesh, PartitionSpec(AXIS))

    @property
    def platform(self) -> str:
        """cpu, gpu or tpu."""
        return self.devices[0].platform

    def check_batch_size(
        self, batch_size: int, micro_batches: int = 1, *, in_pairs: bool = False
    ) -> None:
        """Raises `UsageError` if a batch cannot be sharded evenly.

        Args:
          batch_size: number of examples in the batch.
          micro_batches: number of parts into which each device splits its share.
          in_pairs: whether the examples of each part must come in pairs.
        """
        devices = len(self.devices)
        divisor = devices * micro_batches * (2 if in_pairs else 1)
        if batch_size % divisor:
            below, above = batch_size // divisor * divisor, -(-batch_size // divisor) * divisor
            nearest = f"{below} or {above}" if below else f"{above}"
            factors = f"{devices} devices"
            factors += f" x {micro_batches} micro-batches" if micro_batches > 1 else ""
            factors += " x 2 pictures that are mixed" if in_pairs else ""
            raise UsageError(
                f"Experiment.batch_size is {batch_size}; it must be a multiple of the {factors} "
                f"(such as {nearest})"
            )

    def replicate(self, tree: Any) -> Any:
        """The arrays of a tree, copied whole to every device."""
        return jax.device_put(tree, self._whole)

    def abstract(self, make: Callable[[], Any]) -> Any:
        """Shapes, types and devices of what `replicate(make())` would give, without making it."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._whole),
            jax.eval_shape(make),
        )

    def shard(self, tree: Any) -> Any:
        """Shards the leading axis of the host arrays of a tree over the devices.

        Every host must have the whole arrays.
        """
        if self.hosts > 1:
            return jax.tree.map(
                lambda array: jax.make_array_from_callback(
                    array.shape, self._sharded, lambda index: array[index]
                ),
                tree,
            )
        return jax.device_put(jax.tree.map(self._split, tree), self._sharded)

    def shard_own_rows(self, tree: Any) -> Any:
        """Like `shard`, but each host has only its own rows, in the order of the hosts."""
        if self.hosts > 1:
            return jax.tree.map(
                lambda rows: jax.make_array_from_process_local_data(self._sharded, rows), tree
            )
        return self.shard(tree)

    def _split(self, array: np.ndarray) -> np.ndarray:
        """Reshapes (B, ...) for pmap to (devices, B / devices, ...); shard_map takes (B, ...)."""
        if self.parallel == "shard_map":
            return array
        count = len(self.devices)
        return array.reshape(count, len(array) // count, *array.shape[1:])

    def parallelize(
        self, replica: Callable[..., Any], *, donate_state: bool, tuned: bool = True
    ) -> ReplicatedFunction:
        """Makes a function that runs `replica(state, replicated, batch share)` on all devices.

        Args:
          replica: the function of one replica, which must return values that are equal on all
            devices; it may use the axis `AXIS`.
          donate_state: whether the state passed in may be overwritten, so that it is lost.
          tuned: whether to compile with the options of `compile_for`; False: XLA's defaults.
        """
        return ReplicatedFunction(
            partial(self._compile, self._map(replica, donate_state), tuned=tuned)
        )

    def _compile(self, function: Any, *arguments: Any, tuned: bool) -> Any:
        lowered = function.lower(*arguments)
        return compile_for(self.platform, lowered) if tuned else lowered.compile()

    def _map(self, replica: Callable[..., Any], donate_state: bool) -> Any:
        donated = (0,) if donate_state else ()
        if self.parallel == "pmap":
            return jax.pmap(
                replica,
                axis_name=AXIS,
                in_axes=(None, None, 0),
                out_axes=None,
                devices=self.devices,
                donate_argnums=donated,
            )
        whole, sharded = PartitionSpec(), PartitionSpec(AXIS)
        # check_vma=True would multiply gradients of replicated parameters by the number of devices
        # before our own pmean.
        mapped = jax.shard_map(
            replica,
            mesh=self._whole.mesh,
            in_specs=(whole, whole, sharded),
            out_specs=whole,
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donated)


def _host_and_number(device: jax.Device) -> tuple[int, int]:
    """Sort key that puts the devices of a host, and so its rows of a batch, next to each other."""
    return device.process_index, device.id
