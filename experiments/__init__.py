"""The questions that the lectures ask, answered with emjax: `python -m experiments`."""
