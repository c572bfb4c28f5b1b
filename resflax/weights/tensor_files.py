"""Reads files of weights, and makes safetensors. No code in a file is executed."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from resflax.errors import UsageError
from resflax.text import one_line
from resflax.weights.file_kinds import kind_of
from resflax.weights.pickles import printable
from resflax.weights.torch_files import NoValues, read_archive, read_legacy, read_other_pickle

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
"""The types of safetensors. Values of other types, such as those of eight bits, are not read."""


class Content(NamedTuple):
    """The content of a file of weights."""

    root: Any
    """What the file holds: usually a dict of tensors by name, or a dict of entries, one of which is
    such a dict. Tensors are read-only NumPy arrays, whose values stay in the file until they are
    used, or `torch_files.NoValues`."""
    notes: dict[str, str]
    """Texts that are stored beside the tensors; only safetensors files can have them."""


def read_content(path: Path) -> Content:
    """Reads a safetensors file, a file of `torch.save`, or a pickle of NumPy's arrays.

    What the file is decides its content, not its name. PyTorch is not needed.

    Raises `UsageError` if the file cannot be read; the message is one line and says why.
    """
    kind = kind_of(path)
    try:
        if kind == "safetensors":
            return _read_safetensors(path)
        read = {"archive": read_archive, "legacy": read_legacy, "pickle": read_other_pickle}[kind]
        return Content(read(path), {})
    except UsageError as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    except Exception as error:  # damaged bytes raise nearly anything
        first_sentence = re.split(r"[.\n]", str(error).strip(), maxsplit=1)[0]
        reason = f"{type(error).__name__}: {one_line(first_sentence)}"
        library = "safetensors" if kind == "safetensors" else "PyTorch"
        raise UsageError(
            f"{path} is cut off or damaged, or {library} did not write it ({reason})"
        ) from None


def encode_safetensors(arrays: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> bytes:
    """The content of a safetensors file with these arrays and notes."""
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return safetensors.numpy.save(contiguous, {"format": "pt", **notes})


def _read_safetensors(path: Path) -> Content:
    with safetensors.safe_open(path, framework="np") as file:  # checks the header
        notes = file.metadata() or {}
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    tensors = {printable(name): _tensor(data[start:], entry) for name, entry in header.items()}
    return Content(tensors, notes)


def _tensor(data: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray | NoValues:
    if entry["dtype"] not in _DTYPES:
        return NoValues(f"of the type {entry['dtype']}")
    begin, end = entry["data_offsets"]
    return np.asarray(data[begin:end]).view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
