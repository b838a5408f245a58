"""Fuzz readers, each in a process of its own, so that a crash or a hang of one is told."""

import argparse
import subprocess
import sys

from . import harness


def main() -> int:
    parser = argparse.ArgumentParser(description=harness.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('readers', nargs='*', metavar='READER',
                        help=f"of {', '.join(harness.names())}; default: all")
    parser.add_argument('--seconds', type=float, default=300, help='for each reader')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--here', action='store_true', help='in this process (for a debugger)')
    args = parser.parse_args()
    if unknown := set(args.readers) - set(harness.names()):
        parser.error(f"no reader is called {', '.join(sorted(unknown))}; "
                     f"there are {', '.join(harness.names())}")
    failed = []
    for name in args.readers or harness.names():
        if args.here:
            harness.fuzz(harness.load(name), args.seconds, args.seed)
            continue
        command = [sys.executable, '-m', 'tests.fuzz', name, '--here',
                   '--seconds', str(args.seconds), '--seed', str(args.seed)]
        if status := subprocess.run(command).returncode:
            failed.append(f'{name} (status {status})')
    if failed:
        print('findings in: ' + ', '.join(failed))
    return bool(failed)


if __name__ == '__main__':
    sys.exit(main())
