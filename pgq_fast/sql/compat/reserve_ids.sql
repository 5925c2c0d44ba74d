-- $1 new ids as one value, 8 bytes each, and the time of this transaction: COPY can neither return
-- ids nor compute execute_after. Where the table is a view, of the lease layout, nothing numbers its
-- rows, and nextval() says that it is no sequence.
SELECT string_agg(int8send(nextval(queue.ids)), ''::bytea) AS ids, timestamptz_send(now()) AS now
FROM (
    SELECT coalesce(pg_get_serial_sequence('{queue_table}', 'id'), '{queue_table}')::regclass AS ids
) AS queue
CROSS JOIN generate_series(1, $1::int)
