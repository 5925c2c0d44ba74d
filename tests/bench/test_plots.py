"""Plots and the page say what the reports say, legibly, and the same each time."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
BENCH: Final = ROOT / "bench"
PLOTS: Final = Path(__file__).with_name("plots")
FIXTURES: Final = sorted(PLOTS.glob("*.json"))
# White, the documentation's dark page, and the darkest that the README is read on.
PAGES: Final = {"light": ["#ffffff"], "dark": ["#1e2129", "#0d1117"]}
BLOCK: Final = (
    "# name\n\n<!-- results: made by bench/plots.py -->\nold\n<!-- results: end -->\nmore\n"
)

# No implementation is at work here.
pytestmark = pytest.mark.impl_agnostic


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a README that has a block."""
    (tmp_path / "README.md").write_text(BLOCK)
    return tmp_path


def run(bench: Any, place: Path, *arguments: str, files: list[Path] = FIXTURES) -> int:
    """``plots.py`` on the fixtures."""
    status = bench("plots").main(
        [
            *map(str, files),
            f"--into={place / 'docs' / 'results'}",
            f"--readme={place / 'README.md'}",
            *arguments,
        ]
    )
    assert isinstance(status, int)
    return status


def written(place: Path) -> dict[str, str]:
    return {
        str(path.relative_to(place)): path.read_text()
        for path in place.rglob("*")
        if path.is_file()
    }


def test_the_same_reports_give_the_same_bytes(bench: Any, place: Path) -> None:
    assert run(bench, place) == 0
    first = written(place)
    assert run(bench, place, files=FIXTURES[::-1]) == 0
    assert written(place) == first
    assert run(bench, place, "--check") == 0


def test_a_check_finds_what_is_out_of_date(
    bench: Any, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bench, place, "--check") == 1
    run(bench, place)
    folder = place / "docs" / "results"
    plot = folder / "growth-backlog.svg"
    plot.write_text(plot.read_text().replace("200,000", "300,000"))
    (folder / "growth-gone.svg").write_text("<svg/>")
    before = written(place)
    capsys.readouterr()
    assert run(bench, place, "--check") == 1
    stale = capsys.readouterr().err
    assert "growth-backlog.svg" in stale
    assert "growth-gone.svg" in stale
    assert "peers-drain.svg" not in stale
    assert written(place) == before
    assert run(bench, place) == 0
    assert not (folder / "growth-gone.svg").exists()


def test_the_committed_page_is_that_of_the_committed_reports() -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(BENCH / "plots.py"),
            *map(str, sorted((BENCH / "results").glob("*.json"))),
            f"--into={ROOT / 'docs' / 'results'}",
            "--check",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{done.stderr}\nmake results"


def test_the_page_has_what_figures_depend_on(bench: Any, place: Path) -> None:
    run(bench, place)
    page = (place / "docs" / "results.md").read_text()
    for path in FIXTURES:
        report = json.loads(path.read_text())
        for warning in report["warnings"]:
            assert f"!!! warning\n    {warning}" in page
        for fact in (report["date"], f"`{report['command']}`", report["machine"]["cpu"]):
            assert fact in page
        assert f"fsync {report['server']['fsync']}" in page
        assert f"pgq_fast {report['versions']['pgq_fast']}" in page
    # Median, lowest and highest of the fixture's runs.
    assert "| 200,000 (180,000 to 210,000) |" in page
    assert "- another: pip: no matching \\| distribution &lt;found>" in page
    assert "| a &lt;kind> of drain |" not in page
    assert "**missed**" in page
    assert "| pgq_fast, lease | 1,000,000 |" in page


def test_the_readme_shows_the_main_plot_and_nothing_else_changes(bench: Any, place: Path) -> None:
    run(bench, place)
    text = (place / "README.md").read_text()
    assert text.startswith("# name\n\n<!-- results: made")
    assert text.endswith("<!-- results: end -->\nmore\n")
    assert "(docs/results/peers-drain.svg)" in text
    assert "(docs/results.md)" in text
    peers = json.loads((PLOTS / "peers.json").read_text())
    for fact in (peers["date"], peers["command"], peers["machine"]["cpu"], peers["warnings"][0]):
        assert fact in text
    # Without that report, a comparison has the main plot.
    run(bench, place, files=[path for path in FIXTURES if path.stem != "peers"])
    assert "(docs/results/compare-rates.svg)" in (place / "README.md").read_text()


def texts(path: Path) -> list[str]:
    root = ElementTree.fromstring(path.read_text())
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_plots_have_their_text_as_text_and_a_description(bench: Any, place: Path) -> None:
    run(bench, place)
    plots = sorted((place / "docs" / "results").glob("*.svg"))
    assert [plot.stem for plot in plots] == [
        "compare-rates", "compare-waits", "growth-backlog", "growth-payload", "peers-drain",
    ]  # fmt: skip
    for plot in plots:
        root = ElementTree.fromstring(plot.read_text())
        assert root.get("role") == "img"
        namespace = "{http://www.w3.org/2000/svg}"
        title, description = (root.find(f"{namespace}{name}") for name in ("title", "desc"))
        assert title is not None
        assert title.text
        assert description is not None
        assert description.text
        assert {title.get("id"), description.get("id")} == {
            *(root.get("aria-labelledby") or "").split()
        }
    peers = texts(place / "docs" / "results" / "peers-drain.svg")
    assert {"pgq_fast lease", "a <library>", "another", "not measured", "200,000"} <= {*peers}
    growth = texts(place / "docs" / "results" / "growth-payload.svg")
    # Zero has a place on a logarithmic axis.
    assert {"0", "1 k", "bytes of payload", "pgq_fast, lease"} <= {*growth}


def test_spreads_are_drawn_where_repeats_differ(bench: Any, place: Path) -> None:
    run(bench, place)
    folder = place / "docs" / "results"
    # Of three points in the fixture one was measured once, and one gave the same each time.
    assert (folder / "growth-payload.svg").read_text().count('class="spread"') == 1


def test_marks_are_within_the_plot(bench: Any, place: Path) -> None:
    run(bench, place)
    for plot in (place / "docs" / "results").glob("*.svg"):
        root = ElementTree.fromstring(plot.read_text())
        _, _, wide, high = map(float, (root.get("viewBox") or "").split())
        for element in root.iter():
            for name, limit in (("x", wide), ("cx", wide), ("y", high), ("cy", high)):
                assert 0 <= float(element.get(name, 0)) <= limit, (plot.name, element.attrib)


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """As WCAG defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_are_legible_on_light_and_dark_pages(bench: Any) -> None:
    svg = bench("svg")
    every = [page for pages in PAGES.values() for page in pages]
    for colour, page in itertools.product(svg.PALETTE, every):
        assert contrast(colour, page) >= 3, (colour, page)
    for mode, colours in (("light", svg.LIGHT), ("dark", svg.DARK)):
        for page in PAGES[mode]:
            assert contrast(colours["text"], page) >= 4.5, (mode, page)
        for page in every:
            # A page that is toggled, in a browser that does not tell its pictures.
            assert contrast(colours["text"], page) >= 3, (mode, page)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read"),
        ("[]", "not a report"),
        ('{"kind": "growth"}', "it has no 'charts'"),
        ('{"kind": "weather"}', "kind is 'weather'"),
    ],
)
def test_what_is_no_report_is_an_explained_error(
    bench: Any, place: Path, capsys: pytest.CaptureFixture[str], content: str, reason: str
) -> None:
    path = place / "odd.json"
    path.write_text(content)
    assert run(bench, place, files=[path]) == 2
    assert re.search(rf"odd\.json: .*{reason}", capsys.readouterr().err)
    assert not (place / "docs").exists()


def test_two_files_of_one_name_are_refused(
    bench: Any, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(PLOTS / "growth.json", place / "growth.json")
    assert run(bench, place, files=[PLOTS / "growth.json", place / "growth.json"]) == 2
    assert "several files are called growth" in capsys.readouterr().err


def test_a_readme_without_a_block_is_refused(
    bench: Any, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "README.md").write_text("# name\n")
    assert run(bench, place) == 2
    assert "has no <!-- results" in capsys.readouterr().err
