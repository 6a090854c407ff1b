"""The server profile on one machine: PostgreSQL, an S3 server, MLflow, a Ray of two nodes, Prometheus, the endpoint.

python -m infra.stack up      # starts what does not run; then `sonarc run --profile <data>/stack.yaml`
python -m infra.stack status
python -m infra.stack down    # data, secrets and logs stay
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path

from infra.stack.layout import Layout, default_folder
from infra.stack.ports import USUAL, ports_of
from infra.stack.services import services, write_profile
from infra.stack.supervisor import Supervisor, running
from pipelines.server import read_server_profile
from sonarc.contracts import log
from sonarc.contracts.errors import ConfigError, SonarcError

INTERRUPTED = 130


def main() -> None:
    """Exit code 1: `status` found a service that has died; else the error's own."""
    log.setup("WARNING")
    for name in (signal.SIGTERM, signal.SIGINT):  # where a shell starts it in the background, the latter is ignored
        signal.signal(name, signal.default_int_handler)
    arguments = _arguments()
    try:
        sys.exit(arguments.act(arguments))
    except SonarcError as error:
        print(f"Error: {error.message}\n{error.hint}".strip(), file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("Interrupted: `up` goes on from here, `down` ends what runs.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def up(arguments: argparse.Namespace) -> int:
    """Start what does not run."""
    folder: Path = arguments.data
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o711)  # PostgreSQL's user passes through root's; nobody looks round
    os.umask(0o077)
    ports = ports_of(folder, dict(arguments.port), running=running(folder))
    layout = Layout(folder, ports, arguments.cpus, arguments.object_store_mb << 20)
    kept = services(layout)
    write_profile(layout)
    started = Supervisor(folder, kept, _say).up()
    _say(f"{len(started)} started, {len(kept) - len(started)} ran already. Use them with: --profile {layout.profile}")
    return 0


def down(arguments: argparse.Namespace) -> int:
    """End all."""
    ended = Supervisor(arguments.data, services(_layout(arguments)), _say).down()
    _say(f"{len(ended)} ended. Data, secrets and logs are in {arguments.data}.")
    return 0


def status(arguments: argparse.Namespace) -> int:
    """How each stands."""
    died = False
    for found in Supervisor(arguments.data, services(_layout(arguments)), _say).status():
        process = f"pid {found.pid}" if found.state == "running" else ""
        _say(f"{found.service.name:<12}{found.state:<9}{process:<13}{found.service.address}")
        if found.state == "died":
            died = True
            _say(f"  The end of its log, {found.log}:")
            _say("\n".join(f"  {line}" for line in found.log_tail.splitlines()))
    return int(died)


def env(arguments: argparse.Namespace) -> int:
    """The profile's environment, for other clients."""
    path = _layout(arguments).profile
    for name, value in read_server_profile(path).environment(path.parent).items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _layout(arguments: argparse.Namespace) -> Layout:
    folder: Path = arguments.data
    if not (folder / "stack.yaml").exists():
        raise ConfigError(f"There is no stack in {folder}.", "Start one: make stack, or python -m infra.stack up.")
    return Layout(folder, ports_of(folder), cpus=1, memory=0)


def _say(text: str) -> None:
    print(text, flush=True)


def _port(text: str) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if not equals or not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PORT")
    return name, int(number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infra.stack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--data", type=lambda text: Path(text).absolute(), default=default_folder(),
        help="folder of data, secrets, logs and the profile; default: %(default)s",
    )  # fmt: skip
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    told = {
        up: "start what does not run",
        status: "how each stands; exits with 1 where one has died",
        down: "end all, the last first; data stay",
        env: "its environment as shell commands, secrets among them",
    }
    for act, said in told.items():
        verb = verbs.add_parser(act.__name__, help=said, parents=[common])
        verb.set_defaults(act=act)
        if act is up:
            verb.add_argument(
                "--port", action="append", default=[], type=_port, metavar="NAME=PORT",
                help=f"a port of one's own; repeat for more. NAME is one of {', '.join(USUAL)}",
            )  # fmt: skip
            verb.add_argument(
                "--cpus", type=int, default=4, help="CPUs that each Ray node declares; default: %(default)s"
            )
            verb.add_argument(
                "--object-store-mb",
                type=int,
                default=1024,
                help="MiB of each node's object store; default: %(default)s",
            )
    return parser.parse_args()


if __name__ == "__main__":
    main()
