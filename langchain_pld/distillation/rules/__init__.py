"""Work on rules: screening, clustering, conflicts, edits."""
