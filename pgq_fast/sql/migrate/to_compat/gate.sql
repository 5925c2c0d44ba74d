-- Nobody claims jobs while the migration holds the gate: a claim that found some fails as a whole, and
-- everything else goes on. The gate opens by itself soon after the migration has died.
CREATE OR REPLACE FUNCTION {gate_function}() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM {migration_table} WHERE gate_until > clock_timestamp()) THEN
        RAISE EXCEPTION 'the queue is moving to another table layout, claims have to wait'
            USING ERRCODE = 'PGQ05';
    END IF;
    RETURN NEW;
END
$$;
CREATE OR REPLACE TRIGGER pgq_gate BEFORE INSERT ON {lease_table}
    FOR EACH ROW EXECUTE FUNCTION {gate_function}();
UPDATE {migration_table} SET gate_until = clock_timestamp() + interval '<gate>';
