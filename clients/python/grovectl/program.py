"""The program: its commands by name, each loaded only when it runs."""

from __future__ import annotations

import importlib
from typing import Final, NamedTuple

import click

from grovectl.session import global_options


class Entry(NamedTuple):
    """Where a command is, and what it does in a few words."""

    module: str
    function: str
    summary: str


COMMANDS: Final = {
    "api-resources": Entry("about", "api_resources", "Show the kinds of resources."),
    "apply": Entry("changing", "apply", "Create or change what manifests describe."),
    "autoscale": Entry("scaling", "autoscale", "Let scaling policies rest, or size a role by hand, for a time."),
    "completion": Entry("about", "completion", "Print the completion script of a shell."),
    "cordon": Entry("changing", "cordon", "Keep new pods off nodes."),
    "debug": Entry("debugging", "debug", "Take evidence from a server: debug dump."),
    "defrag": Entry("picturing", "defrag", "Plan moves that make room; moves nothing."),
    "delete": Entry("deleting", "delete", "Delete resources."),
    "describe": Entry("describing", "describe", "Show all about resources, with their story and events."),
    "drain": Entry("draining", "drain", "Let pods leave nodes, a few at a time."),
    "events": Entry("describing", "events", "Show what happened."),
    "exec": Entry("executing", "execute", "Run a command beside a container."),
    "explain": Entry(
        "explaining", "explain", "Show why a gang waits or is where it is, or why a policy scales as it does."
    ),
    "get": Entry("reading", "get", "Show resources."),
    "label": Entry("marking", "label", "Set and remove labels of simulated nodes."),
    "logs": Entry("logs", "logs", "Show what containers wrote."),
    "map": Entry("picturing", "map_", "Draw the cluster by topology, shaded by use."),
    "node": Entry("changing", "node", "Let simulated nodes fail and come back: node down, node up."),
    "rollout": Entry("rollout", "rollout", "Follow and steer the updates of a set."),
    "scale": Entry("changing", "scale", "Set the size of a set, a group or a clique."),
    "simulate": Entry(
        "simulating", "simulate", "Show what placement would do, if nodes came or went too; changes nothing."
    ),
    "taint": Entry("marking", "taint", "Put taints on simulated nodes and take them off."),
    "top": Entry("topping", "top", "Show what pods and nodes use."),
    "tree": Entry("tree", "tree", "Show a set with everything in it."),
    "uncordon": Entry("changing", "uncordon", "Let new pods onto nodes again."),
    "version": Entry("about", "version", "Show the versions of client and server."),
    "wait": Entry("waiting", "wait", "Wait until resources are in a state."),
}


class Commands(click.Group):
    """A group that loads the module of a command when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Return all names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 -- click's signature
        """Load one command; None if there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(f"grovectl.{entry.module}"), entry.function)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 -- click's signature
        """Write the list of commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].summary) for name in sorted(COMMANDS)])


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@global_options
def program(**_options: object) -> None:
    """Show and steer what Grove Server runs.

    Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 timeout, 5 conflict.
    """
