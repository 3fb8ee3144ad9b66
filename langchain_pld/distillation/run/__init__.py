"""What a run works with: the teacher, the Store, the ledger, progress."""
