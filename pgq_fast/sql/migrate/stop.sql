-- Open the gate. With that, and after a while in any case, the migration $1 is nobody's concern.
UPDATE {migration_table}
SET gate_until = NULL
-- [for_good
    , alive_until = '-infinity'
-- for_good]
WHERE token = $1::uuid
