"""The built-in explainers: one paper, one file."""
