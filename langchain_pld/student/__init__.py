"""The student: prompt, answer reading, calibration, gates and the classifier that joins them."""
