"""Detections, guesses and poses measured by the official rules, in float64 on the files' own numbers."""
