"""Print the names of the published chapters, one a line; with ``quick``, all with the parameters of a first run."""

import sys

from rnclib.chapters import NAMES, UNPUBLISHED, chapter

if __name__ == "__main__":
    quick = sys.argv[1:] == ["quick"]
    for name in NAMES:
        if quick or name not in UNPUBLISHED:
            options = chapter(name).quick.items() if quick else ()
            print(name, *(word for option in options for word in ("-p", *option)))
