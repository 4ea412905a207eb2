"""The tables: seconds, match weights beside the truth, decisions, Splink."""

from pathlib import Path

import numpy as np

from emjax import Fit
from emjax.models import record_linkage
from experiments import report
from experiments.linkage import febrl, fits, with_splink
from experiments.linkage.fits import (
    Linked,
    Patterns,
    accepted,
    after,
    expected_matches,
    start_of,
    timed,
)
from experiments.linkage.simulation import FIELDS, true_params

THRESHOLDS = (-5, 0, 5, 10)  # in bits
SPLINK_STEPS = 25  # Splink's default


def print_stages(linked: Linked, num_bytes: int) -> None:
    """Print how long each stage took."""
    total, patterns = int(linked.patterns.count.sum()), len(linked.patterns.count)
    report.heading(f"{total:,} comparisons of {len(FIELDS)} fields: seconds")
    report.table(
        ["stage", "seconds"],
        [[stage, f"{seconds:.2f}"] for stage, seconds in linked.seconds.items()],
        caption=f"""A Parquet file of {num_bytes / 1e6:.1f} MB, of which a million comparisons are
            in memory at a time, becomes {patterns:,} patterns. EM takes
            {linked.fit.num_steps} steps on them ({report.outcome(linked.fit)}).""",
    )


def print_weights(fit: Fit) -> None:
    """Print what each level weighs, as estimated and in truth."""
    report.heading("What each level of agreement says for or against a match")
    truth = true_params()
    found, true = (record_linkage.match_weights(params) for params in (fit.params, truth))
    rows = []
    for name, field in FIELDS.items():
        for level in reversed(range(len(field.levels))):
            m, u = (float(fit.params[f"{kind}_{name}"][level]) for kind in "mu")
            weights = [f"{weights[name][level]:+.2f}" for weights in (found, true)]
            rows.append([name, field.levels[level], f"{m:.4f}", f"{u:.5f}", *weights])
    report.table(
        ["field", "level", "m", "u", "weight (bits)", "true weight"],
        rows,
        caption="m and u: how probable a level is in a match and in another pair; log₂ m / u.",
    )
    prior = [record_linkage.prior_weight(params) for params in (fit.params, truth)]
    report.remark(f"""Match rate {float(fit.params["match_rate"]):.5f}, in truth
        {float(truth["match_rate"]):.5f}: before it is compared, a pair starts from {prior[0]:+.2f}
        bits, in truth {prior[1]:+.2f}.""")


def print_accepted(fit: Fit, truth: Patterns) -> None:
    """Print precision and recall of thresholds, in truth and as EM expects them."""
    report.heading("Calling every pair a match whose weight is at least a threshold")
    weight = record_linkage.total_weight(fit.params, truth.levels)
    in_truth = accepted(weight, truth.count, truth.matches)
    expected = accepted(weight, truth.count, expected_matches(fit, truth))
    rows = []
    for threshold in THRESHOLDS:
        last = np.searchsorted(-in_truth.weight, -threshold, side="right") - 1
        shares = (
            in_truth.precision,
            expected.precision,
            in_truth.recall,
            expected.recall,
        )
        rows.append([f"{threshold:+d}", *(f"{100 * share[last]:.2f}%" for share in shares)])
    report.table(
        ["threshold (bits)", "precision", "as EM expects", "recall", "as EM expects"],
        rows,
        caption="""In truth, and as the posterior expects it without any label. Precision: how many
            of those are matches; recall: how many of the matches are among those.""",
    )


def print_splink(linked: Linked, path: Path) -> None:
    """Print how Splink's EM does on the same file, if it is installed."""
    report.heading("Splink's EM on DuckDB, on the same comparisons from the same start")
    if not with_splink.is_installed():
        report.remark("Splink is not installed (pip install splink): left out.")
        return
    rows = []
    for on_patterns in (False, True):
        splink = with_splink.fitted(path, start_of(linked.patterns), SPLINK_STEPS, on_patterns)
        here = after(linked.patterns, splink.num_steps)
        difference = max(np.abs(here[name] - value).max() for name, value in splink.params.items())
        seconds = (splink.seconds_to_load, splink.seconds)
        rows.append(
            [
                "counted first" if on_patterns else "row by row (its default)",
                splink.num_steps,
                *(f"{value:.2f}" for value in seconds),
                f"{difference:.1e}",
            ]
        )
    report.table(
        ["comparisons", "steps", "seconds to load", "seconds of EM", "largest difference"],
        rows,
        caption="""Splink stops when no probability changes by 1e-4 or more. Largest difference: of
            any probability, from emjax after as many steps.""",
    )


def print_streamed(fit: Fit, path: Path) -> None:
    """Print how far EM on patterns is from EM on all comparisons."""
    report.heading("EM on the comparisons as they are, read from the file at every step")
    seconds: dict[str, float] = {}
    with timed(seconds, "EM"):
        streamed = fits.streamed(path)
    difference = max(
        np.abs(np.asarray(value) - streamed.params[name]).max()
        for name, value in fit.params.items()
    )
    report.remark(f"""{streamed.num_steps} steps in {seconds["EM"]:.1f} seconds
        ({report.outcome(streamed)}); largest difference from EM on patterns: {difference:.0e} of
        any probability, {abs(float(streamed.log_likelihood - fit.log_likelihood)):.0e} nats of the
        log-likelihood.""")


def print_febrl(kinds: dict[str, str]) -> None:
    """Print emjax beside the numbers that Splink found in the FEBRL data, {kind: its name}."""
    data = febrl.febrl()
    total, matches = int(data.patterns.count.sum()), int(data.patterns.matches.sum())
    report.heading(f"FEBRL, {total:,} pairs of records with one postcode, {matches:,} of them true")
    rows = []
    for kind, name in kinds.items():
        params, probability = febrl.fitted(kind)
        taken = probability >= 0.5
        found = data.patterns.matches[taken].sum()
        rows.append(
            [
                name,
                f"{float(params['match_rate']):.6f}",
                f"{float(data.splink[kind]['match_rate']):.6f}",
                f"{febrl.farthest(params, kind):.1e}",
                f"{100 * found / data.patterns.count[taken].sum():.2f}%",
                f"{100 * found / matches:.2f}%",
            ]
        )
    report.table(
        ["model", "match rate", "Splink's", "largest difference", "precision", "recall"],
        rows,
        caption="""u held as Splink found it, m from Splink's start. Largest difference: of m and
            of the match rate from Splink's. Precision and recall of what is more probably a match
            than not.""",
    )
