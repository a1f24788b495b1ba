"""A project as Label Studio describes it: label config, labels and classes, tasks and predictions in its JSON."""
