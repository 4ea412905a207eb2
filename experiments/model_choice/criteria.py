"""The criteria that are compared, each as a loss: the lower, the better."""

NAMES = ("AIC", "BIC", "ICL", "CV")
NUM_FOLDS = 5
