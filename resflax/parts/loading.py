"""Runs the code of a class of the user's own, and returns the class.

Only the statements that the class needs are run (see `parts.source`), each file as a module of its
own that no other import can reach. So the class is the one that its hash stands for, and classes
from two versions of a file can be used in one process.
"""

import ast
import builtins
import re
import sys
import traceback
import types
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from resflax.errors import UsageError
from resflax.parts.source import Source, file_of_module

_LOADED: dict[tuple[str, str, Path], type] = {}
"""Classes by name, hash and root, so that each is made only once."""
_MODULE = re.compile(r"own_[0-9a-f]{12}\.")
"""Begins the names of the modules of users' classes."""


def load_class(source: Source) -> type:
    """Runs the code of a class and returns the class.

    Raises `UsageError` with file and line if the code raises an exception, and if what it defines
    under that name is not a class.
    """
    key = source.name, source.sha256, source.root
    if key not in _LOADED:
        main = source.files[0].path
        try:
            with warnings.catch_warnings():
                # Newer Pythons warn of unknown escapes such as "\\d".
                warnings.simplefilter("ignore", SyntaxWarning)
                module = _Modules(source).load_main()
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            raise _explained(error, source) from error
        made = getattr(module, source.name, None)
        if not isinstance(made, type):
            raise UsageError(
                f"{source.root / main}: {source.name} is not a class but a {type(made).__name__}"
            )
        _LOADED[key] = made
    return _LOADED[key]


def forget_classes() -> None:
    """Forgets all classes and their modules, so that their code is run again when it is needed."""
    _LOADED.clear()
    for name in [name for name in sys.modules if _MODULE.match(name)]:
        del sys.modules[name]


def _explained(error: BaseException, source: Source) -> UsageError:
    files = [str(source.root / file.path) for file in source.files]
    return UsageError(f"{place_of(error, files) or files[0]}: {type(error).__name__}: {error}")


def place_of(error: BaseException, files: Sequence[str]) -> str | None:
    """`FILE, line N` for the last line of these files that led to an error; None if none did."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else None


class _Modules:
    """The modules of one source, each run when it is first imported."""

    def __init__(self, source: Source) -> None:
        self._root = source.root
        self._prefix = f"own_{source.sha256[:12]}"
        self._main = source.files[0].path
        self._files = {file.path: file for file in source.files}
        self._modules: dict[str, types.ModuleType] = {}

    def load_main(self) -> types.ModuleType:
        """The module of the file that defines the class."""
        return self._load(
            self._main.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        )

    def _load(self, name: str) -> types.ModuleType:
        """The module of this name, run if it was not yet; a folder without a file is empty."""
        path = file_of_module(name, self._main, self._files)
        key = path or name
        if key in self._modules:
            return self._modules[key]
        package = name.rpartition(".")[0]
        if package:
            self._load(package)
        self._modules[key] = module = types.ModuleType(f"{self._prefix}.{name}")
        sys.modules[module.__name__] = module  # dataclasses look for a class's module there
        if path is not None:
            file, whole_path = self._files[path], str(self._root / path)
            is_package = path.endswith("__init__.py")
            imports = partial(self._import, name if is_package else package)
            module.__file__ = whole_path
            module.__dict__["__builtins__"] = {**vars(builtins), "__import__": imports}
            code = ast.Module(list(file.statements), [])
            exec(compile(code, whole_path, "exec", dont_inherit=True), module.__dict__)
        if package:
            setattr(self._load(package), name.rpartition(".")[2], module)
        return module

    def _import(
        self,
        package: str,
        name: str,
        globals: Any = None,
        locals: Any = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
        """Python's `__import__` for code of a package; it finds the source's files first."""
        if level:
            above = package.split(".")[: len(package.split(".")) - level + 1]
            name = ".".join((*above, *([name] if name else [])))
        if not self._has(name):
            return builtins.__import__(name, globals, locals, fromlist or (), 0)
        module = self._load(name)
        for item in fromlist or ():
            if self._has(f"{name}.{item}"):
                self._load(f"{name}.{item}")
        return module if fromlist else self._load(name.partition(".")[0])

    def _has(self, name: str) -> bool:
        """Whether the source has a file of this module, or files in a folder of this name."""
        folder = name.replace(".", "/") + "/"
        beside = PurePosixPath(self._main).parent / folder
        return file_of_module(name, self._main, self._files) is not None or any(
            path.startswith((folder, f"{beside}/")) for path in self._files
        )
