"""Programs: psy-conf.py, the task file and local modules as one, and what each name in them means."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from psyrun.source.modules import with_packages
from psyrun.source.syntax import Statement, parse, read_statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


# What a name means: ("local", module, name), ("module", name), ("foreign", dotted name), ("builtin", name),
# ("unknown", name), or ("part", module, name): an attribute of a local module that no statement binds.
Meaning: TypeAlias = tuple[str, ...]

# fmt: off
_HIDING_BUILTINS = frozenset({
    "exec", "eval", "globals", "__import__", "__builtins__", "breakpoint", "compile",
})
_NAMESPACES = frozenset({"vars", "dir", "locals"})
_HIDING_ATTRIBUTES = frozenset({
    "__subclasses__", "__globals__", "__closure__", "__code__", "f_globals", "f_locals", "load_module",
    "exec_module", "import_module", "_getframe", "currentframe", "__mro__", "__bases__", "__builtins__",
})
_HIDING_MODULES = re.compile(
    r"(importlib(?!\.(resources|metadata)\b)|runpy|pkgutil|gc|ctypes|builtins|zipimport|imp|dill|inspect|shelve"
    r"|ply|yacc|_pickle|jsonpickle)(\.|$)|yaml\.(unsafe_load|full_load|UnsafeLoader|FullLoader|Loader)\b"
    r"|sys\.(modules|_getframe|settrace|setprofile|addaudithook|_current_frames|meta_path|path_hooks)"
    r"|(pickle|joblib|torch|cloudpickle)\.(loads?|Unpickler)\b|pandas\.read_pickle|hydra\.utils|pydoc\.locate"
)
# What unpickles: a store where something calls its `load`, and results loaded by the name of their task.
_UNPICKLING = re.compile(r"psyrun\.(([\w.]+\.)?\w*Store|(results\.)?load)$")
# fmt: on
_WORD = re.compile(r"[^\W\d]\w*")


@dataclass(slots=True, kw_only=True, eq=False)
class Module:
    """A local module, or the task file with psy-conf.py above it.

    Attributes
    ----------
    bindings
        Name -> the statements that bind it, those of other modules too.
    """

    name: str
    package: str
    statements: Sequence[Statement]
    bindings: dict[str, list[Statement]] = field(default_factory=dict)

    def origin(self, node: ast.ImportFrom) -> str:
        """Return the absolute name of the module that an import names."""
        return _origin(node, self.package)


class Program:
    """The statements of all modules, and what their names mean.

    Parameters
    ----------
    task
        The name of the task file's module.
    modules
        Name -> module.
    """

    def __init__(self, task: str, modules: Mapping[str, Module]) -> None:
        self.modules, self.task = modules, modules[task]
        self.home = {each: module for module in modules.values() for each in module.statements}
        self._packages = {above for name in modules for above in with_packages(name)}
        self._meanings: dict[tuple[str, str], Meaning] = {}
        self._used: dict[Statement, dict[int, tuple[ast.AST, Meaning]]] = {}
        self._reads: dict[Statement, tuple[Mapping[Statement, None], bool]] = {}
        for module in modules.values():
            for statement in module.statements:
                for name in statement.binds | statement.declares:
                    module.bindings.setdefault(name, []).append(statement)
        self._add_stars()
        if self._add_outside_bindings():
            self._meanings, self._used = {}, {}

    # -- names

    def resolve(self, module: Module, name: str) -> Meaning:
        """Tell what a name of a module means."""
        key = (module.name, name)
        if key not in self._meanings:
            self._meanings[key] = ("local", *key)  # Modules may import each other in a circle.
            self._meanings[key] = self._resolve(module, name)
        return self._meanings[key]

    def _resolve(self, module: Module, name: str) -> Meaning:
        statements = module.bindings.get(name)
        if statements is None:
            if name in ("__name__", "__file__", "__doc__"):
                return ("local", module.name, name)
            return ("builtin", name) if hasattr(builtins, name) else ("unknown", name)
        found = {self._imported(module, each, name) for each in statements}
        [meaning, *others] = found
        return ("local", module.name, name) if others or meaning is None else meaning

    def _imported(self, module: Module, statement: Statement, name: str) -> Meaning | None:
        """Return what an import statement binds a name to; None if another statement binds it."""
        match statement.node:
            case ast.Import(names=aliases):
                for alias in aliases:
                    if alias.asname == name:
                        return self._module(alias.name)
                    if alias.asname is None and alias.name.partition(".")[0] == name:
                        return self._module(name)
            case ast.ImportFrom(names=aliases) as node:
                origin = module.origin(node)
                if _is_star(node) and _exported(self.modules[origin]) is None:
                    return None
                for alias in aliases:
                    if alias.name == "*" or (alias.asname or alias.name) == name:
                        inside = name if alias.name == "*" else alias.name
                        return self._once(self.resolve_import(origin, inside))
        return None

    def _once(self, meaning: Meaning) -> Meaning | None:
        """Return a meaning; None where it depends on the time at which the name is read."""
        if meaning[0] == "local" and len(self.bindings(meaning)) > 1:
            return None
        return meaning

    def _module(self, name: str) -> Meaning:
        return ("module" if name in self._packages else "foreign", name)

    def attribute(self, meaning: Meaning, name: str) -> Meaning:
        """Tell what an attribute of a module means."""
        kind, owner = meaning[:2]
        if kind == "foreign":
            return (kind, f"{owner}.{name}")
        inside = f"{owner}.{name}"
        bindings = self.modules[owner].bindings.get(name) if owner in self.modules else None
        if bindings and (inside not in self._packages or all(name in each.imports for each in bindings)):
            return self.resolve(self.modules[owner], name)
        if bindings:  # Importing the module in it binds the name, too.
            return ("part", owner, name)
        return ("module", inside) if inside in self._packages else ("part", owner, name)

    def resolve_import(self, origin: str, name: str) -> Meaning:
        """Tell what `from origin import name` binds its name to."""
        return self._module(origin) if name == "*" else self.attribute(self._module(origin), name)

    def bindings(self, meaning: Meaning) -> Sequence[Statement]:
        """Return the statements that bind what a name means."""
        return self.modules[meaning[1]].bindings.get(meaning[2], ()) if meaning[0] == "local" else ()

    def bind_more(self, statement: Statement, names: Iterable[str]) -> None:
        """Count a statement that changes the values of names of its module as one more binding of them."""
        for name in names:
            self.home[statement].bindings[name].append(statement)
            self._reads.clear()

    def _add_stars(self) -> None:
        """Let `from helpers import *` bind all names of a local module."""
        stars = [(module, each) for each, module in self.home.items() if _is_star(each.node)]
        for _ in stars:
            for module, statement in stars:
                assert isinstance(statement.node, ast.ImportFrom)  # noqa: S101
                origin = self.modules.get(module.origin(statement.node))
                for name in (_exported(origin) or origin.bindings) if origin else ():
                    if statement not in (bound := module.bindings.setdefault(name, [])):
                        bound.append(statement)
        self.has_foreign_star = any(m.origin(s.node) not in self.modules for m, s in stars)  # type: ignore[arg-type]

    def _add_outside_bindings(self) -> bool:
        """Let `helper.K = 5`, and a module that is handed on, bind names of that module."""
        found = False
        for statement in self.home:
            for node, meaning in self.uses(statement).values():
                if meaning[0] not in ("module", "part") or meaning[1] not in self.modules:
                    continue
                names = self.modules[meaning[1]].bindings
                changed: Iterable[str] = names
                if meaning[0] == "part":
                    changed = [meaning[2]] if _is_stored(node) else ()
                for name in list(changed):
                    names[name].append(statement) if name in names else names.update({name: [statement]})
                    found = True
        return found

    def uses(self, statement: Statement) -> dict[int, tuple[ast.AST, Meaning]]:
        """Return what names and attributes in a statement mean: id of the outermost node -> node, meaning."""
        found = self._used.get(statement)
        if found is None:
            module = self.home[statement]
            holders = {id(node.value): node for node in statement.nodes if isinstance(node, ast.Attribute)}
            found = self._used[statement] = {}
            for name in statement.names:
                node: ast.AST = name
                meaning = self.resolve(module, name.id)
                while meaning[0] in ("module", "foreign") and id(node) in holders:
                    holder = holders[id(node)]
                    inner = self.attribute(meaning, holder.attr)
                    if meaning[0] == "module" and _is_stored(holder):
                        inner = ("part", meaning[1], holder.attr)
                    node, meaning = holder, inner
                found[id(node)] = node, meaning
        return found

    def meaning(self, statement: Statement, node: ast.AST) -> Meaning:
        """Tell what a name or an attribute in a statement means; ('',) where it is no name of the module."""
        return self.uses(statement).get(id(node), (node, ("",)))[1]

    # -- words

    @cached_property
    def patched(self) -> set[str]:
        """Foreign modules that the program stores into, hands on whole, or names in a string."""
        found: set[str] = set()
        for statement in self.home:
            is_import = isinstance(statement.node, ast.Import | ast.ImportFrom)
            for node, meaning in self.uses(statement).values():
                whole = isinstance(node, ast.Name) and "." not in meaning[1]
                if meaning[0] == "foreign" and (whole or _is_stored(node)):
                    found.add(meaning[1])
            for node in () if is_import else statement.nodes:
                if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
                    meaning = self.meaning(statement, _root_of(node.value))
                    found |= {meaning[1]} - {"os.environ"} if meaning[0] == "foreign" else set()
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    head, dot, _ = node.value.partition(".")
                    found |= {head} if dot else set()
                elif isinstance(node, ast.Call) and node.args and self._stores(statement, node.func):
                    meaning = self.meaning(statement, node.args[0])
                    found |= {meaning[1]} if meaning[0] == "foreign" else set()
        return {name.partition(".")[0] for name in found}

    def _stores(self, statement: Statement, function: ast.expr) -> bool:
        return self.meaning(statement, function)[1:] in (("setattr",), ("delattr",))

    # -- reach

    def reads(self, statement: Statement) -> tuple[Iterable[Statement], bool]:
        """Return the statements that one leads to; True if it may lead to others, too."""
        known = self._reads.get(statement)
        if known is None:
            meanings = [meaning for _, meaning in self.uses(statement).values()]
            meanings += self.mentions(statement)
            found: dict[Statement, None] = {}
            for meaning in meanings:
                found |= dict.fromkeys(self.bindings(meaning))
                for module in self.below(meaning[1]) if meaning[0] in ("module", "part") else ():
                    found |= dict.fromkeys(module.statements)
            known = self._reads[statement] = found, self._hides(statement, meanings)
        return known

    def mentions(self, statement: Statement) -> list[Meaning]:
        """Return what a statement leads to other than by its names: by imports, and by words in strings."""
        return [*self._named_in_imports(statement), *self.named_in_strings(statement)]

    def below(self, name: str) -> list[Module]:
        """Return a module, and those in it."""
        return [m for each, m in self.modules.items() if each == name or each.startswith(f"{name}.")]

    def named_in_strings(self, statement: Statement) -> list[Meaning]:
        """Return what the words in strings mean where they are names of the module."""
        module = self.home[statement]
        texts = [n.value for n in statement.nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        words = {word for text in texts for word in _WORD.findall(text)}
        return [self.resolve(module, word) for word in sorted(words & module.bindings.keys())]

    def _named_in_imports(self, statement: Statement) -> Iterator[Meaning]:
        """Yield what imports in a statement name."""
        for node in statement.imported:
            if isinstance(node, ast.Import):
                yield from (self._module(alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                origin = self.home[statement].origin(node)
                yield from (self.resolve_import(origin, alias.name) for alias in node.names)

    def _hides(self, statement: Statement, meanings: Iterable[Meaning]) -> bool:
        """Tell whether a statement may reach names in ways that its text does not show."""
        is_import = isinstance(statement.node, ast.Import | ast.ImportFrom)
        for kind, *name in meanings:
            if kind == "builtin" and name[0] in _HIDING_BUILTINS:
                return True
            if kind == "foreign" and _HIDING_MODULES.match(name[0]):
                return True
            if kind == "foreign" and not is_import and _UNPICKLING.match(name[0]):
                return True
        return not is_import and any(map(_shows_names, statement.nodes))

    def loads(self, names: Iterable[str]) -> list[Module]:
        """Return the modules that importing modules of these names runs."""
        found: dict[str, Module] = {}
        todo = list(names)
        while todo:
            for name in with_packages(todo.pop()):
                if name in self.modules and name not in found:
                    module = found[name] = self.modules[name]
                    todo += (each for s in module.statements for each in imported_now(s, module))
        return list(found.values())


def read_program(
    task: str, conf: str | None, files: Mapping[str, bytes], modules: Mapping[str, str]
) -> Program:
    """Parse captured sources as one program; see `digest_sources`.

    Raises
    ------
    TaskFileError
        If a file can't be parsed.
    """
    found = {}
    for name, path in modules.items():
        if path:
            statements = read_statements([(path, parse(files[path], path))])
            found[name] = Module(name=name, package=package_of(name, path), statements=statements)
    scripts = [path for path in (conf, task) if path is not None]
    statements = read_statements((path, parse(files[path], path)) for path in scripts)
    name = PurePosixPath(task).stem.replace(".", "_")  # as it is loaded
    found[name] = Module(name=name, package="", statements=statements)
    return Program(name, found)


def imported_now(statement: Statement, module: Module) -> Iterator[str]:
    """Yield the names that a statement may import as modules when it runs."""
    for node in statement.imported:
        if node not in statement.later:
            yield from imported_names(node, module.package)


def package_of(name: str, path: str) -> str:
    """Return the package that relative imports of a module begin at."""
    return name if PurePosixPath(path).name == "__init__.py" else name.rpartition(".")[0]


def imported_names(node: ast.AST, package: str) -> Iterator[str]:
    """Yield the names that a node of a module may import as modules, absolute."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        origin = _origin(node, package)
        yield origin
        yield from (f"{origin}.{alias.name}" for alias in node.names if alias.name != "*")


def _origin(node: ast.ImportFrom, package: str) -> str:
    with suppress(ImportError):  # A relative import that leaves the package fails when it runs.
        return importlib.util.resolve_name("." * node.level + (node.module or ""), package)
    return "."


def _is_star(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.names[0].name == "*"


def _exported(module: Module) -> list[str] | None:
    """Return the names that `import *` of a module binds; None where the text does not show them."""
    users = [each.node for each in module.statements if any(name.id == "__all__" for name in each.names)]
    match users:
        case []:
            return [name for name in module.bindings if not name.startswith("_")]
        case [ast.Assign(targets=[ast.Name()], value=ast.List(elts=parts) | ast.Tuple(elts=parts))]:
            names = [part.value for part in parts if isinstance(part, ast.Constant)]
            return [str(name) for name in names] if len(names) == len(parts) else None
    return None


def _is_stored(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load)


def _root_of(node: ast.AST) -> ast.AST:
    """Return what an expression of items begins with."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node


def _shows_names(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr=name):
            return name in _HIDING_ATTRIBUTES
        case ast.keyword(arg="allow_pickle"):
            return True
        case ast.Call(func=ast.Attribute(attr="query" | "eval" | "evaluate"), args=[first, *_]):
            return not isinstance(first, ast.Constant)
        case ast.Call(func=ast.Name(id=name), args=[]):
            return name in _NAMESPACES
    return False
