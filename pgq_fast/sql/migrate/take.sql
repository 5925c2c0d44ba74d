-- Make <token> the one migration that is under way, unless another one is. Several statements.
--
-- Each later statement of a migration has a fence: it does nothing unless the row here still has its
-- token and has not lapsed, and extends its life. A migration that was killed lapses, and the next one
-- replaces the table, for which it has to wait until no statement of the old one is at work.
--
-- Unlogged, so that no migration is under way after a crash of the server: commits that it believes in
-- may be lost.
DO $$
BEGIN
    IF to_regclass('{migration_table}') IS NOT NULL THEN
        IF EXISTS (SELECT FROM {migration_table} WHERE alive_until > clock_timestamp()) THEN
            RAISE EXCEPTION 'another migration is under way' USING ERRCODE = 'PGQ01';
        END IF;
    END IF;
END
$$;
DROP TABLE IF EXISTS {migration_table};
CREATE UNLOGGED TABLE {migration_table} (
    token uuid NOT NULL,
    alive_until timestamptz NOT NULL,
    -- How long it lives without a sign.
    life interval NOT NULL,
    -- Until when nobody may claim jobs.
    gate_until timestamptz
);
INSERT INTO {migration_table} (token, life, alive_until)
VALUES ('<token>', interval '<life>', clock_timestamp() + interval '<life>');
