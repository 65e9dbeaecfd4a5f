"""Say which rule a file falls under, and why the others do not apply."""

from collections.abc import Iterator

from gateway.header import UnreadableHeader, read_facts, read_meta
from gateway.loop_guard import is_foreign
from gateway.presentation_contexts import RADIOGRAPHS
from gateway.rules import Trial, try_rules
from gateway.settings import GatewaySettings


def explain(settings: GatewaySettings, data: bytes, calling_ae: str) -> Iterator[str]:
    """Explain a DICOM file, one line after the other.

    A line names values of the settings; of the file it says no more than that a value is one of
    them, another one, or unstated.
    """
    try:
        class_uid, _, _ = read_meta(data)
        facts = read_facts(data)
    except UnreadableHeader:
        yield "skipped (unreadable): this is no DICOM file, or its header can't be read"
        return
    if class_uid not in RADIOGRAPHS:
        yield "refused (status 0122): its SOP class is none of a plain radiograph"
        return
    if is_foreign(facts):
        yield "skipped (own_result): it is a result, and not an image to be scored"
        return
    trials = try_rules(settings.rules, facts, calling_ae)
    for trial in trials:
        yield from _describe(trial)
    if not trials[-1].matches:
        yield "skipped (no_rule): no rule matches"


def _describe(trial: Trial) -> Iterator[str]:
    rule = trial.rule
    if not trial.matches:
        yield f'rule "{rule.name}" does not apply:'
    elif rule.skip:
        yield f'rule "{rule.name}" applies: the image is skipped (rule)'
    elif rule.silent:
        yield f'rule "{rule.name}" applies: the image is scored, and nothing is sent (silent)'
    else:
        names = " and ".join(rule.destinations)
        kinds = " and ".join(rule.results)
        yield f'rule "{rule.name}" applies: {kinds} to {names}'
    for condition in trial.conditions:
        mark = "yes" if condition.holds else "NO "
        yield f"  {mark} {condition.name} must be {condition.wanted}; it is {condition.found}"
    if trial.matches and not rule.skip:
        yield f"  model {rule.model or 'of the service'}, operating point " + (
            rule.operating_point or "of the model"
        )
