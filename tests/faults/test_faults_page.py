"""docs/faults.md is what its files make of it."""

from __future__ import annotations

from faults.kinds import KINDS
from faults.page import PAGE, of_rounds, page, reports


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(reports()), "make results writes it anew"


def test_every_kind_is_on_it() -> None:
    found = {one["kind"] for report in of_rounds(reports()) for one in report["rounds"]}
    assert found == KINDS.keys()
