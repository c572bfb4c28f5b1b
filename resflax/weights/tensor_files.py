"""Reads and writes files of named tensors.

Reads safetensors and PyTorch's files, and makes safetensors. No code in a pickle is executed.
"""

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
from resflax.text import one_line

_TORCH_SUFFIXES = (".pth", ".th", ".pt")


class NamedTensors(NamedTuple):
    """The content of a file of tensors."""

    arrays: dict[str, np.ndarray]
    notes: dict[str, str]
    """Texts that are stored beside the tensors; only safetensors files can have them."""


def read_tensors(path: Path) -> NamedTensors:
    """Reads a .safetensors file, or the state dict in a .pth, .th or .pt file.

    The state dict may be the entry `state_dict` or `model` of a checkpoint. PyTorch is imported
    only for its own files.

    Raises `UsageError` if the file cannot be read, or if it holds anything but float32 and int64
    tensors.
    """
    if not path.is_file():
        raise UsageError(f"{path} cannot be read: there is no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in _TORCH_SUFFIXES:
        return NamedTensors(_read_torch(path), {})
    suffixes = ", ".join((".safetensors", *_TORCH_SUFFIXES))
    raise UsageError(
        f"{path} is of an unknown kind; the name of a file of weights must end in {suffixes}"
    )


def encode_safetensors(arrays: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> bytes:
    """The content of a safetensors file with these arrays and notes."""
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return safetensors.numpy.save(contiguous, {"format": "pt", **notes})


def _read_safetensors(path: Path) -> NamedTensors:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            names = file.keys()
            for name in names:
                _check_type(path, name, file.get_slice(name).get_dtype(), ("F32", "I64"))
            arrays = {name: file.get_tensor(name) for name in names}
            return NamedTensors(arrays, file.metadata() or {})
    except UsageError:
        raise
    except Exception as error:  # the library's own errors, OSError, ValueError, ...
        raise _unreadable(path, "safetensors file", error) from None


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise UsageError(
            f"{path} cannot be read without PyTorch: pip install 'resflax[torch]', or name a "
            ".safetensors file"
        ) from None
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):  # CVE-2025-32434
        raise UsageError(
            f"{path} cannot be read safely by PyTorch {torch.__version__}; install 2.6 or newer"
        )
    try:
        with warnings.catch_warnings():  # a damaged file also causes warnings
            warnings.simplefilter("ignore")
            _refuse_compressed(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UsageError:
        raise
    except Exception as error:  # unpickling damaged bytes raises nearly anything
        raise _unreadable(path, "PyTorch file of plain tensors", error) from None
    for entry in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(entry), dict):
            content = content[entry]
            break
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds a {type(content).__name__}; it must hold a state dict")
    arrays = {}
    for name, value in content.items():
        if not isinstance(name, str):
            raise UsageError(f"{path} is not a state dict: a tensor has the name {short(name)}")
        arrays[name] = _array_of(path, name, value, torch)
    return arrays


def _refuse_compressed(path: Path) -> None:
    """Raises `UsageError` for a compressed archive, which could fill the memory when unpacked.

    PyTorch never compresses its archives.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > path.stat().st_size:
        raise UsageError(f"{path} cannot be read: it is compressed, which PyTorch files are not")


def _array_of(path: Path, name: str, value: Any, torch: Any) -> np.ndarray:
    """The values of a tensor as an array that shares its memory."""
    if not isinstance(value, torch.Tensor):
        raise UsageError(
            f"{path} is not a state dict: {short(name)} is a {type(value).__name__}, not a tensor"
        )
    _check_type(path, name, str(value.dtype), ("torch.float32", "torch.int64"))
    try:
        array: np.ndarray = value.detach().numpy()
    except Exception as error:  # sparse, quantized, without storage, ...
        raise _unreadable(path, f"PyTorch file of plain tensors: {short(name)}", error) from None
    return array


def _check_type(path: Path, name: str, dtype: str, allowed: tuple[str, str]) -> None:
    if dtype not in allowed:
        raise UsageError(f"{path}: {short(name)} holds {dtype} values; they must be {allowed[0]}")


def _unreadable(path: Path, kind: str, error: Exception) -> UsageError:
    first_sentence = re.split(r"[.\n]", str(error).strip(), maxsplit=1)[0]
    reason = f"{type(error).__name__}: {one_line(first_sentence)}"
    return UsageError(f"{path} cannot be read as a {kind} ({reason})")
