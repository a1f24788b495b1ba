"""Training from corrections: pictures in, a new model that was compared with the one in use out."""

from heatbox_workers.training.run import run_training

__all__ = ["run_training"]
