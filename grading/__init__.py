"""The instructor's side: submissions, nbgrader's commands, the gradebook."""
