-- Ids go on where they were. An id that was taken for a job which never came is not given again.
SELECT setval('{ids_sequence}', greatest(
    (SELECT max(id) FROM {queue_table}),
    pg_sequence_last_value(pg_get_serial_sequence('{queue_table}', 'id')::regclass),
    1
))
