"""Data sets: corrected pictures as values, their splits, and the formats that others read."""
