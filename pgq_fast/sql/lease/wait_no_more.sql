-- $1 does not wait.
DELETE FROM {waiting_table} WHERE id = $1::uuid
