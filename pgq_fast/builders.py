"""What ``Queries`` knows about names: settings, and the SQL that manages the schema.

Integrations reach table names and channel as ``queries.qbe.settings`` and ``queries.qbq.settings``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgq_fast.schema import lookups

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings, QualifiedNames

__all__ = [
    "QueryBuilderEnvironment",
    "QueryQueueBuilder",
    "QuerySchedulerBuilder",
    "default_settings",
    "settings_of",
]


# pydantic-settings would add a fifth to what an import of the package takes, and is not needed
# until there is a queue: hence the imports in functions.


def default_settings() -> DBSettings:
    """The settings of this process; see :func:`pgq_fast.settings.db_settings`."""
    from pgq_fast.settings import db_settings

    return db_settings()


def settings_of(queries: object) -> DBSettings | None:
    """Those of the queue; None of a repository that has no layouts."""
    from pgq_fast.settings import DBSettings

    settings = getattr(getattr(queries, "qbq", None), "settings", None)
    return settings if isinstance(settings, DBSettings) else None


@dataclasses.dataclass
class QueryBuilderEnvironment:
    """Names of an installation, and the SQL that creates, alters and looks up its objects."""

    settings: DBSettings = dataclasses.field(default_factory=default_settings)

    @property
    def qualified(self) -> QualifiedNames:
        """The names as SQL refers to them."""
        return self.settings.qualified

    def build_install_query(self, create_schema: bool = True) -> str:
        """Create all objects, with *create_schema* also ``db_schema``."""
        from pgq_fast.schema import ddl

        return ddl.install_sql(self.settings, create_schema=create_schema)

    def build_uninstall_query(self) -> str:
        """Drop all objects."""
        from pgq_fast.schema import ddl

        return ddl.uninstall_sql(self.settings)

    def build_alter_durability_query(self) -> Iterator[str]:
        """A statement for each table: logged or unlogged, as the settings have it."""
        from pgq_fast.schema import ddl

        return ddl.alter_durability_sql(self.settings)

    def build_optimize_autovacuum_query(self) -> str:
        """Set storage parameters that suit how each table is used."""
        from pgq_fast.schema import ddl

        return ddl.optimize_autovacuum_sql(self.settings)

    def build_optimize_autovacuum_rollback_query(self) -> str:
        """Reset those storage parameters."""
        from pgq_fast.schema import ddl

        return ddl.optimize_autovacuum_rollback_sql(self.settings)

    def build_has_table_query(self) -> str:
        """``exists``: the table ``$1``."""
        return lookups.table_exists_sql(self.settings)

    def build_table_has_column_query(self) -> str:
        """``exists``: the column ``$2`` of the table ``$1``."""
        return lookups.table_column_exists_sql(self.settings)

    def build_table_has_index_query(self) -> str:
        """``exists``: the index ``$2`` on the table ``$1``."""
        return lookups.index_exists_sql(self.settings)

    def build_has_function_query(self) -> str:
        """``exists``: the function ``$1``."""
        return lookups.function_exists_sql(self.settings)

    def build_has_trigger_query(self) -> str:
        """``exists``: the trigger ``$1``."""
        return lookups.trigger_exists_sql(self.settings)

    def build_user_types_query(self) -> str:
        """The labels of all enum types, as ``enumlabel, typname``."""
        return lookups.user_types_sql(self.settings)


@dataclasses.dataclass
class QueryQueueBuilder:
    """Names of the queue, its log and its statistics."""

    settings: DBSettings = dataclasses.field(default_factory=default_settings)

    @property
    def qualified(self) -> QualifiedNames:
        """The names as SQL refers to them."""
        return self.settings.qualified


@dataclasses.dataclass
class QuerySchedulerBuilder:
    """Names of the schedules."""

    settings: DBSettings = dataclasses.field(default_factory=default_settings)

    @property
    def qualified(self) -> QualifiedNames:
        """The names as SQL refers to them."""
        return self.settings.qualified
