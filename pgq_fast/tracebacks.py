"""What the log keeps of an exception."""

from __future__ import annotations

import traceback as traceback_module
from datetime import datetime
from typing import Final

from pydantic import BaseModel

from pgq_fast.fields import utc_now
from pgq_fast.types import JobId

__all__ = ["TracebackRecord"]

MESSAGE_CHARACTERS: Final = 2**16
TRACEBACK_CHARACTERS: Final = 2**18
"""What the log keeps of the texts of one exception: a value has its limits on the server, and a
statement that acknowledges many jobs too."""


def _storable(text: str, limit: int = MESSAGE_CHARACTERS) -> str:
    """*text* with what ``jsonb`` refuses spelled out, NUL and lone surrogates, and less of its
    middle than *limit* characters do not hold.
    """
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()


def _message(exc: Exception) -> str:
    try:
        return str(exc)
    except Exception as error:
        return f"<{type(exc).__name__} fails to give its message: {type(error).__name__}>"


class TracebackRecord(BaseModel, defer_build=True):
    """What the log keeps of an exception."""

    job_id: JobId
    timestamp: datetime
    exception_type: str
    exception_message: str
    traceback: str
    additional_context: dict[str, object] | None

    @classmethod
    def from_exception(
        cls,
        exc: Exception,
        job_id: JobId,
        additional_context: dict[str, object] | None = None,
    ) -> TracebackRecord:
        """Record *exc*, raised while job *job_id* ran."""
        return cls(
            job_id=job_id,
            timestamp=utc_now(),
            exception_type=type(exc).__name__,
            exception_message=_storable(_message(exc)),
            traceback=_storable(
                "".join(traceback_module.format_exception(exc)), TRACEBACK_CHARACTERS
            ),
            additional_context=additional_context
            and {
                key: _storable(value) if isinstance(value, str) else value
                for key, value in additional_context.items()
            },
        )
