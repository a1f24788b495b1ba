"""`python -m heatbox` is the command `heatbox`."""

from heatbox.cli import main

if __name__ == "__main__":
    main()
