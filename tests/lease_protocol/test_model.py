"""The lease layout does what the model says, call after call.

PGQ_TEST_MODEL_EXAMPLES   sequences of calls to try, instead of a few
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from lease_protocol.machine import LIMITS, Arena, LeaseMachine
from pgq_fast.settings import DBSettings, JobLog, Layout

pytestmark = [pytest.mark.layouts("lease"), pytest.mark.impl_agnostic, pytest.mark.timeout(0)]

EXAMPLES = int(os.environ.get("PGQ_TEST_MODEL_EXAMPLES", "15"))
STEPS = 60


def db_settings(default: str, **of: str) -> DBSettings:
    return DBSettings(
        layout=Layout.lease,
        job_log=JobLog(default),
        job_log_of={name: JobLog(mode) for name, mode in of.items()},
    )


@pytest.fixture(
    params=[
        pytest.param(db_settings("all"), id="all"),
        pytest.param(db_settings("failures", b="none", d="all"), id="failures"),
    ]
)
def arena(request: pytest.FixtureRequest, queue_dsn: str) -> Iterator[Arena]:
    arena = Arena(queue_dsn, request.param)
    yield arena
    arena.close()


def test_any_sequence_of_calls(arena: Arena) -> None:
    db = arena.settings
    modes = {name: db.job_log_of.get(name, db.job_log).value for name in LIMITS}
    run_state_machine_as_test(
        lambda: LeaseMachine(arena, modes),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
