"""The public surface against the installed original, fact by fact."""

from __future__ import annotations

import importlib

import pytest
from surface import facts

pytestmark = pytest.mark.impl_agnostic

# Modules of which everything public counts.
WHOLE_MODULES = (
    "",
    "applications",
    "db",
    "errors",
    "executors",
    "factories",
    "models",
    "qm",
    "queries",
    "sm",
    "types",
    "web",
)

# Modules of which the documentation uses or returns these names.
DOCUMENTED = {
    "core.completion": ("CompletionWatcher",),
    "core.insights": ("InsightsService", "QueueManagementService"),
    "core.logconfig": ("logger",),
    "domain.errors": ("SchemaDriftError",),
    "domain.models": (
        "ActiveWorker",
        "EntrypointStat",
        "JobDurationStats",
        "OverviewSnapshot",
        "QueueAgeStats",
        "StaleJob",
        "TableInfo",
        "ThroughputBucket",
        "ThroughputStats",
    ),
    "domain.settings": (
        "ConnectionSettings",
        "DBSettings",
        "Durability",
        "DurabilityPolicy",
        "QualifiedNames",
    ),
    "domain.types": ("QueueExecutionMode",),
    "adapters.connections": ("create_asyncpg_pool", "create_psycopg_pool"),
    "adapters.inmemory": ("InMemoryDriver", "InMemoryQueries"),
    "adapters.tracing.logfire": ("LogfireTracing",),
    "adapters.tracing.opentelemetry": ("OpenTelemetryTracing",),
    "adapters.tracing.sentry": ("SentryTracing",),
    "metrics.fastapi": ("create_metrics_router",),
    "metrics.prometheus": (
        "MetricNames",
        "aggregated_log_statistics",
        "aggregated_queue_statistics",
        "collect_metrics",
        "prometheus_format",
    ),
    "adapters.web.sse": ("Broadcaster",),
    "ports": ("RepositoryPort",),
    "ports.driver": ("Driver", "SyncDriver", "ListenerRemover"),
    "ports.tracing": ("TRACER", "set_tracing_class"),
}

# Where this package differs on purpose: (module, fact), and why.
DEVIATIONS: dict[tuple[str, str], str] = (
    {
        (module, f"{driver}()"): "further arguments, by keyword only: poolers in transaction mode"
        for driver, modules in {
            "AsyncpgDriver": ("", "db"),
            "AsyncpgPoolDriver": ("", "db"),
            "PsycopgDriver": ("", "db"),
            "SyncPsycopgDriver": ("db",),
        }.items()
        for module in modules
    }
    | {
        (module, call): "batch_size defaults to None: the size tunes itself"
        for call, modules in {
            "run": ("",),
            "PgQueuer.run()": ("", "applications"),
            "QueueManager.run()": ("", "qm"),
        }.items()
        for module in modules
    }
    | {
        (module, "InMemoryQueries.install()"): "takes what Queries.install() takes"
        for module in ("", "adapters.inmemory")
    }
)

DEVIATIONS |= {
    ("web", call): "further arguments, by keyword only: who gets in, and what is allowed"
    for call in ("create_web_app", "create_web_router")
}

MODULES = [*((name, ()) for name in WHOLE_MODULES), *DOCUMENTED.items()]
IDS = [name or "pgq_fast" for name, _ in MODULES]


def differences(name: str, names: tuple[str, ...]) -> dict[tuple[str, str], str]:
    """Facts of the original that do not hold here."""
    theirs = facts.of_module("pgqueuer", name, names)
    ours = facts.of_module("pgq_fast", name, names or tuple(theirs["__all__"]))  # type: ignore[arg-type]
    if not names:
        ours["__all__"] = tuple(sorted(importlib.import_module(_ours(name)).__all__))
    return {
        (name, path): f"\n    original: {fact}\n    here:     {ours.get(path, 'absent')}"
        for path, fact in theirs.items()
        if ours.get(path, "absent") != fact
    }


def _ours(name: str) -> str:
    return f"pgq_fast.{name}" if name else "pgq_fast"


@pytest.mark.parametrize(
    ("name", "names"), MODULES, ids=[name or "pgq_fast" for name, _ in MODULES]
)
def test_every_fact_of_the_original_holds(name: str, names: tuple[str, ...]) -> None:
    found = differences(name, names)
    unexpected = {path: found[path] for path in found.keys() - DEVIATIONS.keys()}
    assert not unexpected, "".join(
        f"\n  {module}.{path}{difference}" for (module, path), difference in unexpected.items()
    )
    outdated = {each for each in DEVIATIONS if each[0] == name} - found.keys()
    assert not outdated, f"listed as deviations, but equal: {outdated}"


def test_the_comparison_sees_what_callers_see() -> None:
    """Facts that are known by heart, so that a comparison of nothing with nothing cannot pass."""
    known = facts.of_module("pgqueuer", "")
    assert len(known) > 150
    assert known["PgQueuer.schedule()"] == (
        "method",
        "call",
        (
            ("entrypoint", "POSITIONAL_OR_KEYWORD", "required"),
            ("expression", "POSITIONAL_OR_KEYWORD", "required"),
            ("executor_factory", "POSITIONAL_OR_KEYWORD", "None"),
            ("clean_old", "POSITIONAL_OR_KEYWORD", "False"),
            ("accepts_context", "POSITIONAL_OR_KEYWORD", "None"),
        ),
    )
    assert known["PgQueuer.run()"][1] == "await"  # type: ignore[index]
    assert known["Job.attempts"] == ("field", "0", "None")
    assert known["PgQueuer.shutdown"] == ("attribute", ("made", "Event"))
    types = facts.of_module("pgqueuer", "types")
    assert types["OnFailure"] == ("one of", ("delete", "hold"))
    assert types["QueueExecutionMode"] == (
        "enum",
        (("continuous", "continuous"), ("drain", "drain")),
    )
