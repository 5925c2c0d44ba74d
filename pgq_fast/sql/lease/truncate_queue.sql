TRUNCATE {ready_table}, {deferred_table}, {lease_table}, {held_table}, {dedupe_table}
