"""How a training went, epoch by epoch."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure


def training_figure(history: Sequence[Mapping[str, float]]) -> Figure:
    """Training loss, and validation AP and best F1 on the validation patches, against the epoch.

    history: metrics of each epoch as a training reports them: epoch, loss, val_ap, val_f1.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, names, label in (
        (left, {"loss": "training loss"}, "loss"),
        (right, {"val_ap": "AP", "val_f1": "best F1"}, "on validation patches"),
    ):
        for (name, title), style in zip(names.items(), ("-", "--"), strict=False):
            epochs = [(m["epoch"], m[name]) for m in history if name in m]
            axes.plot(*zip(*epochs, strict=True) if epochs else ([], []), style, marker=".", label=title)
        axes.set(xlabel="epoch", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    left.set_ylim(bottom=0)
    right.set_ylim(0, 1)
    return figure
