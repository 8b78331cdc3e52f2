"""Audit events of this process, and calls of `os.stat` and its kin, which raise none."""

from __future__ import annotations

import functools
import os
import sys
from _thread import get_ident
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Handlers = Mapping[str, Callable[..., None]]


_WRAPPED = ("stat", "lstat", "access")


class _Audit:
    """The audit hook of the process, which can't be removed again, and the handlers of events.

    The handlers that were added last get the arguments of an event, or those of a wrapped function; whatever
    they raise is dropped.
    """

    def __init__(self) -> None:
        self._added: list[Handlers] = []
        self._handlers: dict[str, Callable[..., None]] = {}  # those added last
        self._paused: set[int] = set()  # threads
        self._real: dict[str, Callable[..., Any]] = {}
        self._hook: Callable[[str, tuple[Any, ...]], None] | None = None

    def add(self, handlers: Handlers) -> None:
        """Call handlers, until they are removed or others are added."""
        if self._hook is None:
            self._hook = self._make_hook()
            sys.addaudithook(self._hook)
            os.register_at_fork(after_in_child=self._clear)
        self._added.append(handlers)
        self._use_last()

    def remove(self, handlers: Handlers) -> None:
        """Call these handlers no more."""
        self._added = [each for each in self._added if each is not handlers]
        self._use_last()

    def _clear(self) -> None:
        self._added = []
        self._use_last()

    def _use_last(self) -> None:
        self._handlers.clear()
        self._handlers.update(self._added[-1] if self._added else {})
        if self._added and not self._real:
            for name in _WRAPPED:
                self._wrap(name)
        elif not self._added:
            while self._real:
                setattr(os, *self._real.popitem())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Call no handlers for what this thread does."""
        thread = get_ident()
        self._paused.add(thread)
        try:
            yield
        finally:
            self._paused.discard(thread)

    def _make_hook(self) -> Callable[[str, tuple[Any, ...]], None]:
        handlers, paused = self._handlers, self._paused

        def hook(event: str, args: tuple[Any, ...]) -> None:  # Python calls a function fastest.
            if event in handlers and not (paused and get_ident() in paused):
                try:  # noqa: SIM105 - faster
                    handlers[event](*args)
                except Exception:  # noqa: S110 - A path may be anything.
                    pass

        return hook

    def _wrap(self, name: str) -> None:
        """Let a function of `os` without an audit event call a handler, by its name."""
        real = self._real[name] = getattr(os, name)
        hook = self._hook

        @functools.wraps(real)
        def call(path: Any, *args: Any, **options: Any) -> Any:
            if type(path) is not int and options.get("dir_fd") is None and hook is not None:
                hook(name, (path,))
            return real(path, *args, **options)

        call.__module__ = "os"  # by which pickle finds it
        for functions in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
            if real in functions:
                functions.add(call)
        setattr(os, name, call)


AUDIT = _Audit()
