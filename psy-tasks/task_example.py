"""The tutorial's task: one value for each assignment of a, b and c."""

import numpy as np

from psyrun import Param

pspace = Param(a=np.arange(1, 5)) * Param(b=np.linspace(0, 1, 10)) * Param(c=[1.0, 1.5, 10.0, 10.5])


def execute(a, b, c):
    return {"result": a * b + c}
