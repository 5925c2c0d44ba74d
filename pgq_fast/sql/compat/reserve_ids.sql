-- $1 new ids as one value, 8 bytes each, and the time of this transaction: COPY can neither return
-- ids nor compute execute_after.
SELECT string_agg(int8send(nextval(queue.ids)), ''::bytea) AS ids, timestamptz_send(now()) AS now
FROM (SELECT pg_get_serial_sequence('{queue_table}', 'id')::regclass AS ids) AS queue
CROSS JOIN generate_series(1, $1::int)
