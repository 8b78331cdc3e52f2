"""Random generators that outlive a row: what rows drew from them depends on the rows before.

They are noticed by their states before and after the first rows of a process. Looking changes no state, and
imports nothing. A row that seeds a generator before it draws from it does not depend on others, although the
state differs afterwards. So the generator counts only where

- the row called no ``seed``, ``set_state`` or ``setstate`` of `numpy.random` or `random`, which are wrapped
  there and in the user's modules while the rows are evaluated, and
- its new state follows from the old one by drawing: of MT19937, that is tried, as far as the row's time
  allows; of PCG64, the increment is the same; of others it is assumed.

`numpy.random.RandomState` and `random.Random` can be seeded unnoticed: these have to draw in two rows.
"""

from __future__ import annotations

import itertools
import sys
import time
from contextlib import contextmanager, suppress
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from psyrun.source import imported_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from psyrun.source import Source
    from psyrun.source.syntax import Statement

    State = tuple[Any, ...]  # kind, what seeding changes, the rest


_ROWS = 3  # rows of a process that are looked at
_MOST_PARTS = 1000  # of a value
_WORDS = 624  # of the state of MT19937
_MOST_WORDS = {True: 1 << 24, False: 1 << 22}  # drawn to find a state again, with NumPy and without: 0.1 s
_WORDS_PER_SECOND = 1e9  # more than any row draws
_SEEDING = (
    *(("numpy.random", "seed"), ("numpy.random", "set_state")),
    *(("random", "seed"), ("random", "setstate")),
)
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})


class Name(NamedTuple):
    """A name that leads to a generator, its module ('': `numpy.random` or `random` itself), and how."""

    module: str
    name: str
    label: str


class GeneratorWatch:
    """Calls `execute`, and notices what the first rows draw from generators that outlive a row.

    Parameters
    ----------
    execute
        The function.
    setup
        What `setup` returned.
    source
        The captured sources.

    Attributes
    ----------
    execute
        The function, to be called as soon as `is_over`.
    """

    def __init__(self, execute: Callable[..., Any], setup: dict[str, Any], source: Source) -> None:
        self.execute, self._setup, self._source = execute, setup, source
        self._left = _ROWS
        self._states: dict[int, tuple[Any, list[Name], State]] = {}
        self._seeded: set[str] = set()  # modules whose generator the row seeded
        self._drawn: set[int] = set()
        self._found: dict[int, list[Name]] = {}
        self._words: dict[int, str] = {}

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to notice."""
        return not self._left

    def __call__(self, **arguments: Any) -> Any:
        """Evaluate a row."""
        if self.is_over:
            return self.execute(**arguments)
        if self._left == _ROWS:
            with suppress(Exception):  # Objects of users may be anything, and no row fails by a look at them.
                self._states = self._read()
        self._left -= 1
        began = time.monotonic()
        try:
            with self._noticing_seeds():
                return self.execute(**arguments)
        finally:
            with suppress(Exception):
                self._compare(time.monotonic() - began)

    def _compare(self, seconds: float) -> None:
        """Compare the states of generators with those before a row that took so long."""
        before, self._states = self._states, self._read()
        for key, (generator, names, after) in self._states.items():
            own = not names[0].module
            if key not in before or key in self._found or before[key][2] == after:
                continue
            seeded = own and names[0].name in self._seeded
            if seeded or not _is_drawn(before[key][2], after, seconds, otherwise=own):
                continue
            if key in self._drawn or own or not hasattr(type(generator), "seed"):
                self._found[key] = names
            self._drawn.add(key)
        if not self._left:
            self._states = {}

    def _read(self) -> dict[int, tuple[Any, list[Name], State]]:
        """Return the generators that there are, by id, with their names and states."""
        found = {id(each): (each, [Name("", name, name)]) for name, each in _own_generators()}
        kinds, modules = _kinds(), imported_modules(self._source)
        values = [(module, *each) for module in modules for each in list(vars(modules[module]).items())]
        values.append((next(iter(modules)), "setup", self._setup))
        for module, name, value in values:
            for label, part in _parts(name, value):
                if issubclass(type(part), kinds):
                    found.setdefault(id(part), (part, []))[1].append(Name(module, name, label))
        return {key: (each, names, _read_state(each)) for key, (each, names) in found.items()}

    def describe(self) -> list[str]:
        """Return what was noticed so far, in words: ``rng (psy-tasks/task_fig1.py:4)``."""
        for key in self._found.keys() - self._words.keys():
            self._words[key] = _describe(self._found[key], self._source)
        return sorted(self._words.values())

    @contextmanager
    def _noticing_seeds(self) -> Iterator[None]:
        """Wrap the functions that seed the generators of `numpy.random` and `random`."""
        self._seeded = set()
        there = [sys.modules[name] for name in ("numpy.random", "random") if name in sys.modules]
        wrappers = {
            id(function): _Seeding(function, name, each, self._seeded)
            for name, each in _SEEDING
            if (function := getattr(sys.modules.get(name), each, None)) is not None
        }
        wrapped = [
            (vars(module), name, wrappers[id(value)])
            for module in (*there, *imported_modules(self._source).values())
            for name, value in list(vars(module).items())
            if id(value) in wrappers
        ]
        for names, name, wrapper in wrapped:
            names[name] = wrapper
        try:
            yield
        finally:
            for names, name, wrapper in wrapped:
                if names.get(name) is wrapper:
                    names[name] = wrapper.function


class _Seeding:
    """A function that seeds the generator of a module; it notes that it was called."""

    def __init__(self, function: Callable[..., Any], module: str, name: str, called: set[str]) -> None:
        self.function, self._module, self._name, self._called = function, module, name, called

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        self._called.add(self._module)
        return self.function(*arguments, **more)

    def __reduce__(self) -> tuple[Any, ...]:
        import pkgutil

        return pkgutil.resolve_name, (f"{self._module}:{self._name}",)


# ---------------------------------------------------------------------- finding


def _own_generators() -> Iterator[tuple[str, Any]]:
    """Yield those of the modules `numpy.random` and `random`, where these are loaded."""
    for name, module, attribute in (
        ("numpy.random", "numpy.random.mtrand", "_rand"),
        ("random", "random", "_inst"),
    ):
        generator = getattr(sys.modules.get(module), attribute, None)
        if generator is not None:
            yield name, generator


def _kinds() -> tuple[type, ...]:
    found = []
    for module, names in (
        ("numpy.random", ("Generator", "RandomState", "BitGenerator", "SeedSequence")),
        ("random", ("Random",)),
    ):
        found += [getattr(sys.modules.get(module), name, None) for name in names]
    return tuple(kind for kind in found if isinstance(kind, type))


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a value and its elements, or attributes; code of the user is not run."""
    yield name, value
    kind = type(value)
    if kind is dict:
        some = list(itertools.islice(value.items(), _MOST_PARTS))
        yield from (
            (f"{name}[{key!r}]", part)
            for key, part in some
            if type(key) in (str, int) and type(part) not in _PLAIN
        )
    elif kind in (list, tuple):
        yield from (
            (f"{name}[{index}]", part)
            for index, part in enumerate(value[:_MOST_PARTS])
            if type(part) not in _PLAIN
        )
    elif kind in (set, frozenset):
        yield from ((f"an element of {name}", part) for part in list(itertools.islice(value, _MOST_PARTS)))
    elif kind in (MethodType, BuiltinMethodType):
        yield name, value.__self__
    elif not (kind in _PLAIN or issubclass(kind, ModuleType)):
        yield from _attributes(name, value)


def _attributes(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    kind = type(value)
    if kind is FunctionType:
        defaults = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        yield from ((f"a default of {name}", part) for part in defaults)
    is_class = issubclass(kind, type)
    look = type.__getattribute__ if is_class else object.__getattribute__
    with suppress(Exception):
        some = list(itertools.islice(look(value, "__dict__").items(), _MOST_PARTS))
        yield from ((f"{name}.{attribute}", part) for attribute, part in some if type(part) not in _PLAIN)
    for each in () if is_class else kind.__mro__:
        slots = each.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else tuple(slots):
            with suppress(Exception):
                yield f"{name}.{slot}", look(value, slot)


# ---------------------------------------------------------------------- states


def _read_state(generator: Any) -> State:
    """Return the state of a generator; empty where it has none."""
    try:
        kind, python, numpy = type(generator), sys.modules.get("random"), sys.modules.get("numpy.random")
        if python is not None and issubclass(kind, python.Random):
            _, words, _ = python.Random.getstate(generator)
            return "MT19937", words[:-1], words[-1]
        if numpy is None:
            return ()
        if issubclass(kind, numpy.SeedSequence):
            return "SeedSequence", None, generator.n_children_spawned
        if issubclass(kind, numpy.RandomState):
            state = numpy.RandomState.get_state(generator, legacy=False)
        else:
            bits = generator.bit_generator if issubclass(kind, numpy.Generator) else generator
            spawned = getattr(getattr(bits, "seed_seq", None), "n_children_spawned", 0)
            state = {**bits.state, "spawned": spawned}
        name, inner = state["bit_generator"], state["state"]
        if name == "MT19937":
            return name, tuple(inner["key"].tolist()), inner["pos"]
        return name, inner.get("inc") if isinstance(inner, dict) else None, repr(state)
    except Exception:  # Its class may be a user's own.
        return ()


def _is_drawn(before: State, after: State, seconds: float, *, otherwise: bool) -> bool:
    """Whether a state follows from another by drawing.

    Parameters
    ----------
    seconds
        How long drawing may have taken.
    otherwise
        What to return where that takes too long to find out.
    """
    if before[:1] != after[:1] or not after:
        return False
    name, fixed, place = before
    if name != "MT19937":
        return bool(fixed == after[1])
    if fixed == after[1]:  # the same block
        return bool(after[2] > place)
    return _is_reached(fixed, after[1], seconds, otherwise=otherwise)


def _is_reached(before: tuple[int, ...], after: tuple[int, ...], seconds: float, *, otherwise: bool) -> bool:
    """Whether MT19937 gets from one block of its state to another, as far as it may be tried."""
    draw, wanted = _make_mt19937(before, _WORDS), _make_mt19937(after, 0)(_WORDS)
    possible = int(seconds * _WORDS_PER_SECOND) // _WORDS + 2
    left = most = min(possible, _MOST_WORDS["numpy.random" in sys.modules] // _WORDS)
    blocks = 1
    while left > 0:
        data = draw(_WORDS * blocks)
        if any(data.startswith(wanted, 4 * _WORDS * i) for i in range(blocks)):
            return True
        left -= blocks
        blocks = min(2 * blocks, left, 1000)
    return otherwise and possible > most


def _make_mt19937(words: tuple[int, ...], place: int) -> Callable[[int], bytes]:
    """Return a function that draws so many words from a new generator in this state."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        bits = numpy.random.MT19937()
        key = numpy.array(words, dtype=numpy.uint32)
        bits.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": place}}
        return lambda n: bits.random_raw(n).astype("<u4").tobytes()
    import random

    generator = random.Random()  # noqa: S311
    generator.setstate((3, (*words, place), None))
    return lambda n: generator.getrandbits(32 * n).to_bytes(4 * n, "little")


# ---------------------------------------------------------------------- words


def _describe(names: Sequence[Name], source: Source) -> str:
    """Return one of the names of a generator with its place, rather not where it is imported."""
    if not names[0].module:
        return names[0].label
    places = [(name, statement) for name in names for statement in _bindings(name, source)]
    for name, each in sorted(places, key=lambda place: place[0].name in place[1].imports):
        return f"{name.label} ({each.path}:{each.node.lineno})"
    return names[0].label


def _bindings(name: Name, source: Source) -> list[Statement]:
    """Return the statements that bind a name, the last first."""
    from psyrun.source import parse, read_statements

    path = source.modules.get(name.module)
    paths = [path] if path is not None else source.scripts
    statements = read_statements([(each, parse(source.files[each], each)) for each in paths if each])
    return [each for each in reversed(statements) if name.name in each.binds]
