"""psycopg as this package uses it: types of its own, and statements without a cursor.

psycopg's cursor costs as much as the rest of a short statement. ``DirectStatements`` does what a
cursor does, in the same steps, through the libpq wrapper that psycopg makes public.
"""

from __future__ import annotations

import functools
import itertools
import secrets
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from pgq_fast._impl import codec
from pgq_fast.drivers.base import Int8Array, Row

if TYPE_CHECKING:
    from psycopg import AsyncConnection, RawCursor
    from psycopg.abc import AdaptContext, PQGen, Transformer
    from psycopg.adapt import AdaptersMap
    from psycopg.pq.abc import PGconn, PGresult

# The statement that was prepared under a name is gone (DISCARD, DEALLOCATE ALL), or its result has
# other types since a change of the schema. Either is found before anything of it is run.
_STALE_STATEMENT: Final = frozenset({"26000", "0A000"})


@functools.cache
def row_cursor() -> type[RawCursor[tuple[Any, ...]]]:
    """A blocking cursor whose results do not depend on adapters that the user registered.

    Made on first use, as psycopg is optional.
    """
    from psycopg import RawCursor

    adapters = row_adapters()

    class RowCursor(RawCursor[tuple[Any, ...]]):
        @property
        def adapters(self) -> AdaptersMap:
            return adapters

    return RowCursor


@functools.cache
def row_adapters() -> AdaptersMap:
    """A map of our own: it gives the same types as asyncpg does, whatever the global one says."""
    import psycopg
    from psycopg.adapt import AdaptersMap, Dumper
    from psycopg.pq import Format
    from psycopg.types import array, bool as boolean, datetime, numeric, string, uuid

    class IntDumper(Dumper):
        # Without a type, so that the server takes the one that the statement asks for. psycopg's
        # picks a type by the value, which makes another prepared statement of each.
        def dump(self, obj: int) -> bytes:
            return b"%d" % obj

    class Int8ArrayDumper(Dumper):
        format = Format.BINARY
        oid = psycopg.adapters.types["int8"].array_oid

        def dump(self, obj: Int8Array) -> bytes:
            return codec.encode_int8_array(obj)

    adapters = AdaptersMap(psycopg.adapters)
    # Of the dumpers of a type the last one is used for single values; those in lists are binary.
    adapters.register_dumper(int, numeric.Int8BinaryDumper)
    adapters.register_dumper(int, IntDumper)
    adapters.register_dumper(str, string.StrBinaryDumper)
    adapters.register_dumper(str, string.StrDumperUnknown)
    adapters.register_dumper(list, array.ListDumper)
    adapters.register_dumper(list, array.ListBinaryDumper)
    adapters.register_dumper(Int8Array, Int8ArrayDumper)
    for loaded, loader in (
        ("int2", numeric.Int2BinaryLoader),
        ("int4", numeric.Int4BinaryLoader),
        ("int8", numeric.Int8BinaryLoader),
        ("text", string.TextBinaryLoader),
        ("varchar", string.TextBinaryLoader),
        ("name", string.TextBinaryLoader),
        ("bytea", string.ByteaBinaryLoader),
        ("bool", boolean.BoolBinaryLoader),
        ("uuid", uuid.UUIDBinaryLoader),
        ("interval", datetime.IntervalBinaryLoader),
    ):
        adapters.register_loader(loaded, loader)
    return adapters


class _Context:
    """What psycopg adapts values for: our adapters on the user's connection."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self.adapters = row_adapters()
        self.connection = connection


class _Known:
    """A statement that was run before, with parameters of certain types."""

    __slots__ = ("name", "query", "runs")

    def __init__(self, query: bytes) -> None:
        self.query = query
        self.runs = 0
        self.name: bytes | None = None


class _KnownStatements(dict[tuple[str, tuple[int, ...], str], _Known]):
    """The statements of a connection, by text, types of the parameters, and encoding."""

    def __init__(self) -> None:
        super().__init__()
        # Names that no other client uses. Behind a pooler that nobody told us of, a statement is
        # then missing at times, which heals, and never another one of the same name.
        self._stem = f"_pgq_fast_{secrets.token_hex(4)}_"
        self._numbers = itertools.count()

    def new_name(self) -> bytes:
        """A name for a prepared statement."""
        return f"{self._stem}{next(self._numbers)}".encode()


# By connection, not by driver: who makes a driver for each use of a connection must not leave more
# and more prepared statements in its session.
_known: weakref.WeakKeyDictionary[AsyncConnection[Any], _KnownStatements] = (
    weakref.WeakKeyDictionary()
)


class DirectStatements:
    """Runs statements on *connection*, binary both ways where psycopg can.

    A statement is prepared when the connection's own ``prepare_threshold`` says so, and there are
    no more of them than its ``prepared_max``. After that many no further one is prepared: this
    package has fewer.

    Args:
        connection: In autocommit mode. The caller sees to it that one statement runs at a time.
        prepares: Whether statements may be prepared by name at all.
    """

    def __init__(self, connection: AsyncConnection[Any], prepares: bool) -> None:
        from psycopg import adapt, generators
        from psycopg.pq import ConnStatus, ExecStatus, Format, TransactionStatus

        self._connection = connection
        self._prepares = prepares
        self._known = _known.setdefault(connection, _KnownStatements())
        self._context = _Context(connection)
        self._make_transformer: Callable[[AdaptContext], Transformer] = adapt.Transformer
        self._transformer: Transformer | None = None
        self._client_encoding: bytes | None = None
        self._encoding = ""
        self._execute: Callable[[PGconn], PQGen[list[PGresult]]] = generators.execute
        self._auto = adapt.PyFormat.AUTO
        self._binary = Format.BINARY
        # Plain numbers, as libpq's wrapper gives them.
        self._alive = int(ConnStatus.OK)
        self._idle = int(TransactionStatus.IDLE)
        self._tuples = int(ExecStatus.TUPLES_OK)
        self._done = frozenset(
            map(int, (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY))
        )
        self._failed = int(ExecStatus.FATAL_ERROR)

    async def fetch_rows(self, query: str, args: Sequence[object]) -> Sequence[Row]:
        """Run *query*; its rows as tuples, none where it returns nothing."""
        result = await self.run(query, args)
        if result.status != self._tuples:
            return []
        transformer = self._transformer
        assert transformer is not None
        transformer.set_pgresult(result, format=self._binary)
        try:
            return transformer.load_rows(0, result.ntuples, tuple)
        finally:
            # It may be large, and the next one may be long in coming.
            transformer.set_pgresult(None)

    async def run(self, query: str, args: Sequence[object]) -> PGresult:
        """Run *query*, a single statement, and wait for its end.

        Raises:
            psycopg.Error: What the server or the connection says.
        """
        from psycopg import errors

        connection = self._connection
        async with connection.lock:
            pgconn = connection.pgconn
            if pgconn.status != self._alive:
                raise errors.OperationalError("the connection is closed")
            if pgconn.pipeline_status:
                raise errors.NotSupportedError(
                    "the connection is in pipeline mode: end its pipeline() block first"
                )
            transformer = self._transformer_for(pgconn)
            values = transformer.dump_sequence(args, [self._auto] * len(args))
            types = transformer.types or ()
            formats = transformer.formats
            known = self._known_statement(query, types)
            if known is not None and self._is_due(known):
                idle = pgconn.transaction_status == self._idle
                if known.name is None:
                    # Of a statement whose preparation was cut off nobody knows whether the name is
                    # taken: each attempt has another one.
                    name = self._known.new_name()
                    pgconn.send_prepare(name, known.query, types)
                    self._check(await self._result(pgconn))
                    known.name = name
                pgconn.send_query_prepared(
                    known.name, values, param_formats=formats, result_format=self._binary
                )
                try:
                    return self._check(await self._result(pgconn))
                except errors.Error as error:
                    if error.sqlstate not in _STALE_STATEMENT:
                        raise
                    known.name = None
                    if not idle:
                        raise  # the transaction is lost
            pgconn.send_query_params(
                query.encode(self._encoding) if known is None else known.query,
                values,
                param_types=types,
                param_formats=formats,
                result_format=self._binary,
            )
            return self._check(await self._result(pgconn))

    def _transformer_for(self, pgconn: PGconn) -> Transformer:
        """What adapts values; a new one where the session's encoding is another."""
        client_encoding = pgconn.parameter_status(b"client_encoding")
        transformer = self._transformer
        if transformer is None or client_encoding != self._client_encoding:
            self._client_encoding = client_encoding
            self._encoding = self._connection.info.encoding
            self._transformer = transformer = self._make_transformer(self._context)
        return transformer

    def _known_statement(self, query: str, types: tuple[int, ...]) -> _Known | None:
        """What is known of the statement; None where it is never to be prepared."""
        if not self._prepares:
            return None
        known = self._known.get((query, types, self._encoding))
        if known is None:
            most = self._connection.prepared_max
            if most is not None and len(self._known) >= most:
                self._forget_unprepared()
                if len(self._known) >= most:
                    return None
            known = self._known[query, types, self._encoding] = _Known(query.encode(self._encoding))
        return known

    def _forget_unprepared(self) -> None:
        for key in [key for key, known in self._known.items() if known.name is None]:
            del self._known[key]

    def _is_due(self, known: _Known) -> bool:
        """Whether to run the statement by a name, from this run on."""
        threshold = self._connection.prepare_threshold
        if threshold is None:
            return False
        known.runs += 1
        return known.runs > threshold

    async def _result(self, pgconn: PGconn) -> PGresult:
        """The result of what was sent; a cancelled wait cancels the statement and lets it end."""
        from psycopg import errors

        results = await self._connection.wait(self._execute(pgconn))
        if not results:
            raise errors.InternalError("the server gave no result")
        return results[-1]

    def _check(self, result: PGresult) -> PGresult:
        from psycopg import errors

        status = result.status
        if status in self._done:
            return result
        if status == self._failed:
            raise errors.error_from_result(result, encoding=self._connection.info.encoding)
        raise errors.ProgrammingError(
            "the statement started a COPY: use the driver's transaction and copy_in"
        )
