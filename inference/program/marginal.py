"""A program as the handlers around it see it when its latents are summed out.

They see its parameters: `param` statements, and continuous `sample` statements with the priors that
they state. What is observed, and what latents take part in, is not shown to them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import seed

from emjax.numerics.jaxprs import output_dependencies
from emjax.program.arguments import split_arguments
from emjax.program.latents import GaussianLatent, Latent, UnboundedLatent, latent_p
from emjax.program.records import Parameter
from emjax.program.scanned_sites import ScannedSite
from emjax.program.statements import has_run
from emjax.program.tracer import Tracer


@dataclass(frozen=True, eq=False)
class Roles:
    """What becomes of a program's statements when its latents are summed out.

    - `joined`: the continuous sites whose density depends on a latent, or that a `scan` draws: it
      is a part of what is summed.
    - `hidden`: those of them that no observation depends on: they integrate to one.
    - `kept`: the deterministic sites that depend on no latent.
    - `in_scans`: the parameters that each scan has, in the order of the scans.
    - `names`: of all sites.
    """

    joined: frozenset[str]
    hidden: frozenset[str]
    kept: frozenset[str]
    in_scans: tuple[tuple[str, ...], ...]
    names: frozenset[str]


def roles_of(
    model: Callable,
    parameters: Mapping[str, Parameter],
    unused: Sequence[str],
    args: tuple,
    kwargs: Mapping[str, Any],
    concrete: bool,
    integrate: Collection[str] = (),
) -> Roles:
    """Return what becomes of a program's statements.

    - `unused`: the names of what no observation depends on.
    - `integrate`: of what is integrated out.
    """
    leaves, rebuild = split_arguments(args, kwargs, concrete)
    names, labels = sorted(parameters), []
    state: dict = {}

    def flat(values, data):
        args, kwargs = rebuild(data)
        tracer = _Reader(model, dict(zip(names, values, strict=True)), integrate)
        with numpyro.validation_enabled(False):
            seed(tracer, jax.random.key(0))(*args, **kwargs)
        state["tracer"] = tracer
        outputs: list = []
        for kind, name, arrays in tracer.statements():
            labels.extend([(kind, name)] * len(arrays))
            outputs += arrays
        return outputs

    abstract = [jax.ShapeDtypeStruct(parameters[n].shape, parameters[n].dtype) for n in names]
    jaxpr = jax.make_jaxpr(flat)(abstract, leaves).jaxpr
    sources: dict = dict(zip(jaxpr.invars, names, strict=False))
    latents = {
        eqn.outvars[0]: eqn.params["name"] for eqn in jaxpr.eqns if eqn.primitive is latent_p
    }
    read: dict[tuple[str, str], set[str]] = {}
    for label, of_output in zip(labels, output_dependencies(jaxpr, sources | latents), strict=True):
        read.setdefault(label, set()).update(of_output)

    def depending_on(sources: set[str], kind: str) -> set[str]:
        return {name for (of, name), used in read.items() if of == kind and used & sources}

    tracer = state["tracer"]
    in_scans = tuple(tracer.in_scans)
    joined = depending_on(set(latents.values()), "prior") | set().union(*in_scans)
    hidden: set[str] = joined & set(unused)
    # what reads a hidden site is hidden with it
    while more := depending_on(hidden, "prior") & set(unused) - hidden:
        hidden |= more
    unknown = depending_on({*latents.values(), *hidden}, "deterministic")
    kept = {name for kind, name in read if kind == "deterministic"} - unknown
    priors = {name for name in joined - hidden if parameters[name].is_prior}
    return Roles(
        frozenset(priors), frozenset(hidden), frozenset(kept), in_scans, frozenset(tracer.named)
    )


class _Reader(Tracer):
    """Take down what each statement reads."""

    def __init__(self, model: Callable, params: Mapping[str, Any], integrate: Collection[str]):
        self.deterministic: dict[str, Any] = {}
        self.in_scans: list[tuple[str, ...]] = []
        super().__init__(model, params, integrate=integrate)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "deterministic":
            self.deterministic[msg["name"]] = msg["value"]
            self.named.add(msg["name"])
        super().postprocess_message(msg)

    def scan(self, msg: dict[str, Any], length: int) -> None:
        before = set(self.named)
        super().scan(msg, length)
        self.in_scans.append(tuple(sorted((self.named - before) & set(self.params))))

    def statements(self) -> Iterator[tuple[str, str, list]]:
        """Yield kind, name and arrays of each deterministic site, and of each prior."""
        for name, value in self.deterministic.items():
            yield "deterministic", name, [jnp.asarray(leaf) for leaf in jax.tree.leaves(value)]
        for record in self.records:
            # those of a scan are summed whatever they read
            if isinstance(record, ScannedSite) or record.kind != "prior":
                continue
            arrays: list = []
            for site in record.sites(arrays):
                read = [number for number in site.arrays if number != site.outputs.value]
                yield "prior", site.name, [arrays[number] for number in read]


class Marginal(Tracer):
    """Run a program in front of handlers that are to see its parameters alone.

    - `starts`: the value that a `param` of a scan starts at, by name.
    - `values`: what the handlers around give each parameter.
    """

    def __init__(
        self,
        model: Callable,
        parameters: Mapping[str, Parameter],
        roles: Roles,
        starts: Callable[[], Mapping[str, Any]],
        integrate: Collection[str] = (),
    ):
        self.parameters, self.roles, self.starts = parameters, roles, starts
        self.values: dict[str, Any] = {}
        self._scans = iter(roles.in_scans)
        # the statement that the handlers around are seeing, and its name, which these may change
        self._shown: dict[str, Any] | None = None
        self._name: str | None = None
        # what steps of scans read is what the handlers gave
        super().__init__(model, self.values, integrate=integrate)

    def process_message(self, msg: dict[str, Any]) -> None:
        # what the handlers around state of a statement, such as log |dv/du|, is theirs
        if self._shown is None:
            self._decide(msg)
            if not msg.get("stop"):
                self._shown, self._name = msg, msg.get("name")

    def _decide(self, msg: dict[str, Any]) -> None:
        """Decide a statement's value, or leave it to the handlers around."""
        kind = msg["type"]
        is_given = kind in ("sample", "param") and msg["value"] is not None
        super().process_message(msg)
        is_kept = kind != "deterministic" or msg["name"] in self.roles.kept
        # what the program itself gives a value to, and the sites of a scan, are no parameters
        if has_run(msg) or is_given or not is_kept:
            msg["stop"] = True

    def param(self, msg: dict[str, Any]) -> None:
        """Leave it to the handlers around."""

    def continuous(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        if name in self.roles.hidden:
            parameter = self.parameters[name]
            msg["value"], msg["stop"] = jnp.zeros(parameter.shape, parameter.dtype), True
        elif name in self.roles.joined:
            fn = msg["fn"]
            msg["fn"] = dist.ImproperUniform(fn.support, fn.batch_shape, fn.event_shape)

    def discrete(self, msg: dict[str, Any]) -> None:
        super().discrete(msg)
        msg["stop"] = True

    def gaussian(self, msg: dict[str, Any]) -> None:
        super().gaussian(msg)
        msg["stop"] = True

    def symbol(self, latent: Latent | GaussianLatent) -> Any:
        """Return any value of a latent: nothing that is shown depends on it."""
        if isinstance(latent, UnboundedLatent | GaussianLatent):
            return jnp.zeros(latent.value_shape, latent.dtype)
        return jnp.broadcast_to(jnp.asarray(latent.support[0]), latent.value_shape)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if self._shown is not None and self._shown is not msg:
            return
        name = msg.get("name") if self._shown is None else self._name
        self._shown = None
        if name in self.parameters and not has_run(msg):
            self.values[name] = msg["value"]

    def scan(self, msg: dict[str, Any], length: int) -> None:
        names = next(self._scans)
        for name in names:
            self._show(self.parameters[name])
        # the step states them again
        self.named -= set(names)
        super().scan(msg, length)

    def _show(self, parameter: Parameter) -> None:
        """Show a parameter of a scan, which has a value for each step, as one statement."""
        constraint = parameter.constraint
        if parameter.name in self.roles.hidden:
            self.values[parameter.name] = jnp.zeros(parameter.shape, parameter.dtype)
            return
        if not parameter.is_prior:
            numpyro.param(parameter.name, self.starts()[parameter.name], constraint=constraint)
            return
        event = len(parameter.shape) - constraint.event_dim
        fn = dist.ImproperUniform(constraint, parameter.shape[:event], parameter.shape[event:])
        numpyro.sample(parameter.name, fn)
