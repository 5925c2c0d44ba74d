"""The payload of a NOTIFY: the twins agree on anything, and no short cut means something else."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from kernels.twins import Twin, agreed, any_text, scalars

pytestmark = pytest.mark.impl_agnostic

TRIGGER = (
    '{"channel": "ch_pgqueuer", "operation": "insert", "sent_at": "2031-02-03T04:05:06.7+00:00", '
    '"table": "pgqueuer", "type": "table_changed_event"}'
)
OPERATIONS = ("insert", "update", "delete", "truncate")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
# Often right, so that it matters what is wrong.
keys = st.sampled_from(["type", "operation", "table", "channel", "sent_at", "ids", "id", "x"])
values = st.one_of(
    st.sampled_from(
        [
            "table_changed_event",
            "cancellation_event",
            "health_check_event",
            "pgqueuer",
            str(uuid.UUID(int=3)),
            *OPERATIONS,
        ]
    ),
    st.lists(st.integers() | st.booleans(), max_size=3),
    json_values,
)
# Unlike dictionaries, with keys that repeat.
pairs = st.lists(st.tuples(keys, values), max_size=7)
spaces = st.sampled_from(["", " ", "\n", "\t\r ", "\x0b", "\u00a0"])


def agree_on(payload: Any) -> None:
    """The twins agree, and an accepted change of the table is what a whole JSON parser reads."""
    kind, value = agreed("notify", "parse_event", payload)
    if kind == "returned" and value[0] == "table_changed_event":
        event = json.loads(payload)
        assert event["type"] == "table_changed_event"
        assert event["operation"] == value[1]
        assert value[1] in OPERATIONS
        assert isinstance(event["table"], str)
    elif kind == "raised" and isinstance(payload, (str, bytes, bytearray)):
        assert issubclass(value, ValueError)


@given(any_text | st.binary() | scalars)
@example("")
@example("{")
@example('{"')
@example('{"type"')
@example(b"\xff{}")
@example("\ufeff{}")
@example("[" * 100_000)
@example('{"a":' * 100_000)
@example('{"type": "cancellation_event", "ids": [' + "9" * 5000 + "]}")
def test_anything(payload: Any) -> None:
    agree_on(payload)


@given(json_values)
def test_any_json(value: Any) -> None:
    agree_on(json.dumps(value))
    agree_on(json.dumps(value, ensure_ascii=False))


@given(pairs, spaces, st.booleans())
def test_objects_with_repeated_keys_and_odd_spaces(
    members: list[tuple[str, Any]], space: str, ascii_only: bool
) -> None:
    text = f",{space}".join(
        f"{space}{json.dumps(key)}{space}:{space}{json.dumps(value, ensure_ascii=ascii_only)}"
        for key, value in members
    )
    agree_on(f"{space}{{{text}{space}}}{space}")


@given(st.data())
def test_mutations_of_what_the_trigger_sends(data: st.DataObject) -> None:
    text = TRIGGER
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text)))
        removed = data.draw(st.integers(0, 3))
        added = data.draw(
            st.sampled_from(
                ['"', "\\", "{", "}", ",", ":", " ", "\0", "\x1f", "\\u0061", "é", "[]"]
            )
            | st.text(max_size=2)
            | st.just("")
        )
        text = text[:place] + added + text[place + removed :]
    agree_on(text)
    if text.isascii():
        agree_on(text.encode())


@given(st.sampled_from(OPERATIONS), st.permutations(list(json.loads(TRIGGER))))
def test_members_in_any_order(operation: str, order: list[str]) -> None:
    event = json.loads(TRIGGER) | {"operation": operation}
    payload = json.dumps({key: event[key] for key in order})
    assert agreed("notify", "parse_event", payload) == (
        "returned",
        ("table_changed_event", operation),
    )


def test_the_last_of_equal_keys_counts(twin: Twin) -> None:
    def parse(text: str) -> Any:
        return twin.notify.parse_event(text)

    assert parse(
        '{"type": "table_changed_event", "operation": "insert", "table": "t",'
        ' "operation": "delete"}'
    ) == ("table_changed_event", "delete")
    with pytest.raises(ValueError, match="no known operation"):
        parse('{"type":"table_changed_event","operation":"insert","table":"t","operation":"drop"}')
    with pytest.raises(ValueError, match="no known event"):
        parse('{"type":"table_changed_event","operation":"insert","table":"t","type":"other"}')


def test_escapes_and_other_alphabets(twin: Twin) -> None:
    parse = twin.notify.parse_event
    assert parse(TRIGGER.replace("insert", "\\u0069nsert")) == ("table_changed_event", "insert")
    assert parse(TRIGGER.replace('"pgqueuer"', '"q\\"u\\\\eue"')) == (
        "table_changed_event",
        "insert",
    )
    assert parse(TRIGGER.replace('"pgqueuer"', '"очередь"')) == ("table_changed_event", "insert")
    assert parse(TRIGGER.encode()) == ("table_changed_event", "insert")
    assert parse(bytearray(TRIGGER.encode())) == ("table_changed_event", "insert")


def test_other_events(twin: Twin) -> None:
    parse = twin.notify.parse_event
    cancellation = {"type": "cancellation_event", "ids": [1, 2**62], "channel": "c"}
    assert parse(json.dumps(cancellation)) == ("cancellation_event", cancellation)
    health = {"type": "health_check_event", "id": str(uuid.UUID(int=3))}
    assert parse(json.dumps(health)) == ("health_check_event", health)
    for ids in (None, "1", [True], ["1"], [1.0], {"1": 1}):
        with pytest.raises(ValueError, match="lists no job ids"):
            parse(json.dumps(cancellation | {"ids": ids}))
    for token in (None, 3, "no uuid"):
        with pytest.raises(ValueError, match=r"carries no id|badly formed"):
            parse(json.dumps(health | {"id": token}))
