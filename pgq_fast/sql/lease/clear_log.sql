-- What live jobs say about themselves stays: it is written nowhere.
WITH entries AS (
    DELETE FROM {log_entries_table} WHERE entrypoint = ANY($1::text[])
)
DELETE FROM {log_batches_table} WHERE entrypoint = ANY($1::text[])
