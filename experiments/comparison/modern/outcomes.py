"""How a point can end. Imports nothing."""

RIGHT, SAID, SILENT = "right", "wrong, said", "wrong in silence"
RAISED, LATE, NOT_TRIED = "raised", "did not finish", "not tried"
OUTCOMES = (RIGHT, SAID, SILENT, RAISED, LATE, NOT_TRIED)
WRONG = 0.1  # of the greatest entry: a solution or a gradient further off than this is wrong, at any tolerance


def judge(states, gradient, warnings):
    """The outcome of a point from the errors of its solution and its gradient (None: it has none) and the warnings it gave."""
    worst = max(error for error in (states, gradient) if error is not None)
    return RIGHT if worst <= WRONG else SAID if warnings else SILENT
