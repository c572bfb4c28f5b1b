"""Says how the software of a run has changed since its earlier sessions.

Nothing here imports JAX.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "resflax")
_OF_DEVICES = ("jax-cuda", "jax-rocm", "libtpu", "nvidia-cudnn", "nvidia-cublas")
"""Beginnings of the names of packages that compute on other devices."""
_OF_PICTURES = ("grain", "opencv-python-headless", "pillow", "simplejpeg")


def version_changes(
    sessions: Sequence[Mapping[str, Any]], now: Mapping[str, Any], *, streamed: bool
) -> str | None:
    """A line about the versions that differ from those of the newest session; None if none do.

    Only versions that can change numbers count: of Python, JAX and its libraries, resflax and its
    commit, and the kind of device; on CPUs, also of the kernels and their instruction set.

    Args:
      sessions: the environments of the run's sessions, from the oldest to the newest.
      now: the environment of the session that continues the run.
      streamed: whether pictures are decoded during the training, so that those libraries count too.
    """
    if not sessions:
        return None
    last, here = _facts(sessions[-1], streamed), _facts(now, streamed)
    differ = [name for name in here if name in last and last[name] != here[name]]
    if not differ:
        return None
    first = _facts(sessions[0], streamed)
    begun = all(first.get(name) == last[name] for name in differ)
    before = ", ".join(f"{name} {last[name]}" for name in differ)
    after = ", ".join(f"{name} {here[name]}" for name in differ)
    return (
        f"{'begun' if begun else 'last run'} with {before}, continued with {after}: numbers may "
        f"differ{'' if 'resflax' in differ else ' in rounding'}"
    )


def _facts(session: Mapping[str, Any], streamed: bool) -> dict[str, str]:
    """What may change numbers, as texts by name; what the session did not record is left out."""
    facts = {}
    if "python" in session:
        facts["Python"] = ".".join(str(session["python"]).split(".")[:2])
    wanted = (*_PACKAGES, *(_OF_PICTURES if streamed else ()))
    packages = session.get("packages") or {}
    installed = {str(name).lower(): str(version) for name, version in packages.items()}
    facts |= {name: installed[name] for name in wanted if name in installed}
    facts |= {name: installed[name] for name in sorted(installed) if name.startswith(_OF_DEVICES)}
    git = session.get("git")
    if isinstance(git, Mapping) and "commit" in git:
        changes = session.get("source_changes_sha256")
        with_changes = f" with changes {changes[:7]}" if changes else ""
        facts["resflax"] = (
            f"{facts.get('resflax', '')} at commit {git['commit'][:7]}{with_changes}".strip()
        )
    kinds = {str(device).partition(" ")[2] or str(device) for device in session.get("devices", ())}
    if kinds:
        facts["devices"] = " and ".join(sorted(kinds))
    if any(str(device).startswith("cpu") for device in session.get("devices", ())):
        facts["kernels"] = _kernels(session.get("kernels"))
    return facts


def _kernels(noted: Any) -> str:
    """The kernels of a session on CPUs as a text; earlier versions had none and noted nothing."""
    if not isinstance(noted, Mapping) or "instruction_set" not in noted:
        return "none"
    return f"{noted.get('version')} ({noted['instruction_set']})"
