-- The first part of the switch: nothing of the queue changes any more, and nothing speaks against it.
-- What is left to copy follows. Several statements.
LOCK TABLE {queue_table}, {queue_table_log} IN ACCESS EXCLUSIVE MODE;
DO $$
BEGIN
    IF EXISTS (SELECT FROM {changes_table} WHERE id IS NULL) THEN
        RAISE EXCEPTION 'the queue was emptied' USING ERRCODE = 'PGQ04';
    END IF;
    -- [patient
    IF EXISTS (
        SELECT FROM {queue_table}
        WHERE status = 'picked' AND heartbeat >= clock_timestamp() - interval '<silence>'
    ) THEN
        RAISE EXCEPTION 'workers still hold jobs' USING ERRCODE = 'PGQ03';
    END IF;
    -- patient]
END
$$;
INSERT INTO {changes_table} (id) SELECT id FROM {queue_table} WHERE status = 'picked';
