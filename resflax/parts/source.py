"""Finds the code that defines a class: its statement in a file, and all that it needs.

Only that code decides what the class computes. So only that code is hashed, and only that code is
run when the class is made: see `parts.loading`.
"""

import ast
import hashlib
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resflax.errors import UsageError

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_INSTALLED = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")
)


@dataclass(frozen=True)
class SourceFile:
    """A file with the statements in it that a class needs."""

    path: str
    """The file, relative to the root, with slashes."""
    text: str
    statements: tuple[ast.stmt, ...]
    """The top-level statements that are needed, in their order."""


@dataclass(frozen=True)
class Source:
    """The code of a class of the user's own."""

    name: str
    """The name of the class."""
    root: Path
    """The folder from which its file imports other files of the user's own."""
    files: tuple[SourceFile, ...]
    """The file that defines the class, and then the other files that the class needs."""

    @property
    def sha256(self) -> str:
        """The hash of the needed statements. Comments, docstrings and layout do not change it."""
        code = [[_plain(statement) for statement in file.statements] for file in self.files]
        return hashlib.sha256(repr([self.name, code]).encode()).hexdigest()

    @property
    def file_hashes(self) -> dict[str, str]:
        """The sha256 of each whole file, by its path relative to the root."""
        return {f.path: hashlib.sha256(f.text.encode()).hexdigest() for f in self.files}


def read_source(file: Path, name: str, root: Path | None = None) -> Source:
    """Reads the code of the top-level class `name` in a Python file.

    Args:
      file: the file.
      name: the name of the class.
      root: the folder of the user's other modules. None: the folder of the file or, if the file
        belongs to a package, the folder that contains the outermost package.

    Raises:
      UsageError: if a file cannot be read, is not valid Python, or does not define the class.
    """
    file = file.absolute()
    root = _root_of(file) if root is None else root.absolute()
    reader = _Reader(root, file)
    reader.need(file, {name})
    main = reader.modules[file]
    if not any(isinstance(s, ast.ClassDef) and s.name == name for s in main.body):
        classes = [s.name for s in main.body if isinstance(s, ast.ClassDef)]
        there = f"its classes are {', '.join(classes)}" if classes else "it defines no class"
        raise UsageError(f"{file} does not define a class {name} at its top level; {there}")
    others = sorted(path for path in reader.modules if path != file)
    return Source(name, root, tuple(reader.source_file(path) for path in (file, *others)))


def _root_of(file: Path) -> Path:
    folder = file.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


class _Reader:
    """Collects the statements that are needed, file by file."""

    def __init__(self, root: Path, main: Path) -> None:
        self.root = root
        self.modules: dict[Path, ast.Module] = {}
        self._texts: dict[Path, str] = {}
        self._needed: dict[Path, set[int]] = {}
        self._names: dict[Path, set[str]] = {}
        self._package: str | None = None
        """If the root holds installed packages, the only one whose files are the user's own."""
        if any(root.resolve().is_relative_to(folder) for folder in _INSTALLED):
            self._package = main.relative_to(root).parts[0].removesuffix(".py")

    def source_file(self, path: Path) -> SourceFile:
        body = self.modules[path].body
        statements = tuple(body[number] for number in sorted(self._needed[path]))
        return SourceFile(path.relative_to(self.root).as_posix(), self._texts[path], statements)

    def need(self, file: Path, names: Iterable[str]) -> None:
        """Adds the statements of a file that these names need. `*` stands for all names."""
        if file not in self.modules:
            self._texts[file], self.modules[file] = _parse(file)
            self._needed[file], self._names[file] = set(), set()
            for number, statement in enumerate(self.modules[file].body):
                if _is_always_needed(statement):
                    self._add(file, number)
            for package in self._packages_of(file):
                self.need(package, ())
        new = set(names) - self._names[file]
        self._names[file] |= new
        for number, statement in enumerate(self.modules[file].body):
            if number not in self._needed[file] and ("*" in new or _bound(statement) & new):
                self._add(file, number)

    def _add(self, file: Path, number: int) -> None:
        statement = self.modules[file].body[number]
        self._needed[file].add(number)
        self.need(file, _free_names(statement))
        for node in ast.walk(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for module, names in self._imported(file, node):
                    self.need(module, names)

    def _imported(
        self, file: Path, node: ast.Import | ast.ImportFrom
    ) -> Iterator[tuple[Path, set[str]]]:
        """The user's own files that a statement imports, and the names it takes from them."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                path = self._file_of(alias.name)
                if path is not None:
                    yield path, {"*"}
            return
        module = node.module or ""
        if node.level:
            above = file.relative_to(self.root).parts[: -node.level]
            module = ".".join((*above, *([module] if module else [])))
        path, names = self._file_of(module), {alias.name for alias in node.names}
        for name in sorted(names):
            inner = self._file_of(f"{module}.{name}" if module else name)
            if inner is not None and (path is None or path.name == "__init__.py"):
                yield inner, {"*"}
        if path is not None:
            yield path, names

    def _file_of(self, module: str) -> Path | None:
        """The file of a module of the user's own; None for any other module."""
        parts = module.split(".")
        # A user's file may lie beside resflax in a checkout.
        if parts[0] in ("", "resflax") or self._package not in (None, parts[0]):
            return None
        path = self.root.joinpath(*parts)
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if file.is_file():
                return file
        return None

    def _packages_of(self, file: Path) -> Iterator[Path]:
        """The `__init__.py` files that Python runs before it imports the file."""
        for folder in file.parents:
            if folder == self.root:
                return
            package = folder / "__init__.py"
            if package != file and package.is_file():
                yield package


def _parse(file: Path) -> tuple[str, ast.Module]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{file} cannot be read: {reason}") from None
    try:
        return text, ast.parse(text, str(file))
    except SyntaxError as error:
        raise UsageError(f"{file}, line {error.lineno}: not valid Python: {error.msg}") from None


def _is_always_needed(statement: ast.stmt) -> bool:
    """Whether a statement may act on any name: a `__future__` import, or an import of `*`."""
    return isinstance(statement, ast.ImportFrom) and (
        statement.module == "__future__" or any(alias.name == "*" for alias in statement.names)
    )


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement defines, or whose objects it changes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Expr):  # as in `TABLE.append(3)`
        call = statement.value
        method = call.func if isinstance(call, ast.Call) else None
        return {_first_name(method)} if isinstance(method, ast.Attribute) else set()
    names = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            if isinstance(node.ctx, ast.Store | ast.Del):
                names.add(_first_name(node))
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def _first_name(node: Any) -> str:
    """`a` in `a.b[0].c`; empty if it does not begin with a name."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _free_names(node: ast.AST) -> set[str]:
    """The names that code takes from its module. A class's own names may be among them."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, _FUNCTIONS):
        arguments, inside = node.args, node.body if isinstance(node.body, list) else [node.body]
        outside: list[ast.AST] = [d for d in (*arguments.defaults, *arguments.kw_defaults) if d]
        outside += getattr(node, "decorator_list", [])
        annotations = [argument.annotation for argument in _all_arguments(arguments)]
        annotations.append(getattr(node, "returns", None))
        names = set().union(*(_free_names(child) for child in inside))
        names -= {argument.arg for argument in _all_arguments(arguments)} | _assigned(inside)
        return names.union(*map(_free_names, outside), *map(_annotation_names, annotations))
    if isinstance(node, _COMPREHENSIONS):
        targets = set().union(*(_assigned([g.target]) for g in node.generators))
        return set().union(*map(_free_names, ast.iter_child_nodes(node))) - targets
    if isinstance(node, ast.AnnAssign):
        parts = [part for part in (node.target, node.value) if part is not None]
        return _annotation_names(node.annotation).union(*map(_free_names, parts))
    return set().union(*map(_free_names, ast.iter_child_nodes(node)))


def _annotation_names(annotation: ast.expr | None) -> set[str]:
    """The names in an annotation, which may stand in quotes."""
    if annotation is None:
        return set()
    names = _free_names(annotation)
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                names |= _free_names(ast.parse(node.value, mode="eval"))
            except SyntaxError:
                continue
    return names


def _all_arguments(arguments: ast.arguments) -> list[ast.arg]:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return named + [extra for extra in (arguments.vararg, arguments.kwarg) if extra]


def _assigned(body: Iterable[ast.AST]) -> set[str]:
    """The names that the body of a function makes its own."""
    names: set[str] = set()
    borrowed: set[str] = set()
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Global):
                borrowed |= set(node.names)
    return names - borrowed


def _plain(node: Any) -> Any:
    """A syntax tree as nested lists, without positions, docstrings, and what is empty.

    It is the same for all versions of Python that can read the code.
    """
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields: Mapping[str, Any] = dict(ast.iter_fields(node))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        fields = {**fields, "body": body}
    kept = [
        [name, _plain(value)]
        for name, value in fields.items()
        if value is not None and value != [] and name not in ("kind", "type_comment")
    ]
    return [type(node).__name__, *kept]
