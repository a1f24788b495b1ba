"""The conformance kit: does an explainer keep the plugin contract? `heatbox plugins test` and a pytest fixture ask it.

It runs the explainer on tiny networks whose answer is known and judges each rule of `RULES`::

    for finding in check_explainer(GradCAM()):
        print(finding.rule, finding.passed, finding.message, finding.remedy)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from heatbox.contract import Explainer
from heatbox.errors import HeatboxError
from heatbox_workers.conformance.bench import Bench, default_benches
from heatbox_workers.conformance.checks import refusal
from heatbox_workers.conformance.rules import FITS, RULES, SUPPORTS, Rule
from heatbox_workers.conformance.state import preserved

__all__ = ["RULES", "Bench", "Finding", "Rule", "as_text", "check_explainer", "default_benches"]


@dataclass(frozen=True)
class Finding:
    """What became of one rule.

    Attributes:
        rule: its id.
        passed: whether the explainer keeps it.
        message: what was expected, and where it is broken what came.
        remedy: how to mend it; empty where it is kept.
    """

    rule: str
    passed: bool
    message: str
    remedy: str = ""


def check_explainer(explainer: Explainer, benches: Sequence[Bench] | None = None) -> list[Finding]:
    """Judge the rules of the plugin contract; takes seconds.

    Args:
        explainer: with the options that it is to be judged with.
        benches: networks to judge it on; default: a GAP network, one with ReLU and a vision transformer. What
            `supports` refuses is left out.

    Returns:
        One finding per rule that could be judged, in the order of `RULES`. A rule that needs a broken one is missing.
    """
    asked = default_benches() if benches is None else tuple(benches)
    findings: list[Finding] = []
    for rule in RULES:
        passed = {finding.rule for finding in findings if finding.passed}
        if passed.issuperset(rule.needs):
            findings.append(_judge(rule, explainer, asked))
            if rule.id == FITS and findings[-1].passed:
                asked = tuple(bench.fitted(explainer) for bench in _supported(explainer, asked))
    return findings


def as_text(findings: Sequence[Finding]) -> str:
    """Return the broken rules as a report to read, empty where there is none."""
    broken = (finding for finding in findings if not finding.passed)
    return "\n".join(
        f"{finding.rule}: {finding.message}\n  how to mend it: {finding.remedy}" for finding in broken
    )


def _judge(rule: Rule, explainer: Explainer, benches: Sequence[Bench]) -> Finding:
    if rule.per_class and getattr(explainer, "class_agnostic", False):
        return Finding(
            rule.id, passed=True, message=f"{rule.expected}: not asked, it says that it knows no class."
        )
    for bench in _asked(rule, explainer, benches):
        came = _came(rule, explainer, bench)
        if came:
            return _broken(rule, f"came on the network `{bench.name}`: {came}")
    if rule.id == SUPPORTS and not _supported(explainer, benches):
        reasons = "; ".join(f"`{bench.name}`: {refusal(explainer, bench)}" for bench in benches)
        return _broken(rule, f"came: none is supported ({reasons})")
    return Finding(rule.id, passed=True, message=f"{rule.expected}.")


def _broken(rule: Rule, came: str) -> Finding:
    return Finding(rule.id, passed=False, message=f"expected: {rule.expected}; {came}.", remedy=rule.remedy)


def _asked(rule: Rule, explainer: Explainer, benches: Sequence[Bench]) -> Sequence[Bench]:
    supported = _supported(explainer, benches) if rule.needs else benches
    return supported[:1] if rule.once else supported


def _supported(explainer: Explainer, benches: Sequence[Bench]) -> list[Bench]:
    return [bench for bench in benches if refusal(explainer, bench) is None]


def _came(rule: Rule, explainer: Explainer, bench: Bench) -> str | None:
    try:
        with preserved():
            return rule.check(explainer, bench)
    except HeatboxError as error:
        return f"it raised {error.code}: {error.sentence.rstrip('.')}"
    except Exception as error:  # noqa: BLE001 - an edge: foreign code may raise anything, and that is the answer
        return f"it raised {type(error).__name__}: {str(error).rstrip('.')}"
