"""The processes that load torch: classifiers, annotating, training, the queue worker."""
