"""The code of a user's own class: what belongs to it, its hash, and how it is run."""

import textwrap
from pathlib import Path
from typing import Any

import pytest

from resflax import UsageError
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
        ("def Mine():\n    pass", "does not define a class Mine at its top level"),
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
