"""Runs the program and turns every end of it into lines on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from grovectl.failures import EXIT_INTERRUPTED, EXIT_USAGE, Failure
from grovectl.program import program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `grovectl` with *arguments* (those of the process, if None); returns the exit code."""
    # gRPC's own log goes to stderr, where only our lines belong; who wants it sets the variable. gRPC reads it when the
    # command's module imports it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        result = program.main(args=arguments, prog_name="grovectl", standalone_mode=False)
        sys.stdout.flush()
    except Failure as failure:
        for line in failure.lines:
            click.echo(f"error: {line}", err=True)
        return failure.exit_code
    except click.exceptions.NoArgsIsHelpError as help_text:
        click.echo(help_text.format_message(), err=True)
        return EXIT_USAGE
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        click.echo(f"error: {error.format_message()}{hint}", err=True)
        return EXIT_USAGE
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return _let_go_of_the_pipe()
    except SystemExit:
        # Asked not to end the program, click still does when a command met a closed pipe, and only then.
        return _let_go_of_the_pipe()
    return result if isinstance(result, int) else 0


def _let_go_of_the_pipe() -> int:
    """Return the exit code when the reader (`head`, say) has enough. Python must not flush into it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
