"""Tells what kind of file a file of weights is, by its content and not by its name."""

import re
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from resflax.declarations.checks import short
from resflax.errors import UsageError
from resflax.files import reason_of
from resflax.weights.torch_files import CUT_OFF, MAGIC, PICKLE_IN_ARCHIVE, first_pickle

Kind = Literal["safetensors", "archive", "legacy", "pickle"]
"""safetensors; a file of `torch.save` as a zip archive, or from before PyTorch 1.6; another
pickle."""

_WEIGHTS = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".pth.tar", ".pkl")

# What a file begins with, and what it is then.
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer; git lfs pull fetches it"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it; PyTorch's weights are read"),
    (b"\x93NUMPY", "a single array of NumPy; a state dict has one for each layer"),
    (b"\x1f\x8b", "compressed by gzip; unpack it first"),
    (b"\xfd7zXZ\x00", "compressed by xz; unpack it first"),
    (b"BZh", "compressed by bzip2; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it first"),
    (b"GGUF", "a GGUF file of a language model"),
    (b"model_checkpoint_path:", "the index of a TensorFlow checkpoint; PyTorch's weights are read"),
)
_TENSORFLOW = "a TensorFlow checkpoint; PyTorch's weights are read"
_END_OF_TABLE = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # of the tables in TensorFlow's checkpoints


def kind_of(path: Path) -> Kind:
    """The kind of a file of weights.

    Raises `UsageError` if it cannot be read, if it is empty or cut off, or if it is something else;
    the message says what it is.
    """
    if path.is_dir():
        raise UsageError(_folder(path))
    try:
        if not path.exists():
            raise UsageError(f"{path} cannot be read: there is no such file")
        if not path.is_file():
            raise UsageError(f"{path} cannot be read: it is not a regular file")
        with open(path, "rb") as file:
            beginning = file.read(1024)
            size = file.seek(0, 2)
            file.seek(max(size - 8, 0))
            end = file.read()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason_of(error)}") from None
    if size == 0:
        raise UsageError(f"{path} is empty (an incomplete download?)")
    if beginning.startswith(b"PK"):
        return _kind_of_zip(path)
    if re.match(rb"\x80[\x02-\x05]", beginning):
        return _kind_of_pickle(path)
    if beginning[8:9] == b"{":
        header = int.from_bytes(beginning[:8], "little")
        if header + 8 > size and header < 100_000_000:
            raise UsageError(f"{path} cannot be read: {CUT_OFF}")
        return "safetensors"
    raise UsageError(f"{path} is {_other(path, beginning, end)}")


def _kind_of_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # damaged archives raise nearly anything
        raise UsageError(
            f"{path} cannot be read: it is an archive without its end, cut off or damaged (an "
            "incomplete download?)"
        ) from None
    inside = [name.split("/", 1)[-1] for name in names]
    if any(name.startswith("code/") or name == "constants.pkl" for name in inside):
        raise UsageError(
            f"{path} is a TorchScript archive, a program; save its weights where it runs: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        )
    if sum(PICKLE_IN_ARCHIVE.fullmatch(name) is not None for name in names) == 1:
        return "archive"
    weights = [name for name in names if name.endswith(_WEIGHTS)]
    if any(name.endswith("/archive_format") for name in names):
        what = "a program of torch.export; save the state dict of the module it came from"
    elif weights:
        what = f"a zip archive that holds {_listed(weights)}; unpack it first"
    elif any(name.endswith(".npy") for name in names):
        what = "a file of NumPy (.npz); PyTorch's weights are read"
    elif any(name.endswith(".h5") for name in names):
        what = "a Keras archive; PyTorch's weights are read"
    else:
        what = "a zip archive without data.pkl, so that PyTorch did not write it"
    raise UsageError(f"{path} is {what}")


def _kind_of_pickle(path: Path) -> Kind:
    try:
        first: Any = first_pickle(path)
    except Exception:  # damaged bytes raise nearly anything
        raise UsageError(
            f"{path} cannot be read: it is a pickle that is cut off or damaged (an incomplete "
            "download?)"
        ) from None
    return "legacy" if isinstance(first, int) and first == MAGIC else "pickle"


def _other(path: Path, beginning: bytes, end: bytes) -> str:
    """Says what kind of file it is, if it holds no weights that can be read."""
    for magic, what in _BEGINNINGS:
        if beginning.startswith(magic):
            return what
    text = beginning.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")):
        return "a web page and not the file; the download needs another address or a login"
    if end == _END_OF_TABLE or re.search(r"\.(data-\d+-of-\d+|index|meta)$", path.name):
        return _TENSORFLOW
    if tarfile.is_tarfile(path):
        return _kind_of_tar(path)
    if re.match(rb"[\x81-\x8f\xde\xdf]", beginning) and re.search(
        rb"params|kernel|batch_stats", beginning
    ):
        return "a msgpack file, as Flax writes it; PyTorch's weights are read"
    if beginning.startswith(b"\x08") and re.search(rb"pytorch|onnx|torch", beginning):
        return "an ONNX file, a program; save the state dict of the module it came from"
    if text.startswith((b"{", b"[")):
        return "a JSON text without weights" + (
            "; the files that it lists hold them" if b"weight_map" in text else ""
        )
    return "of an unknown kind; weights are read from safetensors and from files of torch.save"


def _kind_of_tar(path: Path) -> str:
    try:
        with tarfile.open(path, "r:") as archive:
            names = archive.getnames()
    except (OSError, tarfile.TarError):
        return "a damaged tar archive"
    if {"storages", "tensors", "pickle"} <= set(names):
        return "a file of a PyTorch from before 2017; save it again with a newer PyTorch"
    weights = [name for name in names if name.endswith(_WEIGHTS)]
    holds = f" that holds {_listed(weights)}" if weights else ""
    return f"a tar archive{holds}; unpack it first"


def _folder(path: Path) -> str:
    """Why a folder is refused, and which file in it may be meant."""
    try:
        names = sorted(file.name for file in path.iterdir() if file.is_file())
    except OSError as error:
        return f"{path} cannot be read: {reason_of(error)}"
    shards = [name for name in names if re.search(r"-\d+-of-\d+\.", name)]
    if shards:
        return (
            f"{path} is a folder of weights in parts, such as {short(shards[0])}, which are not "
            "read; save them as one file"
        )
    weights = [name for name in names if name.endswith(_WEIGHTS)]
    if len(weights) == 1:
        return f"{path} is a folder; name the file in it: {path / weights[0]}"
    if weights:
        return f"{path} is a folder; name one of the files in it: {_listed(weights)}"
    return f"{path} is a folder, and no file in it is named like weights"


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(short(name) for name in names[:most]) + more
