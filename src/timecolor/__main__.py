"""`python -m timecolor` is `timecolor`."""

from timecolor.cli import main

if __name__ == "__main__":
    main()
