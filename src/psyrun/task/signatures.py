"""Signatures: whether `execute` and `setup` take what they will be called with, told before anything runs."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from psyrun.errors import TaskFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_execute(path: str, execute: Callable[..., Any], names: Sequence[str], *, more: bool) -> None:
    """Refuse parameters that `execute` does not take by name, and such that nobody gives it.

    Parameters
    ----------
    path
        The task file.
    execute
        The function.
    names
        The parameters of the space.
    more
        Whether it is given others by `setup`, which nobody knows yet.

    Raises
    ------
    TaskFileError
        If it can't be called so, or calling it does not run it.
    """
    _check_plain(path, "execute", execute)
    signature = _signature(execute)
    if signature is None:
        return
    parameters = signature.parameters.values()
    by_name = {each.name for each in parameters if each.kind in _NAMED}
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    surplus = [name for name in names if name not in by_name and not takes_any]
    if surplus:
        raise TaskFileError(
            f"{path}: execute{_show(signature)} does not take {surplus} by name, which pspace has;"
            " add them, or take **others"
        )
    required = {each.name for each in parameters if each.default is each.empty and each.kind not in _ANY}
    unnamed = sorted(required - by_name)
    if unnamed:
        raise TaskFileError(
            f"{path}: execute{_show(signature)} does not take {unnamed} by name, as it is called;"
            " remove the / from its parameters"
        )
    needed = sorted(required - set(names))
    if needed and not more:
        raise TaskFileError(
            f"{path}: execute needs {needed}, which pspace does not have;"
            " add them to pspace, give them defaults, or let setup return them"
        )


def check_setup(path: str, setup: Callable[[int], Any]) -> None:
    """Refuse a `setup` that does not take the number of a process.

    Raises
    ------
    TaskFileError
        If it can't be called so, or calling it does not run it.
    """
    _check_plain(path, "setup", setup)
    signature = _signature(setup)
    try:
        if signature is not None:
            signature.bind(0)
    except TypeError as error:
        raise TaskFileError(
            f"{path}: setup{_show(signature)} is called with the number of a process, and nothing else:"
            f" {error}; write setup(proc_id)"
        ) from error


def _check_plain(path: str, name: str, function: Callable[..., Any]) -> None:
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    if any(is_kind(function) for is_kind in kinds):
        raise TaskFileError(
            f"{path}: {name} is a coroutine or a generator, which calling it does not run;"
            " write a plain function that returns a dict"
        )


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # A builtin that does not tell.
        return None


def _show(signature: inspect.Signature | None) -> str:
    """Write a signature without annotations and defaults, which may be long."""
    parameters = () if signature is None else signature.parameters.values()
    bare = [each.replace(annotation=each.empty, default=each.empty) for each in parameters]
    return str(inspect.Signature(bare))
