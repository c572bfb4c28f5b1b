"""Reads the files of `torch.save` without PyTorch, and other pickles of arrays.

The pickle in such a file is read as data (`weights/pickles`). What describes a tensor becomes an
array whose values stay in the file until they are used; every other object stays as it was read.
"""

import io
import mmap
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from resflax.declarations.checks import short
from resflax.errors import UsageError
from resflax.weights.pickles import Name, Unmade, class_name, printable, read_pickle

MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle in a file that PyTorch wrote before 1.6."""

_DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
    "ComplexDoubleStorage": np.dtype(np.complex128),
    "ComplexFloatStorage": np.dtype(np.complex64),
    "UntypedStorage": np.dtype(np.uint8),
}
"""The types of storages. Other types, such as quantized ones, have no values that we can read."""

_BY_NAME = {dtype.name: dtype for dtype in _DTYPES.values()}

_SIZES = {"QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1}
"""The bytes of a value of the other types."""

_WITHOUT_VALUES = {
    "torch._utils._rebuild_qtensor": "quantized",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._utils._rebuild_meta_tensor_no_storage": "without values (its device is meta)",
    "torch._utils._rebuild_wrapper_subclass": "of a class that wraps another tensor",
}

_OF_ANOTHER_TENSOR = {
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor",
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch.nn.parameter.Parameter",
}
"""What makes a tensor from its first argument, which is a tensor or an array."""

_LEVELS = 6
"""How deep containers in containers are looked through for tensors."""


class NoValues(NamedTuple):
    """A tensor whose values are not plain numbers in the file."""

    kind: str
    """What it is instead, such as "sparse"."""


class _Storage(NamedTuple):
    """A part of the file that tensors look into."""

    key: Any
    type: str
    """Such as "FloatStorage"."""
    first: int
    length: int
    """The first value that belongs to it, and how many do."""


def read_archive(path: Path) -> Any:
    """The content of a file of `torch.save`, as PyTorch writes it from 1.6 on: a zip archive.

    Returns:
      None, numbers, texts, lists, tuples, dicts and `pickles.Unmade`, with read-only NumPy arrays
      (or `NoValues`) for tensors. The keys of dicts that hold tensors are texts. An array is a view
      into the file.

    Raises:
      UsageError: if the archive is compressed, cut off or damaged where that can be said.
      Exception: of nearly any kind, if it is damaged otherwise.
    """
    data = np.frombuffer(_mapped(path), np.uint8)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    for entry in entries.values():
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise UsageError("it is compressed, which PyTorch files are not")
    pickled = next(name for name in entries if PICKLE_IN_ARCHIVE.fullmatch(name))
    folder = pickled.removesuffix("data.pkl")
    byte_order = entries.get(f"{folder}byteorder")
    if byte_order is not None and bytes(_stored(data, byte_order)) != b"little":
        raise UsageError("its numbers are big-endian, which is not read")
    read: dict[Any, np.ndarray] = {}

    def values_of(storage: _Storage) -> np.ndarray:
        if storage.key not in read:
            read[storage.key] = _stored(data, entries[f"{folder}data/{storage.key}"])
        return read[storage.key]

    content = read_pickle(io.BytesIO(_stored(data, entries[pickled]).tobytes()), _referred)
    return _Reader(values_of).read(content)


PICKLE_IN_ARCHIVE = re.compile(r"([^/]+/)?data\.pkl")
"""The name of the pickle in an archive of `torch.save`."""


def read_legacy(path: Path) -> Any:
    """The content of a file as PyTorch wrote it before 1.6; see `read_archive`."""
    file = _mapped(path)
    data = np.frombuffer(file, np.uint8)
    storages: dict[Any, _Storage] = {}

    def refer(identity: Any) -> Any:
        storage = _referred(identity)
        if isinstance(storage, _Storage):
            storages.setdefault(storage.key, storage)
        return storage

    magic, protocol, system = (read_pickle(file, refer) for _ in range(3))
    if magic != MAGIC or protocol != 1001:
        raise ValueError("its protocol is unknown")
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise UsageError("its numbers are big-endian, which is not read")
    content, keys = read_pickle(file, refer), read_pickle(file, refer)
    start, values = file.tell(), {}
    for key in keys:
        kind = storages[key].type
        size = _DTYPES[kind].itemsize if kind in _DTYPES else _SIZES[kind]
        length = int.from_bytes(file[start : start + 8], "little")  # how many values follow
        values[key] = data[start + 8 : start + 8 + length * size]
        if len(values[key]) != length * size:
            raise UsageError(CUT_OFF)
        start += 8 + length * size
    return _Reader(lambda storage: values[storage.key]).read(content)


CUT_OFF = "it is cut off: a part of its values is missing (an incomplete download?)"


def read_other_pickle(path: Path) -> Any:
    """The content of a pickle of NumPy's arrays; see `read_archive`."""
    return _Reader(lambda storage: np.empty(0, np.uint8)).read(first_pickle(path))


def first_pickle(path: Path) -> Any:
    """The first pickle in a file; see `read_pickle`."""
    return read_pickle(_mapped(path), lambda identity: None)


def _mapped(path: Path) -> mmap.mmap:
    """The bytes of a file, which are read when they are used."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _stored(data: np.ndarray, entry: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of an entry of an archive."""
    name, extra = data[entry.header_offset + 26 : entry.header_offset + 30].view("<u2")
    start = entry.header_offset + 30 + int(name) + int(extra)
    content = data[start : start + entry.file_size]
    if len(content) != entry.file_size:
        raise UsageError(CUT_OFF)
    if (
        entry.CRC and zlib.crc32(content.data) != entry.CRC
    ):  # PyTorch can leave it out, and writes 0
        raise UsageError(f"it is damaged: the checksum of {short(entry.filename)} differs")
    return content


def _referred(identity: Any) -> Any:
    """Finds what a persistent id of PyTorch stands for: a storage, or the class of a module."""
    kind, first, *others = identity
    if kind == "module":  # before 1.6, the class of a module came with its source
        return first
    if kind != "storage":
        raise ValueError("a persistent id is of an unknown kind")
    key, _, length, *view = others
    start = 0
    if view and view[0] is not None:  # a part of another storage
        _, start, length = view[0]
    if not isinstance(start, int) or not isinstance(length, int) or min(start, length) < 0:
        raise ValueError("the size of a storage is not a number")
    return _Storage(key, first.text.rsplit(".", 1)[-1], start, length)


class _Reader:
    """Turns what describes tensors into arrays."""

    def __init__(self, values_of: Callable[[_Storage], np.ndarray]) -> None:
        """`values_of` returns the bytes of a storage."""
        self.values_of = values_of
        self.done: dict[int, Any] = {}  # containers by their identity: they may hold each other

    def read(self, value: Any, level: int = 0) -> Any:
        if isinstance(value, Unmade):
            array = self.array(value)
            if array is not None:
                return array
        items = value.items if isinstance(value, Unmade) else value
        if not items or level == _LEVELS or not isinstance(items, dict | list | tuple):
            return value
        if id(value) in self.done:
            return self.done[id(value)]
        if isinstance(items, dict):
            read: dict[str, Any] = {}
            self.done[id(value)] = done = (
                Unmade(value.maker, items=read) if isinstance(value, Unmade) else read
            )
            for key, item in items.items():
                read[_text(key)] = self.read(item, level + 1)
            return done
        if any(isinstance(item, dict | Unmade) for item in items):
            return [self.read(item, level + 1) for item in items]
        return value

    def array(self, value: Unmade) -> np.ndarray | NoValues | None:
        """The array of an object that is a tensor or an array, and None for any other."""
        name = value.maker.text if isinstance(value.maker, Name) else ""
        arguments = value.arguments
        if name in _OF_ANOTHER_TENSOR and arguments and isinstance(arguments[0], Unmade):
            return self.array(arguments[0])
        if name == "torch._tensor._rebuild_from_type_v2":
            return self.array(Unmade(arguments[0], arguments[2]))
        if name in _WITHOUT_VALUES:
            return NoValues(_WITHOUT_VALUES[name])
        if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            if len(arguments) > 6 and arguments[6]:
                return NoValues("a view that negates or conjugates another tensor")
            return self.view(*arguments[:4])
        if name == "torch._utils._rebuild_tensor_v3":
            dtype = arguments[6].text.removeprefix("torch.")
            storage, offset, shape, strides = arguments[:4]
            return self.view(storage, offset, shape, strides, _BY_NAME.get(dtype), dtype)
        if re.fullmatch(r"numpy\.(_?core\.)?(multiarray\._reconstruct|numeric\._frombuffer)", name):
            return _numpy_array(value)
        return None

    def view(
        self,
        storage: _Storage,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        dtype: np.dtype | None = None,
        type_name: str | None = None,
    ) -> np.ndarray | NoValues:
        """The tensor that looks into a storage. Offset and strides count values."""
        if type_name is None:
            dtype, type_name = _DTYPES.get(storage.type), storage.type
        if dtype is None:
            return NoValues(f"of the type {type_name}")
        size = _DTYPES.get(storage.type, dtype).itemsize
        stored = self.values_of(storage)[storage.first * size :][: storage.length * size]
        values = stored[: len(stored) // dtype.itemsize * dtype.itemsize].view(dtype)
        if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
            raise ValueError("the shape of a tensor is wrong")
        if 0 in shape:
            return np.empty(shape, dtype)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if last >= len(values):
            raise UsageError("a tensor is larger than its values in the file")
        steps = [step * dtype.itemsize for step in strides]
        return np.lib.stride_tricks.as_strided(values[offset:], shape, steps, writeable=False)


def _numpy_array(value: Unmade) -> np.ndarray | NoValues:
    """An array that NumPy pickled."""
    if value.state is None:  # protocol 5
        content, dtype, shape, order = value.arguments
    else:
        _, shape, dtype, fortran, content = value.state
        order = "F" if fortran else "C"
    kind, byte_order = dtype.arguments[0], dtype.state[1]
    if not re.fullmatch("[fiubc][0-9]+", kind) or byte_order not in "<|=":
        return NoValues(f"of NumPy's type {kind}")
    if isinstance(content, Unmade):  # bytes in protocol 2
        content = content.arguments[0].encode("latin-1")
    elif isinstance(content, str):  # bytes of Python 2
        content = content.encode("latin-1")
    return np.frombuffer(content, np.dtype(kind)).reshape(shape, order=order)


def _text(key: Any) -> str:
    """The key of a dict as a text; Python 2 and other libraries have names in bytes."""
    if isinstance(key, bytes):
        key = key.decode("utf-8", "replace")
    simple = key is None or isinstance(key, str | int | float)
    return printable(str(key)) if simple else class_name(key)
