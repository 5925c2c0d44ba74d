"""The repository protocol on each table layout, and what a worker needs of it by the batch."""
