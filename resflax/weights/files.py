"""Files of named tensors: safetensors in and out, PyTorch's own in. No pickle is executed."""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from resflax.declarations.checks import short
from resflax.errors import UsageError

TORCH_SUFFIXES = (".pth", ".th", ".pt")


class Tensors(NamedTuple):
    """What a file holds."""

    arrays: dict[str, np.ndarray]
    notes: dict[str, str]
    """Texts beside the tensors, which only safetensors files can have."""


def read_tensors(path: Path) -> Tensors:
    """The tensors of a .safetensors file, or of a state dict in a .pth, .th or .pt file.

    A checkpoint that has its state dict as `state_dict` or `model` will do. PyTorch is imported
    for its own files only.

    Raises `UsageError` for a file that cannot be read or holds anything but such tensors.
    """
    if not path.is_file():
        raise UsageError(f"{path} cannot be read: there is no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in TORCH_SUFFIXES:
        return Tensors(_read_torch(path), {})
    endings = ", ".join((".safetensors", *TORCH_SUFFIXES))
    raise UsageError(f"{path} is no file of weights that is known; its name must end in {endings}")


def encode(arrays: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file."""
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return safetensors.numpy.save(whole, {"format": "pt", **notes})


def _read_safetensors(path: Path) -> Tensors:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            for name, kind in kinds.items():
                _check_type(path, name, kind, ("F32", "I64"))
            return Tensors({name: file.get_tensor(name) for name in kinds}, file.metadata() or {})
    except UsageError:
        raise
    except Exception as error:  # the library raises its own, OSError, ValueError, ...
        raise _unreadable(path, "safetensors file", error) from None


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise UsageError(
            f"{path} needs PyTorch to be read: pip install -e '.[torch]'; or give .safetensors"
        ) from None
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):  # CVE-2025-32434
        raise UsageError(
            f"{path} is not safe to read with PyTorch {torch.__version__}; it takes 2.6 or newer"
        )
    try:
        with warnings.catch_warnings():  # of what is odd in a damaged file
            warnings.simplefilter("ignore")
            _refuse_compressed(path)
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UsageError:
        raise
    except Exception as error:  # unpickling damaged bytes raises nearly anything
        raise _unreadable(path, "PyTorch file of plain tensors", error) from None
    for entry in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(entry), dict):
            loaded = loaded[entry]
            break
    if not isinstance(loaded, dict):
        raise UsageError(f"{path} holds a {type(loaded).__name__}; it must hold a state dict")
    return {_name(path, name): _array(path, name, value, torch) for name, value in loaded.items()}


def _refuse_compressed(path: Path) -> None:
    """PyTorch stores its tensors as they are: an archive that grows when unpacked is a trap."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > path.stat().st_size:
        raise UsageError(f"{path} cannot be read: it is compressed, which PyTorch files are not")


def _name(path: Path, name: object) -> str:
    if not isinstance(name, str):
        raise UsageError(f"{path} is no state dict: it has {short(name)} for a tensor's name")
    return name


def _array(path: Path, name: str, value: Any, torch: Any) -> np.ndarray:
    if not isinstance(value, torch.Tensor):
        raise UsageError(
            f"{path} is no state dict: its {short(name)} is a {type(value).__name__}, not a tensor"
        )
    _check_type(path, name, str(value.dtype), ("torch.float32", "torch.int64"))
    try:
        array: np.ndarray = value.detach().numpy()
    except Exception as error:  # sparse, quantized, without storage, ...
        raise _unreadable(path, f"PyTorch file of plain tensors: {short(name)}", error) from None
    return array


def _check_type(path: Path, name: str, found: str, allowed: tuple[str, str]) -> None:
    if found not in allowed:
        raise UsageError(f"{path}: {short(name)} holds {found} values; they must be {allowed[0]}")


def _unreadable(path: Path, kind: str, error: Exception) -> UsageError:
    reason = re.split(r"[.\n]", str(error).strip(), maxsplit=1)[0][:200]
    return UsageError(f"{path} cannot be read as a {kind} ({type(error).__name__}: {reason})")
