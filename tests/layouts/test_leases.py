"""What a worker knows of its leases, against a simple account of the same."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pgq_fast.layouts.leases import MOST_NEW, Lease, Leases
from pgq_fast.types import JobId

pytestmark = pytest.mark.impl_agnostic

JOBS = [JobId(number) for number in range(1, 13)]


def lease(number: int, *ids: int, entrypoint: str = "e") -> Lease:
    return Lease(number, entrypoint, [JobId(job_id) for job_id in ids], b"")


def split(leases: Leases, *ids: int) -> tuple[list[int], dict[int, list[int]]]:
    """Numbers of the whole leases, and the places of the others."""
    whole, some = leases.split([JobId(job_id) for job_id in ids])
    return [each.id for each in whole], {each.id: places for each, places in some.items()}


def test_jobs_in_the_order_of_their_claims_are_whole_leases() -> None:
    leases = Leases()
    leases.add(lease(1, 5, 6, 9))
    leases.add(lease(2, 7, 8))
    leases.add(lease(3, 10, 11))
    assert split(leases, 5, 6, 9, 7, 8) == ([1, 2], {})
    assert split(leases, 7, 8, 10) == ([2], {3: [0]})
    assert split(leases, 6, 8, 9, 5) == ([1], {2: [1]})
    assert split(leases, 99) == ([], {})
    assert split(leases) == ([], {})


def test_a_lease_is_whole_only_if_none_of_its_jobs_was_told_of_before() -> None:
    leases = Leases()
    one = lease(1, 5, 6)
    leases.add(one)
    leases.end(one, [0])
    assert split(leases, 5, 6) == ([], {1: [1]})
    leases.end(one, [0, 1])
    assert len(leases) == 0
    assert split(leases, 5, 6) == ([], {})


@pytest.mark.parametrize("looked_up", [True, False])
def test_a_job_that_comes_back_is_in_its_new_lease(looked_up: bool) -> None:
    leases = Leases()
    old, new = lease(1, 5, 6), lease(2, 6, 7)
    assert not leases.add(old)
    if looked_up:
        assert leases.place(JobId(6)) == (old, 1)
    assert leases.add(new)
    assert leases.returns == 1
    assert leases.place(JobId(6)) == (new, 0)
    assert split(leases, 5, 6, 7) == ([2], {1: [0]})
    leases.end(old, [0])
    assert len(leases) == 1


def test_a_job_that_was_queued_again_does_not_count_as_one_that_comes_back() -> None:
    leases = Leases()
    old = lease(1, 5, 6)
    leases.add(old)
    leases.end(old, [1])
    assert not leases.add(lease(2, 6))
    assert leases.returns == 0


def test_jobs_of_other_entrypoints_are_others() -> None:
    leases = Leases()
    leases.add(lease(1, 1, 3))
    assert not leases.add(lease(2, 2, 4, entrypoint="f"))
    assert split(leases, 1, 3, 2, 4) == ([1, 2], {})


def test_many_leases_are_known_one_by_one_too() -> None:
    leases = Leases()
    count = 3 * MOST_NEW
    for number in range(count):
        assert not leases.add(lease(number, 2 * number, 2 * number + 1))
    assert leases.add(lease(count, 3))
    assert len(leases) == count + 1


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5), st.booleans())
def test_attempts_are_read_from_the_array_of_the_server(attempts: list[int], same: bool) -> None:
    if same:
        attempts = attempts[:1] * len(attempts)
    sent = attempts[:1] if same else attempts
    raw = struct.pack("!iiiii", 1, 0, 23, len(sent), 1)
    raw += b"".join(struct.pack("!ii", 4, each) for each in sent)
    one = Lease(1, "e", [JobId(number) for number in range(len(attempts))], raw)
    assert [one.attempts_at(place) for place in range(len(attempts))] == attempts


class Account:
    """A lease as the simple account has it."""

    def __init__(self, ids: list[JobId]) -> None:
        self.ids = ids
        self.ended: set[int] = set()


class Comparing(RuleBasedStateMachine):
    """Every job has one place, the latest; of every lease it is known what the server was told."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases()
        self.objects: dict[int, Lease] = {}
        self.accounts: dict[int, Account] = {}
        self.where: dict[JobId, int] = {}
        self.count = 0

    def note_end(self, number: int, places: set[int]) -> None:
        account = self.accounts[number]
        account.ended |= places
        if len(account.ended) == len(account.ids):
            del self.accounts[number]

    def open_place(self, job_id: JobId) -> tuple[int, int] | None:
        number = self.where.get(job_id)
        if number not in self.accounts:
            return None
        account = self.accounts[number]
        place = account.ids.index(job_id)
        return None if place in account.ended else (number, place)

    @rule(
        ids=st.lists(st.sampled_from(JOBS), min_size=1, max_size=5, unique=True),
        in_order=st.booleans(),
    )
    def claims(self, ids: list[JobId], in_order: bool) -> None:
        self.count += 1
        number = self.count
        if in_order:
            ids.sort()
        before = {job_id: place for job_id in ids if (place := self.open_place(job_id))}
        self.objects[number] = Lease(number, "e", ids, b"")
        assert self.leases.add(self.objects[number]) is bool(before)
        self.accounts[number] = Account(ids)
        for job_id in ids:
            self.where[job_id] = number
        for other, place in before.values():
            self.note_end(other, {place})

    @precondition(lambda self: self.accounts)
    @rule(data=st.data())
    def batches_end_in_order(self, data: st.DataObject) -> None:
        numbers = data.draw(st.lists(st.sampled_from(sorted(self.accounts)), unique=True))
        ids = [job_id for number in numbers for job_id in self.accounts[number].ids]
        self.finishes(list(dict.fromkeys(ids)))

    @rule(ids=st.lists(st.sampled_from(JOBS), unique=True))
    def finishes(self, ids: list[JobId]) -> None:
        places: dict[int, set[int]] = {}
        for job_id in ids:
            if place := self.open_place(job_id):
                places.setdefault(place[0], set()).add(place[1])
        whole, some = self.leases.split(ids)
        assert {each.id for each in whole} | {each.id for each in some} == places.keys()
        for each in whole:
            account = self.accounts[each.id]
            assert account.ended == set()
            assert len(places[each.id]) == len(account.ids)
        for each, found in some.items():
            assert found == sorted(places[each.id])
            account = self.accounts[each.id]
            assert account.ended or len(found) < len(account.ids)
        for each in whole:
            self.leases.end(each)
        for each, found in some.items():
            self.leases.end(each, found)
        for number, ended in places.items():
            self.note_end(number, ended)

    @rule(job_id=st.sampled_from(JOBS))
    def ends_in_another_way(self, job_id: JobId) -> None:
        expected = self.open_place(job_id)
        place = self.leases.place(job_id)
        if expected is None:
            assert place is None or place.lease.ended[place.position]
            return
        assert place is not None
        assert (place.lease.id, place.position) == expected
        self.leases.end(place.lease, [place.position])
        self.note_end(expected[0], {expected[1]})

    @rule(ids=st.sets(st.sampled_from(JOBS)))
    def gives_back_all_but(self, ids: set[JobId]) -> None:
        self.leases.keep_only(ids)
        for number, account in list(self.accounts.items()):
            places = {place for place, job_id in enumerate(account.ids) if job_id not in ids}
            self.note_end(number, places)

    @invariant()
    def as_many_are_open(self) -> None:
        assert len(self.leases) == len(self.accounts)
        assert all(
            self.objects[number].left == len(account.ids) - len(account.ended)
            for number, account in self.accounts.items()
        )

    def teardown(self) -> None:
        self.leases.keep_only([])
        assert len(self.leases) == 0
        kept: list[Any] = [each for each in vars(self.leases).values() if isinstance(each, dict)]
        assert len(kept) >= 3
        assert not any(kept)


Comparing.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_leases_against_a_simple_account = Comparing.TestCase
