"""Running a replica's function on all devices: by jax.pmap, or by jax.jit(jax.shard_map(...)).

Both take the same arguments: a state that is whole on every device, examples likewise, and a
batch whose leading axis is dealt out. Both return what every device agrees on, undivided.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from resflax.errors import UsageError
from resflax.training.step import AXIS

Parallel = Literal["pmap", "shard_map"]


_LIBRARY = "xla_cpu_experimental_ynn_fusion_type"


def compile_for(platform: str, lowered: Any) -> Any:
    """The program of a lowered function, with the compiler options that are best on a platform.

    An XLA that does not know them compiles without.
    """
    try:
        return lowered.compile(compiler_options=_options(platform, lowered))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise
        return lowered.compile()


def _options(platform: str, lowered: Any) -> dict[str, str] | None:
    """On CPUs elementwise work and reductions in kernels of a library, and lone convolutions not.

    ResNets train 2 to 4 times as fast by it (benchmarks/notes.md).
    """
    if platform != "cpu":
        return None
    if "bf16" in lowered.as_text():  # JAX 0.12 uses it unasked, with NaN in bfloat16
        return {_LIBRARY: ""}
    return {_LIBRARY: "LIBRARY_FUSION_TYPE_ELTWISE,LIBRARY_FUSION_TYPE_REDUCE"}


class OnDevices:
    """A function on all devices, compiled for every shape of its arguments that it meets."""

    def __init__(self, compile_function: Callable[..., tuple[Callable[..., Any], Any]]) -> None:
        self._compile = compile_function
        self._programs: dict[Any, Callable[..., Any]] = {}

    def __call__(self, state: Any, examples: Any, batch: Any) -> Any:
        """Runs it."""
        return self.prepare(state, examples, batch)(state, examples, batch)

    def prepare(self, state: Any, examples: Any, batch: Any) -> Callable[..., Any]:
        """Compiles it for arguments like these, unless it is; the state may be abstract."""
        leaves, structure = jax.tree.flatten((examples, batch))  # a state's shapes do not change
        shapes = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if shapes not in self._programs:
            self._programs[shapes], _ = self._compile(state, examples, batch)
        return self._programs[shapes]


def _place(device: jax.Device) -> tuple[int, int]:
    """Those of a host are neighbours, so that its rows of a batch are."""
    return device.process_index, device.id


class Devices:
    """The devices of a run, in a row called "data"."""

    steps_at_once = 64
    """Steps that one call may do. Memory is got from the system anew for every call, which on CPUs
    takes up to a sixth of the time of a step by itself (benchmarks/notes.md)."""

    def __init__(self, parallel: Parallel, devices: Sequence[jax.Device] | None = None) -> None:
        self.parallel = parallel
        self.devices = sorted(jax.devices(), key=_place) if devices is None else list(devices)
        self.of_host = [d for d in self.devices if d.process_index == jax.process_index()]
        self.hosts = len({device.process_index for device in self.devices})
        if self.hosts > 1 and parallel == "pmap":
            raise UsageError("several hosts need --parallel shard_map")
        self.mesh = Mesh(np.array(self.devices), (AXIS,))

    def check_batch_size(self, batch_size: int, parts: int = 1, *, pairs: bool = False) -> None:
        """Raises `UsageError` if the batch cannot be dealt out evenly.

        Args:
          batch_size: of the batch.
          parts: micro-batches that each device makes of its share.
          pairs: whether each of these must have pictures in pairs.
        """
        devices = len(self.devices)
        count = devices * parts * (2 if pairs else 1)
        if batch_size % count:
            below, above = batch_size // count * count, -(-batch_size // count) * count
            nearest = f"{below} or {above}" if below else f"{above}"
            factors = f"{devices} devices"
            factors += f" x {parts} micro-batches" if parts > 1 else ""
            factors += " x 2 pictures that are mixed" if pairs else ""
            raise UsageError(
                f"Experiment.batch_size is {batch_size}; it must be a multiple of the {factors} "
                f"(such as {nearest})"
            )

    def replicate(self, tree: Any) -> Any:
        """The arrays of a tree, copied whole to every device."""
        return jax.device_put(tree, self._whole)

    def deal(self, tree: Any) -> Any:
        """The arrays of a tree, their leading axis dealt out to the devices, on its way there.

        Of several hosts each gives its own rows.
        """
        if self.hosts > 1:
            return jax.tree.map(
                lambda own: jax.make_array_from_process_local_data(self._dealt, own), tree
            )
        return jax.device_put(jax.tree.map(self._whole_batch, tree), self._dealt)

    def abstract(self, make: Callable[[], Any]) -> Any:
        """Shapes, types and devices of what `replicate(make())` would give, without making it."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._whole),
            jax.eval_shape(make),
        )

    @property
    def platform(self) -> str:
        """cpu, gpu or tpu."""
        return self.devices[0].platform

    @property
    def _whole(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def _dealt(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    def parallelize(self, replica: Callable[..., Any], *, donate_state: bool) -> OnDevices:
        """`replica(state, examples, batch share)` on all devices: `f(state, examples, batch)`.

        Args:
          replica: returns values that are equal on all devices; may use the axis "data".
          donate_state: whether the state passed in may be overwritten; it is gone afterwards.
        """
        return OnDevices(partial(self.compile, replica, donate_state=donate_state))

    def compile(
        self,
        replica: Callable[..., Any],
        state: Any,
        examples: Any,
        batch: Any,
        *,
        donate_state: bool,
        tuned: bool = True,
    ) -> tuple[Callable[..., Any], Any]:
        """The function of `parallelize`, and its program compiled for the types of the arguments.

        The state may be abstract. Unless `tuned`, XLA's own options are taken.
        """
        mapped = self._map(replica, donate_state)
        lowered = mapped.lower(state, examples, jax.tree.map(self._whole_batch, batch))
        program = compile_for(self.platform, lowered) if tuned else lowered.compile()
        return (
            lambda state, examples, batch: program(
                state, examples, jax.tree.map(self._whole_batch, batch)
            ),
            program,
        )

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
        whole, dealt = PartitionSpec(), PartitionSpec(AXIS)
        # check_vma=True would multiply gradients of the replicated parameters by the number of
        # devices before our own pmean.
        mapped = jax.shard_map(
            replica,
            mesh=self.mesh,
            in_specs=(whole, whole, dealt),
            out_specs=whole,
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donated)

    def _whole_batch(self, array: Any) -> Any:
        """A batch that every host has whole, as programs take it."""
        if isinstance(array, jax.Array):  # dealt out already
            return array
        if self.hosts > 1:
            return jax.make_array_from_callback(array.shape, self._dealt, lambda at: array[at])
        if self.parallel == "shard_map":
            return array
        count = len(self.devices)
        return array.reshape(count, len(array) // count, *array.shape[1:])
