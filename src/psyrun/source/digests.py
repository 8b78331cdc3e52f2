"""Digests of captured sources: of the statements that values of `execute`, and the space, depend on."""

from __future__ import annotations

import ast
import builtins
import hashlib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psyrun.source.archive import SCHEME
from psyrun.source.inert import Inertness, reach, words
from psyrun.source.modules import with_packages
from psyrun.source.normal import Normalizer
from psyrun.source.program import Module, imported_names, imported_now, read_program
from psyrun.source.pure import DECORATORS
from psyrun.source.syntax import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from psyrun.source.normal import Part
    from psyrun.source.program import Meaning
    from psyrun.source.syntax import Statement


_OTHER_STATEMENTS = "top level"
# fmt: off
# Where one of these words stands in the code, docstrings, annotations and names of functions may be read.
_REFLECTION = frozenset({
    "__doc__", "getdoc", "docopt", "pydoc", "doctest", "vars", "__dict__", "__name__", "__qualname__",
    "getmembers", "__annotations__", "stack", "get_type_hints", "signature", "register",
    "singledispatch", "singledispatchmethod", "get_annotations", "getfullargspec", "currentframe",
    "_getframe", "__annotate__", "annotationlib",
})
# Where one of these stands there, the text itself may be read.
_TEXT = frozenset({
    "inspect", "getsource", "getsourcelines", "linecache", "dis", "__code__", "co_consts", "co_code",
    "co_names", "co_varnames", "lineno", "co_firstlineno", "tb_lineno", "f_lineno", "__globals__",
    "tokenize", "extract_stack",
})
# fmt: on
# A statement with one of these may live with a name that is not bound yet.
_LENIENT = frozenset({"suppress", "hasattr", "getattr"})


def digest_sources(
    task: str, conf: str | None, files: Mapping[str, bytes], modules: Mapping[str, str]
) -> dict[str, Any]:
    """Digest captured sources; nothing else counts, so that a later psyrun can digest them anew.

    Parameters
    ----------
    task, conf
        The task file, and psy-conf.py beside it or None: paths in `files`.
    files
        Path -> bytes.
    modules
        Dotted name of each local module -> path, '' for a namespace package.

    Returns
    -------
    dict
        ``code`` and ``space``, 32 hexadecimal characters each, and ``definitions``: the digest of each
        definition in `code`, named like ``psy-tasks/model.py: step``.

    Raises
    ------
    TaskFileError
        If a file can't be parsed.
    """
    try:
        with deep_recursion():
            analysis = Analysis(task, conf, files, modules)
            parts = analysis.space_digest(), analysis.code_digest(), analysis.definitions()
    except RecursionError:
        text = mix(f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in sorted(files.items()))
        parts = text, text, {}
    return dict(zip(("space", "code", "definitions"), parts))


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Allow for deep expressions while the context lasts."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 50_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


class Analysis:
    """What counts in a program, and why.

    Attributes
    ----------
    code, space
        The statements that values of `execute`, and the space, depend on, each with one that leads to it.
    hiding
        A statement for which all count, since it may reach names that its text does not show.
    acting
        Statements that may do something when the task file is loaded.
    unnamed
        Statements of modules that no import statement names.
    made
        Definitions in the space that parameters may be made of.
    """

    def __init__(
        self, task: str, conf: str | None, files: Mapping[str, bytes], modules: Mapping[str, str]
    ) -> None:
        self.program = program = read_program(task, conf, files, modules)
        self._files = files
        self.known = Inertness(program)
        named = self._named()
        self.unnamed = [each for each, module in program.home.items() if module.name not in named]
        loaded = {each for module in self._loaded() for each in module.statements}
        self.acting = [each for each in program.home if each in loaded and each in self.known.acting]
        always = [*self.acting, *self.unnamed]
        self.space, _ = self._reach([*self.bound("pspace"), *always])
        values = self.known.kinds.get((program.task.name, "pspace"), -1)
        self.made = (
            [s for s in self.space if isinstance(s.node, (*FUNCTIONS, ast.ClassDef))] if values < 2 else []
        )
        roots = [*self.bound("execute"), *self.bound("setup"), *always, *self.made]
        self.code, self.hiding = self._reach(roots)
        self._words = {word for each in self.code | self.space for word in words(each)}
        lenient, hiding = reach(program, self.acting, self.acting)
        everything = len(self.code) == len(program.home)
        self._strict = everything or hiding is not None or any(map(_is_lenient, lenient))
        self._exposed: set[Meaning] = set().union(*map(self.known.handed, self.acting))
        self._parts: dict[Statement, list[Part]] = {}

    def bound(self, name: str) -> Sequence[Statement]:
        """Return the statements that bind a name of the task file."""
        return self.program.bindings(self._resolve(name))

    def _resolve(self, name: str) -> Meaning:
        return self.program.resolve(self.program.task, name)

    def _reach(
        self, roots: Iterable[Statement]
    ) -> tuple[dict[Statement, Statement | None], Statement | None]:
        found, hiding = reach(self.program, roots, self.known.acting)
        if hiding or self.program.has_foreign_star:
            found |= {each: found.get(each) for each in self.program.home}
        return found, hiding

    def _named(self) -> set[str]:
        """Return the names that import statements of the program may import."""
        program = self.program
        nodes = ((node, m) for each, m in program.home.items() for node in each.imported)
        named = {name for node, module in nodes for name in imported_names(node, module.package)}
        return {above for name in named for above in with_packages(name)} | {program.task.name}

    def _loaded(self) -> list[Module]:
        """Return the modules that loading the task file imports, as far as import statements tell."""
        program = self.program
        names = [name for each in program.task.statements for name in imported_now(each, program.task)]
        unnamed = {program.home[each].name for each in self.unnamed}
        return [program.task, *program.loads([*names, *unnamed])]

    # -- digests

    def code_digest(self) -> str:
        """Digest what the values of `execute` depend on."""
        return self._digest(("execute", "setup"), self.code)

    def space_digest(self) -> str:
        """Digest what the space depends on."""
        return self._digest(("pspace",), self.space)

    def definitions(self) -> dict[str, str]:
        """Digest each definition in the code, with the names that it reads."""
        parts: dict[str, list[str]] = {}
        for each in self.program.home:
            if each not in self.code or (
                0 < len(each.binds) == len(each.imports) and each not in self.known.acting
            ):
                continue
            text = "".join(part if isinstance(part, str) else ".".join(part) for part in self.parts(each))
            for name in sorted(each.binds - each.imports) or [_OTHER_STATEMENTS]:
                parts.setdefault(f"{each.path}: {name}", []).append(text)
        return {name: mix(texts) for name, texts in parts.items()}

    def _digest(self, roots: Iterable[str], members: Collection[Statement]) -> str:
        """Digest statements: those that run something in order, definitions as the roots lead to them.

        Definitions are numbered in this walk, so that their names and places do not count.
        """
        program = self.program
        ordered = [each for each in self._in_order() if each in members and not self._is_free(each)]
        places = {each: str(place) for place, each in enumerate(ordered)}
        walk = _Walk(self)
        for name in roots:
            walk.put([f"{name}=", self._resolve(name)])
        for each in ordered:
            walk.put(["!", *self.parts(each)])
        for meaning in walk.queue:  # grows
            bindings = program.bindings(meaning)
            walk.put([f"#{len(bindings)}"])
            for each in bindings:
                walk.put([f"@{places[each]}"] if each in places else self.parts(each))
            if not bindings:
                walk.put([f"{meaning[2]} of {self._constant(*meaning[1:])}"])
        if self._words & _TEXT:
            walk.out += [
                f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in sorted(self._files.items())
            ]
        return mix(walk.out)

    def _constant(self, module: str, name: str) -> str:
        """Return `__name__`, `__file__` or `__doc__` of a module."""
        statements = self.program.modules[module].statements
        match name, statements:
            case "__file__", [first, *_]:
                return first.path
            case "__doc__", [first, *_]:
                return ast.dump(first.node) if isinstance(first.node, ast.Expr) else ""
        return module

    def parts(self, statement: Statement) -> list[Part]:
        """Return the normal form of a statement, and what else it leads to."""
        known = self._parts.get(statement)
        if known is None:
            whole = bool(self._words & _REFLECTION)
            form = Normalizer(self.known, statement, whole=whole, exposed=self._exposed).parts
            known = self._parts[statement] = [*form, *self.program.mentions(statement)]
        return known

    # -- order

    def _in_order(self) -> Iterator[Statement]:
        """Yield all statements in the order in which they run; modules where they are first imported."""
        seen: set[str] = set()
        stack: list[Iterator[Statement | Module]] = [
            iter((self.program.task, *self.program.modules.values()))
        ]
        while stack:
            each = next(stack[-1], None)
            if each is None:
                stack.pop()
            elif isinstance(each, Module):
                if each.name not in seen:
                    seen.add(each.name)
                    stack.append(self._run(each))
            else:
                yield each

    def _run(self, module: Module) -> Iterator[Statement | Module]:
        for each in module.statements:
            for name in imported_now(each, module):
                yield from (self.program.modules[n] for n in with_packages(name) if n in self.program.modules)
            yield each

    def _is_free(self, statement: Statement) -> bool:
        """Tell whether a statement may stand anywhere: it reads and calls nothing when it runs."""
        if self._strict or statement in self.known.acting:
            return False
        module, node = self.program.home[statement], statement.node
        if any(len(module.bindings[name]) > 1 for name in statement.binds):
            return False
        if isinstance(node, ast.Import | ast.ImportFrom):
            return all(len(self.program.bindings(m)) < 2 for m in self.program.mentions(statement))
        if any(hasattr(builtins, name) for name in statement.binds):
            return False
        return all(
            self._is_constant(statement, part) for each in _run_at_once(node) for part in ast.walk(each)
        )

    def _is_constant(self, statement: Statement, node: ast.AST) -> bool:
        meaning = self.program.meaning(statement, node)
        if isinstance(node, ast.Call):
            return ".".join(self.program.meaning(statement, node.func)[1:]) in DECORATORS
        if meaning[0] not in ("builtin", "foreign", ""):
            return False
        return not isinstance(node, ast.Lambda | ast.comprehension | ast.stmt)


class _Walk:
    """Numbers definitions in the order in which they are met."""

    def __init__(self, analysis: Analysis) -> None:
        self._program = analysis.program
        self._numbers: dict[Meaning, int] = {}
        self._modules: set[str] = set()
        self.queue: list[Meaning] = []
        self.out: list[str] = []

    def put(self, parts: Iterable[Part]) -> None:
        """Write parts as one line."""
        self.out.append("".join([part if isinstance(part, str) else self._show(part) for part in parts]))

    def _show(self, meaning: Meaning) -> str:
        if meaning[0] == "local":
            if meaning not in self._numbers:
                self._numbers[meaning] = len(self.queue)
                self.queue.append(meaning)
            return f"#{self._numbers[meaning]}"
        if meaning[0] in ("module", "part") and meaning[1] not in self._modules:
            self._modules.add(meaning[1])
            for module in self._program.below(meaning[1]):
                self.put(
                    part for name in sorted(module.bindings) for part in (name, ("local", module.name, name))
                )
        return f"<{'.'.join(meaning)}>"


def _run_at_once(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a definition or an assignment that run with it; other statements whole."""
    match node:
        case ast.FunctionDef(args=arguments) | ast.AsyncFunctionDef(args=arguments):
            yield from node.decorator_list
            yield from (each for each in (*arguments.defaults, *arguments.kw_defaults) if each)
        case ast.ClassDef():
            yield from (*node.decorator_list, *node.bases)
            yield from (part for each in node.body for part in _run_at_once(each))
        case ast.Assign(targets=targets, value=value):
            yield value
            yield from (each for each in targets if isinstance(each, ast.Subscript))
        case ast.AnnAssign(value=ast.expr() as value):
            yield value
        case ast.Expr(value=ast.Constant()) | ast.Pass() | ast.AnnAssign():
            return
        case _:
            yield node


def _is_lenient(statement: Statement) -> bool:
    for node in statement.nodes:
        match node:
            case ast.ExceptHandler(type=ast.Name(id="ImportError" | "ModuleNotFoundError")):
                continue
            case ast.ExceptHandler():
                return True
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in _LENIENT:
                return True
    return False


def mix(parts: Iterable[str]) -> str:
    """Digest a list of texts: 32 hexadecimal characters."""
    return hashlib.sha256("\n".join([f"psyrun {SCHEME}", *parts]).encode()).hexdigest()[:32]
