"""A job made from a record is the job that validation would have made, whoever looks at it."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from kernels.twins import COLUMNS, int64s, names, record
from pgq_fast._impl import codec
from pgq_fast.models import Job, parse_headers

OWNER = uuid.UUID(int=5)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
SECRET = "the-secret-value"

json_objects = st.dictionaries(
    names,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | names,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


def claimed(**columns: Any) -> Job:
    jobs, faults = codec.build_jobs(Job, record(**columns), OWNER, parse_headers)
    assert faults == []
    return jobs[0]


def validated(**columns: Any) -> Job:
    """The same job by pydantic's own way."""
    values = COLUMNS | columns
    for name in ("created", "execute_after", "updated"):
        values[name] = EPOCH + timedelta(microseconds=values[name])
    return Job(
        **values,
        heartbeat=values["updated"],
        status="picked",
        queue_manager_id=OWNER,  # type: ignore[arg-type]
    )


columns = st.fixed_dictionaries(
    {
        "id": int64s,
        "priority": st.integers(-(2**31), 2**31 - 1),
        "entrypoint": names,
        # JSON has no bytes: pydantic writes and reads them as UTF-8.
        "payload": st.none() | names.map(str.encode),
        "attempts": st.integers(0, 2**31 - 1),
        "headers": st.none() | json_objects.map(json.dumps),
        "created": st.integers(0, 10**15),
        "execute_after": st.integers(0, 10**15),
        "updated": st.integers(0, 10**15),
        "slot": st.none() | st.integers(0, 2**31 - 1),
    }
)
SAMPLE = {
    "headers": json.dumps({"logfire": {"trace": "x"}, "sentry": 3, "otel": {}}),
    "created": 1,
    "execute_after": 2,
    "updated": 3,
    "slot": 4,
    "attempts": 2,
}
WAYS: dict[str, Callable[[Job], object]] = {
    "equality": lambda job: job,
    "reflected": lambda job: validated(**SAMPLE) == job and job,
    "model_dump": lambda job: Job(**job.model_dump()),
    "json": lambda job: Job.model_validate_json(job.model_dump_json()),
    "iteration": lambda job: Job(**dict(job)),
    "vars": lambda job: Job(**vars(job)),
    "pickle": lambda job: pickle.loads(pickle.dumps(job)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "model_copy": lambda job: job.model_copy(),
    "deep model_copy": lambda job: job.model_copy(deep=True),
    "validation": lambda job: Job.model_validate(job),
    "from attributes": lambda job: Job.model_validate(job, from_attributes=True),
    "adapter": lambda job: TypeAdapter(list[Job]).validate_python([job])[0],
}


@pytest.mark.parametrize("way", WAYS)
@given(columns)
def test_complete_whichever_way_it_is_looked_at(way: str, values: dict[str, Any]) -> None:
    if way == "reflected":
        values = SAMPLE
    job = claimed(**values)
    seen = WAYS[way](job)
    expected = validated(**values)
    assert type(seen) is Job
    assert seen.model_dump() == expected.model_dump()
    assert seen == expected
    assert job == expected
    assert expected == job
    assert repr(job) == repr(expected)
    assert str(job) == str(expected)
    assert list(vars(job).keys() ^ vars(expected).keys()) == []


def test_fields_set_of_a_claimed_job() -> None:
    job = claimed(**SAMPLE)
    assert job.model_fields_set == validated(**SAMPLE).model_fields_set
    assert job.model_dump(exclude_unset=True) == validated(**SAMPLE).model_dump(exclude_unset=True)
    assert job.model_extra is None


def test_as_a_field_of_another_model() -> None:
    class Wrapper(BaseModel):
        job: Job
        jobs: list[Job]

    job, expected = claimed(**SAMPLE), validated(**SAMPLE)
    wrapper = Wrapper(job=claimed(**SAMPLE), jobs=[job])
    assert wrapper.model_dump() == {"job": expected.model_dump(), "jobs": [expected.model_dump()]}
    assert wrapper == Wrapper(job=expected, jobs=[expected])
    assert Wrapper.model_validate_json(wrapper.model_dump_json()) == wrapper


def test_as_a_response_of_fastapi() -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    app = FastAPI()

    @app.get("/one")
    async def one() -> Job:
        return claimed(**SAMPLE)

    @app.get("/many")
    async def many() -> list[Job]:
        return [claimed(**SAMPLE)]

    with TestClient(app) as client:
        expected = json.loads(validated(**SAMPLE).model_dump_json())
        assert client.get("/one").json() == expected
        assert client.get("/many").json() == [expected]


def test_assignment_and_unknown_attributes() -> None:
    job = claimed(**SAMPLE)
    job.priority = 9
    job.headers = {"new": 1}
    assert (job.priority, job.headers) == (9, {"new": 1})
    assert job.model_dump()["headers"] == {"new": 1}
    with pytest.raises(AttributeError):
        _ = job.nothing_like_that  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="nothing_like_that"):
        job.nothing_like_that = 1  # type: ignore[attr-defined]


def test_validated_jobs_still_validate() -> None:
    with pytest.raises(ValidationError):
        Job.model_validate({"id": 1})
    values = validated(**SAMPLE).model_dump()
    assert Job(**values | {"headers": '{"a": 1}'}).headers == {"a": 1}
    with pytest.raises(ValidationError):
        Job(**values | {"headers": "[1]"})


def test_sections_of_the_headers() -> None:
    job = claimed(**SAMPLE)
    assert job.logfire_headers() == {"trace": "x"}
    assert job.sentry_headers() is None
    assert job.otel_headers() == {}
    assert claimed().logfire_headers() is None


MALFORMED = {
    "array": f'["{SECRET}"]',
    "string": f'"{SECRET}"',
    "number": "17",
    "boolean": "true",
    "no JSON": f"{{{SECRET}",
    "too deep": '{"a":' + "[" * 5000 + "]" * 5000 + "}",
    "huge number": '{"a": ' + "9" * 6000 + "}",
    "lone surrogate": '{"a": "\\ud800"}',
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_headers_are_none_and_reported_without_their_text(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="pgqueuer"):
        job = claimed(headers=MALFORMED[kind])
        assert job.headers is None
        assert job.model_dump()["headers"] is None
    reports = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(reports) == 1
    assert "Job 7" in reports[0].getMessage()
    assert SECRET not in caplog.text


def test_null_as_headers(caplog: pytest.LogCaptureFixture) -> None:
    assert claimed(headers="null").headers is None
    assert caplog.records == []


def test_times_beyond_datetime_do_not_break_a_job() -> None:
    job = claimed(created=2**63 - 1, execute_after=-(2**63))
    assert job.created == datetime.max.replace(tzinfo=UTC)
    assert job.execute_after == datetime.min.replace(tzinfo=UTC)
    assert json.loads(job.model_dump_json())["created"].startswith("9999-12-31")
