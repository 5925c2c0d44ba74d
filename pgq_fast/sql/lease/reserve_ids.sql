-- $1 new ids as one value, 8 bytes each, and the time of this transaction: COPY can neither return
-- ids nor compute execute_after.
SELECT string_agg(int8send(nextval('{ids_sequence}')), ''::bytea) AS ids,
    timestamptz_send(now()) AS now
FROM generate_series(1, $1::int)
