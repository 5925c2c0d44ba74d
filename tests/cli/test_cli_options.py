"""Commands and options are those of pgqueuer, and ours besides."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def described(group: Any) -> dict[str, Any]:
    """Commands and parameters of a Typer application, without help texts."""
    commands: dict[str, Any] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            commands.update({f"{name} {sub}": d for sub, d in described(command).items()})
            continue
        commands[name] = parameters(command)
    return commands


def parameters(command: Any) -> dict[str, Any]:
    return {
        parameter.name: {
            "spelled": sorted([*parameter.opts, *parameter.secondary_opts]),
            "default": str(getattr(parameter.default, "value", parameter.default)),
            "required": parameter.required,
            "hidden": getattr(parameter, "hidden", False),
            "variable": parameter.envvar,
            "flag": getattr(parameter, "is_flag", False),
            "repeatable": getattr(parameter, "multiple", False),
            "values": parameter.nargs,
        }
        for parameter in command.params
        if parameter.name != "help"
    }


def test_same_options_as_pgqueuer() -> None:
    import typer.main
    from pgqueuer.adapters.cli.cli import app as theirs

    from pgq_fast.cli.app import app as ours

    our_program, their_program = (typer.main.get_command(app) for app in (ours, theirs))
    our_commands, their_commands = described(our_program), described(their_program)
    # On purpose: the size of a batch tunes itself.
    size = their_commands["run"]["batch_size"]
    their_commands["run"]["batch_size"] = {**size, "default": "None"}
    # Ours alone.
    for name in ("processes", "supervised", "log_format", "metrics_port", "metrics_host"):
        del our_commands["run"][name]
    assert {name: our_commands.get(name) for name in their_commands} == their_commands
    renamed = {
        "factory_fn_ref" if name == "factory" else name: value
        for name, value in parameters(our_program).items()
    }
    assert renamed.pop("layout")["spelled"] == ["--layout"]
    assert renamed.pop("show_traceback")["spelled"] == ["--traceback"]
    assert renamed == parameters(their_program)


def test_the_page_tells_of_every_option() -> None:
    import typer.main

    from pgq_fast.cli.app import app

    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    common, *sections = text.split("\n## pgq ")
    pages = {section.split("\n", 1)[0]: section for section in sections}
    program = typer.main.get_command(app)
    commands = described(program)
    assert pages.keys() == {name.split()[0] for name in commands}
    for name, options in {"": parameters(program), **commands}.items():
        page = pages[name.split()[0]] if name else common
        for option in options.values():
            for spelled in option["spelled"]:
                if not option["hidden"] and spelled.startswith("-"):
                    assert f"`{spelled}" in page, f"pgq {name} {spelled}"
