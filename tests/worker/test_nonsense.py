"""What is said of notifications that make no sense."""

from __future__ import annotations

import pytest

from pgq_fast.worker import nonsense
from pgq_fast.worker.nonsense import INTERVAL, Nonsense

pytestmark = pytest.mark.impl_agnostic


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(nonsense.time, "monotonic", lambda: now[0])
    return now


def test_a_flood_is_a_line_now_and_then(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    reporter = Nonsense("ch")
    for _ in range(2 * int(INTERVAL) + 5):
        reporter.take("secret", ValueError("secret"))
        clock[0] += 1
    assert [record.args[0] for record in caplog.records] == [1, INTERVAL, INTERVAL]
    reporter.close()
    reporter.close()
    assert [record.args[0] for record in caplog.records] == [1, INTERVAL, INTERVAL, 4]
    assert "secret" not in caplog.text


def test_the_next_one_after_a_while_is_said_at_once(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    reporter = Nonsense("ch")
    for payload in ("x" * 7, "x" * 12):
        reporter.take(payload, ValueError())
        clock[0] += INTERVAL
    assert caplog.messages == [
        f"Ignored 1 notification(s) on channel ch that make no sense, the last of {size} "
        "characters: ValueError"
        for size in (7, 12)
    ]
