"""`leap-repro COMMAND`: the commands that people call, each of them a module that can be called by itself."""

from __future__ import annotations

import runpy
import sys

import leap_repro

COMMANDS = {
    "prune": ("leap_repro.own_model", "prune a model of your own and export it"),
    "export": ("leap_repro.export", "write a cell of a run as a checkpoint: dense, packed or 2:4"),
    "unpack": ("leap_repro.export.unpack", "turn a packed or 2:4 export into a dense checkpoint"),
    "generate": ("leap_repro.export.generate", "generate text from an export, packed or dense"),
    "config": ("leap_repro.pipeline.reading", "print the resolved configuration of a run"),
    "plan": ("leap_repro.costs.plan", "print the cost of a grid before it runs"),
    "pin": ("leap_repro.pipeline.pin", "pin the hub's models and data of a configuration"),
    "progress": ("leap_repro.costs.progress", "show the state of the run in this folder"),
    "verify": ("leap_repro.report.verify", "compare a finished run with the published one"),
}


def main() -> None:
    """Run the module of the command; without one, say which there are."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in COMMANDS:
        module = COMMANDS[name][0]
        sys.argv = [module, *sys.argv[2:]]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    elif name in ("-h", "--help"):
        print(usage())
    elif name in ("-V", "--version"):
        print(f"leap-repro {leap_repro.__version__}")
    else:
        wrong = f"leap-repro: there is no command {name!r}\n" if name else ""
        print(f"{wrong}{usage()}", file=sys.stderr)
        sys.exit(2)


def usage() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {command:<{width}}  {words} (python -m {module})" for command, (module, words) in COMMANDS.items()]
    return "\n".join(["usage: leap-repro COMMAND …, leap-repro COMMAND --help, or leap-repro --version", *lines])


if __name__ == "__main__":
    main()
