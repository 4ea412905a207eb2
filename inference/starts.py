"""Where EM starts."""

START_STRATEGIES: dict = {}
