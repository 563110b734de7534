"""The two data sets that scikit-learn carries inside its package: nothing is downloaded."""

from typing import Any, Unpack

import torch

from ls_lightning.seeds import mixed_seed

from .checks import check_scale, check_share
from .data_base import ClassificationData, LoaderOptions, Parts


class DigitsData(ClassificationData):
    """1797 handwritten digits, 8x8 grey pixels, 10 classes: inputs ``(N, 1, 8, 8)``, targets int64 ``(N,)``.

    Args:
        val_fraction: share of all samples for validation, in (0, 1).
        test_fraction: share of all samples for testing, in (0, 1).
        input_noise: standard deviation of normal noise added once to every image of all splits, in units of full
            brightness, at least 0; 0.5 leaves a network to memorise and be overconfident.
        **options: see `ClassificationData`.

    Raises:
        ValueError: an option is out of range.
        ModuleNotFoundError: in ``setup``, scikit-learn is missing.

    Example:
        >>> data = DigitsData(label_noise=0.4)
        >>> data.setup()
        >>> data.task, data.num_classes, data.input_shape
        ('multiclass', 10, (1, 8, 8))

    Source: E. Alpaydin, C. Kaynak, UCI Optical Recognition of Handwritten Digits (the test part), CC BY 4.0.
    """

    def __init__(
        self,
        *,
        val_fraction: float = 0.2,
        test_fraction: float = 0.3,
        input_noise: float = 0.0,
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__("multiclass", **options)
        self.val_fraction = check_share("val_fraction", val_fraction)
        self.test_fraction = check_share("test_fraction", test_fraction)
        self.input_noise = check_scale("input_noise", input_noise)

    def load(self) -> Parts:
        """Cut the 1797 digits."""
        digits = _sklearn_datasets("digits").load_digits()
        images = torch.from_numpy(digits.images).to(torch.float32).unsqueeze(1)
        if self.input_noise:
            rng = torch.Generator().manual_seed(mixed_seed("input_noise", self.split_seed))
            images = images + 16 * self.input_noise * torch.randn(images.shape, generator=rng)
        labels = torch.from_numpy(digits.target).long()
        self.num_classes = 10
        return self.cut(images, labels, self.val_fraction, self.test_fraction)


class BreastCancerData(ClassificationData):
    """569 tumours, 30 measurements each: inputs ``(N, 30)``, targets float32 ``(N,)``, 1 is benign.

    Args:
        val_fraction: share of all samples for validation, in (0, 1).
        test_fraction: share of all samples for testing, in (0, 1).
        **options: see `ClassificationData`.

    Raises:
        ValueError: an option is out of range.
        ModuleNotFoundError: in ``setup``, scikit-learn is missing.

    Example:
        >>> data = BreastCancerData()
        >>> data.setup()
        >>> data.task, data.num_classes, data.num_outputs, data.input_shape
        ('binary', 2, 1, (30,))

    Source: W. Wolberg et al., UCI Breast Cancer Wisconsin (Diagnostic), CC BY 4.0.
    """

    def __init__(
        self, *, val_fraction: float = 0.2, test_fraction: float = 0.3, **options: Unpack[LoaderOptions]
    ) -> None:
        super().__init__("binary", **options)
        self.val_fraction = check_share("val_fraction", val_fraction)
        self.test_fraction = check_share("test_fraction", test_fraction)

    def load(self) -> Parts:
        """Cut the 569 tumours."""
        tumours = _sklearn_datasets("breast_cancer").load_breast_cancer()
        features = torch.from_numpy(tumours.data).to(torch.float32)
        labels = torch.from_numpy(tumours.target).long()
        self.num_classes = 2
        return self.cut(features, labels, self.val_fraction, self.test_fraction)


def _sklearn_datasets(name: str) -> Any:
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sklearn":
            raise
        raise ModuleNotFoundError(
            f"data={name} needs scikit-learn: pip install 'ls-lightning[data]'", name="sklearn"
        ) from None
    return datasets
