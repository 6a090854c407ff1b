"""All rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from infra.check import budget, launcher, network, references, workloads
from infra.check.render import Document

Rule = Callable[[Sequence[Document]], Iterator[str]]

RULES: tuple[Rule, ...] = (
    workloads.exact_images,
    workloads.nobody_is_root,
    workloads.confined_containers,
    workloads.bounded_resources,
    workloads.no_plain_secrets,
    workloads.tokens_where_needed,
    workloads.lasting_pods,
    workloads.budgets,
    network.services_stay_inside,
    network.policies_cover_all,
    network.policies_name_peers,
    network.inner_ports,
    network.ports_exist,
    references.secrets_are_documented,
    references.names_resolve,
    references.everything_in_its_place,
    references.narrow_rights,
    launcher.settings_are_valid,
    budget.fits,
)


def breaches(documents: Sequence[Document]) -> list[str]:
    """What the rules have against an overlay."""
    return [breach for rule in RULES for breach in rule(documents)]
