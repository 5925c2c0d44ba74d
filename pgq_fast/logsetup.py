"""Showing the log of the package: as lines for people, or as JSON for programs.

Applications that have a logging setup of their own need none of this: the logger is ``pgqueuer``,
and facts about a job are attributes of its records, see :data:`pgq_fast.logconfig.logger`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime
from enum import Enum
from typing import Any, Final

from pgq_fast.errors import InvalidLogFormatError
from pgq_fast.logconfig import logger

__all__ = [
    "ISOFormatter",
    "JsonFormatter",
    "LogFormat",
    "LogLevel",
    "MaxLevelFilter",
    "setup_fancy_logger",
    "setup_logging",
]

FORMAT_VARIABLE: Final = "PGQUEUER_LOG_FORMAT"

_STANDARD: Final = frozenset(
    (*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message")
)
"""Attributes that every record has; the others came as ``extra``."""


class LogLevel(Enum):
    """Levels by the names that Python's logging has for them."""

    CRITICAL = "CRITICAL"
    FATAL = "FATAL"
    ERROR = "ERROR"
    WARN = "WARN"
    WARNING = "WARNING"
    INFO = "INFO"
    DEBUG = "DEBUG"
    NOTSET = "NOTSET"


class LogFormat(Enum):
    """How a record is written."""

    text = "text"
    json = "json"


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat()


class ISOFormatter(logging.Formatter):
    """Writes times in ISO 8601, with the zone."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """The time of *record*; *datefmt* is not heeded."""
        return _time_of(record)


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line.

    With ``time``, ``level``, ``logger``, ``process`` and ``message``, what came as ``extra`` under
    its own name, and for exceptions ``exception`` with ``type``, ``message`` and ``traceback``.
    A value that has no JSON form is written as text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields: dict[str, Any] = {
            name: value for name, value in vars(record).items() if name not in _STANDARD
        }
        fields |= {
            "time": _time_of(record),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["exception"] = {
                "type": type(error).__qualname__,
                "message": str(error),
                "traceback": self.formatException(record.exc_info),
            }
        return json.dumps(fields, default=str)


class MaxLevelFilter(logging.Filter):
    """Lets pass what is not above *max_level*."""

    def __init__(self, max_level: int) -> None:
        super().__init__()
        self.max_level = max_level

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether *record* passes."""
        return record.levelno <= self.max_level


def setup_logging(
    level: str, log_format: LogFormat | None = None, *, with_process: bool = False
) -> None:
    """Print the log of the package: up to INFO to stdout, warnings and errors to stderr.

    Args:
        level: Name of the least level that is shown.
        log_format: As text or JSON; None: as ``PGQUEUER_LOG_FORMAT`` says, text by default.
        with_process: Whether lines of text say which process they are from, as JSON always does.

    Raises:
        ValueError: There is no such level.
        InvalidLogFormatError: ``PGQUEUER_LOG_FORMAT`` is neither of the formats.
    """
    if log_format is None:
        log_format = _format_of_environment()
    lines: logging.Formatter = JsonFormatter()
    if log_format is LogFormat.text:
        name = "%(name)s %(process)d" if with_process else "%(name)s"
        lines = ISOFormatter(f"%(asctime)s [{name}] %(levelname)s: %(message)s")
    calm = logging.StreamHandler(sys.stdout)
    calm.addFilter(MaxLevelFilter(logging.INFO))
    alarming = logging.StreamHandler(sys.stderr)
    alarming.setLevel(logging.WARNING)
    for handler in (calm, alarming):
        handler.setFormatter(lines)
    logger.setLevel(level)
    logger.handlers[:] = [calm, alarming]


def _format_of_environment() -> LogFormat:
    name = os.environ.get(FORMAT_VARIABLE) or LogFormat.text.value
    try:
        return LogFormat(name)
    except ValueError:
        names = " or ".join(each.value for each in LogFormat)
        raise InvalidLogFormatError(f"{FORMAT_VARIABLE} is {name!r}, must be {names}") from None


def setup_fancy_logger(level: LogLevel) -> None:
    """``setup_logging`` under pgqueuer's name."""
    setup_logging(level.name)
