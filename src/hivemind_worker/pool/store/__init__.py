"""What the pool remembers: one Protocol, and SQLite as the store that comes with it."""
