"""The only place that chooses between the compiled kernels and their Python twins.

``PGQ_FAST_IMPL=c`` asks for the compiled ones, ``python`` for the twins; unset, the compiled ones
are taken where the extension is installed. Asking for what is missing is an error, so that a
broken wheel cannot hide behind the fallback.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pgq_fast.errors import MissingImplementationError

__all__ = ["__impl__", "codec", "notify"]

_wanted = os.environ.get("PGQ_FAST_IMPL", "")
if _wanted not in ("", "c", "python"):
    raise MissingImplementationError(
        f"PGQ_FAST_IMPL={_wanted!r} is not known: set it to 'c' or 'python', or leave it unset"
    )

__impl__: str

if TYPE_CHECKING:
    from pgq_fast._pure import codec, notify
elif _wanted == "python":
    from pgq_fast._pure import codec, notify

    __impl__ = "python"
else:
    # ModuleNotFoundError only: an extension that is there and does not load is an error.
    try:
        import pgq_fast_ext.codec as codec
        import pgq_fast_ext.notify as notify

        __impl__ = "c"
    except ModuleNotFoundError as error:
        if _wanted == "c":
            raise MissingImplementationError(
                "PGQ_FAST_IMPL=c asks for the compiled extension, which is not installed here: "
                "install a platform wheel, or build with a C compiler and without "
                "PGQ_FAST_NO_EXTENSIONS"
            ) from error
        from pgq_fast._pure import codec, notify

        __impl__ = "python"
