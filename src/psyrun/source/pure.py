"""White lists: what is known to do nothing but return a value, and what is known of the value."""

from __future__ import annotations

import ast
import builtins
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(IntEnum):
    """What evaluating an expression may do, and what is known of its value."""

    ACTS = -1  # it may do something
    OPAQUE = 0  # may be named, kept, handed to the space; nothing may be done with it
    ONCE = 1  # an iterator that nothing else has
    PLAIN = 2  # numbers, text, arrays, containers of these
    FROZEN = 3  # plain, and it can't change


# fmt: off
READERS = {
    **dict.fromkeys(("csv.DictReader", "csv.reader", "glob.iglob", "io.open", "open"), Kind.ONCE),
    **dict.fromkeys(("glob.glob", "json.load", "json.loads", "numpy.genfromtxt", "numpy.load"), Kind.PLAIN),
    **dict.fromkeys(("numpy.loadtxt", "os.listdir", "pandas.read_csv", "tomllib.load"), Kind.PLAIN),
    **dict.fromkeys(("psyrun.store.load_plain", "tomllib.loads", "yaml.safe_load"), Kind.PLAIN),
    **dict.fromkeys(("os.path.exists", "os.path.isdir", "os.path.isfile", "pathlib.Path"), Kind.FROZEN),
}
# Where one of these modules is patched, what reads files may do more.
READ_WITH = frozenset({
    *("ast", "builtins", "codecs", "collections", "contextlib", "csv", "datetime", "fnmatch", "functools"),
    *("genericpath", "glob", "io", "itertools", "json", "locale", "numpy", "operator", "os", "pathlib"),
    *("pickle", "posixpath", "re", "stat", "string", "struct", "warnings", "zipfile"),
})
_ONCE = {"enumerate", "reversed", "zip"} | {
    f"itertools.{name}" for name in ("chain", "combinations", "pairwise", "permutations", "product", "repeat")
}
_PLAIN = {"abs", "dict", "list", "max", "min", "next", "round", "set", "sorted", "sum", "tuple"} | {
    "os.environ.get"
} | {
    f"numpy.{name}" for name in (
        *("arange", "array", "eye", "full", "geomspace", "linspace", "logspace", "ones", "zeros"),
        *("bool_", "float32", "float64", "int32", "int64"),  # arrays, where they are given lists
    )
}
_FROZEN = {"all", "any", "bool", "complex", "float", "int", "len", "range", "str"} | {
    f"os.path.{name}" for name in ("abspath", "basename", "dirname", "join")
} | {
    f"math.{name}" for name in ("ceil", "cos", "exp", "floor", "log", "log10", "log2", "pow", "sin", "sqrt")
}
PURE: Mapping[str, Kind] = {
    **dict.fromkeys(_ONCE, Kind.ONCE),
    **dict.fromkeys(_PLAIN, Kind.PLAIN),
    **dict.fromkeys(_FROZEN, Kind.FROZEN),
    **READERS,
}
# What reads iterators, all that it is given or the first; nothing else may get one, since it may keep it.
READS_ALL = frozenset({"zip", "itertools.chain", "itertools.product"})
READS_FIRST = frozenset({
    *("all", "any", "dict", "enumerate", "list", "max", "min", "next", "set", "sorted", "sum", "tuple"),
    "csv.DictReader",
    *("csv.reader", "json.load", "numpy.genfromtxt", "numpy.load", "numpy.loadtxt", "pandas.read_csv"),
    *("tomllib.load", "yaml.safe_load"),
    *("itertools.combinations", "itertools.pairwise", "itertools.permutations"),
})
OPENING = {"open": 1, "io.open": 1}  # place of the mode
PATHS = frozenset({"os.path.join", "os.path.abspath", "os.path.dirname", "pathlib.Path", "str"})
# Arguments that make other things of what is read than plain values.
FORBIDDEN: Mapping[str, tuple[str | None, ...]] = {
    "numpy.load": ("mmap_mode", "allow_pickle", None), "pandas.read_csv": ("chunksize", "iterator", None),
}
# Methods that among plain values and iterators only paths, text, arrays, dicts or files have.
_TEXT = (
    *("endswith", "join", "lower", "lstrip", "read_bytes", "read_text", "rstrip", "startswith"),
    *("strip", "upper"),
)
_PATH = ("absolute", "exists", "is_dir", "is_file", "joinpath", "resolve", "with_name", "with_suffix")
METHODS: Mapping[str, Kind] = {
    **dict.fromkeys(("glob", "items", "iterdir", "keys", "open", "rglob", "values"), Kind.ONCE),
    **dict.fromkeys(("get", "read", "readlines", "split", "splitlines", "tolist"), Kind.PLAIN),
    **dict.fromkeys((*_TEXT, *_PATH), Kind.FROZEN),
}
METHODS_OF_FILES = frozenset({"read", "readlines"})
ATTRIBUTES_OF_PATHS = frozenset({"name", "parent", "stem", "suffix"})
# Where one of these words stands in the program, YAML may make objects of its classes.
EXTENDS_YAML = frozenset({
    "add_constructor", "add_multi_constructor", "SafeLoader", "YAMLObject", "yaml_constructors",
    "yaml_multi_constructors",
})
PSYRUN = frozenset({
    "Param", "Slurm", "Local", "ImmediateRun", "GridEngine", "PBS", "Sqsub", "DistributeBackend", "missing",
    "Hosts", "from_allocation", "LoadBalancingBackend", "PickleStore", "AutodetectStore", "NpzStore",
    "H5Store", "CsvStore", "ParquetStore",
})
CONSTANTS = frozenset({
    *("bool", "complex", "float", "int", "str"),
    *(f"math.{name}" for name in ("e", "inf", "nan", "pi", "tau")),
    *(f"numpy.{name}" for name in ("e", "inf", "nan", "newaxis", "pi")),
})
DECORATORS = frozenset({
    "staticmethod", "classmethod", "property", "functools.cache", "functools.cached_property",
    "functools.lru_cache", "dataclasses.dataclass", "contextlib.contextmanager", "abc.abstractmethod",
})
BASES = frozenset({
    *("object", "dict", "list", "tuple", "int", "float", "str"),
    *("abc.ABC", "typing.NamedTuple", "typing.Protocol"),
    *(n for n, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)),
})
# Errors that a function may catch: none of them says that a name is not bound yet.
CAUGHT = frozenset({
    *("FileNotFoundError", "OSError", "IOError", "PermissionError", "IndexError", "KeyError", "ValueError"),
    *("StopIteration", "ZeroDivisionError", "json.JSONDecodeError"),
})
IN_CLASSES = frozenset({"dataclasses.field"})
HOOKS = frozenset({
    "__init_subclass__", "__set_name__", "__prepare__", "__class_getitem__", "__subclasshook__",
    "__instancecheck__", "__subclasscheck__",
})
GROWING = frozenset({"add", "append", "extend", "insert", "update"})
LOGGING = frozenset({"critical", "debug", "error", "exception", "info", "warning"})
# Where one of these words stands in the program, what is printed or logged may be read.
READS_OUTPUT = frozenset({
    "redirect_stdout", "redirect_stderr", "StringIO", "stdout", "stderr", "addHandler", "Handler",
    "catch_warnings", "QueueHandler", "builtins", "isEnabledFor", "getEffectiveLevel", "setLoggerClass",
    "__str__", "__repr__", "__format__", "addFilter", "setFormatter", "dup2", "__stdout__", "__stderr__",
})
# Where one of these words stands in the program, arrays may become text.
MAKES_TEXT = frozenset({
    "str", "repr", "ascii", "format", "array2string", "array_str", "array_repr", "savetxt", "to_string",
    "get_printoptions", "printoptions", "__str__", "__repr__", "__format__", "JoinedStr", "Mod", "tofile",
})
HINTS = (
    ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.Tuple, ast.List, ast.BinOp, ast.BitOr, ast.Load,
)
# fmt: on
