pg_try_advisory_xact_lock(hashtext('{ready_table}'), 1)
OR pg_try_advisory_xact_lock(hashtext('{ready_table}'), 2)
OR pg_try_advisory_xact_lock(hashtext('{ready_table}'), 3)
