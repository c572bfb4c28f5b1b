"""JAX's settings for the whole process, as far as resflax depends on them."""

from typing import Any, NamedTuple

import jax
from jax.extend.backend import clear_backends

from resflax.errors import UsageError
from resflax.kernels import library


class _Refused(NamedTuple):
    """The values of a setting with which resflax does not work."""

    values: tuple[Any, ...]
    instead: Any
    reason: str


_REFUSED = {
    "jax_enable_x64": _Refused((True,), False, "networks compute in float32 or bfloat16"),
    "jax_disable_jit": _Refused((True,), False, "every step is a compiled program"),
    "jax_numpy_rank_promotion": _Refused(("raise",), "allow", "layers add vectors to batches"),
    "jax_legacy_prng_key": _Refused(("error",), "allow", "random keys are arrays of uint32"),
    "jax_transfer_guard": _Refused(
        ("disallow", "disallow_explicit"), "allow", "batches are copied to the devices"
    ),
}


def check_settings() -> None:
    """Raises `UsageError` if JAX is set up so that networks cannot be computed.

    The same is raised if RESFLAX_KERNELS has no allowed value. JAX's settings come from environment
    variables such as JAX_ENABLE_X64 or from `jax.config.update`. They are not changed, because they
    belong to the whole process.
    """
    for name, refused in _REFUSED.items():
        value = jax.config.values.get(name)  # None in versions of JAX without this setting
        value = getattr(value, "value", value)  # newer versions have enumerations
        if value in refused.values:
            raise UsageError(
                f"JAX's setting {name} is {value}, and must be {refused.instead}, because "
                f"{refused.reason}: unset {name.upper()}, or call "
                f"jax.config.update({name!r}, {refused.instead!r})"
            )
    library.state()
    try:
        jax.devices()
    except Exception:  # for a platform whose plugin is missing, JAX raises AssertionError
        wanted, there = jax.config.values["jax_platforms"], _platform_of_its_own_choice()
        raise UsageError(
            f"JAX_PLATFORMS is {wanted}, and JAX has no such devices here; "
            + (f"it has {there}: set JAX_PLATFORMS={there}, or unset it" if there else "unset it")
        ) from None


def _platform_of_its_own_choice() -> str | None:
    """The platform that JAX uses if none is demanded; None if it finds no devices at all."""
    wanted = jax.config.values["jax_platforms"]
    clear_backends()
    jax.config.update("jax_platforms", None)
    try:
        return jax.default_backend()
    except Exception:  # as above
        return None
    finally:
        clear_backends()
        jax.config.update("jax_platforms", wanted)
