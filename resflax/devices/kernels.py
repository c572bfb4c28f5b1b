"""What to say where CPUs compute without the kernels that were made for them."""

import jax

from resflax.kernels import library


def kernels_note() -> str | None:
    """A line for a user whose CPUs could be faster; None if they could not, or need not be."""
    fault = library.state().fault
    if fault is None or jax.default_backend() != "cpu":
        return None
    if fault == library.NOT_BUILT:
        fault = f"{fault}, for which a C++17 compiler is needed (g++ or clang++)"
    return (
        f"convolutions are slower without resflax's kernels for CPUs: {fault}; install resflax "
        "again, or set RESFLAX_KERNELS=off"
    )
