"""Earthquakes: how many states, if the data are one sequence?"""

from functools import partial

import jax

from emjax import EM, criteria
from emjax.models import hidden_markov
from experiments import report
from experiments.hidden_markov.earthquakes import data as earthquakes


def print_earthquakes() -> None:
    """Print the criteria of hidden Markov models of the yearly number of earthquakes."""
    report.heading("107 years of earthquakes: how many states?")
    rows = []
    for num_states in (1, 2, 3, 4):
        program = partial(hidden_markov.poisson_program, num_states=num_states)
        em = EM(program, num_restarts=5, tol=1e-10)
        result = em.run(jax.random.key(0), *earthquakes())
        values = criteria(em, result.params, *earthquakes(), num_samples=len(earthquakes()[0]))
        scores = (f"{value:.1f}" for value in (values.aic, values.bic, values.icl))
        log_likelihood = f"{float(result.log_likelihood):.3f}"
        rows.append([num_states, log_likelihood, values.num_free_parameters, *scores])
    report.table(
        ["states", "log-likelihood (nats)", "parameters", "AIC", "BIC", "ICL"],
        rows,
        caption="""One sequence is one element of its plate, so that nothing can be held out and
            what n is in BIC must be said: criteria(..., num_samples=107), the years.""",
    )
