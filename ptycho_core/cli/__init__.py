"""The command line: `ptycho …`. Flags come from the configuration classes (specs/configuration.md).

Every command imports what it needs when it runs, so that `ptycho --help` answers at once.
"""

from __future__ import annotations

import os
import sys

import click

from ptycho_core import __version__
from ptycho_core.cli import files, running, solving
from ptycho_core.errors import PtychoError
from ptycho_core.settings.fields import flag_of

EXIT_INPUT, EXIT_INTERRUPT = 2, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ptycho")
def cli() -> None:
    """Ptychographic images from physics-informed networks.

    A setting is given by a flag, by an environment variable such as PTYCHO_BATCH_SIZE, or in a file.
    Precedence: flag, environment variable, file.
    """


for command in (*running.COMMANDS, *solving.COMMANDS, *files.COMMANDS):
    cli.add_command(command)


def main() -> None:
    """Run one command; an error of the input exits with 2 and an interrupt with 130, both without a traceback."""
    # The framework's chatter would drown our lines; a real failure raises. Its first lines come before it reads this.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except PtychoError as error:
        click.echo(f"Error: {error.line(flag_of)}", err=True)
        sys.exit(EXIT_INPUT)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        sys.exit(EXIT_INTERRUPT)
