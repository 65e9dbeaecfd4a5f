"""Which rule of the settings an image falls under, and why not under another one."""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.header import Facts
from gateway.settings import Rule

UNSTATED = "unstated"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a rule, held against an image."""

    name: str
    holds: bool
    wanted: str
    found: str
    """The image's value if it is a word of the rule's own, else only that it is another one."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A rule held against an image."""

    rule: Rule
    conditions: tuple[Condition, ...]

    @property
    def matches(self) -> bool:
        """Whether every condition holds."""
        return all(condition.holds for condition in self.conditions)


def try_rules(rules: tuple[Rule, ...], facts: Facts, source_ae: str) -> list[Trial]:
    """Hold the rules against an image in their order, as far as the first that matches."""
    trials: list[Trial] = []
    for rule in rules:
        trials.append(Trial(rule, tuple(_conditions(rule, facts, source_ae))))
        if trials[-1].matches:
            break
    return trials


def choose(rules: tuple[Rule, ...], facts: Facts, source_ae: str) -> Rule | None:
    """Return the first rule that matches, None if there is none."""
    last = try_rules(rules, facts, source_ae)[-1]
    return last.rule if last.matches else None


def _conditions(rule: Rule, facts: Facts, source_ae: str) -> Iterator[Condition]:
    """Hold each stated condition of a rule against an image."""
    stated = (
        ("calling_ae", rule.calling_ae, source_ae),
        ("modality", rule.modality, facts.modality or UNSTATED),
        ("body_part", rule.body_part, facts.body_part or UNSTATED),
        ("view", rule.view, facts.view or UNSTATED),
    )
    for name, wanted, value in stated:
        if wanted:
            holds = value in wanted
            found = value if holds or value == UNSTATED else "another"
            yield Condition(name, holds, " or ".join(wanted), found)
    if rule.age_years is not None:
        ages = rule.age_years
        wanted_ages = f"{ages.min:g} to {ages.max:g}{' or unstated' if ages.unstated else ''}"
        if facts.age_years is None:
            yield Condition("age_years", ages.unstated, wanted_ages, UNSTATED)
        else:
            holds = ages.min <= facts.age_years <= ages.max
            yield Condition("age_years", holds, wanted_ages, "within" if holds else "outside")
