"""Trainings: what is to be learnt, what became of it, and which model is used then."""
