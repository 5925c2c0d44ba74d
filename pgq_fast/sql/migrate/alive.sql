-- Whether a migration is under way; NULL where none has ever been.
SELECT EXISTS (SELECT FROM {migration_table} WHERE alive_until > clock_timestamp()) AS alive
