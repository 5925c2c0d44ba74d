from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

JobT = TypeVar("JobT")

CLAIM_FIELDS: Final = 10
MAX_FIELD: Final = 0x3FFFFFFF

def build_jobs(
    job_type: type[JobT],
    raw: bytes,
    owner: UUID,
    parse_headers: Callable[[int, bytes], dict[str, Any] | None],
) -> tuple[list[JobT], list[tuple[int, str]]]: ...
def build_leased_jobs(
    job_type: type[JobT],
    owner: UUID,
    parse_headers: Callable[[int, bytes], dict[str, Any] | None],
    entrypoint: bytes,
    slot: int | None,
    picked_at: bytes,
    ids: bytes,
    priorities: bytes,
    attempts: bytes,
    created: bytes,
    execute_after: bytes | None,
    payloads: bytes,
    headers: bytes | None,
) -> tuple[list[JobT], list[int]]: ...
def decode_ids(raw: bytes) -> list[int]: ...
def encode_ids(ids: Sequence[int]) -> str: ...
def encode_int8_array(ids: Sequence[int]) -> bytes: ...
def outcome_columns(
    outcomes: Sequence[tuple[Any, str, Any]],
) -> tuple[list[int], list[str] | None, list[str | None] | None]: ...
def encode_copy_jobs(
    raw_ids: bytes,
    priorities: list[int],
    entrypoints: list[str],
    payloads: list[bytes | None],
    headers: list[bytes | None],
    execute_after: list[int] | None,
    status: bool = True,
) -> bytes: ...
def encode_copy_log(raw_ids: bytes, priorities: list[int], entrypoints: list[str]) -> bytes: ...
def pack_jobs(
    entrypoints: list[str], payloads: list[bytes | None], priorities: list[int]
) -> tuple[list[str], str, str, str, str, bytes]: ...
def plain_columns(
    entrypoints: list[Any],
    payloads: list[Any],
    priorities: list[Any],
    longest_name: int,
    longest_payload: int,
) -> bool: ...
