"""The search for the best prompt: candidates, their scores with the real student, and the one to ship."""
