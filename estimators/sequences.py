"""What every hidden Markov model answers: of rows in order, and the lengths of sequences."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer.util import log_density
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils.validation import check_is_fitted, validate_data

import emjax
from emjax.sklearn.fits import LARGEST_SEED, Task
from emjax.sklearn.precision import in_double
from emjax.sklearn.program_estimator import ProgramEstimator
from emjax.sklearn.rows import FEWEST, LARGEST

Model = TypeVar("Model", bound="HiddenMarkovModel")
DECODERS = ("viterbi", "map")


class Monitor(NamedTuple):
    """How a fit ended, by hmmlearn's names.

    - `history`: the log-likelihood in nats at the start and after each step.
    - `iter`: how many steps were made.
    - `converged`: whether the log-likelihood says so, never because steps ran out.
    """

    history: list[float]
    iter: int
    converged: bool


class HiddenMarkovModel(ProgramEstimator):
    """A hidden Markov model behind hmmlearn's interface, and scikit-learn's.

    A model is its attributes, `startprob_`, `transmat_` and those of its emissions: all that is
    asked is answered from them, whether `fit` or the user has set them.
    """

    n_components: int
    n_iter: int
    algorithm: str
    params: str
    init_params: str
    startprob_: np.ndarray
    transmat_: np.ndarray
    allow_nan = True
    # a fit goes on from the attributes that `init_params` does not name
    warm_start = False

    @property
    def max_iter(self) -> int:
        """The largest number of EM steps, by scikit-learn's name."""
        return self.n_iter

    # ── what a model says ─────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def _emission_params(self) -> dict[str, tuple[str, Any]]:
        """Return {letter: (name in the program, value; None where it is not set)}."""

    @abstractmethod
    def _num_free(self) -> int:
        """Return how many free parameters the emissions have."""

    @abstractmethod
    def _draw(self, state: int, random_state: np.random.RandomState) -> Any:
        """Return a row of a state, drawn as hmmlearn draws it."""

    # ── fits ──────────────────────────────────────────────────────────────────────────────────────

    def fit(self: Model, X: Any, y: Any = None, lengths: Any = None) -> Model:
        """Fit the model to sequences by EM (Baum–Welch), and return it.

        `X`: (n_samples, n_features), one sequence after the other; a value that is NaN is missing.
        `lengths`: how many rows each has; None: X is one sequence. `y`: ignored; hmmlearn's second
        argument is `lengths`, here `fit(X, lengths=lengths)`. Parameters that `init_params` does
        not name start from their attributes, if these are set. Warns with `ConvergenceWarning`
        where EM did not converge. Errors: `ValueError` for data that the model cannot take.
        """
        self._check_settings()
        X = self._validated(X, reset=True)
        _check_is_no_lengths(y, X)
        rows, start = self._rows(X, lengths), self._given_start()
        # several starts differ in the emissions, unless these are given
        random = next(iter(self._emission_params().values()))[0]
        num_restarts = 1 if random in start else int(self.n_init)
        seed = check_random_state(self.random_state).randint(LARGEST_SEED)
        with in_double():
            em = self._em(self._program(), num_restarts)
            key, given = jax.random.key(seed), self._arguments()
            self.fit_ = em.run(key, *rows, init_params=start or None, **given)
            self._conclude(Task(self._program(), rows, given, X, None, None))
        return self

    def _check_settings(self) -> None:
        self._check_numbers()
        check_scalar(self.n_components, "n_components", int | np.integer, min_val=1)
        for name in ("params", "init_params"):
            given = getattr(self, name)
            unknown = set(given) - set(self._letters())
            if unknown:
                raise ValueError(
                    f"{name}={given!r}: this model's letters are {''.join(self._letters())!r}."
                )

    def _letters(self) -> dict[str, tuple[str, Any]]:
        """Return {hmmlearn's letter: (name in the program, value; None where it is not set)}."""
        return {
            "s": ("initial", getattr(self, "startprob_", None)),
            "t": ("transition", getattr(self, "transmat_", None)),
            **self._emission_params(),
        }

    def _given_start(self) -> dict[str, Any]:
        """Return {name in the program: value} of what `init_params` leaves to the attributes."""
        start = {}
        for letter, (name, value) in self._letters().items():
            if letter not in self.init_params and value is not None:
                start[name] = np.asarray(value, np.float64)
        return start

    def _options(self) -> dict[str, Any]:
        letters = self._letters().items()
        return {"fixed": {name for letter, (name, _) in letters if letter not in self.params}}

    def _keep(self, fit: emjax.Fit) -> None:
        self.startprob_ = np.asarray(fit.params["initial"])
        self.transmat_ = np.asarray(fit.params["transition"])
        history = np.asarray(fit.objective).tolist()
        self.monitor_ = Monitor(history, fit.num_steps, self.converged_)

    def _validated(self, X: Any, reset: bool) -> Any:
        return validate_data(
            self,
            X,
            # where parameters were set by hand, nothing is known of X yet
            reset=reset or not hasattr(self, "n_features_in_"),
            dtype=np.float64,
            ensure_all_finite="allow-nan",
            ensure_min_samples=2 if reset else 1,
        )

    def _rows(self, X: np.ndarray, lengths: Any) -> tuple:
        """Return the rows as the programs of `chains` take them."""
        begins, is_row = _beginnings(len(X), lengths), None
        if len(X) <= LARGEST:
            num_rows = max(FEWEST, 1 << (len(X) - 1).bit_length())
            is_row = np.arange(num_rows) < len(X)
            begins = np.concatenate([begins, np.ones(num_rows - len(X), bool)])
            X = np.concatenate([X, np.zeros((num_rows - len(X), X.shape[1]))])
        return X, begins, is_row, bool(np.isnan(X).any())

    # ── what can be asked ─────────────────────────────────────────────────────────────────────────

    def _on(self, X: Any, lengths: Any) -> tuple[Any, dict[str, Any], int]:
        """Return the program bound to rows, the parameters, and how many rows there are."""
        check_is_fitted(self, "startprob_")
        X = self._validated(X, reset=False)
        params = {name: np.asarray(value) for name, value in self._letters().values()}
        em = self._em(self._program())
        return em.on(*self._rows(X, lengths), **self._arguments()), params, len(X)

    def score_samples(self, X: Any, lengths: Any = None) -> tuple[float, np.ndarray]:
        """Return log p(X) in nats and p(state | X) of each row, (n_samples, n_components)."""
        with in_double():
            bound, params, size = self._on(X, lengths)
            posterior = np.asarray(bound.posterior(params)["state"])[:size]
            return float(bound.log_likelihood(params)), posterior

    def score(self, X: Any, y: Any = None, lengths: Any = None) -> float:
        """Return log p(X) in nats, summed over rows. `y`: ignored, as in `fit`."""
        with in_double():
            bound, params, _ = self._on(X, lengths)
            _check_is_no_lengths(y, X)
            return float(bound.log_likelihood(params))

    def predict_proba(self, X: Any, lengths: Any = None) -> np.ndarray:
        """Return p(state | X) of each row, its whole sequence known: (n_samples, n_components)."""
        with in_double():
            bound, params, size = self._on(X, lengths)
            return np.asarray(bound.posterior(params)["state"])[:size]

    def predict(self, X: Any, lengths: Any = None) -> np.ndarray:
        """Return the states of all rows by `algorithm`: integers, (n_samples,)."""
        # how probable the path is, which takes a compilation of its own, is not asked
        if self.algorithm == "viterbi":
            return self._path(X, lengths)[0]
        return self.decode(X, lengths)[1]

    def decode(
        self, X: Any, lengths: Any = None, algorithm: str | None = None
    ) -> tuple[float, np.ndarray]:
        """Return a number that says how good the states are, and the states, (n_samples,).

        `algorithm`: "viterbi", the most probable path, with log p(X, path) in nats; or "map", the
        most probable state of each row, with the sum of their probabilities, as in hmmlearn. None:
        the estimator's own.
        """
        algorithm = algorithm or self.algorithm
        if algorithm not in DECODERS:
            raise ValueError(f"algorithm must be one of {', '.join(DECODERS)}, not {algorithm!r}.")
        if algorithm == "map":
            posterior = self.predict_proba(X, lengths)
            return float(posterior.max(axis=1).sum()), posterior.argmax(axis=1)
        states, log_joint = self._path(X, lengths, asks_height=True)
        return log_joint, states

    def _path(self, X: Any, lengths: Any, asks_height: bool = False) -> tuple[np.ndarray, float]:
        """Return the most probable path, and log p(X, path) in nats, if that is asked."""
        log_joint = np.nan
        with in_double():
            bound, params, size = self._on(X, lengths)
            path = bound.decode(params)["state"]
            if asks_height:
                given = handlers.condition(self._program(), {"state": path})
                params = jax.tree.map(jnp.asarray, params)
                log_joint, _ = log_density(given, bound.args, bound.kwargs, params)
        return np.asarray(path)[:size], float(log_joint)

    def aic(self, X: Any, lengths: Any = None) -> float:
        """Return −2 log p(X) + 2 p, with p free parameters; the lower the better."""
        return -2 * self.score(X, lengths=lengths) + 2 * self._num_parameters()

    def bic(self, X: Any, lengths: Any = None) -> float:
        """Return −2 log p(X) + p log n, with p free parameters; the lower the better."""
        penalty = self._num_parameters() * np.log(len(X))
        return float(-2 * self.score(X, lengths=lengths) + penalty)

    def _num_parameters(self) -> int:
        check_is_fitted(self, "startprob_")
        num_states = len(self.startprob_)
        return num_states - 1 + num_states * (num_states - 1) + self._num_free()

    def get_stationary_distribution(self) -> np.ndarray:
        """Return p with p = p @ transmat_, (n_components,)."""
        check_is_fitted(self, "transmat_")
        values, vectors = np.linalg.eig(self.transmat_.T)
        vector = np.real_if_close(vectors[:, np.argmax(values)])
        return vector / vector.sum()

    def sample(
        self, n_samples: int = 1, random_state: Any = None, currstate: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a new sequence, (n_samples, n_features), and its states.

        `random_state`: None: the estimator's. `currstate`: the first state. The numbers are those
        that hmmlearn draws from the same seed.
        """
        check_is_fitted(self, "startprob_")
        rng = check_random_state(self.random_state if random_state is None else random_state)
        cumulated = np.cumsum(self.transmat_, axis=1)
        state = currstate
        if state is None:
            state = int((np.cumsum(self.startprob_) > rng.rand()).argmax())
        states, rows = [state], [self._draw(state, rng)]
        for _ in range(n_samples - 1):
            state = int((cumulated[state] > rng.rand()).argmax())
            states.append(state)
            rows.append(self._draw(state, rng))
        return np.atleast_2d(rows), np.array(states, int)


def _beginnings(num_rows: int, lengths: Any) -> np.ndarray:
    """Return whether a sequence begins at each row. Errors: `ValueError` for other lengths."""
    begins = np.zeros(num_rows, bool)
    if lengths is None:
        begins[0] = True
        return begins
    lengths = np.atleast_1d(lengths)
    is_whole = np.issubdtype(lengths.dtype, np.integer)
    if not is_whole or (lengths < 1).any() or lengths.sum() != num_rows:
        raise ValueError(
            f"lengths are the numbers of rows of each sequence, and add up to the {num_rows} rows "
            f"of X; these add up to {lengths.sum()}."
        )
    begins[np.cumsum(lengths) - lengths] = True
    return begins


def _check_is_no_lengths(y: Any, X: Any) -> None:
    """Raise `ValueError` for lengths that were passed as hmmlearn takes them, by position."""
    if y is not None and np.size(y) != len(X):
        raise ValueError(
            "The second argument is y, which is ignored, as everywhere in scikit-learn: pass "
            "lengths by name, fit(X, lengths=lengths)."
        )
