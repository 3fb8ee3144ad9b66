"""What the student decides: candidate prompts, their scores, and the one that is shipped."""
