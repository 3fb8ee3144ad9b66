"""A run and its parts: teacher, Store, ledger, progress."""
