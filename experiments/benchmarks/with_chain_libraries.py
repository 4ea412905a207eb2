"""Hidden Markov models by libraries: hmmlearn, dynamax, pomegranate.

Priors and floors are off, and the start is given.
"""

from collections.abc import Callable

import numpy as np

from experiments.benchmarks.contestant import Fit, LeftOut, Run


def hmmlearn(implementation: str) -> Callable[[dict, dict, dict], Run]:
    """Return the set-up of hmmlearn's models.

    Its messages are probabilities ("scaling") or logarithms ("log").
    """

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        from hmmlearn.hmm import CategoricalHMM, GaussianHMM

        num_states = sizes["num_states"]
        lengths = np.full(sizes["num_sequences"], sizes["sequence_length"])
        settings = {"tol": -np.inf, "init_params": "", "implementation": implementation}
        seen = data.pop("symbols" if "emission" in start else "points")
        rows = seen.swapaxes(0, 1).reshape(lengths.sum(), -1)  # one sequence after the other

        def model(num_steps):
            if "emission" in start:
                symbols = {"n_features": sizes["num_symbols"]}
                chain = CategoricalHMM(num_states, n_iter=num_steps, **symbols, **settings)
                chain.emissionprob_ = start["emission"]
            else:
                no_prior = {"covars_prior": 0, "covars_weight": 0, "min_covar": 0}
                chain = GaussianHMM(num_states, n_iter=num_steps, **no_prior, **settings)
                chain.means_, chain.covars_ = start["loc"], start["scale"] ** 2
            chain.startprob_, chain.transmat_ = start["initial"], start["transition"]
            return chain

        def run(num_steps: int) -> Fit:
            chain = model(num_steps).fit(rows, lengths)
            params = {"initial": chain.startprob_, "transition": chain.transmat_}
            if "emission" in start:
                return Fit(params | {"emission": chain.emissionprob_}, chain.monitor_.iter)
            scale = np.sqrt(np.diagonal(chain.covars_, axis1=1, axis2=2))
            return Fit(params | {"loc": chain.means_, "scale": scale}, chain.monitor_.iter)

        return run

    return setup


def dynamax_model(start: dict, sizes: dict) -> tuple:
    """Return dynamax's model without priors, its parameters at the start, and their properties."""
    import jax
    import jax.numpy as jnp
    from dynamax.hidden_markov_model import CategoricalHMM, DiagonalGaussianHMM

    flat = 1 + 1e-9  # at 1, where there is no prior, the mode of a Dirichlet is NaN
    chances = {"initial_probs_concentration": flat, "transition_matrix_concentration": flat}
    given = {"initial_probs": start["initial"], "transition_matrix": start["transition"]}
    if "emission" in start:
        chain = CategoricalHMM(
            sizes["num_states"],
            1,
            sizes["num_symbols"],
            emission_prior_concentration=flat,
            **chances,
        )
        given["emission_probs"] = start["emission"][:, None, :]
    else:
        # the mode of σ² is scale / (concentration + N / 2 + 3 / 2)
        no_prior = {"mean_concentration": 0.0, "concentration": -1.5, "scale": 0.0}
        no_prior = {f"emission_prior_{name}": value for name, value in no_prior.items()}
        chain = DiagonalGaussianHMM(
            sizes["num_states"], sizes["num_features"], **no_prior, **chances
        )
        given |= {"emission_means": start["loc"], "emission_scale_diags": start["scale"]}
    given = {name: jnp.asarray(value) for name, value in given.items()}
    return chain, *chain.initialize(jax.random.key(0), **given)


def dynamax(fit_em: bool) -> Callable[[dict, dict, dict], Run]:
    """Return the set-up of dynamax's models.

    Either its `fit_em`, compiled, or its E-step and M-step in a compiled loop.
    """

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        import jax
        import jax.numpy as jnp

        chain, params, properties = dynamax_model(start, sizes)
        seen = data.pop("symbols")[..., None] if "emission" in start else data.pop("points")
        # (sequence, time, feature)
        emissions = jnp.asarray(np.ascontiguousarray(seen.swapaxes(0, 1)))

        def step(params, emissions):
            statistics, _ = jax.vmap(lambda sequence: chain.e_step(params, sequence))(emissions)
            nothing = chain.initialize_m_step_state(params, properties)
            return chain.m_step(params, properties, statistics, nothing)[0]

        def loop(params, emissions, num_steps):
            return jax.lax.fori_loop(
                0, num_steps, lambda _, params: step(params, emissions), params
            )

        def fit(params, emissions, num_steps):
            settings = {"num_iters": num_steps, "verbose": False}
            return chain.fit_em(params, properties, emissions, **settings)[0]

        compiled = jax.jit(fit, static_argnums=2) if fit_em else jax.jit(loop)

        def run(num_steps: int) -> Fit:
            chain_params = compiled(params, emissions, num_steps)
            after = {
                "initial": chain_params.initial.probs,
                "transition": chain_params.transitions.transition_matrix,
            }
            emission = chain_params.emissions
            if "emission" in start:
                after["emission"] = emission.probs[:, 0]
            else:
                after |= {"loc": emission.means, "scale": emission.scale_diags}
            return Fit({name: np.asarray(value) for name, value in after.items()}, num_steps)

        return run

    return setup


def pomegranate(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of `pomegranate.hmm.DenseHMM`, float32.

    A chain of its kind may end at every step; here none does.
    """
    import torch
    from pomegranate.distributions import Categorical, Normal
    from pomegranate.hmm import DenseHMM

    if "emission" in start:
        seen = data.pop("symbols")[..., None].astype(np.int64)
    else:
        seen = data.pop("points")
    if start["initial"].dtype != np.float32:
        raise LeftOut("pomegranate casts its weights to float32")
    batch = torch.from_numpy(np.ascontiguousarray(seen.swapaxes(0, 1)))

    class Endless(DenseHMM):
        """A chain that never ends: its last states are not counted as moves to an end."""

        def from_summaries(self):
            self._xw_ends_sum.zero_()
            super().from_summaries()

    def emissions():
        if "emission" in start:
            return [Categorical(row[None].copy(), check_data=False) for row in start["emission"]]
        pairs = zip(start["loc"], start["scale"], strict=True)
        return [Normal(m.copy(), s**2, covariance_type="diag", check_data=False) for m, s in pairs]

    def run(num_steps: int) -> Fit:
        states = emissions()
        chain = Endless(
            states,
            start["transition"],
            start["initial"],
            np.ones_like(start["initial"]),
            max_iter=num_steps,
            tol=0.0,
            check_data=False,
        )
        chain.ends.frozen = True
        chain.fit(batch)
        params = {"initial": chain.starts.exp().numpy(), "transition": chain.edges.exp().numpy()}
        if "emission" in start:
            params["emission"] = np.concatenate([state.probs.numpy() for state in states])
        else:
            params["loc"] = np.stack([state.means.numpy() for state in states])
            params["scale"] = np.sqrt(np.stack([state.covs.numpy() for state in states]))
        return Fit(params, num_steps)

    return run


def both(setup: Callable[[dict, dict, dict], Run]) -> dict[str, Callable]:
    """Return a set-up that knows both models by what the start contains."""
    return {"hmm_categorical": setup, "hmm_gaussian": setup}


SETUPS = {
    "hmmlearn, scaling": both(hmmlearn("scaling")),
    "hmmlearn, log": both(hmmlearn("log")),
    "dynamax": both(dynamax(fit_em=False)),
    "dynamax, fit_em": both(dynamax(fit_em=True)),
    "pomegranate": both(pomegranate),
}
