"""Tuning: which explainer, layer, box fitter, threshold and least probability suit each label.

values       what is asked for and what comes out
sources      a COCO data set as examples
seeing       pictures through the network, once: probabilities, heatmaps of every explainer
learning     explainers that learn, fitted on the other folds
candidates   what is tried
board        boxes of a candidate against the true ones, picture by picture
choosing     the best candidate, and cross-validation of that choice
work         all that a tuning works on, made ready
tuning       what to change, what it gains, and the profile
"""

from heatbox_workers.tune.tuning import tune
from heatbox_workers.tune.values import LabelGain, Tried, Tuned, TuneOptions

__all__ = ["LabelGain", "Tried", "TuneOptions", "Tuned", "tune"]
