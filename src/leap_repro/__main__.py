"""`leap-repro COMMAND`: the commands that people call, each of them a module that can be called by itself."""

from __future__ import annotations

import runpy
import sys

COMMANDS = {
    "prune": ("leap_repro.own_model", "prune a model of your own and take it home"),
    "export": ("leap_repro.export", "write a cell of a run as a checkpoint: dense, packed or 2:4"),
    "unpack": ("leap_repro.export.unpack", "turn a packed or 2:4 export into a dense checkpoint"),
    "generate": ("leap_repro.export.generate", "let an export write text, packed as it is"),
    "config": ("leap_repro.pipeline.reading", "print the configuration as a run resolves it"),
    "plan": ("leap_repro.costs.plan", "say what a grid costs before it runs"),
    "pin": ("leap_repro.pipeline.pin", "pin the hub's models and data of a configuration"),
    "progress": ("leap_repro.costs.progress", "show how far the run in this folder is"),
    "verify": ("leap_repro.report.verify", "compare a finished run with the published one"),
}


def main() -> None:
    """Run the module of the command; without one, or an unknown one, say which there are."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in COMMANDS:
        width = max(map(len, COMMANDS))
        lines = [f"  {command:<{width}}  {words} (python -m {module})" for command, (module, words) in COMMANDS.items()]
        print("\n".join(["usage: leap-repro COMMAND …, and leap-repro COMMAND --help", *lines]))
        sys.exit(0 if name in ("-h", "--help") else 2)
    module = COMMANDS[name][0]
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
