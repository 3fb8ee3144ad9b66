"""Asking a student: prompt layout, answer reading, calibration, gates and the classifier around them."""
