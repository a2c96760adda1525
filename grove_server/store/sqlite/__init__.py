"""The store in one SQLite file: schema, lock and checks (database), the writer thread (writer)."""
