"""Lets `python -m batchscore` be the command line."""

from batchscore.cli import main

if __name__ == "__main__":
    main()
