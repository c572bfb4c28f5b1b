"""Random numbers on the devices that do not depend on the user's settings of JAX."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def pinned_randomness() -> Iterator[None]:
    """Makes `jax.random` draw the same numbers everywhere, in this thread, until the context ends.

    JAX_DEFAULT_PRNG_IMPL and JAX_THREEFRY_PARTITIONABLE, or the settings of a notebook, would
    otherwise change the weights and the augmentation of a run, and also those of a run that is
    continued. These are the values that JAX itself has by default since version 0.5.
    """
    with jax.default_prng_impl("threefry2x32"), jax.threefry_partitionable(True):
        yield
