"""Lets code that imports ``pgqueuer`` run on this package, without a change to it.

An import of ``pgqueuer.x`` is answered with the module ``pgq_fast.x`` itself, not with a copy:
classes are the same whichever name they were imported by.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

from pgq_fast.errors import PgqException

__all__ = ["install_as_pgqueuer"]

ALIAS: Final = "pgqueuer"
PACKAGE: Final = "pgq_fast"


class AlreadyImportedError(PgqException, RuntimeError):
    """pgqueuer itself is loaded, so its name cannot be given away any more."""

    def __init__(self) -> None:
        super().__init__(
            "pgqueuer is already imported in this process: call install_as_pgqueuer() first, "
            "before anything that imports pgqueuer"
        )


def install_as_pgqueuer() -> None:
    """Have every later ``import pgqueuer`` of this process give the modules of pgq_fast.

    Works whether pgqueuer is installed or not; calling it again changes nothing.

    Raises:
        AlreadyImportedError: A ``RuntimeError``; pgqueuer was imported before.
    """
    loaded = sys.modules.get(ALIAS)
    if loaded is not None and loaded is not sys.modules[PACKAGE]:
        raise AlreadyImportedError
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _AliasFinder)]
    # Before the finder of installed packages: that one would find pgqueuer itself, or load the
    # files of this package a second time.
    sys.meta_path.insert(0, _AliasFinder())


class _AliasFinder(MetaPathFinder):
    """Finds ``pgqueuer`` and everything in it where pgq_fast has the counterpart."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        package, dot, rest = fullname.partition(".")
        if package != ALIAS:
            return None
        real = PACKAGE + dot + rest
        spec = importlib.util.find_spec(real)
        if spec is None:
            # The import then fails with an error that names the module asked for.
            return None
        return ModuleSpec(
            fullname,
            _AliasLoader(real),
            origin=spec.origin,
            is_package=spec.submodule_search_locations is not None,
        )


class _AliasLoader(Loader):
    """Loads an alias by importing its counterpart."""

    def __init__(self, real: str) -> None:
        self._real = real
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._real)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just put the alias's spec on the module, which has its own.
        module.__spec__ = self._spec
