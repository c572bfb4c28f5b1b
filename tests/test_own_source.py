"""The code of a user's own class: what belongs to it, its hash, and how it is run."""

import importlib
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from resflax import Own, UsageError
from resflax.parts.keeping import keep
from resflax.parts.loading import load_class
from resflax.parts.source import Source, read_source

PARTS = '''
"""A file of parts."""
from __future__ import annotations

import math
from typing import TYPE_CHECKING

from helpers import gate, Base
import package.deep as deep

if TYPE_CHECKING:
    from elsewhere import Array

TABLE = []
TABLE.append(5)
NOT_NEEDED = 1
raise_if_run = [][0] if NOT_NEEDED == 2 else None


def width(number):
    """The width."""
    return number * len(TABLE)


class Mine(Base):
    """A part."""

    size: int = 4

    def __call__(self, x: "Array") -> "Array":
        from package.deep import depth

        return gate(x) + width(self.size) + deep.both() + depth


class Other:
    pass
'''
FILES = {
    "parts.py": PARTS,
    "helpers.py": "SCALE = 3\nUNUSED = 1 / 0\n\ndef gate(x):\n    return SCALE * x\n\n"
    "class Base:\n    name = 'base'\n",
    "package/__init__.py": "ONE = 1\n",
    "package/deep.py": "from . import ONE\nfrom .sister import TEN\n\ndepth = 100\n\n"
    "def both():\n    return ONE + TEN\n",
    "package/sister.py": "TEN = 10\n",
}


def write(folder: Path, **changed: str) -> Path:
    """Writes the files, with some texts replaced, and returns the one with the class."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(changed.get(Path(name).stem, text))
    return folder / "parts.py"


def source(folder: Path, **changed: str) -> Source:
    return read_source(write(folder, **changed), "Mine")


def test_the_class_is_run_with_all_that_it_needs_and_nothing_else(tmp_path):
    # 1 / 0 in helpers.py would end it.
    mine: Any = load_class(source(tmp_path))
    assert mine()(2) == 3 * 2 + 4 * 1 + 11 + 100
    assert mine.name == "base"


def test_the_files_that_it_needs_are_found(tmp_path):
    assert [file.path for file in source(tmp_path).files] == [
        "parts.py", "helpers.py", "package/__init__.py", "package/deep.py", "package/sister.py",
    ]  # fmt: skip


SAME = [
    {"parts": PARTS.replace("NOT_NEEDED = 1", "NOT_NEEDED = 3")},
    {"parts": PARTS.replace('"""A part."""', '"""Another text."""')},
    {"parts": PARTS.replace("size: int = 4", "size: int = 4  # wide")},
    {"parts": PARTS.replace("class Other:\n    pass", "class Other:\n    size = 1")},
    {"parts": PARTS.replace("\n\n\n", "\n\n\n\n\n")},
    {"helpers": FILES["helpers.py"].replace("UNUSED = 1 / 0", "UNUSED = 2 / 0")},
]
OTHER = [
    {"parts": PARTS.replace("size: int = 4", "size: int = 5")},
    {"parts": PARTS.replace("number * len", "number + len")},
    {"parts": PARTS.replace("append(5)", "append(6)")},
    {"helpers": FILES["helpers.py"].replace("SCALE = 3", "SCALE = 4")},
    {"helpers": FILES["helpers.py"].replace("'base'", "'bottom'")},
    {"sister": "TEN = 11\n"},
    {"__init__": "ONE = 2\n"},
    {"deep": FILES["package/deep.py"].replace("depth = 100", "depth = 99")},
]


@pytest.mark.parametrize("changed", SAME)
def test_other_lines_do_not_change_the_hash(tmp_path, changed):
    before = source(tmp_path / "before")
    after = source(tmp_path / "after", **changed)
    assert after.sha256 == before.sha256
    assert after.file_hashes != before.file_hashes


@pytest.mark.parametrize("changed", OTHER)
def test_lines_that_the_class_needs_change_the_hash(tmp_path, changed):
    assert source(tmp_path / "a").sha256 != source(tmp_path / "b", **changed).sha256


def test_the_hash_is_the_same_on_every_python(tmp_path):
    # Run folders are found again by it.
    assert source(tmp_path).sha256[:12] == "be28ef645477"


def test_two_versions_live_in_one_process(tmp_path):
    first = load_class(source(tmp_path))
    second = load_class(source(tmp_path, helpers=FILES["helpers.py"].replace("= 3", "= 5", 1)))
    assert second()(2) - first()(2) == 4
    assert load_class(source(tmp_path)) is first


def test_a_class_of_a_package_brings_its_package(tmp_path):
    folder = tmp_path / "lab" / "nets"
    folder.mkdir(parents=True)
    (tmp_path / "lab" / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("from .tools import two\n")
    (folder / "tools.py").write_text("def two():\n    return 2\n")
    (folder / "mine.py").write_text(
        "from . import two\nfrom lab.nets import tools\n\nclass Mine:\n"
        "    value = two() + tools.two()\n"
    )
    found = read_source(folder / "mine.py", "Mine")
    assert found.root == tmp_path
    assert found.files[0].path == "lab/nets/mine.py"
    mine: Any = load_class(found)
    assert mine.value == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class Mine(:\n    pass", "line 1: not valid Python"),
        ("def Mine():\n    pass", "Mine is not a class but a function"),
        ("Other = 3", "does not define a class Mine at its top level; it defines no class"),
        ("import nothing_of_that_name\n\nclass Mine(nothing_of_that_name.X):\n    pass",
         "line 1: ModuleNotFoundError: No module named"),
        ("class Mine:\n    size = missing", "line 2: NameError: name 'missing' is not defined"),
        ("class Mine:\n    pass\n\nMine = 3", "Mine is not a class but a int"),
    ],
)  # fmt: skip
def test_a_faulty_file_is_named_with_its_line(tmp_path, text, said):
    file = tmp_path / "faulty.py"
    file.write_text(textwrap.dedent(text))
    with pytest.raises(UsageError) as refusal:
        load_class(read_source(file, "Mine"))
    assert str(refusal.value).startswith(str(file))
    assert said in str(refusal.value)


# Each file has a class Mine whose `value` is 3 if all that it needs is found, and a text that
# changes that value.
NEEDS = {
    "list filled in a loop": (
        "W = []\nfor i in range(3):\n    W.append(1)\n\nclass Mine:\n    value = sum(W)\n",
        ("range(3)", "range(4)"),
    ),
    "list filled under a condition": (
        "W = [1]\nif W:\n    W.append(2)\n\nclass Mine:\n    value = sum(W)\n",
        ("append(2)", "append(3)"),
    ),
    "chained methods": (
        "W = {}\nW.setdefault('a', []).append(3)\n\nclass Mine:\n    value = W['a'][0]\n",
        ("append(3)", "append(4)"),
    ),
    "filled by a function": (
        "W = []\ndef fill(w):\n    w.append(3)\nfill(W)\n\nclass Mine:\n    value = W[0]\n",
        ("w.append(3)", "w.append(4)"),
    ),
    "filled by a function without arguments": (
        "W = []\ndef fill():\n    W.append(3)\nfill()\n\nclass Mine:\n    value = W[0]\n",
        ("W.append(3)", "W.append(4)"),
    ),
    "a global that a function sets": (
        "N = 1\ndef init():\n    global N\n    N = 3\ninit()\n\nclass Mine:\n    value = N\n",
        ("N = 3", "N = 4"),
    ),
    "setattr": (
        "class D:\n    pass\nsetattr(D, 'x', 3)\n\nclass Mine:\n    value = D.x\n",
        ("'x', 3", "'x', 4"),
    ),
    "registry": (
        "TABLE = {}\ndef register(f):\n    TABLE[f.__name__] = f\n    return f\n\n"
        "@register\ndef three():\n    return 3\n\nclass Mine:\n    value = TABLE['three']()\n",
        ("return 3", "return 4"),
    ),
    "a name that an inner scope has too": (
        "def gate(x):\n    return 1 + x\n\ndef f(gates):\n"
        "    total = sum(gate for gate in gates)\n    return gate(total)\n\n"
        "class Mine:\n    value = f([1, 1])\n",
        ("return 1 + x", "return 2 + x"),
    ),
    "a name that an inner function assigns": (
        "base = 3\n\ndef f():\n    def g():\n        base = 1\n        return base\n"
        "    return base if g() else 0\n\nclass Mine:\n    value = f()\n",
        ("base = 3", "base = 4"),
    ),
    "a comprehension over its own name": (
        "x = [1, 2]\ny = [x for x in x]\n\nclass Mine:\n    value = sum(y)\n",
        ("[1, 2]", "[1, 3]"),
    ),
    "a class in try": (
        "try:\n    class Mine:\n        value = 3\nexcept ImportError:\n    Mine = None\n",
        ("value = 3", "value = 4"),
    ),
    "match and f-string": (
        "K = 3\n\ndef f(x):\n    match x:\n        case 'a':\n            return int(f'{K}')\n\n"
        "class Mine:\n    value = f('a')\n",
        ("K = 3", "K = 4"),
    ),
    "walrus": (
        "if (n := 3) > 1:\n    m = n\n\nclass Mine:\n    value = m\n",
        ("n := 3", "n := 4"),
    ),
}


@pytest.mark.parametrize("name", NEEDS)
def test_all_that_a_class_needs_is_found(tmp_path, name):
    text, (old, new) = NEEDS[name]
    file, other = tmp_path / "mine.py", tmp_path / "other.py"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())  # as some editors begin a file
    other.write_text(text.replace(old, new))
    first, second = read_source(file, "Mine"), read_source(other, "Mine")
    mine: Any = load_class(first)
    assert mine.value == 3
    assert second.sha256 != first.sha256
    mine = load_class(second)
    assert mine.value == 4


UNRELATED = {
    "a field of the name of a variable": (
        "seed = 7\n\nclass Mine:\n    seed: int = 3\n",
        ("seed = 7", "seed = 8"),
    ),
    "a call that is given more than the class": (
        "class Mine:\n    value = 3\n\nexperiment = dict(part=Mine)\nlen(dict(part=Mine, n=1))\n",
        ("n=1", "n=2"),
    ),
    "a script's own end": (
        "class Mine:\n    value = 3\n\nif __name__ == '__main__':\n    raise SystemExit(1)\n",
        ("SystemExit(1)", "SystemExit(2)"),
    ),
}


@pytest.mark.parametrize("name", UNRELATED)
def test_what_a_class_does_not_need_is_left_out(tmp_path, name):
    text, (old, new) = UNRELATED[name]
    file, other = tmp_path / "mine.py", tmp_path / "other.py"
    file.write_text(text)
    other.write_text(text.replace(old, new))
    assert read_source(file, "Mine").sha256 == read_source(other, "Mine").sha256


def imported(folder: Path, module: str, monkeypatch) -> Any:
    """The class Mine of a module that is imported from a folder, as an experiment file does it."""
    monkeypatch.syspath_prepend(folder)
    for name in [n for n in sys.modules if n.split(".")[0] in ("pk", "m", "h")]:
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module(module).Mine


@pytest.mark.parametrize(
    ("files", "path", "module"),
    [
        # A package without __init__.py.
        ({"pk/m.py": "from pk.h import K", "pk/h.py": "K = {}"}, ".", "pk.m"),
        # A folder of scripts that has an __init__.py.
        ({"pk/__init__.py": "", "pk/m.py": "from h import K", "pk/h.py": "K = {}"}, "pk", "m"),
        ({"m.py": "import pk.h\nK = pk.K", "pk/__init__.py": "K = {}", "pk/h.py": ""}, ".", "m"),
    ],
)
def test_files_are_found_where_the_import_finds_them(tmp_path, monkeypatch, files, path, module):
    hashes = []
    for value in (3, 4):
        folder = tmp_path / str(value)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            ending = "\n\nclass Mine:\n    value = K\n" if name.endswith("m.py") else "\n"
            (folder / name).write_text(text.format(value) + ending)
        own = Own(imported(folder / path, module, monkeypatch))
        loaded: Any = own.load()
        assert loaded.value == value
        hashes.append(own.code_sha256)
        # The copy is whole.
        keep(own.source, tmp_path / f"copy{value}")
        copied = own.with_copy(tmp_path / f"copy{value}", trusted=True)
        for name in files:
            (folder / name).unlink()
        loaded = copied.load()
        assert (loaded.value, copied.uses_copy) == (value, True)
    assert hashes[0] != hashes[1]
