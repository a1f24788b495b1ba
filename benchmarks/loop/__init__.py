"""The whole loop on real photographs: image labels, predictions, corrections, training, tuning, better predictions."""
