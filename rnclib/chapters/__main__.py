"""Print the names of the chapters, one a line; with ``quick`` after each the parameters of a newcomer's first run."""

import sys

from rnclib.chapters import NAMES, chapter

if __name__ == "__main__":
    for name in NAMES:
        options = chapter(name).quick.items() if sys.argv[1:] == ["quick"] else ()
        print(name, *(word for option in options for word in ("-p", *option)))
