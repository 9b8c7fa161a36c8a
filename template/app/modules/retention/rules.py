"""What the service lets go of: each slice has rules for its own data, and one job follows them all."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from app.ports.jobs.tasks import Running

# Lets go of what is too old at a time, and counts it. It commits itself, and may be called again after a failure.
Rule = Callable[[Running, datetime], Awaitable[int]]
RULES: dict[str, Rule] = {}


def lets_go(what: str) -> Callable[[Rule], Rule]:
    """Make a function the rule for something, such as "old drafts". Raises TypeError for a second one."""

    def add(rule: Rule) -> Rule:
        if what in RULES:
            raise TypeError(f"{what}: there is such a rule already.")
        RULES[what] = rule
        return rule

    return add
