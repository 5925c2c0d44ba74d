"""Failures as one line for the operator: what happened, and what to do about it."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from pgq_fast.drivers.failures import is_connection_lost, sqlstate_of
from pgq_fast.errors import PgqException
from pgq_fast.settings import ConnectionSettings, DBSettings

__all__ = ["TRACEBACK_VARIABLE", "CliError", "explain", "first_line", "report"]

TRACEBACK_VARIABLE: Final = "PGQUEUER_TRACEBACK"
"""Set to anything but nothing and 0, failures come with their traceback."""


class CliError(PgqException):
    """A command cannot do its work."""


# Models of a factory may fail too, but that is for its author.
_SETTINGS: Final = (DBSettings.__name__, ConnectionSettings.__name__)

_NO_REMEDY: Final = "PostgreSQL's manual explains the code"

_EXISTS: Final = "Run 'pgq verify --expect present' to see what is there, then 'pgq upgrade'"

# By SQLSTATE, or by its first two characters, which name a class of errors.
_REMEDIES: Final = {
    "25006": "The server only allows reading: connect to the primary",
    "3F000": "Create the schema first, or install without --no-create-schema",
    "42501": "Connect as a role that owns the objects or may create them",
    "42704": "Run 'pgq upgrade' if the installation is older, 'pgq install' if there is none",
    "42703": "Run 'pgq upgrade': the installation is older than this release",
    "42P01": "Run 'pgq install', or check --prefix, --schema and the database",
    "42710": _EXISTS,
    "42723": _EXISTS,
    "42P07": _EXISTS,
    "2BP01": "Drop what depends on it first",
    "23": "Repair these rows, then run the command again: it goes on where it stopped",
    "40": "Run the command again",
    "53": "Free resources on the server, then run the command again",
    "55P03": "Others hold a lock on the table: run the command again in a quiet moment",
    "57014": "The statement was cancelled: raise statement_timeout, or choose a quiet moment",
}


def report(error: BaseException) -> str:
    """What to print of *error*: a line, behind the traceback where that is asked for."""
    line = f"error: {explain(error)}"
    if os.environ.get(TRACEBACK_VARIABLE, "0") in ("", "0"):
        return line
    return f"{_redacted(''.join(traceback.format_exception(error)))}{line}"


def explain(error: BaseException) -> str:
    """One line: what happened, and what to do about it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        # What a task group makes of the failure of one of its tasks.
        error = error.exceptions[0]
    if isinstance(error, PgqException):
        return _redacted(_in_words_of_the_command_line(_one_line(str(error))))
    if isinstance(error, ValidationError) and error.title in _SETTINGS:
        return _invalid_settings(error)
    code = sqlstate_of(error)
    if code is not None:
        remedy = _REMEDIES.get(code) or _REMEDIES.get(code[:2]) or _NO_REMEDY
        return f"PostgreSQL refused: {first_line(error)} (SQLSTATE {code}). {remedy}."
    # Of the operating system's errors only these are the connection's; a factory may open files.
    of_a_file = isinstance(error, OSError) and not isinstance(error, ConnectionError)
    if is_connection_lost(error) and not of_a_file:
        return (
            f"the connection to PostgreSQL failed: {first_line(error)}. Look at the server, then "
            "run it again."
        )
    # Most likely a factory's or a handler's.
    said = first_line(error)
    what = (
        type(error).__name__ if said == type(error).__name__ else f"{type(error).__name__}: {said}"
    )
    return f"{what}{_where(error)}. 'pgq --traceback ...' shows how it came to that."


def first_line(error: BaseException) -> str:
    """What *error* says, without details on further lines, a closing full stop and passwords."""
    lines = str(error).strip().splitlines()
    return _redacted(lines[0].rstrip(".:")) if lines else type(error).__name__


# What messages tell programmers to do, and how it is done here.
_SPELLINGS: Final = (
    (r"DBSettings\.layout", "--layout"),
    (r"Queries\.migrate\(to='(\w+)'\)", r"'pgq migrate --to \1'"),
    (r"Queries\.migrate\(to=\.\.\.\)", "'pgq migrate --to ...'"),
    (r"requeue_picked=True", "--requeue-picked"),
    (r"more patience", "more --patience"),
    (r"a smaller batch_size", "a smaller --batch-size"),
)


def _in_words_of_the_command_line(text: str) -> str:
    for spelled, here in _SPELLINGS:
        text = re.sub(spelled, here, text)
    return text


# As in a DSN of either form.
_PASSWORDS: Final = re.compile(
    r"(//[^\s:/@]*:)\S+(?=@)|(\bpassword\s*=\s*)('[^']*'|[^\s&]+)", re.IGNORECASE
)


def _redacted(text: str) -> str:
    return _PASSWORDS.sub(lambda found: f"{found[1] or found[2]}***", text)


def _where(error: BaseException) -> str:
    """The innermost line of the user's own code, as far as that can be told."""
    here = str(Path.cwd())
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(here) and "site-packages" not in frame.filename
    ]
    if not own:
        return ""
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno}, in {own[-1].name})"


def _invalid_settings(error: ValidationError) -> str:
    # Never the values: one of them may be a DSN. Names with a default that could not be made
    # from a wrong prefix are not wrong themselves.
    problems = "; ".join(
        f"{'.'.join(str(part) for part in detail['loc']) or 'settings'}: {detail['msg']}"
        for detail in error.errors(include_input=False, include_url=False)
        if detail["type"] != "default_factory_not_called"
    )
    return _one_line(
        f"invalid settings: {problems}. Check --prefix, --schema and the PGQUEUER_* variables."
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
