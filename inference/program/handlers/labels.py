"""Labels: what is known of a latent, as data.

Semi-supervised EM is EM on a program with one more observation for each element. A hard label is
the latent's value; a soft one is evidence q_k for each value k, which multiplies its probability:
log Σ_k q_k p(z = k) p(x | z = k).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.primitives import Messenger

from emjax.program.array_like import as_numbers
from emjax.program.latents import UnboundedLatent, latent_of
from emjax.program.statements import has_run, is_scan

# what scikit-learn takes for unlabeled
UNKNOWN = -1


class Label(dist.Distribution):
    """The label of a latent: its value, or −1 where that is not known.

    Either has log-density zero, any other −∞.

    - `value`: the latent's.
    - `low`, `size`: its least value, and how many it has.
    """

    arg_constraints: ClassVar[dict] = {}
    pytree_data_fields = ("value",)
    pytree_aux_fields = ("low", "size")

    def __init__(self, value: Any, low: int, size: int):
        self.value, self.low, self.size = value, low, size
        super().__init__(jnp.shape(value), ())

    @property
    def support(self) -> constraints.Constraint:
        return _LabelOrUnknown(self.low, self.size)

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        return jnp.broadcast_to(self.value, sample_shape + self.batch_shape)

    def log_prob(self, value: Any) -> jax.Array:
        # a lookup in a table of labels × values, the first row of which is that of no label
        agrees = np.where(np.eye(self.size) > 0, 0.0, -np.inf)
        agrees = np.concatenate([np.zeros((1, self.size)), agrees])
        # a label out of range is found as data outside the support: here it needs some row to read
        row = jnp.where(value == UNKNOWN, 0, jnp.clip(value - self.low, 0, self.size - 1) + 1)
        return jnp.asarray(agrees, jnp.result_type(float))[row, self.value - self.low]


class SoftLabel(dist.Distribution):
    """Evidence for each value of a latent: log-density log q[value], of q (…, values)."""

    arg_constraints: ClassVar[dict] = {}
    pytree_data_fields = ("value",)
    pytree_aux_fields = ("low", "size")

    def __init__(self, value: Any, low: int, size: int):
        self.value, self.low, self.size = value, low, size
        super().__init__(jnp.shape(value), (size,))

    @property
    def support(self) -> constraints.Constraint:
        return _Evidence()

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        shape = sample_shape + self.batch_shape + self.event_shape
        return jnp.broadcast_to(jax.nn.one_hot(self.value - self.low, self.size), shape)

    def log_prob(self, value: Any) -> jax.Array:
        log_evidence = jnp.where(value > 0, jnp.log(jnp.where(value > 0, value, 1)), -jnp.inf)
        number = (self.value - self.low)[..., None]
        return jnp.take_along_axis(log_evidence, number, axis=-1)[..., 0]


class _LabelOrUnknown(constraints.Constraint):
    is_discrete = True

    def __init__(self, low: int, size: int):
        self.low, self.size = low, size

    def __call__(self, x):
        return (x == UNKNOWN) | ((x >= self.low) & (x < self.low + self.size))

    def feasible_like(self, prototype: Any) -> jax.Array:
        # whatever values the latent has, this label says nothing
        return jnp.full_like(prototype, UNKNOWN)

    def tree_flatten(self) -> tuple:
        return (), ((), {"low": self.low, "size": self.size})


class _Evidence(constraints.Constraint):
    event_dim = 1

    def __call__(self, x):
        return (x >= 0).all(-1) & (x > 0).any(-1) & jnp.isfinite(x).all(-1)

    def feasible_like(self, prototype: Any) -> jax.Array:
        return jnp.ones_like(prototype)

    def tree_flatten(self) -> tuple:
        return (), ((), {})


class Labeled(Messenger):
    """Observe a latent's labels right after it is drawn.

    It does so within a `scan` as well, where each step takes its own.

    - `seen`: the discrete latents met so far.
    - `steps`: (their number,) within a scan, () outside.
    - `shape`: that of the labels of all steps.
    """

    def __init__(
        self,
        fn: Callable,
        site: str,
        labels: Any,
        seen: set,
        steps: tuple[int, ...] = (),
        shape: tuple[int, ...] | None = None,
    ):
        self.site, self.labels, self.seen, self.steps = site, labels, seen, steps
        self.shape = jnp.shape(labels) if shape is None else shape
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["name"] == self.site:
            # clusters are numbered at will, labels are not: the program's own start goes with them
            msg["infer"] = {key: msg["infer"][key] for key in msg["infer"] if key != "start"}
        if not is_scan(msg):
            return
        step, init, xs, length, reverse = msg["args"]
        steps = (int(length) if length is not None else jnp.shape(jax.tree.leaves(xs)[0])[0],)
        if jnp.shape(self.labels)[:1] != steps:
            # labels of a latent outside, or an error once the latent is drawn
            same = Labeled(step, self.site, self.labels, self.seen, steps)
            msg["args"] = (same, init, xs, length, reverse)
            return

        # the labels are one more input that the scan cuts into steps
        def labeled_step(carry, both):
            x, labels = both
            return Labeled(step, self.site, labels, self.seen, steps, self.shape)(carry, x)

        msg["args"] = (labeled_step, init, (xs, self.labels), length, reverse)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        # a scan's sites come again, stacked: they got their labels within the step
        if msg["type"] != "sample" or has_run(msg) or msg["is_observed"]:
            return
        if msg["fn"].support is not None and msg["fn"].support.is_discrete:
            self.seen.add(msg["name"])
        if msg["name"] != self.site or self.site not in self.seen:
            return
        fn, shape = msg["fn"], (*self.steps, *jnp.shape(msg["value"]))
        # its support alone is read, in which plates have no part
        latent = latent_of(self.site, fn, ())
        if isinstance(latent, UnboundedLatent):
            raise ValueError(latent.message)
        low, size = _interval(self.site, latent.support)
        # the type decides, not the values: evidence may consist of zeros and ones, too
        is_hard = not jnp.issubdtype(jnp.result_type(self.labels), jnp.inexact)
        if self.shape != (shape if is_hard else (*shape, size)):
            raise ValueError(
                f"Latent '{self.site}' has shape {shape} and {size} values, its labels have shape "
                f"{self.shape} and dtype {jnp.result_type(self.labels)}. "
                f"Pass integers of shape {shape}, {UNKNOWN} for unknown, "
                f"or evidence for each value: floats of shape {(*shape, size)}."
            )
        if is_hard and low <= UNKNOWN:
            raise ValueError(
                f"{UNKNOWN} is a value of latent '{self.site}', and means unknown in a label. "
                f"Pass evidence for each value: floats of shape {(*shape, size)}."
            )
        # axes that the latent declares by `to_event` are declared of its labels: the same elements
        numpyro.sample(
            f"{self.site}_label",
            (Label if is_hard else SoftLabel)(msg["value"], low, size).to_event(fn.event_dim),
            obs=self.labels,
        )


def _interval(site: str, support: np.ndarray) -> tuple[int, int]:
    """Return the least value of a support and the number of its values."""
    if support.ndim != 1 or (np.diff(support) != 1).any():
        raise ValueError(
            f"Latent '{site}' takes values that are not consecutive integers, and labels are such. "
            "Draw its number from dist.Categorical(...)."
        )
    return int(support[0]), len(support)


def labeled(model: Callable, site: str) -> Callable:
    """Return the program in which elements of a discrete latent are known, or known in part.

    It takes `(labels, *args, **kwargs)`.

    `labels`: integers of the latent's shape, its values, with −1 where nothing is known (as in
    scikit-learn); or floats (*its shape, values), evidence q for each value: an element contributes
    log Σ_k q_k p(z = k) p(x | z = k). Evidence is taken as it stands: a row of ones says nothing,
    equal entries other than one change the likelihood by a constant and nothing else, and a row
    with a single 1 is a hard label. A latent within a `scan` takes (steps, *its shape in a step,
    …). The labels are observed at a site '<site>_label', under the latent's plates, masks and
    multiplicities. `labeled` can be applied to one latent after another: the labels that were added
    last come first.

    Errors: `ValueError` for a latent that the program does not have, labels of another shape, or a
    label that is none of its values; NaN, negative evidence, or a row of zeros.

    ```python
    from emjax.models.gaussian_mixture import program

    points = jnp.array([[0.0, 0.1], [0.3, 0.0], [4.0, 4.2], [3.8, 4.1], [0.2, 0.4], [4.1, 3.9]])
    em = EM(labeled(program, "component"), max_steps=5)
    em.run(jax.random.key(0), jnp.array([1, -1, 0, -1, -1, -1]), points, 2)
    ```

    Source: Nigam, McCallum, Thrun & Mitchell (2000), Machine Learning 39, for hard labels; Côme et
    al. (2009), Pattern Recognition 42, for soft ones.
    """
    if not callable(model):
        raise ValueError(
            f"emjax.labeled takes the program first, not {model!r}: labeled(program, 'z')."
        )

    # not a function within this one, which could not be pickled
    return partial(run_labeled, model, site)


def run_labeled(model: Callable, site: str, labels: Any, *args, **kwargs) -> Any:
    # of this call alone: a program may be traced again, and with other arguments
    seen: set = set()
    known = as_numbers(f"Latent '{site}': labels", labels, "labels")
    result = Labeled(model, site, jnp.asarray(known), seen)(*args, **kwargs)
    if site not in seen:
        raise ValueError(
            f"The program has no discrete latent '{site}' to label; it has "
            f"{', '.join(map(repr, sorted(seen))) or 'none'}."
        )
    return result
