-- The first part of the switch: nothing of the queue changes any more, and nothing speaks against it.
-- What is left to copy follows. Several statements.
LOCK TABLE {ready_table}, {deferred_table}, {lease_table}, {held_table}, {dedupe_table},
    {waiting_table}, {log_batches_table}, {log_entries_table}, {queue_table}, {queue_table_log}
    IN ACCESS EXCLUSIVE MODE;
DO $$
BEGIN
    IF EXISTS (SELECT FROM {changes_table} WHERE id IS NULL) THEN
        RAISE EXCEPTION 'the queue was emptied' USING ERRCODE = 'PGQ04';
    END IF;
    -- [patient
    IF EXISTS (
        SELECT FROM {lease_table}
        WHERE heartbeat >= clock_timestamp() - interval '<silence>'
            AND bit_count(done) < cardinality(ids)
    ) THEN
        RAISE EXCEPTION 'workers still hold jobs' USING ERRCODE = 'PGQ03';
    END IF;
    -- patient]
END
$$;
