"""python -m experiments: see command_line."""

from .command_line import main

if __name__ == "__main__":
    raise SystemExit(main())
