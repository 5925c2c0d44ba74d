-- Nobody claims jobs while the migration holds the gate: a claim finds nothing, as if the queue were
-- empty, and everything else goes on. The gate opens by itself soon after the migration has died.
CREATE OR REPLACE FUNCTION {gate_function}() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM {migration_table} WHERE gate_until > clock_timestamp()) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
CREATE OR REPLACE TRIGGER pgq_gate BEFORE UPDATE ON {queue_table}
    FOR EACH ROW
    WHEN (NEW.status = 'picked' AND NEW.queue_manager_id IS DISTINCT FROM OLD.queue_manager_id)
    EXECUTE FUNCTION {gate_function}();
UPDATE {migration_table} SET gate_until = clock_timestamp() + interval '<gate>';
