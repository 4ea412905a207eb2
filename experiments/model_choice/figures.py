"""The figures: criteria over the number of components, choices over the number of samples."""

from pathlib import Path

from emjax import Choice, plot
from experiments import canvas
from experiments.model_choice.counts import Scores, Truth, is_bic_worse
from experiments.model_choice.criteria import NAMES

# as `emjax.plot.criteria` has them
COLORS = dict(zip(NAMES, canvas.PALETTE, strict=False))


def draw_wines(path: Path, choices: dict[str, Choice]) -> None:
    """Draw each criterion over the number of components, a row for each kind of covariance."""
    full = choices["full"].chosen
    with canvas.figure(
        path,
        f"With 105 parameters a component for 178 wines, AIC takes {full['AIC']} and BIC "
        f"{full['BIC']}",
        """Wines: by how much each criterion of a Gaussian mixture is worse than at its best number
        of components (filled), in the unit of −2 log-likelihood. CV: −2 × the log-likelihood held
        out.""",
        height=2.6 * len(choices),
    ) as figure:
        rows = figure.subplots(len(choices), len(NAMES), sharey=True, squeeze=False)
        for row, (covariance, choice) in zip(rows, choices.items(), strict=True):
            plot.criteria(choice, names=NAMES, ax=row)
            row[0].set_ylabel(f"{covariance} covariance:\nworse than the best by")
            for axes in row:
                axes.set_xlabel("components")


def draw_choices(path: Path, truth: Truth, scores: Scores, sizes: tuple[int, ...]) -> None:
    """Draw how often each criterion chooses the truth, where it is one of the models."""
    shares = {}
    for name in NAMES:
        shares[name] = 100 * (scores.chosen(name) == truth.num_clusters).mean(axis=0)
    with canvas.figure(
        path,
        f"In {sizes[-1]:,} samples BIC finds {truth.name} {shares['BIC'][-1]:.0f}% of the time, "
        f"cross-validation {shares['CV'][-1]:.0f}%",
        f"""How often each criterion chooses the true number of components of a Poisson mixture, of
        {len(scores.prediction)} data sets of each size. CV is 5-fold cross-validation.""",
        height=3.4,
    ) as figure:
        axes = figure.subplots()
        for name, heights in shares.items():
            axes.plot(sizes, heights, "o-", color=COLORS[name], markersize=4, label=name)
        axes.set(xscale="log", xlabel="samples", ylabel="data sets, %", ylim=(-2, 102))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
        canvas.light_grid(axes)


def draw_losses(
    path: Path, simulations: list[tuple[Truth, Scores]], sizes: tuple[int, ...]
) -> None:
    """Draw what the choice of each criterion loses, where the truth is a model and where not."""
    with canvas.figure(
        path,
        finding(simulations, sizes),
        """What a choice loses to the best model, on new samples, averaged over data sets; both axes
        are logarithmic. A spare component of little weight loses next to nothing.""",
        height=3.6,
    ) as figure:
        panels = figure.subplots(1, len(simulations), sharex=True, sharey=True)
        for axes, (truth, scores) in zip(panels, simulations, strict=True):
            for name in NAMES:
                loss = 1000 * scores.regret(name).mean(axis=0)
                axes.plot(sizes, loss, "o-", color=COLORS[name], markersize=4, label=name)
            axes.set(xscale="log", yscale="log", xlabel="samples", title=f"truth: {truth.name}")
            canvas.light_grid(axes)
        panels[0].set_ylabel("nats lost for 1,000 samples")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")


def finding(simulations: list[tuple[Truth, Scores]], sizes: tuple[int, ...]) -> str:
    """Return at how many sizes BIC predicts worse than cross-validation, in a sentence."""
    (_, among), (_, none) = simulations
    worse = [is_bic_worse(scores).sum() for scores in (among, none)]
    return (
        f"Where no mixture is true, BIC predicts worse than cross-validation at {worse[1]} of "
        f"{len(sizes)} sizes; where one is, at {worse[0]}"
    )
