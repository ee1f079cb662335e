# make report: set up, train the quick profile on this machine, build the book
# make test:   set up, run the default tests

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Several processes with one thread each are faster here than one with several.
export OMP_NUM_THREADS ?= 1

# For the PDF of the book; without one of these, its single page can be printed in any browser.
CHROMIUM ?= $(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name))))

.PHONY: help env report test book single chapters check package lock clean

help:
	@sed -n 's/^# make/make/p' Makefile
	@echo "make env:    only set up the virtual environment .venv"
	@echo "make book:   only build the book from what is there"
	@echo "make single: the book on a single page and, where Chromium is installed, as a PDF"
	@echo "make chapters: run the notebooks on the committed records, for the published pages"
	@echo "make check:  lint, format and type checks"
	@echo "make package: build the wheel and the sdist, and try the loss from each, with PyTorch and NumPy alone"
	@echo "make lock:   write .constraints.txt from what is installed"
	@echo "make clean:  remove the built book, the built packages and this machine's own runs"

env: $(STAMP)

$(STAMP): pyproject.toml .constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or later is needed; {sys.executable} is {v[0]}.{v[1]} (make PYTHON=/path/to/python3.11)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar on -c .constraints.txt -e '.[notebooks,book,test]'
	@touch $@

# Each chapter's quick profile on this machine; records and pages go to ignored folders.
report: env
	@$(BIN)/python -m rnclib.first_run
	set -e; chapters="$$($(BIN)/python -m rnclib.chapters quick)"; \
	printf '%s\n' "$$chapters" | while read -r name parameters; do \
		$(BIN)/python -m rnclib.report notebooks/$$name.ipynb book/local/$$name.ipynb $$parameters < /dev/null; \
	done
	$(MAKE) book
	@$(BIN)/python -m rnclib.first_run found

book: env
	$(BIN)/jupyter-book build book/ -W -n --keep-going
	@test -f _build/html/index.html
	@echo "The book: $(CURDIR)/_build/html/index.html"

# Whoever is root may start Chromium only without its sandbox; the page is our own.
single: env
	$(BIN)/jupyter-book build book/ --builder singlehtml -W -n --keep-going
	@test -f _build/singlehtml/index.html
ifneq ($(CHROMIUM),)
	$(CHROMIUM) --headless --disable-gpu $(if $(filter 0,$(shell id -u)),--no-sandbox) --no-pdf-header-footer \
		--virtual-time-budget=300000 --print-to-pdf=_build/book.pdf "file://$(CURDIR)/_build/singlehtml/index.html"
	@echo "The book as a PDF: $(CURDIR)/_build/book.pdf"
else
	@echo "No Chromium here: print the page from a browser, or name one: make single CHROMIUM=/path/to/it"
endif
	@echo "The book on a single page: $(CURDIR)/_build/singlehtml/index.html"

chapters: env
	set -e; chapters="$$($(BIN)/python -m rnclib.chapters)"; \
	for name in $$chapters; do \
		$(BIN)/python -m rnclib.report notebooks/$$name.ipynb book/chapters/$$name.ipynb; \
	done

# Other tests: for example make test SELECT="-m browser", every page of the book in Chromium.
test: env
	$(BIN)/python -m pytest -n 2 --dist worksteal $(SELECT)

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The loss from the wheel and from the sdist, each in an empty environment: of the newest versions, or of those named,
# as in "make package TORCH=2.4.0 NUMPY=1.23.5 FOR=python3.11".
package: env
	rm -rf dist
	$(BIN)/python -m build
	set -e; for file in dist/*; do \
		place="$$(mktemp -d)"; trap 'rm -rf "$$place"' EXIT; \
		$(or $(FOR),$(PYTHON)) -m venv "$$place"; \
		"$$place/bin/python" -m pip install "$$file" torch$(if $(TORCH),==$(TORCH)) numpy$(if $(NUMPY),==$(NUMPY)); \
		"$$place/bin/python" -I tests/installed.py; \
		rm -rf "$$place"; \
	done

# The exact versions of everything installed, without where they came from.
lock: env
	$(BIN)/python -m pip freeze --exclude-editable > .constraints.txt
	@touch $(STAMP)

clean:
	rm -rf _build dist book/local book/results/quick book/results/smoke
