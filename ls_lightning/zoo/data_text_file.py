"""Texts from files."""

from pathlib import Path
from typing import Unpack

from .data_text import TextData, TextOptions
from .text_file import read_tables
from .text_table import TextTable


class TextFileData(TextData):
    r"""Texts and labels of a ``.csv``, ``.tsv``, ``.jsonl`` or ``.json`` file, or of a folder of them.

    Splits are the keys of a ``.json`` file, the files ``train.csv``, ``val.csv``, ``test.csv`` of a folder, or what a
    column says; see :func:`~ls_lightning.zoo.text_file.read_tables` for the forms, `TextData` for the rest.

    Args:
        path: of the file or folder, relative to the working directory.
        text: the column of texts.
        label: the column of labels.
        split: the column that names the split of a row, if there is one.
        **options: see `TextData`.

    Raises:
        ValueError: an option is out of range or, in ``setup``, a file cannot be read, or its rows do not fit.
        FileNotFoundError: in ``setup``, there is no such file.

    Example:
        >>> import tempfile
        >>> rows = "".join(f"{word} morning,{word}\n" for word in ["good", "bad"] * 10)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lines = Path(folder, "mine.csv").write_text("text,label\n" + rows)
        ...     data = TextFileData(f"{folder}/mine.csv")
        ...     data.setup()
        >>> data.classes, data.input_shape, len(data.train_set), len(data.val_set), len(data.test_set)
        (['bad', 'good'], (3,), 14, 2, 4)
    """

    def __init__(
        self,
        path: str,
        *,
        text: str = "text",
        label: str = "label",
        split: str | None = None,
        **options: Unpack[TextOptions],
    ) -> None:
        super().__init__(**options)
        self.path = Path(path).expanduser()
        self.text, self.label, self.split = text, label, split

    def find(self) -> dict[str, TextTable]:
        """Read the file."""
        return read_tables(self.path, self.text, self.label, self.split)
