"""The command's way through its topologies."""

from adakd_jax.config.plan import PlanConfig
from adakd_jax.console import Console
from adakd_jax.planning.compile import Plan, plan_for
from adakd_jax.planning.hardware import Topology, read_topology
from adakd_jax.planning.inputs import devices_of
from adakd_jax.planning.report import print_plan, print_summary, write_json
from adakd_jax.planning.search import search_for


def run_plans(config: PlanConfig, *, search: bool, console: Console | None = None) -> bool:
    """Plan for every topology, print and write what was found; returns whether all fit."""
    console = console or Console()
    places = [read_topology(name, config.mesh.slices) for name in config.topology]
    for place in places:
        devices_of(place)  # that there are none is said before anything is compiled
    found = []
    for place in places:
        found.append(_plan(config, place, search, console))
        print_plan(console, *found[-1])
        if config.json is not None:  # each at once: a compilation takes minutes
            write_json(found, config.json)
    plans = [plan for _, plan in found]
    if len(plans) > 1:
        print_summary(console, plans)
    return all(plan.memory.fits for plan in plans)


def _plan(
    config: PlanConfig, place: Topology, search: bool, console: Console
) -> tuple[PlanConfig, Plan]:
    """The settings that were planned for, and the plan."""
    if search:
        return search_for(config, place, console)
    with console.status(f"compiling the train step for {place.title}"):
        return config, plan_for(config, place)
