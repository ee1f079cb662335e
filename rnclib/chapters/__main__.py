"""Print the names of the chapters, one a line; with ``quick``, with the parameters of a first run."""

import sys

from rnclib.chapters import NAMES, chapter

if __name__ == "__main__":
    quick = sys.argv[1:] == ["quick"]
    for name in NAMES:
        options = chapter(name).quick.items() if quick else ()
        print(name, *(word for option in options for word in ("-p", *option)))
