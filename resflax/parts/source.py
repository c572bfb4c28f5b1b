"""Finds the code that defines a class: its statement in a file, and all that it needs.

Only that code decides what the class computes. So only that code is hashed, and only that code is
run when the class is made: see `parts.loading`.
"""

import ast
import hashlib
import symtable
import sysconfig
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from resflax.errors import UsageError

_INSTALLED = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")
)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class SourceFile:
    """A file with the statements in it that a class needs."""

    path: str
    """The file, relative to the root, with slashes."""
    content: bytes
    statements: tuple[ast.stmt, ...]
    """The top-level statements that are needed, in their order."""


@dataclass(frozen=True)
class Source:
    """The code of a class of the user's own."""

    name: str
    """The name of the class."""
    root: Path
    """The folder to which the files' paths are relative."""
    files: tuple[SourceFile, ...]
    """The file that defines the class, and then the other files that the class needs."""

    @cached_property
    def sha256(self) -> str:
        """The hash of the needed statements. Comments, docstrings and layout do not change it."""
        code = [[_plain(statement) for statement in file.statements] for file in self.files]
        return hashlib.sha256(repr([self.name, code]).encode()).hexdigest()

    @property
    def file_hashes(self) -> dict[str, str]:
        """The sha256 of each whole file, by its path relative to the root."""
        return {f.path: hashlib.sha256(f.content).hexdigest() for f in self.files}


def read_source(file: Path, name: str, root: Path | None = None) -> Source:
    """Reads the code of the top-level class `name` in a Python file.

    Args:
      file: the file.
      name: the name of the class.
      root: the folder from which its modules are imported; `file` lies in it. None: the folder of
        the file or, if the file belongs to a package, the folder with the outermost package.

    Raises:
      UsageError: if a file cannot be read, is not valid Python, or does not define the class.
    """
    file = file.absolute()
    root = _root_of(file) if root is None else root.absolute()
    reader = _Reader(root, file)
    reader.need(file, {name})
    defined = set().union(*map(_bound, reader.modules[file].body))
    if name not in defined:
        classes = [s.name for s in reader.modules[file].body if isinstance(s, ast.ClassDef)]
        there = f"its classes are {', '.join(classes)}" if classes else "it defines no class"
        raise UsageError(f"{file} does not define a class {name} at its top level; {there}")
    others = sorted(path for path in reader.modules if path != file)
    return Source(name, root, tuple(reader.source_file(path) for path in (file, *others)))


def is_installed(path: Path) -> bool:
    """Whether a resolved path lies among installed packages or in Python's own library."""
    packages = {"site-packages", "dist-packages"} & set(path.parts)
    return bool(packages) or any(path.is_relative_to(folder) for folder in _INSTALLED)


def field_texts(source: Source) -> dict[str, str]:
    """The texts that stand below the fields of a class, by the fields' names."""
    texts = {}
    for statement in source.files[0].statements:
        if isinstance(statement, ast.ClassDef) and statement.name == source.name:
            for field, text in pairwise(statement.body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    value = text.value
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        texts[_first_name(field.target)] = " ".join(value.value.split())
    return texts


def file_of_module(module: str, main: str, files: Collection[str] | Path) -> str | None:
    """The path below the root of a module of the user's own; None for any other module.

    A module is looked for in the root, and then in the folder of the file that defines the class.

    Args:
      module: the whole name of the module.
      main: the path of that file below the root.
      files: the files that there are, or the root itself.
    """
    path, beside = module.replace(".", "/"), PurePosixPath(main).parent
    for folder in dict.fromkeys((PurePosixPath(), beside)):
        for found in (folder / f"{path}.py", folder / path / "__init__.py"):
            exists = (files / found).is_file() if isinstance(files, Path) else str(found) in files
            if exists:
                return str(found)
    return None


def _root_of(file: Path) -> Path:
    folder = file.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


class _Reader:
    """Collects the statements that are needed, file by file."""

    def __init__(self, root: Path, main: Path) -> None:
        self.root, self.main = root, main.relative_to(root).as_posix()
        self.modules: dict[Path, ast.Module] = {}
        self._contents: dict[Path, bytes] = {}
        self._needed: dict[Path, set[int]] = {}
        self._names: dict[Path, set[str]] = {}
        self._defining: dict[Path, list[set[str]]] = {}
        """For each statement of a file, the names that it defines or whose objects it changes."""
        self._package: str | None = None
        """If the root holds installed packages, the only one whose files are the user's own."""
        if is_installed(root.resolve()):
            self._package = self.main.split("/")[0].removesuffix(".py")

    def source_file(self, path: Path) -> SourceFile:
        body = self.modules[path].body
        statements = tuple(body[number] for number in sorted(self._needed[path]))
        return SourceFile(path.relative_to(self.root).as_posix(), self._contents[path], statements)

    def need(self, file: Path, names: Iterable[str]) -> None:
        """Adds the statements of a file that these names need. `*` stands for all names."""
        if file not in self.modules:
            self._contents[file], self.modules[file] = _parse(file)
            self._needed[file], self._names[file] = set(), set()
            self._defining[file] = _defining(self.modules[file].body)
            for number, statement in enumerate(self.modules[file].body):
                if _is_always_needed(statement):
                    self._add(file, number)
            for package in self._packages_of(file):
                self.need(package, ())
        new = set(names) - self._names[file]
        self._names[file] |= new
        for number, defined in enumerate(self._defining[file]):
            if number not in self._needed[file] and ("*" in new or defined & new):
                self._add(file, number)

    def _add(self, file: Path, number: int) -> None:
        statement = self.modules[file].body[number]
        self._needed[file].add(number)
        self.need(file, _names_from_module(statement))
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
                parts = alias.name.split(".")
                for end in range(1, len(parts) + 1):
                    path = self._file_of(".".join(parts[:end]))
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
        first = module.partition(".")[0]
        # A user's file may lie beside resflax in a checkout.
        if first in ("", "resflax") or self._package not in (None, first):
            return None
        found = file_of_module(module, self.main, self.root)
        return None if found is None else self.root / found

    def _packages_of(self, file: Path) -> Iterator[Path]:
        """The `__init__.py` files that Python runs before it imports the file."""
        for folder in file.parents:
            if folder == self.root:
                return
            package = folder / "__init__.py"
            if package != file and package.is_file():
                yield package


def _parse(file: Path) -> tuple[bytes, ast.Module]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from None
    try:
        return content, ast.parse(content, str(file))
    except SyntaxError as error:
        raise UsageError(f"{file}, line {error.lineno}: not valid Python: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"{file} is not valid Python: {error}") from None


def _is_always_needed(statement: ast.stmt) -> bool:
    """Whether a statement may act on any name: a `__future__` import, or an import of `*`."""
    return isinstance(statement, ast.ImportFrom) and (
        statement.module == "__future__" or any(alias.name == "*" for alias in statement.names)
    )


def _defining(body: list[ast.stmt]) -> list[set[str]]:
    """For each top-level statement, the names that it defines or whose objects it changes.

    An object may be changed by a method (`TABLE.append(3)`), by a function that is given it
    (`fill(TABLE)`), or by a function or a decorator of the file (`@register`).
    """
    modules = set().union(*(_bound(s) for s in body if isinstance(s, ast.Import | ast.ImportFrom)))
    functions = {s.name: _changed(s.body) for s in body if isinstance(s, _DEFINITIONS[:2])}
    result = []
    for statement in body:
        names = _bound(statement)
        if isinstance(statement, _DEFINITIONS):
            called = [_first_name(decorator) for decorator in statement.decorator_list]
        else:
            expressions = _expressions([statement])
            names |= _changed([statement])
            called = [_first_name(e.func) for e in expressions if isinstance(e, ast.Call)]
        names |= set().union(*(functions.get(name, set()) for name in called))
        result.append(names - (modules - _bound(statement)) - {""})
    return result


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement defines."""
    names = set()
    for node in _walk_scope([statement]):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, _DEFINITIONS):
            names.add(node.name)
        elif _is_stored(node):
            names.add(_first_name(node))
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            names.add(node.rest)
    return names - {""}


def _is_stored(node: ast.AST) -> bool:
    """Whether something is assigned to a name, an attribute or an item, or it is deleted."""
    return isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)


def _changed(body: list[ast.stmt]) -> set[str]:
    """The names whose objects statements may change, and those they declare as global."""
    names: set[str] = set()
    for node in _walk_scope(body):
        if isinstance(node, ast.Global):
            names |= set(node.names)
        elif _is_stored(node) and not isinstance(node, ast.Name):
            names.add(_first_name(node))
    for call in _expressions(body):
        if isinstance(call, ast.Call):
            given = [*call.args, *(keyword.value for keyword in call.keywords)]
            names |= {argument.id for argument in given if isinstance(argument, ast.Name)}
            if isinstance(call.func, ast.Attribute):
                names.add(_first_name(call.func))
    return names - {""}


def _expressions(body: list[ast.stmt]) -> list[ast.expr]:
    """The expressions that stand as statements, also in loops and conditions."""
    return [node.value for node in _walk_scope(body) if isinstance(node, ast.Expr)]


def _walk_scope(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes but those within functions and classes, whose names are their own."""
    for node in body:
        yield node
        if not isinstance(node, (*_DEFINITIONS, ast.Lambda)):
            yield from _walk_scope(ast.iter_child_nodes(node))


def _first_name(node: Any) -> str:
    """`a` in `a.b[0].c(1).d`; empty if it does not begin with a name."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _names_from_module(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement takes from its module, also inside functions."""
    code = ast.unparse(ast.Module([statement], []))
    table = symtable.symtable(code, "statement", "exec")
    names = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    # `TABLE[0] = 1` and `del TABLE` need it too.
    names |= {_first_name(n) for n in ast.walk(statement) if isinstance(n, ast.Subscript)}
    for scope in _scopes_in(table):
        for symbol in scope.get_symbols():
            # A class's own name may be read from the module before it is assigned.
            in_class = scope.get_type() == "class" and symbol.is_assigned()
            if symbol.is_referenced() and (symbol.is_global() or in_class):
                names.add(symbol.get_name())
    for node in ast.walk(statement):
        names |= _names_in_quoted_annotation(node)
    return names - {""}


def _scopes_in(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _scopes_in(child)


def _names_in_quoted_annotation(node: ast.AST) -> set[str]:
    """The names in annotations that stand in quotes."""
    annotations = [getattr(node, name, None) for name in ("annotation", "returns")]
    names: set[str] = set()
    for annotation in annotations:
        for part in ast.walk(annotation) if isinstance(annotation, ast.AST) else ():
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                try:
                    quoted = ast.parse(part.value, mode="eval")
                except SyntaxError:
                    continue
                names |= {n.id for n in ast.walk(quoted) if isinstance(n, ast.Name)}
    return names


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
