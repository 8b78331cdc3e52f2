"""How well a support vector machine reads handwritten digits, over C, gamma and the seed of the folds.

The data are the 1,797 test digits of Alpaydin and Kaynak (UCI Machine Learning Repository, 1998), which
scikit-learn ships.
"""

import numpy as np

from psyrun import Param

pspace = Param(C=np.logspace(-1, 2, 4)) * Param(gamma=np.logspace(-5, -2, 7)) * Param(seed=range(2))
min_items = 7


def setup(proc_id):
    """Load the images once per process; `exclude_from_result` keeps them out of the result."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return {"images": images, "labels": labels}


exclude_from_result = ["images", "labels"]


def execute(C, gamma, seed, images, labels):  # noqa: N803 - scikit-learn's name
    """Return the accuracy on the held-out fold, for each of three folds, and their mean."""
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.svm import SVC

    folds = StratifiedKFold(n_splits=3, shuffle=True, random_state=seed)
    scores = cross_val_score(SVC(C=C, gamma=gamma), images, labels, cv=folds)
    return {"scores": scores, "accuracy": scores.mean()}
