-- The end of what follows the switch. Several statements.
LOCK TABLE {moved_table} IN ACCESS EXCLUSIVE MODE;
DO $$
BEGIN
    IF EXISTS (SELECT FROM {moved_table}) THEN
        RAISE EXCEPTION 'not all moved jobs are settled' USING ERRCODE = 'PGQ02';
    END IF;
END
$$;
-- Below zero where somebody has cleared the statistics meanwhile.
DELETE FROM {statistics_table} WHERE count <= 0;
DROP TABLE {moved_table};
