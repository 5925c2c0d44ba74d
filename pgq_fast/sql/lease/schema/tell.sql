-- Body of the trigger function: tell those who wait for what its argument says ('work' or 'end'),
-- and nobody if nobody does: each NOTIFY takes a lock at its commit that the whole database shares.
--
-- Whoever waits registers first and looks at the tables then, so a statement here that does not see
-- the registration yet is one whose rows that look finds, or sees to be under way. That holds because
-- each statement of this function sees what has been committed when it starts, which is not so in a
-- transaction with one snapshot: such a one tells in any case.
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' OR EXISTS (
        SELECT FROM {waiting_table} AS waiting
        WHERE until > clock_timestamp()
            AND CASE TG_ARGV[0] WHEN 'work' THEN for_work ELSE for_ends END
    ) THEN
        PERFORM pg_notify(
            '{channel}',
            json_build_object(
                'channel', '{channel}',
                'operation', CASE TG_ARGV[0] WHEN 'work' THEN 'insert' ELSE 'delete' END,
                'sent_at', clock_timestamp(),
                'table', TG_TABLE_NAME,
                'type', 'table_changed_event'
            )::text
        );
    END IF;
    RETURN NULL;
END
