"""Which rule of the settings an image falls under, and why not under another one."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from cxr_client.client import Asking
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


def fingerprint(rules: tuple[Rule, ...]) -> str:
    """Return a hash that is another one if anything in the rules is."""
    text = json.dumps([rule.model_dump(mode="json") for rule in rules], sort_keys=True)
    return sha256(text.encode()).hexdigest()


def question_of(rule: Rule, *, silent: bool) -> str:
    """Return what a rule asks the service, and whether the answer stays here."""
    return json.dumps([rule.model, rule.operating_point, rule.prevalence, silent])


def asking_of(rule: Rule) -> Asking:
    """Return what a rule asks of the service; the service's defaults hold for the rest."""
    asking: Asking = {}
    if rule.model is not None:
        asking["model"] = rule.model
    if rule.operating_point is not None:
        asking["operating_point"] = rule.operating_point
    if rule.prevalence is not None:
        asking["prevalence"] = rule.prevalence
    return asking


def is_answered(rule: Rule, question: str | None) -> bool:
    """Tell whether the answer to an earlier question is the one that a rule asks for."""
    if question == question_of(rule, silent=False):
        return True
    return rule.silent and question == question_of(rule, silent=True)


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
