"""What annotators call the classes, and what mitoray calls them."""

from collections.abc import Mapping
from typing import Final

_MITOTIC_FIGURE: Final = (
    "mitotic figure", "mitotic figures", "mitotic cell", "mitotic cells", "mitosis", "mitoses", "mitose", "mitosen",
)  # fmt: skip
_IMPOSTER: Final = (
    "imposter", "imposters", "impostor", "impostors", "hard negative", "hard negatives", "hard negative imposter",
    "look alike", "lookalike", "mitotic figure look alike", "mitotic figure look alikes", "mitotic figure lookalike",
    "mitotic figure lookalikes", "mitosis like", "not mitotic figure", "non mitotic figure", "non mitotic figures",
    "non mitotic cell", "non mitotic cells", "non mitosis", "nonmitosis", "nonmitotic",
)  # fmt: skip
_KNOWN: Final = dict.fromkeys(_MITOTIC_FIGURE, "mitotic_figure") | dict.fromkeys(_IMPOSTER, "imposter")


def kind_of(name: str, classes: Mapping[str, str] | None = None) -> str:
    """The kind that a class name stands for.

    `classes` maps names as the file spells them and goes first. Then come the names of the public data sets, in upper
    or lower case, with blanks, hyphens or underscores. Any other name is kept as it is. "NMF" is not translated: the
    literature uses it for non-mitotic and for normal mitotic figures.
    """
    if classes and name in classes:
        return classes[name]
    return _KNOWN.get(" ".join(name.lower().replace("_", " ").replace("-", " ").split()), name)
