"""What the log shows, where, and in which form."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from pgq_fast import PgQueuer, RetryRequested
from pgq_fast.core import logconfig as deep
from pgq_fast.errors import InvalidLogFormatError
from pgq_fast.logconfig import logger
from pgq_fast.logsetup import JsonFormatter, LogFormat, LogLevel, setup_fancy_logger, setup_logging
from pgq_fast.models import Job
from pgq_fast.types import QueueExecutionMode
from support.drivers import MakeDriver


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_the_name_is_pgqueuers() -> None:
    from pgqueuer.core import logconfig as original

    assert deep.logger.name == original.logger.name == "pgqueuer"
    assert [level.name for level in deep.LogLevel] == [level.name for level in original.LogLevel]


def test_lines_are_those_of_the_original(capfd: pytest.CaptureFixture[str]) -> None:
    from pgqueuer.core import logconfig as original

    shown = {}
    for name, module in (("original", original), ("here", deep)):
        module.setup_fancy_logger(module.LogLevel.INFO)
        logger.debug("not shown")
        logger.info("calm %d", 1)
        logger.error("alarming")
        shown[name] = capfd.readouterr()
    for here, there in zip(shown["here"], shown["original"], strict=True):
        (line,) = here.splitlines()
        time, _, rest = line.partition(" ")
        assert datetime.fromisoformat(time).tzinfo is not None
        assert rest == there.partition(" ")[2].rstrip("\n")


def test_json_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PGQUEUER_LOG_FORMAT", "json")
    setup_fancy_logger(LogLevel.INFO)
    logger.info("two\nlines", extra={"job_id": 7, "since": timedelta(seconds=1)})
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("failed")
    output = capsys.readouterr()
    (calm,) = map(json.loads, output.out.splitlines())
    assert datetime.fromisoformat(calm.pop("time")).tzinfo is not None
    assert calm.pop("process") > 0
    assert calm == {
        "level": "INFO",
        "logger": "pgqueuer",
        "message": "two\nlines",
        "job_id": 7,
        "since": "0:00:01",
    }
    (alarm,) = map(json.loads, output.err.splitlines())
    assert alarm["exception"]["type"] == "ValueError"
    assert alarm["exception"]["message"] == "broken"
    assert "Traceback" in alarm["exception"]["traceback"]


def test_a_format_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGQUEUER_LOG_FORMAT", "xml")
    with pytest.raises(InvalidLogFormatError, match="text or json"):
        setup_logging("INFO")


def test_nothing_stands_twice(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        setup_logging("WARNING", LogFormat.text, with_process=True)
    logger.info("too little")
    logger.warning("once")
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1


@pytest.mark.layouts
async def test_records_of_jobs_have_their_facts_and_no_payload(
    make_driver: MakeDriver, queue_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    pgq = PgQueuer(await make_driver("asyncpg-pool", queue_dsn))

    @pgq.entrypoint("failing")
    async def failing(job: Job) -> None:
        raise ValueError("broken")

    @pgq.entrypoint("again")
    async def again(job: Job) -> None:
        if job.attempts == 0:
            raise RetryRequested(timedelta(milliseconds=1))

    assert pgq.queries is not None
    caplog.set_level(logging.DEBUG, "pgqueuer")
    failed, retried = await pgq.queries.enqueue(
        ["failing", "again"], [b"secret", b"secret"], [0, 0], headers=[{"h": "secret"}] * 2
    )
    await pgq.run(mode=QueueExecutionMode.drain)
    lines = {
        fields["job_id"]: fields
        for fields in (json.loads(JsonFormatter().format(record)) for record in caplog.records)
        if "job_id" in fields
    }
    assert lines[failed]["entrypoint"] == "failing"
    assert lines[failed]["attempts"] == 0
    assert lines[failed]["queue_manager_id"] == str(pgq.qm.queue_manager_id)
    assert lines[failed]["exception"]["message"] == "broken"
    assert lines[retried]["entrypoint"] == "again"
    assert lines[retried]["delay"] == 0.001
    assert "secret" not in repr(lines)
