"""Texts from a data set of Hugging Face."""

from pathlib import Path
from typing import Any, Unpack

from .data_text import TextData, TextOptions
from .text_table import MISSING, TextTable


class HFDatasetData(TextData):
    """Texts and labels of a data set of Hugging Face: a folder that ``save_to_disk`` left, or a name on the Hub.

    A folder needs no network. Labels may be numbers with names, as the library keeps them, or names. Splits are those
    of the data set; see `TextData`.

    Args:
        name: of the folder, relative to the working directory; if there is none, of the data set on the Hub.
        subset: the configuration, where a data set of the Hub has several.
        text: the column of texts.
        label: the column of labels.
        **options: see `TextData`.

    Raises:
        ValueError: an option is out of range or, in ``setup``, there is no such data set, or its rows do not fit.
        ModuleNotFoundError: in ``setup``, datasets is missing.
    """

    def __init__(
        self,
        name: str,
        *,
        subset: str | None = None,
        text: str = "text",
        label: str = "label",
        **options: Unpack[TextOptions],
    ) -> None:
        super().__init__(**options)
        self.address, self.subset, self.text, self.label = name, subset, text, label

    def find(self) -> dict[str, TextTable]:
        """Load the splits."""
        library, folder = _datasets(), Path(self.address).expanduser()
        if folder.exists() and self.subset is not None:
            raise ValueError(f"data.subset is for a data set of the Hub, but {folder} is a folder. Leave subset out.")
        try:
            local = folder.exists()
            found = library.load_from_disk(str(folder)) if local else library.load_dataset(self.address, self.subset)
        except Exception as error:  # of many kinds, those of the network among them
            raise ValueError(
                f"cannot load the data set {self.address!r}: {error}. data.name must be a folder of save_to_disk, or a "
                "name on the Hugging Face Hub."
            ) from None
        splits = found if isinstance(found, library.DatasetDict) else {"train": found}
        return {name: self._table(f"{self.address} ({name})", rows) for name, rows in splits.items()}

    def _table(self, where: str, rows: Any) -> TextTable:
        missing = [MISSING] * len(rows)
        texts, labels = (list(rows[name]) if name in rows.features else missing for name in (self.text, self.label))
        names = getattr(rows.features.get(self.label), "names", None)
        if names is not None:  # -1 stands for none
            labels = [names[int(number)] if number is not None and number >= 0 else None for number in rows[self.label]]
        return TextTable(where, texts, labels, (self.text, self.label), list(rows.features))


def _datasets() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise ModuleNotFoundError(
            "data=hf_dataset needs datasets: pip install 'ls-lightning[hf]'", name="datasets"
        ) from None
    return datasets
