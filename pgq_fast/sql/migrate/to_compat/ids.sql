-- Ids go on where they were. An id that was taken for a job which never came is not given again.
SELECT setval(pg_get_serial_sequence('{staged_table}', 'id')::regclass, greatest(
    (SELECT max(id) FROM {staged_table}),
    pg_sequence_last_value('{ids_sequence}'::regclass),
    1
))
