"""Files of weights are read as they were written; damaged ones are refused in one line."""

import argparse
import collections
import datetime
import enum
import errno
import gzip
import io
import json
import os
import pathlib
import pickle
import re
import struct
import sys
import tarfile
import zipfile
from typing import Any

import numpy as np
import pytest

from resflax import UsageError
from resflax.weights import file_kinds
from resflax.weights.choice import find_weights
from resflax.weights.convert import Names
from resflax.weights.tensor_files import encode_safetensors, read_content
from resflax.weights.torch_files import NoValues

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


NAMES = Names("conv1", "fc", frozenset({"conv1.weight", "bn1.running_var"}))

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


def rich_state():
    """Tensors of all kinds that have plain values, and their NumPy arrays."""
    torch = pytest.importorskip("torch")
    shared = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "half": torch.randn(3).half(),
        "double": torch.randn(3).double(),
        "complex": torch.randn(2, dtype=torch.complex64),
        "int32": torch.tensor([1, -2], dtype=torch.int32),
        "uint8": torch.tensor([200], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "shared": shared,
        "shared too": shared,
        "part": shared[1:3, 2:5],
        "transposed": shared.t(),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "expanded": torch.randn(3, 1).expand(3, 4),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "buffer": torch.nn.Buffer(torch.ones(2)),
    }
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    bfloat16 = torch.randn(5).bfloat16()
    return tensors | {"bfloat16": bfloat16}, arrays | {"bfloat16": bfloat16.float().numpy()}


WRITTEN: list[dict[str, Any]] = [
    {},
    {"_use_new_zipfile_serialization": False},
    *({"pickle_protocol": protocol} for protocol in (3, 4, 5)),
]


@pytest.mark.parametrize("options", WRITTEN, ids=str)
def test_every_tensor_is_read_as_pytorch_reads_it(tmp_path, options):
    """Also parts of tensors, transposed ones, and several that share their values."""
    path = tmp_path / "w"
    tensors, expected = rich_state()
    path.write_bytes(torch_bytes(tensors, **options))
    arrays = read_content(path).root
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        found = arrays[name]
        if name == "bfloat16":
            assert found.dtype.name == name
            found = found.astype(np.float32)
        np.testing.assert_array_equal(found, array, name, strict=True)
    assert np.shares_memory(arrays["shared"], arrays["part"])


def test_python_2_and_the_first_pytorch_wrote_names_as_bytes(tmp_path):
    """Protocol 2 of Python 2 has SHORT_BINSTRING; both kinds of names are texts here."""
    path = tmp_path / "w.pkl"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    written = pickle.dumps({b"conv1.weight": array, "fc.weight": np.asfortranarray(array)}, 4)
    path.write_bytes(written)
    arrays = read_content(path).root
    for name in ("conv1.weight", "fc.weight"):
        np.testing.assert_array_equal(arrays[name], array, strict=True)
    path.write_bytes(b"\x80\x02}U\x05epochK\x03s.")  # {'epoch': 3}, as Python 2 writes it
    assert read_content(path).root == {"epoch": 3}


@pytest.mark.parametrize("protocol", [2, 5])
def test_pickles_of_numpy_arrays_are_read(tmp_path, protocol):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": ARRAYS}, protocol))
    assert_complete(read_content(path).root["model"])


ENDINGS = ("w.pth.tar", "w.bin", "w.ckpt", "w.th", "w.safetensors", "w")


def test_the_content_decides_and_not_the_ending(good_file, tmp_path):
    for name in ENDINGS:
        path = tmp_path / "renamed" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(good_file.read_bytes())
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
    """300 files of each format. Those that can be read have arrays, which `from_torch` checks.

    Most bytes are values, whose change only the checksums of archives notice.
    """
    content, messages = good_file.read_bytes(), []
    for damaged_content in damaged(content, 75, np.random.default_rng(1)):
        good_file.write_bytes(damaged_content)
        try:
            root = read_content(good_file).root
            arrays = find_weights(root, NAMES).arrays
        except UsageError as error:
            messages.append(str(error))
        else:
            assert all(isinstance(array, np.ndarray) for array in arrays.values())
    assert len(messages) > 150
    assert all("\n" not in message for message in messages)


def text(value):
    """A text as an operation of a pickle."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def attacks(folder):
    """Pickles without their last byte that make a folder when they are unpickled."""
    path = text(str(folder))
    call = b"cos\nmkdir\n" + path + b"\x85R"
    module = b"cimportlib\nimport_module\n" + text("os") + b"\x85R"
    return {
        "a call": call,
        "an old instance": b"(" + path + b"ios\nmkdir\n",
        "an old object": b"(cos\nmkdir\n" + path + b"o",
        "a name from the stack": text("os") + text("mkdir") + b"\x93" + path + b"\x85R",
        "a call of a call": b"cbuiltins\ngetattr\n"
        + module
        + text("mkdir")
        + b"\x86R"
        + path
        + b"\x85R",
        "eval": b"cbuiltins\neval\n" + text(f"__import__('os').mkdir({str(folder)!r})") + b"\x85R",
        "a state": b"cargparse\nNamespace\n)R}" + text("lr") + call + b"sb",
        "a state of slots": b"cargparse\nNamespace\n)RN}" + text("lr") + call + b"s\x86b",
        "a setter": b"c__main__\n__dict__\n" + call + b"0",
        "a key": b"}" + b"(" + call + b"tK\x01s",
        "an element": b"](" + call + b"e",
        "an argument": b"ccollections\nOrderedDict\n](](" + text("lr") + call + b"ee\x85R",
        "an import": b"cmaking_a_folder\nanything\n",
    }


@pytest.mark.parametrize("attack", attacks(""))
def test_no_pickle_is_executed(tmp_path, attack, monkeypatch):
    """Nothing that a file names is called or imported, and the weights beside it are read."""
    marker, path = tmp_path / "marker", tmp_path / "w"
    (tmp_path / "making_a_folder.py").write_text(
        f"import os; os.mkdir({str(marker)!r}); anything = 1"
    )
    monkeypatch.syspath_prepend(tmp_path)
    malicious = attacks(marker)[attack]
    pickle.loads(b"\x80\x04" + malicious + b".")
    marker.rmdir()  # the attack is real
    sys.modules.pop("making_a_folder", None)

    weights = pickle.dumps(ARRAYS, 2)[2:-1]
    beside = b"\x80\x02}" + text("args") + malicious + b"s" + text("model") + weights + b"s."
    start = torch_bytes(torch_state(), _use_new_zipfile_serialization=False)[:15]
    files = {
        "a pickle": b"\x80\x04" + malicious + b".",
        "an archive": archive(zipfile.ZIP_STORED, **{"data.pkl": b"\x80\x02" + malicious + b"."}),
        "legacy": start + b"\x80\x02" + malicious + b".",
    }
    for content in files.values():
        path.write_bytes(content)
        with pytest.raises(UsageError):
            find_weights(read_content(path).root, NAMES)
    for content in (beside, archive(zipfile.ZIP_STORED, **{"data.pkl": beside})):
        path.write_bytes(content)
        found = find_weights(read_content(path).root, NAMES)
        assert_complete(found.arrays)
        assert any("args (" in line for line in found.lines)
    assert not marker.exists()
    assert "making_a_folder" not in sys.modules


def test_objects_of_a_trainer_do_not_keep_weights_from_being_read(tmp_path):
    """Their classes are named, and need not exist where the file is read."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "checkpoint.pth"
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    beside = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/out")),
        "best": np.float64(92.6),
        "when": datetime.datetime(2020, 1, 2),
        "config": Config(lr=0.1),
        "stage": Stage.LAST,
        "optimizer": optimizer,
        "scheduler": {"_step_count": 1, "step": np.int64(3)},
        "meters": collections.defaultdict(list, {"loss": [1.0]}),
        "device": torch.device("cpu"),
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "rng": torch.get_rng_state(),
        "random": np.random.default_rng(0),
        "set": {1, 2},
    }
    for options in WRITTEN:
        path.write_bytes(torch_bytes({"state_dict": torch_state()} | beside, **options))
        found = find_weights(read_content(path).root, NAMES)
        assert_complete(found.arrays)
        assert found.place == "state_dict"
        (line,) = (line for line in found.lines if "beside the weights it holds" in line)
        assert "args (argparse.Namespace), best (numpy." in line
        assert "config (" in line
        assert "test_weights_files.Config), stage (" in line or ".Stage) and" in line


class Config(dict):
    """A trainer's own class for its options."""


class Stage(enum.Enum):
    """A trainer's own enumeration."""

    LAST = 1


@pytest.mark.parametrize("options", WRITTEN[:2], ids=str)
def test_a_whole_module_is_refused_with_what_to_do(tmp_path, options):
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pth"
    for content in (torch.nn.Linear(2, 2), {"model": torch.nn.Linear(2, 2).half(), "epoch": 1}):
        path.write_bytes(torch_bytes(content, **options))
        with pytest.raises(UsageError, match=r"Linear.*torch\.save\(model\.state_dict\(\), "):
            find_weights(read_content(path).root, NAMES)


def archive(compression, **entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        for name, content in entries.items():
            out.writestr(f"archive/{name}", content)
    return file.getvalue()


def gzipped(content):
    return gzip.compress(content, mtime=0)


def tar_of(**entries):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as out:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return file.getvalue()


def zipped(**entries):
    return archive(zipfile.ZIP_STORED, **entries)


def npz():
    file = io.BytesIO()
    np.savez(file, a=ARRAYS["conv1.weight"])
    return file.getvalue()


SAFETENSORS = encode_safetensors(ARRAYS, {})
NOT_WEIGHTS = {
    "nothing": (b"", "is empty"),
    "a web page": (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page"),
    "an XML answer": (b'<?xml version="1.0"?><Error/>', "a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "a Keras archive": (zipped(**{"model.weights.h5": b"x"}), "Keras archive"),
    "TensorFlow": (bytes(99) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "TensorFlow checkpoint"),
    "TensorFlow's index": (b'model_checkpoint_path: "x"', "TensorFlow checkpoint"),
    "NumPy's archive": (npz(), r"\(.npz\)"),
    "one array": (b"\x93NUMPY" + bytes(99), "single array"),
    "Flax": (b"\x81\xa6params\x80", "msgpack"),
    "ONNX": (b"\x08\x07\x12\x07pytorch\x1a\x052.0.0", "ONNX"),
    "gzip": (gzipped(SAFETENSORS), "gzip; unpack it"),
    "a tar archive": (tar_of(**{"resnet50.pth": b"x"}), "that holds 'resnet50.pth'; unpack it"),
    "PyTorch before 2017": (tar_of(storages=b"", tensors=b"", pickle=b""), "before 2017"),
    "a zip archive": (zipped(**{"resnet50.pth": b"x"}), "holds 'archive/resnet50.pth'; unpack it"),
    "another zip archive": (zipped(**{"readme.txt": b"x"}), r"without data\.pkl"),
    "an empty archive": (zipped(), r"without data\.pkl"),
    "TorchScript": (zipped(**{"data.pkl": b"x", "constants.pkl": b"x"}), "TorchScript"),
    "a program of torch.export": (zipped(archive_format=b"pt2", **{"a.pt": b""}), "torch.export"),
    "a list of parts": (b'{"metadata": {}, "weight_map": {}}', "JSON"),
    "anything": (b"hello world", "unknown kind"),
    "a large archive": (
        archive(zipfile.ZIP_DEFLATED, **{"data.pkl": bytes(50_000_000)}),
        "it is compressed",
    ),
}


@pytest.mark.parametrize(("content", "message"), NOT_WEIGHTS.values(), ids=NOT_WEIGHTS)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.ckpt"])
def test_other_files_are_refused_by_what_they_are(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    assert re.search(message, refusal(path))


@pytest.mark.parametrize("part", [0.02, 0.5, 0.999])
def test_files_that_are_cut_off_are_refused_as_such(good_file, part):
    content = good_file.read_bytes()
    good_file.write_bytes(content[: int(part * len(content))])
    assert "cut off" in refusal(good_file)


def test_changed_values_in_an_archive_are_noticed(tmp_path):
    """Unless it was written without checksums."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "w.pth"
    for computed in (True, False):
        torch.serialization.set_crc32_options(computed)
        try:
            content = torch_bytes(torch_state())
        finally:
            torch.serialization.set_crc32_options(True)
        path.write_bytes(content)
        assert_complete(read_content(path).root)
        values = ARRAYS["conv1.weight"].tobytes()
        path.write_bytes(content.replace(values, values[:-1] + b"\x01"))
        if computed:
            assert "checksum" in refusal(path)
        else:
            read_content(path)


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


@pytest.mark.parametrize(("kind", "size"), [("F64", 8), ("F16", 2), ("BF16", 2), ("BOOL", 1)])
def test_safetensors_of_other_types_are_read(tmp_path, kind, size):
    """The eight bytes are zeros in all of them."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(
        header(**{"fc.bias": {"dtype": kind, "shape": [8 // size], "data_offsets": [0, 8]}})
    )
    array = read_content(path).root["fc.bias"]
    assert array.dtype.itemsize == size
    assert array.shape == (8 // size,)
    assert not array.any()


def test_safetensors_of_pytorch_have_the_values_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    tensors = {
        "a": torch.randn(3, 2).bfloat16(),
        "b": torch.randn(5).half(),
        "c": torch.randn(()).double(),
        "d": torch.zeros(2).to(torch.float8_e4m3fn),
    }
    save_file(tensors, path)
    arrays = read_content(path).root
    assert arrays.pop("d") == NoValues("of the type F8_E4M3")
    for name, array in arrays.items():
        expected = tensors[name].double().numpy()
        np.testing.assert_array_equal(array.astype(np.float64), expected, strict=True)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensors_without_plain_values_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    zeros = torch.zeros(3)
    kinds = {
        "sparse": torch.eye(3).to_sparse(),
        "quantized": torch.quantize_per_tensor(zeros, 0.1, 0, torch.qint8),
        "without values": torch.zeros(3, device="meta"),
        "float8_e4m3fn": zeros.to(torch.float8_e4m3fn),
        "conjugates": torch.zeros(3, dtype=torch.complex64).conj(),
    }
    path = tmp_path / "w.pth"
    for kind, tensor in kinds.items():
        path.write_bytes(torch_bytes(torch_state() | {"bn1.running_var": tensor}))
        with pytest.raises(UsageError, match=rf"the tensor bn1.running_var is .*{kind}"):
            find_weights(read_content(path).root, NAMES)
        path.write_bytes(torch_bytes({"model": torch_state(), "beside.it": tensor}))
        assert_complete(find_weights(read_content(path).root, NAMES).arrays)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["zeros"], "no tensors by name, but a list"),
        (3, "no tensors by name, but a int"),
        ({"epoch": 3}, "no tensors by name, but a dict"),
        ({1: np.zeros(3)}, "it has '1', and the network needs conv1.weight"),
        ({"conv1.weight": "zeros", "bn1.running_var": np.zeros(1)}, "conv1.weight is not a tensor"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, message):
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UsageError, match=message):
        find_weights(read_content(path).root, NAMES)


def test_containers_that_hold_themselves_or_each_other_end(tmp_path):
    path = tmp_path / "w.pkl"
    loop: dict[str, object] = {}
    loop["loop"] = loop
    many: dict[str, object] = dict(ARRAYS)
    for _ in range(60):
        many = {"a": many, "b": many}
    deep: object = ()
    for _ in range(100_000):
        deep = (deep,)
    path.write_bytes(pickle.dumps({"model": ARRAYS, "loop": loop, "many": many}))
    assert_complete(find_weights(read_content(path).root, NAMES, "model").arrays)
    nested = b"\x80\x02}(" + b")" + b"\x85" * 100_000 + b"K\x01u."
    path.write_bytes(nested)
    with pytest.raises(UsageError):
        find_weights(read_content(path).root, NAMES)


def test_expanded_tensors_do_not_fill_the_memory(tmp_path):
    """A file can hold 2**50 zeros in four bytes. They are read without a copy."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes({"fc.bias": torch.zeros(1).expand(2**25, 2**25)}))
    assert read_content(path).root["fc.bias"].shape == (2**25, 2**25)


def test_missing_files_and_folders_are_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "no file in it is named like weights" in refusal(folder)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("")
    assert f"name the file in it: {folder / 'model.safetensors'}" in refusal(folder)
    (folder / "pytorch_model.bin").write_text("")
    assert "one of the files in it: 'model.safetensors', 'pytorch_model.bin'" in refusal(folder)
    (folder / "model-00001-of-00002.safetensors").write_text("")
    assert "weights in parts" in refusal(folder)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")


def test_a_file_that_may_not_be_read_is_refused(good_file, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(file_kinds, "open", refuse, raising=False)
    assert "cannot be read: Permission denied" in refusal(good_file)


@pytest.mark.parametrize("kind", FORMATS)
def test_no_format_needs_pytorch(tmp_path, monkeypatch, kind):
    path = tmp_path / "w"
    path.write_bytes(FORMATS[kind][1]())
    for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert_complete(read_content(path).root)
