-- Note which jobs change, and where they are then, so that their copies can follow. Jobs in a lease are
-- not copied: they are noted when they leave ready and when they come back.
--
-- With the rights of its owner: who may write to the queue need not know of a migration. A migration that
-- has lapsed wants no notes; in a transaction with one snapshot, that cannot be seen.
CREATE FUNCTION {capture_function}() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF current_setting('transaction_isolation') = 'read committed' AND NOT EXISTS (
        SELECT FROM {migration_table} WHERE alive_until > clock_timestamp()
    ) THEN
        RETURN NULL;
    END IF;
    CASE TG_OP
        WHEN 'DELETE' THEN
            INSERT INTO {changes_table} (id) SELECT id FROM before;
        WHEN 'TRUNCATE' THEN
            INSERT INTO {changes_table} (id) VALUES (NULL);
        ELSE
            INSERT INTO {changes_table} (id, entrypoint, priority, execute_after)
            SELECT id, entrypoint, priority, execute_after FROM after;
    END CASE;
    RETURN NULL;
END
$$;
LOCK TABLE {ready_table}, {deferred_table}, {held_table} IN SHARE ROW EXCLUSIVE MODE;
