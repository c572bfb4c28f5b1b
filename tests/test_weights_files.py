"""Files of weights are read as they were written; damaged ones are refused in one line."""

import collections
import io
import json
import os
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from resflax import UsageError
from resflax.weights.tensor_files import encode_safetensors, read_content

RANDOM = np.random.default_rng(0)
ARRAYS: dict[str, np.ndarray] = {
    "conv1.weight": RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32),
    "bn1.running_var": RANDOM.normal(size=4).astype(np.float32),
    "bn1.num_batches_tracked": np.zeros((), np.int64),
}


def torch_bytes(content, **options):
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def torch_state():
    torch = pytest.importorskip("torch")
    return collections.OrderedDict((k, torch.from_numpy(v.copy())) for k, v in ARRAYS.items())


FORMATS = {
    "safetensors": (".safetensors", lambda: encode_safetensors(ARRAYS, {})),
    "zip": (".pth", lambda: torch_bytes(torch_state())),
    "legacy": (".th", lambda: torch_bytes(torch_state(), _use_new_zipfile_serialization=False)),
}


def refusal(path):
    """The message about a file that must be refused."""
    with pytest.raises(UsageError) as error:
        read_content(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < len(str(path)) + 350
    return message


@pytest.fixture(params=FORMATS)
def good_file(request, tmp_path):
    """A good file of each format."""
    suffix, make = FORMATS[request.param]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(make())
    return path


def assert_complete(arrays):
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)


def test_good_files_are_read_completely(good_file):
    assert_complete(read_content(good_file).root)


@pytest.mark.parametrize("entry", ["state_dict", "model"])
def test_the_state_dict_of_a_checkpoint_is_read(tmp_path, entry):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(torch_bytes({"epoch": 3, entry: torch_state(), "best_prec1": 92.6}))
    assert_complete(read_content(path).root)


def test_notes_and_transposed_arrays_survive(tmp_path):
    path = tmp_path / "w.safetensors"
    transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
    path.write_bytes(encode_safetensors({"transposed": transposed}, {"mean": "[0.5]"}))
    arrays, notes = read_content(path)
    np.testing.assert_array_equal(arrays["transposed"], transposed, strict=True)
    assert notes["mean"] == "[0.5]"


def damaged(content, count, random):
    """Yields content cut off, with a flipped bit (mostly near an end), patched, and random."""
    length = len(content)
    for _ in range(count):
        yield content[: random.integers(length)]
        near = random.choice((64, 600, length))
        place = random.integers(min(near, length))
        if random.random() < 0.5:
            place = length - 1 - place
        flipped = bytearray(content)
        flipped[place] ^= 1 << random.integers(8)
        yield bytes(flipped)
        start = random.integers(length)
        size = random.integers(1, 40)
        yield content[:start] + random.bytes(size) + content[start + size :]
        yield random.bytes(random.integers(1, 2000))


def test_damaged_files_are_read_or_refused_in_one_line(good_file):
    """300 files of each format. Those that can be read have arrays, which `from_torch` checks."""
    content, messages = good_file.read_bytes(), []
    for damaged_content in damaged(content, 75, np.random.default_rng(1)):
        good_file.write_bytes(damaged_content)
        try:
            arrays = read_content(good_file).root
        except UsageError as error:
            messages.append(str(error))
        else:
            assert all(isinstance(array, np.ndarray) for array in arrays.values())
    assert len(messages) > 150
    assert all(str(good_file) in message and "\n" not in message for message in messages)


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_no_pickle_is_executed(tmp_path):
    live = tmp_path / "live"
    pickle.loads(pickle.dumps(Payload(live)))
    assert live.exists()

    marker = tmp_path / "marker"
    hidden = torch_state() | {"fc.weight": Payload(marker)}
    files = {
        "bare.pth": pickle.dumps(Payload(marker)),
        "old.th": torch_bytes(Payload(marker), _use_new_zipfile_serialization=False),
        "new.pt": torch_bytes({"state_dict": Payload(marker)}),
        "hidden.pth": torch_bytes(hidden),
        "pretended.safetensors": pickle.dumps(Payload(marker)),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        refusal(path)
        assert not marker.exists(), name


def archive(compression, **entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        for name, content in entries.items():
            out.writestr(f"archive/{name}", content)
    return file.getvalue()


def test_archives_that_pytorch_did_not_write_are_refused(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "archive.pth"
    path.write_bytes(archive(zipfile.ZIP_DEFLATED, **{"data.pkl": bytes(50_000_000)}))
    assert "compressed" in refusal(path)
    path.write_bytes(archive(zipfile.ZIP_STORED, **{"readme.txt": b"no weights"}))
    refusal(path)
    path.write_bytes(archive(zipfile.ZIP_STORED))
    refusal(path)


def header(**fields):
    """A safetensors file with this header and 8 bytes of data."""
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8)


LYING_HEADERS = {
    "more than there is": header(a={"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}),
    "less than there is": header(a={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}),
    "another size": header(a={"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}),
    "overflow": header(a={"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]}),
    "backwards": header(a={"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}),
    "unknown type": header(a={"dtype": "F31", "shape": [2], "data_offsets": [0, 8]}),
    "twice the same bytes": header(
        a={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        b={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    ),
    "a list": header(a=[1, 2]),
    "notes that are not texts": header(__metadata__={"mean": [1]}),
    "no header": b"",
    "an endless header": struct.pack("<Q", 2**63) + b"{}",
    "deep nesting": struct.pack("<Q", 200_000) + b"[" * 200_000,
}


@pytest.mark.parametrize("content", LYING_HEADERS.values(), ids=LYING_HEADERS)
def test_headers_that_lie_are_refused(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("kind", ["F64", "F16", "BF16", "BOOL"])
def test_values_of_another_type_are_refused_by_name(tmp_path, kind):
    size = {"F64": 8, "F16": 2, "BF16": 2, "BOOL": 1}[kind]
    path = tmp_path / "w.safetensors"
    path.write_bytes(
        header(**{"fc.bias": {"dtype": kind, "shape": [8 // size], "data_offsets": [0, 8]}})
    )
    assert f"'fc.bias' holds {kind}" in refusal(path)


def strange_states():
    torch = pytest.importorskip("torch")
    zeros = torch.zeros(3)
    return {
        "a list": [zeros],
        "a tensor": zeros,
        "a number for a name": {1: zeros},
        "a text for a tensor": {"fc.bias": "zeros"},
        "half precision": {"fc.bias": zeros.half()},
        "bfloat16": {"fc.bias": zeros.bfloat16()},
        "complex": {"fc.bias": torch.zeros(3, dtype=torch.complex64)},
        "sparse": {"fc.bias": zeros.to_sparse()},
        "no values": {"fc.bias": torch.zeros(3, device="meta")},
        "nested": {"state_dict": {"state_dict": {"fc.bias": zeros}}},
    }


@pytest.mark.parametrize(
    "content",
    ["a list", "a tensor", "a number for a name", "a text for a tensor", "half precision",
     "bfloat16", "complex", "sparse", "no values", "nested"],
)  # fmt: skip
def test_torch_files_without_a_state_dict_of_floats_are_refused(tmp_path, content):
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes(strange_states()[content]))
    refusal(path)


def test_expanded_tensors_do_not_fill_the_memory(tmp_path):
    """A file can hold 2**50 zeros in four bytes. They are read without a copy."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes({"fc.bias": torch.zeros(1).expand(2**25, 2**25)}))
    assert read_content(path).root["fc.bias"].shape == (2**25, 2**25)


def test_missing_files_folders_and_unknown_kinds_are_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.safetensors")
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    refusal(folder)
    text = tmp_path / "weights.h5"
    text.write_text("")
    assert ".safetensors, .pth, .th, .pt" in refusal(text)


def test_a_missing_pytorch_is_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install 'resflax[torch]'" in refusal(path)


def test_a_pytorch_that_cannot_read_safely_is_refused(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes(torch_state()))
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    assert "2.6 or newer" in refusal(path)


def test_safetensors_needs_no_pytorch(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors.numpy.save(ARRAYS))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert_complete(read_content(path).root)
