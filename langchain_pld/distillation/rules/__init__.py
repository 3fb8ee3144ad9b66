"""What is done to rules: screens, clusters, conflicts, edits."""
