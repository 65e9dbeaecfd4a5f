"""Probabilities and thresholds for a prevalence other than that of the training images."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrevalenceShift:
    """Move probabilities from the training prevalence to a stated one (Saerens et al. 2002).

        logit(p') = logit(p) + logit(stated) - logit(training)

    It holds if the two populations differ in prevalence only.
    Sensitivity and specificity are then the same in both, and so an operating point
    is too: its threshold moves exactly as the probability does, and no label changes.

    Raises:
        ValueError: a share is not between 0 and 1, both excluded.
    """

    training: float
    stated: float

    def __post_init__(self) -> None:
        if not (0 < self.training < 1 and 0 < self.stated < 1):
            raise ValueError("a prevalence lies between 0 and 1, both excluded")

    def apply(self, probability: float) -> float:
        """Shift a probability or a threshold, written in odds so that 0 and 1 stay what they
        are.
        """
        ratio = self.stated / (1 - self.stated) * (1 - self.training) / self.training
        return probability * ratio / (probability * ratio + (1 - probability))
