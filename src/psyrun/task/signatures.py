"""Signatures of `execute` and `setup`, checked before anything runs."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from psyrun.errors import TaskFileError
from psyrun.pspace import RNG

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_execute(path: str, execute: Callable[..., Any], names: Sequence[str], *, more: bool) -> None:
    """Refuse an `execute` that can't be called with these parameters by name.

    Parameters
    ----------
    path
        The task file.
    execute
        The function.
    names
        The parameters of the space.
    more
        Whether `setup` adds others, which are not known yet.

    Raises
    ------
    TaskFileError
        If it can't be called so, or if a call returns a coroutine or a generator.
    """
    signature = _signature(path, "execute", execute)
    if signature is None:
        return
    parameters = signature.parameters.values()
    by_name = {each.name for each in parameters if each.kind in _NAMED}
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    required = {each.name for each in parameters if each.default is each.empty and each.kind not in _ANY}
    does_not_take = f"{path}: execute{_show(signature)} does not take"
    if not takes_any and (surplus := [name for name in names if name not in by_name]):
        raise TaskFileError(
            f"{does_not_take} {surplus} by name, which pspace has; add them, or take **others"
        )
    if unnamed := sorted(required - by_name):
        raise TaskFileError(
            f"{does_not_take} {unnamed} by name, as it is called; remove the / from its parameters"
        )
    if not more and (needed := sorted(required - {*names, RNG})):
        raise TaskFileError(
            f"{path}: execute needs {needed}, which pspace does not have;"
            " add them to pspace, give them defaults, or let setup return them"
        )


def check_setup(path: str, setup: Callable[[int], Any]) -> None:
    """Refuse a `setup` that can't be called with the number of a process.

    Raises
    ------
    TaskFileError
        If it can't be called so, or if a call returns a coroutine or a generator.
    """
    signature = _signature(path, "setup", setup)
    if signature is None:
        return
    try:
        signature.bind(0)
    except TypeError as error:
        raise TaskFileError(
            f"{path}: setup{_show(signature)} is called with the number of a process, and nothing else:"
            f" {error}; write setup(proc_id)"
        ) from error


def _signature(path: str, name: str, function: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of a plain function; None for a builtin that does not have one."""
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    if any(is_kind(function) for is_kind in kinds):
        raise TaskFileError(
            f"{path}: {name} is a coroutine or a generator, which calling it does not run;"
            " write a plain function that returns a dict"
        )
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _show(signature: inspect.Signature) -> str:
    """Write a signature without annotations and defaults, which may be long."""
    parameters = signature.parameters.values()
    bare = [each.replace(annotation=each.empty, default=each.empty) for each in parameters]
    return str(inspect.Signature(bare))
