"""python -m solvers_bridge.dynamics.native [--clear]: list or delete the graphs that were compiled ahead of time."""

from __future__ import annotations

import argparse

from . import cache


def main():
    parser = argparse.ArgumentParser(prog="python -m solvers_bridge.dynamics.native", description=__doc__.partition(": ")[2])
    parser.add_argument("--clear", action="store_true", help="delete them; they are compiled again when needed")
    if parser.parse_args().clear:
        print(f"{cache.clear()} compiled graphs deleted from {cache.directory()}")
        return
    for path in cache.entries():
        print(f"{path.stat().st_size / 1024:8.0f} KiB  {path}")
    print(f"{len(cache.entries())} compiled graphs in {cache.directory()}")


if __name__ == "__main__":
    main()
