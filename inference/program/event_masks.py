"""An `obs_mask` that says which coordinates of events are observed; NumPyro wants which events."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.program.latents import layers_of


def check_event_mask(msg: dict[str, Any]) -> None:
    """Raise `ValueError` for an `obs_mask` of coordinates that NumPyro takes for one of events.

    It broadcasts where there are as many events as coordinates. NumPyro splits such a site into
    one of what is observed, under a mask, and one of what is not.
    """
    fn, shape = msg["fn"], jnp.shape(msg["value"])
    if not msg["name"].endswith("_observed") or fn.event_dim == 0:
        return
    masks = [mask for mask, _ in layers_of(fn).masks if mask is not True]
    # a mask of events has the shape of the batch, one of coordinates that of the value
    if any(jnp.shape(mask) == shape for mask in masks):
        raise ValueError(_message(msg["name"].removesuffix("_observed"), shape, fn.event_shape))


@contextmanager
def event_masks_explained() -> Iterator[None]:
    """Raise a `ValueError` that names the site, in place of NumPyro's of shapes that differ."""
    try:
        yield
    except (ValueError, TypeError) as error:
        # NumPyro's error does not name the site: the frame that raised it does
        for frame, _ in traceback.walk_tb(error.__traceback__):
            names = frame.f_locals
            if frame.f_code.co_name != "_masked_observe":
                continue
            if {"name", "fn", "obs_mask"} <= set(names) and _is_of_coordinates(
                names["fn"], np.shape(names["obs_mask"])
            ):
                shape, event = np.shape(names["obs_mask"]), names["fn"].event_shape
                raise ValueError(_message(names["name"], shape, event)) from error
        raise


def _is_of_coordinates(fn: Any, shape: tuple[int, ...]) -> bool:
    """Whether a mask of this shape has an entry for each coordinate of an event."""
    is_longer = len(shape) > len(fn.batch_shape)
    return fn.event_dim > 0 and is_longer and shape[-fn.event_dim :] == tuple(fn.event_shape)


def _message(name: str, shape: tuple[int, ...], event: tuple[int, ...]) -> str:
    return (
        f"Site '{name}': obs_mask has shape {shape}, one entry for each coordinate, and NumPyro "
        f"takes one for each event {tuple(event)}. Where single "
        f"coordinates are missing, write\n    numpyro.sample('{name}', "
        "emjax.distributions.PartiallyObserved(dist.MultivariateNormal(...), observed=obs_mask), "
        f"obs=x)\nand where coordinates are independent,\n    numpyro.sample('{name}', "
        "dist.Normal(loc, scale).mask(obs_mask).to_event(1), obs=x)"
    )
