"""`python -m imagepipe`: the same as the command `imagepipe`."""

from imagepipe.cli.main import run

if __name__ == "__main__":
    run()
