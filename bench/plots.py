"""Plots and the page of results from what the scripts here have measured.

    python bench/plots.py bench/results/*.json --into docs/results

writes the plots into ``docs/results/``, the page ``docs/results.md`` beside it, and the block of
README.md that shows the main plot. The same files give the same bytes; ``--check`` only says
whether what is there is what would be written.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from charts import KINDS, Report, ReportError, read
from page import page, picture, readme
from svg import draw

README: Final = Path(__file__).resolve().parents[1] / "README.md"


def contents(
    reports: Sequence[Report], folder: Path, readme_path: Path | None
) -> Iterator[tuple[Path, str]]:
    """What is to be written, file by file."""
    for report in reports:
        for chart in report.charts:
            if chart.series:
                yield folder / picture(report, chart), draw(chart)
    page_path = folder.with_suffix(".md")
    yield page_path, page(reports, folder.name)
    if readme_path is not None:
        seen_from = readme_path.resolve().parent
        paths = (
            Path(os.path.relpath(path.resolve(), seen_from)).as_posix()
            for path in (folder, page_path)
        )
        yield readme_path, readme(readme_path.read_text(encoding="utf-8"), reports, *paths)


def ordered(paths: Sequence[Path]) -> list[Report]:
    """The reports as the page shows them, in whatever order they are named.

    Raises:
        ReportError: A file is none, or two would have plots of the same name.
    """
    reports = [read(path) for path in dict.fromkeys(path.resolve() for path in paths)]
    stems = [report.stem for report in reports]
    if twice := {stem for stem in stems if stems.count(stem) > 1}:
        raise ReportError(f"several files are called {', '.join(sorted(twice))}: rename them")
    return sorted(reports, key=lambda report: (KINDS.index(report.kind), report.stem))


def leftover(written: Sequence[Path], folder: Path) -> list[Path]:
    """Plots in the folder that no report has any more."""
    return sorted(set(folder.glob("*.svg")) - set(written))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", metavar="FILE.json", type=Path, nargs="+")
    parser.add_argument(
        "--into",
        metavar="FOLDER",
        type=Path,
        required=True,
        help="of the plots; other SVGs in it are removed; the page is FOLDER.md",
    )
    parser.add_argument(
        "--readme", type=Path, default=README, help="whose block is made anew; default: ours"
    )
    parser.add_argument("--no-readme", action="store_true", help="leave the README alone")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; 1 if something is out of date"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check; 1 for what is out of date, 2 for what cannot be read."""
    options = parse(arguments)
    folder = options.into
    try:
        reports = ordered(options.files)
        files = dict(contents(reports, folder, None if options.no_readme else options.readme))
    except ReportError as error:
        print(f"plots.py: {error}", file=sys.stderr)
        return 2
    extra = leftover(list(files), folder)
    if options.check:
        stale = [path for path, text in files.items() if not _holds(path, text)] + extra
        for path in stale:
            print(f"plots.py: {path} is not what the reports give", file=sys.stderr)
        return 1 if stale else 0
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    for path in extra:
        path.unlink()
    print(f"{len(files)} files written")
    return 0


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
