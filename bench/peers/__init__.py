"""The peers: one module per engine, run with the interpreter of the engine's own environment.

`bench/pins/NAME.txt` is the definition of the environment NAME; `python -m bench.peers [NAME ...]` builds it
under bench/.venvs. The pins of the peers clash, hence one environment each.
"""
