-- Note which jobs change, so that their copies can follow. Jobs that a worker holds are not copied, so
-- what becomes of them is not noted until they are queued or held again.
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
        WHEN 'INSERT' THEN
            INSERT INTO {changes_table} (id) SELECT id FROM after WHERE status <> 'picked';
        WHEN 'UPDATE' THEN
            INSERT INTO {changes_table} (id)
            SELECT before.id FROM before JOIN after USING (id)
            WHERE before.status <> 'picked' OR after.status <> 'picked';
        WHEN 'DELETE' THEN
            INSERT INTO {changes_table} (id) SELECT id FROM before WHERE status <> 'picked';
        ELSE
            INSERT INTO {changes_table} (id) VALUES (NULL);
    END CASE;
    RETURN NULL;
END
$$;
LOCK TABLE {queue_table} IN SHARE ROW EXCLUSIVE MODE;
CREATE TRIGGER pgq_capture_insert AFTER INSERT ON {queue_table}
    REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION {capture_function}();
CREATE TRIGGER pgq_capture_update AFTER UPDATE ON {queue_table}
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION {capture_function}();
CREATE TRIGGER pgq_capture_delete AFTER DELETE ON {queue_table}
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION {capture_function}();
CREATE TRIGGER pgq_capture_truncate AFTER TRUNCATE ON {queue_table}
    FOR EACH STATEMENT EXECUTE FUNCTION {capture_function}();
