DELETE FROM {waiting_table} WHERE id = $1::uuid
