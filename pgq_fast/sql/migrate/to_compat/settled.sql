-- The end of what follows the switch. Several statements.
LOCK TABLE {moved_ready_table}, {moved_deferred_table}, {moved_held_table}, {moved_batches_table}
    IN ACCESS EXCLUSIVE MODE;
DO $$
BEGIN
    IF EXISTS (SELECT FROM {moved_ready_table}) OR EXISTS (SELECT FROM {moved_deferred_table})
        OR EXISTS (SELECT FROM {moved_held_table}) OR EXISTS (SELECT FROM {moved_batches_table})
    THEN
        RAISE EXCEPTION 'not all moved jobs are settled' USING ERRCODE = 'PGQ02';
    END IF;
END
$$;
DROP TABLE {moved_ready_table}, {moved_deferred_table}, {moved_held_table}, {moved_batches_table};
DROP SEQUENCE {ids_sequence};
