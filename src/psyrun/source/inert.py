"""Inert statements: their text proves that running them binds names, and does nothing else.

The lists are white: what is not on them may do anything. An expression has one of five kinds.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from psyrun.source.program import imported_names
from psyrun.source.pure import (
    ATTRIBUTES_OF_PATHS,
    BASES,
    CONSTANTS,
    DECORATORS,
    EXTENDS_YAML,
    FORBIDDEN,
    GROWING,
    HINTS,
    HOOKS,
    IN_CLASSES,
    LOGGING,
    MAKES_TEXT,
    METHODS,
    METHODS_OF_FILES,
    OPENING,
    PATHS,
    PSYRUN,
    PURE,
    READ_WITH,
    READERS,
    READS_ALL,
    READS_FIRST,
    READS_OUTPUT,
    Kind,
)
from psyrun.source.syntax import SCOPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from psyrun.source.program import Program
    from psyrun.source.syntax import Statement


class Inertness:
    """Statements that are inert: the greatest set that agrees with itself.

    Attributes
    ----------
    acting
        The statements that may do something.
    kinds
        (module, name) -> what is known of the values of a name.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.acting: set[Statement] = set()
        self.kinds = {(m.name, name): Kind.FROZEN for m in program.modules.values() for name in m.bindings}
        self.words = {word for statement in program.home for word in words(statement)}
        self._grows: dict[Statement, set[str]] = {}
        self.hooked = bool(self.words & HOOKS)
        while self._step():
            pass
        for statement, names in self._grows.items():
            if statement not in self.acting:
                program.bind_more(statement, names - statement.binds)

    def _step(self) -> bool:
        """Judge all statements by what is known; tell whether something new is known then."""
        before = len(self.acting), dict(self.kinds)
        program = self.program
        bound: dict[tuple[str, str], Kind] = {}
        for statement, module in program.home.items():
            judge = Judge(self, statement)
            if statement not in self.acting and not judge.is_inert(statement.node):
                self.acting.add(statement)
            self._grows[statement] = judge.grows
            for name in statement.binds:
                inert = statement not in self.acting
                kind = judge.bound.get(name, Kind.OPAQUE) if inert else Kind.OPAQUE
                bound[module.name, name] = min(kind, bound.get((module.name, name), kind))
        touched = reach(program, self.acting, self.acting)
        for module in program.modules.values():
            for name, statements in module.bindings.items():
                key = module.name, name
                kind = min(self.kinds[key], bound.get(key, Kind.OPAQUE))
                outside = any(name not in each.binds for each in statements)
                if outside or (
                    kind < Kind.FROZEN and (touched is None or not touched.isdisjoint(statements))
                ):
                    kind = min(kind, Kind.OPAQUE)
                self.kinds[key] = kind
        return before != (len(self.acting), self.kinds)


def reach(
    program: Program, roots: Iterable[Statement], acting: Iterable[Statement] = ()
) -> set[Statement] | None:
    """Return the statements that some lead to; None where the text does not show them.

    Parameters
    ----------
    acting
        What importing a module runs where a function that is reached imports it.
    """
    acting = set(acting)
    seen: set[Statement] = set()
    todo = list(roots)
    while todo:
        statement = todo.pop()
        if statement in seen:
            continue
        seen.add(statement)
        read, more = program.reads(statement)
        if more:
            return None
        todo += read - seen
        if statement.later:
            package = program.home[statement].package
            names = [name for node in statement.later for name in imported_names(node, package)]
            todo += (each for m in program.loads(names) for each in m.statements if each in acting)
    return seen


def words(statement: Statement) -> Iterator[str]:
    """Yield the identifiers in a statement, but for parameters; the names of some operations too."""
    for node in statement.nodes:
        if isinstance(node, ast.Name):
            if node.id != "__name__":
                yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and node.value.isidentifier():
                yield node.value
        elif isinstance(node, ast.Mod | ast.JoinedStr):
            yield type(node).__name__
    for node in statement.imported:
        yield from (getattr(node, "module", None) or "").split(".")
        yield from (part for alias in node.names for part in alias.name.split("."))


class Judge:
    """Judges a statement.

    Attributes
    ----------
    bound
        Kinds of the values that it binds names to.
    grows
        Names whose own object it changes.
    """

    def __init__(self, known: Inertness, statement: Statement) -> None:
        self._known, self._program, self._statement = known, known.program, statement
        self._module = known.program.home[statement]
        self._local: dict[str, Kind] = {}  # variables of comprehensions, files and iterators in a `with`
        self._paths: set[str] = set()  # variables of loops over paths
        self.bound: dict[str, Kind] = {}
        self.grows: set[str] = set()

    # -- statements

    def find_act(self) -> ast.AST:
        """Return the smallest part of an acting statement that may do something."""
        calls = [node for node in reversed(self._statement.nodes) if isinstance(node, ast.Call)]
        outside = (each for each in calls if self.kind(each) < Kind.OPAQUE)
        return next(outside, self._statement.node)

    def is_inert(self, node: ast.stmt) -> bool:
        """Tell whether a statement only binds names."""
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                return self._defines_only(node)
            case ast.ClassDef():
                return self._is_plain_class(node)
            case ast.Import() | ast.ImportFrom():
                return self._is_found(node)
            case ast.Assign(targets=targets, value=value):
                kind = self.kind(value)
                return kind >= Kind.OPAQUE and all(self._bind(each, kind) for each in targets)
            case ast.AnnAssign(target=target, annotation=hint, value=value, simple=1):
                kind = self.kind(value)
                return self._is_hint(hint) and kind >= Kind.OPAQUE and self._bind(target, kind)
            case ast.AugAssign(target=ast.Name(id=name) as target, value=value):
                known, added = self._kind_of(name), self.kind(value)
                self.bound[name] = min(known, added)
                return added >= Kind.PLAIN and (known == Kind.FROZEN or self._grow(target))
            case ast.If() | ast.For() | ast.With():
                return self._is_inert_block(node)
            case ast.Expr(value=ast.Call() as call):
                return self._is_growth(call) or self.is_message(call) or self.kind(call) >= Kind.OPAQUE
            case ast.Expr(value=value):
                return self.kind(value) >= Kind.OPAQUE
        return isinstance(node, ast.Pass)

    def _is_inert_block(self, node: ast.If | ast.For | ast.With) -> bool:
        if isinstance(node, ast.With):
            return self._reads_only(node)
        body, paths = node.body, self._paths
        if isinstance(node, ast.For):
            begins = self.kind(node.iter) >= Kind.ONCE and self._bind(node.target, Kind.PLAIN)
            self._paths = paths | self._named_paths(node)
        elif id(node) in self._statement.skipped:
            begins, body = True, []
        else:
            begins = self.kind(node.test) >= Kind.PLAIN
        inert = begins and all(self.is_inert(each) for each in (*body, *node.orelse))
        self._paths = paths
        return inert

    def _reads_only(self, node: ast.With) -> bool:
        """Tell whether a `with` opens files for reading, which nothing else gets, and binds what it reads."""
        outer = self._local
        self._local = dict(outer)
        defines = any(isinstance(part, (ast.Import, ast.ImportFrom, *SCOPES)) for part in ast.walk(node))
        inert = not defines and all(map(self._opens, node.items)) and all(map(self._is_step, node.body))
        self._local = outer
        return inert

    def _opens(self, item: ast.withitem) -> bool:
        call, target = item.context_expr, item.optional_vars
        opens = isinstance(call, ast.Call) and (
            self._named(call.func) in (*OPENING, "numpy.load")
            or (isinstance(call.func, ast.Attribute) and call.func.attr == "open")
        )
        kind = self.kind(call)
        named = target is None or (isinstance(target, ast.Name) and self._keep(target.id, kind))
        return opens and named and kind >= Kind.ONCE

    def _is_step(self, node: ast.stmt) -> bool:
        """Tell whether a statement in a `with` is inert, or names an iterator for the rest of the body."""
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if self.kind(value) == Kind.ONCE:
                return self._keep(name, Kind.ONCE)
        return self.is_inert(node)

    def _keep(self, name: str, kind: Kind) -> bool:
        """Bind a name that is known in the body of a `with` only; tell whether it is new there."""
        new = name not in self._local
        self._local[name], self.bound[name] = kind, Kind.OPAQUE
        return new

    def _bind(self, target: ast.expr, kind: Kind) -> bool:
        match target:
            case ast.Name(id=name) if name in self._local:
                return False
            case ast.Name(id=name):
                self.bound[name] = min(kind, self.bound.get(name, kind))
                return kind != Kind.ONCE
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                parts = all(isinstance(each, ast.Name) for each in targets)
                return parts and kind >= Kind.ONCE and all(self._bind(t, Kind.PLAIN) for t in targets)
            case ast.Subscript(value=owner, slice=index):
                return min(kind, self.kind(index)) >= Kind.PLAIN and self._grow(owner)
            case ast.Attribute(value=owner):  # such as scheduler.poll
                return kind >= Kind.PLAIN and self._grow(owner, Kind.OPAQUE)
        return False

    def _grow(self, node: ast.expr, least: Kind = Kind.PLAIN) -> bool:
        """Tell whether a name alone has its object, which a statement above made; this one changes it."""
        meaning = self._program.meaning(self._statement, node)
        if meaning[:2] != ("local", self._module.name) or self._kind_of(meaning[2]) < least:
            return False
        name = meaning[2]
        makers = [each for each in self._module.bindings[name] if _assigns(each, name)]
        match [each.node for each in makers]:
            case [ast.Assign(targets=[ast.Name()], value=value)] if self._is_new(value, makers[0]):
                self.grows.add(name)
                places = self._module.statements
                return places.index(makers[0]) < places.index(self._statement)
        return False

    def _is_new(self, value: ast.expr, statement: Statement) -> bool:
        """Tell whether an expression makes an object that nothing else has."""
        if isinstance(value, ast.Call):
            kind, *name = self._program.meaning(statement, value.func)
            own = kind == "foreign" and name[0].startswith("psyrun.")
            return own or (not value.keywords and name[0:] in (["list"], ["dict"], ["set"], ["numpy.zeros"]))
        new = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.BinOp
        return isinstance(value, new | ast.Constant)

    def _is_growth(self, call: ast.Call) -> bool:
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name() as owner, attr=method), args=args, keywords=[]):
                least = Kind.ONCE if method in ("extend", "update") else Kind.PLAIN
                plain = all(self.kind(each) >= least for each in args)
                return method in GROWING and plain and self._grow(owner)
        return False

    def is_message(self, call: ast.Call) -> bool:
        """Tell whether a call prints or logs plain values, or sets how arrays are shown."""
        plain = all(self.kind(each) >= Kind.PLAIN for each in (*call.args, *(k.value for k in call.keywords)))
        if self._named(call.func) == "numpy.set_printoptions":
            return plain and not self._known.words & MAKES_TEXT
        return plain and self.is_output(call)

    def is_output(self, call: ast.Call) -> bool:
        """Tell whether a call prints or logs, and nothing reads that."""
        if self._known.words & READS_OUTPUT or any(
            k.arg not in ("sep", "end", "flush") for k in call.keywords
        ):
            return False
        name = self._named(call.func)
        if name == "print" or (name.startswith("logging.") and name[len("logging.") :] in LOGGING):
            return True
        match call.func:
            case ast.Attribute(value=owner, attr=method) if method in LOGGING:
                bindings = self._program.bindings(self._program.meaning(self._statement, owner))
                match [each.node for each in bindings]:
                    case [ast.Assign(value=ast.Call(func=maker))]:
                        return self._program.meaning(bindings[0], maker) == ("foreign", "logging.getLogger")
        return False

    def _is_found(self, node: ast.Import | ast.ImportFrom) -> bool:
        """Tell whether an import binds names that are there; what else it runs stands in its modules."""
        if isinstance(node, ast.Import):
            return True
        origin = self._module.origin(node)
        meanings = [self._program.resolve_import(origin, alias.name) for alias in node.names]
        return all(meaning[0] != "part" for meaning in meanings)

    # -- definitions

    def _defines_only(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        arguments = node.args
        hints = [each.annotation for each in ast.walk(arguments) if isinstance(each, ast.arg)]
        defaults = [*arguments.defaults, *arguments.kw_defaults]
        return (
            all(self.is_decorator(each, node.name) for each in node.decorator_list)
            and all(self.kind(each) >= Kind.OPAQUE for each in defaults)
            and all(each is None or self._is_hint(each) for each in (*hints, node.returns))
        )

    def is_decorator(self, node: ast.expr, name: str = "") -> bool:
        """Tell whether a decorator is known to leave what it decorates as it is."""
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr="setter" | "getter" | "deleter"):
                return owner == name and id(node.value) in self._statement.in_class
            case ast.Call(func=function, args=args, keywords=keywords):
                plain = all(self.kind(each) >= Kind.PLAIN for each in (*args, *(k.value for k in keywords)))
                return plain and self._named(function) in DECORATORS
        return self._named(node) in DECORATORS

    def _is_hint(self, node: ast.expr) -> bool:
        return not self._known.hooked and all(isinstance(part, HINTS) for part in ast.walk(node))

    def _is_plain_class(self, node: ast.ClassDef) -> bool:
        return (
            not (node.keywords or self._known.hooked)
            and all(self.is_decorator(each) for each in node.decorator_list)
            and all(map(self._is_base, node.bases))
            and all(map(self._is_member, node.body))
        )

    def _is_base(self, node: ast.expr) -> bool:
        if self._named(node) in BASES:
            return True
        bindings = self._program.bindings(self._program.meaning(self._statement, node))
        known = [isinstance(s.node, ast.ClassDef) and s not in self._known.acting for s in bindings]
        return known == [True]

    def _is_member(self, node: ast.stmt) -> bool:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                return self._defines_only(node)
            case ast.ClassDef():
                return self._is_plain_class(node)
            case ast.Assign(targets=[ast.Name()], value=value):
                return self._is_attribute(value)
            case ast.AnnAssign(target=ast.Name(), annotation=hint, value=value):
                return self._is_hint(hint) and (value is None or self._is_attribute(value))
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                return True
        return False

    def _is_attribute(self, value: ast.expr) -> bool:
        if isinstance(value, ast.Call) and self._named(value.func) in IN_CLASSES:
            return all(self.kind(keyword.value) >= Kind.OPAQUE for keyword in value.keywords)
        return isinstance(value, ast.Lambda) or self.kind(value) >= Kind.PLAIN

    # -- expressions

    def _named(self, node: ast.AST) -> str:
        """Return the name of a builtin or of a part of an installed module; '' where it may be patched."""
        kind, *name = self._program.meaning(self._statement, node)
        if kind not in ("builtin", "foreign"):
            return ""
        home = "builtins" if kind == "builtin" else name[0].partition(".")[0]
        used = READ_WITH | {home} if name[0] in READERS else {home}
        return name[0] if self._program.patched.isdisjoint(used) else ""

    def _kind_of(self, name: str) -> Kind:
        return self._known.kinds.get((self._module.name, name), Kind.OPAQUE)

    def kind(self, node: ast.expr | None) -> Kind:
        """Return what is known of an expression."""
        match node:
            case None | ast.Constant():
                return Kind.FROZEN
            case ast.Name() | ast.Attribute():
                return self._kind_of_name(node)
            case ast.Call():
                return self._kind_of_call(node)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                return self._kind_of_comprehension(node)
            case ast.Lambda(args=arguments):
                defaults = [*arguments.defaults, *arguments.kw_defaults]
                return Kind.OPAQUE if self._least(defaults) >= Kind.OPAQUE else Kind.ACTS
            case ast.Tuple(elts=parts):
                return self._kind_of_display(parts)
            case ast.List(elts=parts):
                return min(Kind.PLAIN, self._kind_of_display(parts))
            case ast.Dict(keys=keys, values=values):
                kinds = [self.kind(k or v) for k, v in zip(keys, values)]
                hashed = min(kinds, default=Kind.PLAIN) >= Kind.PLAIN
                return min(Kind.PLAIN, self._kind_of_display(values)) if hashed else Kind.ACTS
            case ast.Starred(value=value):
                return Kind.PLAIN if self.kind(value) >= Kind.ONCE else Kind.ACTS
        return self._kind_of_operation(node)

    def _kind_of_operation(self, node: ast.expr) -> Kind:
        """Return the kind of operators and their like: plain where all operands are."""
        if not isinstance(node, _OPERATIONS):
            return Kind.ACTS
        operands = [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)]
        least = self._least(operands)
        if least < Kind.PLAIN:
            return Kind.ACTS
        if isinstance(node, ast.JoinedStr):
            return Kind.FROZEN
        return min(least, Kind.PLAIN) if isinstance(node, ast.Set) else least

    def _least(self, nodes: Iterable[ast.expr | None]) -> Kind:
        return min([self.kind(node) for node in nodes], default=Kind.FROZEN)

    def _kind_of_display(self, parts: Iterable[ast.expr]) -> Kind:
        """Return the kind of a tuple, which may hold what is opaque."""
        least = self._least(parts)
        return Kind.OPAQUE if least == Kind.ONCE else least

    def _kind_of_name(self, node: ast.Name | ast.Attribute) -> Kind:
        if isinstance(node, ast.Name) and node.id in self._local:
            return self._local[node.id]
        meaning = self._program.meaning(self._statement, node)
        match meaning:
            case ("local", module, name):
                if name in ("__name__", "__file__") and not self._program.bindings(meaning):
                    return Kind.FROZEN
                return self._known.kinds.get((module, name), Kind.OPAQUE)
            case ("foreign" | "builtin", _):
                return Kind.FROZEN if self._named(node) in CONSTANTS else Kind.OPAQUE
            case ("module", _):
                return Kind.OPAQUE
        if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES_OF_PATHS:
            kind = self.kind(node.value)
            return kind if kind >= Kind.PLAIN else Kind.ACTS
        return Kind.ACTS

    def _kind_of_comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    ) -> Kind:
        outer, paths = self._local, self._paths
        self._local = dict(outer)
        plain = all(self._is_plain_part(each) for each in node.generators)
        kind = self._least([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])
        self._local, self._paths = outer, paths
        if not plain or kind < Kind.PLAIN:
            return Kind.ACTS
        return Kind.ONCE if isinstance(node, ast.GeneratorExp) else Kind.PLAIN

    def _is_plain_part(self, part: ast.comprehension) -> bool:
        iterable = self.kind(part.iter)
        names = part.target.elts if isinstance(part.target, ast.Tuple) else [part.target]
        self._local |= {each.id: Kind.PLAIN for each in names if isinstance(each, ast.Name)}
        self._paths = (self._paths - self._local.keys()) | self._named_paths(part)
        plain = iterable >= Kind.ONCE and all(isinstance(each, ast.Name) for each in names)
        return plain and not part.is_async and self._least(part.ifs) >= Kind.PLAIN

    def _kind_of_call(self, node: ast.Call) -> Kind:
        name = self._named(node.func)
        kinds = [self.kind(each) for each in (*node.args, *(keyword.value for keyword in node.keywords))]
        least = min(kinds, default=Kind.FROZEN)
        if name == "logging.getLogger":
            return Kind.OPAQUE if least >= Kind.PLAIN else Kind.ACTS
        if name.startswith("psyrun.") and name.rpartition(".")[2] in PSYRUN:
            enough = Kind.ONCE if name.endswith(".Param") else Kind.PLAIN
            return Kind.PLAIN if least >= enough else min(least, Kind.OPAQUE)
        read = len(node.args) if name in READS_ALL else min(len(node.args), name in READS_FIRST)
        if least < Kind.ONCE or min(kinds[read:], default=Kind.FROZEN) < Kind.PLAIN:
            return Kind.ACTS
        match node.func:
            case ast.Attribute(value=owner, attr=method) if method in METHODS and not name:
                own = Kind.ONCE if method in METHODS_OF_FILES else Kind.PLAIN
                reads = self.kind(owner) >= own and (method != "open" or self._is_reading(node, 0))
                return METHODS[method] if reads else Kind.ACTS
        return PURE[name] if name in PURE and self._is_harmless(name, node) else Kind.ACTS

    def _is_harmless(self, name: str, call: ast.Call) -> bool:
        """Tell whether a call is without those arguments with which a function of the list does more."""
        if name in OPENING:
            return bool(call.args) and self._is_path(call.args[0]) and self._is_reading(call, OPENING[name])
        if name == "yaml.safe_load":
            return not self._known.words & EXTENDS_YAML
        forbidden = FORBIDDEN.get(name, ())
        unclear = len(call.args) != 1 or isinstance(call.args[0], ast.Starred)
        return not (forbidden and unclear) and all(k.arg not in forbidden for k in call.keywords)

    def _is_reading(self, call: ast.Call, place: int) -> bool:
        """Tell whether the mode of a call of `open` stands there, and is one for reading."""
        modes = [*call.args[place : place + 1], *(k.value for k in call.keywords if k.arg in ("mode", None))]
        shown = not any(isinstance(each, ast.Starred) for each in call.args)
        literals = [each.value for each in modes if isinstance(each, ast.Constant)]
        return shown and len(literals) == len(modes) and all(each in ("r", "rb", "rt") for each in literals)

    def _is_path(self, node: ast.expr) -> bool:
        """Tell whether an expression is no number, which would be a file that something else opened."""
        match node:
            case ast.Constant(value=value):
                return isinstance(value, str)
            case ast.BinOp(left=left, right=right):
                return self._is_path(left) or self._is_path(right)
            case ast.Call(func=function):
                return self._named(function) in PATHS
            case ast.Name(id=name):
                made = self._assigned(node)
                return name in self._paths or (made is not None and self._is_path(made))
        return isinstance(node, ast.JoinedStr)

    def _named_paths(self, loop: ast.For | ast.comprehension) -> set[str]:
        """Return the variable of a loop over paths."""
        match loop.target:
            case ast.Name(id=name) if self._are_paths(loop.iter):
                stored = [each for each in self._statement.names if each.id == name]
                once = sum(not isinstance(each.ctx, ast.Load) for each in stored) <= isinstance(loop, ast.For)
                return {name} if once else set()
        return set()

    def _are_paths(self, node: ast.expr) -> bool:
        match node:
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return all(map(self._is_path, parts))
            case ast.Call(func=ast.Name(id="sorted" | "list"), args=[inner, *_]):
                return self._are_paths(inner)
            case ast.Call(func=ast.Attribute(attr="glob" | "rglob" | "iterdir" | "splitlines" | "split")):
                return True
            case ast.Call(func=function):
                return self._named(function) in ("glob.glob", "glob.iglob", "os.listdir")
            case ast.Name():
                value = self._assigned(node)
                return value is not None and self._are_paths(value)
        return False

    def _assigned(self, node: ast.Name) -> ast.expr | None:
        """Return what the only statement above that binds a name assigns to it."""
        places = self._module.statements
        bindings = self._program.bindings(self._program.meaning(self._statement, node))
        match [each.node for each in bindings if each in places[: places.index(self._statement)]]:
            case [ast.Assign(targets=[ast.Name()], value=value)] if len(bindings) == 1:
                return value
        return None


def _assigns(statement: Statement, name: str) -> bool:
    """Tell whether a statement binds a name other than by `+=` and its like."""
    updated = {id(node.target) for node in statement.nodes if isinstance(node, ast.AugAssign)}
    stored = [id(n) for n in statement.names if n.id == name and not isinstance(n.ctx, ast.Load)]
    return not set(stored) <= updated if stored else name in statement.binds


_OPERATIONS = (
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Set, ast.Subscript, ast.Slice),
    *(ast.JoinedStr, ast.FormattedValue),
)
