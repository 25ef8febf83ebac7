"""How fast we are, beside a hand-written limit and the peers, measured in one run: `python -m bench CASE --json`."""
