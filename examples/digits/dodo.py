"""The sweep and the plot that depends on it: ``doit`` in this folder runs both."""

import pickle
from pathlib import Path

import psyrun

Path("psy-work").mkdir(exist_ok=True)
DOIT_CONFIG = {"dep_file": "psy-work/.doit.db", "backend": "psyrun"}
RESULT = "psy-work/svm/result.pkl"
MAP = "accuracy.png"


def task_psy():
    """Sweep C, gamma and seed."""
    yield from psyrun.doit_tasks("psy-tasks")


def task_plot():
    """Draw mean accuracy over C and gamma."""
    return {"file_dep": [RESULT], "targets": [MAP], "actions": [draw_map], "clean": True}


def draw_map():
    """Average over seeds, and draw one cell per (C, gamma)."""
    import matplotlib as mpl
    import numpy as np

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with Path(RESULT).open("rb") as file:
        table = {name: np.array(values) for name, values in pickle.load(file).items()}
    costs, gammas = np.unique(table["C"]), np.unique(table["gamma"])
    accuracy = np.array(
        [[table["accuracy"][(table["C"] == c) & (table["gamma"] == g)].mean() for g in gammas] for c in costs]
    )
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    image = axes.imshow(accuracy, vmin=0.8, vmax=1, origin="lower", aspect="auto")
    axes.set(xlabel="gamma", ylabel="C", title="Accuracy on held-out digits")
    axes.set_xticks(range(len(gammas)), [f"{gamma:.0e}" for gamma in gammas])
    axes.set_yticks(range(len(costs)), [f"{cost:g}" for cost in costs])
    for (row, column), value in np.ndenumerate(accuracy):
        axes.text(column, row, f"{100 * value:.1f}", ha="center", va="center", fontsize=7)
    figure.colorbar(image, ax=axes)
    figure.savefig(MAP, dpi=120)
    plt.close(figure)
